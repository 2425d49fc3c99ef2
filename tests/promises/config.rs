//! A bad config is refused as a whole, with every mistake's place, key and remedy, and without a word of what is
//! secret. A good one is what its files and variables say, in layers.

mod examples; // The configs people copy from.
mod layers; // Defaults, files, variables.
mod secrets; // What is never shown.

use std::path::Path;
use std::time::Duration;

use branchline::config::{Config, Environment, Errors, Fault, LogFormat, Place, StoreUrl};
use branchline::endpoint::BodyFormat;
use branchline::store::redis::RedisTarget;

/// Stands for everything that must not be shown.
const MARKER: &str = "marker";

fn parse(text: &str, variables: &[(&str, &str)]) -> Result<Config, Errors> {
    Config::parse(Path::new("app.toml"), text, &variables.iter().copied().collect())
}

fn good(text: &str, variables: &[(&str, &str)]) -> Config {
    parse(text, variables).unwrap_or_else(|errors| panic!("{errors}"))
}

fn bad(text: &str, variables: &[(&str, &str)]) -> String {
    parse(text, variables).map(|_| ()).expect_err("it should be refused").to_string()
}

/// The place of a key.
fn shown(config: &Config, key: &str) -> String {
    config.place(key).unwrap_or_else(|| panic!("`{key}` is not set")).to_string()
}

/// A folder of files.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

#[test]
fn every_mistake_is_named_with_its_place_its_key_and_a_remedy() {
    let cases: Vec<&str> = include_str!("config/mistakes.txt").split("--- ").skip(1).collect();
    assert!(cases.len() >= 80, "only {} cases", cases.len());
    for case in cases {
        let (name, case) = case.split_once('\n').unwrap();
        let (text, expected) = case.split_once("===\n").unwrap();
        let shown = bad(text, &[("EMPTY", ""), ("KEY", MARKER)]);
        assert_eq!(shown, expected.trim_end(), "{name}");
        assert!(!shown.contains(MARKER), "{name}: {shown}");
    }
}

#[test]
fn a_mistake_in_json_has_its_place_too() {
    let json = |text| Config::parse(Path::new("app.json"), text, &Environment::default()).unwrap_err().to_string();
    assert_eq!(
        json("{\n  \"log\": {\"level\": \"info\", \"formt\": \"json\"}\n}"),
        "app.json:2:28: unknown key `formt` in `log`; did you mean `format`?\n  |\n\
         2 |   \"log\": {\"level\": …, \"formt\": \"json\"}\n  |                       ^^^^^^^"
    );
    assert_eq!(json("{\n  \"log\": {,}\n}"), "app.json:2:11: not JSON: key must be a string");
    assert_eq!(
        json("{\"log\": {}, \"log\": {}}"),
        "app.json:1:13: `log` is defined twice\n  |\n1 | \"log\": …\n  | ^^^^^"
    );
}

#[test]
fn faults_are_data_for_programs() {
    let errors = parse("[log]\nlevl = \"info\"\n", &[("BRANCHLINE_LOG__FORMAT", "xml")]).unwrap_err();
    assert_eq!(errors.faults[0].key, "log.levl");
    assert_eq!(errors.faults[0].suggestion.as_deref(), Some("level"));
    assert_eq!(errors.faults[1].place, Place::Variable { variable: "BRANCHLINE_LOG__FORMAT".to_owned() });
    assert_eq!(
        serde_json::to_value(&errors).unwrap()[0],
        serde_json::json!({"severity": "error", "rule": "config", "file": "app.toml", "line": 2, "column": 1, "key": "log.levl",
                           "message": "unknown key `levl` in `log`", "suggestion": "level"})
    );
}

