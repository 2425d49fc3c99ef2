//! Secrets come from variables, from files, or with a warning; and no message shows them.

use std::path::Path;

use branchline::config::{Config, Environment, Fault};

use super::{MARKER, bad, folder};

#[test]
fn a_secret_comes_from_a_variable_a_file_or_the_config_with_a_warning() {
    let folder = folder(&[
        ("app.toml", "[admin]\ntokens = [{ env = \"TOKEN\" }, { file = \"token\" }, \"plain\", { file = \"open\" }]\n"),
        ("token", "from-file\r\n"),
        ("open", "from-open\n\n"),
    ]);
    set_mode(&folder.path().join("token"), 0o600);
    set_mode(&folder.path().join("open"), 0o644);
    std::fs::write(folder.path().join("open"), "from-open\n").unwrap();
    let path = folder.path().join("app.toml");
    let config = Config::load_with_environment(&path, &[("TOKEN", "from-variable")].into()).unwrap();
    let tokens: Vec<&str> = config.admin.tokens.iter().map(|token| token.expose()).collect();
    assert_eq!(tokens, ["from-variable", "from-file", "plain", "from-open"]);
    let path = path.display();
    assert_eq!(
        config.warnings.iter().map(Fault::line).collect::<Vec<_>>(),
        [
            format!(
                "{path}:2:50: `admin.tokens[2]` is a secret in plain text; better `{{ env = \"NAME\" }}` or \
                 `{{ file = \"path\" }}`"
            ),
            format!(
                "{path}:2:68: `admin.tokens[3].file` names the file `{}`, which others than its owner can read (mode \
                 644); `chmod 600` it",
                folder.path().join("open").display()
            ),
        ]
    );
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
}

#[test]
fn a_secret_file_that_can_not_be_used_says_why_and_not_what_it_holds() {
    let folder = folder(&[("empty", "\n"), ("large", &MARKER.repeat(20_000)), ("lines", "marker\nmarker\n")]);
    std::fs::write(folder.path().join("binary"), b"marker\xff").unwrap();
    for (file, why) in [
        ("empty", "`admin.tokens[0]` is empty"),
        ("large", "it is larger than 64KiB"),
        ("lines", "`admin.tokens[0]` has a blank or another character"),
        ("binary", "it is not UTF-8"),
        (".", "it is not a file"),
    ] {
        let text = format!("[admin]\ntokens = [{{ file = \"{file}\" }}]\n");
        let name = folder.path().join("app.toml");
        let shown = Config::parse(&name, &text, &Environment::default()).unwrap_err().to_string();
        assert!(shown.contains(why) && !shown.contains(MARKER), "{shown}");
    }
}

#[test]
fn secrets_are_in_no_debug_output() {
    let marker = "bWFya2VybWFya2VybWFya2VybWFya2Vy"; // "marker" four times, in base64.
    let text = format!(
        "[admin]\ntokens = [\"marker-1\"]\n[store]\nurl = \"redis://:marker@cache:6379\"\n[sources.app]\n\
         path = \"/\"\nauth = {{ bearer = [\"marker-2\"] }}\n[endpoints.a]\nurl = \"https://example.com/marker?marker\"\n\
         secret = [\"whsec_{marker}\", \"whsk_{}=\"]\nheaders = {{ authorization = \"Bearer marker\" }}\n\
         [[routes]]\nname = \"r\"\nevents = [\"**\"]\nsubscriptions = [{{ name = \"s\", endpoint = \"a\" }}]\n",
        "bWFy".repeat(10) + "bWE"
    );
    let environment = Environment::from([("TOKEN", MARKER)]);
    let config = Config::parse(Path::new("app.toml"), &text, &environment).unwrap_or_else(|errors| panic!("{errors}"));
    let shown = format!("{config:?} {environment:?}");
    assert!(!shown.contains(MARKER) && !shown.contains("bWFy"), "{shown}");
    assert!(shown.contains("https://example.com"), "{shown}");
    assert_eq!(config.warnings.len(), 6, "one for each but the endpoint's URL: {:#?}", config.warnings);
    assert!(
        config
            .warnings
            .iter()
            .all(|warning| warning.line().starts_with("app.toml:") && !warning.to_string().contains(MARKER))
    );
}

#[test]
fn a_secret_that_a_variable_takes_the_place_of_is_not_shown_either() {
    let text = "[endpoints]\na = { url = \"https://marker.example.com\", secret = \"marker\", tymeout = \"1s\" }\n";
    let variables = [
        ("BRANCHLINE_ENDPOINTS__A__URL", "https://a.example.com"),
        ("BRANCHLINE_ENDPOINTS__A__SECRET", "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX"),
    ];
    assert_eq!(
        bad(text, &variables),
        "app.toml:2:62: unknown key `tymeout` in `endpoints.a`; did you mean `timeout`?\n  |\n\
         2 | a = { url = …, secret = …, tymeout = \"1s\" }\n  |                            ^^^^^^^"
    );
}

#[test]
fn no_slip_of_the_pen_makes_a_message_show_a_secret() {
    // Each character in turn is missing, or is there twice, or is a quote.
    let text = "[admin]\ntokens = [\"markermarker\", 'markermarker', { env = \"T\" }] # markermarker\n\
                [store]\nurl = \"redis://user:markermarker@cache:6379\"\n\
                [sources.app]\npath = \"/v1\"\nauth = { bearer = [\"markermarker\"] }\n\
                [endpoints]\na = { url = \"https://example.com/markermarker\", secret = \"whsec_markermarker\", timeout = \"1s\" }\n\
                [endpoints.b]\nurl = \"https://example.com/?markermarker\"\nsecret = [\n  \"whsec_markermarker\",\n  \"whsec_markermarker\"\n]\n\
                headers = { authorization = \"Bearer markermarker\", x = \"\"\"\nmarkermarker = markermarker\"\"\" }\n\
                [[routes]]\nname = \"r\"\nevents = [\"*\"]\nsubscriptions = [\n  { name = \"s\", endpoint = \"b\", plugins = [{ use = \"p\", config = { key = \"markermarker\" } }] },\n]\n";
    let json = r#"{"admin": {"tokens": ["markermarker"]}, "endpoints": {"a": {"secret": "markermarker", "url": "markermarker"}}}"#;
    for (name, text) in [("app.toml", text), ("app.json", json)] {
        for (at, character) in text.char_indices() {
            let (before, after) = (&text[..at], &text[at + character.len_utf8()..]);
            for slip in [String::new(), format!("{character}{character}"), "\"".to_owned(), "\n".to_owned()] {
                let text = format!("{before}{slip}{after}");
                let Err(errors) = Config::parse(Path::new(name), &text, &Environment::default()) else { continue };
                let shown = errors.to_string();
                assert!(!shown.contains(MARKER), "{shown}\n\nof\n\n{text}");
            }
        }
    }
}
