//! `[plugins.NAME]`: where a plugin's component is, and what it may use. Whether the file is a plugin is for
//! the sandbox to say.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::reader::{Entry, Table};
use super::values::{self, KIB, MIB, MILLISECOND, seconds};
use super::{PluginFixtures, PluginSpec};

/// The bounds of a plugin whose table says nothing of them.
const DEADLINE: Duration = Duration::from_millis(50);
const MEMORY_BYTES_MAX: usize = 16 * MIB;
const OUTPUT_BYTES_MAX: usize = MIB;

impl PluginSpec {
    /// A plugin with nothing but a name and a file in its table.
    pub fn new(name: &str, path: PathBuf) -> Self {
        Self {
            name: name.into(),
            path,
            sha256: None,
            fixtures: PluginFixtures::Beside,
            deadline: DEADLINE,
            memory_bytes_max: MEMORY_BYTES_MAX,
            output_bytes_max: OUTPUT_BYTES_MAX,
        }
    }
}

/// All plugins, by name.
pub(super) fn plugins(table: Table<'_>) -> Vec<Arc<PluginSpec>> {
    table.named().into_iter().filter_map(|(name, entry)| plugin(name, &entry)).collect()
}

fn plugin(name: Arc<str>, entry: &Entry<'_>) -> Option<Arc<PluginSpec>> {
    let mut table = entry.table()?;
    let path = table.require("path", "the file of the component, for example `path = \"plugins/slack.wasm\"`");
    let path = path.and_then(|entry| entry.path());
    let sha256 = table.find("sha256").and_then(|entry| entry.parse(values::sha256));
    let fixtures = match table.find("fixtures").and_then(|entry| Some((entry.text()?, entry))) {
        None => PluginFixtures::Beside,
        Some((text, _)) if text.is_empty() => PluginFixtures::Off,
        Some((text, entry)) => PluginFixtures::Folder(entry.reading.origins.folder(&entry.key).join(&*text)),
    };
    let deadline = table.duration("deadline", DEADLINE, MILLISECOND..=seconds(10));
    let memory_bytes_max = table.bytes("memory_bytes_max", MEMORY_BYTES_MAX, 64 * KIB..=256 * MIB);
    let output_bytes_max = table.bytes("output_bytes_max", OUTPUT_BYTES_MAX, 1..=64 * MIB);
    table.end();
    Some(Arc::new(PluginSpec { name, path: path?, sha256, fixtures, deadline, memory_bytes_max, output_bytes_max }))
}
