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
const SHAPES: &str = "`\"none\"` or `{ bearer = [{ env = \"NAME\" }] }`";

/// All sources, by name.
pub(super) fn sources(table: Table<'_>, ingest: &Ingest) -> Vec<Arc<Source>> {
    let mut keys_by_path: HashMap<String, String> = HashMap::new();
    let mut sources = Vec::new();
    for (name, entry) in table.named() {
        let Some(mut table) = entry.table() else { continue };
        let path = table.require("path", "what producers post to, for example `path = \"/v1/events\"`");
        let auth = table.find_secret("auth");
        if auth.is_none() {
            let meaning = "say who may post with `auth = { bearer = [{ env = \"NAME\" }] }`, or write `auth = \"none\"` \
                           if anyone who can connect may";
            table.missing("auth", meaning);
        }
        let auth = auth.and_then(|entry| entry.source_auth());
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
        let Some((path_entry, path)) = path.and_then(|entry| Some((entry.clone(), entry.parse(values::request_path)?)))
        else {
            continue;
        };
        if let Some(other) = keys_by_path.get(&path) {
            let place = entry.reading.origins.place(other, Part::Value);
            path_entry.fault(format!("is {}, which `{other}` at {place} already is", values::quoted(&path)));
        }
        keys_by_path.insert(path.clone(), path_entry.key);
        sources.extend(auth.map(|auth| Arc::new(Source { name, path, auth, body_bytes_max, quota })));
    }
    sources
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
    fn source_auth(&self) -> Option<SourceAuth> {
        match self.value {
            Value::String(text) if text == "none" => return Some(SourceAuth::None),
            Value::Object(_) => {}
            _ => {
                self.fault(format!("must be {SHAPES}"));
                return None;
            }
        }
        let mut table = self.table()?;
        let keys =
            table.require_secret("bearer", "the only way to authenticate is `{ bearer = [{ env = \"NAME\" }] }`");
        table.end();
        let keys_entry = keys?;
        let keys = keys_entry.one_or_list(KEYS_OF_A_SOURCE_MAX)?;
        if keys.is_empty() {
            keys_entry.fault("must list at least one key");
            return None;
        }
        Some(SourceAuth::Bearer(keys.iter().filter_map(Entry::bearer_token).collect()))
    }
}
