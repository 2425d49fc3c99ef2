//! From a file to a component that may be called: size, digest, kind, imports, exports and resources are checked, and
//! each refusal says what to do about it.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use wasmparser::{ComponentTypeRef, Parser, Payload, TypeBounds};
use wasmtime::Engine;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, ComponentExportIndex, HasSelf, Linker};

use super::bindings::{self, PluginPre};
use super::cache::Cache;
use super::compiler::Compiler;
use super::engine::{MEMORIES_MAX, TABLE_ELEMENTS_MAX, TABLES_MAX};
use super::engines::{Engines, Instances};
use super::error::Refusal;
use super::imports::CallState;

/// The largest component that is read.
pub(super) const FILE_BYTES_MAX: usize = 32 << 20;
const PAGE_BYTES: u64 = 65_536;

/// A component that passed every check, ready to be instantiated. Plugins of the same bytes share it.
pub(super) struct Loaded {
    /// Instantiation with the imports resolved and the exports looked up.
    pub(super) instances: Instances,
    /// The optional export.
    pub(super) validate_config: Option<ComponentExportIndex>,
    /// Memory of one instance before it has run.
    pub(super) initial_memory_bytes: u64,
}

impl Loaded {
    /// Refuses a plugin whose memory is over its limit before it has run.
    pub(super) fn fits(&self, limit: usize) -> Result<(), Refusal> {
        if self.initial_memory_bytes > limit as u64 {
            return Err(Refusal::Memory { needed: self.initial_memory_bytes, limit });
        }
        Ok(())
    }
}

/// A plugin's file, read and pinned.
pub(super) struct Binary {
    pub(super) bytes: Vec<u8>,
    pub(super) digest: [u8; 32],
}

/// Reads the file at `path` and compares it with the digest that the config pins.
pub(super) fn read(path: &Path, pinned: Option<&str>) -> Result<Binary, Refusal> {
    // A pipe or a device would block or never end.
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(Refusal::NotAFile);
    }
    if metadata.len() > FILE_BYTES_MAX as u64 {
        return Err(Refusal::TooLarge);
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err(Refusal::TooLarge);
    }
    let digest: [u8; 32] = Sha256::digest(&bytes).into();
    if let Some(expected) = pinned {
        let actual = hex(&digest);
        if !actual.eq_ignore_ascii_case(expected) {
            return Err(Refusal::Digest { expected: expected.to_owned(), actual });
        }
    }
    check_kind(&bytes)?;
    check_imports(&bytes)?;
    super::shape::check(&bytes)?;
    Ok(Binary { bytes, digest })
}

/// Compiles a binary, or takes it from the cache, and checks what it needs and offers.
pub(super) fn component(
    engines: &Arc<Engines>,
    cache: &Cache,
    compiler: &Compiler,
    binary: &Binary,
) -> Result<Loaded, Refusal> {
    let (engine, linker) = engines.first();
    let component = cache.component(engine, compiler, &binary.bytes, &binary.digest)?;
    let initial_memory_bytes = check_resources(&component)?;
    let pre = linker.instantiate_pre(&component).map_err(|error| Refusal::ImportType(format!("{error:#}")))?;
    let pre = PluginPre::new(pre).map_err(|error| Refusal::Export(format!("{error:#}")))?;
    let validate_config = check_validate_config(&component)?;
    // Otherwise the first event pays for it.
    component.initialize_copy_on_write_image().map_err(|error| Refusal::Compile(format!("{error:#}")))?;
    Ok(Loaded { instances: Instances::new(engines, pre), validate_config, initial_memory_bytes })
}

/// The functions that plugins may import, and nothing else.
pub(super) fn linker(engine: &Engine) -> Result<Linker<CallState>, String> {
    let mut linker = Linker::new(engine);
    bindings::Plugin::add_to_linker::<CallState, HasSelf<CallState>>(&mut linker, |state| state)
        .map_err(|error| format!("{error:#}"))?;
    Ok(linker)
}

fn check_kind(bytes: &[u8]) -> Result<(), Refusal> {
    if Engine::detect_precompiled(bytes).is_some() {
        return Err(Refusal::Precompiled);
    }
    if Parser::is_component(bytes) {
        return Ok(());
    }
    if Parser::is_core_wasm(bytes) {
        return Err(Refusal::CoreModule);
    }
    let text = bytes.trim_ascii_start();
    if text.starts_with(b"(component") || text.starts_with(b"(module") || text.starts_with(b";;") {
        return Err(Refusal::WebAssemblyText);
    }
    Err(Refusal::NotWebAssembly)
}

