//! The files of a new plugin, by language.

use crate::cli::plugin::build::CONTRACT;
use crate::cli::plugin::language::Language;

/// The examples' name, for which the new one's is put.
pub const EXAMPLE_NAME: &str = "order-alert";

/// A file's path in the folder, and what is in it.
pub type File = (&'static str, &'static [u8]);

/// A file of an example, under the name that it has there.
macro_rules! example {
    ($language:literal, $path:literal) => {
        ($path, include_bytes!(concat!("../../../../plugins/examples/", $language, "/", $path)) as &[u8])
    };
}

/// A file of the SDK.
macro_rules! sdk {
    ($path:literal) => {
        (concat!("sdk/", $path), include_bytes!(concat!("../../../../plugins/sdk/", $path)) as &[u8])
    };
}

/// What every language has.
const COMMON: [File; 6] = [
    example!("common", "event.json"),
    example!("common", "config.json"),
    example!("common", "fixtures/large-order.json"),
    example!("common", "fixtures/small-order.json"),
    example!("common", "fixtures/config-without-at-least.json"),
    (".gitignore", include_bytes!("../../../../plugins/examples/.gitignore")),
];

/// The contract. Rust has it in the SDK.
const WIT: File = ("wit/plugin.wit", CONTRACT.as_bytes());

/// The SDK's sources are copied, so that a plugin builds without this repository and years later.
const RUST: &[File] = &[
    example!("rust", "README.md"),
    example!("rust", "Cargo.toml"),
    example!("rust", "src/lib.rs"),
    sdk!("Cargo.toml"),
    sdk!("README.md"),
    sdk!("src/address.rs"),
    sdk!("src/arena.rs"),
    sdk!("src/bindings.rs"),
    sdk!("src/by_type.rs"),
    sdk!("src/check.rs"),
    sdk!("src/component.rs"),
    sdk!("src/entry.rs"),
    sdk!("src/error.rs"),
    sdk!("src/event.rs"),
    sdk!("src/form.rs"),
    sdk!("src/host.rs"),
    sdk!("src/lib.rs"),
    sdk!("src/mail.rs"),
    sdk!("src/phrases.rs"),
    sdk!("src/template.rs"),
    sdk!("src/testing.rs"),
    sdk!("src/text.rs"),
    sdk!("src/value.rs"),
    sdk!("src/verdict.rs"),
];

const JAVASCRIPT: &[File] =
    &[WIT, example!("js", "README.md"), example!("js", "package.json"), example!("js", "plugin.js")];

const TYPESCRIPT: &[File] = &[
    WIT,
    example!("ts", "README.md"),
    example!("ts", "package.json"),
    example!("ts", "tsconfig.json"),
    example!("ts", "branchline.d.ts"),
    example!("ts", "plugin.ts"),
];

const PYTHON: &[File] = &[WIT, example!("python", "README.md"), example!("python", "plugin.py")];

const C: &[File] = &[
    WIT,
    example!("c", "README.md"),
    example!("c", "plugin.c"),
    example!("c", "bindings/branchline.c"),
    example!("c", "bindings/branchline.h"),
    example!("c", "bindings/branchline_component_type.o"),
];

/// The files of a new plugin.
pub fn of(language: Language) -> impl Iterator<Item = File> {
    let own = match language {
        Language::Rust => RUST,
        Language::JavaScript => JAVASCRIPT,
        Language::TypeScript => TYPESCRIPT,
        Language::Python => PYTHON,
        Language::C => C,
    };
    COMMON.into_iter().chain(own.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn a_new_rust_plugin_has_every_source_of_the_sdk() {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins/sdk/src");
        for entry in std::fs::read_dir(sources).unwrap() {
            let name = format!("sdk/src/{}", entry.unwrap().file_name().to_str().unwrap());
            assert!(of(Language::Rust).any(|(path, _)| path == name), "{name} is missing");
        }
    }

    #[test]
    fn every_language_has_its_entry_and_says_how_it_is_built() {
        for language in Language::ALL {
            for path in [language.entry(), "README.md", "event.json"] {
                assert!(of(language).any(|(name, _)| name == path), "{language:?}: {path}");
            }
        }
    }
}
