//! `branchline check` finds what `serve` would refuse, with place, line and remedy, for people and for programs; and says nothing
//! of a config that is as it should be.

mod online; // What others say.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

const BASE: &str = r#"[sources.app]
path = "/v1/events"
auth = { bearer = [{ env = "APP_KEY" }] }
[endpoints.x]
url = "https://x.example.com/hook"
"#;

const ROUTE: &str = r#"[[routes]]
name = "r"
events = ["order.*"]
subscriptions = [{ name = "s", endpoint = "x" }]
"#;

struct Checked {
    code: i32,
    stdout: String,
    stderr: String,
}

/// Runs the program over a config in a temporary folder; paths are shown from there.
fn check(text: &str, arguments: &[&str]) -> Checked {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("app.toml"), text).unwrap();
    std::fs::write(folder.path().join("broken.wasm"), "no component").unwrap();
    check_in(folder.path(), &[&["app.toml"], arguments].concat(), &[("APP_KEY", "a-key-of-the-tests")])
}

fn check_in(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Checked {
    let output = Command::new(env!("CARGO_BIN_EXE_branchline"))
        .arg("check")
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env("HOME", folder)
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    Checked {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// The repository's own plugins, from anywhere.
fn plugin(name: &str) -> String {
    format!("{}/plugins/{name}.wasm", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn a_config_as_it_should_be_is_silence_and_0() {
    let checked = check(&format!("{BASE}{ROUTE}"), &["--deny-warnings"]);
    assert_eq!((checked.code, checked.stdout.as_str(), checked.stderr.as_str()), (0, "", ""));
}

#[test]
fn each_mistake_has_its_place_its_line_and_a_remedy() {
    let slack = plugin("slack");
    let with_slack = |plugin: &str, config: &str| {
        let uses = format!("endpoint = \"x\", plugins = [{{ use = \"slack\", config = {config} }}]");
        format!("{BASE}{}[plugins.slack]\n{plugin}\n", ROUTE.replace("endpoint = \"x\"", &uses))
    };
    let path = format!("path = \"{slack}\"");
    for (name, text, expected) in [
        (
            "an unknown name in a condition",
            format!("{BASE}{}where = 'paylod.amount > 1'\n", ROUTE),
            "app.toml:10:10: error: route `r`: `where`: `paylod` is not known; an expression may use eventType, \
             aggregateType, aggregateId, payload, metadata, occurredAt, source; did you mean `payload`? [route]\n   |\n\
             10 | where = 'paylod.amount > 1'\n   |          ^^^^^^\n",
        ),
        (
            "a function that there is not",
            format!("{BASE}{ROUTE}where = \"eventType.startWith('order')\"\n"),
            "app.toml:10:20: error: route `r`: `where`: there is no function `startWith`; did you mean `startsWith`? [route]\n   |\n\
             10 | where = \"eventType.startWith('order')\"\n   |                    ^^^^^^^^^\n",
        ),
        (
            "types that do not fit",
            format!("{BASE}{ROUTE}where = \"eventType > 5\"\n"),
            "app.toml:10:20: error: route `r`: `where`: `>` does not fit text and a number [route]\n   |\n\
             10 | where = \"eventType > 5\"\n   |                    ^\n",
        ),
        (
            "a text that is no regular expression, in an expression of several lines",
            format!("{BASE}{ROUTE}where = '''\npayload.x == 1 &&\n  payload.y.matches(\"((\")'''\n"),
            "app.toml:12:21: error: route `r`: `where`: `((` is no regular expression: unclosed group [route]\n   |\n\
             12 |   payload.y.matches(\"((\")'''\n   |                     ^^^^\n",
        ),
        ("no expression", format!("{BASE}{ROUTE}where = \"payload.amount >\"\n"), "app.toml:10:"),
        (
            "a plugin that is none",
            with_slack("path = \"broken.wasm\"", "{}"),
            "app.toml:11:8: error: plugin `slack` (`broken.wasm`): not a WebAssembly file [plugin]\n   |\n\
             11 | path = \"broken.wasm\"\n   |        ^^^^^^^^^^^^^\n",
        ),
        (
            "a plugin that is not there",
            with_slack("path = \"gone.wasm\"", "{}"),
            "app.toml:11:8: error: plugin `slack` (`gone.wasm`): ",
        ),
        (
            "a plugin with another digest",
            with_slack(&format!("{path}\nsha256 = \"{}\"", "0".repeat(64)), "{}"),
            "app.toml:12:10: error: plugin `slack` (`",
        ),
        (
            "a config that the plugin refuses",
            with_slack(&path, "{ channel = \" \" }"),
            "app.toml:9:85: error: subscription `s`: plugin `slack` refuses its config: ",
        ),
        (
            "a variable that is not set",
            format!("{BASE}{ROUTE}").replace("APP_KEY", "OTHER_KEY"),
            "app.toml:3:28: error: `sources.app.auth.bearer[0].env` names the environment variable `OTHER_KEY`, which is not set [config]\n",
        ),
        (
            "an unknown key",
            format!("{BASE}{ROUTE}wher = \"true\"\n"),
            "app.toml:10:1: error: unknown key `wher` in `routes[0]`; did you mean `where`? [config]\n",
        ),
    ] {
        let checked = check(&text, &[]);
        assert_eq!(checked.code, 78, "{name}: {}", checked.stdout);
        assert!(checked.stdout.contains(expected), "{name}: `{expected}` is not in\n{}", checked.stdout);
        assert!(checked.stderr.starts_with("branchline: 1 error, "), "{name}: {}", checked.stderr);
    }
}

#[test]
fn every_mistake_is_told_at_once() {
    let text = format!(
        "{BASE}{ROUTE}where = \"nothing > 1\"\n[plugins.a]\npath = \"broken.wasm\"\n[plugins.b]\npath = \"gone.wasm\"\n"
    );
    let checked = check(&text, &["--format", "json"]);
    let told: Value = serde_json::from_str(&checked.stdout).unwrap();
    assert_eq!((&told["valid"], &told["errors"], &told["warnings"]), (&false.into(), &3.into(), &2.into()), "{told:#}");
    let rules: Vec<_> =
        told["findings"].as_array().unwrap().iter().map(|fault| fault["rule"].as_str().unwrap()).collect();
    assert_eq!(rules, ["route", "plugin", "plugin", "unused", "unused"]);
}

/// What the reader finds, what compiling and loading find, and what is only worth a second look: each beside all others.
#[test]
fn no_mistake_hides_another() {
    let text = r#"[log]
levl = "info"
[sources.app]
path = "/v1/events"
path = "/v2/events"
auth = { bearer = [{ env = "NOT_SET" }] }
[endpoints.x]
url = "https://x.example.com/hook"
max_in_flight = "many"
[endpoints.spare]
url = "https://spare.example.com"
[plugins.broken]
path = "broken.wasm"
[plugins.slack]
path = "SLACK"
[[routes]]
name = "r"
events = ["order.*", "order.created", "*x"]
where = "paylod.amount > 1"
subscriptions = [
  { nmae = "s", endpoint = "x", retires = ["1m"], plugins = [{ use = "slak", config = { channel = " " } }, "broken"] },
]
[[routes]]
name = "never"
events = ["user.*"]
where = "1 > 2"
subscriptions = [{ name = "wide", endpoint = "x" }, { name = "again", endpoint = "x" }]
"#;
    let checked = check(&text.replace("SLACK", &plugin("slack")), &[]);
    assert_eq!(checked.code, 78, "{}", checked.stdout);
    let mut found: Vec<_> = checked.stdout.lines().filter(|line| line.starts_with("app.toml:")).collect();
    // Errors come first; here they stand among the warnings, line by line.
    found.sort_by_key(|line| line.split(':').skip(1).map_while(|part| part.parse().ok()).collect::<Vec<u32>>());
    let expected = [
        "app.toml:2:1: error: unknown key `levl` in `log`; did you mean `level`?",
        "app.toml:5:1: error: `path` is defined twice",
        "app.toml:6:28: error: `sources.app.auth.bearer[0].env` names the environment variable `NOT_SET`, which is not set",
        "app.toml:9:17: error: `endpoints.x.max_in_flight` must be a whole number",
        "app.toml:10:1: warning: no subscription uses the endpoint `spare`",
        "app.toml:13:8: error: plugin `broken` (`broken.wasm`): not a WebAssembly file",
        "app.toml:18:22: warning: `order.created` adds nothing to `order.*`",
        "app.toml:18:39: error: `routes[0].events[2]`",
        "app.toml:19:10: error: route `r`: `where`: `paylod` is not known; an expression may use",
        "app.toml:21:5: error: unknown key `nmae` in `routes[0].subscriptions[0]`; did you mean `name`?",
        "app.toml:21:33: error: unknown key `retires` in `routes[0].subscriptions[0]`; did you mean `retry`?",
        "app.toml:21:70: error: `routes[0].subscriptions[0].plugins[0].use` names no plugin of this config: `slak`; did you mean `slack`?",
        "app.toml:21:87: error: subscription `s`: plugin `slack` refuses its config",
        "app.toml:26:9: warning: the `where` of the route `never` is never true",
        "app.toml:27:62: warning: `again` brings the endpoint `x` only what `wide` brings it",
    ];
    assert_eq!(found.len(), expected.len(), "{}", checked.stdout);
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "`{found}` is not `{expected}`");
    }
    let carets = checked.stdout.lines().filter(|line| line.contains(" | ") && line.trim_end().ends_with('^'));
    assert_eq!(carets.count(), expected.len(), "each has its line: {}", checked.stdout);
}

#[test]
fn a_header_that_is_none_is_shown_and_hides_no_other_file() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.toml"), format!("{BASE}[[routes]\nname = \"r\"\n")).unwrap();
    std::fs::write(folder.path().join("b.toml"), "[endpoints.y\nurl = \"https://y.example.com\"\n").unwrap();
    std::fs::write(folder.path().join("c.toml"), [b'#', 0xff]).unwrap();
    let checked = check_in(folder.path(), &["."], &[("APP_KEY", "k")]);
    assert_eq!(checked.code, 78, "{}", checked.stdout);
    for expected in
        ["6 | [[routes]\n  |          ^\n", "1 | [endpoints.y\n  |             ^\n", "./c.toml: error: is not UTF-8"]
    {
        assert!(checked.stdout.contains(expected), "`{expected}` is not in\n{}", checked.stdout);
    }
}

#[test]
fn severities_have_colours_on_a_terminal_only() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("app.toml"), format!("{BASE}{ROUTE}where = \"1 > 2\"\n[log]\nlevl = \"info\"\n"))
        .unwrap();
    let check = |format: &str, variables: &[(&str, &str)]| {
        let variables = [&[("APP_KEY", "k")], variables].concat();
        check_in(folder.path(), &["app.toml", "--format", format], &variables).stdout
    };
    assert!(!check("text", &[]).contains('\u{1b}'), "no terminal");
    // What a terminal would be shown.
    let forced = [("CLICOLOR_FORCE", "1")];
    let coloured = check("text", &forced);
    assert!(coloured.contains(": \u{1b}[31merror\u{1b}[0m: "), "{coloured:?}");
    assert!(coloured.contains(": \u{1b}[33mwarning\u{1b}[0m: "), "{coloured:?}");
    assert!(!check("json", &forced).contains('\u{1b}') && !check("github", &forced).contains('\u{1b}'));
}

