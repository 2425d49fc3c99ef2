//! The shape of a component, looked at over the whole file before the compiler sees a byte of it: how much there is to
//! compile, how deep it is nested, how many times its parts are to be instantiated. What is far beyond any plugin that
//! does its work is refused here, at the cost of reading the file once.

use wasmparser::{ComponentInstance, Encoding, Instance, Parser, Payload};

use super::engine::CORE_INSTANCES_MAX;
use super::error::Refusal;

/// Components and modules within one another: a plugin's module stands in it at 2, in one joined of several at 3.
const NESTING_MAX: u64 = 5;
/// Core modules in the file.
const MODULES_MAX: u64 = 64;
/// Component instances that are made of components within the file. Each level of nesting multiplies them.
const COMPONENT_INSTANCES_MAX: u64 = 32;
/// Functions with a body, over all modules. A Python interpreter has about 20,000.
const FUNCTIONS_MAX: u64 = 100_000;
/// The largest body of a function. The time and memory of the compiler grow faster than it; an interpreter's main loop
/// has about 100 KiB.
const BODY_BYTES_MAX: u64 = 1 << 20;
/// Imports, over the component and all modules within it.
const IMPORTS_MAX: u64 = 20_000;
/// Types, over the component and everything within it.
const TYPES_MAX: u64 = 50_000;
/// Memory that comes with the file.
const DATA_BYTES_MAX: u64 = 24 << 20;

/// What has been counted.
#[derive(Default)]
struct Shape {
    nesting: u64,
    modules: u64,
    core_instances: u64,
    component_instances: u64,
    functions: u64,
    imports: u64,
    types: u64,
    data_bytes: u64,
}

/// Refuses a component whose shape is beyond what is compiled.
pub(super) fn check(bytes: &[u8]) -> Result<(), Refusal> {
    let mut shape = Shape::default();
    for payload in Parser::new(0).parse_all(bytes) {
        shape.add(&payload.map_err(invalid)?)?;
    }
    Ok(())
}

impl Shape {
    /// Counts one part of the file. How many parts follow is what the file says, so sums are saturating.
    fn add(&mut self, payload: &Payload<'_>) -> Result<(), Refusal> {
        match payload {
            Payload::Version { encoding, .. } => {
                count(&mut self.nesting, 1, "components and modules within one another", NESTING_MAX)?;
                if *encoding == Encoding::Module {
                    count(&mut self.modules, 1, "modules", MODULES_MAX)?;
                }
            }
            Payload::End(_) => self.nesting = self.nesting.saturating_sub(1),
            Payload::InstanceSection(instances) => {
                for instance in instances.clone() {
                    if let Instance::Instantiate { .. } = instance.map_err(invalid)? {
                        count(&mut self.core_instances, 1, "instances of modules", u64::from(CORE_INSTANCES_MAX))?;
                    }
                }
            }
            Payload::ComponentInstanceSection(instances) => {
                for instance in instances.clone() {
                    if let ComponentInstance::Instantiate { .. } = instance.map_err(invalid)? {
                        let made = &mut self.component_instances;
                        count(made, 1, "instances of components", COMPONENT_INSTANCES_MAX)?;
                    }
                }
            }
            Payload::CodeSectionEntry(body) => {
                count(&mut self.functions, 1, "functions", FUNCTIONS_MAX)?;
                count(&mut 0, body.range().len() as u64, "bytes in one function", BODY_BYTES_MAX)?;
            }
            Payload::ImportSection(imports) => self.imports(imports.count())?,
            Payload::ComponentImportSection(imports) => self.imports(imports.count())?,
            Payload::TypeSection(types) => self.types(types.count())?,
            Payload::CoreTypeSection(types) => self.types(types.count())?,
            Payload::ComponentTypeSection(types) => self.types(types.count())?,
            Payload::DataSection(data) => {
                count(&mut self.data_bytes, data.range().len() as u64, "bytes of data", DATA_BYTES_MAX)?;
            }
            // Bounded by the file's size, and cheap to compile.
            _ => {}
        }
        Ok(())
    }

    fn imports(&mut self, more: u32) -> Result<(), Refusal> {
        count(&mut self.imports, u64::from(more), "imports", IMPORTS_MAX)
    }

    fn types(&mut self, more: u32) -> Result<(), Refusal> {
        count(&mut self.types, u64::from(more), "types", TYPES_MAX)
    }
}

fn count(sum: &mut u64, more: u64, what: &'static str, most: u64) -> Result<(), Refusal> {
    *sum = sum.saturating_add(more);
    if *sum > most {
        return Err(Refusal::Shape { what, found: *sum, most });
    }
    Ok(())
}

fn invalid(error: wasmparser::BinaryReaderError) -> Refusal {
    Refusal::Invalid(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(depth: usize) -> String {
        if depth == 0 { String::new() } else { format!("(component {})", nested(depth - 1)) }
    }

    #[test]
    fn what_is_far_beyond_a_plugin_is_refused_with_its_figure() {
        let functions = |count: u64, body: &str| {
            let functions = format!("(func {body})").repeat(usize::try_from(count).unwrap());
            format!("(component (core module {functions}))")
        };
        let many = |part: &str, count: u64| part.repeat(usize::try_from(count).unwrap());
        let core = u64::from(CORE_INSTANCES_MAX);
        for (text, what) in [
            (nested(6), "components and modules within one another: 6"),
            (format!("(component {})", many("(core module)", 65)), "modules: 65"),
            (
                format!("(component (core module $m) {})", many("(core instance (instantiate $m))", core + 1)),
                "instances of modules: 65",
            ),
            (
                format!("(component (component $c) {})", many("(instance (instantiate $c))", 33)),
                "instances of components: 33",
            ),
            (functions(FUNCTIONS_MAX + 1, ""), "functions: 100001"),
            (functions(1, &many("nop ", BODY_BYTES_MAX)), "bytes in one function: 1048578"),
            (
                format!(r#"(component (core module {}))"#, many(r#"(import "a" "b" (func))"#, IMPORTS_MAX + 1)),
                "imports: 20001",
            ),
            (format!("(component (core module {}))", many("(type (func))", TYPES_MAX + 1)), "types: 50001"),
            (
                format!(r#"(component (core module (memory 400) (data "{}")))"#, many("x", DATA_BYTES_MAX)),
                "bytes of data",
            ),
        ] {
            let error = check(&wat::parse_str(&text).unwrap()).unwrap_err().to_string();
            assert!(error.contains(what), "{what} is not in: {error}");
        }
    }

    #[test]
    fn ordinary_plugins_are_far_from_the_bounds() {
        for name in ["slack", "discord", "sendgrid"] {
            let path = format!("{}/plugins/{name}.wasm", env!("CARGO_MANIFEST_DIR"));
            check(&std::fs::read(path).unwrap()).unwrap();
        }
        for text in [nested(5), "(component (core module (func) (memory 1) (data \"x\")))".to_owned()] {
            check(&wat::parse_str(text).unwrap()).unwrap();
        }
    }

    #[test]
    fn a_count_that_the_file_only_claims_is_not_believed() {
        // A code section of 2^32 - 1 functions, with none.
        let claims = b"\0asm\x0d\0\x01\0\x01\x0f\0asm\x01\0\0\0\x0a\x05\xff\xff\xff\xff\x0f";
        assert!(matches!(check(claims), Err(Refusal::Invalid(_))));
    }
}
