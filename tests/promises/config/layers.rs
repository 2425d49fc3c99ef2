//! Defaults, then the files of a folder, then variables.

use std::time::Duration;

use branchline::config::{Config, Environment, Fault};

use super::{MARKER, bad, folder, good, shown};

/// What loading a folder says, with the folder's own path taken out.
fn load(folder: &tempfile::TempDir) -> Result<Config, String> {
    let shown = format!("{}/", folder.path().display());
    Config::load_with_environment(folder.path(), &Environment::default())
        .map_err(|errors| errors.to_string().replace(&shown, ""))
}

#[test]
fn the_files_of_a_folder_are_one_config() {
    let folder = folder(&[
        ("10-base.toml", "[ingest]\nlisten = \"127.0.0.1:9000\"\n[endpoints.a]\nurl = \"https://a.example.com\"\n"),
        ("20-shop.toml", &format!("[ingest]\nbody_bytes_max = \"2MiB\"\n{}", route("shop", "a"))),
        ("30-team.toml", &format!("{}[plugins.p]\npath = \"p.wasm\"\n", route("team", "a"))),
        ("notes.txt", "not a config"),
        (".hidden.toml", "not = [a config"),
    ]);
    let config = load(&folder).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(config.ingest.listen.to_string(), "127.0.0.1:9000");
    assert_eq!(config.ingest.body_bytes_max, 2 << 20);
    let names: Vec<&str> = config.routes.iter().map(|route| &*route.name).collect();
    assert_eq!(names, ["shop", "team"]);
    assert_eq!(config.plugins[0].path, folder.path().join("p.wasm"));
    let place = format!("{}:2:8", folder.path().join("30-team.toml").display());
    assert_eq!(shown(&config, "routes[1].name"), place);
}

/// A route with one subscription, both of this name.
fn route(name: &str, endpoint: &str) -> String {
    format!(
        "[[routes]]\nname = \"{name}\"\nevents = [\"**\"]\nsubscriptions = [{{ name = \"{name}\", endpoint = \"{endpoint}\" }}]\n"
    )
}

#[test]
fn what_two_files_of_a_folder_define_is_a_mistake_in_the_second() {
    let folder = folder(&[
        ("a.toml", "[ingest]\nlisten = \"127.0.0.1:9000\"\n[endpoints.x]\nurl = \"https://marker.example.com\"\n"),
        ("b.toml", "[endpoints.x]\ntimeout = \"1s\"\n[ingest]\nlisten = \"127.0.0.1:9001\"\n"),
    ]);
    assert_eq!(
        load(&folder).unwrap_err(),
        "b.toml:1:12: `endpoints.x` is defined in two files; the other place is a.toml:3:12\n  |\n\
         1 | [endpoints.x]\n  |            ^\n\
         b.toml:4:1: `ingest.listen` is defined in two files; the other place is a.toml:2:1\n  |\n\
         4 | listen = …\n  | ^^^^^^"
    );
}

#[test]
fn mistakes_of_all_files_are_reported_at_their_own_places() {
    let endpoint = "[endpoints.a]\nurl = \"https://a.example.com\"\n";
    let folder = folder(&[
        ("a.toml", &format!("{endpoint}{}", route("one", "a"))),
        ("b.toml", &format!("{}{}", route("two", "b"), route("one", "a"))),
    ]);
    let shown = load(&folder).unwrap_err();
    let first_lines: Vec<&str> = shown.lines().filter(|line| line.contains(".toml:")).collect();
    assert_eq!(
        first_lines,
        [
            "b.toml:4:45: `routes[1].subscriptions[0].endpoint` names no endpoint of this config: `b`; add `[endpoints.b]`",
            "b.toml:6:8: `routes[2].name` names a second route `one`; the first is at a.toml:4:8",
            "b.toml:8:27: `routes[2].subscriptions[0].name` names a second subscription `one`; the first is at a.toml:6:27",
        ]
    );
    let folder = self::folder(&[("a.toml", "[a\n"), ("b.toml", "b = \n")]);
    let shown = load(&folder).unwrap_err();
    assert!(shown.contains("a.toml:1:3: ") && shown.contains("b.toml:1:5: "), "{shown}");
}

#[test]
fn a_config_that_is_not_there_says_so() {
    let folder = folder(&[]);
    let path = folder.path().join("none.toml");
    let shown = Config::load_with_environment(&path, &Environment::default()).unwrap_err().to_string();
    assert_eq!(shown, format!("{}: can't be read: No such file or directory (os error 2)", path.display()));
    let path = folder.path();
    let shown = Config::load_with_environment(path, &Environment::default()).unwrap_err().to_string();
    assert_eq!(shown, format!("{}: the folder has no `*.toml` file", path.display()));
    std::fs::write(path.join("a.toml"), b"[log]\nlevel = \"\xff\"\n").unwrap();
    let shown = Config::load_with_environment(path, &Environment::default()).unwrap_err().to_string();
    assert_eq!(shown, format!("{}: is not UTF-8 in line 2", path.join("a.toml").display()));
}