#[test]
fn all_that_is_wrong_with_a_condition_is_told_and_what_was_meant_is_for_programs_too() {
    let condition = "where = \"paylod.x == 1 && bar == 2 && payload.startWith('a')\"\n";
    let checked = check(&format!("{BASE}{ROUTE}{condition}"), &["--format", "json"]);
    let told: Value = serde_json::from_str(&checked.stdout).unwrap();
    let told: Vec<_> =
        told["findings"].as_array().unwrap().iter().map(|one| (&one["column"], &one["suggestion"])).collect();
    let (payload, function) = ("payload".into(), "startsWith".into());
    assert_eq!(told, [(&10.into(), &payload), (&27.into(), &Value::Null), (&47.into(), &function)]);
}

#[test]
fn what_a_condition_can_only_be_without_is_a_warning() {
    for (condition, expected) in [
        (
            "payload.a || payload.x.matches('((')",
            "app.toml:10:41: warning: route `r`: `where`: `((` is no regular expression: unclosed group [route]\n",
        ),
        (
            "payload.x && eventType == 'user.created'",
            "app.toml:10:36: warning: route `r`: `where`: never true, since `events` of the route takes only `order.*`, and not `user.created` [unreachable]\n",
        ),
    ] {
        let checked = check(&format!("{BASE}{ROUTE}where = \"{condition}\"\n"), &[]);
        assert!(checked.code == 0 && checked.stdout.starts_with(expected), "{condition}: {}", checked.stdout);
    }
    // Where the reader refuses what the route takes, nothing is said that may follow from it.
    let text = format!("{BASE}{ROUTE}sources = [\"web\"]\nwhere = \"source == 'shop'\"\n");
    let checked = check(&text, &[]);
    assert_eq!((checked.code, checked.stdout.contains("[unreachable]")), (78, false), "{}", checked.stdout);
}

