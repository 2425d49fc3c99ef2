//! The checker against the real system, sabotaged: a link to Redis that swallows one step in so many and answers as if
//! it had been done, a database of the embedded store that does the same. The router can't know; the checker must.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rusqlite::Connection;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use crate::ledger::{Findings, Violation};
use crate::run::{MODERATE, run};
use crate::servers::Servers;
use crate::support::redis_server::RedisServer;
use crate::world::{Kind, Setting, World};

/// Enough to be lied about.
const EVENTS: usize = 300;
const PATIENCE: Duration = Duration::from_secs(60);

/// Which step is swallowed, and what the router is told instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Swallowed {
    /// Events are answered as stored and are not.
    Append,
    /// Events are answered as settled and are not.
    Settlement,
}

impl Swallowed {
    /// Whether a script is called for this step, by the kinds of its first keys.
    fn is(self, keys: &[&[u8]]) -> bool {
        let begins = |key: usize, name: &str| {
            keys.get(key).is_some_and(|key| String::from_utf8_lossy(key).contains(&format!("}}:{name}")))
        };
        match self {
            Self::Append => begins(0, "events") && begins(1, "ids:"),
            Self::Settlement => begins(0, "events") && begins(1, "owner:") && begins(2, "due"),
        }
    }

    /// A script that does nothing and answers as the real one would.
    fn script(self) -> &'static [u8] {
        match self {
            Self::Append => {
                b"#!lua\nlocal t = redis.call('TIME') local now = t[1] * 1000 local reply = {now}\n\
                  for n = 1, (#ARGV - 4) / 3 do reply[n + 1] = string.format('%.0f-%d', now, n) end return reply"
            }
            Self::Settlement => b"#!lua\nreturn {'WRITTEN', 0}",
        }
    }
}

/// Forwards to Redis on `port`, and swallows one such step in `every`. Gives the port it listens on.
async fn sabotaged(port: u16, step: Swallowed, every: usize, done: Arc<AtomicUsize>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let own = listener.local_addr().expect("it is bound").port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { continue };
            let ((from_client, mut to_client), (mut from_server, to_server)) =
                (client.into_split(), server.into_split());
            tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
            tokio::spawn(forward(from_client, to_server, step, every, Arc::clone(&done)));
        }
    });
    own
}

