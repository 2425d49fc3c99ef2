//! Many deliveries made again: none left out, none twice, whatever fails or is asked meanwhile.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::{Kind, PATIENCE, World, on_both_stores};
use crate::support::eventually;

/// Makes steps until the end; gives how many were replayed in all.
async fn replay_all(world: &World, request: Value) -> u64 {
    let (mut replayed, mut cursor) = (0, Value::Null);
    loop {
        let mut request = request.clone();
        request["cursor"] = cursor;
        let step = world.post("/api/v1/replay", request).await;
        replayed += step["replayed"].as_u64().unwrap();
        cursor = step["cursor"].clone();
        if cursor.is_null() {
            return replayed;
        }
    }
}

/// How often each delivery arrived at a path.
fn arrivals(world: &World, path: &str) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for request in world.receiver.received(path) {
        *counts.entry(request.header("webhook-id").to_owned()).or_default() += 1;
    }
    counts
}

async fn hundreds_of_dead_letters_are_replayed_once_each_while_some_fail_again(kind: Kind) {
    let world = World::start(kind).await;
    let events: Vec<_> = (0..300)
        .map(|n| json!({"id": format!("evt_{n}"), "eventType": "order.created", "payload": {"amount": 1}}))
        .collect();
    world.router.post("application/json", Value::from(events).to_string()).await.unwrap();
    world.given_up(300).await;
    let selection = json!({"status": "dead-letter", "subscription": "bad", "since": "1h"});
    let dry = json!({"selection": selection, "limit": 1000, "dryRun": true});
    let counted = world.post("/api/v1/replay", dry).await;
    assert_eq!((&counted["matched"], &counted["replayed"], &counted["cursor"]), (&json!(300), &json!(0), &Value::Null));

    // The first hundred that come fail again, and are given up again while the others are still to be replayed.
    let mut answers = vec![500; 100];
    answers.push(200);
    world.receiver.answers("/bad", &answers);
    let request = json!({"selection": selection, "limit": 17});
    assert_eq!(replay_all(&world, request.clone()).await, 300);
    world.given_up(100).await;
    // A hundred may have failed while others are still on their way.
    eventually("each has come again", PATIENCE, async || (world.receiver.count("/bad") >= 600).then_some(())).await;
    let counts = arrivals(&world, "/bad");
    assert_eq!(counts.len(), 300);
    assert!(counts.values().all(|count| *count == 2), "each was made again once: {counts:?}");

    // Two who ask for the same at the same time don't make one twice.
    let (one, other) = tokio::join!(replay_all(&world, request.clone()), replay_all(&world, request.clone()));
    assert_eq!(one + other, 100, "{one} and {other}");
    world.given_up(0).await;
    eventually("all have arrived", PATIENCE, async || (world.receiver.count("/bad") >= 700).then_some(())).await;
    assert_eq!(replay_all(&world, request).await, 0, "and then there is nothing left");
    let counts = arrivals(&world, "/bad");
    assert_eq!((counts.len(), counts.values().sum::<usize>()), (300, 700));
}

async fn events_of_a_time_are_replayed_to_those_that_do_not_have_them(kind: Kind) {
    let world = World::start(kind).await;
    for n in 0..40 {
        world.send(&format!("evt_{n}"), "order.created", 1).await;
    }
    world.given_up(40).await;
    for n in 0..40 {
        world.stands(&format!("evt_{n}"), "ok", "delivered").await;
    }
    world.receiver.answers("/bad", &[200]);
    // The new subscription has nothing yet, `bad` has dead letters, `ok` has everything.
    let routes = super::routes(&world.receiver).replace("amount >= 100", "amount >= 1");
    world.router.write_config(&routes);
    world.post("/api/v1/reload", json!({})).await;
    let to = |subscription: &str| json!({"selection": {"since": "1h", "subscription": subscription}, "limit": 9});
    assert_eq!(replay_all(&world, to("big")).await, 40, "what was filtered is wanted today");
    assert_eq!(replay_all(&world, to("bad")).await, 40);
    assert_eq!(replay_all(&world, to("ok")).await, 0);
    for subscription in ["big", "bad"] {
        for n in 0..40 {
            world.stands(&format!("evt_{n}"), subscription, "delivered").await;
        }
        assert!(arrivals(&world, &format!("/{subscription}")).len() == 40);
        assert_eq!(replay_all(&world, to(subscription)).await, 0, "twice is no more than once");
    }
    let step = world.post("/api/v1/replay", json!({"selection": {"since": "1h", "status": "delivered", "subscription": "ok"}, "dryRun": true, "limit": 1000})).await;
    assert_eq!(step["matched"], 40);
}

on_both_stores!([
    hundreds_of_dead_letters_are_replayed_once_each_while_some_fail_again
    events_of_a_time_are_replayed_to_those_that_do_not_have_them
]);
