//! What is refused when a plugin is loaded, and what the refusal says.

use branchline::plugin::Error;

use super::{Bench, spec};
use crate::support::components::{Guest, RESULT, component_of_wit};

/// The text of the refusal.
async fn refusal(bench: &Bench, bytes: &[u8]) -> String {
    match bench.load_bytes("guest", bytes).await {
        Err(error @ Error::Refused { .. }) => error.to_string(),
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_component_is_refused_with_the_way_out() {
    let bench = Bench::new();
    let component = Guest::pass().build();
    let mut garbage = component.clone();
    garbage[60..].iter_mut().for_each(|byte| *byte ^= 0x5a);
    for (bytes, part) in [
        (wat::parse_str(Guest::pass().module()).unwrap(), "wasm-tools component new"),
        (Guest::pass().module().into_bytes(), "WebAssembly text"),
        (Vec::new(), "not a WebAssembly file"),
        (b"#!/bin/sh\n".to_vec(), "not a WebAssembly file"),
        (component[..component.len() / 2].to_vec(), "not a valid component"),
        (component[..component.len() - 3].to_vec(), "not a valid component"),
        (garbage, "not a valid component"),
        (b"\0asm\x0d\0\x01\0".to_vec(), "handle"),
    ] {
        let text = refusal(&bench, &bytes).await;
        assert!(text.contains(part), "{part} is not in: {text}");
        assert!(text.contains("plugin `guest`") && text.contains("guest.wasm"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn machine_code_is_never_loaded_from_outside() {
    let cache = tempfile::tempdir().unwrap();
    let bench = Bench::with(2, Some(cache.path()));
    bench.load("guest", &Guest::pass()).await;
    let artifact = super::caching::only_artifact(cache.path());
    let bytes = std::fs::read(artifact).unwrap();
    // As the cache holds it, and the machine code alone.
    assert!(refusal(&bench, &bytes).await.contains("not a WebAssembly file"));
    let elf = bytes.windows(4).position(|window| window == b"\x7fELF").unwrap();
    assert!(refusal(&bench, &bytes[elf..]).await.contains("already compiled"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_may_import_nothing_but_the_contract() {
    let bench = Bench::new();
    let module = |import: &str| Guest::pass().importing(import).module();
    for (wit, import, parts) in [
        (
            "package wasi:cli@0.2.0; interface environment { cwd: func() -> u32; } world w { import environment; }",
            r#"(import "wasi:cli/environment@0.2.0" "cwd" (func (result i32)))"#,
            ["`wasi:cli/environment@0.2.0`", "build without WASI"],
        ),
        (
            "package branchline:plugin@0.2.0; interface host { log: func(); } world w { import host; }",
            r#"(import "branchline:plugin/host@0.2.0" "log" (func))"#,
            ["`branchline:plugin/host@0.2.0`", "wit/v0.1.0"],
        ),
        (
            "package branchline:plugin@0.1.0; interface host { log: func(line: u32); } world w { import host; }",
            r#"(import "branchline:plugin/host@0.1.0" "log" (func (param i32)))"#,
            ["an import is not what the contract", "log"],
        ),
        (
            "package a:b; world w { import get-secret: func() -> u32; }",
            r#"(import "$root" "get-secret" (func (result i32)))"#,
            ["`get-secret`", "nothing else"],
        ),
    ] {
        let text = refusal(&bench, &component_of_wit(&module(import), wit, "w")).await;
        assert!(parts.iter().all(|part| text.contains(part)), "{parts:?} are not in: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_exports_what_the_contract_asks_for() {
    let bench = Bench::new();
    let handle = "package a:b; world w { export handle: func(event: string) -> string; }";
    let module = r#"(module (memory (export "memory") 1)
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 8))
        (func (export "handle") (param i32 i32) (result i32) (i32.const 0)))"#;
    let text = refusal(&bench, &component_of_wit(module, handle, "w")).await;
    assert!(text.contains("`handle`") && text.contains("type-checking"), "{text}");

    let text = refusal(&bench, &component_of_wit("(module)", "package a:b; world w { }", "w")).await;
    assert!(text.contains("`handle`"), "{text}");

    let world = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/wit/v0.1.0/plugin.wit"))
        .replace("validate-config: func(config: string) -> result<_, string>", "validate-config: func() -> u32");
    let module = Guest::pass().module();
    let module = format!(
        r#"{} (func (export "validate-config") (result i32) (i32.const 0)))"#,
        module.strip_suffix(')').unwrap()
    );
    let text = refusal(&bench, &component_of_wit(&module, &world, "plugin-with-config")).await;
    assert!(text.contains("`validate-config`"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_over_a_limit_is_refused_before_it_runs() {
    let bench = Bench::new();
    // Padding in a custom section, so that nothing but the size is wrong.
    let mut large = Guest::pass().build();
    let padding = vec![0; 32 << 20];
    large.push(0);
    let length = u32::try_from(padding.len() + 2).unwrap();
    large.extend([length as u8 | 0x80, (length >> 7) as u8 | 0x80, (length >> 14) as u8 | 0x80, (length >> 21) as u8]);
    large.extend([1, b'x']);
    large.extend(padding);
    assert!(refusal(&bench, &large).await.contains("larger than 33554432 bytes"));

    let mut limited = bench.spec("guest", &Guest::pass().with_pages(17).build());
    limited.memory_bytes_max = 1 << 20;
    let text = bench.host.load(&limited).await.unwrap_err().to_string();
    assert!(text.contains("starts with 1114112 bytes") && text.contains("memory_bytes_max"), "{text}");

    let five_gigabytes = Guest::pass().with_pages(65_535).build();
    let text = refusal(&bench, &five_gigabytes).await;
    assert!(text.contains("memory"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_digest_must_be_the_files() {
    let bench = Bench::new();
    let mut pinned = bench.spec("guest", &Guest::pass().build());
    pinned.sha256 = Some("0".repeat(64));
    let text = bench.host.load(&pinned).await.unwrap_err().to_string();
    assert!(text.contains("sha256") && text.contains(&"0".repeat(64)), "{text}");

    let plugin = bench.load("guest", &Guest::pass()).await;
    pinned.sha256 = Some(plugin.sha256().to_uppercase());
    assert_eq!(bench.host.load(&pinned).await.unwrap().sha256(), plugin.sha256());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_is_no_file_is_refused() {
    let bench = Bench::new();
    let folder = tempfile::tempdir().unwrap();
    let text = bench.host.load(&spec("guest", folder.path().to_owned())).await.unwrap_err().to_string();
    assert!(text.contains("not a regular file"), "{text}");
    let text = bench.host.load(&spec("guest", folder.path().join("none.wasm"))).await.unwrap_err().to_string();
    assert!(text.contains("can't read"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn proposals_that_plugins_do_not_need_are_off() {
    let bench = Bench::new();
    for (body, what) in [
        ("(drop (i8x16.splat (i32.const 1)))", "SIMD"),
        ("(drop (i32.atomic.load (i32.const 0)))", "threads"),
        ("(return_call $tail)", "tail calls"),
    ] {
        let guest =
            Guest::new(format!("{body} (i32.const {RESULT})")).with_function("(func $tail (result i32) (i32.const 0))");
        let text = refusal(&bench, &guest.build()).await;
        assert!(text.contains("can't be compiled"), "{what}: {text}");
    }
}
