//! A master, two replicas and three Sentinels, all real, on loopback; stopped when they are dropped.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use branchline::secret::Secret;
use branchline::store::redis::{RedisTarget, SentinelTarget};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use super::redis_server::{RedisServer, START_TIME_MAX, cli, free_port};

const REPLICAS: usize = 2;
const SENTINELS: usize = 3;
/// What the Sentinels call the master.
const SERVICE: &str = "main";

struct Sentinel {
    /// For the tests' own questions.
    port: u16,
    /// Where routers ask: the same, or the one with TLS.
    public_port: u16,
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
    /// Where routers find the servers: their ports, or those with TLS.
    public_ports: Vec<u16>,
    secured: Option<Secured>,
}

/// What routers must have to be let in: [`PASSWORD`] everywhere, [`SENTINEL_PASSWORD`] with the Sentinels, and trust in `ca.pem`.
struct Secured {
    folder: TempDir,
}

/// The password of the user `router` of the servers.
pub const PASSWORD: &str = "marker-redis-password";
/// The password of the user `watcher` of the Sentinels.
pub const SENTINEL_PASSWORD: &str = "marker-sentinel-password";

impl Secured {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let key = KeyPair::generate().expect("a key can be made");
        let mut params = CertificateParams::new(Vec::new()).expect("no name is a fault");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).expect("it can sign").pem();
        let issuer = Issuer::new(params, key);
        let own = KeyPair::generate().expect("a key can be made");
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("an address is a name");
        // Another subject than the authority's, or it would be taken for one that vouches for itself.
        params.distinguished_name.push(DnType::CommonName, "redis");
        let certificate = params.signed_by(&own, &issuer).expect("it can be signed").pem();
        for (name, text) in [("ca.pem", root), ("cert.pem", certificate), ("key.pem", own.serialize_pem())] {
            std::fs::write(folder.path().join(name), text).expect("the folder can be written to");
        }
        Self { folder }
    }

    /// Settings of a server or a Sentinel: name and value.
    fn settings(&self, port: u16, user: &str) -> Vec<(String, String)> {
        let file = |name: &str| self.folder.path().join(name).display().to_string();
        [
            ("tls-port", port.to_string()),
            ("tls-cert-file", file("cert.pem")),
            ("tls-key-file", file("key.pem")),
            ("tls-ca-cert-file", file("ca.pem")),
            ("tls-replication", "yes".to_owned()),
            ("tls-auth-clients", "optional".to_owned()),
            ("user", user.to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }
}

impl RedisSentinels {
    /// Starts all of them, and waits until they know each other.
    pub fn start() -> Self {
        Self::start_as(None)
    }

    /// The same; routers are let in with TLS and passwords.
    pub fn start_secured() -> Self {
        Self::start_as(Some(Secured::new()))
    }

    fn start_as(secured: Option<Secured>) -> Self {
        let (mut servers, mut public_ports): (Vec<RedisServer>, Vec<u16>) = (Vec::new(), Vec::new());
        for _ in 0..=REPLICAS {
            let mut arguments = ["--appendonly", "yes", "--appendfsync", "always"].map(str::to_owned).to_vec();
            let tls_port = secured.as_ref().map(|secured| {
                let port = free_port();
                let user = format!("router on >{PASSWORD} ~* &* +@all");
                for (name, value) in secured.settings(port, &user) {
                    arguments.push(format!("--{name}"));
                    arguments.extend(value.split(' ').map(str::to_owned));
                }
                port
            });
            if let Some(master) = public_ports.first() {
                arguments.extend(["--replicaof".to_owned(), "127.0.0.1".to_owned(), master.to_string()]);
            }
            let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
            servers.push(RedisServer::start_with(&arguments));
            public_ports.push(tls_port.unwrap_or(servers[servers.len() - 1].port()));
        }
        let sentinels = (0..SENTINELS).map(|_| start_sentinel(public_ports[0], secured.as_ref())).collect();
        let started = Self { sentinels, servers, public_ports, secured };
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
        }) && self.all().skip(1).all(|replica| replica.cli(&["info", "replication"]).contains("link_status:up"))
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
        let hosts: Vec<_> = self.sentinels.iter().map(|one| format!("127.0.0.1:{}", one.public_port)).collect();
        let begin = match self.secured {
            Some(_) => format!("rediss+sentinel://router:{PASSWORD}@"),
            None => "redis+sentinel://".to_owned(),
        };
        format!("{begin}{}/{SERVICE}", hosts.join(","))
    }

    /// The file of those that vouch for the servers' certificates.
    pub fn ca(&self) -> PathBuf {
        self.secured.as_ref().expect("they are secured").folder.path().join("ca.pem")
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
        let place = self.public_ports.iter().position(|own| *own == port).expect("the Sentinels name one of ours");
        &self.servers[place]
    }

    /// The master and its replicas.
    pub fn all(&self) -> impl Iterator<Item = &RedisServer> {
        self.servers.iter()
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

fn start_sentinel(master: u16, secured: Option<&Secured>) -> Sentinel {
    for _ in 0..5 {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let port = free_port();
        let file = folder.path().join("sentinel.conf");
        let text = format!(
            "port {port}\nbind 127.0.0.1\nlogfile sentinel.log\ndir \"{}\"\nsentinel monitor {SERVICE} 127.0.0.1 {master} 2\n\
             sentinel down-after-milliseconds {SERVICE} 1000\nsentinel failover-timeout {SERVICE} 4000\n",
            folder.path().display()
        );
        let tls_port = secured.map(|_| free_port());
        let user = format!("watcher on >{SENTINEL_PASSWORD} ~* &* +@all");
        let settings = secured.zip(tls_port).map(|(secured, port)| secured.settings(port, &user));
        let settings: String = settings.iter().flatten().map(|(name, value)| format!("{name} {value}\n")).collect();
        // Before the service is named: the Sentinel reads its file from top to bottom.
        std::fs::write(&file, settings + &text).expect("the folder can be written to");
        let mut child = spawn(&file);
        let began = Instant::now();
        while began.elapsed() < START_TIME_MAX && child.try_wait().expect("it can be asked").is_none() {
            if cli(port, &["ping"]).trim() == "PONG" {
                return Sentinel { port, public_port: tls_port.unwrap_or(port), child, _folder: folder };
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
