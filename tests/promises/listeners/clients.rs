//! Clients' certificates: who vouches for them, what their names let in, and that a reload changes both.

use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::tls::{Authority, Shown, get, post};
use super::{EVENT, KEY, PATIENCE};
use crate::support::eventually;
use crate::support::router::RouterProcess;

const TLS: &str = "cert = \"cert.pem\"\nkey = \"key.pem\"\nclient_ca = \"clients.pem\"";

/// One request of HTTP/1.1 with a certificate; the answer, empty where there is none.
async fn ask(servers: &Authority, port: u16, request: &str, shown: Option<&Shown>) -> String {
    let Ok(mut stream) = servers.connect_as(port, &[b"http/1.1"], shown).await else { return String::new() };
    let mut answer = Vec::new();
    // In TLS 1.3 a client learns that its certificate is refused when it reads.
    if stream.write_all(request.as_bytes()).await.is_ok() {
        let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an answer, or the end");
    }
    String::from_utf8(answer).unwrap()
}

fn router(servers: &Authority, clients: &Authority, of_ingest: &str, of_admin: &str, rest: &str) -> RouterProcess {
    let router = RouterProcess::new("file:{folder}/data", "");
    let rest = format!("{rest}\n[ingest.tls]\n{TLS}\n{of_ingest}\n[admin.tls]\n{TLS}\n{of_admin}");
    router.write_config(&rest);
    servers.issue(&router.folder());
    clients.write(&clients_file(&router.folder()));
    router
}

fn clients_file(folder: &Path) -> std::path::PathBuf {
    folder.join("clients.pem")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_may_ask_for_a_certificate_with_one_of_its_names() {
    let (servers, clients, strangers) = (Authority::new(), Authority::new(), Authority::new());
    let partner = "[sources.partner]\npath = \"/v1/partner\"\n\
        auth = { client_certificate = [\"orders.example.com\", \"spiffe://example.com/Orders\"] }";
    let optional = "client_certificate = \"optional\"";
    let mut router = router(&servers, &clients, optional, optional, partner);
    router.spawn();
    let ready = async || ask(&servers, router.admin, &get("/readyz"), None).await.contains("200 OK").then_some(());
    eventually("the router is ready", PATIENCE, ready).await;

    let json = "content-type: application/json\r\n";
    let partner = post("/v1/partner", json, EVENT);
    let by_name = clients.issue_client(&["other.example", "Orders.Example.com"], &[]);
    let by_uri = clients.issue_client(&[], &["spiffe://example.com/orders"]);
    let nameless =
        clients.issue_client(&["other.example", "orders.example.com.other.example"], &["spiffe://example.com"]);
    let stranger = strangers.issue_client(&["orders.example.com"], &[]);
    for (shown, status) in [(Some(&by_name), "202"), (Some(&by_uri), "202"), (Some(&nameless), "403"), (None, "403")] {
        let answer = ask(&servers, router.ingest, &partner, shown).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{status}: {answer}");
        assert!(status == "202" || answer.contains("/problems/client-certificate"), "{answer}");
    }
    assert_eq!(ask(&servers, router.ingest, &partner, Some(&stranger)).await, "", "nobody vouches for it");
    // The name lets nobody into another source.
    let keyed = |headers: &str| post("/v1/events", &format!("{json}{headers}"), EVENT);
    assert!(ask(&servers, router.ingest, &keyed(""), Some(&by_name)).await.starts_with("HTTP/1.1 401"));
    let key = format!("authorization: Bearer {KEY}\r\n");
    assert!(ask(&servers, router.ingest, &keyed(&key), None).await.starts_with("HTTP/1.1 202"));

    // Another authority from the next reload on, and one that is none changes nothing.
    for (clients, status) in [(Some(&strangers), "200"), (None, "422")] {
        match clients {
            Some(clients) => clients.write(&clients_file(&router.folder())),
            None => std::fs::write(clients_file(&router.folder()), "no certificate").unwrap(),
        }
        let answer = ask(&servers, router.admin, &post("/api/v1/reload", "", ""), None).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        assert!(ask(&servers, router.ingest, &partner, Some(&stranger)).await.starts_with("HTTP/1.1 202"));
        assert_eq!(ask(&servers, router.ingest, &partner, Some(&by_name)).await, "");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_certificate_nobody_comes_in_where_one_is_required() {
    let (servers, clients) = (Authority::new(), Authority::new());
    let mut router = router(&servers, &clients, "", "client_certificate = \"required\"", "");
    let shown = clients.issue_client(&["operator.example"], &[]);
    router.spawn();
    let ready =
        async || ask(&servers, router.admin, &get("/readyz"), Some(&shown)).await.contains("200 OK").then_some(());
    eventually("the router is ready", PATIENCE, ready).await;
    assert_eq!(ask(&servers, router.admin, &get("/healthz"), None).await, "");
    let event =
        post("/v1/events", &format!("content-type: application/json\r\nauthorization: Bearer {KEY}\r\n"), EVENT);
    assert_eq!(ask(&servers, router.ingest, &event, None).await, "");
    assert!(ask(&servers, router.ingest, &event, Some(&shown)).await.starts_with("HTTP/1.1 202"));
}
