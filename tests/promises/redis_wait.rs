//! What is waited for before an event counts as stored: replicas, disks.

use std::sync::Arc;
use std::time::Duration;

use branchline::store::redis::{RedisOptions, RedisStore, RedisTarget, Wait};
use branchline::store::{Appended, Error, Store};
use futures_util::future::join_all;

use crate::redis_faults::options;
use crate::redis_load::Load;
use crate::store_contract::{PATIENCE, event, events};
use crate::support::eventually;
use crate::support::redis_server::{RedisCluster, RedisServer, newer};

async fn open(target: RedisTarget, wait: Wait) -> Arc<dyn Store> {
    let options = RedisOptions { wait: Some(wait), ..options() };
    Arc::new(RedisStore::open(target, options).await.expect("the store opens"))
}

fn one_replica() -> Wait {
    Wait { replicas: 1, timeout: Duration::from_millis(300), ..Wait::default() }
}

/// For where nothing is refused, however busy the machine is.
fn one_replica_at_last() -> Wait {
    Wait { timeout: Duration::from_secs(5), ..one_replica() }
}

fn replica_of(master: &RedisServer) -> RedisServer {
    RedisServer::start_with(&["--appendonly", "no", "--replicaof", &format!("127.0.0.1 {}", master.port())])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_no_replica_has_is_refused_and_so_is_its_repetition_until_one_has_it() {
    let master = RedisServer::start("no");
    let store = open(master.target(), one_replica()).await;
    for _ in 0..2 {
        let refusal = store.append(vec![event("evt_1")]).await.unwrap_err();
        assert!(matches!(&refusal, Error::Away(text) if text.contains("0 of 1 replicas")), "{refusal:?}");
    }
    // Another router knows no more of it than that it is there.
    let other = open(master.target(), one_replica()).await;
    assert!(matches!(other.append(vec![event("evt_1")]).await, Err(Error::Away(_))));
    let _replica = replica_of(&master);
    let answers =
        eventually("a replica has it", PATIENCE, async || other.append(vec![event("evt_1")]).await.ok()).await;
    assert_eq!(answers, [Appended::Duplicate]);
    assert!(matches!(store.append(vec![event("evt_2")]).await.unwrap()[..], [Appended::Stored(_)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_wait_serves_many_events() {
    let master = RedisServer::start("no");
    let _replica = replica_of(&master);
    let store = open(master.target(), one_replica_at_last()).await;
    eventually("a replica is there", PATIENCE, async || store.append(vec![event("first")]).await.ok()).await;
    master.cli(&["config", "resetstat"]);
    let answers = join_all((0..2_000).map(|n| store.append(vec![event(&format!("evt_{n}"))]))).await;
    assert!(answers.iter().all(Result::is_ok));
    let commands = master.cli(&["info", "commandstats"]);
    let calls =
        commands.split("cmdstat_wait:calls=").nth(1).and_then(|rest| rest.split(',').next()?.parse::<u32>().ok());
    let calls = calls.expect("it waited");
    assert!(calls <= 100, "{calls} waits for 2000 events");
    eprintln!("{calls} waits for 2000 events");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_that_was_forgotten_is_sent_again_with_the_wait() {
    let master = RedisServer::start("no");
    let _replica = replica_of(&master);
    let store = open(master.target(), one_replica_at_last()).await;
    eventually("a replica is there", PATIENCE, async || store.append(vec![event("first")]).await.ok()).await;
    master.cli(&["script", "flush"]);
    // More than one call's worth.
    let answers = store.append(events("evt", 1_000)).await.unwrap();
    assert!(answers.iter().all(|answer| matches!(answer, Appended::Stored(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_cluster_the_replica_of_the_right_master_is_waited_for() {
    let cluster = RedisCluster::start_with_replicas();
    let store = open(cluster.target(), Wait { timeout: Duration::from_secs(1), ..one_replica() }).await;
    let answers = join_all((0..200).map(|n| store.append(vec![event(&format!("evt_{n}"))]))).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    // Without its replica one master's events are not safe; the others' are.
    cluster.replica_of(0).kill();
    let answers = join_all((0..60).map(|n| store.append(vec![event(&format!("later_{n}"))]))).await;
    let stored = answers.iter().filter(|answer| answer.is_ok()).count();
    assert!((20..60).contains(&stored), "{stored} of 60 were stored");
}

/// With `everysec` the events of about a second are lost when Redis is killed, unless the disk is waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_disk_waited_for_a_killed_redis_takes_nothing_with_it() {
    for name in ["redis-8.2", "valkey-9.1"] {
        let Some(program) = newer(name) else { continue };
        let server = RedisServer::start_program(&program, &["--appendonly", "yes", "--appendfsync", "everysec"]);
        let wait = Wait { fsync: true, timeout: Duration::from_secs(4), ..Wait::default() };
        let load = Load::start(open(server.target(), wait).await, 64);
        for _ in 0..3 {
            load.more_accepted(100).await;
            server.kill();
            server.restart();
        }
        eprintln!("{name}, everysec, the disk waited for, 3 kills: {}", load.end().await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_for_the_disk_is_refused_where_redis_can_not() {
    let wait = Wait { fsync: true, ..Wait::default() };
    let options = RedisOptions { wait: Some(wait), ..options() };
    let server = RedisServer::start("everysec");
    if server.cli(&["info", "server"]).contains("redis_version:7.0") {
        let refusal = RedisStore::open(server.target(), options).await.err().expect("it is refused").to_string();
        assert!(refusal.contains("`store.redis.wait.fsync` needs Redis 7.2"), "{refusal}");
    }
}
