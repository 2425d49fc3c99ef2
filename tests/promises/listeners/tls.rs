//! TLS on both listeners: the certificate of the files, renewed at a reload; a bad file is named and changes nothing.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{EVENT, KEY, PATIENCE};
use crate::support::eventually;
use crate::support::router::RouterProcess;

/// What a client shows.
pub struct Shown {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

/// Who vouches for the routers' certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
    root_pem: String,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).unwrap();
        let (root, root_pem) = (root.der().clone(), root.pem());
        Self { issuer: Issuer::new(params, key), root, root_pem }
    }

    /// Writes a new certificate for `localhost` and its key; gives the certificate.
    pub fn issue(&self, folder: &Path) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        std::fs::write(folder.join("cert.pem"), certificate.pem()).unwrap();
        std::fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
        certificate.der().clone()
    }

    /// A certificate for a client, with these names.
    pub fn issue_client(&self, dns: &[&str], uris: &[&str]) -> Shown {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(dns.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        params.subject_alt_names.extend(uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())));
        let certificate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        Shown { certificate, key: PrivatePkcs8KeyDer::from(key.serialize_der()).into() }
    }

    /// Writes the authority's own certificate.
    pub fn write(&self, path: &Path) {
        std::fs::write(path, &self.root_pem).unwrap();
    }

    pub async fn connect(&self, port: u16, protocols: &[&[u8]]) -> std::io::Result<TlsStream<TcpStream>> {
        self.connect_as(port, protocols, None).await
    }

    /// The same, and shows a certificate.
    pub async fn connect_as(
        &self,
        port: u16,
        protocols: &[&[u8]],
        shown: Option<&Shown>,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match shown {
            None => config.with_no_client_auth(),
            Some(shown) => {
                config.with_client_auth_cert(vec![shown.certificate.clone()], shown.key.clone_key()).unwrap()
            }
        };
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let tcp = TcpStream::connect(("127.0.0.1", port)).await?;
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), tcp).await
    }

    /// One request of HTTP/1.1 on a connection of its own: the answer, and the certificate that was shown.
    pub async fn ask(&self, port: u16, request: &str) -> std::io::Result<(String, CertificateDer<'static>)> {
        let mut stream = self.connect(port, &[b"http/1.1"]).await?;
        let (_, session) = stream.get_ref();
        assert_eq!(session.alpn_protocol(), Some(&b"http/1.1"[..]));
        let shown = session.peer_certificates().unwrap()[0].clone().into_owned();
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        match timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an answer") {
            // The length that an answer has says whether it is whole; the end of its connection need not.
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof && !answer.is_empty() => {}
            ended => drop(ended?),
        }
        Ok((String::from_utf8(answer).unwrap(), shown))
    }
}

pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
}

pub fn post(path: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n{body}"
    )
}

pub const BOTH: &str =
    "[ingest.tls]\ncert = \"cert.pem\"\nkey = \"key.pem\"\n[admin.tls]\ncert = \"cert.pem\"\nkey = \"key.pem\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn both_listeners_speak_tls_and_a_reload_takes_a_renewed_certificate_or_none() {
    let authority = Authority::new();
    let mut router = RouterProcess::new("file:{folder}/data", BOTH);
    let first = authority.issue(&router.folder());
    router.spawn();
    let ready =
        async || authority.ask(router.admin, &get("/readyz")).await.ok().filter(|(text, _)| text.contains("200 OK"));
    assert_eq!(eventually("the router is ready", PATIENCE, ready).await.1, first);
    let event =
        post("/v1/events", &format!("content-type: application/json\r\nauthorization: Bearer {KEY}\r\n"), EVENT);
    let (answer, shown) = authority.ask(router.ingest, &event).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 202") && shown == first, "{answer}");

    let second = authority.issue(&router.folder());
    let (answer, _) = authority.ask(router.admin, &post("/api/v1/reload", "", "")).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    std::fs::write(router.folder().join("key.pem"), "no key").unwrap();
    let (answer, _) = authority.ask(router.admin, &post("/api/v1/reload", "", "")).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 422") && answer.contains("key.pem` holds no private key"), "{answer}");
    for (port, request) in [(router.ingest, &event), (router.admin, &get("/healthz"))] {
        let (answer, shown) = authority.ask(port, request).await.unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 20") && shown == second,
            "the renewed one, and not the broken one: {answer}"
        );
        assert!(authority.connect(port, &[b"spdy/3"]).await.is_err(), "nothing else is spoken");
        // Clear text gets no answer in clear text, and nothing is stored for it.
        let mut plain = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        plain.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = timeout(PATIENCE, plain.read_to_end(&mut answer)).await.expect("it is closed");
        assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_does_not_come_to_its_end_is_given_up() {
    let authority = Authority::new();
    let mut router = RouterProcess::new("file:{folder}/data", "");
    router.write_config_with("head_timeout = \"1s\"\n[ingest.tls]\ncert = \"cert.pem\"\nkey = \"key.pem\"", "");
    authority.issue(&router.folder());
    router.start().await;
    let hanging = (0..20).map(|_| async {
        let mut stream = TcpStream::connect(("127.0.0.1", router.ingest)).await.unwrap();
        stream.write_all(b"\x16\x03\x01\x02\x00\x01").await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    timeout(Duration::from_secs(10), futures_util::future::join_all(hanging)).await.expect("all are closed");
}

#[test]
fn a_certificate_that_can_not_be_used_ends_with_78_and_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("branchline.toml");
    let serve = |section: &str| {
        std::fs::write(
            &path,
            format!("[ingest]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n{section}"),
        )
        .unwrap();
        let output =
            Command::new(env!("CARGO_BIN_EXE_branchline")).args(["serve", "--config"]).arg(&path).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for (section, parts) in [
        (
            "[ingest.tls]\ncert = \"missing.pem\"\nkey = \"missing.pem\"\n",
            ["branchline.toml:5:", "missing.pem` can't be read"],
        ),
        (
            "[admin.tls]\ncert = \"branchline.toml\"\nkey = \"x\"\n",
            ["branchline.toml:5:", "branchline.toml` holds no certificate"],
        ),
        ("[admin.tls]\ncert = \"x\"\n", ["branchline.toml:5:", "`admin.tls` has no `key`"]),
    ] {
        let (code, message) = serve(section);
        assert_eq!(code, Some(78), "{message}");
        for part in parts {
            assert!(message.contains(part), "`{part}` is not in\n{message}");
        }
    }
}
