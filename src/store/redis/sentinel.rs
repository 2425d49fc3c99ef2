//! Who is the master: asked of the Sentinels when a connection is made, and twice a second, so that a master which
//! was replaced is left even when it still answers, or answers nothing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::aio::MultiplexedConnection;
use redis::{Client, ConnectionAddr, ConnectionInfo, TlsCertificates, Value};
use tokio::sync::watch;

use super::Phase;
use super::fault::{Fault, server_error};
use super::reply;
use super::target::{SentinelTarget, client, connect_to, connection_info};
use crate::store::Error;

/// How often the Sentinels are asked without a reason.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// How long one may take to answer.
const ASK_TIME_MAX: Duration = Duration::from_millis(800);

/// What a Sentinel says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Named {
    host: String,
    port: u16,
    /// Each fail-over has a higher one.
    epoch: u64,
    /// The fail-over to it is under way: the old master has not been told yet.
    promoted: bool,
}

struct Sentinel {
    client: Client,
    connection: tokio::sync::Mutex<Option<MultiplexedConnection>>,
}

/// The Sentinels of one service.
pub(super) struct Sentinels {
    sentinels: Vec<Sentinel>,
    service: String,
    /// User, password, database and TLS; its address is replaced.
    master: ConnectionInfo,
    /// Who was named last.
    named: Mutex<Option<Named>>,
    /// Counts masters.
    epoch: AtomicU64,
}

impl Sentinels {
    /// Checks the URLs; does not connect yet.
    pub(super) fn new(target: &SentinelTarget, certificates: Option<&TlsCertificates>) -> Result<Self, Error> {
        let sentinel = |url| {
            let info = connection_info(url)?;
            let mut settings = info.redis_settings().clone();
            if let Some(user) = &target.sentinel_user {
                settings = settings.set_username(user);
            }
            if let Some(password) = &target.sentinel_password {
                settings = settings.set_password(password.expose());
            }
            let client = client(info.set_redis_settings(settings), certificates)?;
            Ok(Sentinel { client, connection: tokio::sync::Mutex::default() })
        };
        Ok(Self {
            sentinels: target.sentinels.iter().map(sentinel).collect::<Result<_, Error>>()?,
            service: target.service.clone(),
            master: client(connection_info(&target.master)?, certificates)?.get_connection_info().clone(),
            named: Mutex::default(),
            epoch: AtomicU64::new(0),
        })
    }

    /// Changes when another master is named.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Asks the Sentinels, and notes whom they name.
    pub(super) async fn look(&self) -> Result<(), Fault> {
        self.ask(self.sentinels.len()).await.map(|named| self.note(named))
    }

    /// Asks for the master and connects to it.
    pub(super) async fn connect(&self) -> Result<MultiplexedConnection, Fault> {
        let named = self.ask(self.sentinels.len() / 2 + 1).await?;
        let (host, port) = (named.host.clone(), named.port);
        self.note(named);
        let address = match self.master.addr() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
                ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
            }
            _ => ConnectionAddr::Tcp(host, port),
        };
        let client = Client::open(self.master.clone().set_addr(address)).map_err(|error| Fault::of(&error))?;
        let mut connection = connect_to(&client).await.map_err(|error| Fault::of(&error))?;
        // For a moment the Sentinels may name a server that does not know it yet, or not any more.
        let role = query(&mut connection, redis::cmd("ROLE")).await?.into_iter().next();
        match reply::text(role.unwrap_or(Value::Nil))?.as_str() {
            "master" => Ok(connection),
            role => Err(Fault::Away(format!("the server that the Sentinels name is a {role}, not a master yet"))),
        }
    }

    fn note(&self, named: Named) {
        let mut known = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        let address = |named: &Named| (named.host.clone(), named.port);
        match &*known {
            // A Sentinel that was cut off may lag behind the others.
            Some(known) if named.newness() < known.newness() => return,
            Some(known) if address(known) != address(&named) => {
                tracing::warn!(master = %format_args!("{}:{}", named.host, named.port), "the Sentinels name another master");
                self.epoch.fetch_add(1, Ordering::AcqRel);
            }
            Some(_) | None => {}
        }
        *known = Some(named);
    }

    /// Asks all, until so many have named one. The newest word counts.
    async fn ask(&self, enough: usize) -> Result<Named, Fault> {
        let mut asked: FuturesUnordered<_> =
            self.sentinels.iter().map(|sentinel| sentinel.ask(&self.service)).collect();
        let (mut named, mut failure) = (Vec::new(), None);
        while let Some(answer) = asked.next().await {
            match answer {
                Ok(answer) => named.push(answer),
                Err(fault) => failure = Some(fault),
            }
            if named.len() >= enough {
                break;
            }
        }
        newest(named).ok_or_else(|| match failure {
            Some(Fault::Away(detail)) => Fault::Away(format!("no Sentinel names a master: {detail}")),
            Some(fault) => fault,
            None => Fault::Away("no Sentinel names a master".to_owned()),
        })
    }
}

/// The word of the latest fail-over.
fn newest(named: Vec<Named>) -> Option<Named> {
    named.into_iter().max_by_key(Named::newness)
}

impl Named {
    /// The epoch is raised when a fail-over ends; before that a promoted server is newer than its master.
    fn newness(&self) -> (u64, bool) {
        (self.epoch, self.promoted)
    }
}

