//! A config as it can be shown and compared: what each source, endpoint, plugin, route and subscription says, key by key, as it
//! was written. A secret is `***`; what it is stays beside it, for comparing, and is never written out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::document::{child, element};
use super::secrets::Secrets;
use crate::endpoint::EndpointUrl;
use crate::secret::Secret;

/// What one thing says, by key.
pub type Keys = BTreeMap<String, String>;

/// What a config says.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
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
    /// What the secrets are, by section, name and key, such as `endpoints.warehouse.secret`; those that were stood in for are not
    /// there. They are never written out: see [`SecretPrints`](super::SecretPrints).
    #[serde(skip)]
    pub secrets: BTreeMap<String, Secret>,
}

impl Description {
    /// The key of the digest of a plugin's component.
    pub const DIGEST: &'static str = "component";

    /// A digest of it all but what may be secret (`***`), which nobody may find by trying.
    pub fn digest(&self) -> String {
        let text = serde_json::to_vec(self).expect("a description has string keys only");
        Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// By what a secret is found in [`Description::secrets`].
    pub fn secret_key(section: &str, name: &str, key: &str) -> String {
        format!("{}.{key}", child(section, name))
    }

    /// Whether the secret of a key of an endpoint, or of a table that is there once, is not here and was stood in for.
    pub fn is_stood_in(&self, section: &str, name: &str, key: &str) -> bool {
        let things = if section == "endpoints" { &self.endpoints } else { &self.settings };
        let Some(keys) = things.get(name) else { return false };
        let places = ["env", "file"].map(|place| format!("{key}.{place}"));
        let is_missing = |place: &String| !self.secrets.contains_key(&Self::secret_key(section, name, place));
        places.iter().any(|place| keys.contains_key(place) && is_missing(place))
    }

    /// What these values say.
    pub(super) fn of(values: &Map<String, Value>, secrets: &Secrets) -> Self {
        let mut description = Self::default();
        let mut found = BTreeMap::new();
        let mut describe = |section: &str, name: &str, key: &str, value: &Value| {
            let mut said = Said { keys: Keys::new(), found: &mut found, secrets, section, name };
            said.flatten(key, "", value);
            said.keys
        };
        for (section, value) in values {
            let named = match section.as_str() {
                "sources" => &mut description.sources,
                "endpoints" => &mut description.endpoints,
                "plugins" => &mut description.plugins,
                "routes" | "tests" => continue,
                _ => {
                    description.settings.insert(section.clone(), describe("settings", section, section, value));
                    continue;
                }
            };
            for (name, value) in value.as_object().into_iter().flatten() {
                named.insert(name.clone(), describe(section, name, &child(section, name), value));
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
            let said = describe("routes", &route_name, &key, &Value::Object(own));
            description.routes.insert(route_name.clone(), said);
            let key = child(&key, "subscriptions");
            for (place, subscription) in
                fields.get("subscriptions").and_then(Value::as_array).into_iter().flatten().enumerate()
            {
                let Some(fields) = subscription.as_object() else { continue };
                let name = text(fields, "name");
                let said = Value::Object(with_plugin_tables(fields));
                let mut keys = describe("subscriptions", &name, &element(&key, place), &said);
                keys.insert("route".to_owned(), route_name.clone());
                description.subscriptions.insert(name, keys);
            }
        }
        description.secrets = found;
        description
    }
}

/// A subscription's fields, in which a plugin that is only named is a table that says no more than its name.
fn with_plugin_tables(fields: &Map<String, Value>) -> Map<String, Value> {
    let mut fields = fields.clone();
    for plugin in fields.get_mut("plugins").and_then(Value::as_array_mut).into_iter().flatten() {
        if plugin.is_string() {
            *plugin = json!({ "use": plugin.take() });
        }
    }
    fields
}

/// What one thing says, as it is put together.
struct Said<'a> {
    keys: Keys,
    found: &'a mut BTreeMap<String, Secret>,
    secrets: &'a Secrets,
    section: &'a str,
    name: &'a str,
}

impl Said<'_> {
    /// Writes what is in `value` down, each under its key `within` the thing.
    fn flatten(&mut self, whole: &str, within: &str, value: &Value) {
        let is_secret = self.secrets.may_be(whole);
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    self.flatten(&child(whole, name), &child(within, name), value);
                }
            }
            Value::Array(items) if is_secret || items.iter().any(|item| item.is_object() || item.is_array()) => {
                for (number, item) in items.iter().enumerate() {
                    self.flatten(&element(whole, number), &element(within, number), item);
                }
            }
            value => {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                let (shown, secret) = match self.secrets.found_by(whole) {
                    // The name of a variable or of a file is no secret: the reader found the secret there.
                    Some(secret) => (text, secret.clone()),
                    None if is_secret && !(self.section == "sources" && within == "auth" && text == "none") => {
                        (hidden(&text), Some(Secret::new(text)))
                    }
                    None => (text, None),
                };
                if let Some(secret) = secret {
                    self.found.insert(Description::secret_key(self.section, self.name, within), secret);
                }
                self.keys.insert(within.to_owned(), shown);
            }
        }
    }
}

/// What may be seen of a secret: of a URL, what does not tell a token.
fn hidden(text: &str) -> String {
    EndpointUrl::parse(text).map_or_else(|_| "***".to_owned(), |url| url.to_string())
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
subscriptions = [{ name = "s", endpoint = "x", retry = ["1m"], plugins = [{ use = "slack", config = { auth = "marker" } }] }]
"##;

    #[test]
    fn everything_is_there_and_no_secret_is() {
        let description = described(TEXT);
        let shown = serde_json::to_string(&description).unwrap();
        assert!(!shown.contains("marker"), "{shown}");
        let endpoint = &description.endpoints["x"];
        assert_eq!(endpoint["timeout"], "5s");
        assert_eq!(endpoint["url"], "https://hooks.example.com");
        assert_eq!(endpoint["headers.x-other.file"], "other.key");
        assert_eq!(description.settings["admin"]["tokens[1].env"], "ADMIN_TOKEN");
        assert_eq!(description.routes["orders"]["events"], r#"["order.*","payment.*"]"#);
        let subscription = &description.subscriptions["s"];
        assert_eq!((&*subscription["route"], &*subscription["plugins[0].use"]), ("orders", "slack"));
        assert_eq!(subscription["plugins[0].config.auth"], "***");
    }

    #[test]
    fn secrets_stay_beside_it_with_what_was_found_elsewhere_and_are_not_in_its_digest() {
        let description = described(TEXT);
        let secrets: Vec<_> = description.secrets.iter().map(|(key, secret)| (&**key, secret.expose())).collect();
        assert!(secrets.contains(&("endpoints.x.headers.x-key", "marker-key")), "{secrets:?}");
        assert!(secrets.contains(&("subscriptions.s.plugins[0].config.auth", "marker")), "{secrets:?}");
        assert!(!description.secrets.contains_key("settings.admin.tokens[1].env"), "a stand-in is not the secret");
        let there = [("ADMIN_TOKEN".to_owned(), "marker-there".to_owned())];
        let environment = Environment::default().with(there).with_stand_ins();
        let found = Config::parse(Path::new("app.toml"), TEXT, &environment).unwrap().description;
        assert_eq!(found.secrets["settings.admin.tokens[1].env"].expose(), "marker-there");
        assert_eq!(found.digest(), description.digest());
        assert_ne!(found.digest(), described(&TEXT.replace("5s", "6s")).digest());
    }
}
