//! A master, two replicas and three Sentinels, all real, on loopback; stopped when they are dropped.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use branchline::secret::Secret;
use branchline::store::redis::{RedisTarget, SentinelTarget};
use tempfile::TempDir;

use super::redis_server::{RedisServer, START_TIME_MAX, cli, free_port};

const REPLICAS: usize = 2;
const SENTINELS: usize = 3;
/// What the Sentinels call the master.
const SERVICE: &str = "main";

struct Sentinel {
    port: u16,
    child: Child,
    _folder: TempDir,
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A master whose successor is found by Sentinels a second after it is gone.
pub struct RedisSentinels {
    // Dropped first, so that they see nobody end.
    sentinels: Vec<Sentinel>,
    servers: Vec<RedisServer>,
}

impl RedisSentinels {
    /// Starts all of them, and waits until they know each other.
    pub fn start() -> Self {
        let master = RedisServer::start("always");
        let follow = format!("127.0.0.1 {}", master.port());
        let mut servers = vec![master];
        for _ in 0..REPLICAS {
            let replica = ["--appendonly", "yes", "--appendfsync", "always", "--replicaof", &follow];
            servers.push(RedisServer::start_with(&replica));
        }
        let sentinels = (0..SENTINELS).map(|_| start_sentinel(servers[0].port())).collect();
        let started = Self { sentinels, servers };
        let began = Instant::now();
        while !started.know_each_other() {
            assert!(began.elapsed() < START_TIME_MAX, "the Sentinels did not find each other");
            std::thread::sleep(Duration::from_millis(50));
        }
        started
    }

    fn know_each_other(&self) -> bool {
        self.sentinels.iter().all(|sentinel| {
            let about = cli(sentinel.port, &["sentinel", "master", SERVICE]);
            let value =
                |name: &str| about.lines().skip_while(|line| *line != name).nth(1).unwrap_or_default().to_owned();
            value("num-slaves") == REPLICAS.to_string() && value("num-other-sentinels") == (SENTINELS - 1).to_string()
        }) && self.servers[1..].iter().all(|replica| replica.cli(&["info", "replication"]).contains("link_status:up"))
    }

    /// Where they listen.
    pub fn target(&self) -> RedisTarget {
        RedisTarget::Sentinel(SentinelTarget {
            sentinels: self
                .sentinels
                .iter()
                .map(|one| Secret::new(format!("redis://127.0.0.1:{}", one.port)))
                .collect(),
            sentinel_user: None,
            sentinel_password: None,
            service: SERVICE.to_owned(),
            master: Secret::new("redis://master"),
        })
    }

    /// The same, as the config has it.
    pub fn url(&self) -> String {
        let hosts: Vec<_> = self.sentinels.iter().map(|one| format!("127.0.0.1:{}", one.port)).collect();
        format!("redis+sentinel://{}/{SERVICE}", hosts.join(","))
    }

    /// The port of the master that more than half of the Sentinels name.
    pub fn named(&self) -> Option<u16> {
        let named: Vec<u16> = self
            .sentinels
            .iter()
            .filter_map(|one| {
                cli(one.port, &["sentinel", "get-master-addr-by-name", SERVICE]).lines().nth(1)?.parse().ok()
            })
            .collect();
        named.iter().copied().find(|port| named.iter().filter(|other| *other == port).count() * 2 > SENTINELS)
    }

    /// The server with this port.
    pub fn server(&self, port: u16) -> &RedisServer {
        self.servers.iter().find(|server| server.port() == port).expect("the Sentinels name one of ours")
    }

    /// The master.
    pub fn master(&self) -> &RedisServer {
        self.server(self.named().expect("the Sentinels agree"))
    }

    /// Lets the Sentinels make another server the master although this one is well.
    pub fn fail_over(&self) {
        assert_eq!(cli(self.sentinels[0].port, &["sentinel", "failover", SERVICE]).trim(), "OK");
    }
}

fn start_sentinel(master: u16) -> Sentinel {
    for _ in 0..5 {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let port = free_port();
        let file = folder.path().join("sentinel.conf");
        let text = format!(
            "port {port}\nbind 127.0.0.1\nlogfile sentinel.log\ndir \"{}\"\nsentinel monitor {SERVICE} 127.0.0.1 {master} 2\n\
             sentinel down-after-milliseconds {SERVICE} 1000\nsentinel failover-timeout {SERVICE} 4000\n",
            folder.path().display()
        );
        std::fs::write(&file, text).expect("the folder can be written to");
        let mut child = spawn(&file);
        let began = Instant::now();
        while began.elapsed() < START_TIME_MAX && child.try_wait().expect("it can be asked").is_none() {
            if cli(port, &["ping"]).trim() == "PONG" {
                return Sentinel { port, child, _folder: folder };
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = child.kill();
        let _ = child.wait();
    }
    panic!("a Sentinel can't be started");
}

fn spawn(file: &Path) -> Child {
    Command::new("redis-server")
        .arg(file)
        .arg("--sentinel")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server is installed")
}
