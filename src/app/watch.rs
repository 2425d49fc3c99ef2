//! Notices that the config's files or its plugins have changed, and has them read anew. Looks now and then instead of being told:
//! that works on every file system, also where a folder is swapped as a whole, and costs a look at a few dozen files.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio_util::sync::CancellationToken;

use super::Reloader;

/// Between two looks. What has changed is read when it looks the same twice, so that no half-written file is.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What tells one state of the files from another.
type Look = Vec<(PathBuf, Option<(SystemTime, u64)>)>;

/// Reloads after each change, until `stop`. `seen` is how the files looked before the config in use was read.
pub(super) async fn watch(reloader: Arc<Reloader>, seen: Look, stop: CancellationToken) {
    let (mut loaded, mut last) = (seen.clone(), seen);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        let (path, plugins) = reloader.files();
        let Ok(now) = tokio::task::spawn_blocking(move || look(&path, &plugins)).await else { continue };
        if now != loaded && now == last {
            // What the files look like now is what is read, or something newer, which the next look finds.
            loaded.clone_from(&now);
            tracing::info!("the config's files have changed");
            // Both ends are logged by the reloader.
            let _ = reloader.reload("admin.watch").await;
        }
        last = now;
    }
}

/// How the config's files and the plugins' look. What is not there is a look, too.
pub(super) fn look(config: &Path, plugins: &[PathBuf]) -> Look {
    let mut paths = plugins.to_vec();
    if config.is_dir() {
        let entries = std::fs::read_dir(config).into_iter().flatten().flatten().map(|entry| entry.path());
        paths.extend(entries.filter(|path| path.extension().is_some_and(|extension| extension == "toml")));
    } else {
        paths.push(config.to_owned());
    }
    paths.sort();
    let look = |path: PathBuf| {
        let metadata = std::fs::metadata(&path).ok();
        let seen = metadata.and_then(|metadata| Some((metadata.modified().ok()?, metadata.len())));
        (path, seen)
    };
    paths.into_iter().map(look).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_any_file_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("a.toml", "1");
        write("p.wasm", "1");
        let plugins = [folder.path().join("p.wasm")];
        let seen = || look(folder.path(), &plugins);
        let first = seen();
        assert_eq!(first, seen(), "nothing has changed");
        write("notes.txt", "1");
        assert_eq!(first, seen(), "not one of the files");
        for change in ["a.toml", "p.wasm", "b.toml"] {
            let before = seen();
            write(change, "22 of another length");
            assert_ne!(before, seen(), "{change}");
        }
        std::fs::remove_file(folder.path().join("b.toml")).unwrap();
        assert_eq!(seen().len(), first.len());
    }
}