#[test]
fn nothing_configured_is_a_router_on_loopback_with_a_store_beside_its_config() {
    let config = Config::parse(Path::new("/etc/branchline/app.toml"), "", &[("HOME", "/home/me")].into()).unwrap();
    assert_eq!(config.ingest.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.admin.listen.to_string(), "127.0.0.1:8081");
    assert!(matches!(&config.store.url, StoreUrl::File(path) if path == Path::new("/etc/branchline/data")));
    assert_eq!(config.store.partitions, 1);
    assert_eq!(config.store.options.retention, Duration::from_secs(7 * 86_400));
    assert_eq!(config.store.options.dedupe_window, Duration::from_secs(600));
    assert_eq!(config.store.options.lease, Duration::from_secs(60));
    assert_eq!(config.ingest.body_bytes_max, 1 << 20);
    assert_eq!(config.ingest.bodies_bytes_max, 256 << 20);
    assert_eq!(config.ingest.backlog_events_max, 1_000_000);
    assert_eq!(config.delivery.attempts_in_flight_max, 4_096);
    assert_eq!(config.delivery.answer_bytes_max, 16 << 10);
    assert_eq!(config.delivery.shutdown_grace, Duration::from_secs(25));
    assert!(config.sandbox.threads >= 2);
    assert_eq!(config.sandbox.cache.as_deref(), Some(Path::new("/home/me/.cache/branchline")));
    assert_eq!((config.log.level.as_str(), config.log.format), ("info", LogFormat::Auto));
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
}

#[test]
fn the_nearest_retry_schedule_counts() {
    let text = "[endpoints.own]\nurl = \"https://a.example.com\"\nretry = [\"7s\"]\n[endpoints.plain]\n\
                url = \"https://b.example.com\"\n[[routes]]\nname = \"r\"\nevents = [\"**\"]\nsubscriptions = [\n\
                { name = \"of-subscription\", endpoint = \"own\", retry = [\"1s\", \"1m 30s\"] },\n\
                { name = \"of-endpoint\", endpoint = \"own\" },\n\
                { name = \"default\", endpoint = \"plain\" },\n\
                { name = \"none\", endpoint = \"own\", retry = [] },\n]\n";
    let config = good(text, &[]);
    let seconds = |number: usize| -> Vec<u64> {
        config.routes[0].subscriptions[number].retry.waits.iter().map(Duration::as_secs).collect()
    };
    assert_eq!(seconds(0), [1, 90]);
    assert_eq!(seconds(1), [7]);
    assert_eq!(seconds(2), [60, 300, 1_800, 7_200, 86_400]);
    assert!(seconds(3).is_empty());
}