impl Sentinel {
    async fn ask(&self, service: &str) -> Result<Named, Fault> {
        let mut connection = self.connection.lock().await;
        let asking = async {
            let known = match connection.take() {
                Some(known) => known,
                None => connect_to(&self.client).await.map_err(|error| Fault::of(&error))?,
            };
            let known = connection.insert(known);
            let mut command = redis::cmd("SENTINEL");
            command.arg("MASTER").arg(service);
            let master = about(query(known, command).await?)?;
            // From the promotion on this names the new master, seconds before the other one does.
            let mut command = redis::cmd("SENTINEL");
            command.arg("GET-MASTER-ADDR-BY-NAME").arg(service);
            following(master, query(known, command).await?)
        };
        let answer = match tokio::time::timeout(ASK_TIME_MAX, asking).await {
            Ok(answer) => answer,
            Err(_elapsed) => Err(Fault::Away(format!("no answer within {ASK_TIME_MAX:?}"))),
        };
        match &answer {
            Ok(_) | Err(Fault::Refused(_)) => {}
            Err(_) => *connection = None,
        }
        answer.map_err(|fault| match fault {
            Fault::Refused(detail) if detail.contains("No such master") => {
                Fault::Refused(format!("the Sentinels know no service `{service}`"))
            }
            Fault::Denied(detail) => Fault::Denied(format!("a Sentinel: {detail}")),
            other => other,
        })
    }
}

async fn query(connection: &mut MultiplexedConnection, command: redis::Cmd) -> Result<Vec<Value>, Fault> {
    let answer = connection.send_packed_command(&command).await.map_err(|error| Fault::of(&error))?;
    match server_error(&answer) {
        Some(error) => Err(Fault::of(&error)),
        None => reply::array(answer),
    }
}

/// What `SENTINEL MASTER` answers: names and values.
fn about(fields: Vec<Value>) -> Result<Named, Fault> {
    let (mut host, mut port, mut epoch) = (None, None, None);
    let mut fields = fields.into_iter();
    while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
        match reply::text(name)?.as_str() {
            "ip" => host = Some(reply::text(value)?),
            "port" => port = u16::try_from(reply::count(&value)?).ok(),
            "config-epoch" => epoch = Some(reply::count(&value)?),
            _ => {}
        }
    }
    match (host, port, epoch) {
        (Some(host), Some(port), Some(epoch)) => Ok(Named { host, port, epoch, promoted: false }),
        _ => Err(Fault::strange("a question to a Sentinel")),
    }
}

/// Where the master is followed by another server already: host and port.
fn following(master: Named, address: Vec<Value>) -> Result<Named, Fault> {
    let Ok([host, port]) = <[Value; 2]>::try_from(address) else { return Ok(master) };
    let host = reply::text(host)?;
    let port = u16::try_from(reply::count(&port)?).map_err(|_| Fault::strange("a question to a Sentinel"))?;
    let promoted = (host.as_str(), port) != (master.host.as_str(), master.port);
    Ok(Named { host, port, promoted, ..master })
}

/// Asks the Sentinels now and then, until the store closes.
pub(super) async fn watch(sentinels: Arc<Sentinels>, mut phase: watch::Receiver<Phase>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(ASK_EVERY) => {}
            _ = phase.wait_for(|phase| *phase != Phase::Open) => return,
        }
        if let Err(fault) = sentinels.look().await {
            tracing::debug!(error = %Error::from(fault), "the Sentinels could not be asked and are asked again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(port: u16, epoch: u64) -> Named {
        Named { host: "127.0.0.1".to_owned(), port, epoch, promoted: false }
    }

    #[test]
    fn the_word_of_the_latest_fail_over_counts() {
        assert_eq!(newest(vec![]), None);
        assert_eq!(newest(vec![named(1, 3), named(2, 4), named(1, 3)]), Some(named(2, 4)));
        let promoted = Named { promoted: true, ..named(2, 3) };
        assert_eq!(newest(vec![named(1, 3), promoted.clone(), named(1, 3)]), Some(promoted.clone()));
        assert_eq!(newest(vec![promoted, named(2, 4)]), Some(named(2, 4)));
    }

    #[test]
    fn another_master_ends_the_connections_to_the_old_one_and_a_lagging_word_does_not() {
        let target = SentinelTarget {
            sentinels: vec![crate::secret::Secret::new("redis://127.0.0.1:1")],
            sentinel_user: None,
            sentinel_password: None,
            service: "main".to_owned(),
            master: crate::secret::Secret::new("redis://master"),
        };
        let sentinels = Sentinels::new(&target, None).unwrap();
        let epochs = [(1, 3), (1, 3), (2, 4), (1, 3), (2, 5)].map(|(port, epoch)| {
            sentinels.note(named(port, epoch));
            sentinels.epoch()
        });
        assert_eq!(epochs, [0, 0, 1, 1, 1]);
    }

    #[test]
    fn an_answer_is_taken_apart() {
        let text = |text: &str| Value::BulkString(text.into());
        let fields = ["name", "main", "ip", "10.0.0.1", "port", "6379", "config-epoch", "7"].map(text).to_vec();
        let master = about(fields).unwrap();
        assert_eq!(master, Named { host: "10.0.0.1".to_owned(), port: 6379, epoch: 7, promoted: false });
        assert_eq!(following(master.clone(), vec![text("10.0.0.1"), text("6379")]).unwrap(), master);
        let promoted = Named { host: "10.0.0.2".to_owned(), promoted: true, ..master.clone() };
        assert_eq!(following(master, vec![text("10.0.0.2"), text("6379")]).unwrap(), promoted);
        assert!(about(vec![text("ip"), text("10.0.0.1")]).is_err());
    }
}
