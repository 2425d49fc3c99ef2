//! What must hold before a plugin is used, at start and at a reload: its fixtures, run in the router's own sandbox. Says
//! which do not hold, and never what is in them.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Error;
use super::error::Refusal;
use super::fixture::Fixture;
use super::host::{Plugin, PluginHost};
use crate::config::{PluginFixtures, PluginSpec};

/// Fixtures of one plugin; more would make a reload take long.
const FIXTURES_MAX: usize = 1_000;
/// Fixtures that do not hold before the rest is left alone: each may take a deadline's time.
const FAILED_MAX: usize = 5;
/// The folder's name where nothing else is said.
const FIXTURES: &str = "fixtures";

impl PluginHost {
    /// Runs the plugin's fixtures, if it has any, and refuses it if one does not hold.
    pub async fn rehearse(&self, plugin: &Arc<Plugin>, spec: &PluginSpec) -> Result<(), Error> {
        let refused = |refusal| Error::Refused { plugin: Arc::clone(&spec.name), path: spec.path.clone(), refusal };
        let folder = match &spec.fixtures {
            PluginFixtures::Beside => beside(&spec.path),
            PluginFixtures::Folder(folder) => Some(folder.clone()),
            PluginFixtures::Off => None,
        };
        let Some(folder) = folder else { return Ok(()) };
        let unreadable = |text| refused(Refusal::Fixtures(text));
        let paths = files(&folder).map_err(unreadable)?;
        if paths.len() > FIXTURES_MAX {
            let text = format!("`{}` has {} fixtures, at most {FIXTURES_MAX} are run", folder.display(), paths.len());
            return Err(unreadable(text));
        }
        let (mut failed, mut texts) = (0, String::new());
        for path in &paths {
            let Err(text) = self.rehearse_one(plugin, path).await else { continue };
            failed += 1;
            // Writing to a text does not fail.
            let _ = write!(texts, "{}{text}", if failed > 1 { "; " } else { "" });
            if failed == FAILED_MAX {
                break;
            }
        }
        if failed == 0 {
            return Ok(());
        }
        Err(refused(Refusal::Fixtures(format!(
            "not all of its {} fixtures hold: {texts}; `branchline plugin test {} --fixtures {}` shows more",
            paths.len(),
            spec.path.display(),
            folder.display()
        ))))
    }

    async fn rehearse_one(&self, plugin: &Arc<Plugin>, path: &Path) -> Result<(), String> {
        let name = path.file_stem().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let read = {
            let path = path.to_owned();
            tokio::task::spawn_blocking(move || Fixture::read(&path)).await
        };
        let fixture = read.map_err(|error| error.to_string()).flatten().map_err(|text| format!("`{name}`: {text}"))?;
        let given = fixture.run(self, plugin).await.given;
        if fixture.holds(&given) {
            return Ok(());
        }
        let came = given.word();
        Err(match fixture.expects() {
            Some(expected) if expected == came => format!("`{name}`: another `{came}` came than must"),
            Some(expected) => format!("`{name}`: `{expected}` must come, and `{came}` came"),
            None => format!("`{name}` does not say what must come"),
        })
    }
}

/// Where a component's fixtures are, if it has any: `NAME/fixtures` beside `NAME.wasm`, and `fixtures` beside the
/// `plugin.wasm` that `branchline plugin build` writes.
pub fn beside(component: &Path) -> Option<PathBuf> {
    let named = component.with_extension("").join(FIXTURES);
    if named.is_dir() {
        return Some(named);
    }
    let own = component.file_name().is_some_and(|name| name == "plugin.wasm");
    own.then(|| component.with_file_name(FIXTURES)).filter(|folder| folder.is_dir())
}

/// The fixtures of a folder, in order; there is at least one.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let unreadable = |error| format!("can't read the fixtures in `{}`: {error}", folder.display());
    let entries = std::fs::read_dir(folder).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
    let mut paths: Vec<_> = entries
        .map_err(unreadable)?
        .into_iter()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    if paths.is_empty() {
        return Err(format!("there are no fixtures in `{}`", folder.display()));
    }
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixtures_are_found_by_the_components_name_or_beside_what_build_wrote() {
        let folder = tempfile::tempdir().unwrap();
        let make = |name: &str| std::fs::create_dir_all(folder.path().join(name)).unwrap();
        let found = |component: &str| {
            let found = beside(&folder.path().join(component))?;
            Some(found.strip_prefix(folder.path()).unwrap().to_str().unwrap().to_owned())
        };
        assert_eq!(found("slack.wasm"), None);
        make("slack/fixtures");
        make("alert/fixtures");
        make("fixtures");
        assert_eq!(found("slack.wasm").as_deref(), Some("slack/fixtures"));
        assert_eq!(found("alert/plugin.wasm").as_deref(), Some("alert/fixtures"));
        assert_eq!(found("other.wasm"), None, "a folder that may belong to another component");
    }
}
