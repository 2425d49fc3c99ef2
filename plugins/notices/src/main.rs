//! Writes, to standard output, whose code is in the components of the plugins that the arguments name, and the licences
//! that ask to be passed on with it. What is compiled in is what cargo says; a crate whose licence has no rule here is an
//! error, so that none gets in unseen.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, ExitCode};

use serde_json::Value;

const TARGET: &str = "wasm32-unknown-unknown";

/// Licences that one may choose, in the order in which they are chosen; and words by which a crate's file is known to be it.
const LICENCES: [(&str, &str); 3] = [
    ("MIT", "Permission is hereby granted, free of charge"),
    ("Zlib", "This software is provided 'as-is'"),
    ("Apache-2.0", "Apache License"),
];

const HEAD: &str = "\
Third-party code in Branchline's plugins

The components in this folder contain the code of the crates below, and of Rust's standard library (the Rust Project's
contributors; MIT or Apache-2.0). Where a crate offers a choice of licences, the one that is named here was chosen.
Written by `plugins/build` from what cargo compiles into each component; don't change it by hand.
";

/// The MIT licence below its copyright line, for crates whose package has no file of it.
const MIT: &str = "\
Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated documentation
files (the \"Software\"), to deal in the Software without restriction, including without limitation the rights to use, copy,
modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the Software
is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED \"AS IS\", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES
OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE
LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN
CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.";

/// A crate: its name and version.
type Crate = (String, String);

fn main() -> ExitCode {
    let plugins: Vec<_> = std::env::args().skip(1).collect();
    match write(&plugins) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(fault) => {
            eprintln!("notices: {fault}");
            ExitCode::FAILURE
        }
    }
}

fn write(plugins: &[String]) -> Result<String, String> {
    let metadata: Value = serde_json::from_str(&cargo(&["metadata", "--locked", "--format-version", "1"])?)
        .map_err(|fault| format!("cargo metadata: {fault}"))?;
    let packages: BTreeMap<Crate, &Value> = metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|it| ((text(it, "name"), text(it, "version")), it))
        .collect();

    let mut users: BTreeMap<Crate, BTreeSet<&str>> = BTreeMap::new();
    for plugin in plugins {
        for name in compiled_into(plugin)? {
            // Ours are under the licence of the repository.
            if packages.get(&name).is_some_and(|package| !package["source"].is_null()) {
                users.entry(name).or_default().insert(plugin);
            }
        }
    }

    let all = plugins.len();
    // Crates with the same text share it.
    let mut by_text: BTreeMap<(&str, String), Vec<String>> = BTreeMap::new();
    for (name, users) in &users {
        let package = packages[name];
        let (licence, text) = licence(package).map_err(|fault| format!("{} {}: {fault}", name.0, name.1))?;
        let within =
            if users.len() == all { "all".to_owned() } else { Vec::from_iter(users.iter().copied()).join(", ") };
        let line = format!("  {} {}  (in: {within})", name.0, name.1);
        by_text.entry((licence, text)).or_default().push(line);
    }
    let mut written = HEAD.to_owned();
    for ((licence, text), crates) in by_text {
        written += &format!("\n{}\n{licence}\n{}\n\n{text}\n", "-".repeat(100), crates.join("\n"));
    }
    Ok(written)
}

fn compiled_into(plugin: &str) -> Result<BTreeSet<Crate>, String> {
    let tree = cargo(&[
        "tree",
        "--locked",
        "--package",
        plugin,
        "--target",
        TARGET,
        "--edges",
        "normal,no-proc-macro",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ])?;
    let name = |line: &str| {
        let (name, rest) = line.split_once(" v")?;
        Some((name.to_owned(), rest.split(' ').next()?.to_owned()))
    };
    tree.lines()
        .filter(|line| !line.is_empty())
        .map(|line| name(line).ok_or(format!("cargo tree said `{line}`")))
        .collect()
}

/// The licence that is chosen, and its text.
fn licence(package: &Value) -> Result<(&'static str, String), String> {
    let expression = text(package, "license");
    let offered: Vec<_> = expression.split(" OR ").flat_map(|part| part.split('/')).map(str::trim).collect();
    let (licence, words) = LICENCES
        .into_iter()
        .find(|(name, _)| offered.contains(name))
        .ok_or(format!("its licence `{expression}` has no rule in plugins/notices"))?;
    if licence == "Apache-2.0" {
        return std::fs::read_to_string("../LICENSE-APACHE")
            .map(|text| (licence, tidy(&text)))
            .map_err(|fault| format!("LICENSE-APACHE: {fault}"));
    }
    let manifest = text(package, "manifest_path");
    let folder = Path::new(&manifest).parent().unwrap_or(Path::new("."));
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .map_err(|fault| format!("its sources are not there: {fault}"))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
            name.contains("licen") || name.contains("copying")
        })
        .collect();
    files.sort();
    // A line may be broken anywhere.
    let flat = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let own =
        files.iter().filter_map(|path| std::fs::read_to_string(path).ok()).find(|text| flat(text).contains(words));
    match own {
        Some(text) => Ok((licence, tidy(&text))),
        None if licence == "MIT" => Ok((licence, format!("Copyright (c) {}\n\n{MIT}", holders(package)))),
        None => Err(format!("its package has no text of its licence, {licence}")),
    }
}

/// The authors, without their addresses.
fn holders(package: &Value) -> String {
    let authors: Vec<_> = package["authors"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|author| Some(author.as_str()?.split('<').next()?.trim().to_owned()))
        .collect();
    if authors.is_empty() { format!("the authors of {}", text(package, "name")) } else { authors.join(", ") }
}

/// Without what differs between checkouts: spaces at line ends, and empty lines around it.
fn tidy(text: &str) -> String {
    text.trim_matches(['\u{feff}', '\n', '\r']).lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

fn text(package: &Value, key: &str) -> String {
    package[key].as_str().unwrap_or_default().to_owned()
}

fn cargo(arguments: &[&str]) -> Result<String, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
    let output = Command::new(cargo).args(arguments).output().map_err(|fault| format!("cargo: {fault}"))?;
    if !output.status.success() {
        return Err(format!("cargo {}: {}", arguments[0], String::from_utf8_lossy(&output.stderr).trim()));
    }
    String::from_utf8(output.stdout).map_err(|fault| fault.to_string())
}
