//! The JSON Schema of the config, by which editors complete and check it: `schema.json`, written by hand, because a key's
//! meaning is code in the reader. The tests compare it with every key that the reader asks for.

/// The schema, draft 7, which most editors know.
pub const SCHEMA: &str = include_str!("schema.json");

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};

    use serde_json::{Map, Value};

    use super::super::environment::Environment;
    use super::super::excerpt::SourceFile;
    use super::super::faults::nearest;
    use super::super::load::{Merged, merge_files, read};
    use super::super::reader::Reading;
    use super::*;

    const EXAMPLE: &str = include_str!("../../config/example.toml");

    fn schema() -> Value {
        serde_json::from_str(SCHEMA).unwrap()
    }

    fn parsed(text: &str) -> Map<String, Value> {
        merge_files(Path::new(""), vec![SourceFile::new(PathBuf::from("app.toml"), text.to_owned())]).unwrap().values
    }

    /// Every key that the reader asks for while it reads the example, as a path: `*` for a number.
    fn known() -> BTreeSet<Vec<String>> {
        // The store's URL may be a secret, too; and some tables are commented out in the example.
        let text = EXAMPLE.replacen("url = \"file:data\"", "url = { env = \"STORE_URL\" }", 1)
            + "\n[ingest.tls]\ncert = \"c\"\nkey = \"k\"\n[admin.tls]\ncert = \"c\"\nkey = \"k\"\n[endpoints.ledger.tls]\ninsecure = true\n[store.redis.wait]\nfsync = true\n[store.redis.tls]\nca = \"c\"\n\
               [store.redis.sentinel_password]\nenv = \"SENTINEL_PASSWORD\"\n";
        let file = SourceFile::new(PathBuf::from("app.toml"), text);
        let Merged { origins, values, .. } = merge_files(Path::new(""), vec![file]).unwrap();
        let environment = Environment::default().with_stand_ins();
        let reading = Reading::new(&origins, &environment);
        read(reading.root(&values));
        let parts = |key: &String| {
            let spaced = key.replace('[', ".[");
            spaced.split('.').map(|part| if part.starts_with('[') { "*".to_owned() } else { part.to_owned() }).collect()
        };
        reading.known().iter().map(parts).collect()
    }

    /// A slip of the pen in any key of any table has the key that was meant as its suggestion.
    #[test]
    fn every_key_is_found_behind_a_slip_of_the_pen() {
        let known: BTreeSet<_> = known().into_iter().filter_map(|path| path.last().cloned()).collect();
        assert!(known.len() > 60, "{known:?}");
        for key in known.iter().filter(|key| key.len() >= 3) {
            let (start, end) = key.split_at(key.len() - 1);
            let (first, second) = (&key[..1], &key[1..2]);
            let others = known.iter().map(String::as_str);
            for slip in [
                start.to_owned(),
                format!("{key}s"),
                format!("{start}{end}{end}"),
                format!("{second}{first}{}", &key[2..]),
            ] {
                let distance = |name: &str| strsim::damerau_levenshtein(&slip, name);
                let found = nearest(&slip, others.clone());
                let found = found.unwrap_or_else(|| panic!("nothing is found behind `{slip}`"));
                assert!(distance(&found) <= distance(key), "`{found}` is found behind `{slip}`");
            }
        }
    }

    /// The schema behind references, and all of a choice.
    fn choices<'s>(root: &'s Value, node: &'s Value) -> Vec<&'s Value> {
        let mut found = vec![node];
        if let Some(name) = node["$ref"].as_str() {
            let name = name.strip_prefix("#/definitions/").unwrap();
            found.extend(choices(root, &root["definitions"][name]));
        }
        for key in ["anyOf", "allOf"] {
            found.extend(node[key].as_array().into_iter().flatten().flat_map(|choice| choices(root, choice)));
        }
        found
    }

    /// Every key of the schema, as a path: `*` for a name and for a number.
    fn described(root: &Value, node: &Value, path: &[String], found: &mut BTreeSet<Vec<String>>) {
        let below = |part: &str| [path, &[part.to_owned()]].concat();
        for choice in choices(root, node) {
            for (name, property) in choice["properties"].as_object().into_iter().flatten() {
                found.insert(below(name));
                described(root, property, &below(name), found);
            }
            for any in [&choice["additionalProperties"], &choice["items"]].into_iter().filter(|any| any.is_object()) {
                described(root, any, &below("*"), found);
            }
        }
    }

    fn fits(path: &[String], pattern: &[String]) -> bool {
        path.len() == pattern.len() && path.iter().zip(pattern).all(|(part, own)| own == "*" || own == part)
    }

    #[test]
    fn the_schema_has_the_keys_that_the_reader_knows_and_no_others() {
        let (known, root) = (known(), schema());
        let mut described_keys = BTreeSet::new();
        described(&root, &root, &[], &mut described_keys);
        for key in &known {
            assert!(
                described_keys.iter().any(|own| fits(key, own)),
                "add `{}` to src/config/schema.json",
                key.join(".")
            );
        }
        for own in &described_keys {
            // One thing or a list of them: the example shows one of both.
            let (above, name) = own.split_at(own.len() - 1);
            let listed = [above, &["*".to_owned()], name].concat();
            let alone = [above.strip_suffix(&["*".to_owned()]).unwrap_or(above), name].concat();
            assert!(
                known.iter().any(|key| [own, &listed, &alone].iter().any(|own| fits(key, own))),
                "the reader does not ask for `{}` of src/config/schema.json, or config/example.toml does not show its table",
                own.join(".")
            );
        }
    }

    /// Why a value does not fit; `None` when it does. Knows the words that the schema uses and no others.
    fn misfit(root: &Value, node: &Value, value: &Value, at: &str) -> Option<String> {
        let fail = |why: &str| Some(format!("{at}: {why}"));
        for (word, rule) in node.as_object().unwrap() {
            let fault = match word.as_str() {
                "description" | "default" | "$schema" | "title" | "definitions" | "pattern" | "maxProperties" => None,
                "minimum" | "maximum" | "minLength" | "maxLength" | "minItems" | "maxItems" | "propertyNames" => None,
                "$ref" => {
                    let name = rule.as_str().unwrap().strip_prefix("#/definitions/").unwrap();
                    misfit(root, &root["definitions"][name], value, at)
                }
                "allOf" => rule.as_array().unwrap().iter().find_map(|one| misfit(root, one, value, at)),
                "anyOf" => {
                    let all = rule.as_array().unwrap();
                    let faults: Vec<_> = all.iter().map_while(|one| misfit(root, one, value, at)).collect();
                    (faults.len() == all.len()).then(|| faults.join("; "))
                }
                "const" => (rule != value).then(|| format!("{at}: is not {rule}")),
                "enum" if rule.as_array().unwrap().contains(value) => None,
                "enum" => fail("is none of the choices"),
                "type" => {
                    let fits = match rule.as_str().unwrap() {
                        "object" => value.is_object(),
                        "array" => value.is_array(),
                        "string" => value.is_string(),
                        "integer" => value.is_u64(),
                        "boolean" => value.is_boolean(),
                        other => panic!("{other}"),
                    };
                    if fits { None } else { fail(&format!("is not of the type {rule}")) }
                }
                "required" => rule.as_array().unwrap().iter().find_map(|name| {
                    let missing = value.is_object() && value.get(name.as_str().unwrap()).is_none();
                    if missing { fail(&format!("has no {name}")) } else { None }
                }),
                "properties" | "additionalProperties" => {
                    value.as_object().into_iter().flatten().find_map(|(name, own)| {
                        let (at, property) = (format!("{at}.{name}"), &node["properties"][name]);
                        match (property, &node["additionalProperties"]) {
                            (Value::Object(_), _) if word == "properties" => misfit(root, property, own, &at),
                            (Value::Object(_), _) => None,
                            (_, Value::Bool(false)) => Some(format!("{at}: unknown key")),
                            (_, any @ Value::Object(_)) => misfit(root, any, own, &at),
                            _ => None,
                        }
                    })
                }
                "items" => value.as_array().into_iter().flatten().find_map(|own| misfit(root, rule, own, at)),
                other => panic!("the test does not know `{other}`"),
            };
            if fault.is_some() {
                return fault;
            }
        }
        None
    }

    #[test]
    fn the_configs_of_the_repository_fit_the_schema() {
        let root = schema();
        for text in [EXAMPLE, include_str!("../../config/demo.toml")] {
            assert_eq!(misfit(&root, &root, &Value::Object(parsed(text)), ""), None);
        }
    }

    #[test]
    fn what_the_reader_does_not_know_does_not_fit() {
        let root = schema();
        let cases = include_str!("../../tests/promises/config/mistakes.txt").split("--- ").skip(1);
        let mut unknown = 0;
        for case in cases {
            let (name, case) = case.split_once('\n').unwrap();
            let (text, expected) = case.split_once("===\n").unwrap();
            // A key that is there and unknown, or one that must be there and is not.
            if expected.contains("unknown key") || expected.contains("` has no `") {
                unknown += 1;
                assert!(misfit(&root, &root, &Value::Object(parsed(text)), "").is_some(), "{name}");
            }
        }
        assert!(unknown >= 10, "{unknown}");
        for (text, part) in [
            ("[ingest]\nlisten = 1\n", ".ingest.listen: is not of the type"),
            ("[log]\nformat = \"xml\"\n", ".log.format: is none of the choices"),
            ("[endpoints.x]\nurl = { envv = \"X\" }\n", "unknown key"),
        ] {
            let fault = misfit(&root, &root, &Value::Object(parsed(text)), "").unwrap();
            assert!(fault.contains(part), "{fault}");
        }
    }
}
