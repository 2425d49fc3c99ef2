//! Names as the system looks them up, from a name server of the tests' own: aliases, and names that have IPv6 alone. The
//! router gets that name server in a mount namespace, which takes root; where that can't be had the test says so.

use std::net::{IpAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;

use http::StatusCode;

use crate::support::receiver::Receiver;
use crate::support::router::RouterProcess;
use crate::support::{eventually, left_out};

const PATIENCE: Duration = Duration::from_secs(60);
const SERVER: &str = "127.53.53.53";

/// Names, what each is an alias of, and the addresses that are found in the end.
const ZONE: [(&str, &[&str], &[&str]); 8] = [
    ("fine.test", &["inner.fine.test"], &["127.0.0.1"]),
    ("alias.test", &["inner.alias.test"], &["127.0.0.2"]),
    ("chain.test", &["one.chain.test", "two.chain.test", "three.chain.test"], &["10.0.0.1"]),
    ("metadata.test", &["inner.metadata.test"], &["169.254.169.254"]),
    ("six.test", &[], &["::1"]),
    ("alias-six.test", &["inner.alias-six.test"], &["::1"]),
    ("mapped.test", &["inner.mapped.test"], &["::ffff:127.0.0.2"]),
    ("mixed.test", &["inner.mixed.test"], &["127.0.0.1", "::1"]),
];

const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;

/// Answers until the tests end.
fn serve(socket: &UdpSocket) {
    let mut question = [0; 512];
    while let Ok((length, peer)) = socket.recv_from(&mut question) {
        // A peer that is gone has no use for an answer.
        let _ = socket.send_to(&answer(&question[..length]), peer);
    }
}

fn answer(question: &[u8]) -> Vec<u8> {
    let (mut name, mut at) = (String::new(), 12);
    while question[at] > 0 {
        let label = &question[at + 1..at + 1 + usize::from(question[at])];
        name += &format!("{}.", std::str::from_utf8(label).unwrap());
        at += 1 + label.len();
    }
    let name = name.trim_end_matches('.').to_lowercase();
    let wanted = u16::from_be_bytes([question[at + 1], question[at + 2]]);
    let mut records = Vec::new();
    if let Some((name, aliases, addresses)) = ZONE.iter().find(|(known, ..)| *known == name) {
        let mut owner = *name;
        for alias in *aliases {
            records.push(record(owner, CNAME, &encoded(alias)));
            owner = alias;
        }
        for address in *addresses {
            match address.parse().unwrap() {
                IpAddr::V4(address) if wanted == A => records.push(record(owner, A, &address.octets())),
                IpAddr::V6(address) if wanted == AAAA => records.push(record(owner, AAAA, &address.octets())),
                IpAddr::V4(_) | IpAddr::V6(_) => {}
            }
        }
    }
    // A name that is not there: no such name.
    let code = if records.is_empty() && !ZONE.iter().any(|(known, ..)| *known == name) { 0x83 } else { 0x80 };
    let count = u8::try_from(records.len()).unwrap();
    [&question[..2], &[0x81, code, 0, 1, 0, count, 0, 0, 0, 0], &question[12..at + 5], &records.concat()].concat()
}

fn record(owner: &str, kind: u16, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).unwrap();
    [&encoded(owner), &kind.to_be_bytes()[..], &[0, 1, 0, 0, 0, 0], &length.to_be_bytes(), data].concat()
}

fn encoded(name: &str) -> Vec<u8> {
    let label = |label: &str| [&[u8::try_from(label.len()).unwrap()], label.as_bytes()].concat();
    name.split('.').flat_map(label).chain([0]).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_judged_by_the_addresses_it_leads_to_in_the_end() {
    let unshared = Command::new("unshare").args(["-m", "true"]).status();
    let socket = UdpSocket::bind((SERVER, 53));
    let (Ok(socket), true) = (socket, unshared.is_ok_and(|status| status.success())) else {
        left_out("a name server and a mount namespace of one's own take root");
        return;
    };
    std::thread::spawn(move || serve(&socket));

    let receiver = Receiver::start().await;
    let port = receiver.address.port();
    let mut config = "[delivery]\nallow_networks = [\"127.0.0.1/32\"]\n".to_owned();
    let mut subscriptions = Vec::new();
    for (name, ..) in ZONE {
        let label = name.trim_end_matches(".test");
        config += &format!("[endpoints.{label}]\nurl = \"http://{name}:{port}/{label}\"\n");
        subscriptions.push(format!("{{ name = \"{label}\", endpoint = \"{label}\", retry = [] }}"));
    }
    let subscriptions = subscriptions.join(", ");
    config += &format!("[[routes]]\nname = \"all\"\nevents = [\"**\"]\nsubscriptions = [{subscriptions}]\n");
    let mut router = RouterProcess::new("file:{folder}/data", &config);
    let resolving = router.folder().join("resolv.conf");
    std::fs::write(&resolving, format!("nameserver {SERVER}\noptions timeout:2 attempts:2\n")).unwrap();
    let mount = format!("mount --bind '{}' /etc/resolv.conf && exec \"$@\"", resolving.display());
    router.started_by = ["unshare", "-m", "sh", "-c", &mount, "sh"].map(str::to_owned).to_vec();
    router.start().await;

    let event = r#"{"id":"evt_1","eventType":"a","payload":1}"#;
    assert_eq!(router.post("application/json", event).await.unwrap().0, StatusCode::ACCEPTED);
    eventually("the fine one arrives", PATIENCE, async || (receiver.count("/fine") == 1).then_some(())).await;
    let refused = ZONE.len() - 1;
    eventually("all others are refused", PATIENCE, async || {
        let (_, letters) = router.call("GET", "/api/v1/dead-letters", "", &[]).await;
        (letters.to_string().matches("\"address-refused\"").count() >= refused).then_some(())
    })
    .await;
    for (name, ..) in &ZONE[1..] {
        assert_eq!(receiver.count(&format!("/{}", name.trim_end_matches(".test"))), 0, "{name}");
    }
}
