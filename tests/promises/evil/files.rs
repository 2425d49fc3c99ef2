//! Files that are refused when they are loaded: `serve` says why and ends with exit code 78, at once and small.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{ALONE, MEMORY_BYTES_MAX, Row, compiling, print};
use crate::support::components::{Guest, RESULT, component_of_wit};
use crate::support::eventually;
use crate::support::router::RouterProcess;

/// Far more than a refusal may take on a machine that runs other tests; the compile bomb is the longest.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a file is made of.
enum File {
    Bytes(Vec<u8>),
    /// This many bytes, nearly all of them zeros.
    Sparse(Vec<u8>, u64),
    Link(&'static str),
}

struct Case {
    name: &'static str,
    file: File,
    /// What the refusal says.
    part: &'static str,
}

fn routes(folder: &Path) -> String {
    format!(
        r#"
[sandbox]
threads = 2
cache = ""
[endpoints.healthy]
url = "https://example.com/"
[plugins.evil]
path = "{}/evil.wasm"
[[routes]]
name = "all"
events = ["**"]
subscriptions = [{{ name = "evil", endpoint = "healthy", plugins = [{{ use = "evil" }}] }}]
"#,
        folder.display()
    )
}

/// A component of this text.
fn component(text: &str) -> File {
    File::Bytes(wat::parse_str(text).unwrap())
}

fn of_world(import: &str, wit: &str) -> File {
    File::Bytes(component_of_wit(&Guest::pass().importing(import).module(), wit, "w"))
}

/// A component that the router's own compiler has compiled.
fn precompiled() -> Vec<u8> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_branchline"))
        .arg("compile-plugin")
        .env("MIMALLOC_ARENA_RESERVE", "65536")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&Guest::pass().build()).unwrap();
    let answer = child.wait_with_output().unwrap().stdout;
    assert_eq!(answer[0], b'C');
    answer[1..].to_vec()
}

fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let mut add = |name, file, part| cases.push(Case { name, file, part });
    let good = Guest::pass().build();
    let bytes = |guest: Guest| File::Bytes(guest.build());

    let failed = "the check of the config failed: it ran past its deadline of 50 ms";
    add(
        "endless loop in validate-config",
        bytes(Guest::pass().validating("(loop $again (br $again)) (unreachable)")),
        failed,
    );
    let start = Guest::pass().refusing_configs("never").starting_with("(loop $again (br $again))");
    add("endless loop in start, seen by validate-config", bytes(start), failed);
    let bomb = Guest::pass().validating("(loop $again (drop (memory.grow (i32.const 16))) (br $again)) (unreachable)");
    add("memory bomb in validate-config", bytes(bomb), "the check of the config failed: it asked for");
    add("trap in validate-config", bytes(Guest::pass().validating("(unreachable)")), "unreachable");

    add("no file but nothing", File::Bytes(Vec::new()), "not a WebAssembly file");
    add("text", File::Bytes(Guest::pass().module().into_bytes()), "WebAssembly text");
    add("core module", File::Bytes(wat::parse_str(Guest::pass().module()).unwrap()), "a core WebAssembly module");
    add("machine code", File::Bytes(precompiled()), "already compiled to machine code");
    add("truncated", File::Bytes(good[..good.len() / 2].to_vec()), "not a valid component");
    let mut flipped = good.clone();
    flipped[9] ^= 0x10;
    add("bit-flipped", File::Bytes(flipped), "not a valid component");
    add("file of 100 MB", File::Sparse(good.clone(), 100_000_000), "larger than 33554432 bytes");
    add("endless file", File::Link("/dev/zero"), "not a regular file");

    let module = r#"(module (memory (export "memory") 1)
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 8))
        (func (export "handle") (param i32 i32) (result i32) (i32.const 0)))"#;
    let wit = "package a:b; world w { export handle: func(event: string) -> string; }";
    add("wrong world", File::Bytes(component_of_wit(module, wit, "w")), "type-checking");
    let empty = component_of_wit("(module)", "package a:b; world w { }", "w");
    add("world without handle", File::Bytes(empty), "`handle`");
    for (name, import, wit, part) in [
        (
            "newer world, 0.2.0",
            r#"(import "branchline:plugin/host@0.2.0" "log" (func))"#,
            "package branchline:plugin@0.2.0; interface host { log: func(); } world w { import host; }",
            "offers branchline:plugin@0.1",
        ),
        (
            "newer world, 9.0.0",
            r#"(import "branchline:plugin/host@9.0.0" "fetch" (func))"#,
            "package branchline:plugin@9.0.0; interface host { fetch: func(); } world w { import host; }",
            "offers branchline:plugin@0.1",
        ),
        (
            "import of WASI",
            r#"(import "wasi:cli/environment@0.2.0" "cwd" (func (result i32)))"#,
            "package wasi:cli@0.2.0; interface environment { cwd: func() -> u32; } world w { import environment; }",
            "build without WASI",
        ),
        (
            "import of an unknown function",
            r#"(import "$root" "get-secret" (func (result i32)))"#,
            "package a:b; world w { import get-secret: func() -> u32; }",
            "imports `get-secret`",
        ),
        (
            "unknown function in a known interface",
            r#"(import "branchline:plugin/host@0.1.0" "steal" (func))"#,
            "package branchline:plugin@0.1.0; interface host { steal: func(); } world w { import host; }",
            "an import is not what the contract",
        ),
    ] {
        add(name, of_world(import, wit), part);
    }
    let simd = Guest::new(format!("(drop (i8x16.splat (i32.const 1))) (i32.const {RESULT})"));
    add("instructions that are switched off", bytes(simd), "can't be compiled");

    let many = |part: &str, count: usize| part.repeat(count);
    let modules = |module: &str, count| {
        component(&format!("(component (core module $m {module}) {})", many("(core instance (instantiate $m))", count)))
    };
    add("five memories", modules("(memory 1)", 5), "contains 5 Wasm linear memories");
    add("nine tables", modules("(table 1 funcref)", 9), "contains 9 tables");
    add("sixty-five instances", modules("", 65), "instances of modules: 65");
    add("a table of a million", modules("(table 1000000 funcref)", 1), "1000000");
    add("starts with 1 GiB of memory", bytes(Guest::pass().with_pages(16_384)), "memory");

    add("compile bomb: dolls in dolls", component(&compiling::dolls()), "instances of components: 33");
    add(
        "compile bomb: a function of 2 MiB",
        File::Bytes(compiling::nested_loops(100_000, 200_000)),
        "bytes in one function",
    );
    add("compile bomb: 300 KiB of nested loops", File::Bytes(compiling::bomb()), "compiling needed more memory than");
    add(
        "compile bomb: 200,000 functions",
        component(&format!("(component (core module {}))", many("(func)", 200_000))),
        "functions: 100001",
    );
    cases
}

