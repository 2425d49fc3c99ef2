//! Certificates and HTTP/2, with the tests' own authority.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use branchline::delivery::SendErrorKind;
use branchline::endpoint::Endpoint;
use branchline::send::Sender;
use branchline::tls::EndpointTls;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio_rustls::TlsAcceptor;

use super::receiver::{Log, Receiver};
use super::{attempt, builder, endpoint, failure, status};

/// An authority that the tests' senders trust.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// A server's side of TLS with a certificate for `name`.
    fn acceptor(&self, name: &str, expired: bool, protocols: &[&[u8]]) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        if expired {
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        }
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        acceptor(certificate.der().clone(), &key, protocols)
    }

    fn sender(&self) -> Sender {
        builder(&["127.0.0.0/8", "::1/128"]).extra_roots([self.certificate.clone()]).unwrap().build().unwrap()
    }
}

fn acceptor(certificate: CertificateDer<'static>, key: &KeyPair, protocols: &[&[u8]]) -> TlsAcceptor {
    let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

/// A receiver that speaks HTTP/1.1 inside TLS.
async fn http1(acceptor: TlsAcceptor) -> Receiver {
    Receiver::start(move |socket, _, log: Log| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut socket) = acceptor.accept(socket).await else { return };
            while log.read_request(&mut socket).await {
                log.write(&mut socket, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
                tokio::io::AsyncWriteExt::flush(&mut socket).await.unwrap();
            }
        }
    })
    .await
}

fn at(host: &str, receiver: &Receiver) -> String {
    format!("https://{host}:{}/hook", receiver.port())
}

#[tokio::test]
async fn http_1_over_tls_is_delivered_to() {
    let authority = Authority::new();
    for protocols in [&[&b"http/1.1"[..]][..], &[]] {
        let receiver = http1(authority.acceptor("localhost", false, protocols)).await;
        let sender = authority.sender();
        for _ in 0..3 {
            assert_eq!(status(&attempt(&sender, &endpoint(&at("localhost", &receiver))).await), 200);
        }
        assert_eq!(receiver.requests().len(), 3);
        assert!(receiver.connections() <= 2, "{}", receiver.connections());
    }
}

/// A receiver that speaks HTTP/2, and how many requests it has served.
async fn http2(acceptor: TlsAcceptor) -> (Receiver, Arc<AtomicUsize>) {
    let served = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&served);
    let receiver = Receiver::start(move |socket, _, _| {
        let (acceptor, count) = (acceptor.clone(), Arc::clone(&count));
        async move {
            let Ok(socket) = acceptor.accept(socket).await else { return };
            let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let count = Arc::clone(&count);
                async move {
                    assert_eq!(request.version(), http::Version::HTTP_2);
                    assert_eq!(request.uri().path(), "/hook");
                    assert_eq!(request.uri().host(), Some("localhost"));
                    assert!(request.headers().contains_key("webhook-id") && !request.headers().contains_key("host"));
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    assert!(body.starts_with(br#"{"id":"evt_1""#));
                    count.fetch_add(1, Ordering::SeqCst);
                    Ok::<_, Infallible>(http::Response::new(Full::new(Bytes::from_static(b"ok"))))
                }
            });
            let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(socket), service)
                .await;
        }
    })
    .await;
    (receiver, served)
}

/// Makes attempts at the same time, which all succeed.
async fn attempts_at_once(sender: &Sender, endpoint: &Arc<Endpoint>, count: usize) {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..count {
        let (sender, endpoint) = (sender.clone(), Arc::clone(endpoint));
        tasks.spawn(async move { status(&attempt(&sender, &endpoint).await) });
    }
    assert!(tasks.join_all().await.iter().all(|status| *status == 200));
}

