//! What an operator asks of a running router over HTTP, and has it do; on both stores.

mod bulk; // Many at a time.
mod refusals; // What is refused, and how.
mod stored; // What is told of what is no longer there.
mod watching; // What happens, as it happens.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::receiver::Receiver;
use crate::support::redis_server::RedisServer;
use crate::support::router::RouterProcess;
use crate::support::stores::{Kind, on_both_stores};

const PATIENCE: Duration = Duration::from_secs(40);

/// A router, what it delivers to, and what it keeps its state in.
struct World {
    receiver: Receiver,
    router: RouterProcess,
    _redis: Option<RedisServer>,
}

/// Orders go to `ok`, which takes them, to `bad`, which is given up at once, to `later`, which is tried again in an
/// hour, and big ones to `big`.
fn routes(receiver: &Receiver) -> String {
    // These fail on purpose: each failure is to be seen at once.
    let endpoint = |name: &str| {
        format!("[endpoints.{name}]\nurl = \"{}\"\nbreaker = \"off\"\n", receiver.url(&format!("/{name}")))
    };
    let endpoints: String = ["ok", "bad", "later", "big"].map(endpoint).concat();
    format!(
        r#"
[delivery]
allow_networks = ["127.0.0.0/8"]
{endpoints}
[[routes]]
name = "orders"
events = ["order.**"]
subscriptions = [
  {{ name = "ok", endpoint = "ok" }},
  {{ name = "bad", endpoint = "bad", retry = [] }},
  {{ name = "later", endpoint = "later", retry = ["1h"] }},
]
[[routes]]
name = "big-orders"
events = ["order.**"]
where = "payload.amount >= 100"
subscriptions = [{{ name = "big", endpoint = "big" }}]
"#
    )
}

impl World {
    async fn start(kind: Kind) -> Self {
        let receiver = Receiver::start().await;
        receiver.answers("/bad", &[500]);
        receiver.answers("/later", &[500]);
        let (url, redis) = kind.open();
        let mut router = RouterProcess::new(&url, &routes(&receiver));
        router.start().await;
        Self { receiver, router, _redis: redis }
    }

    async fn send(&self, id: &str, event_type: &str, amount: u32) {
        let body = json!({"id": id, "eventType": event_type, "aggregateId": "order_7", "payload": {"amount": amount}});
        let (status, answer) = self.router.post("application/json", body.to_string()).await.unwrap();
        assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
    }

    async fn get(&self, path: &str) -> Value {
        let (status, answer) = self.router.call("GET", path, "", &[]).await;
        assert_eq!(status, StatusCode::OK, "{path}: {answer}");
        answer
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.router.call("POST", path, body.to_string(), &[]).await;
        assert_eq!(status, StatusCode::OK, "{path} {body}: {answer}");
        answer
    }

    /// Waits until an event stands with a subscription as it should, and gives the pair.
    async fn stands(&self, event: &str, subscription: &str, status: &str) -> Value {
        eventually(&format!("{event} is {status} for {subscription}"), PATIENCE, async || {
            let (found, detail) = self.router.call("GET", &format!("/api/v1/events/{event}"), "", &[]).await;
            let pairs = detail["outcomes"].as_array().filter(|_| found == StatusCode::OK)?;
            pairs.iter().find(|pair| pair["subscription"] == subscription && pair["status"] == status).cloned()
        })
        .await
    }

    /// Waits until that many are given up.
    async fn given_up(&self, count: u64) {
        eventually(&format!("{count} are given up"), PATIENCE, async || {
            (self.get("/api/v1/stats").await["deadLetters"] == count).then_some(())
        })
        .await;
    }
}

/// Everything of a listing, page by page.
async fn all_pages(world: &World, path: &str, name: &str) -> Vec<Value> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = world.get(&format!("{path}{cursor}")).await;
        all.extend(page[name].as_array().unwrap().iter().cloned());
        match page["cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
}

