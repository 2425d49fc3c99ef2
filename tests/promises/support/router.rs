//! The real `branchline serve`, as a process: started, signalled, killed; and producers that talk to it.

use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustix::process::{Pid, Signal, kill_process};

use super::eventually;
use super::secrets::{of_every_test, private_keys, shows_none};

/// The bearer key in the tests' configs.
pub const KEY: &str = "test-key-0123456789";

/// How long a router may take to be ready, or to end.
const PATIENCE: Duration = Duration::from_secs(40);
/// How long one answer of it is waited for.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// A port for a router.
pub fn free_port() -> u16 {
    super::port_from(20_500..32_500)
}

/// A router process with its config in a temporary folder.
pub struct RouterProcess {
    pub ingest: u16,
    pub admin: u16,
    store: String,
    admin_tokens: String,
    log_level: String,
    folder: tempfile::TempDir,
    child: Option<Child>,
    /// What the program is started by, with its own arguments: a tracer.
    pub started_by: Vec<String>,
    /// Variables that it is started with.
    pub environment: Vec<(String, String)>,
    /// Whether it is started again when it ends instead of being ready, as a supervisor does.
    pub supervised: bool,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl RouterProcess {
    /// Writes the config: `rest` after listeners, store and one source `app` at `/v1/events`. `{folder}` in `store` is the temporary folder.
    pub fn new(store: &str, rest: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (ingest, admin) = (free_port(), free_port());
        let store = store.replace("{folder}", folder.path().to_str().unwrap());
        let client = Client::builder(TokioExecutor::new()).build_http();
        let router = Self {
            ingest,
            admin,
            store,
            admin_tokens: "[]".to_owned(),
            log_level: "warn".to_owned(),
            folder,
            child: None,
            started_by: vec![],
            environment: vec![],
            supervised: false,
            client,
        };
        router.write_config(rest);
        router
    }

    /// Writes the config anew, for a reload or the next start.
    pub fn write_config(&self, rest: &str) {
        self.write_sections("", "", rest);
    }

    /// Writes the config anew with more keys for `[ingest]` and `[admin]`.
    pub fn write_config_with(&self, of_ingest: &str, of_admin: &str) {
        self.write_sections(of_ingest, of_admin, "");
    }

    /// Writes the config anew with all that may be added.
    pub fn write_sections(&self, of_ingest: &str, of_admin: &str, rest: &str) {
        let Self { ingest, admin, store, admin_tokens, log_level, .. } = self;
        // No line more than before where there is nothing to add: tests name lines.
        let more = |keys: &str| if keys.is_empty() { String::new() } else { format!("\n{keys}") };
        let (of_ingest, of_admin) = (more(of_ingest), more(of_admin));
        let text = format!(
            r#"
[ingest]
listen = "127.0.0.1:{ingest}"{of_ingest}
[admin]
listen = "127.0.0.1:{admin}"{of_admin}
tokens = {admin_tokens}
[store]
url = "{store}"
[log]
level = "{log_level}"
[sources.app]
path = "/v1/events"
auth = {{ bearer = [{{ env = "TEST_KEY" }}] }}
{rest}
"#
        );
        std::fs::write(self.folder.path().join("branchline.toml"), text).unwrap();
    }

    /// The config that is written from here on logs this.
    pub fn log_at(&mut self, level: &str) {
        self.log_level = level.to_owned();
    }

    /// The config that is written from here on asks for one of these tokens.
    pub fn ask_for_tokens(&mut self, tokens: &[&str]) {
        self.admin_tokens = format!("{tokens:?}");
    }

    /// The folder of the config, the store and the log.
    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// What the router has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("router.log")).unwrap_or_default()
    }