#[tokio::test]
async fn http_2_over_tls_shares_one_connection_among_attempts_at_the_same_time() {
    let authority = Authority::new();
    let (receiver, served) = http2(authority.acceptor("localhost", false, &[b"h2", b"http/1.1"])).await;
    let (sender, endpoint) = (authority.sender(), Arc::new(endpoint(&at("localhost", &receiver))));
    assert_eq!(status(&attempt(&sender, &endpoint).await), 200);
    attempts_at_once(&sender, &endpoint, 50).await;
    assert_eq!(served.load(Ordering::SeqCst), 51);
    assert_eq!(receiver.connections(), 1);
}

#[tokio::test]
async fn attempts_that_begin_http_2_at_the_same_time_leave_one_connection() {
    let authority = Authority::new();
    let (receiver, served) = http2(authority.acceptor("localhost", false, &[b"h2", b"http/1.1"])).await;
    let (sender, endpoint) = (authority.sender(), Arc::new(endpoint(&at("localhost", &receiver))));
    attempts_at_once(&sender, &endpoint, 10).await;
    let connections = receiver.connections();
    attempts_at_once(&sender, &endpoint, 10).await;
    assert_eq!(served.load(Ordering::SeqCst), 20);
    assert_eq!(receiver.connections(), connections);
}

#[tokio::test]
async fn a_certificate_that_proves_nothing_is_a_tls_failure() {
    let authority = Authority::new();
    let key = KeyPair::generate().unwrap();
    let mut own = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    own.distinguished_name.push(rcgen::DnType::CommonName, "nobody");
    let own = own.self_signed(&key).unwrap();
    for (acceptor, says) in [
        (acceptor(own.der().clone(), &key, &[]), "UnknownIssuer"),
        (authority.acceptor("localhost", true, &[]), "expired"),
        (authority.acceptor("other.example", false, &[]), "not valid for name"),
        // It has the same name, but not the key.
        (Authority::new().acceptor("localhost", false, &[]), "BadSignature"),
    ] {
        let receiver = http1(acceptor).await;
        let attempt = attempt(&authority.sender(), &endpoint(&at("localhost", &receiver))).await;
        let (kind, detail) = failure(&attempt);
        assert_eq!(kind, SendErrorKind::Tls, "{detail}");
        assert!(detail.contains(says), "{says}: {detail}");
        assert!(receiver.requests().is_empty(), "nothing was sent");
    }
}

#[tokio::test]
async fn a_receiver_that_wants_a_certificate_of_ours_is_a_tls_failure() {
    let authority = Authority::new();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &authority.issuer);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.certificate.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
    for versions in [&[&rustls::version::TLS13][..], &[&rustls::version::TLS12]] {
        let config = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .unwrap()
            .with_client_cert_verifier(Arc::clone(&verifier))
            .with_single_cert(
                vec![certificate.as_ref().unwrap().der().clone()],
                PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            )
            .unwrap();
        let receiver = http1(TlsAcceptor::from(Arc::new(config))).await;
        let attempt = attempt(&authority.sender(), &endpoint(&at("localhost", &receiver))).await;
        assert_eq!(failure(&attempt).0, SendErrorKind::Tls, "{attempt:?}");

        let own = KeyPair::generate().unwrap();
        let shown = CertificateParams::new(vec!["router.example".to_owned()]).unwrap();
        let files = Files::of(&shown.signed_by(&own, &authority.issuer).unwrap().pem(), &own.serialize_pem());
        let tls = EndpointTls::read(Some((files.cert.clone(), files.key.clone())), None, false).unwrap();
        let mut with_one = endpoint(&at("localhost", &receiver));
        with_one.tls = Some(Arc::new(tls));
        let sender = authority.sender();
        assert_eq!(status(&super::attempt(&sender, &with_one).await), 200);
        // It is this endpoint's alone, although the others go to the same host.
        let attempt = super::attempt(&sender, &endpoint(&at("localhost", &receiver))).await;
        assert_eq!(failure(&attempt).0, SendErrorKind::Tls, "{attempt:?}");
    }
}

