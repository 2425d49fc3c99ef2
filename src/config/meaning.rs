//! Whether two ways of writing a key mean the same: `10m` and `600s`, or a default that is written out. What a key's values are
//! and what its default is says the schema.

use std::sync::LazyLock;
use std::time::Duration;

use serde_json::Value;

use super::schema::SCHEMA;
use super::values;

static ROOT: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(SCHEMA).expect("the schema is JSON, as its tests see"));

/// What is looked for in the schema at one step.
enum Step<'k> {
    Field(&'k str),
    Element,
}

/// Whether a key says the same in both; `None` where it is not written. `within` is the path of the table that has the key,
/// such as `endpoints.warehouse` or `routes[0].subscriptions[0]`, and `key` a path in it.
pub(crate) fn is_same(within: &str, key: &str, before: Option<&str>, after: Option<&str>) -> bool {
    if before == after {
        return true;
    }
    let Some(found) = steps(within).chain(steps(key)).try_fold(&*ROOT, next) else { return false };
    let default = found.get("default").map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    let (before, after) = (before.or(default.as_deref()), after.or(default.as_deref()));
    before.zip(after).is_some_and(|(before, after)| before == after || is_same_value(found, before, after))
}

fn is_same_value(schema: &'static Value, before: &str, after: &str) -> bool {
    let is_of = |name: &str| choices(schema).iter().any(|choice| choice["$ref"] == format!("#/definitions/{name}"));
    let duration = |text: &str| values::duration(text, &(Duration::ZERO..=Duration::MAX)).ok();
    let equal = |before: Option<u128>, after: Option<u128>| before.is_some() && before == after;
    if is_of("duration") {
        let nanos = |text| duration(text).map(|duration| duration.as_nanos());
        return equal(nanos(before), nanos(after));
    }
    if is_of("size") {
        let bytes = |text| values::bytes(text).map(u128::from);
        return equal(bytes(before), bytes(after));
    }
    let Some(items) = next(schema, Step::Element) else { return false };
    let list = |text: &str| serde_json::from_str::<Vec<String>>(text).ok();
    list(before).zip(list(after)).is_some_and(|(before, after)| {
        let is_same = |(before, after): (&String, &String)| before == after || is_same_value(items, before, after);
        before.len() == after.len() && before.iter().zip(&after).all(is_same)
    })
}

fn steps(path: &str) -> impl Iterator<Item = Step<'_>> {
    path.split('.').flat_map(|part| {
        let (name, elements) =
            part.split_once('[').map_or((part, 0), |(name, rest)| (name, 1 + rest.matches('[').count()));
        let elements = std::iter::repeat_with(|| Step::Element).take(elements);
        Some(name).filter(|name| !name.is_empty()).map(Step::Field).into_iter().chain(elements)
    })
}

fn next(schema: &'static Value, step: Step<'_>) -> Option<&'static Value> {
    choices(schema).into_iter().find_map(|choice| match step {
        Step::Field(name) => choice["properties"].get(name).or_else(|| choice.get("additionalProperties")),
        Step::Element => choice.get("items"),
    })
}

/// A schema and what it refers to or is made of.
fn choices(schema: &'static Value) -> Vec<&'static Value> {
    let mut found = vec![schema];
    if let Some(name) = schema["$ref"].as_str().and_then(|name| name.strip_prefix("#/definitions/")) {
        found.extend(choices(&ROOT["definitions"][name]));
    }
    for key in ["allOf", "anyOf", "oneOf"] {
        found.extend(schema[key].as_array().into_iter().flatten().flat_map(choices));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_means_the_same_is_the_same() {
        let store = |key: &'static str, before, after| is_same("store", key, before, after);
        let subscription = |key: &'static str, before, after| is_same("routes[0].subscriptions[0]", key, before, after);
        assert!(store("dedupe_window", Some("10m"), Some("600s")));
        assert!(!store("dedupe_window", Some("10m"), Some("601s")));
        assert!(store("dedupe_window", None, Some("600s")), "the default, written out");
        assert!(store("redis.wait.replicas", Some("0"), None));
        assert!(!store("redis.wait.replicas", Some("1"), None));
        assert!(is_same("ingest", "body_bytes_max", Some("1MiB"), Some("1048576")));
        assert!(!is_same("ingest", "body_bytes_max", Some("1MiB"), Some("1MB")));
        assert!(is_same("endpoints.x", "timeout", Some("3s"), None));
        assert!(subscription("retry", Some(r#"["60s","5m"]"#), Some(r#"["1m","300s"]"#)));
        assert!(!subscription("retry", Some(r#"["60s","5m"]"#), Some(r#"["1m"]"#)));
        // What holds where a subscription says nothing is the endpoint's business, too.
        assert!(!subscription("retry", None, Some(r#"["1m","5m","30m","2h","24h"]"#)));
        assert!(subscription("plugins[0].mode", None, Some("apply")));
        // A name that looks like a duration is a name.
        assert!(!subscription("endpoint", Some("10m"), Some("600s")));
        assert!(!is_same("routes[0]", "events", Some(r#"["10m"]"#), Some(r#"["600s"]"#)));
        assert!(!is_same("plugins.slack", "component", Some("aa"), None), "the schema knows nothing of it");
    }
}
