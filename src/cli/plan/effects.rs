//! What follows from a change, for what comes and for what waits, as the router does it. Pure.

use super::changes::{Change, Kind, Mark};
use crate::config::{Description, Keys};

/// What follows whatever waits.
pub fn by_itself(change: &Change, before: &Keys) -> Vec<String> {
    let mut effects = Vec::new();
    let mut say = |effect: &str| effects.push(effect.to_owned());
    let path = before.get("path").map_or("", String::as_str);
    match (change.kind, change.mark) {
        (Kind::Settings, _) => {
            say("read at start only: a reload leaves it as it is, a restart does not");
            if change.name == "store" && change.touches("url") {
                say("what waits in the store of before stays there");
            }
        }
        (Kind::Source, Mark::Removed) => say(&format!("producers that post to `{path}` will be answered 404")),
        (Kind::Source, Mark::Changed) if change.touches("path") => {
            say(&format!("producers that post to `{path}` will be answered 404"));
        }
        (Kind::Endpoint, Mark::Changed) => {
            if change.touches("url") {
                say("if a 410 has disabled it, that ends");
            }
            if change.touches("format") {
                say("a delivery that was attempted before is sent with the body of before");
            }
        }
        (Kind::Plugin, Mark::Changed) if change.touches(Description::DIGEST) => {
            say("a delivery that was attempted before is sent with the body of before");
        }
        (Kind::Subscription, Mark::Changed) if change.touches("plugins") => {
            say("a delivery that was attempted before is sent with the body of before");
        }
        (Kind::Subscription, Mark::Added) => say("it gets events that are accepted from then on"),
        (Kind::Route, Mark::Changed) => say("deliveries that wait are made all the same"),
        (Kind::Source | Kind::Endpoint | Kind::Plugin | Kind::Route, Mark::Added)
        | (Kind::Source | Kind::Plugin | Kind::Subscription, Mark::Changed)
        | (Kind::Endpoint | Kind::Plugin | Kind::Route | Kind::Subscription, Mark::Removed) => {}
    }
    effects
}

/// The subscriptions whose waiting deliveries a change concerns.
pub fn concerned(change: &Change, before: &Description) -> Vec<String> {
    let moves = ["endpoint", "retry"].iter().any(|key| change.touches(key));
    match (change.kind, change.mark) {
        (Kind::Subscription, Mark::Removed) => vec![change.name.clone()],
        (Kind::Subscription, Mark::Changed) if moves => vec![change.name.clone()],
        (Kind::Endpoint, Mark::Changed) if change.touches("url") || change.touches("retry") => {
            let uses = |keys: &Keys| keys.get("endpoint") == Some(&change.name);
            let all = before.subscriptions.iter().filter(|(_, keys)| uses(keys)).map(|(name, _)| name);
            all.filter(|name| change.touches("url") || is_rescheduled(change, name, before)).cloned().collect()
        }
        (
            Kind::Settings | Kind::Source | Kind::Endpoint | Kind::Plugin | Kind::Route | Kind::Subscription,
            Mark::Added | Mark::Changed | Mark::Removed,
        ) => vec![],
    }
}

/// Whether a change gives a subscription another schedule: its own, or its endpoint's where it has none.
pub fn is_rescheduled(change: &Change, subscription: &str, before: &Description) -> bool {
    let has_own = || before.subscriptions.get(subscription).is_some_and(|keys| keys.contains_key("retry"));
    change.touches("retry") && (change.kind == Kind::Subscription || !has_own())
}