#[test]
fn a_plugin_gets_its_config_as_json_in_one_form() {
    let subscription = |plugins: &str| {
        format!(
            "[plugins.p]\npath = \"/opt/p.wasm\"\n[endpoints.e]\nurl = \"https://e.example.com\"\n[[routes]]\n\
             name = \"r\"\nevents = [\"**\"]\nsubscriptions = [{{ name = \"s\", endpoint = \"e\", plugins = {plugins} }}]\n"
        )
    };
    let config = |plugins: &str| -> Vec<String> {
        let config = good(&subscription(plugins), &[]);
        config.routes[0].subscriptions[0].plugins.iter().map(|plugin| plugin.config.to_string()).collect()
    };
    assert_eq!(config("[\"p\", { use = \"p\" }]"), ["{}", "{}"]);
    assert_eq!(
        config("[{ use = \"p\", config = { z = 1, a = [1.5, true, \"é\"], day = 2025-01-15T10:30:00Z, t.u = -1 } }]"),
        [r#"{"a":[1.5,true,"é"],"day":"2025-01-15T10:30:00Z","t":{"u":-1},"z":1}"#]
    );
    assert_eq!(
        config("[{ use = \"p\", config = { t.u = -1, z = 1 } }]"),
        config("[{ config = { z = 1, t.u = -1 }, use = \"p\" }]")
    );
}

#[test]
fn a_delivery_is_held_for_longer_than_any_attempt_takes() {
    let lease = |timeout: &str| {
        let text = format!("[endpoints.a]\nurl = \"https://a.example.com\"\ntimeout = \"{timeout}\"\n");
        good(&text, &[]).store.options.lease.as_secs()
    };
    assert_eq!((lease("3s"), lease("15s"), lease("60s")), (60, 60, 150));
}

#[test]
fn an_endpoint_has_all_its_keys() {
    let text = "[endpoints.a]\nurl = \"https://a.example.com/hook\"\ntimeout = \"10s\"\nconnect_timeout = \"250ms\"\n\
                max_in_flight = 3\nformat = \"cloudevents\"\nheaders = { X-Team = \"shop\", x-key = { env = \"KEY\" } }\n\
                [endpoints.b]\nurl = \"https://b.example.com\"\n";
    let config = good(text, &[("KEY", "v")]);
    let [a, b] = &config.endpoints[..] else { panic!() };
    assert_eq!((a.timeout, a.connect_timeout), (Duration::from_secs(10), Duration::from_millis(250)));
    assert_eq!((b.timeout, b.connect_timeout), (Duration::from_secs(3), Duration::from_secs(3)));
    assert_eq!((a.max_in_flight, b.max_in_flight), (3, 64));
    assert_eq!((a.format, b.format), (BodyFormat::CloudEvents, BodyFormat::Envelope));
    let headers: Vec<(&str, &[u8])> = a.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    assert_eq!(headers, [("x-team", &b"shop"[..]), ("x-key", b"v")]);
    assert!(a.headers.iter().all(|(_, value)| value.is_sensitive()));
}

#[test]
fn what_is_allowed_but_dangerous_is_a_warning_with_its_place() {
    let text = "[ingest]\nlisten = \"0.0.0.0:8080\"\n[sources.open]\npath = \"/\"\nauth = \"none\"\n[endpoints.a]\n\
                url = \"http://a.example.com\"\n[endpoints.b]\nurl = \"http://127.0.0.1:3000\"\n[endpoints.c]\n\
                url = \"http://localhost:3000\"\n";
    assert_eq!(
        good(text, &[]).warnings.iter().map(Fault::line).collect::<Vec<_>>(),
        [
            "app.toml:5:8: `sources.open` takes events from anyone who reaches 0.0.0.0:8080",
            "app.toml:7:7: `endpoints.a.url` is `http`, not `https`: whoever is on the way can read and change what is sent",
        ]
    );
}

#[test]
fn a_store_may_be_shared() {
    let url = |url: &str| good(&format!("[store]\nurl = \"{url}\"\n"), &[]).store;
    assert!(matches!(url("rediss://cache.example.com:6380/1").url, StoreUrl::Redis(RedisTarget::Single(_))));
    let cluster = url("redis+cluster://a:6379,b:6379");
    let StoreUrl::Redis(RedisTarget::Cluster(nodes)) = &cluster.url else { panic!("{cluster:?}") };
    assert_eq!(nodes.iter().map(|node| node.expose()).collect::<Vec<_>>(), ["redis://a:6379", "redis://b:6379"]);
    assert_eq!(cluster.partitions, 16);
}

#[test]
fn no_text_makes_the_config_panic() {
    // Every prefix, and every deletion of one character, of a text with all the shapes there are.
    let text = "[endpoints.\"é\"]\nsecret = [{ env = 'K' }, \"x\"] # é\n[[routes]]\nevents = [\"a\", '''\nb''']\n\
                [[routes.subscriptions]]\nplugins = [{ use = \"p\", config = { a.b = 1.5 } }]\nretry = [\"1s\"]\n";
    let json = r#"{"endpoints": {"é": {"secret": [{"env": "K"}]}}, "routes": [{"events": ["\u00e9", 1e3]}]}"#;
    for (name, text) in [("a.toml", text), ("a.json", json)] {
        for (at, character) in text.char_indices() {
            let without = format!("{}{}", &text[..at], &text[at + character.len_utf8()..]);
            for text in [&text[..at], &without] {
                if let Err(errors) = Config::parse(Path::new(name), text, &Environment::default()) {
                    assert!(!errors.to_string().is_empty());
                }
            }
        }
    }
}

#[test]
fn what_is_said_of_sentinels_that_there_are_not_is_told() {
    let text = |url: &str| format!("[store]\nurl = \"{url}\"\n[store.redis]\nsentinel_user = \"me\"\n");
    let warned = |url: &str| {
        let config = parse(&text(url), &[]).unwrap();
        config.warnings.iter().any(|fault| fault.key == "store.redis.sentinel_user")
    };
    assert!(warned("redis://127.0.0.1:6379") && warned("redis+cluster://127.0.0.1:7000"));
    assert!(!warned("redis+sentinel://127.0.0.1:26379/main"));
}
