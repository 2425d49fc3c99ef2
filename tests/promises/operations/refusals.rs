//! What is refused: with a status that says whose fault it is, as a problem document that says what to do.

use http::StatusCode;
use serde_json::json;

use super::{Kind, PATIENCE, World, on_both_stores};
use crate::support::eventually;
use crate::support::program::branchline;
use crate::support::receiver::HANG;

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_read_is_refused_with_the_name_of_the_part() {
    let world = World::start(Kind::Embedded).await;
    let large = "x".repeat((1 << 20) + 1);
    for (method, path, body, status, named) in [
        ("GET", "/api/v1/events?limit=0", "", 400, "limit"),
        ("GET", "/api/v1/events?limit=1001", "", 400, "limit"),
        ("GET", "/api/v1/events?limit=ten", "", 400, "query"),
        ("GET", "/api/v1/events?kind=order", "", 400, "kind"),
        ("GET", "/api/v1/events?since=yesterday", "", 400, "since"),
        ("GET", "/api/v1/events?type=ord*", "", 400, "type"),
        ("GET", "/api/v1/events?cursor=1-2-3", "", 400, "cursor"),
        ("GET", "/api/v1/events/evt_none", "", 404, "evt_none"),
        ("GET", "/api/v1/dead-letters?reason=tired", "", 400, "tired"),
        ("GET", "/api/v1/dead-letters/dlv_none", "", 404, "dlv_none"),
        ("GET", "/api/v1/replay", "", 405, "method"),
        ("POST", "/api/v1/dead-letters/dlv_none/replay", "", 404, "dlv_none"),
        ("POST", "/api/v1/dead-letters/dlv_none/replay", r#"{"twice":true}"#, 400, "twice"),
        ("POST", "/api/v1/dead-letters/dlv_none/discard", r#"{"reason":" "}"#, 400, "reason"),
        ("POST", "/api/v1/dead-letters/dlv_none/discard", "", 400, "body"),
        ("POST", "/api/v1/replay", "{}", 400, "selection"),
        ("POST", "/api/v1/replay", "not JSON", 400, "body"),
        ("POST", "/api/v1/replay", r#"{"selection":{"status":"lost"}}"#, 400, "lost"),
        ("POST", "/api/v1/replay", r#"{"selection":{"eventIds":["a"],"deadLetters":["b"]}}"#, 400, "deadLetters"),
        ("POST", "/api/v1/replay", r#"{"selection":{"since":"1h"},"limit":0}"#, 400, "limit"),
        ("POST", "/api/v1/replay", r#"{"selection":{"since":"1h"},"cursor":"x"}"#, 400, "cursor"),
        ("POST", "/api/v1/replay", &large, 413, "bytes"),
    ] {
        let (found, problem) = world.router.call(method, path, body.to_owned(), &[]).await;
        assert_eq!(found.as_u16(), status, "{method} {path}: {problem}");
        assert_eq!(problem["status"], status, "{method} {path}: {problem}");
        let detail = problem["detail"].as_str().expect("a problem has a detail");
        assert!(detail.contains(named), "{method} {path}: `{named}` is not in `{detail}`");
    }
    let audit = world.get("/api/v1/audit").await;
    assert_eq!(audit["entries"], json!([]), "what is refused changes nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_tokens_configured_every_operation_asks_for_one_and_notes_whose_it_was() {
    let mut world = World::start(Kind::Embedded).await;
    world.send("evt_1", "order.created", 1).await;
    world.given_up(1).await;
    world.router.stop().await;
    world.router.ask_for_tokens(&["token-of-anna-0123456789", "token-of-bert-0123456789"]);
    world.router.write_config(&super::routes(&world.receiver));
    world.router.start().await;
    let bearer = |token: &str| format!("Bearer {token}");
    for path in ["/api/v1/events", "/api/v1/events/evt_1", "/api/v1/stats", "/api/v1/audit", "/api/v1/tail", "/metrics"]
    {
        for wrong in ["Bearer token-of-carl-0123456789", "token-of-anna-0123456789", ""] {
            let (status, problem) = world.router.call("GET", path, "", &[("authorization", wrong)]).await;
            assert_eq!((status, problem["status"].as_u64()), (StatusCode::UNAUTHORIZED, Some(401)), "{path} {wrong}");
        }
    }
    let body = json!({"selection": {"status": "dead-letter"}}).to_string();
    let (status, _) = world.router.call("POST", "/api/v1/replay", body.clone(), &[]).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let bert = bearer("token-of-bert-0123456789");
    let headers = [("authorization", bert.as_str())];
    let (status, step) = world.router.call("POST", "/api/v1/replay", body, &headers).await;
    assert_eq!((status, &step["replayed"]), (StatusCode::OK, &json!(1)), "{step}");
    let (_, audit) = world.router.call("GET", "/api/v1/audit", "", &headers).await;
    assert_eq!(audit["entries"][0]["who"], "admin.tokens[1]", "{audit}");
    assert!(!audit.to_string().contains("token-of"), "a token is never shown");
    let url = format!("http://127.0.0.1:{}", world.router.admin);
    for arguments in [&["events", "list"][..], &["tail"]] {
        let ended = branchline(&[arguments, &["--url", &url]].concat(), "").await;
        assert!(ended.code == 1 && ended.stderr.contains("`--token`"), "{ended:?}");
    }
}

async fn a_replay_that_can_not_be_says_why(kind: Kind) {
    let world = World::start(kind).await;
    world.send("evt_1", "order.created", 1).await;
    let dead = world.stands("evt_1", "bad", "dead-letter").await;
    let id = dead["deliveryId"].as_str().unwrap();

    // Somebody is at work on it.
    world.receiver.answers("/bad", &[HANG]);
    world.post(&format!("/api/v1/dead-letters/{id}/replay"), json!({})).await;
    eventually("it is on the wire", PATIENCE, async || (world.receiver.count("/bad") == 2).then_some(())).await;
    let again = json!({"selection": {"eventIds": ["evt_1"], "subscription": "bad"}, "all": true});
    let step = world.post("/api/v1/replay", again).await;
    assert_eq!((&step["replayed"], &step["skipped"]), (&json!(0), &json!({"in-flight": 1})), "{step}");
    let (status, problem) = world.router.call("POST", &format!("/api/v1/dead-letters/{id}/replay"), "", &[]).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "{problem}");

    // The subscription is gone; the dead letter stays until it is discarded with a reason.
    world.given_up(1).await;
    let routes = super::routes(&world.receiver).replace(r#"{ name = "bad", endpoint = "bad", retry = [] },"#, "");
    world.router.write_config(&routes);
    world.post("/api/v1/reload", json!({})).await;
    let (status, problem) = world.router.call("POST", &format!("/api/v1/dead-letters/{id}/replay"), "", &[]).await;
    let detail = problem["detail"].as_str().unwrap();
    assert_eq!((status, detail.contains("`bad`")), (StatusCode::CONFLICT, true), "{problem}");
    let step = world.post("/api/v1/replay", json!({"selection": {"status": "dead-letter"}})).await;
    assert_eq!((&step["matched"], &step["skipped"]), (&json!(0), &json!({"subscription-gone": 1})), "{step}");
    world.post(&format!("/api/v1/dead-letters/{id}/discard"), json!({"reason": "the consumer is gone"})).await;
    world.given_up(0).await;
    let pair = world.stands("evt_1", "bad", "discarded").await;
    assert_eq!(pair["last"]["reason"], "the consumer is gone");
    let audit = world.get("/api/v1/audit?limit=1").await;
    assert_eq!((&audit["entries"][0]["action"], &audit["entries"][0]["target"]), (&json!("discard"), &json!(id)));
}

on_both_stores!([a_replay_that_can_not_be_says_why]);
