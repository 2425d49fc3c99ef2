//! Endpoints as the operator sees them: which there are, which are held, and holding and releasing them. The marks are in the
//! store, so they outlive a restart and count for every router; others see them within two seconds.

use http::StatusCode;
use serde_json::json;

use super::State;
use super::answers::{Answer, json_answer, problem, store_problem};
use super::operations::{Caller, audit};
use crate::store::{EndpointMark, MarkKind, hasten_all};

impl State {
    /// Every endpoint that a subscription uses.
    pub(super) async fn endpoints(&self) -> Answer {
        let marks = match self.store.endpoint_marks().await {
            Ok(marks) => marks,
            Err(error) => return store_problem(&error),
        };
        let snapshot = self.snapshot.load();
        let mut rows: Vec<_> = snapshot
            .endpoints()
            .map(|state| {
                let mark = |kind| {
                    let mark = marks.iter().find(|mark| mark.kind == kind && state.is_meant_by(mark));
                    mark.map(|mark| json!({"reason": mark.reason, "at": mark.at.to_string()}))
                };
                json!({
                    "name": &*state.endpoint.name,
                    "url": state.endpoint.url.to_string(),
                    "held": state.held(),
                    "disabled": mark(MarkKind::Disabled),
                    "paused": mark(MarkKind::Paused),
                    "breakerOpen": state.breaker_is_open(),
                })
            })
            .collect();
        rows.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
        json_answer(&json!({ "endpoints": rows }))
    }

    /// Holds an endpoint's deliveries from now on.
    pub(super) async fn pause(&self, caller: &Caller, name: &str) -> Answer {
        let snapshot = self.snapshot.load_full();
        let Some(endpoint) = snapshot.endpoints().find(|state| *state.endpoint.name == *name) else {
            return no_endpoint();
        };
        let mark = EndpointMark {
            name: name.to_owned(),
            kind: MarkKind::Paused,
            target: endpoint.target.clone(),
            reason: "paused by the operator".to_owned(),
            at: self.clock.now(),
        };
        let was_paused = endpoint.set_mark(MarkKind::Paused, true);
        if let Err(error) = self.store.mark_endpoint(mark).await {
            endpoint.set_mark(MarkKind::Paused, was_paused);
            return store_problem(&error);
        }
        // Whoever took over the store's marks in between has taken this one away again.
        endpoint.set_mark(MarkKind::Paused, true);
        tracing::info!(endpoint = name, "endpoint paused; its deliveries wait until it is resumed");
        audit::note(&*self.store, caller, "pause-endpoint", name, String::new()).await;
        json_answer(&json!({ "name": name, "wasPaused": was_paused }))
    }

    /// Takes a mark away and makes what waits for the endpoint due now.
    pub(super) async fn release(&self, caller: &Caller, name: &str, kind: MarkKind) -> Answer {
        let snapshot = self.snapshot.load_full();
        let Some(endpoint) = snapshot.endpoints().find(|state| *state.endpoint.name == *name) else {
            return no_endpoint();
        };
        let was_marked = match self.store.unmark_endpoint(name, kind).await {
            Ok(was_marked) => was_marked,
            Err(error) => return store_problem(&error),
        };
        endpoint.set_mark(kind, false);
        let due = match endpoint.held() {
            // The other mark still holds them.
            Some(_) => 0,
            None => match hasten_all(&*self.store, &snapshot.subscriptions_of(name)).await {
                Ok(due) => due,
                Err(error) => return store_problem(&error),
            },
        };
        let (action, done, was) = match kind {
            MarkKind::Disabled => ("enable-endpoint", "enabled", "wasDisabled"),
            MarkKind::Paused => ("resume-endpoint", "resumed", "wasPaused"),
        };
        tracing::info!(endpoint = name, due, "endpoint {done}");
        audit::note(&*self.store, caller, action, name, format!("{due} deliveries are due now")).await;
        json_answer(&json!({ "name": name, was: was_marked, "deliveriesDue": due }))
    }
}

fn no_endpoint() -> Answer {
    problem(StatusCode::NOT_FOUND, "no subscription uses an endpoint of this name")
}
