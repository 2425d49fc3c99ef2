//! Events stored and waited for: the script calls of a batch and one wait for replicas or disks after them, sent
//! together over one connection, so that the wait is for all that they wrote.

use std::time::Duration;

use tokio::time::Instant;

use super::append::{NewEvent, Nonce, read_answer, write_call};
use super::fault::Fault;
use super::link::CALL_TIME_MAX;
use super::wait::Wait;
use super::{Shared, scripts};
use crate::store::Appended;

/// Stores events and waits, again while there is no answer. The nonces make the repetition harmless.
///
/// Duplicates are waited for too: what they repeat may not be safe yet.
pub(super) async fn store_and_wait(
    shared: &Shared,
    partition: u16,
    calls: &[&[&NewEvent]],
    wait: &Wait,
    deadline: Instant,
) -> Result<Vec<Appended>, Fault> {
    // A connection that waits does nothing else, so that a second batch would only spend its time in it.
    let _turn = shared.append_turn(partition).lock().await;
    let calls: Vec<_> = calls.iter().map(|events| (Nonce::new(), *events)).collect();
    let mut pause = Duration::from_millis(20);
    let mut unknown = false;
    loop {
        match tokio::time::timeout_at(deadline, once(shared, partition, &calls, wait, unknown)).await {
            Ok(Ok(Some(appended))) => return Ok(appended),
            Ok(Ok(None)) => {} // The bucket of ids has changed; now we know the server's clock.
            Ok(Err(Fault::NoScript)) => unknown = true,
            Ok(Err(fault)) => {
                if !matches!(fault, Fault::Away(_)) || Instant::now() + pause >= deadline {
                    return Err(fault);
                }
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            Err(_elapsed) => return Err(Fault::Away("no answer in time".to_owned())),
        }
    }
}

/// `unknown`: the server does not know the script yet.
async fn once(
    shared: &Shared,
    partition: u16,
    calls: &[(Nonce, &[&NewEvent])],
    wait: &Wait,
    unknown: bool,
) -> Result<Option<Vec<Appended>>, Fault> {
    let mut commands = Vec::with_capacity(calls.len() + 1);
    for (place, (nonce, events)) in calls.iter().enumerate() {
        let script = &scripts::APPEND;
        let mut command = redis::cmd(if unknown && place == 0 { "EVAL" } else { "EVALSHA" });
        command.arg(if unknown && place == 0 { script.text() } else { script.digest() });
        write_call(&mut command, shared, partition, *nonce, events, None);
        commands.push(command);
    }
    commands.push(wait.command());
    let mut answers = shared.append_link(partition).call_all(commands, CALL_TIME_MAX + wait.timeout).await?;
    let waited = answers.pop().ok_or_else(|| Fault::strange("append"))?;
    if answers.len() != calls.len() {
        return Err(Fault::strange("append"));
    }
    let mut appended = Vec::new();
    for ((_, events), answer) in calls.iter().zip(answers) {
        let Some(of_call) = read_answer(shared, events.len(), answer)? else { return Ok(None) };
        appended.extend(of_call.iter().map(|stored| stored.appended(partition)));
    }
    wait.check(waited)?;
    Ok(Some(appended))
}