/// Looks at the names of the component's own imports. This comes before the compiler, which is slow, sees a byte.
fn check_imports(bytes: &[u8]) -> Result<(), Refusal> {
    let invalid = |error: wasmparser::BinaryReaderError| Refusal::Invalid(error.to_string());
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(invalid)? {
            Payload::Version { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(imports) if depth == 1 => {
                for import in imports {
                    let import = import.map_err(invalid)?;
                    // A name for a type that is already known grants nothing; a world's `use` makes one.
                    if !matches!(import.ty, ComponentTypeRef::Type(TypeBounds::Eq(_))) {
                        check_import(import.name.name)?;
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn check_import(name: &str) -> Result<(), Refusal> {
    let (interface, version) = name.split_once('@').unwrap_or((name, ""));
    let advice = match interface {
        "branchline:plugin/host" | "branchline:plugin/types" if version == "0.1" || version.starts_with("0.1.") => {
            return Ok(());
        }
        interface if interface.starts_with("branchline:plugin/") => {
            "; this router offers branchline:plugin@0.1: build the plugin against wit/v0.1.0"
        }
        interface if interface.starts_with("wasi:") => {
            "; build without WASI: in Rust for the target wasm32-unknown-unknown, in JavaScript with `--stub-wasi`, in C without stdio"
        }
        _ => "; plugins get their event, their config, `now-ms`, `random` and `log`, and nothing else",
    };
    Err(Refusal::Import { import: super::text::tame(name, 200), advice })
}

/// Compares what the component needs with one slot of the pool; gives the bytes of its memory before it has run.
fn check_resources(component: &Component) -> Result<u64, Refusal> {
    let Some(needed) = component.resources_required() else {
        return Err(Refusal::Invalid("it imports a core module".to_owned()));
    };
    let limits = [
        ("memories", u64::from(needed.num_memories), u64::from(MEMORIES_MAX)),
        ("tables", u64::from(needed.num_tables), u64::from(TABLES_MAX)),
        ("elements in a table", needed.max_initial_table_size.unwrap_or(0), TABLE_ELEMENTS_MAX as u64),
    ];
    for (what, needed, most) in limits {
        if needed > most {
            return Err(Refusal::Resources { what, needed, most });
        }
    }
    Ok(needed.max_initial_memory_size.unwrap_or(0).saturating_mul(PAGE_BYTES))
}

fn check_validate_config(component: &Component) -> Result<Option<ComponentExportIndex>, Refusal> {
    const NAME: &str = "validate-config";
    let Some((item, index)) = component.get_export(None, NAME) else { return Ok(None) };
    let ComponentItem::ComponentFunc(function) = item else {
        return Err(Refusal::Export(format!("export `{NAME}` is not a function")));
    };
    function
        .typecheck::<(&str,), (Result<(), String>,)>(&component.component_type().instance_type())
        .map_err(|error| Refusal::Export(format!("type-checking export func `{NAME}`: {error:#}")))?;
    Ok(Some(index))
}

/// Bytes as hex digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_contract_may_be_imported() {
        for name in ["branchline:plugin/host@0.1.0", "branchline:plugin/types@0.1.0", "branchline:plugin/host@0.1.7"] {
            assert!(check_import(name).is_ok(), "{name}");
        }
        for (name, advice) in [
            ("branchline:plugin/host@0.2.0", "wit/v0.1.0"),
            ("branchline:plugin/host@0.10.0", "wit/v0.1.0"),
            ("branchline:plugin/secrets@0.1.0", "wit/v0.1.0"),
            ("branchline:plugin/host", "wit/v0.1.0"),
            ("wasi:cli/environment@0.2.0", "without WASI"),
            ("other:thing/it@1.0.0", "nothing else"),
            ("log", "nothing else"),
        ] {
            let text = check_import(name).unwrap_err().to_string();
            assert!(text.contains(name) && text.contains(advice), "{text}");
        }
    }

    #[test]
    fn files_that_are_no_components_are_told_apart() {
        for (bytes, part) in [
            (&b""[..], "not a WebAssembly file"),
            (b"hello", "not a WebAssembly file"),
            (b"\0asm\x01\0\0\0", "wasm-tools component new"),
            (b"  (component)", "WebAssembly text"),
        ] {
            let text = check_kind(bytes).unwrap_err().to_string();
            assert!(text.contains(part), "{text}");
        }
        assert!(check_kind(b"\0asm\x0d\0\x01\0").is_ok());
    }
}
