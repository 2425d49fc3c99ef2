//! `branchline check --online`: endpoints and the store are asked as a router would ask them, and nothing is sent or written.

use std::io::Read;
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Checked, check_in};
use crate::support::redis_server::RedisServer;
use crate::support::router::free_port;

/// A listener that counts what it is sent.
fn listener() -> (u16, std::thread::JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let reading = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        bytes
    });
    (port, reading)
}

fn config(endpoints: &[(&str, String)], store: &str) -> String {
    let mut text = format!(
        "[sources.app]\npath = \"/v1/events\"\nauth = \"none\"\n[delivery]\nallow_networks = [\"127.0.0.1/32\"]\n[store]\nurl = \"{store}\"\n"
    );
    let mut subscriptions = String::new();
    for (name, url) in endpoints {
        text.push_str(&format!("[endpoints.{name}]\nurl = \"{url}\"\n"));
        subscriptions.push_str(&format!("{{ name = \"to-{name}\", endpoint = \"{name}\" }}, "));
    }
    if endpoints.is_empty() {
        return text;
    }
    text.push_str(&format!("[[routes]]\nname = \"r\"\nevents = [\"**\"]\nsubscriptions = [{subscriptions}]\n"));
    text
}

async fn check(folder: &Path, text: &str, arguments: &[&str]) -> Checked {
    std::fs::write(folder.join("app.toml"), text).unwrap();
    let arguments: Vec<_> = ["app.toml"].iter().chain(arguments).map(|argument| (*argument).to_owned()).collect();
    let folder = folder.to_owned();
    let run = tokio::task::spawn_blocking(move || {
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        check_in(&folder, &arguments, &[])
    });
    run.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_are_reached_as_attempts_would_and_get_no_request() {
    let folder = tempfile::tempdir().unwrap();
    let ((open, opened), (plain, spoken), closed) = (listener(), listener(), free_port());
    let text = config(
        &[
            ("open", format!("http://127.0.0.1:{open}/marker")),
            ("closed", format!("http://127.0.0.1:{closed}/marker")),
            ("private", "http://10.1.2.3/marker".to_owned()),
            ("odd", "http://2130706434/marker".to_owned()),
            ("plain", format!("https://127.0.0.1:{plain}/marker")),
            ("nowhere", "https://branchline.invalid/marker".to_owned()),
        ],
        "file:data",
    );
    let offline = check(folder.path(), &text, &[]).await;
    assert_eq!(offline.code, 0, "{}{}", offline.stdout, offline.stderr);
    let checked = check(
        folder.path(),
        &text.replace("[endpoints.plain]", "[endpoints.plain]\ntimeout = \"1s\""),
        &["--online", "--format", "json"],
    )
    .await;
    assert_eq!(checked.code, 1, "{}{}", checked.stdout, checked.stderr);
    let found: Value = serde_json::from_str(&checked.stdout).unwrap();
    let told: Vec<_> = found["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|finding| finding["rule"] != "config")
        .map(|finding| {
            assert_eq!(
                (&finding["rule"], &finding["severity"], &finding["column"]),
                (&json!("endpoint"), &json!("error"), &json!(7)),
                "{finding:#}"
            );
            format!("{} {}", finding["line"], finding["message"].as_str().unwrap())
        })
        .collect();
    let parts = [
        format!(
            "11 endpoint `closed` can't be reached (connect): http://127.0.0.1:{closed}: the connection was refused"
        ),
        "13 endpoint `private` can't be reached (address-refused): http://10.1.2.3: ".to_owned(),
        "15 endpoint `odd` can't be reached (address-refused): http://2130706434: ".to_owned(),
        "18 endpoint `plain` can't be reached (tls): https://127.0.0.1:".to_owned(),
        "20 endpoint `nowhere` can't be reached (dns): https://branchline.invalid: ".to_owned(),
    ];
    assert_eq!(told.len(), parts.len(), "{told:#?}");
    for (told, part) in told.iter().zip(&parts) {
        assert!(told.starts_with(part.as_str()), "{told} is not {part}");
    }
    assert!(!checked.stdout.contains("marker"), "{}", checked.stdout);
    assert_eq!(opened.join().unwrap(), b"", "no byte is sent");
    assert_eq!(spoken.join().unwrap()[0], 0x16, "nothing but the beginning of a handshake");
    assert!(!folder.path().join("data").exists(), "to look is not to make");

    let text = check(
        folder.path(),
        &config(&[("closed", format!("http://127.0.0.1:{closed}/marker"))], "file:data"),
        &["--online"],
    )
    .await;
    assert!(
        text.stdout.starts_with("app.toml:9:7: error: endpoint `closed` can't be reached")
            && !text.stdout.contains("marker"),
        "{}",
        text.stdout
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_is_looked_at_as_at_a_start_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let redis = RedisServer::start("everysec");
    let url = format!("redis://127.0.0.1:{}", redis.port());
    let checked = check(folder.path(), &config(&[], &url), &["--online"]).await;
    assert_eq!(checked.code, 0, "{}{}", checked.stdout, checked.stderr);
    assert!(
        checked.stdout.contains("app.toml:7:7: warning: ") && checked.stdout.contains("[store]"),
        "{}",
        checked.stdout
    );
    assert_eq!(redis.cli(&["DBSIZE"]).trim(), "0");

    redis.cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    let checked = check(folder.path(), &config(&[], &url), &["--online", "--format", "github"]).await;
    assert_eq!(checked.code, 1, "{}{}", checked.stdout, checked.stderr);
    assert!(
        checked.stdout.contains("::error file=app.toml,line=7,col=7,title=branchline store::the store can't be used: "),
        "{}",
        checked.stdout
    );

    redis.cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    redis.cli(&["HSET", "bl:meta", "layout", "9", "partitions", "1"]);
    let checked = check(folder.path(), &config(&[], &url), &["--online"]).await;
    assert!(checked.code == 1 && checked.stdout.contains("layout 9"), "{}{}", checked.stdout, checked.stderr);
    redis.kill();
    let checked = check(folder.path(), &config(&[], &url), &["--online"]).await;
    assert!(
        checked.code == 1 && checked.stdout.contains("the store can't be used: the store is away"),
        "{}{}",
        checked.stdout,
        checked.stderr
    );

    std::fs::write(folder.path().join("file"), "").unwrap();
    let checked = check(folder.path(), &config(&[], "file:file"), &["--online"]).await;
    assert!(checked.code == 1 && checked.stdout.contains("is not a folder"), "{}{}", checked.stdout, checked.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_stood_in_for_is_not_asked() {
    let folder = tempfile::tempdir().unwrap();
    let text = config(&[("x", "https://x.example.com".to_owned())], "file:data")
        .replace("\"https://x.example.com\"", "{ env = \"X_URL\" }");
    let checked = check(folder.path(), &text, &["--online", "--stand-ins", "--format", "json"]).await;
    let found: Value = serde_json::from_str(&checked.stdout).unwrap();
    assert_eq!((checked.code, &found["errors"]), (0, &json!(0)), "{}", checked.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listeners_certificate_is_read_and_told_of_before_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let text = format!("{}[ingest.tls]\ncert = \"cert.pem\"\nkey = \"key.pem\"\n", config(&[], "file:data"));
    let missing = check(folder.path(), &text, &[]).await;
    assert!(missing.code == 78 && missing.stdout.contains("cert.pem` can't be read"), "{}", missing.stdout);
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2025, 1, 1);
    std::fs::write(folder.path().join("cert.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    std::fs::write(folder.path().join("key.pem"), key.serialize_pem()).unwrap();
    let ended = check(folder.path(), &text, &[]).await;
    let told = "warning: `ingest.tls`: a certificate in `cert.pem` has expired: it was valid until 2025-01-01T00:00:00.000Z [certificate]";
    assert!(ended.code == 0 && ended.stdout.contains(told), "{}", ended.stdout);
    assert_eq!(check(folder.path(), &text, &["--deny-warnings"]).await.code, 1);
    params.not_after = rcgen::date_time_ymd(2096, 1, 1);
    std::fs::write(folder.path().join("cert.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    let good = check(folder.path(), &text, &[]).await;
    assert_eq!((good.code, good.stdout.contains("certificate")), (0, false), "{}", good.stdout);
}
