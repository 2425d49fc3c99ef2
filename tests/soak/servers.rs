//! The Redis servers of a run: one alone, a master with replicas and Sentinels, or a Cluster.

use std::process::{Command, Output};
use std::time::Duration;

use branchline::store::redis::{RedisOptions, RedisTarget};
use tokio::task::block_in_place;

use crate::clocks::MachineClock;
use crate::support::eventually;
use crate::support::redis_sentinel::RedisSentinels;
use crate::support::redis_server::{RedisCluster, RedisServer};

/// How long a replica may take to be a master, and the old one to be its replica.
const FAIL_OVER_TIME_MAX: Duration = Duration::from_secs(60);
/// What `store.redis.partitions` is with a Cluster.
const PARTITIONS_OF_CLUSTER: u16 = 16;

/// What routers keep their events in.
pub enum Servers {
    Single(RedisServer),
    Sentinels(RedisSentinels),
    Cluster(RedisCluster),
}

impl Servers {
    /// A server that is alone, and takes this for its machine's clock, if not that one.
    pub fn single_by(clock: Option<&MachineClock>) -> Self {
        let program = clock.map_or_else(|| "redis-server".into(), |clock| clock.before("redis-server"));
        let arguments = ["--appendonly", "yes", "--appendfsync", "always"];
        Self::Single(RedisServer::start_program(&program, &arguments))
    }

    /// A Cluster each of whose masters has a replica, and where one that is lost holds up only its own partitions.
    pub fn cluster() -> Self {
        let cluster = RedisCluster::start_with_replicas();
        for node in cluster.all() {
            set(node, "cluster-require-full-coverage", "no");
        }
        Self::Cluster(cluster)
    }

    /// Where the routers find them, as a config has it.
    pub fn url(&self) -> String {
        match self {
            Self::Single(server) => server.url().expose().to_owned(),
            Self::Sentinels(sentinels) => sentinels.url(),
            Self::Cluster(cluster) => {
                let hosts: Vec<_> = cluster.all().map(|node| format!("127.0.0.1:{}", node.port())).collect();
                format!("redis+cluster://{}", hosts.join(","))
            }
        }
    }

    /// The same, for the router's own code.
    pub fn target(&self) -> RedisTarget {
        match self {
            Self::Single(server) => server.target(),
            Self::Sentinels(sentinels) => sentinels.target(),
            Self::Cluster(cluster) => cluster.target(),
        }
    }

    /// With what the router's own code opens them: as many partitions as a config has by default.
    pub fn options(&self) -> RedisOptions {
        let partitions = if matches!(self, Self::Cluster(_)) { PARTITIONS_OF_CLUSTER } else { 1 };
        RedisOptions { partitions, ..RedisOptions::default() }
    }

    /// The one server of a run that has one.
    pub fn single(&self) -> &RedisServer {
        match self {
            Self::Single(server) => server,
            Self::Sentinels(_) | Self::Cluster(_) => panic!("this run has several servers"),
        }
    }

    /// Those that are masters now, each with a part of the keys or all.
    pub fn masters(&self) -> Vec<&RedisServer> {
        match self {
            Self::Single(server) => vec![server],
            Self::Sentinels(sentinels) => vec![sentinels.master()],
            Self::Cluster(cluster) => cluster.all().filter(|node| is_master(node)).collect(),
        }
    }

    /// How many routers have a name in the store. Of a Cluster's masters one has them; the others refuse the question.
    pub fn names(&self) -> Option<usize> {
        self.masters().iter().find_map(|server| server.cli(&["hlen", "bl:proc"]).trim().parse().ok())
    }

    /// What the masters say of the events that wait: for whoever has to find out why they do.
    pub fn about_waiting(&self) -> String {
        let mut about = String::new();
        for server in self.masters() {
            for key in server.cli(&["--scan", "--pattern", "*}:events"]).lines() {
                for command in [
                    &["xinfo", "groups", key][..],
                    &["xinfo", "consumers", key, "g"],
                    &["xpending", key, "g", "-", "+", "3"],
                ] {
                    about += &format!("\n{command:?}: {}", server.cli(command).replace('\n', " "));
                }
            }
            about += &server.cli(&["hgetall", "bl:proc"]).replace('\n', " ");
        }
        about
    }

    /// Takes a master away in this manner, waits until a replica has its place, lets it be missing for a while, gives it
    /// back, and waits until there are as many masters as before and as many replicas follow them.
    pub async fn lose_master(&self, manner: Manner, missing: Duration, chance: &mut fastrand::Rng) {
        let masters = self.masters();
        let lost = masters[chance.usize(..masters.len())];
        let heir = || self.heir(lost);
        manner.take(lost);
        eventually("a replica takes its place", FAIL_OVER_TIME_MAX, async || heir().then_some(())).await;
        tokio::time::sleep(missing).await;
        block_in_place(|| manner.give_back(lost));
        eventually("the servers are whole again", FAIL_OVER_TIME_MAX, async || self.are_whole().then_some(())).await;
    }

    /// Whether there are as many masters as there should be, and all others follow one.
    fn are_whole(&self) -> bool {
        let (all, masters): (Vec<_>, _) = match self {
            Self::Single(_) => return true,
            Self::Sentinels(sentinels) => (sentinels.all().collect(), 1),
            Self::Cluster(cluster) => (cluster.all().collect(), cluster.nodes().len()),
        };
        let (of_masters, replicas): (Vec<_>, Vec<_>) = all.into_iter().partition(|server| is_master(server));
        let follows = |server: &&RedisServer| server.cli(&["info", "replication"]).contains("master_link_status:up");
        of_masters.len() == masters && replicas.iter().all(follows)
    }

    /// Whether another server has the place of this one, by what those say that are there.
    fn heir(&self, lost: &RedisServer) -> bool {
        match self {
            Self::Single(_) => false,
            Self::Sentinels(sentinels) => sentinels.named().is_some_and(|port| port != lost.port()),
            Self::Cluster(cluster) => {
                let there = cluster.all().filter(|node| node.port() != lost.port());
                there.filter(|node| is_master(node)).count() == cluster.nodes().len()
            }
        }
    }
}

/// Changes a setting of a server. What could not be set does no harm, and so shows nothing.
pub fn set(server: &RedisServer, name: &str, value: &str) {
    assert_eq!(told(server, &["config", "set", name, value]).trim(), "OK", "{name} is not {value}");
}

/// What a server that must answer says: neither silence nor an error.
pub fn told(server: &RedisServer, arguments: &[&str]) -> String {
    let port = server.port().to_string();
    let output = Command::new("redis-cli").args(["-e", "-p", &port]).args(arguments).output();
    let Output { status, stdout, stderr } = output.expect("redis-cli is installed");
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "redis-cli {arguments:?}: {status}\n{stdout}{stderr}");
    stdout.into_owned()
}

fn is_master(server: &RedisServer) -> bool {
    server.cli(&["role"]).starts_with("master")
}

/// How a master goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// `kill -9`.
    Killed,
    /// SIGSTOP: it answers nothing, and comes back as the master that it was.
    Stopped,
}

impl Manner {
    fn take(self, server: &RedisServer) {
        match self {
            Self::Killed => server.kill(),
            Self::Stopped => server.signal("STOP"),
        }
    }

    fn give_back(self, server: &RedisServer) {
        match self {
            Self::Killed => server.restart(),
            Self::Stopped => server.signal("CONT"),
        }
    }
}