#[tokio::test]
async fn an_endpoint_may_have_an_authority_of_its_own_or_none() {
    let authority = Authority::new();
    let receiver = http1(authority.acceptor("localhost", false, &[])).await;
    let other = http1(authority.acceptor("other.example", false, &[])).await;
    let files = Files::of(&pem(&authority.certificate), "");
    let trusting = || Some(Arc::new(EndpointTls::read(None, Some(files.cert.clone()), false).unwrap()));
    let unchecked = || Some(Arc::new(EndpointTls::read(None, None, true).unwrap()));
    let sender = builder(&["127.0.0.0/8", "::1/128"]).build().unwrap();
    for (receiver, tls, expected) in [
        (&receiver, None, None),
        (&receiver, trusting(), Some(200)),
        (&other, trusting(), None),
        (&other, unchecked(), Some(200)),
        (&receiver, None, None),
    ] {
        let mut endpoint = endpoint(&at("localhost", receiver));
        endpoint.tls = tls;
        let attempt = attempt(&sender, &endpoint).await;
        match expected {
            Some(expected) => assert_eq!(status(&attempt), expected),
            None => assert_eq!(failure(&attempt).0, SendErrorKind::Tls, "{attempt:?}"),
        }
    }
}

/// A certificate and a key as files.
struct Files {
    cert: PathBuf,
    key: PathBuf,
    _folder: tempfile::TempDir,
}

impl Files {
    fn of(cert: &str, key: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [cert, key] = [("cert.pem", cert), ("key.pem", key)].map(|(name, text)| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        });
        Self { cert, key, _folder: folder }
    }
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    let encoded = base64::engine::general_purpose::STANDARD.encode(certificate);
    format!("-----BEGIN CERTIFICATE-----\n{encoded}\n-----END CERTIFICATE-----\n")
}

#[tokio::test]
async fn tls_to_a_plain_port_and_plain_to_a_tls_port_are_told_apart() {
    let plain = Receiver::answering("HTTP/1.1 400 Bad\r\ncontent-length: 0\r\n\r\n").await;
    let authority = Authority::new();
    // It takes the start of a handshake for a head that never ends, so the bound on the connection ends it.
    let mut to_plain = endpoint(&at("127.0.0.1", &plain));
    to_plain.connect_timeout = Duration::from_millis(200);
    let first = attempt(&authority.sender(), &to_plain).await;
    assert_eq!(failure(&first).0, SendErrorKind::Tls, "{first:?}");

    let talking = Receiver::start(|mut socket, _, log| async move {
        log.write(&mut socket, b"HTTP/1.1 400 Bad\r\ncontent-length: 0\r\n\r\n").await;
        let _ = tokio::io::AsyncReadExt::read(&mut socket, &mut [0; 1024]).await;
    })
    .await;
    let second = attempt(&authority.sender(), &endpoint(&at("127.0.0.1", &talking))).await;
    assert_eq!(failure(&second).0, SendErrorKind::Tls, "{second:?}");

    let encrypted = http1(authority.acceptor("localhost", false, &[])).await;
    let third = attempt(&authority.sender(), &endpoint(&format!("http://127.0.0.1:{}/", encrypted.port()))).await;
    assert!(
        matches!(failure(&third).0, SendErrorKind::BadAnswer | SendErrorKind::Broken),
        "its alert, or its end, is no answer: {third:?}"
    );
}

#[tokio::test]
async fn a_handshake_that_hangs_ends_with_the_bound_on_the_connection() {
    let receiver = Receiver::start(|socket, _, _| async move {
        let _open = socket;
        std::future::pending::<()>().await;
    })
    .await;
    let mut endpoint = endpoint(&at("127.0.0.1", &receiver));
    endpoint.connect_timeout = Duration::from_millis(200);
    let started = Instant::now();
    let attempt = attempt(&Authority::new().sender(), &endpoint).await;
    assert_eq!(failure(&attempt).0, SendErrorKind::Tls);
    assert!(failure(&attempt).1.ends_with("the TLS handshake did not end within 200ms"), "{attempt:?}");
    assert!(started.elapsed() < Duration::from_secs(1));
}