/// What becomes of the deliveries that wait, of which so many get another schedule.
pub fn for_waiting(change: &Change, count: u64, rescheduled: u64) -> Vec<String> {
    let (name, is_removed) = (&change.name, change.mark == Mark::Removed);
    let they = if count == 1 { "it" } else { "they" };
    let scheduled = |count| format!("{count} scheduled {}", if count == 1 { "delivery" } else { "deliveries" });
    let all = scheduled(count);
    let mut effects = Vec::new();
    match count {
        0 if is_removed => effects.push(format!("removing `{name}` leaves no scheduled delivery")),
        0 => {}
        // The router gives up what has no subscription when it claims it, which is when it falls due.
        _ if is_removed => effects.push(format!(
            "removing `{name}` leaves {all}: {they} will be dead-lettered as `subscription-removed`, each when it falls due"
        )),
        _ => {
            if change.touches("url") {
                effects.push(format!("{all} will go to the new URL"));
            }
            if change.touches("endpoint") {
                effects.push(format!("{all} will go to the new endpoint"));
            }
            if rescheduled > 0 {
                let rescheduled = scheduled(rescheduled);
                effects.push(format!("{rescheduled} will follow the new schedule from the next attempt on"));
            }
        }
    }
    effects
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::changes::changes;
    use super::*;
    use crate::config::{Config, Environment, SecretPrints};

    const BEFORE: &str = r#"
[sources.app]
path = "/a"
auth = "none"
[endpoints.x]
url = "https://x.example.com/hook"
[endpoints.y]
url = "https://y.example.com/hook"
headers = { x-key = { env = "Y_KEY" } }
[[routes]]
name = "r"
events = ["order.*"]
subscriptions = [{ name = "s", endpoint = "x" }, { name = "t", endpoint = "y", retry = ["1m"] }, { name = "u", endpoint = "y" }]
"#;

    fn description(text: &str, key: &str) -> Description {
        let environment = Environment::default().with([("Y_KEY".to_owned(), key.to_owned())]);
        Config::parse(Path::new("app.toml"), text, &environment).unwrap().description
    }

    /// Each change in a line, with its effects for 214 waiting deliveries of each subscription.
    fn told_with(after: &str, key: &str) -> Vec<String> {
        let (before, after) = (description(BEFORE, "marker"), description(after, key));
        let differing = SecretPrints::of(&after, "drawn".to_owned()).differing(&before);
        let line = |mut change: Change| {
            let concerned = concerned(&change, &before);
            let rescheduled = concerned.iter().filter(|name| is_rescheduled(&change, name, &before)).count() as u64;
            if !concerned.is_empty() {
                change.effects.extend(for_waiting(&change, 214 * concerned.len() as u64, 214 * rescheduled));
            }
            let keys: Vec<_> = change.keys.iter().map(ToString::to_string).collect();
            let what = format!("{} {} {} [{}]", change.mark.as_str(), change.kind, change.name, keys.join(", "));
            format!("{what} {}", change.effects.join("; ")).trim_end().to_owned()
        };
        changes(&before, &after, &differing).into_iter().map(line).collect()
    }

    fn told(after: &str) -> Vec<String> {
        told_with(after, "marker")
    }

    #[test]
    fn nothing_changes_when_nothing_does() {
        assert_eq!(told(BEFORE), [""; 0]);
        assert_eq!(told(&format!("# a comment\n{BEFORE}")), [""; 0]);
        let written_otherwise = BEFORE
            .replace(r#"["1m"]"#, r#"["60s"]"#)
            .replace("/hook\"\n", "/hook\"\ntimeout = \"3000ms\"\n")
            .replace(r#"{ name = "s","#, r#"{ name = "s", on_error = "retry","#);
        assert_eq!(told(&written_otherwise), [""; 0]);
    }

    #[test]
    fn what_is_added_removed_and_changed_is_told_with_what_follows() {
        let cases = [
            (
                BEFORE.replace(r#", { name = "t", endpoint = "y", retry = ["1m"] }"#, ""),
                "- subscription t [] removing `t` leaves 214 scheduled deliveries: they will be dead-lettered as \
                 `subscription-removed`, each when it falls due",
            ),
            (
                BEFORE.replace(r#"["1m"]"#, r#"["2m"]"#),
                r#"~ subscription t [retry: ["1m"] → ["2m"]] 214 scheduled deliveries will follow the new schedule from the next attempt on"#,
            ),
            (
                BEFORE.replace(r#"endpoint = "x""#, r#"endpoint = "y""#),
                "~ subscription s [endpoint: x → y] 214 scheduled deliveries will go to the new endpoint",
            ),
            (
                BEFORE.replace("\"/a\"", "\"/b\""),
                "~ source app [path: /a → /b] producers that post to `/a` will be answered 404",
            ),
            (
                BEFORE.replace(r#"["order.*"]"#, r#"["order.*", "user.*"]"#),
                r#"~ route r [events: ["order.*"] → ["order.*","user.*"]] deliveries that wait are made all the same"#,
            ),
            (
                format!("{BEFORE}[endpoints.z]\nurl = \"https://z.example.com/marker\"\n"),
                "+ endpoint z [url: https://z.example.com]",
            ),
            (
                format!("{BEFORE}[ingest]\nlisten = \"127.0.0.1:9000\"\n"),
                "+ settings ingest [listen: 127.0.0.1:9000] read at start only: a reload leaves it as it is, a restart does not",
            ),
            (
                BEFORE.replace("x.example.com", "z.example.com"),
                "~ endpoint x [url: https://x.example.com → https://z.example.com] if a 410 has disabled it, \
                 that ends; 214 scheduled deliveries will go to the new URL",
            ),
            (
                BEFORE.replace("x.example.com/hook", "x.example.com/marker"),
                "~ endpoint x [url: https://x.example.com (changed, not shown)] if a 410 has disabled it, that ends; 214 scheduled \
                 deliveries will go to the new URL",
            ),
        ];
        for (after, expected) in cases {
            assert_eq!(told(&after), [expected]);
        }
    }

    #[test]
    fn a_schedule_of_the_endpoint_is_not_that_of_a_subscription_with_its_own() {
        let y = "url = \"https://y.example.com/hook\"\n";
        let with_retry = BEFORE.replace(y, &format!("{y}retry = [\"5m\"]\n"));
        let follow = "214 scheduled deliveries will follow the new schedule from the next attempt on";
        assert_eq!(told(&with_retry), [format!(r#"~ endpoint y [retry: ["5m"]] {follow}"#)]);
        let moved = told(&with_retry.replace("y.example.com", "z.example.com"));
        assert!(moved[0].ends_with(&format!("428 scheduled deliveries will go to the new URL; {follow}")), "{moved:?}");
    }

    #[test]
    fn a_secret_that_has_changed_where_it_is_kept_is_a_change() {
        assert_eq!(told_with(BEFORE, "marker-new"), ["~ endpoint y [headers.x-key.env: Y_KEY (changed, not shown)]"]);
    }
}
