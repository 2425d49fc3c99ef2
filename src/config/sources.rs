//! `[sources.NAME]`: the ways in, each with its path and who may use it.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use super::origins::Part;
use super::reader::{Entry, Table};
use super::sections::BODY_BYTES_MAX;
use super::values;
use super::{Ingest, Quota, Source, SourceAuth};

const KEYS_OF_A_SOURCE_MAX: usize = 1_000;
const BURST_MAX: u32 = 1_000_000;
const SHAPES: &str = "`\"none\"`, `{ bearer = [{ env = \"NAME\" }] }` or `{ client_certificate = [\"NAME\"] }`";
const NAME_BYTES_MAX: usize = 2048;

/// All sources, by name.
pub(super) fn sources(table: Table<'_>, ingest: &Ingest) -> Vec<Arc<Source>> {
    let mut keys_by_path: HashMap<String, String> = HashMap::new();
    let mut sources = Vec::new();
    for (name, entry) in table.named() {
        let Some(mut table) = entry.table() else {
            sources.push(stand_in(name));
            continue;
        };
        let path = table.require("path", "what producers post to, for example `path = \"/v1/events\"`");
        let auth = table.find_secret("auth");
        if auth.is_none() {
            let meaning = "say who may post with `auth = { bearer = [{ env = \"NAME\" }] }`, or write `auth = \"none\"` \
                           if anyone who can connect may";
            table.missing("auth", meaning);
        }
        let auth = auth.and_then(|entry| entry.source_auth(ingest));
        let largest = BODY_BYTES_MAX.min(ingest.bodies_bytes_max);
        let body_bytes_max = table.bytes("body_bytes_max", ingest.body_bytes_max, 1..=largest);
        let quota = quota(&mut table);
        table.end();
        if matches!(auth, Some(SourceAuth::None)) && !ingest.listen.ip().is_loopback() {
            entry.reading.warn(
                &format!("{}.auth", entry.key),
                format!("`{}` takes events from anyone who reaches {}", entry.key, ingest.listen),
            );
        }
        let auth = auth.unwrap_or(SourceAuth::None);
        let Some((path_entry, path)) = path.and_then(|entry| Some((entry.clone(), entry.parse(values::request_path)?)))
        else {
            sources.push(stand_in(name));
            continue;
        };
        if let Some(other) = keys_by_path.get(&path) {
            let place = entry.reading.origins.place(other, Part::Value);
            path_entry.fault(format!("is {}, which `{other}` at {place} already is", values::quoted(&path)));
        }
        keys_by_path.insert(path.clone(), path_entry.key);
        sources.push(Arc::new(Source { name, path, auth, body_bytes_max, quota }));
    }
    sources
}

/// Has the place of one that can't be used.
fn stand_in(name: Arc<str>) -> Arc<Source> {
    Arc::new(Source { name, path: String::new(), auth: SourceAuth::None, body_bytes_max: 0, quota: None })
}

fn quota(table: &mut Table<'_>) -> Option<Quota> {
    let rate = table.find("rate").map(|entry| entry.parse(values::rate));
    let burst = table.find("burst");
    if let (None, Some(burst)) = (&rate, &burst) {
        burst.fault("is how far a `rate` may be exceeded for a moment, and there is no `rate`");
    }
    let rate = rate??;
    let burst = burst.and_then(|entry| entry.count(&(1..=BURST_MAX))).unwrap_or_else(|| rate.in_a_second());
    Some(Quota { rate, burst })
}

impl Entry<'_> {
    fn source_auth(&self, ingest: &Ingest) -> Option<SourceAuth> {
        match self.value {
            Value::String(text) if text == "none" => return Some(SourceAuth::None),
            Value::Object(_) => {}
            _ => {
                self.fault(format!("must be {SHAPES}"));
                return None;
            }
        }
        let mut table = self.table()?;
        let (keys, names) = (table.find_secret("bearer"), table.find("client_certificate"));
        let others = table.names();
        table.end();
        let keys_entry = match (keys, names) {
            (Some(keys), None) => keys,
            (None, Some(names)) => return names.certificate_names(ingest),
            (None, None) if !others.is_empty() => return None, // Unknown keys, which its end has reported.
            (Some(_), Some(_)) | (None, None) => {
                self.fault(format!("must be {SHAPES}"));
                return None;
            }
        };
        let keys = keys_entry.one_or_list(KEYS_OF_A_SOURCE_MAX)?;
        if keys.is_empty() {
            keys_entry.fault("must list at least one key");
            return None;
        }
        Some(SourceAuth::Bearer(keys.iter().filter_map(Entry::bearer_token).collect()))
    }

    /// Names of clients' certificates.
    fn certificate_names(&self, ingest: &Ingest) -> Option<SourceAuth> {
        if ingest.tls.as_ref().is_none_or(|tls| tls.client_ca.is_none()) {
            self.fault("needs `ingest.tls.client_ca`, which vouches for clients' certificates");
            return None;
        }
        let entries = self.one_or_list(KEYS_OF_A_SOURCE_MAX)?;
        if entries.is_empty() {
            self.fault("must list at least one name");
            return None;
        }
        let name = |text: &str| match text.len() {
            1..=NAME_BYTES_MAX => Ok(crate::tls::name(text)),
            _ => Err("must be a DNS name or a URI, as the certificate has it (subject alternative name)".to_owned()),
        };
        Some(SourceAuth::ClientCertificate(entries.iter().filter_map(|entry| entry.parse(name)).collect()))
    }
}