async fn forward(
    from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    step: Swallowed,
    every: usize,
    done: Arc<AtomicUsize>,
) -> std::io::Result<()> {
    let mut from = BufReader::new(from);
    let mut seen = 0;
    loop {
        let mut command = read(&mut from).await?;
        if matches!(&command[0][..], b"EVALSHA" | b"EVAL") {
            let count: usize = String::from_utf8_lossy(&command[2]).parse().unwrap_or(0);
            let keys: Vec<&[u8]> = command[3..].iter().take(count).map(Vec::as_slice).collect();
            if step.is(&keys) {
                seen += 1;
                if seen % every == 0 {
                    command[0] = b"EVAL".to_vec();
                    command[1] = step.script().to_vec();
                    done.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        let mut bytes = format!("*{}\r\n", command.len()).into_bytes();
        for part in &command {
            bytes.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
            bytes.extend_from_slice(part);
            bytes.extend_from_slice(b"\r\n");
        }
        to.write_all(&bytes).await?;
    }
}

/// Reads one command as clients write them: an array of strings.
async fn read(from: &mut BufReader<OwnedReadHalf>) -> std::io::Result<Vec<Vec<u8>>> {
    let mut parts = vec![Vec::new(); number(from).await?];
    for part in &mut parts {
        part.resize(number(from).await? + 2, 0);
        from.read_exact(part).await?;
        part.truncate(part.len() - 2);
    }
    Ok(parts)
}

/// A line such as `*3` or `$12`.
async fn number(from: &mut BufReader<OwnedReadHalf>) -> std::io::Result<usize> {
    let mut line = String::new();
    from.read_line(&mut line).await?;
    let digits = line.trim_end().get(1..).unwrap_or_default();
    digits.parse().map_err(|_| std::io::ErrorKind::UnexpectedEof.into())
}

/// A run over a sabotaged link.
async fn with(step: Swallowed, every: usize) -> Findings {
    let redis = RedisServer::start("always");
    let done = Arc::new(AtomicUsize::new(0));
    let port = sabotaged(redis.port(), step, every, Arc::clone(&done)).await;
    let stores = vec![format!("redis://127.0.0.1:{port}")];
    let world = World::start_on(Setting::of(Kind::Redis), Some(Servers::Single(redis)), stores, vec![]).await;
    let name = format!("sabotage: {step:?}");
    let ran = run(&name, 1, MODERATE, world, async |world| world.until_acknowledged(EVENTS, PATIENCE).await).await;
    assert!(done.load(Ordering::Relaxed) > 0, "nothing was sabotaged");
    ran.findings
}

/// What the embedded store's database does not write, although it says that it has: one row in so many of these tables,
/// which is noted. With an event goes its place among what waits, with an outcome its place in the list of outcomes: else it would
/// be seen by chance, when the next one after a restart takes its number.
fn lie(database: &Connection, tables: &[&str], every: usize) {
    let mut triggers = String::from("CREATE TABLE lied (seq INTEGER);");
    for table in tables {
        let number = if *table == "outcome_of" { "outcome" } else { "seq" };
        triggers += &format!(
            "CREATE TRIGGER lie_{table} BEFORE INSERT ON {table} WHEN NEW.{number} % {every} = 0
             BEGIN INSERT INTO lied VALUES (NEW.{number}); SELECT RAISE(IGNORE); END;"
        );
    }
    database.execute_batch(&triggers).expect("the database can be made to lie");
}

/// Ends the lies. Gives how many there were.
fn confess(database: &Connection, tables: &[&str]) -> i64 {
    for table in tables {
        database.execute_batch(&format!("DROP TRIGGER lie_{table}")).expect("it can be made honest");
    }
    let count = database.query_row("SELECT count(*) FROM lied", [], |row| row.get(0)).expect("it can be asked");
    database.execute_batch("DROP TABLE lied").expect("it can be made honest");
    count
}

/// A run over a database that lies about these tables.
async fn with_a_liar(tables: &[&str], every: usize) -> Findings {
    let world = World::start(Setting::of(Kind::Embedded)).await;
    let file = world.store_folder().await.join("branchline.db");
    let open = || Connection::open(&file).expect("the database opens");
    // Nobody else may write while it is changed.
    {
        let mut router = world.routers[0].lock().await;
        assert!(router.stop().await.success());
        lie(&open(), tables, every);
        router.start().await;
    }
    let ran = run(&format!("sabotage: {tables:?} (Embedded)"), 1, MODERATE, world, async |world| {
        world.until_acknowledged(EVENTS, PATIENCE).await;
        // What the router has in memory it delivers. After a restart there is only what was written.
        let mut router = world.routers[0].lock().await;
        assert!(router.stop().await.success());
        assert!(confess(&open(), tables) > 0, "nothing was sabotaged");
        router.start().await;
    })
    .await;
    ran.findings
}

fn has(findings: &Findings, kind: impl Fn(&Violation) -> bool) -> bool {
    findings.violations.iter().any(kind)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_was_acknowledged_and_not_stored_is_found_with_redis() {
    let findings = with(Swallowed::Append, 20).await;
    assert!(has(&findings, |violation| matches!(violation, Violation::Lost(_))), "{:?}", findings.violations);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settlement_that_was_not_written_is_found_with_redis() {
    let findings = with(Swallowed::Settlement, 20).await;
    let is_found = |violation: &Violation| matches!(violation, Violation::RepeatWithoutFault(..));
    assert!(has(&findings, is_found), "{:?}", findings.violations);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_was_acknowledged_and_not_stored_is_found_with_the_embedded_store() {
    let findings = with_a_liar(&["event", "pending"], 20).await;
    assert!(has(&findings, |violation| matches!(violation, Violation::Lost(_))), "{:?}", findings.violations);
}

/// A row of outcomes has those of all that was settled in one commit.
#[tokio::test(flavor = "multi_thread")]
async fn a_settlement_that_was_not_written_is_found_with_the_embedded_store() {
    let findings = with_a_liar(&["outcome", "outcome_of"], 5).await;
    assert!(has(&findings, |violation| matches!(violation, Violation::Lost(_))), "{:?}", findings.violations);
}