async fn run(case: Case) -> Row {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("evil.wasm");
    match case.file {
        File::Bytes(bytes) => std::fs::write(&path, bytes).unwrap(),
        File::Sparse(bytes, length) => {
            let mut file = std::fs::File::create(&path).unwrap();
            file.write_all(&bytes).unwrap();
            file.set_len(length).unwrap();
        }
        File::Link(target) => std::os::unix::fs::symlink(target, &path).unwrap(),
    }
    let mut router = RouterProcess::new("file:{folder}/data", &routes(folder.path()));
    let began = Instant::now();
    router.spawn();
    let mut memory_bytes = 0;
    let status = eventually(case.name, PATIENCE, async || {
        memory_bytes = memory_bytes.max(router.memory_peak().unwrap_or(0));
        router.exit()
    })
    .await;
    let took = began.elapsed();
    let said = router.log();
    assert_eq!(status.code(), Some(78), "{}: {said}", case.name);
    assert!(said.contains(case.part), "{}: `{}` is not in: {said}", case.name, case.part);
    assert!(said.contains("evil"), "{}: it does not say which: {said}", case.name);
    assert!(said.len() < 4_000, "{}: it says too much: {} bytes", case.name, said.len());
    assert!(memory_bytes <= MEMORY_BYTES_MAX, "{}: the router had {memory_bytes} bytes", case.name);
    Row { case: case.name, end: case.part.to_owned(), took, memory_bytes: Some(memory_bytes), others: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_evil_file_is_refused_with_its_reason() {
    let _alone = ALONE.lock().await;
    let mut rows = Vec::new();
    for case in cases() {
        rows.push(run(case).await);
    }
    print("evil when loaded", &rows);
}

/// The processes whose parent this is.
fn children_of(parent: u32) -> Vec<u32> {
    let processes =
        std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let is_child = |id: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        // After the name, which stands in brackets and may hold anything: the state and the parent.
        let mut rest = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace();
        rest.nth(1) == Some(parent.to_string().as_str())
    };
    processes.filter(is_child).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_that_is_killed_leaves_no_compiler_behind() {
    let _alone = ALONE.lock().await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("evil.wasm"), compiling::long_lives(5_000, 80_000)).unwrap();
    let mut router = RouterProcess::new("file:{folder}/data", &routes(folder.path()));
    router.spawn();
    let compiler = eventually("the compiler is started", PATIENCE, async || children_of(router.id()).first().copied());
    let compiler = compiler.await;
    // From then on it dies with its parent, which it asked for just before.
    let limits = format!("/proc/{compiler}/limits");
    eventually("the compiler limits itself", PATIENCE, async || {
        let limits = std::fs::read_to_string(&limits).expect("the compiler runs");
        let address_space = limits.lines().find(|line| line.starts_with("Max address space"))?.to_owned();
        address_space.contains("1073741824").then_some(())
    })
    .await;
    router.kill();
    let status = format!("/proc/{compiler}/stat");
    eventually("the compiler is gone", Duration::from_secs(5), async || {
        let stat = std::fs::read_to_string(&status).unwrap_or_default();
        // Gone, or dead and not yet collected by whoever adopted it.
        (stat.is_empty() || stat.contains(") Z ")).then_some(())
    })
    .await;
}
