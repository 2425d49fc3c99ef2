//! Addresses that deliveries may not go to, and names that lead there.

use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use branchline::delivery::SendErrorKind;
use branchline::endpoint::EndpointUrl;
use branchline::send::Resolve;

use super::receiver::Receiver;
use super::{attempt, builder, endpoint, failure, status};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// Gives its answers one after the other, the last again and again.
struct Script {
    answers: Vec<Vec<&'static str>>,
    asked: AtomicUsize,
}

impl Script {
    fn new(answers: &[&[&'static str]]) -> Self {
        Self { answers: answers.iter().map(|answer| answer.to_vec()).collect(), asked: AtomicUsize::new(0) }
    }
}

#[async_trait]
impl Resolve for Script {
    async fn resolve(&self, _host: &str) -> io::Result<Vec<IpAddr>> {
        let asked = self.asked.fetch_add(1, Ordering::SeqCst).min(self.answers.len() - 1);
        Ok(self.answers[asked].iter().map(|address| address.parse().unwrap()).collect())
    }
}

#[tokio::test]
async fn nothing_on_this_machine_or_in_private_networks_is_reached_by_default() {
    let receiver = Receiver::answering(OK).await;
    let sender = builder(&[]).build().unwrap();
    let port = receiver.port();
    for url in [
        &*format!("http://127.0.0.1:{port}/"),
        &format!("http://127.1:{port}/"),
        &format!("http://2130706433:{port}/"),
        &format!("http://0x7f000001:{port}/"),
        &format!("http://0177.0.0.1:{port}/"),
        &format!("http://0.0.0.0:{port}/"),
        &format!("http://localhost:{port}/"),
        &format!("http://[::1]:{port}/"),
        &format!("http://[::]:{port}/"),
        &format!("http://[::ffff:127.0.0.1]:{port}/"),
        &format!("http://[::ffff:7f00:1]:{port}/"),
        &format!("http://[::127.0.0.1]:{port}/"),
        "http://[64:ff9b::7f00:1]/",
        "http://[64:ff9b:1::a00:1]/",
        "http://[2002:7f00:1::]/",
        "http://[2001:0:7f00:1::]/",
        "http://[fec0::1]/",
        "http://[fd00:ec2::254]/",
        "http://169.254.169.254/latest/meta-data/",
        "https://169.254.169.254/",
        "http://100.100.100.200/",
        "http://10.0.0.1/",
        "http://192.168.0.1/",
        "https://8.8.8.8:22/",
    ] {
        let attempt = attempt(&sender, &endpoint(url)).await;
        assert_eq!(failure(&attempt).0, SendErrorKind::AddressRefused, "{url}: {attempt:?}");
    }
    // Not every system knows this one, and none may reach it.
    let trailing = attempt(&sender, &endpoint(&format!("http://localhost.:{port}/"))).await;
    assert!(matches!(failure(&trailing).0, SendErrorKind::AddressRefused | SendErrorKind::Dns), "{trailing:?}");
    assert_eq!(receiver.connections(), 0);
}

#[test]
fn urls_that_hide_their_host_are_no_endpoints() {
    for url in [
        "http://a@127.0.0.1/",
        "http://127.0.0.1#@ok.example/",
        "http://ok.example\\@127.0.0.1/",
        "http://[fe80::1%25eth0]/",
        "http://\u{ff11}\u{ff12}\u{ff17}.0.0.1/",
        "http://[::1/",
        "http:///path",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:8 0/",
        "http://127.0.0.1:+80/",
        "http://127.0.0.1:-1/",
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
    ] {
        match EndpointUrl::parse(url) {
            Err(_) => {}
            // What the parser lets through must not be sent anywhere.
            Ok(_) => {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let attempt = runtime.block_on(async { attempt(&builder(&[]).build().unwrap(), &endpoint(url)).await });
                failure(&attempt);
            }
        }
    }
}

#[tokio::test]
async fn a_name_that_changes_its_address_is_judged_at_every_connection() {
    let receiver = Receiver::answering(OK).await;
    let sender = builder(&["127.0.0.1/32"]).resolver(Script::new(&[&["127.0.0.1"], &["127.0.0.2"]])).build().unwrap();
    let endpoint = endpoint(&format!("http://rebinding.example:{}/", receiver.port()));
    assert_eq!(status(&attempt(&sender, &endpoint).await), 200);
    let second = attempt(&sender, &endpoint).await;
    assert_eq!(failure(&second).0, SendErrorKind::AddressRefused);
    assert!(failure(&second).1.contains("127.0.0.2 is loopback"), "{second:?}");
    assert_eq!(receiver.connections(), 1);
}

#[tokio::test]
async fn a_name_with_one_refused_address_is_refused_whole() {
    let receiver = Receiver::answering(OK).await;
    for answer in [&["127.0.0.1", "10.0.0.1"][..], &["127.0.0.1", "::1"], &["127.0.0.1", "::ffff:169.254.169.254"]] {
        let sender = builder(&["127.0.0.1/32"]).resolver(Script::new(&[answer])).build().unwrap();
        let url = format!("http://mixed.example:{}/", receiver.port());
        assert_eq!(failure(&attempt(&sender, &endpoint(&url)).await).0, SendErrorKind::AddressRefused, "{answer:?}");
    }
    assert_eq!(receiver.connections(), 0);
}

/// Names that have IPv6 addresses alone are judged like any other.
#[tokio::test]
async fn a_name_with_nothing_but_a_private_ipv6_address_is_refused() {
    let receiver = Receiver::answering(OK).await;
    for address in [
        "::1",
        "::",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::a00:1",
        "2002:7f00:1::",
        "2001:0:7f00:1::",
        "fe80::1",
        "fec0::1",
        "fd00::1",
        "fd00:ec2::254",
        "ff02::1",
        "100::1",
        "2001:db8::1",
    ] {
        let sender = builder(&[]).resolver(Script::new(&[&[address]])).build().unwrap();
        let attempt = attempt(&sender, &endpoint(&format!("http://six.example:{}/", receiver.port()))).await;
        assert_eq!(failure(&attempt).0, SendErrorKind::AddressRefused, "{address}: {attempt:?}");
    }
    assert_eq!(receiver.connections(), 0);
    // What is listed is reached: the refusals above are the guard's, not those of a system without IPv6.
    if let Ok(listener) = tokio::net::TcpListener::bind("[::1]:0").await {
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let _ = tokio::io::AsyncReadExt::read(&mut socket, &mut [0; 8192]).await;
            let _ = tokio::io::AsyncWriteExt::write_all(&mut socket, OK).await;
        });
        let sender = builder(&["::1/128"]).resolver(Script::new(&[&["::1"]])).build().unwrap();
        assert_eq!(status(&attempt(&sender, &endpoint(&format!("http://six.example:{port}/"))).await), 200);
    }
}