#[test]
fn variables_lie_over_files_and_files_over_defaults() {
    let text = "[ingest]\nlisten = \"127.0.0.1:9000\"\nconnections_max = 7\n[endpoints.orders-slack]\n\
                url = \"https://a.example.com\"\ntimeout = \"1s\"\n";
    let config = good(
        text,
        &[
            ("BRANCHLINE_INGEST__LISTEN", "[::1]:9100"),
            ("BRANCHLINE_INGEST__BODY_BYTES_MAX", "2MiB"),
            ("BRANCHLINE_INGEST__BATCH_EVENTS_MAX", "5"),
            ("BRANCHLINE_DELIVERY__ALLOW_NETWORKS", "[10.0.0.0/8, \"fd00::/8\"]"),
            ("BRANCHLINE_ENDPOINTS__ORDERS_SLACK__TIMEOUT", "2s"),
            ("BRANCHLINE_ENDPOINTS__ORDERS_SLACK__SECRET", "{env = SIGNING}"),
            ("BRANCHLINE_ENDPOINTS__NEW__URL", "https://new.example.com/"),
            ("BRANCHLINE_ADMIN__TOKENS", "[one, {env = TOKEN}]"),
            ("BRANCHLINE_SANDBOX__CACHE", ""),
            ("BRANCHLINE_CONFIG", "elsewhere.toml"),
            ("BRANCHLINE_SERVICE_HOST", "10.0.0.1"),
            ("SIGNING", "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX"),
            ("TOKEN", "two"),
        ],
    );
    assert_eq!(config.ingest.listen.to_string(), "[::1]:9100");
    assert_eq!((config.ingest.body_bytes_max, config.ingest.batch_events_max), (2 << 20, 5));
    assert_eq!((config.ingest.connections_max, config.ingest.connections_per_address_max), (7, 1_024));
    assert_eq!(config.delivery.allow_networks.len(), 2);
    let names: Vec<&str> = config.endpoints.iter().map(|endpoint| &*endpoint.name).collect();
    assert_eq!(names, ["new", "orders-slack"]);
    assert_eq!(config.endpoints[1].timeout, Duration::from_secs(2));
    assert_eq!(config.endpoints[1].signing_keys.len(), 1);
    assert!(config.admin.tokens[0].matches(b"one") && config.admin.tokens[1].matches(b"two"));
    assert_eq!(config.sandbox.cache, None);
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    assert_eq!(shown(&config, "ingest.listen"), "environment variable BRANCHLINE_INGEST__LISTEN");
    assert_eq!(shown(&config, "ingest.connections_max"), "app.toml:3:19");
}

#[test]
fn a_mistake_in_a_variable_names_the_variable() {
    for (variable, value, expected) in [
        ("BRANCHLINE_INGEST__LISTEN", "8080", "`ingest.listen` must be an IP address and a port"),
        ("BRANCHLINE_INGEST__CONNECTIONS_MAX", "many", "`ingest.connections_max` must be a whole number"),
        ("BRANCHLINE_INGEST__LISEN", "x", "unknown key `lisen` in `ingest`; did you mean `listen`?"),
        ("BRANCHLINE_INGETS__LISTEN", "x", "unknown key `ingets`; did you mean `ingest`?"),
        ("BRANCHLINE_ENDPOINTS__X__TIMEOUT", "3s", "`endpoints.x` has no `url`"),
        ("BRANCHLINE_ADMIN__TOKENS", "[mar ker]", "`admin.tokens[0]` has a blank"),
        ("BRANCHLINE_STORE__URL", "redis://:marker@", "`store.url` has no valid host"),
    ] {
        let shown = bad("", &[(variable, value)]);
        let expected = format!("environment variable {variable}: {expected}");
        assert!(shown.starts_with(&expected), "{shown}\nis not\n{expected}");
        assert!(!shown.contains(MARKER) && !shown.contains('\n'), "{shown}");
    }
}

#[test]
fn a_variable_with_an_underscore_too_few_is_a_warning() {
    let config =
        good("", &[("BRANCHLINE_INGEST_LISTEN", "127.0.0.1:1"), ("BRANCHLINE_INGEST_PORT", "tcp://10.0.0.1:80")]);
    assert_eq!(
        config.warnings.iter().map(Fault::line).collect::<Vec<_>>(),
        ["environment variable BRANCHLINE_INGEST_LISTEN: sets nothing; did you mean BRANCHLINE_INGEST__LISTEN?"]
    );
}
