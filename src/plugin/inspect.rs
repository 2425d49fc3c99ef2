//! What a file says about itself, without running it: what it imports and exports, and what it was built with. And the
//! last step of a build, from what a compiler gives to a component.

use wasmparser::{ComponentTypeRef, KnownCustom, Parser, Payload};
use wit_component::ComponentEncoder;

use super::Refusal;
use super::text::tame;

/// Lines of a kind that are kept; a component has a handful.
const LINES_MAX: usize = 64;
/// The longest name that is kept.
const NAME_BYTES_MAX: usize = 200;

/// A component, as its file describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspection {
    /// The world of the contract that its exports make it one of, with the version that it was built against.
    pub world: Option<String>,
    /// What it imports of the host; names of types alone are left out.
    pub imports: Vec<String>,
    /// What it exports.
    pub exports: Vec<String>,
    /// What it was built with: `language: Rust`, `processed-by: rustc 1.95.0`.
    pub producers: Vec<String>,
}

/// Reads a component's own description. It is not judged; loading does that.
pub fn inspect(component: &[u8]) -> Result<Inspection, Refusal> {
    let invalid = |error: wasmparser::BinaryReaderError| Refusal::Invalid(error.to_string());
    let mut found = Inspection::default();
    let mut version = None;
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(component) {
        match payload.map_err(invalid)? {
            Payload::Version { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(imports) if depth == 1 => {
                for import in imports {
                    let import = import.map_err(invalid)?;
                    if let Some((_, of)) = import.name.name.split_once("branchline:plugin/types@") {
                        version = Some(tame(of, NAME_BYTES_MAX));
                    }
                    if !matches!(import.ty, ComponentTypeRef::Type(_)) {
                        add(&mut found.imports, import.name.name);
                    }
                }
            }
            Payload::ComponentExportSection(exports) if depth == 1 => {
                for export in exports {
                    add(&mut found.exports, export.map_err(invalid)?.name.name);
                }
            }
            Payload::CustomSection(section) => {
                if let KnownCustom::Producers(fields) = section.as_known() {
                    // It is a note, so one that can't be read is no fault of the component's.
                    for field in fields.into_iter().flatten() {
                        for value in field.values.into_iter().flatten() {
                            let line = format!("{}: {} {}", field.name, value.name, value.version);
                            add(&mut found.producers, line.trim_end());
                        }
                    }
                }
            }
            _ => {}
        }
    }
    let has = |name: &str| found.exports.iter().any(|export| export == name);
    let world = match (has("handle"), has("validate-config")) {
        (true, true) => Some("plugin-with-config"),
        (true, false) => Some("plugin"),
        (false, _) => None,
    };
    if let (Some(world), Some(version)) = (world, version) {
        found.world = Some(format!("branchline:plugin/{world}@{version}"));
    }
    Ok(found)
}

/// Adds a line that is not there yet.
fn add(lines: &mut Vec<String>, line: &str) {
    let line = tame(line, NAME_BYTES_MAX);
    if lines.len() < LINES_MAX && !lines.contains(&line) {
        lines.push(line);
    }
}

/// Makes a component of the core module that a compiler gave, which holds the contract's types in a section of its own.
/// The error is a sentence for the author.
pub fn componentize(module: &[u8]) -> Result<Vec<u8>, String> {
    ComponentEncoder::default()
        .module(module)
        .and_then(|encoder| encoder.validate(true).encode())
        .map_err(|error| tame(&format!("{error:#}"), 2000))
}
