//! `componentize CORE.wasm COMPONENT.wasm`: makes a component of the core module that cargo built,
//! and prints what it imports, one name per line. It refuses a component that imports anything but
//! `branchline:plugin/…`, since the router has nothing else to give: no WASI, no network, no clock.

use std::process::ExitCode;

use wasmparser::{ComponentTypeRef, Parser, Payload};
use wit_component::ComponentEncoder;

const ALLOWED: &str = "branchline:plugin/";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [core, component] = arguments.as_slice() else {
        eprintln!("usage: componentize CORE.wasm COMPONENT.wasm");
        return ExitCode::from(2);
    };
    match componentize(core, component) {
        Ok(imports) => {
            for import in imports {
                println!("{import}");
            }
            ExitCode::SUCCESS
        }
        Err(fault) => {
            eprintln!("componentize: {fault}");
            ExitCode::FAILURE
        }
    }
}

fn componentize(core: &str, component: &str) -> Result<Vec<String>, String> {
    let module = std::fs::read(core).map_err(|fault| format!("cannot read `{core}`: {fault}"))?;
    let bytes = ComponentEncoder::default()
        .module(&module)
        .and_then(|encoder| encoder.validate(true).encode())
        .map_err(|fault| format!("`{core}` does not make a component: {fault:#}"))?;
    let imports = imports(&bytes)?;
    if let Some(import) = imports.iter().find(|name| !name.starts_with(ALLOWED)) {
        return Err(format!("`{core}` imports `{import}`, which the router does not offer"));
    }
    std::fs::write(component, &bytes).map_err(|fault| format!("cannot write `{component}`: {fault}"))?;
    Ok(imports)
}

/// The names the outermost component imports; those of the modules inside it are wired already.
fn imports(component: &[u8]) -> Result<Vec<String>, String> {
    let mut names = Vec::new();
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(component) {
        match payload.map_err(|fault| format!("the component does not parse: {fault}"))? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    let import = import.map_err(|fault| fault.to_string())?;
                    // A type is only a name for a shape, here those the contract's world uses.
                    if !matches!(import.ty, ComponentTypeRef::Type(_)) {
                        names.push(import.name.name.to_owned());
                    }
                }
            }
            _ => {}
        }
    }
    Ok(names)
}