async fn an_operator_sees_what_became_of_an_event_and_has_it_made_again(kind: Kind) {
    let world = World::start(kind).await;
    world.send("evt_1", "order.created", 5).await;
    let delivered = world.stands("evt_1", "ok", "delivered").await;
    let attempt = &delivered["last"]["attempts"][0];
    assert_eq!(
        (&attempt["number"], &attempt["status"], &attempt["by"]["generation"]),
        (&json!(1), &json!(200), &json!(1))
    );
    let filtered = world.stands("evt_1", "big", "filtered").await;
    assert!(filtered["last"]["reason"].is_string() && filtered["last"]["by"]["generation"] == 1, "{filtered}");
    let scheduled = world.stands("evt_1", "later", "scheduled").await;
    assert_eq!(
        (&scheduled["waiting"]["held"], &scheduled["last"]["why"]),
        (&json!(false), &json!("retry")),
        "{scheduled}"
    );
    let dead = world.stands("evt_1", "bad", "dead-letter").await;
    let attempt = &dead["last"]["attempts"][0];
    assert_eq!((&attempt["status"], &attempt["answer"]), (&json!(500), &json!("told so")), "{dead}");
    let detail = world.get("/api/v1/events/evt_1?source=app").await;
    assert_eq!(detail["event"]["payload"], json!({"amount": 5}));

    // What was given up is listed, shown with its bytes, and found by its delivery.
    let listed = world.get("/api/v1/dead-letters?subscription=bad&reason=exhausted&type=order.*").await;
    let id = listed["deadLetters"][0]["deliveryId"].as_str().expect("one is listed");
    assert_eq!(dead["deliveryId"], id);
    let shown = world.get(&format!("/api/v1/dead-letters/{id}")).await;
    assert!(shown["work"]["body"].as_str().unwrap().contains("\"evt_1\""), "{shown}");
    let waiting = world.get("/api/v1/deliveries?subscription=later").await;
    let delivery = &waiting["deliveries"][0];
    assert_eq!(
        (&delivery["event"]["id"], &delivery["why"], &delivery["nextAttempt"]),
        (&json!("evt_1"), &json!("retry"), &json!(2))
    );

    // It fails once more, and is there again; then the endpoint is mended.
    let replayed = world.post(&format!("/api/v1/dead-letters/{id}/replay"), json!({})).await;
    assert_eq!(replayed["result"], "scheduled");
    eventually("it is tried again", PATIENCE, async || (world.receiver.count("/bad") == 2).then_some(())).await;
    world.given_up(1).await;
    world.receiver.answers("/bad", &[200]);
    let replayed = world.post(&format!("/api/v1/dead-letters/{id}/replay"), json!({})).await;
    assert_eq!(replayed["result"], "scheduled");
    let pair = world.stands("evt_1", "bad", "delivered").await;
    let words: Vec<_> =
        pair["before"].as_array().unwrap().iter().map(|view| view["outcome"].as_str().unwrap()).collect();
    assert_eq!(words, ["dead-letter", "scheduled", "dead-letter", "scheduled"]);
    let requests = world.receiver.received("/bad");
    assert_eq!(requests.len(), 3);
    assert!(requests.iter().all(|request| request.body == requests[0].body), "the bytes are those of the first time");
    assert!(requests.iter().all(|request| request.header("webhook-id") == id), "it is the same delivery");

    // What waits is only hastened, and what has succeeded is left alone unless it is asked for.
    let step = world.post("/api/v1/replay", json!({"selection": {"eventIds": ["evt_1"]}})).await;
    assert_eq!((&step["matched"], &step["replayed"]), (&json!(1), &json!(1)), "{step}");
    assert_eq!(step["skipped"], json!({"delivered": 2, "filtered": 1}), "{step}");
    assert_eq!(step["deliveries"][0]["result"], "hastened");
    eventually("it is tried before its hour", PATIENCE, async || (world.receiver.count("/later") == 2).then_some(()))
        .await;
    let all = json!({"selection": {"eventIds": ["evt_1"], "subscription": "ok"}, "all": true});
    assert_eq!(world.post("/api/v1/replay", all).await["replayed"], 1);
    eventually("it is delivered again", PATIENCE, async || (world.receiver.count("/ok") == 2).then_some(())).await;
    let requests = world.receiver.received("/ok");
    assert_eq!(requests[0].header("webhook-id"), requests[1].header("webhook-id"));

    let audit = world.get("/api/v1/audit?limit=10").await;
    let noted: Vec<_> =
        audit["entries"].as_array().unwrap().iter().map(|entry| (&entry["who"], &entry["action"])).collect();
    assert_eq!(noted, vec![(&json!("loopback"), &json!("replay")); 4]);
    world.post("/api/v1/endpoints/bad/pause", json!({})).await;
    world.post("/api/v1/reload", json!({})).await;
    let audit = world.get("/api/v1/audit?limit=2").await;
    assert_eq!((&audit["entries"][0]["action"], &audit["entries"][1]["target"]), (&json!("reload"), &json!("bad")));
}

async fn events_are_listed_by_what_they_are_newest_first(kind: Kind) {
    let world = World::start(kind).await;
    for n in 0..30 {
        world.send(&format!("evt_{n}"), if n % 3 == 0 { "order.refunded" } else { "user.created" }, 1).await;
    }
    let ids = |events: &[Value]| -> Vec<String> {
        events.iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect()
    };
    let newest_first: Vec<_> = (0..30).rev().map(|n| format!("evt_{n}")).collect();
    assert_eq!(ids(&all_pages(&world, "/api/v1/events?limit=7", "events").await), newest_first);
    let oldest_first: Vec<_> = newest_first.iter().rev().cloned().collect();
    assert_eq!(ids(&all_pages(&world, "/api/v1/events?limit=7&oldestFirst=true", "events").await), oldest_first);
    let refunded =
        all_pages(&world, "/api/v1/events?limit=4&type=order.*&source=app&aggregateId=order_7&since=1h", "events")
            .await;
    assert_eq!(
        ids(&refunded),
        newest_first.iter().filter(|id| id[4..].parse::<u32>().unwrap() % 3 == 0).cloned().collect::<Vec<_>>()
    );
    for nothing in ["source=shop", "aggregateId=order_8", "until=1h", "type=payment.**"] {
        assert!(all_pages(&world, &format!("/api/v1/events?{nothing}"), "events").await.is_empty(), "{nothing}");
    }
    // An event that no route wanted says so; one whose id the router made is found by it, too.
    let pair = eventually("it is settled", PATIENCE, async || {
        world.get("/api/v1/events/evt_1").await["outcomes"].get(0).cloned()
    })
    .await;
    assert_eq!((&pair["status"], pair.get("subscription")), (&json!("unmatched"), None));
    assert_eq!(pair["last"]["by"]["generation"], 1, "{pair}");
    let body = r#"{"eventType":"order.created","payload":{"amount":7}}"#;
    let (_, taken) = world.router.post("application/json", body).await.unwrap();
    let found = world.get(&format!("/api/v1/events/{}", taken["id"].as_str().unwrap())).await;
    assert_eq!(found["event"]["payload"]["amount"], 7);
}

on_both_stores!([
    an_operator_sees_what_became_of_an_event_and_has_it_made_again
    events_are_listed_by_what_they_are_newest_first
]);