#[tokio::test]
async fn addresses_are_tried_in_turn() {
    let receiver = Receiver::answering(OK).await;
    // Nothing listens on the first two.
    let sender =
        builder(&["127.0.0.0/8"]).resolver(Script::new(&[&["127.0.0.2", "127.0.0.3", "127.0.0.1"]])).build().unwrap();
    let url = format!("http://several.example:{}/", receiver.port());
    assert_eq!(status(&attempt(&sender, &endpoint(&url)).await), 200);
}

#[tokio::test]
async fn a_name_without_a_usable_answer_is_a_dns_failure() {
    let many = vec!["127.0.0.1"; 33];
    for answer in [&[][..], &many] {
        let sender = builder(&["127.0.0.0/8"]).resolver(Script::new(&[answer])).build().unwrap();
        let attempt = attempt(&sender, &endpoint("http://strange.example/")).await;
        assert_eq!(failure(&attempt).0, SendErrorKind::Dns, "{attempt:?}");
    }
    let attempt = attempt(&builder(&[]).build().unwrap(), &endpoint("http://a$b.example/")).await;
    assert_eq!(failure(&attempt).0, SendErrorKind::Dns, "{attempt:?}");
}

#[tokio::test]
async fn a_look_up_that_fails_or_hangs_is_a_dns_failure_in_time() {
    struct Failing;
    #[async_trait]
    impl Resolve for Failing {
        async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
            match host {
                "hangs.example" => std::future::pending().await,
                _ => Err(io::Error::other("no such name")),
            }
        }
    }
    let sender = builder(&[]).resolver(Failing).build().unwrap();
    let fails = attempt(&sender, &endpoint("https://fails.example/secret")).await;
    assert_eq!(
        failure(&fails),
        (SendErrorKind::Dns, "https://fails.example: the host's name was not found: no such name")
    );
    let mut hanging = endpoint("https://hangs.example/");
    hanging.connect_timeout = Duration::from_millis(100);
    let started = Instant::now();
    let hangs = attempt(&sender, &hanging).await;
    assert_eq!(
        failure(&hangs),
        (SendErrorKind::Dns, "https://hangs.example: the look-up of the host's name did not end within 100ms")
    );
    assert!(started.elapsed() < Duration::from_secs(1));
}
