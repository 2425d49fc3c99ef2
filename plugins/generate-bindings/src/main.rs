//! Writes `sdk/src/bindings.rs` from `wit/`. The bindings are committed, so that who builds a plugin
//! need not compile the generator, which costs as much time as everything else together.
//! Run it in `plugins/` when the contract changes: `cargo run -p generate-bindings`.
//! Its test fails when the committed file is not what it would write.

use std::path::{Path, PathBuf};

use wit_bindgen_core::wit_parser::Resolve;
use wit_bindgen_core::{Files, WorldGenerator};
use wit_bindgen_rust::Opts;

const HEADER: &str = "\
//! The contract `branchline:plugin@0.1.0` in Rust: the world `plugin-with-config`.
//! Written by `cargo run -p generate-bindings` from `wit/v0.1.0`; change it there, not here.
";

fn main() {
    let path = committed();
    std::fs::write(&path, generate()).expect("`sdk/src/bindings.rs` can be written");
    println!("wrote {}", path.display());
}

fn committed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../sdk/src/bindings.rs")
}

fn generate() -> String {
    let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit/v0.1.0");
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(&wit).expect("the contract in `wit/v0.1.0` parses");
    let world = resolve
        .select_world(&[package], Some("plugin-with-config"))
        .expect("the contract has the world `plugin-with-config`");

    let mut files = Files::default();
    let options = Opts {
        format: true,
        generate_all: true,
        pub_export_macro: true,
        export_macro_name: Some("export".to_owned()),
        // The macro is used in the plugin's crate, where the bindings are the SDK's.
        default_bindings_module: Some("::branchline_plugin::bindings".to_owned()),
        runtime_path: Some("::wit_bindgen::rt".to_owned()),
        ..Opts::default()
    };
    options.build().generate(&mut resolve, world, &mut files).expect("the contract has bindings");
    let (_, source) = files.iter().next().expect("one file is generated");
    let source = std::str::from_utf8(source).expect("generated Rust is text");
    format!("{HEADER}{source}")
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_committed_bindings_are_those_of_the_contract() {
        let committed = std::fs::read_to_string(super::committed()).expect("the file exists");
        assert!(committed == super::generate(), "run `cargo run -p generate-bindings`");
    }
}
