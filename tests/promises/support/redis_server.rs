//! A real redis-server in a folder of its own, alone or as a Cluster of three masters; stopped when it is dropped.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use branchline::secret::Secret;
use branchline::store::redis::RedisTarget;
use tempfile::TempDir;

const START_TIME_MAX: Duration = Duration::from_secs(20);
const MASTERS: usize = 3;

/// One server.
pub struct RedisServer {
    folder: TempDir,
    port: u16,
    arguments: Vec<String>,
    child: Mutex<Child>,
}

impl RedisServer {
    /// Starts a server whose append-only file is synced as `appendfsync` says (`always`, `everysec`, `no`).
    pub fn start(appendfsync: &str) -> Self {
        Self::start_with(&["--appendonly", "yes", "--appendfsync", appendfsync])
    }

    /// Starts a server with these arguments.
    pub fn start_with(arguments: &[&str]) -> Self {
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        // Another process may take the free port between the look and the start; then another one is tried.
        for _ in 0..5 {
            let folder = tempfile::tempdir().expect("a folder can be made");
            let port = free_port();
            let child = Mutex::new(spawn(folder.path(), port, &arguments));
            // From here it is stopped whatever happens.
            let server = Self { folder, port, arguments: arguments.clone(), child };
            if wait_until_ready(port, &mut server.child.lock().expect("no holder panics")) {
                return server;
            }
        }
        panic!("redis-server can't be started");
    }

    /// Where it listens.
    pub fn target(&self) -> RedisTarget {
        RedisTarget::Single(self.url())
    }

    /// Its URL.
    pub fn url(&self) -> Secret {
        Secret::new(format!("redis://127.0.0.1:{}", self.port))
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.lock().expect("no holder panics").id()
    }

    /// Ends it with SIGKILL.
    pub fn kill(&self) {
        let mut child = self.child.lock().expect("no holder panics");
        child.kill().expect("it can be killed");
        child.wait().expect("it ends");
    }

    /// Starts it again on the same folder and port, after a kill.
    pub fn restart(&self) {
        let mut child = self.child.lock().expect("no holder panics");
        let started = Instant::now();
        while started.elapsed() < START_TIME_MAX {
            *child = spawn(self.folder.path(), self.port, &self.arguments);
            if wait_until_ready(self.port, &mut child) {
                return;
            }
        }
        panic!("redis-server can't be started again");
    }

    /// Sends it a signal, `STOP` or `CONT`.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status();
        assert!(status.expect("kill can be run").success());
    }

    /// Runs a command with redis-cli, and gives what it prints.
    pub fn cli(&self, arguments: &[&str]) -> String {
        cli(self.port, arguments)
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        // It may have been killed by the test, or be stopped: SIGKILL ends both.
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// A Cluster of three masters.
pub struct RedisCluster {
    nodes: Vec<RedisServer>,
}

impl RedisCluster {
    /// Starts three masters with a third of the slots each.
    pub fn start() -> Self {
        let arguments =
            ["--appendonly", "no", "--save", "", "--cluster-enabled", "yes", "--cluster-node-timeout", "2000"];
        let nodes: Vec<_> = (0..MASTERS).map(|_| RedisServer::start_with(&arguments)).collect();
        let addresses: Vec<_> = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        let mut create = vec!["--cluster", "create"];
        create.extend(addresses.iter().map(String::as_str));
        create.extend(["--cluster-replicas", "0", "--cluster-yes"]);
        let printed = nodes[0].cli(&create);
        let started = Instant::now();
        while !nodes.iter().all(|node| node.cli(&["cluster", "info"]).contains("cluster_state:ok")) {
            assert!(started.elapsed() < START_TIME_MAX, "the Cluster did not come up: {printed}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { nodes }
    }

    /// Where it listens.
    pub fn target(&self) -> RedisTarget {
        RedisTarget::Cluster(self.nodes.iter().map(RedisServer::url).collect())
    }

    /// The masters.
    pub fn nodes(&self) -> &[RedisServer] {
        &self.nodes
    }
}

/// A port that is free, and whose Cluster bus port (10,000 above) exists.
fn free_port() -> u16 {
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        if port < 55_000 && TcpListener::bind(("127.0.0.1", port + 10_000)).is_ok() {
            return port;
        }
    }
}

fn spawn(folder: &Path, port: u16, arguments: &[String]) -> Child {
    Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--daemonize", "no"])
        .args(["--loglevel", "warning", "--logfile", "redis.log", "--dir"])
        .arg(folder)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server is installed")
}

/// Waits until it answers; false when it ended instead.
fn wait_until_ready(port: u16, child: &mut Child) -> bool {
    let started = Instant::now();
    while started.elapsed() < START_TIME_MAX {
        if child.try_wait().expect("it can be asked").is_some() {
            return false;
        }
        if TcpStream::connect(("127.0.0.1", port)).is_ok() && cli(port, &["ping"]).trim() == "PONG" {
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("redis-server does not answer");
}

fn cli(port: u16, arguments: &[&str]) -> String {
    let output = Command::new("redis-cli").args(["-p", &port.to_string()]).args(arguments).output();
    let output = output.expect("redis-cli is installed");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
