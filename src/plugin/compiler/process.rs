//! The compiler as a child process, seen by its parent: started with nothing but three pipes, given the component, bounded
//! in time and in what it may answer, and killed when it is over. However it ends, the end has a name.

use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{ANSWER_CODE, ANSWER_MEMORY, ANSWER_REFUSED, TEXT_BYTES_MAX, refused};
use crate::plugin::error::Refusal;
use crate::plugin::text::tame;

/// What one compilation may use.
pub(super) struct Limits {
    /// From start to end.
    pub(super) wall: Duration,
    /// On all cores together.
    pub(super) processor: Duration,
    /// Address space. Compiling 17 MB of ordinary functions took half of it.
    pub(super) memory_bytes: u64,
    /// Machine code, which the parent has to hold.
    pub(super) code_bytes: u64,
}

/// Cranelift takes about a second of one core for a megabyte of WebAssembly, and the largest plugins known, interpreters
/// with their libraries, have 12 to 18 MB. A machine may be half as fast as that.
pub(super) const LIMITS: Limits = Limits {
    wall: Duration::from_secs(60),
    processor: Duration::from_secs(60),
    memory_bytes: 1 << 30,
    code_bytes: 256 << 20,
};

/// The child's threads. Each has memory of its own, so a machine with many cores would use its limit up with them.
const THREADS: &str = "4";
/// The allocator reserves address space in pieces of this size. Its own choice, 1 GiB, would be all that there is.
const ARENA_KIBIBYTES: &str = "65536";
/// How often a child that has closed its pipes is asked whether it has ended.
const END_POLL: Duration = Duration::from_millis(1);
/// How much of what the child says about its own failure is kept.
const COMPLAINT_BYTES_MAX: u64 = 16 << 10;
/// What Rust's allocator says last.
const ALLOCATION_FAILED: &str = "memory allocation of";

/// What came out of one of the child's pipes, once it was closed.
enum Stream {
    Answer(io::Result<Vec<u8>>),
    Complaint(String),
}

/// Runs `command` on a component; gives the machine code that it answers with.
pub(super) fn compile(mut command: Command, binary: &[u8], limits: &Limits) -> Result<Vec<u8>, Refusal> {
    command
        .env_clear()
        .env("RAYON_NUM_THREADS", THREADS)
        .env("MIMALLOC_ARENA_RESERVE", ARENA_KIBIBYTES)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let failed = |what: &str, error: io::Error| Refusal::CompilerFailed(format!("{what}: {error}"));
    let started = Instant::now();
    let mut child = Running(command.spawn().map_err(|error| failed("it can't be started", error))?);
    let end = talk(&mut child, binary, limits, started + limits.wall);
    let end = end.map_err(|error| failed("it can't be spoken to", error))?;
    tracing::info!(
        duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        "a plugin's compiler ended"
    );
    judge(end, limits)
}

/// How the child ended.
struct End {
    /// `None` when it was killed because its time was over.
    status: Option<ExitStatus>,
    /// Everything it wrote, or what was wrong with reading it.
    answer: io::Result<Vec<u8>>,
    complaint: String,
}

/// Gives the child the component and takes what it says, until it has ended or `deadline` has come.
fn talk(child: &mut Running, binary: &[u8], limits: &Limits, deadline: Instant) -> io::Result<End> {
    let (Some(mut stdin), Some(stdout), Some(stderr)) =
        (child.0.stdin.take(), child.0.stdout.take(), child.0.stderr.take())
    else {
        return Err(io::Error::other("it has no pipes"));
    };
    let (sender, streams) = mpsc::sync_channel(2);
    let answers = sender.clone();
    thread::scope(|scope| {
        let named = || thread::Builder::new().name("plugin-compiler".to_owned());
        // A child that ends early does not read all of it. Its end says why.
        let spawned = named().spawn_scoped(scope, move || {
            // Closed at its end.
            let _ = stdin.write_all(binary);
        });
        let spawned =
            spawned.and(named().spawn_scoped(scope, move || read_answer(stdout, limits.code_bytes, &answers)));
        let spawned = spawned.and(named().spawn_scoped(scope, move || read_complaint(stderr, &sender)));
        let mut end = End { status: None, answer: Err(io::ErrorKind::UnexpectedEof.into()), complaint: String::new() };
        let mut timed_out = false;
        if spawned.is_ok() {
            for _ in 0..2 {
                match streams.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                    Ok(Stream::Answer(answer)) => {
                        let is_over = answer.is_err();
                        end.answer = answer;
                        if is_over {
                            break;
                        }
                    }
                    Ok(Stream::Complaint(complaint)) => end.complaint = complaint,
                    Err(RecvTimeoutError::Timeout) => {
                        timed_out = true;
                        break;
                    }
                    Err(RecvTimeoutError::Disconnected) => break,
                }
            }
        }
        // A program may close its pipes a moment before it ends, so an answer that is whole is waited out.
        let ended = if timed_out || end.answer.is_err() { None } else { child.ended_by(deadline)? };
        // The threads above end with the pipes.
        let status = child.end()?;
        spawned?;
        timed_out |= ended.is_none() && end.answer.is_ok();
        end.status = (!timed_out).then_some(status);
        Ok(end)
    })
}

