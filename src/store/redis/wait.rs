//! What an accepted event is waited for beyond the master's memory: replicas, disks. One command for many events,
//! on the connection that stored them, because the server counts what that connection wrote.

use std::time::Duration;

use redis::{Cmd, Value};

use super::fault::Fault;
use super::reply;
use crate::delivery::whole_millis;

/// What must be so before an event counts as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// So many replicas have it; with `fsync`, on their disks.
    pub replicas: u16,
    /// It is on the master's disk.
    pub fsync: bool,
    /// After this long it counts as not stored, although it may be: the producer is to send it again.
    pub timeout: Duration,
}

impl Default for Wait {
    fn default() -> Self {
        Self { replicas: 0, fsync: false, timeout: Duration::from_secs(2) }
    }
}

impl Wait {
    /// What waits for everything that its connection wrote before.
    pub(super) fn command(&self) -> Cmd {
        let mut command = redis::cmd(if self.fsync { "WAITAOF" } else { "WAIT" });
        if self.fsync {
            command.arg(1);
        }
        command.arg(self.replicas).arg(whole_millis(self.timeout));
        command
    }

    /// Whether the answer says that enough have it.
    pub(super) fn check(&self, answer: Value) -> Result<(), Fault> {
        let (on_disk, replicas) = if self.fsync {
            let counts = reply::array(answer)?.iter().map(reply::count).collect::<Result<Vec<_>, _>>()?;
            let [local, replicas] = counts[..] else { return Err(Fault::strange("WAITAOF")) };
            (local > 0, replicas)
        } else {
            (true, reply::count(&answer)?)
        };
        if on_disk && replicas >= u64::from(self.replicas) {
            return Ok(());
        }
        let Self { replicas: wanted, timeout, .. } = self;
        let disk = if on_disk { "" } else { "it is not on the master's disk, " };
        Err(Fault::Unconfirmed(format!("{disk}{replicas} of {wanted} replicas have it after {timeout:?}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enough_is_as_many_as_wanted() {
        let replicas = Wait { replicas: 2, ..Wait::default() };
        assert!(replicas.check(Value::Int(1)).is_err());
        assert!(replicas.check(Value::Int(3)).is_ok());
        let disks = Wait { replicas: 1, fsync: true, ..Wait::default() };
        let answer = |local, replicas| disks.check(Value::Array(vec![Value::Int(local), Value::Int(replicas)]));
        assert!(answer(0, 1).is_err());
        assert!(answer(1, 0).is_err());
        assert!(answer(1, 1).is_ok());
        assert!(disks.check(Value::Int(1)).is_err());
    }
}