#[test]
fn where_no_delivery_may_go_is_told_at_the_url() {
    let text = format!("{BASE}{ROUTE}").replace("https://x.example.com/hook", "https://169.254.169.254/a-token");
    let checked = check(&text, &[]);
    let expected = "app.toml:5:7: warning: no delivery may go to the endpoint `x`: 169.254.169.254 is link-local, where clouds keep \
                    their metadata; it is allowed only where it is listed by itself; `delivery.allow_networks` can allow it [endpoint]\n  |\n\
                    5 | url = …\n  |       ^\n";
    assert_eq!((checked.code, checked.stdout.as_str()), (0, expected));
    let listed = format!("{text}[delivery]\nallow_networks = [\"169.254.169.254/32\"]\n");
    assert_eq!(check(&listed, &["--deny-warnings"]).stdout, "");
}

#[test]
fn warnings_pass_unless_they_are_denied() {
    let text = format!("{BASE}{ROUTE}[endpoints.spare]\nurl = \"https://spare.example.com\"\n");
    let line = "app.toml:10:1: warning: no subscription uses the endpoint `spare` [unused]\n";
    let passed = check(&text, &[]);
    assert_eq!((passed.code, passed.stdout.starts_with(line)), (0, true), "{}", passed.stdout);
    let denied = check(&text, &["--deny-warnings", "--format", "github"]);
    assert_eq!(denied.code, 1, "the router would start, so it is not 78");
    assert_eq!(
        denied.stdout,
        "::warning file=app.toml,line=10,col=1,title=branchline unused::no subscription uses the endpoint `spare`\n"
    );
}

