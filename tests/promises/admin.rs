//! The operator's door with the real program: what it refuses although whoever can connect may enter.

use std::io::ErrorKind;
use std::time::Duration;

use http::StatusCode;
use tokio::net::TcpStream;

use crate::support::eventually;
use crate::support::router::RouterProcess;

#[tokio::test(flavor = "multi_thread")]
async fn a_web_page_can_not_change_anything() {
    let mut router = RouterProcess::new("file:{folder}/data", "");
    router.start().await;
    let own = format!("http://127.0.0.1:{}", router.admin);
    let rebound = format!("rebound.example:{}", router.admin);
    for headers in [
        &[("origin", "https://page.example")][..],
        &[("origin", "null")],
        &[("host", rebound.as_str())],
        &[("host", rebound.as_str()), ("origin", "http://rebound.example")],
    ] {
        for path in ["/api/v1/reload", "/api/v1/endpoints/x/enable"] {
            let (status, body) = router.post_admin_with(path, headers).await;
            assert_eq!(status, StatusCode::FORBIDDEN, "{path} {headers:?}: {body}");
            let problem: serde_json::Value = serde_json::from_str(&body).unwrap();
            assert_eq!(problem["status"], 403, "{body}");
        }
    }
    let (_, shown) = router.get("/api/v1/config").await.unwrap();
    assert!(shown.contains("\"generation\":1"), "{shown}");
    let (status, answer) = router.post_admin_with("/api/v1/reload", &[("origin", &own)]).await;
    assert_eq!((status, answer.contains("\"generation\":2")), (StatusCode::OK, true), "{answer}");
    let (status, answer) = router.post_admin("/api/v1/reload").await;
    assert_eq!((status, answer.contains("\"generation\":3")), (StatusCode::OK, true), "{answer}");
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_page_can_not_read_anything_by_a_name_of_its_own() {
    let mut router = RouterProcess::new("file:{folder}/data", "");
    router.start().await;
    let rebound = format!("rebound.example:{}", router.admin);
    let headers = [("host", rebound.as_str())];
    for path in ["/api/v1/events", "/api/v1/dead-letters", "/api/v1/config", "/api/v1/tail", "/metrics"] {
        let (status, body) = router.ask_admin_with("GET", path, &headers).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{path}: {body}");
    }
    for path in ["/healthz", "/readyz"] {
        assert_eq!(router.ask_admin_with("GET", path, &headers).await.0, StatusCode::OK, "{path}");
    }
    let local = format!("localhost:{}", router.admin);
    assert_eq!(router.ask_admin_with("GET", "/api/v1/events", &[("host", &local)]).await.0, StatusCode::OK);
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_reads_no_answers_is_given_up() {
    let mut router = RouterProcess::new("file:{folder}/data", "");
    router.start().await;
    let client = TcpStream::connect(("127.0.0.1", router.admin)).await.unwrap();
    let asked = "GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(100);
    // Asks without reading until the router, whose answers nobody takes, stops reading and then closes.
    let closed = eventually("the connection is closed", Duration::from_secs(60), async || {
        match client.try_write(asked.as_bytes()) {
            Ok(_) => None,
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => Some(error),
        }
    });
    let error = closed.await;
    assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
    assert_eq!(router.get("/healthz").await.unwrap().0, StatusCode::OK);
    router.stop().await;
}
