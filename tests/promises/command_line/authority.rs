//! Commands reach a router whose certificates a private authority vouches for, and believe nobody else.

use std::process::Command;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use crate::support::eventually;
use crate::support::program::branchline;
use crate::support::router::{KEY, RouterProcess};

const PATIENCE: Duration = Duration::from_secs(40);

/// An authority's certificate, and one that it gives to `127.0.0.1` with its key.
fn certificates() -> [String; 3] {
    let (own, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = params.self_signed(&own).unwrap().pem();
    let issuer = Issuer::new(params, own);
    let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    [root, certificate.pem(), key.serialize_pem()]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_that_talks_to_a_router_believes_a_private_authority_when_told() {
    let mut router = RouterProcess::new("file:{folder}/data", "");
    let folder = router.folder();
    let path = |name: &str| folder.join(name).display().to_string();
    for (name, text) in ["ca.pem", "cert.pem", "key.pem"].iter().zip(certificates()) {
        std::fs::write(folder.join(name), text).unwrap();
    }
    std::fs::write(folder.join("other.pem"), &certificates()[0]).unwrap();
    let tls = |section: &str| format!("[{section}.tls]\ncert = \"cert.pem\"\nkey = \"key.pem\"\n");
    router.write_config(&format!(
        "{}{}[endpoints.x]\nurl = \"https://branchline.invalid\"\n[[routes]]\nname = \"r\"\nevents = [\"**\"]\n\
         subscriptions = [{{ name = \"s\", endpoint = \"x\" }}]\n",
        tls("ingest"),
        tls("admin"),
    ));
    router.spawn();
    let (url, ca, config) = (format!("https://127.0.0.1:{}", router.admin), path("ca.pem"), path("branchline.toml"));
    let listed = ["events", "list", "--url", &url, "--ca", &ca];
    eventually("the router answers", PATIENCE, async || (branchline(&listed, "").await.code == 0).then_some(())).await;

    let event = r#"{"id":"evt_1","eventType":"order.created","payload":1}"#;
    let trusting = ["--ca", ca.as_str()];
    for (arguments, input) in [
        (&["send", "--config", &config][..], event),
        (&["events", "show", "evt_1", "--url", &url], ""),
        (&["explain", "evt_1", "--url", &url], ""),
        (&["dead-letters", "list", "--url", &url], ""),
        (&["replay", "--since", "1h", "--dry-run", "--config", &config], ""),
        (&["backtest", "-s", "s", "--where", "payload > 0", "--config", &config], ""),
        (&["plan", &config, "--against", &url], ""),
    ] {
        let ended = branchline(&[arguments, &trusting].concat(), input).await;
        assert_eq!(ended.code, 0, "{arguments:?}: {ended:?}");
    }
    let output = Command::new(env!("CARGO_BIN_EXE_branchline"))
        .args(["events", "list", "--url", &url])
        .env("BRANCHLINE_CA", &ca)
        .env("TEST_KEY", KEY)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");

    for (arguments, part) in [
        (vec![], "`--ca FILE` names who vouches for it"),
        (vec!["--ca".to_owned(), path("other.pem")], "invalid peer certificate"),
        (vec!["--ca".to_owned(), path("key.pem")], "key.pem` holds no certificate"),
        (vec!["--ca".to_owned(), path("missing.pem")], "missing.pem` can't be read"),
    ] {
        let mut all = vec!["events", "list", "--url", &url];
        all.extend(arguments.iter().map(String::as_str));
        let ended = branchline(&all, "").await;
        assert!(ended.code == 1 && ended.stderr.contains(part), "`{part}` is not in {ended:?}");
    }
}