fn read_answer(mut stdout: impl Read, code_bytes: u64, answers: &SyncSender<Stream>) {
    let mut answer = Vec::new();
    let read = stdout.by_ref().take(code_bytes + 2).read_to_end(&mut answer).and_then(|length| {
        if length as u64 > code_bytes + 1 { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(answer) }
    });
    // The receiver is gone when the time is over.
    let _ = answers.send(Stream::Answer(read));
}

fn read_complaint(mut stderr: impl Read, complaints: &SyncSender<Stream>) {
    let mut complaint = Vec::new();
    let read = stderr.by_ref().take(COMPLAINT_BYTES_MAX).read_to_end(&mut complaint);
    // The rest is read and dropped, so that a child that complains without end is not stopped by a full pipe.
    let _ = read.and_then(|_| io::copy(&mut stderr, &mut io::sink()));
    let _ = complaints.send(Stream::Complaint(String::from_utf8_lossy(&complaint).into_owned()));
}

/// What the end of a compilation means.
fn judge(end: End, limits: &Limits) -> Result<Vec<u8>, Refusal> {
    let Some(status) = end.status else {
        return Err(Refusal::CompileTime { seconds: limits.wall.as_secs(), of: "" });
    };
    let out_of_memory = || Refusal::CompileMemory { limit: limits.memory_bytes };
    match end.answer {
        Ok(mut answer) if status.success() => match answer.first() {
            Some(&ANSWER_CODE) => {
                answer.remove(0);
                Ok(answer)
            }
            Some(&ANSWER_REFUSED) => Err(refused(&String::from_utf8_lossy(&answer[1..]))),
            Some(&ANSWER_MEMORY) => Err(out_of_memory()),
            Some(_) | None => Err(Refusal::CompilerFailed("it gave no answer".to_owned())),
        },
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
            Err(Refusal::CompileOutput { limit: limits.code_bytes })
        }
        Ok(_) | Err(_) if status.signal() == Some(Signal::XCPU.as_raw()) => {
            Err(Refusal::CompileTime { seconds: limits.processor.as_secs(), of: " of processor time" })
        }
        Ok(_) | Err(_) if end.complaint.contains(ALLOCATION_FAILED) => Err(out_of_memory()),
        Ok(_) | Err(_) => {
            let line = end.complaint.lines().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
            Err(Refusal::CompilerFailed(format!("{status}: {}", tame(line, TEXT_BYTES_MAX))))
        }
    }
}

/// A child that is not left behind.
struct Running(Child);

impl Running {
    /// Its own end, where it comes by itself until `deadline`.
    fn ended_by(&mut self, deadline: Instant) -> io::Result<Option<ExitStatus>> {
        loop {
            let status = self.0.try_wait()?;
            if status.is_some() || Instant::now() >= deadline {
                return Ok(status);
            }
            thread::sleep(END_POLL);
        }
    }

