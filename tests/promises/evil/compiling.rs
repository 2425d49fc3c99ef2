//! What can be done to the compiler. It runs in a child process, which is the real program.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use branchline::config::Sandbox;
use branchline::metrics::Metrics;
use branchline::plugin::{ChainEnd, Compiler, Error, PluginHost, Refusal};

use super::{ALONE, Latency, Row, is_unaffected, print};
use crate::plugin::{chain, event, spec};
use crate::support::components::Guest;

/// The compiler as `serve` has it.
fn child() -> Compiler {
    Compiler::Child { program: PathBuf::from(env!("CARGO_BIN_EXE_branchline")) }
}

fn host(compiler: Compiler) -> Arc<PluginHost> {
    let settings = Sandbox { threads: 2, cache: None };
    Arc::new(PluginHost::start_with(&settings, compiler, Metrics::default()).unwrap())
}

/// A number in LEB128.
fn leb128(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

fn section(id: u8, content: &[u8]) -> Vec<u8> {
    [&[id][..], &leb128(content.len()), content].concat()
}

/// A component with one function: `depth` loops in one another around a change of each of `locals` locals. It is small,
/// valid, and of `depth` times `locals` values that the compiler has to tell apart.
pub fn nested_loops(locals: usize, depth: usize) -> Vec<u8> {
    let mut body = [&[1][..], &leb128(locals), &[0x7f]].concat();
    body.extend([0x03, 0x40].repeat(depth));
    for local in 1..=locals {
        let index = leb128(local);
        // local.get, local.get 0, i32.add, local.set
        body.extend([&[0x20][..], &index, &[0x20, 0, 0x6a, 0x21], &index].concat());
    }
    // local.get 0, br_if 0, end
    body.extend([0x20, 0, 0x0d, 0, 0x0b].repeat(depth));
    body.push(0x0b);
    component_of_body(&body)
}

/// A component whose module has this one function, with one parameter.
fn component_of_body(body: &[u8]) -> Vec<u8> {
    let module = [
        b"\0asm\x01\0\0\0".to_vec(),
        section(1, &[1, 0x60, 1, 0x7f, 0]), // One type, (func (param i32)) …
        section(3, &[1, 0]),                // … of the one function …
        section(10, &[&[1][..], &leb128(body.len()), body].concat()), // … and its body.
    ]
    .concat();
    [b"\0asm\x0d\0\x01\0".to_vec(), section(1, &module)].concat()
}

/// A component with one function whose `locals` stay alive over `blocks` blocks: the compiler is busy for a long time
/// before its memory ends.
pub fn long_lives(locals: usize, blocks: usize) -> Vec<u8> {
    let mut body = [&[1][..], &leb128(locals), &[0x7f]].concat();
    for local in 1..=locals {
        // local.get 0, i32.const, i32.mul, local.set
        body.extend([&[0x20, 0, 0x41][..], &[(local % 60 + 2) as u8], &[0x6c, 0x21], &leb128(local)].concat());
    }
    // block, local.get 0, br_if 0, end
    body.extend([0x02, 0x40, 0x20, 0, 0x0d, 0, 0x0b].repeat(blocks));
    for local in 1..=locals {
        // local.get 0, local.get, i32.xor, local.set 0
        body.extend([&[0x20, 0, 0x20][..], &leb128(local), &[0x73, 0x21, 0]].concat());
    }
    body.push(0x0b);
    component_of_body(&body)
}

/// One that no limit on its shape stops.
pub fn bomb() -> Vec<u8> {
    nested_loops(20_000, 20_000)
}

/// Components that instantiate another one many times each, which does the same: 1,000 × 20 × 10 modules in a few bytes.
pub fn dolls() -> String {
    let inner = format!("(component $c (core module $m) {})", "(core instance (instantiate $m))".repeat(10));
    let middle = format!("(component $b {inner} {})", "(instance (instantiate $c))".repeat(20));
    format!("(component {middle} {})", "(instance (instantiate $b))".repeat(1_000))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_runs_the_same_whether_it_was_compiled_in_a_child_or_here() {
    let folder = tempfile::tempdir().unwrap();
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/plugins/slack.wasm"));
    let mut times = Vec::new();
    for compiler in [Compiler::InProcess, child()] {
        // The cache tells whether it is the same: it was written by the one, and is read by the other.
        let settings = Sandbox { threads: 2, cache: Some(folder.path().join(format!("{}", times.len()))) };
        let host = PluginHost::start_with(&settings, compiler.clone(), Metrics::default()).unwrap();
        let began = Instant::now();
        host.load(&spec("slack", path.clone())).await.unwrap();
        times.push(began.elapsed());
        assert_eq!(host.cache_counts().compiled, 1);
        // A hit needs no compiler at all.
        let none = Compiler::Child { program: "/no/such/program".into() };
        let again = PluginHost::start_with(&settings, none, Metrics::default()).unwrap();
        let began = Instant::now();
        again.load(&spec("slack", path.clone())).await.unwrap();
        println!("{compiler:?}: compiled in {:?}, from the cache in {:?}", times.last().unwrap(), began.elapsed());
        assert_eq!((again.cache_counts().hits, again.cache_counts().compiled), (1, 0));
    }
    // After the layout's number and the authentication code, whose key each folder has of its own.
    let code = |number: u32| {
        let path = folder.path().join(number.to_string());
        let artifact = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
        let artifact = artifact.into_iter().find(|path| path.extension().is_some_and(|it| it == "cwasm")).unwrap();
        std::fs::read(artifact).unwrap()[20 + 32..].to_vec()
    };
    assert!(code(0) == code(1), "the machine code differs");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compile_bomb_costs_neither_the_process_nor_those_who_deliver_meanwhile() {
    let _alone = ALONE.lock().await;
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        spec(name, path)
    };
    let host = host(child());
    let healthy = host.load(&write("healthy", &Guest::pass().build())).await.unwrap();
    let chain = chain(&[&healthy]);
    let calls_until = async |stop: &AtomicBool, most: usize| {
        let mut samples = Vec::new();
        while samples.len() < most && !stop.load(Ordering::Acquire) {
            let began = Instant::now();
            let end = host.run(&chain, event("{}")).await.end;
            assert!(matches!(end, ChainEnd::Event { .. }), "{end:?}");
            samples.push(began.elapsed());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Latency::of(samples)
    };
    let without = calls_until(&AtomicBool::new(false), 500).await;

    let bomb = write("bomb", &bomb());
    let over = Arc::new(AtomicBool::new(false));
    let began = Instant::now();
    let loading = tokio::spawn({
        let (host, over) = (Arc::clone(&host), Arc::clone(&over));
        async move {
            let loaded = host.load(&bomb).await;
            over.store(true, Ordering::Release);
            (loaded, began.elapsed())
        }
    });
    let with = calls_until(&over, usize::MAX).await;
    let (refused, took) = loading.await.unwrap();
    let Err(Error::Refused { refusal: refusal @ Refusal::CompileMemory { .. }, .. }) = refused else {
        panic!("it was not refused for its memory: {refused:?}");
    };
    print(
        "evil when compiled",
        &[Row {
            case: "300 KiB of nested loops",
            end: refusal.to_string(),
            took,
            memory_bytes: None,
            others: Some([without, with]),
        }],
    );
    assert!(is_unaffected([without, with]), "the others were delayed");
    // And the next one is compiled as if nothing had been.
    host.load(&write("next", &Guest::drop("next").build())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_with_flipped_bits_is_refused_or_runs_and_never_takes_the_process_down() {
    let _alone = ALONE.lock().await;
    let folder = tempfile::tempdir().unwrap();
    let host = host(child());
    let good = Guest::replace(&[(5, "{}")]).build();
    let (mut refused, mut ran, mut failed) = (0, 0, 0);
    // A step that shares no factor with the length of common structures.
    for bit in (0..good.len() * 8).step_by((good.len() * 8 / 40) | 1) {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let path = folder.path().join("flipped.wasm");
        std::fs::write(&path, &bytes).unwrap();
        let mut spec = spec("flipped", path);
        spec.deadline = Duration::from_millis(50);
        match host.load(&spec).await {
            Err(Error::Refused { refusal, .. }) => {
                assert!(!matches!(refusal, Refusal::CompilerFailed(_)), "bit {bit}: {refusal}");
                refused += 1;
            }
            Err(error) => panic!("bit {bit}: {error}"),
            Ok(plugin) => match host.run(&chain(&[&plugin]), event("{}")).await.end {
                ChainEnd::Fault { .. } => failed += 1,
                _ => ran += 1,
            },
        }
    }
    println!(
        "of {} files with a flipped bit {refused} were refused, {failed} failed, {ran} ran",
        refused + failed + ran
    );
    assert!(refused > 0);
}
