//! No secret and no payload in anything that a router prints or serves: marker secrets are planted everywhere a config takes
//! one, the router logs at `trace`, fails in every way a receiver can make it fail, and all that came out of it is searched.

use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use branchline::accept::read_event;
use branchline::clock::Clock;
use branchline::config::Config;
use branchline::delivery::{Request, Work};
use http::StatusCode;

use crate::support::eventually;
use crate::support::program::branchline;
use crate::support::receiver::Receiver;
use crate::support::redis_sentinel::SENTINEL_PASSWORD;
use crate::support::redis_server::RedisServer;
use crate::support::router::{KEY, RouterProcess, free_port};
use crate::support::secrets::private_keys;

const PATIENCE: Duration = Duration::from_secs(60);

const REDIS_PASSWORD: &str = "marker-redis-password";
const ADMIN_TOKEN: &str = "marker-admin-token";
const URL_TOKEN: &str = "marker-url-token";
const HEADER: &str = "marker-header-value";
const PAYLOAD: &str = "marker-payload";
const METADATA: &str = "marker-metadata";
const WRONG_KEY: &str = "marker-wrong-key";
const WRONG_TOKEN: &str = "marker-wrong-token";
const ANSWER: &str = "told so";
/// The base64 part of the signing secret, in both its forms.
const SIGNING: &str = "bWFya2VyLXNpZ25pbmctc2VjcmV0LTEyMzQ1Njc4";
const SIGNING_BYTES: &str = "marker-signing-secret-12345678";
/// The base64 part of a seed of ed25519, and the seed.
const SEED: &str = "bWFya2VyLWVkMjU1MTktc2VlZC0xMjM0NTY3ODkwMTI=";
const SEED_BYTES: &str = "marker-ed25519-seed-123456789012";
/// In the config of a plugin.
const PLUGIN: &str = "marker-plugin-config";
/// What a `[[tests]]` has for a secret.
const OF_A_TEST: &str = "marker-secret-of-a-test";

fn planted() -> [&'static str; 17] {
    [
        KEY,
        REDIS_PASSWORD,
        SENTINEL_PASSWORD,
        PLUGIN,
        OF_A_TEST,
        SEED,
        SEED_BYTES,
        ADMIN_TOKEN,
        URL_TOKEN,
        HEADER,
        PAYLOAD,
        METADATA,
        WRONG_KEY,
        WRONG_TOKEN,
        ANSWER,
        SIGNING,
        SIGNING_BYTES,
    ]
}

/// What no command may print; payloads are none of it.
const SECRETS: [&str; 10] =
    [KEY, ADMIN_TOKEN, HEADER, SIGNING, SIGNING_BYTES, SEED, URL_TOKEN, SENTINEL_PASSWORD, PLUGIN, OF_A_TEST];

/// Fails when a text shows one of them, and says where.
fn shows_none(what: &str, text: &str) {
    for secret in planted() {
        let place = text.find(secret);
        let around = place.map(|place| &text[place.saturating_sub(200)..(place + 40).min(text.len())]);
        assert_eq!(around, None, "{what} shows `{secret}`");
    }
}

fn config(receiver: &Receiver) -> String {
    let refused = free_port();
    format!(
        r#"
[delivery]
allow_networks = ["127.0.0.0/8"]
[store.redis]
sentinel_password = "{SENTINEL_PASSWORD}"
[plugins.slack]
path = "{root}/plugins/slack.wasm"
fixtures = ""
[endpoints.failing]
url = "{failing}"
secret = ["whsec_{SIGNING}", "whsk_{SEED}"]
headers = {{ x-api-key = "{HEADER}" }}
breaker = 2
[endpoints.fine]
url = "{fine}"
headers = {{ authorization = "Bearer {HEADER}" }}
[endpoints.refused]
url = "http://127.0.0.1:{refused}/{URL_TOKEN}"
[endpoints.no-tls]
url = "https://{address}/{URL_TOKEN}"
[endpoints.metadata]
url = "http://169.254.169.254/{URL_TOKEN}"
[[routes]]
name = "all"
events = ["**"]
where = 'payload.card != "" && metadata.tenant != ""'
subscriptions = [
  {{ name = "failing", endpoint = "failing", retry = ["50ms"], plugins = [
    {{ use = "slack", config = {{ username = "{PLUGIN}" }} }},
  ] }},
  {{ name = "fine", endpoint = "fine" }},
  {{ name = "refused", endpoint = "refused", retry = [] }},
  {{ name = "no-tls", endpoint = "no-tls", retry = [] }},
  {{ name = "metadata", endpoint = "metadata", retry = [] }},
]
[[routes]]
name = "odd"
events = ["odd.**"]
where = 'payload.card > 5'
subscriptions = [{{ name = "odd", endpoint = "fine" }}]
[[tests]]
name = "one with a secret of its own"
event = {{ eventType = "odd.created", payload = {{ card = 1 }}, metadata = {{ tenant = "t" }} }}
secrets = {{ TEST_KEY = "{OF_A_TEST}" }}
expect = {{ failing = "delivered" }}
only = false
"#,
        root = env!("CARGO_MANIFEST_DIR"),
        failing = receiver.url(&format!("/failing?token={URL_TOKEN}")),
        fine = receiver.url(&format!("/fine?token={URL_TOKEN}")),
        address = receiver.address,
    )
}

