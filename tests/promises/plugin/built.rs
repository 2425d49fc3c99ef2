//! The shipped plugins run their fixtures in the router's own sandbox. The components are taken from the folder that
//! `BRANCHLINE_PLUGINS_BUILT` names, or from `plugins/`; the fixtures from `plugins/`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use branchline::plugin::{Fixture, rehearsal};

use super::{Bench, spec};

#[tokio::test(flavor = "multi_thread")]
async fn shipped_plugins_give_what_their_fixtures_say() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins");
    let built = std::env::var_os("BRANCHLINE_PLUGINS_BUILT").map_or_else(|| sources.clone(), PathBuf::from);
    let manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(sources.join("manifest.json")).unwrap()).unwrap();
    let shipped: BTreeSet<_> = manifest["plugins"].as_object().unwrap().keys().cloned().collect();
    // A plugin that is not in the manifest would be shipped without being checked.
    let with_fixtures: BTreeSet<_> = std::fs::read_dir(&sources)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().join("fixtures").is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    assert_eq!(shipped, with_fixtures);

    let bench = Bench::new();
    let mut faults = Vec::new();
    for name in &shipped {
        let plugin = bench.host.load(&spec(name, built.join(format!("{name}.wasm")))).await.unwrap();
        for path in rehearsal::files(&sources.join(name).join("fixtures")).unwrap() {
            let fixture = Fixture::read(&path).unwrap_or_else(|fault| panic!("{}: {fault}", path.display()));
            let given = fixture.run(&bench.host, &plugin).await.given;
            if !fixture.holds(&given) {
                let expected = fixture.expected.unwrap_or_default();
                let given = given.describe();
                faults.push(format!("{}: expected\n{expected:#}\nbut the plugin gave\n{given:#}", path.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
}