    /// Starts the process.
    pub fn spawn(&mut self) {
        let log =
            std::fs::File::options().create(true).append(true).open(self.folder.path().join("router.log")).unwrap();
        let program = env!("CARGO_BIN_EXE_branchline").to_owned();
        let mut command = self.started_by.iter().chain([&program]);
        let child = Command::new(command.next().unwrap())
            .args(command)
            .args(["serve", "--config"])
            .arg(self.folder.path().join("branchline.toml"))
            .env("TEST_KEY", KEY)
            .env("TEST_SECRET", super::SECRET)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    /// Starts the process and waits until it is ready.
    pub async fn start(&mut self) {
        self.spawn();
        let ready = eventually("the router is ready", PATIENCE, async || {
            if let Some(ended) = self.child.as_mut().unwrap().try_wait().unwrap() {
                assert!(self.supervised, "the router ended: {ended:?}\n{}", self.log());
                self.spawn();
            }
            (self.get("/readyz").await?.0 == StatusCode::OK).then_some(())
        });
        ready.await;
    }

    /// Fails when a text that came out of the router has one of its secrets.
    fn shows_no_secret(&self, what: &str, text: &str) {
        let tokens = self.admin_tokens.split('"').skip(1).step_by(2);
        // `redis://:password@host`
        let password = self.store.split_once('@').and_then(|(before, _)| before.rsplit(':').next());
        let keys = private_keys(self.folder.path());
        let secrets = tokens.chain(of_every_test()).chain(password).chain(keys.iter().map(String::as_str));
        shows_none(&format!("{what} of a router"), text, secrets);
    }

    /// GET on the admin listener.
    pub async fn get(&self, path: &str) -> Option<(StatusCode, String)> {
        let uri = format!("http://127.0.0.1:{}{path}", self.admin).parse().unwrap();
        // A router that was killed meanwhile may never answer.
        let (status, body) = tokio::time::timeout(ANSWER_WITHIN, async {
            let response = self.client.get(uri).await.ok()?;
            let status = response.status();
            let body = response.into_body().collect().await.ok()?.to_bytes();
            Some((status, String::from_utf8(body.to_vec()).unwrap()))
        })
        .await
        .ok()??;
        self.shows_no_secret("an answer", &body);
        Some((status, body))
    }

    /// POST on the admin listener.
    pub async fn post_admin(&self, path: &str) -> (StatusCode, String) {
        self.post_admin_with(path, &[]).await
    }

    /// POST on the admin listener with these headers; one of them may be `host`.
    pub async fn post_admin_with(&self, path: &str, headers: &[(&str, &str)]) -> (StatusCode, String) {
        self.ask_admin_with("POST", path, headers).await
    }

    /// The same by another method.
    pub async fn ask_admin_with(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> (StatusCode, String) {
        let request = Request::builder().method(method).uri(format!("http://127.0.0.1:{}{path}", self.admin));
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let response = self.client.request(request.body(Full::default()).unwrap()).await.unwrap();
        let status = response.status();
        let body = String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap();
        self.shows_no_secret("an answer", &body);
        (status, body)
    }

    /// A request on the admin listener; the answer's body as JSON, null when it is none.
    pub async fn call(
        &self,
        method: &str,
        path: &str,
        body: impl Into<Bytes>,
        headers: &[(&str, &str)],
    ) -> (StatusCode, serde_json::Value) {
        let request = Request::builder().method(method).uri(format!("http://127.0.0.1:{}{path}", self.admin));
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let response = self.client.request(request.body(Full::new(body.into())).unwrap()).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        self.shows_no_secret("an answer", &String::from_utf8_lossy(&body));
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    /// POSTs a body to the source; `None` when there was no answer.
    pub async fn post(&self, content_type: &str, body: impl Into<Bytes>) -> Option<(StatusCode, serde_json::Value)> {
        let request = Request::post(format!("http://127.0.0.1:{}/v1/events", self.ingest))
            .header("content-type", content_type)
            .header("authorization", format!("Bearer {KEY}"))
            .body(Full::new(body.into()))
            .unwrap();
        let response = self.client.request(request).await.ok()?;
        let status = response.status();
        let body = response.into_body().collect().await.ok()?.to_bytes();
        self.shows_no_secret("an answer", &String::from_utf8_lossy(&body));
        Some((status, serde_json::from_slice(&body).unwrap_or_default()))
    }

    fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.as_ref().expect("the router was started").id()).unwrap();
        kill_process(Pid::from_raw(id).unwrap(), signal).unwrap();
    }

    /// The process, while it runs.
    pub fn id(&self) -> u32 {
        self.child.as_ref().expect("the router was started").id()
    }

    /// The most memory that the process has had, in bytes; `None` before it has begun and when it has ended.
    pub fn memory_peak(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.as_ref()?.id())).ok()?;
        if !status.starts_with("Name:\tbranchline\n") {
            return None; // Just forked: these would be the figures of the tests' own process.
        }
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
    }

    /// The end of the process, once it has ended.
    pub fn exit(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().unwrap()
    }

    /// `kill -9`, and waits for the process to be gone.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.child.take().unwrap().wait().unwrap();
    }

    /// SIGHUP: the config is to be read anew.
    pub fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    /// SIGTERM, without waiting.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// SIGTERM, and waits for the end.
    pub async fn stop(&mut self) -> ExitStatus {
        self.terminate();
        self.ended().await
    }

    /// Waits for the end.
    pub async fn ended(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("the router was started");
        eventually("the router ends", PATIENCE, async || child.try_wait().unwrap()).await
    }
}

impl Drop for RouterProcess {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        let log = self.log();
        if !std::thread::panicking() {
            self.shows_no_secret("the log", &log);
        } else {
            eprintln!("--- the end of the router's log\n{}", &log[log.len().saturating_sub(4000)..]);
        }
    }
}