    /// Kills the child where it has not ended, and gives its end. A child that has ended keeps the end that it had.
    fn end(&mut self) -> io::Result<ExitStatus> {
        let _ = self.0.kill();
        self.0.wait()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Limits = Limits {
        wall: Duration::from_secs(20),
        processor: Duration::from_secs(1),
        memory_bytes: 7 << 20,
        code_bytes: 1000,
    };

    /// What becomes of a component whose compiler is this shell script.
    fn run(script: &str, limits: &Limits) -> Result<Vec<u8>, String> {
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(script);
        compile(command, b"component", limits).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn the_answer_is_the_machine_code() {
        assert_eq!(run("printf C; cat", &BOUNDS).unwrap(), b"component");
        assert_eq!(run("printf C; exec head -c 1000 /dev/zero", &BOUNDS).unwrap(), [0; 1000]);
        assert_eq!(run("printf C; cat; exec >&- 2>&-; sleep 0.1", &BOUNDS).unwrap(), b"component");
    }

    #[test]
    fn every_bad_end_has_a_name() {
        for (script, parts) in [
            ("printf 'Rfunction\\n7'", ["can't be compiled", "function\\n7"]),
            ("printf M", ["needed more memory", "7340032"]),
            ("echo memory allocation of 12 bytes failed >&2; kill -ABRT $$", ["needed more memory", "7340032"]),
            ("kill -XCPU $$", ["took longer than 1 s", "processor time"]),
            ("ulimit -S -t 1; while :; do :; done", ["took longer than 1 s", "processor time"]),
            (
                "echo >&2; echo 'thread x overflowed\u{7} its stack' >&2; kill -ABRT $$",
                ["the compiler failed", "\\u{7} its stack"],
            ),
            ("kill -SEGV $$", ["the compiler failed", "signal: 11"]),
            ("kill -KILL $$", ["the compiler failed", "signal: 9"]),
            ("printf C; exit 101", ["the compiler failed", "101"]),
            ("exit 0", ["the compiler failed", "no answer"]),
            ("printf garbage", ["the compiler failed", "no answer"]),
            ("cat /dev/zero", ["more than 1000 bytes", "machine code"]),
            ("head -c 5000000 /dev/zero >&2; exit 3", ["the compiler failed", "exit status: 3"]),
            ("exec 0<&-; exit 4", ["the compiler failed", "exit status: 4"]),
        ] {
            let text = run(script, &BOUNDS).unwrap_err();
            assert!(parts.iter().all(|part| text.contains(part)), "{script}: {parts:?} are not in: {text}");
        }
        let missing = compile(Command::new("/no/such/program"), b"", &BOUNDS).unwrap_err().to_string();
        assert!(missing.contains("can't be started"), "{missing}");
    }

    #[test]
    fn a_compiler_that_hangs_is_killed_when_its_time_is_over() {
        let limits = Limits { wall: Duration::from_secs(1), ..BOUNDS };
        // One that says nothing, one that has answered but does not end, one that talks for ever.
        for script in
            ["exec sleep 100", "printf C; exec sleep 100", "exec cat /dev/zero >&2", "exec >&- 2>&-; sleep 100"]
        {
            let started = Instant::now();
            let text = run(script, &limits).unwrap_err();
            assert!(text.contains("took longer than 1 s") && !text.contains("processor"), "{script}: {text}");
            assert!(started.elapsed() < Duration::from_secs(10), "{script}: {:?}", started.elapsed());
        }
    }

    #[test]
    fn a_component_that_is_not_read_does_not_stop_the_parent() {
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg("exec sleep 100");
        let limits = Limits { wall: Duration::from_millis(300), ..BOUNDS };
        assert!(matches!(compile(command, &vec![0; 8 << 20], &limits), Err(Refusal::CompileTime { .. })));
    }

    #[test]
    fn the_compiler_inherits_nothing_that_this_process_has() {
        let ours = tempfile::NamedTempFile::new().unwrap();
        let name = ours.path().file_name().unwrap().to_str().unwrap();
        let script = "printf C; env | grep -vE '^(PWD|_|SHLVL|OLDPWD)=' | sort; pwd; ls -l /proc/self/fd";
        let said = String::from_utf8(run(script, &Limits { code_bytes: 10_000, ..BOUNDS }).unwrap()).unwrap();
        assert!(said.starts_with("MIMALLOC_ARENA_RESERVE=65536\nRAYON_NUM_THREADS=4\n/\n"), "{said}");
        assert!(said.contains("pipe:") && !said.contains(name), "{said}");
        assert!(!said.contains("socket:"), "{said}");
    }
}
