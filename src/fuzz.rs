//! Fuzzing of every parser, as plain tests: inputs are mutations of a saved corpus (`tests/corpus/TARGET/`), from a seed that is
//! printed and the same unless told. Each target runs for about two seconds; `BRANCHLINE_FUZZ_SECONDS=600 cargo test --lib fuzz` runs longer, and
//! `BRANCHLINE_FUZZ_SEED` chooses other inputs. An input that fails is printed; save it in the corpus with the repair.
//!
//! Own code rather than a library: what runs under stable Rust elsewhere makes inputs out of nothing, and of those no parser
//! of JSON gets past the first byte.

use std::path::Path;
use std::time::{Duration, Instant};

use fastrand::Rng;

/// How long a target runs unless the environment says otherwise.
const SECONDS: f64 = 2.0;
/// The same in every run, so that a change is blamed only for what it did; another with `BRANCHLINE_FUZZ_SEED`.
const SEED: u64 = 20_261_125;
/// Inputs grow no longer.
const BYTES_MAX: usize = 4096;

/// Pieces that formats are made of, and numbers at which they break.
const PIECES: [&[u8]; 40] = [
    b"\"",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\\",
    b"\\u0000",
    b"\\ud800",
    b"null",
    b"true",
    b"-",
    b"0",
    b"1e999",
    b"18446744073709551616",
    b"99999999999999999999999999",
    b".",
    b"..",
    b"*",
    b"**",
    b"\n",
    b"\r\n",
    b"\r\n\r\n",
    b"\0",
    b"\xff",
    b"\xc3\x28",
    b"\xef\xbb\xbf",
    b" ",
    b"=",
    b"'",
    b"(",
    b")",
    b"[[[[[[[[",
    b"))))))))",
    b"%00",
    b"#",
    b"@",
    b"\"id\":\"a\",",
    b"\xe2\x80\xae",
];

/// Shows the input when a check panics.
struct Shown<'a> {
    target: &'a str,
    input: &'a [u8],
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "fuzz {}: this input fails; save it in tests/corpus/{0}: {}",
                self.target,
                self.input.escape_ascii()
            );
        }
    }
}

/// Checks each input of the corpus, then mutations of them until the time is over.
pub(crate) fn fuzz(target: &str, mut check: impl FnMut(&[u8])) {
    let corpus = corpus(target);
    for input in &corpus {
        check_shown(target, input, &mut check);
    }
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<f64>().expect("a number"));
    let seconds = number("BRANCHLINE_FUZZ_SECONDS").unwrap_or(SECONDS);
    let seed = number("BRANCHLINE_FUZZ_SEED").map_or(SEED, |seed| seed as u64);
    println!("fuzz {target}: BRANCHLINE_FUZZ_SEED={seed}");
    let mut random = Rng::with_seed(seed);
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    let mut count = 0;
    while Instant::now() < end {
        let input = mutation(&corpus, &mut random);
        check_shown(target, &input, &mut check);
        count += 1;
    }
    println!("fuzz {target}: {count} inputs");
}

fn check_shown(target: &str, input: &[u8], check: &mut impl FnMut(&[u8])) {
    let shown = Shown { target, input };
    check(shown.input);
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(target);
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no corpus for {target}");
    files.into_iter().map(|file| std::fs::read(file).unwrap()).collect()
}

fn mutation(corpus: &[Vec<u8>], random: &mut Rng) -> Vec<u8> {
    let pick = |random: &mut Rng| corpus[random.usize(..corpus.len())].clone();
    let mut input = pick(random);
    for _ in 0..random.usize(1..6) {
        let place = random.usize(..=input.len());
        let end = random.usize(place..=input.len().min(place + 32));
        match random.u8(..8) {
            0 if place < input.len() => input[place] = random.u8(..),
            1 if place < input.len() => input[place] ^= 1 << random.u8(..8),
            2 => drop(input.splice(place..place, PIECES[random.usize(..PIECES.len())].iter().copied())),
            3 => drop(input.splice(place..end, PIECES[random.usize(..PIECES.len())].iter().copied())),
            4 => drop(input.drain(place..end)),
            5 => input.extend_from_within(place..end),
            6 => input.truncate(place),
            _ => {
                let other = pick(random);
                let from = random.usize(..=other.len());
                input.splice(place..end, other[from..].iter().copied());
            }
        }
        input.truncate(BYTES_MAX);
    }
    input
}

/// Reads texts and numbers out of an input, for what is made of several.
pub(crate) struct Parts<'a>(pub(crate) &'a [u8]);

impl Parts<'_> {
    /// The next byte; 0 at the end.
    pub(crate) fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().map_or((0, &[][..]), |(first, rest)| (*first, rest));
        self.0 = rest;
        first
    }

    /// The next line as text.
    pub(crate) fn line(&mut self) -> String {
        let end = self.0.iter().position(|byte| *byte == b'\n').unwrap_or(self.0.len());
        let line = String::from_utf8_lossy(&self.0[..end]).into_owned();
        self.0 = self.0.get(end + 1..).unwrap_or_default();
        line
    }
}
