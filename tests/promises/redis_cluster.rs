//! A Redis Cluster that changes under load: a master is lost, slots move, every connection is cut at once.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use branchline::store::redis::{RedisOptions, RedisStore};
use branchline::store::{Appended, Store};
use futures_util::future::join_all;

use crate::redis_faults::options;
use crate::redis_load::Load;
use crate::store_contract::{PATIENCE, event};
use crate::support::eventually;
use crate::support::redis_server::{RedisCluster, RedisServer, cli};

const PARTITIONS: u16 = 16;

async fn open(cluster: &RedisCluster) -> Arc<dyn Store> {
    let options = RedisOptions { partitions: PARTITIONS, ..options() };
    Arc::new(RedisStore::open(cluster.target(), options).await.expect("the store opens"))
}

/// Appends to each partition all the time, and notes how long each took nothing.
struct Probes {
    stop: Arc<AtomicBool>,
    /// By partition: the longest time without an append that succeeded, and when the last one did.
    gaps: Arc<Mutex<Vec<(Duration, Instant)>>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Probes {
    async fn start(store: &Arc<dyn Store>) -> Self {
        let mut aggregates = vec![String::new(); usize::from(PARTITIONS)];
        for n in 0.. {
            let mut probe = event(&format!("probe_{n}"));
            probe.aggregate_id = format!("aggregate_{n}").into();
            let aggregate = probe.aggregate_id.clone();
            let [Appended::Stored(position)] = store.append(vec![probe]).await.unwrap()[..] else {
                panic!("it is new")
            };
            aggregates[usize::from(position.partition)] = aggregate.to_string();
            if aggregates.iter().all(|aggregate| !aggregate.is_empty()) {
                break;
            }
        }
        let stop = Arc::new(AtomicBool::new(false));
        let gaps = Arc::new(Mutex::new(vec![(Duration::ZERO, Instant::now()); aggregates.len()]));
        let tasks = aggregates.into_iter().enumerate().map(|(partition, aggregate)| {
            let (store, stop, gaps) = (Arc::clone(store), Arc::clone(&stop), Arc::clone(&gaps));
            tokio::spawn(async move {
                for n in 0.. {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let mut probe = event(&format!("probe_{partition}_{n}"));
                    probe.aggregate_id = (&*aggregate).into();
                    if store.append(vec![probe]).await.is_ok() {
                        let (longest, last) = &mut gaps.lock().unwrap()[partition];
                        *longest = last.elapsed().max(*longest);
                        *last = Instant::now();
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            })
        });
        let tasks = tasks.collect();
        Self { stop, gaps, tasks }
    }

    /// Waits until every partition has taken an event since.
    async fn all_have_taken_one_since(&self, since: Instant) {
        eventually("every partition takes events", PATIENCE * 2, async || {
            self.gaps.lock().unwrap().iter().all(|(_, last)| *last > since).then_some(())
        })
        .await;
    }

    async fn end(self) -> Vec<Duration> {
        self.stop.store(true, Ordering::SeqCst);
        join_all(self.tasks).await;
        self.gaps.lock().unwrap().iter().map(|(longest, _)| *longest).collect()
    }
}

/// The partitions that a node has.
fn partitions_of(node: &RedisServer) -> HashSet<usize> {
    let keys = node.cli(&["--scan", "--pattern", "{bl:*}:events"]);
    keys.lines().filter_map(|key| key.strip_prefix("{bl:")?.split('}').next()?.parse().ok()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_takes_the_place_of_a_killed_master_and_the_other_partitions_go_on() {
    let cluster = RedisCluster::start_with_replicas();
    // Without this the other masters refuse as well, until the replica is a master.
    for node in cluster.all() {
        node.cli(&["config", "set", "cluster-require-full-coverage", "no"]);
    }
    let store = open(&cluster).await;
    let probes = Probes::start(&store).await;
    let load = Load::start(Arc::clone(&store), 8);
    load.more_accepted(500).await;
    let killed = &cluster.nodes()[1];
    let (affected, copied) = (partitions_of(killed), load.accepted_ids());
    load.more_accepted(100).await;
    let at = Instant::now();
    killed.kill();
    // What was answered and not yet copied is lost: without `wait` nobody had promised more.
    let last = load.accepted_ids().difference(&copied).cloned().collect();
    probes.all_have_taken_one_since(at + Duration::from_millis(100)).await;
    let recovered = at.elapsed();
    let gaps = probes.end().await;
    let longest = |of_killed: bool| {
        let of = gaps.iter().enumerate().filter(|(partition, _)| affected.contains(partition) == of_killed);
        of.map(|(_, gap)| *gap).max().expect("each master has partitions")
    };
    eprintln!("without events: {:?} on the killed master, {:?} on the others", longest(true), longest(false));
    assert!(recovered < Duration::from_secs(20), "{recovered:?}");
    assert!(longest(false) < Duration::from_secs(3), "{:?}", longest(false));
    eprintln!("a master of a Cluster was killed: {}", load.end_but_for(&last).await);
}

/// Moves a slot as `redis-cli --cluster reshard` does, and stays half-way for a moment.
async fn move_slot(cluster: &RedisCluster, slot: &str) {
    let masters = cluster.nodes();
    let has_keys = |node: &RedisServer| node.cli(&["cluster", "countkeysinslot", slot]).trim() != "0";
    let from = masters.iter().position(has_keys).expect("somebody has the slot");
    let to = (from + 1) % masters.len();
    let (from, to) = (&masters[from], &masters[to]);
    let id = |node: &RedisServer| node.cli(&["cluster", "myid"]).trim().to_owned();
    let ok = |answer: String| assert_eq!(answer.trim(), "OK");
    ok(to.cli(&["cluster", "setslot", slot, "importing", &id(from)]));
    ok(from.cli(&["cluster", "setslot", slot, "migrating", &id(to)]));
    let port = to.port().to_string();
    for count in ["1", "100"] {
        loop {
            let keys = from.cli(&["cluster", "getkeysinslot", slot, count]);
            let keys: Vec<_> = keys.lines().filter(|key| !key.is_empty()).collect();
            if keys.is_empty() {
                break;
            }
            let mut migrate = vec!["migrate", "127.0.0.1", &port, "", "0", "5000", "keys"];
            migrate.extend(keys);
            from.cli(&migrate);
            if count == "1" {
                break;
            }
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    for node in [to, from].into_iter().chain(masters) {
        ok(node.cli(&["cluster", "setslot", slot, "node", &id(to)]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_that_move_under_load_lose_nothing() {
    let cluster = RedisCluster::start();
    let store = open(&cluster).await;
    let probes = Probes::start(&store).await;
    let load = Load::start(Arc::clone(&store), 16);
    load.more_accepted(500).await;
    for partition in [0, 1, 2, 0] {
        let slot = cluster.nodes()[0].cli(&["cluster", "keyslot", &format!("{{bl:{partition}}}:events")]);
        move_slot(&cluster, slot.trim()).await;
        probes.all_have_taken_one_since(Instant::now()).await;
        load.more_accepted(200).await;
    }
    let mut gaps = probes.end().await;
    let longest = gaps.iter().max().copied().unwrap_or_default();
    gaps.drain(..3);
    eprintln!("without events: {longest:?} at most, {:?} in what did not move", gaps.iter().max());
    eprintln!("4 slots moved: {}", load.end().await);
}

/// A third of a master's slots, moved to the next by the tool that operators use, while events come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reshard_under_load_loses_nothing() {
    let cluster = RedisCluster::start();
    let store = open(&cluster).await;
    let probes = Probes::start(&store).await;
    let load = Load::start(Arc::clone(&store), 16);
    load.more_accepted(500).await;
    let [from, to, ..] = cluster.nodes() else { panic!("there are three masters") };
    let id = |node: &RedisServer| node.cli(&["cluster", "myid"]).trim().to_owned();
    let before = partitions_of(from);
    let arguments = [
        "--cluster".to_owned(),
        "reshard".to_owned(),
        format!("127.0.0.1:{}", from.port()),
        "--cluster-from".to_owned(),
        id(from),
        "--cluster-to".to_owned(),
        id(to),
        "--cluster-slots".to_owned(),
        "5461".to_owned(),
        "--cluster-yes".to_owned(),
    ];
    let port = from.port();
    let resharding =
        tokio::task::spawn_blocking(move || cli(port, &arguments.iter().map(String::as_str).collect::<Vec<_>>()));
    // The tool prints a line for each slot; what it can't move it says.
    let printed = tokio::time::timeout(PATIENCE * 6, resharding).await.expect("it comes to its end").unwrap();
    assert!(!printed.contains("ERR"), "{}", &printed[printed.len().saturating_sub(1_000)..]);
    load.more_accepted(200).await;
    probes.all_have_taken_one_since(Instant::now()).await;
    let longest = probes.end().await.into_iter().max().unwrap_or_default();
    assert!(!before.is_empty() && partitions_of(from).is_empty(), "its partitions have moved: {before:?}");
    eprintln!("without events: {longest:?} at most; {} partitions moved: {}", before.len(), load.end().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_connection_to_a_cluster_may_be_cut_at_once() {
    let cluster = RedisCluster::start_with_replicas();
    let store = open(&cluster).await;
    let load = Load::start(Arc::clone(&store), 16);
    for _ in 0..5 {
        load.more_accepted(300).await;
        for node in cluster.all() {
            node.cli(&["client", "kill", "type", "normal"]);
        }
    }
    load.more_accepted(300).await;
    eprintln!("all connections were cut 5 times: {}", load.end().await);
}
