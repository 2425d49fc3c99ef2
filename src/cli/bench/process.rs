//! Child processes of the bench: started, watched, killed when they go out of scope; and the CPU time they used.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::cli::Error;

/// The key that the bench's producers use. It protects nothing: the router listens on loopback for one run.
pub const BENCH_KEY: &str = "bench-key";

/// A signing secret, so that requests are signed as in real use.
const BENCH_SECRET: &str = "whsec_YmVuY2gtYmVuY2gtYmVuY2gtYmVuY2gtYmVuY2g=";

/// How long a child may take to listen.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// A child process; it is killed when this is dropped.
pub struct Child(std::process::Child);

impl Child {
    /// This program in one of the bench's roles.
    pub fn of_bench<const N: usize>(arguments: [&str; N], folder: &Path) -> Result<Self, Error> {
        Self::spawn(own_program()?.arg("bench").args(arguments), "bench", folder)
    }

    /// This program as a router; its log goes to a file.
    pub fn serve(config: &Path, folder: &Path) -> Result<Self, Error> {
        let mut program = own_program()?;
        program.env("BENCH_KEY", BENCH_KEY).env("BENCH_SECRET", BENCH_SECRET);
        Self::spawn(program.arg("serve").arg("--config").arg(config), "router", folder)
    }

    /// A Redis server with an append-only file, and with some lines of a redis.conf.
    pub fn redis(port: u16, fsync: &str, settings: &[String], folder: &Path) -> Result<Self, Error> {
        let port = port.to_string();
        let arguments =
            ["--bind", "127.0.0.1", "--port", &port, "--save", "", "--appendonly", "yes", "--appendfsync", fsync];
        let mut command = Command::new("redis-server");
        command.args(arguments).current_dir(folder);
        for setting in settings {
            let (name, values) = setting.split_once(' ').unwrap_or((setting, ""));
            command.arg(format!("--{name}")).args(values.split_whitespace());
        }
        Self::spawn(&mut command, "redis", folder)
    }

    /// Waits until a Redis server listens on `port`. Where it ends instead, the error is what it said.
    pub async fn redis_listens(&mut self, port: u16, folder: &Path) -> Result<(), Error> {
        tokio::select! {
            listens = wait_for_port(port) => listens,
            () = self.ended() => {
                let said = std::fs::read_to_string(folder.join("redis.log")).unwrap_or_default();
                Err(Error::Failed(format!("redis-server ended at once:\n{}", said.trim())))
            }
        }
    }

    async fn ended(&mut self) {
        while !matches!(self.0.try_wait(), Ok(Some(_))) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// This program in one of the bench's roles that answers lines with lines.
    pub fn asked<const N: usize>(arguments: [&str; N]) -> Result<(Self, ChildStdin, ChildStdout), Error> {
        let mut command = own_program()?;
        command.arg("bench").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let failed = |error| Error::Failed(format!("`bench` could not be started: {error}"));
        let mut child = Self(command.spawn().map_err(failed)?);
        let (stdin, stdout) = (child.0.stdin.take(), child.0.stdout.take());
        Ok((child, stdin.expect("it is a pipe"), stdout.expect("it is a pipe")))
    }

    fn spawn(command: &mut Command, name: &str, folder: &Path) -> Result<Self, Error> {
        let failed = |error| Error::Failed(format!("`{name}` could not be started: {error}"));
        let log = File::create(folder.join(format!("{name}.log"))).map_err(failed)?;
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().map_err(failed)?;
        Ok(Self(child))
    }

    /// User and system time used so far.
    pub fn cpu_time(&self) -> Result<Duration, Error> {
        let stat = self.read("stat")?;
        // The second field is a name in brackets and may hold blanks; the 14th and 15th are the times, in ticks.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |field: usize| fields.get(field).and_then(|text| text.parse::<u64>().ok());
        let (Some(user), Some(system)) = (ticks(11), ticks(12)) else {
            return Err(Error::Failed("`/proc/PID/stat` is not as expected".to_owned()));
        };
        let per_second = rustix::param::clock_ticks_per_second();
        Ok(Duration::from_secs_f64((user + system) as f64 / per_second as f64))
    }

    /// The most memory it had resident.
    pub fn peak_memory_mib(&self) -> Result<f64, Error> {
        self.status_mib("VmHWM:")
    }

    /// The memory it has resident now.
    pub fn memory_mib(&self) -> Result<f64, Error> {
        self.status_mib("VmRSS:")
    }

    fn status_mib(&self, key: &str) -> Result<f64, Error> {
        let status = self.read("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        let kibibytes =
            line.and_then(|line| line.trim().strip_suffix(" kB")).and_then(|text| text.trim().parse::<f64>().ok());
        kibibytes.map(|k| k / 1024.0).ok_or_else(|| Error::Failed("`/proc/PID/status` is not as expected".to_owned()))
    }

    fn read(&self, file: &str) -> Result<String, Error> {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.0.id()))
            .map_err(|error| Error::Failed(format!("a process of the bench has gone: {error}")))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A temporary folder that goes with a run.
pub struct Folder(PathBuf);

impl Folder {
    /// Makes one.
    pub fn create() -> Result<Self, Error> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("branchline-bench-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).map_err(|error| Error::Failed(format!("`{}`: {error}", path.display())))?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What can't be removed is left to the system's own care for temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A port that is free now.
pub fn free_port() -> Result<u16, Error> {
    let listener = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    listener.map(|address| address.port()).map_err(|error| Error::Failed(format!("no port is free: {error}")))
}

/// Waits until something listens on `port`.
pub async fn wait_for_port(port: u16) -> Result<(), Error> {
    let began = Instant::now();
    while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        if began.elapsed() > START_TIMEOUT {
            return Err(Error::Failed(format!("nothing listens on port {port} after {START_TIMEOUT:?}")));
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}

/// A clock that all processes of this machine share.
pub fn monotonic_nanos() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    (now.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(now.tv_nsec as u64)
}

/// Whether a program is on the path.
pub fn is_installed(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

fn own_program() -> Result<Command, Error> {
    std::env::current_exe().map(Command::new).map_err(|error| Error::Failed(format!("own program: {error}")))
}
