//! A config as it can be shown and compared: what each source, endpoint, plugin, route and subscription says, key by key, as it
//! was written. A secret that stands in the config itself is shown as a fingerprint of 16 bits: enough to see that it has become
//! another, too little to find it by trying.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::document::{child, element};
use crate::endpoint::EndpointUrl;

/// What one thing says, by key.
pub type Keys = BTreeMap<String, String>;

/// What a config says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Description {
    /// `[ingest]`, `[store]` and the other tables that are there once, by name.
    pub settings: BTreeMap<String, Keys>,
    /// By name.
    pub sources: BTreeMap<String, Keys>,
    /// By name.
    pub endpoints: BTreeMap<String, Keys>,
    /// By name; a plugin that was loaded has its component's digest under [`Description::DIGEST`].
    pub plugins: BTreeMap<String, Keys>,
    /// By name.
    pub routes: BTreeMap<String, Keys>,
    /// By name.
    pub subscriptions: BTreeMap<String, Keys>,
}

impl Description {
    /// The key of the digest of a plugin's component.
    pub const DIGEST: &'static str = "component";

    /// A digest of it all.
    pub fn digest(&self) -> String {
        let text = serde_json::to_vec(self).expect("a description has string keys only");
        Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// What these values say; `secrets` are the whole keys whose values, and what is in them, may be secret.
    pub(super) fn of(values: &Map<String, Value>, secrets: &BTreeSet<String>) -> Self {
        let mut description = Self::default();
        let describe = |key: &str, value: &Value| {
            let mut keys = Keys::new();
            flatten(&mut keys, secrets, key, "", value);
            keys
        };
        for (section, value) in values {
            let named = match section.as_str() {
                "sources" => &mut description.sources,
                "endpoints" => &mut description.endpoints,
                "plugins" => &mut description.plugins,
                "routes" | "tests" => continue,
                _ => {
                    description.settings.insert(section.clone(), describe(section, value));
                    continue;
                }
            };
            for (name, value) in value.as_object().into_iter().flatten() {
                named.insert(name.clone(), describe(&child(section, name), value));
            }
        }
        for (number, route) in values.get("routes").and_then(Value::as_array).into_iter().flatten().enumerate() {
            let Some(fields) = route.as_object() else { continue };
            let key = element("routes", number);
            let text = |fields: &Map<String, Value>, name: &str| {
                fields.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
            };
            let route_name = text(fields, "name");
            let own: Map<_, _> = fields
                .iter()
                .filter(|(name, _)| *name != "subscriptions")
                .map(|(n, v)| (n.clone(), v.clone()))
                .collect();
            description.routes.insert(route_name.clone(), describe(&key, &Value::Object(own)));
            let key = child(&key, "subscriptions");
            for (place, subscription) in
                fields.get("subscriptions").and_then(Value::as_array).into_iter().flatten().enumerate()
            {
                let Some(fields) = subscription.as_object() else { continue };
                let mut keys = describe(&element(&key, place), subscription);
                keys.insert("route".to_owned(), route_name.clone());
                description.subscriptions.insert(text(fields, "name"), keys);
            }
        }
        description
    }
}

/// Writes what is in `value` down, each under its key within the whole.
fn flatten(keys: &mut Keys, secrets: &BTreeSet<String>, whole: &str, within: &str, value: &Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                flatten(keys, secrets, &child(whole, name), &child(within, name), value);
            }
        }
        Value::Array(items)
            if items.iter().any(|item| item.is_object() || item.is_array()) || is_secret(secrets, whole) =>
        {
            for (number, item) in items.iter().enumerate() {
                flatten(keys, secrets, &element(whole, number), &element(within, number), item);
            }
        }
        value => {
            // The name of a variable or of a file is no secret: the reader finds the secret there.
            let is_reference = whole.ends_with(".env") || whole.ends_with(".file");
            let shown = match value {
                _ if is_secret(secrets, whole) && !is_reference => hidden(value),
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            keys.insert(within.to_owned(), shown);
        }
    }
}

fn is_secret(secrets: &BTreeSet<String>, key: &str) -> bool {
    if key.ends_with(".auth") {
        return false; // `auth = "none"`; keys stand in a table.
    }
    let above = |at: usize| secrets.contains(&key[..at]);
    secrets.contains(key) || key.match_indices(['.', '[']).any(|(at, _)| above(at))
}

/// A fingerprint; of a URL also what does not tell a token.
fn hidden(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let digest = Sha256::digest(&text);
    let print = format!("#{:02x}{:02x}", digest[0], digest[1]);
    match EndpointUrl::parse(&text) {
        Ok(url) => format!("{url} {print}"),
        Err(_) => print,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Config, Environment};
    use super::*;

    fn described(text: &str) -> Description {
        let environment = Environment::default().with_stand_ins();
        Config::parse(Path::new("app.toml"), text, &environment).unwrap_or_else(|errors| panic!("{errors}")).description
    }

    const TEXT: &str = r##"
[admin]
tokens = ["marker-token", { env = "ADMIN_TOKEN" }]
[endpoints.x]
url = "https://hooks.example.com/T00/marker-in-the-path"
secret = "whsec_bWFya2VyLW1hcmtlci1tYXJrZXItbWFya2VyLW1hcmtlcg=="
timeout = "5s"
headers = { x-key = "marker-key", x-other = { file = "other.key" } }
[plugins.slack]
path = "slack.wasm"
[[routes]]
name = "orders"
events = ["order.*", "payment.*"]
subscriptions = [{ name = "s", endpoint = "x", retry = ["1m"], plugins = [{ use = "slack", config = { token = "marker" } }] }]
"##;

    #[test]
    fn everything_is_there_and_no_secret_is() {
        let description = described(TEXT);
        let shown = serde_json::to_string(&description).unwrap();
        assert!(!shown.contains("marker"), "{shown}");
        let endpoint = &description.endpoints["x"];
        assert_eq!(endpoint["timeout"], "5s");
        assert!(endpoint["url"].starts_with("https://hooks.example.com #"), "{endpoint:?}");
        assert_eq!(endpoint["headers.x-other.file"], "other.key");
        assert_eq!(description.settings["admin"]["tokens[1].env"], "ADMIN_TOKEN");
        assert_eq!(description.routes["orders"]["events"], r#"["order.*","payment.*"]"#);
        let subscription = &description.subscriptions["s"];
        assert_eq!((&*subscription["route"], &*subscription["plugins[0].use"]), ("orders", "slack"));
        assert!(subscription["plugins[0].config.token"].starts_with('#'), "{subscription:?}");
    }

    #[test]
    fn another_secret_is_another_description() {
        let other = TEXT.replace("marker-key", "another-key");
        assert_ne!(described(TEXT).digest(), described(&other).digest());
        assert_eq!(described(TEXT).digest(), described(TEXT).digest());
    }
}