#[test]
fn where_secrets_are_not_there_stand_ins_take_their_place() {
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "{BASE}secret = {{ file = \"x.secret\" }}\nheaders = {{ authorization = {{ env = \"AUTHORIZATION\" }} }}\n{ROUTE}"
    );
    let text = text.replace("\"https://x.example.com/hook\"", "{ env = \"X_URL\" }");
    std::fs::write(folder.path().join("app.toml"), text).unwrap();
    let refused = check_in(folder.path(), &["app.toml"], &[]);
    assert_eq!((refused.code, refused.stdout.matches(": error: ").count()), (78, 4), "{}", refused.stdout);
    let passed = check_in(folder.path(), &["app.toml", "--stand-ins"], &[]);
    assert_eq!((passed.code, passed.stdout.matches("a stand-in takes its place").count()), (0, 4), "{}", passed.stdout);
}

#[test]
fn several_configs_are_checked_in_one_call_and_sarif_names_the_files() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("good.toml"), format!("{BASE}{ROUTE}")).unwrap();
    std::fs::write(folder.path().join("bad.toml"), "[log]\nlevl = \"info\"\n").unwrap();
    let checked = check_in(folder.path(), &["good.toml", "bad.toml", "--format", "sarif"], &[("APP_KEY", "k")]);
    assert_eq!(checked.code, 78);
    let sarif: Value = serde_json::from_str(&checked.stdout).unwrap();
    let results = sarif["runs"][0]["results"].as_array().unwrap();
    assert_eq!(results.len(), 1, "{sarif:#}");
    let place = &results[0]["locations"][0]["physicalLocation"];
    assert_eq!((&place["artifactLocation"]["uri"], &place["region"]["startLine"]), (&"bad.toml".into(), &2.into()));
}
