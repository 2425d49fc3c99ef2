//! The configs people copy from load, and show what there is to show.

use std::path::Path;
use std::time::Duration;

use branchline::config::{Config, Environment, SourceAuth};
use branchline::endpoint::SigningKey;
use branchline::route::RetrySchedule;

use super::{good, shown};

#[test]
fn the_config_of_the_design_loads() {
    let design = r##"
        [ingest]
        listen = "127.0.0.1:8080"
        [admin]
        listen = "127.0.0.1:8081"          # a token is required where this is not loopback
        [store]
        url = "file:data"                  # embedded; or redis://…, rediss://…, redis+cluster://…
        retention = "7d"
        [delivery]
        allow_networks = []
        [sources.app]
        path = "/v1/events"
        auth = { bearer = [{ env = "APP_KEY" }] }   # without auth, a source must say auth = "none"
        [endpoints.orders-slack]
        url = { env = "SLACK_ORDERS_URL" }
        timeout = "3s"
        [endpoints.warehouse]
        url = "https://warehouse.example.com/hooks"
        secret = { env = "WAREHOUSE_SECRET" }
        max_in_flight = 32
        [plugins.slack]
        path = "plugins/slack.wasm"
        [[routes]]
        name = "orders"
        events = ["order.*", "payment.failed"]
        where = 'payload.amount >= 10000'
        subscriptions = [
          { name = "tell-sales", endpoint = "orders-slack", plugins = [{ use = "slack", config = { channel = "#sales" } }] },
          { name = "warehouse", endpoint = "warehouse", retry = ["5s", "1m", "5m", "30m", "2h", "24h"] },
        ]
    "##;
    let config = good(
        design,
        &[
            ("APP_KEY", "key-1"),
            ("SLACK_ORDERS_URL", "https://hooks.slack.com/services/T/B/x"),
            ("WAREHOUSE_SECRET", "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX"),
        ],
    );
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    let SourceAuth::Bearer(keys) = &config.sources[0].auth else { panic!("{:?}", config.sources) };
    assert!(keys[0].matches(b"key-1"));
    let route = &config.routes[0];
    assert_eq!(route.patterns, ["order.*", "payment.failed"]);
    assert_eq!(route.condition.as_deref(), Some("payload.amount >= 10000"));
    let [sales, warehouse] = &route.subscriptions[..] else { panic!("{route:?}") };
    assert_eq!((&*sales.name, &*sales.route), ("tell-sales", "orders"));
    assert_eq!(&*sales.plugins[0].config, r##"{"channel":"#sales"}"##);
    assert_eq!(sales.retry, RetrySchedule::default());
    assert_eq!(sales.endpoint.timeout, Duration::from_secs(3));
    assert_eq!(warehouse.retry.waits.len(), 6);
    assert_eq!(warehouse.retry.waits[0], Duration::from_secs(5));
    assert_eq!(warehouse.endpoint.max_in_flight, 32);
    assert!(matches!(&warehouse.endpoint.signing_keys[..], [SigningKey::Hmac(key)] if key.len() == 24));
    assert_eq!(shown(&config, "routes[0].where"), "app.toml:26:17");
    assert_eq!(shown(&config, "plugins.slack.path"), "app.toml:22:16");
    assert!(config.place("routes[1]").is_none());
}

#[test]
fn every_config_of_the_repository_loads() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut loaded = Vec::new();
    for entry in folder.read_dir().unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        // Every variable that the file names is set to what such a name is likely to hold.
        let names = text.split("env = \"").skip(1).filter_map(|rest| rest.split_once('"')).map(|(name, _)| name);
        let value = |name: &str| match name {
            _ if name.contains("SECRET") => "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX",
            _ if name.contains("URL") => "https://example.com/hook",
            _ => "a-token",
        };
        let environment: Environment = names.map(|name| (name, value(name))).collect();
        let config = Config::load_with_environment(&path, &environment).unwrap_or_else(|errors| panic!("{errors}"));
        for plugin in &config.plugins {
            assert!(plugin.path.starts_with(&folder), "{} is found from the config's folder", plugin.path.display());
        }
        loaded.push((path.file_name().unwrap().to_string_lossy().into_owned(), text, config));
    }
    let (_, text, config) = loaded.iter().find(|(name, _, _)| name == "example.toml").expect("example.toml");
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    example_shows_every_key(text);
    example_routes_every_event_type(config);
}

fn example_shows_every_key(text: &str) {
    let keys = "listen body_bytes_max batch_events_max head_timeout body_timeout store_timeout connections_max \
                connections_per_address_max bodies_bytes_max backlog_events_max tokens url partitions retention \
                dedupe_window allow_networks events_in_flight_max attempts_in_flight_max answer_bytes_max \
                shutdown_grace threads cache level format path auth bearer secret timeout connect_timeout \
                max_in_flight headers retry sha256 fixtures deadline memory_bytes_max output_bytes_max name sources events \
                where subscriptions endpoint plugins use config mode on_error";
    for key in keys.split_whitespace() {
        let shown = text
            .lines()
            .flat_map(|line| line.split(['{', ',', '#']))
            .any(|part| part.trim_start().strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with('=')));
        assert!(shown, "config/example.toml shows no `{key} = `");
    }
}

fn example_routes_every_event_type(config: &Config) {
    let types = [
        ("user", &["created", "updated", "deleted"][..]),
        ("organization", &["created", "updated", "deleted"]),
        ("project", &["created", "updated", "deleted"]),
        ("order", &["created", "completed", "cancelled", "refunded"]),
        ("payment", &["succeeded", "failed"]),
    ];
    for (kind, changes) in types {
        for change in changes {
            let fits = |pattern: &String| *pattern == format!("{kind}.*") || *pattern == format!("{kind}.{change}");
            let unconditional = config.routes.iter().filter(|route| route.condition.is_none());
            let routed = unconditional.filter(|route| !route.subscriptions.is_empty());
            assert!(routed.flat_map(|route| &route.patterns).any(fits), "{kind}.{change} is not routed");
        }
    }
}