fn event(id: &str) -> String {
    format!(
        r#"{{"id":"{id}","eventType":"odd.created","payload":{{"card":"{PAYLOAD}"}},"metadata":{{"tenant":"{METADATA}"}}}}"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_a_router_prints_or_serves_shows_a_secret_or_a_payload() {
    let redis = RedisServer::start("no");
    redis.cli(&["config", "set", "requirepass", REDIS_PASSWORD]);
    let receiver = Receiver::start().await;
    receiver.answers("/failing", &[500, 503, 400]);
    let store = format!("redis://:{REDIS_PASSWORD}@127.0.0.1:{}", redis.port());
    let mut router = RouterProcess::new(&store, "");
    router.ask_for_tokens(&[ADMIN_TOKEN]);
    router.log_at("trace");
    router.write_config(&config(&receiver));
    router.start().await;

    // Events, good and bad, by good and bad keys.
    let mut served = Vec::new();
    for number in 0..20 {
        let (status, answer) = router.post("application/json", event(&format!("evt_{number}"))).await.unwrap();
        assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
    }
    for body in [
        event("evt_1"),
        format!(r#"{{"eventType":"a","payload":{{"card":"{PAYLOAD}"}},"unknown":"{PAYLOAD}"}}"#),
        format!(r#"{{"eventType":"{PAYLOAD} x","payload":1,"metadata":"{METADATA}"}}"#),
        format!(r#"{{"eventType":"a","payload":"{PAYLOAD}"#),
        format!(r#"[{{"eventType":"a","payload":1}},{{"id":"{PAYLOAD} "}}]"#),
    ] {
        served.push(router.post("application/json", body).await.unwrap().1.to_string());
    }
    served.push(router.post("application/cloudevents+json", event("evt_1")).await.unwrap().1.to_string());
    served.push(ask(router.ingest, "POST", "/v1/events", &format!("authorization: Bearer {WRONG_KEY}\r\n")).await);
    served.push(ask(router.ingest, "POST", &format!("/v1/events?key={WRONG_KEY}"), "").await);
    served.push(ask(router.ingest, "POST", &format!("/v1/{WRONG_KEY}"), "").await);

    // What the operator sees, with and without a token.
    let token = format!("authorization: Bearer {ADMIN_TOKEN}\r\n");
    let metrics = || ask(router.admin, "GET", "/metrics", &token);
    for outcome in ["delivered", "dead-letter"] {
        let line = format!("outcome=\"{outcome}\"");
        eventually(outcome, PATIENCE, async || metrics().await.contains(&line).then_some(())).await;
    }
    ask(router.admin, "POST", "/api/v1/endpoints/fine/pause", &token).await;
    router.write_config(&config(&receiver).replace("retry = [\"50ms\"]", "retyr = [\"50ms\"]"));
    served.push(ask(router.admin, "POST", "/api/v1/reload", &token).await);
    // A plugin that is told what it doesn't take, and says so.
    let refused = config(&receiver).replace("username =", "templates =");
    router.write_config(&refused);
    let answer = ask(router.admin, "POST", "/api/v1/reload", &token).await;
    assert!(answer.contains("plugins[0]"), "the plugin refuses its config: {answer}");
    served.push(answer);
    router.write_config(&config(&receiver));
    served.push(ask(router.admin, "POST", "/api/v1/reload", &token).await);
    let operations = ["config", "endpoints", "audit", "stats", "events"];
    let operations: Vec<_> = operations.iter().map(|name| format!("/api/v1/{name}")).collect();
    for path in operations.iter().map(String::as_str).chain(["/metrics", "/readyz", "/nothing"]) {
        served.push(ask(router.admin, "GET", path, &token).await);
        served.push(ask(router.admin, "GET", path, &format!("authorization: Bearer {WRONG_TOKEN}\r\n")).await);
    }

    // The store goes away under it, and it is told to stop.
    redis.signal("STOP");
    let (status, answer) = router.post("application/json", event("evt_lost")).await.unwrap();
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    served.push(answer.to_string());
    redis.signal("CONT");
    router.stop().await;

    let log = router.log();
    for part in ["TRACE", "attempt failed", "delivered", "not reloaded", "keeps failing"] {
        assert!(
            log.contains(part),
            "the log does not tell of `{part}`, so it proves little:\n{}",
            &log[log.len().saturating_sub(2000)..]
        );
    }
    shows_none("the log", &log);
    for (number, text) in served.iter().enumerate() {
        shows_none(&format!("answer {number}"), text);
    }
}

/// A key of TLS in a file, sound or torn, is in nothing that a router or a command prints; nor is any other secret in what
/// the commands print. Payloads are: who may ask for an event may see it.
#[tokio::test(flavor = "multi_thread")]
async fn no_command_shows_a_secret_and_nothing_a_private_key() {
    let receiver = Receiver::start().await;
    receiver.answers("/failing", &[500]);
    let mut router = RouterProcess::new("file:{folder}/data", "");
    router.ask_for_tokens(&[ADMIN_TOKEN]);
    router.log_at("trace");
    let folder = router.folder();
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["router".to_owned()]).unwrap().self_signed(&key).unwrap();
    std::fs::write(folder.join("router.pem"), certificate.pem()).unwrap();
    let write_key = |text: &str| std::fs::write(folder.join("router.key"), text).unwrap();
    write_key(&key.serialize_pem());
    let planted_keys = private_keys(&folder);
    assert!(planted_keys.len() > 1, "a key was planted: {planted_keys:?}");
    let with_tls = config(&receiver)
        .replace("[endpoints.no-tls]\n", "[endpoints.no-tls]\ntls = { cert = \"router.pem\", key = \"router.key\" }\n");
    assert!(with_tls.contains("router.key"));
    router.write_config(&with_tls);
    router.start().await;
    for number in 0..3 {
        router.post("application/json", event(&format!("evt_{number}"))).await.unwrap();
    }
    let token = format!("authorization: Bearer {ADMIN_TOKEN}\r\n");
    let is_dead = "outcome=\"dead-letter\"";
    let metrics = async || ask(router.admin, "GET", "/metrics", &token).await.contains(is_dead).then_some(());
    eventually("some are given up", PATIENCE, metrics).await;

    let path = folder.join("branchline.toml").display().to_string();
    let mut printed = Vec::new();
    let run = async |arguments: &[&str]| {
        let ended = branchline(arguments, "").await;
        (arguments.join(" "), ended.code, ended.stdout + &ended.stderr)
    };
    for command in [
        &["check"][..],
        &["check", "--format", "json"],
        &["check", "--online"],
        &["test"],
        &["test", "--json"],
        &["events", "list"],
        &["events", "list", "--json"],
        &["explain", "evt_1"],
        &["explain", "evt_1", "--json"],
        &["dead-letters", "list"],
        &["dead-letters", "list", "--json"],
        &["replay", "--status", "dead-letter", "--since", "1h", "--dry-run"],
    ] {
        printed.push(run(&[command, &["--config", &path]].concat()).await);
    }
    printed.push(run(&["plan", &path, "--json", "--from", &path]).await);
    // Another value at each place where a secret stands: that it has changed is told, and no more.
    let other = folder.join("other.toml").display().to_string();
    std::fs::write(&other, std::fs::read_to_string(&path).unwrap().replace("marker-", "another-")).unwrap();
    for command in [&["plan", &other, "--from", &path][..], &["plan", &path, "--json", "--from", &other]] {
        printed.push(run(command).await);
    }
    // A plugin that is told what it doesn't take, and says so.
    std::fs::write(&other, std::fs::read_to_string(&path).unwrap().replace("username =", "templates =")).unwrap();
    for command in [&["check"][..], &["check", "--format", "json"], &["test"], &["serve"]] {
        printed.push(run(&[command, &["--config", &other]].concat()).await);
    }
    // A key whose middle is missing, and one that is none: what is left of it is a secret still.
    let torn = key.serialize_pem().replace(&planted_keys[0], &planted_keys[0][..20]);
    for text in [torn, format!("-----BEGIN PRIVATE KEY-----\n{SIGNING}\n-----END PRIVATE KEY-----\n")] {
        write_key(&text);
        printed.push(run(&["check", "--config", &path]).await);
        printed.push(run(&["serve", "--config", &path]).await);
        let answer = ask(router.admin, "POST", "/api/v1/reload", &token).await;
        printed.push(("a reload".to_owned(), 1, answer));
    }
    assert!(printed.iter().any(|(_, code, _)| *code == 0), "{printed:?}");
    router.stop().await;
    printed.push(("the log".to_owned(), 0, router.log()));
    for (what, _, text) in &printed {
        for secret in SECRETS.into_iter().chain(planted_keys.iter().map(String::as_str)) {
            let place = text.find(secret).map(|place| &text[place.saturating_sub(200)..place]);
            assert_eq!(place, None, "`{what}` shows `{secret}`");
        }
    }
}

/// One request by hand; the whole answer.
async fn ask(port: u16, method: &str, path: &str, headers: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\ncontent-length: 0\r\n{headers}\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // It may be closed with a part of the request unread.
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an answer");
    String::from_utf8_lossy(&answer).into_owned()
}

/// What a router says on its way out: a store that refuses its password, a config that is wrong, a crash.
#[test]
fn no_last_words_show_a_secret() {
    let redis = RedisServer::start("no");
    redis.cli(&["config", "set", "requirepass", "other"]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("branchline.toml");
    let serve = |text: &str| {
        std::fs::write(&path, text).unwrap();
        run(&path)
    };
    let port = redis.port();
    let sentinel = format!("sentinel_password = \"{SENTINEL_PASSWORD}\"");
    let listen = "[ingest]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[log]\nlevel = \"trace\"\n";
    for text in [
        format!("{listen}[store]\nurl = \"redis://:{REDIS_PASSWORD}@127.0.0.1:{port}\"\n"),
        format!("{listen}[store]\nurl = \"redis://:{REDIS_PASSWORD}@127.0.0.1:{port}/x y\"\n"),
        format!(
            "{listen}[store]\nurl = \"redis+sentinel://:{REDIS_PASSWORD}@127.0.0.1:{port}/main\"\n[store.redis]\n{sentinel}\n"
        ),
        format!("{listen}[store.redis]\n{sentinel} x\n"),
        format!("{listen}[store.redis]\nsentinel_password = [\"{SENTINEL_PASSWORD}\"]\n"),
        format!("{listen}[store]\nurl = \"redsi://:{REDIS_PASSWORD}@127.0.0.1:{port}\"\n"),
        format!("[endpoints.x]\nurl = \"https://user:{URL_TOKEN}@example.com/\"\nsecret = \"whsec_{SIGNING}!\"\n"),
        format!(
            "[sources.x]\npath = \"/v1\"\nauth = {{ bearer = [\"{WRONG_KEY} x\"] }}\n[admin]\ntokens = \"{ADMIN_TOKEN}\"\n"
        ),
        format!("[endpoints.x]\nurl = \"https://example.com/{URL_TOKEN}\n"),
    ] {
        let (code, said) = serve(&text);
        assert!(matches!(code, Some(1 | 78)), "{code:?}: {said}");
        shows_none("the last words", &said);
    }
}

/// The worst that a crash can say is everything it had at hand, in its printed form.
#[test]
fn no_crash_message_shows_a_secret() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("branchline.toml");
    let text = format!(
        "[store]\nurl = \"redis+sentinel://:{REDIS_PASSWORD}@127.0.0.1/main\"\n\
         [store.redis]\nsentinel_password = \"{SENTINEL_PASSWORD}\"\n[admin]\ntokens = [\"{ADMIN_TOKEN}\"]\n\
         [sources.x]\npath = \"/v1\"\nauth = {{ bearer = [\"{KEY}\"] }}\n\
         [endpoints.x]\nurl = \"https://example.com/{URL_TOKEN}\"\nsecret = [\"whsec_{SIGNING}\", \"whsk_{SEED}\"]\n\
         headers = {{ x-api-key = \"{HEADER}\" }}\n\
         [plugins.x]\npath = \"{root}/plugins/slack.wasm\"\n\
         [[routes]]\nname = \"x\"\nevents = [\"**\"]\n\
         subscriptions = [{{ name = \"x\", endpoint = \"x\", plugins = [{{ use = \"x\", config = {{ username = \"{PLUGIN}\" }} }}] }}]\n\
         [[tests]]\nname = \"x\"\nevent = {{ eventType = \"x\", payload = 1 }}\nsecrets = {{ KEY = \"{OF_A_TEST}\" }}\nexpect = {{ x = \"delivered\" }}\n",
        root = env!("CARGO_MANIFEST_DIR"),
    );
    std::fs::write(&path, text).unwrap();
    let config = Config::load(&path).unwrap();
    let event = read_event(&event("evt_1"), "x", Clock::system().now()).unwrap();
    let body = bytes::Bytes::from_static(PAYLOAD.as_bytes());
    let headers = vec![("x-api-key".to_owned(), HEADER.to_owned())];
    let request = Request { content_type: "text/plain".to_owned(), headers, body };
    let crash = std::panic::catch_unwind(AssertUnwindSafe(|| {
        panic!("{config:#?} {event:#?} {request:#?} {:?}", Work::Run(event.clone().into()))
    }));
    let message = *crash.unwrap_err().downcast::<String>().unwrap();
    assert!(message.contains("127.0.0.1:8080") && message.contains("evt_1"), "it shows the rest: {message}");
    shows_none("a crash", &message);
}

fn run(path: &Path) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_branchline")).args(["serve", "--config"]).arg(path).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}
