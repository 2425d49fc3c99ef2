//! The real program as an operator runs it: arguments in, exit code and texts out.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use super::router::KEY;
use super::secrets::{of_every_test, private_keys, shows_none};

/// What a command printed, and how it ended.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// The lines of standard output as JSON, one object each.
    pub fn json_lines(&self) -> Vec<serde_json::Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{self:?}"))).collect()
    }

    /// Fails when it shows a secret of every test, or a private key of a folder that an argument names a file of.
    fn shows_no_secret(&self, arguments: &[String]) {
        let folders = arguments.iter().map(Path::new).filter(|path| path.is_file()).filter_map(Path::parent);
        let keys: Vec<_> = folders.flat_map(private_keys).collect();
        for text in [&self.stdout, &self.stderr] {
            let secrets = of_every_test().into_iter().chain(keys.iter().map(String::as_str));
            shows_none(&format!("`branchline {}`", arguments.join(" ")), text, secrets);
        }
    }

    /// Standard output as one JSON value.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|_| panic!("{self:?}"))
    }
}

/// Runs `branchline` where it is started in this folder, and waits for it: for commands that need nothing of the test.
pub fn branchline_in(folder: &Path, arguments: &[&str]) -> Ended {
    let mut program = Command::new(env!("CARGO_BIN_EXE_branchline"));
    program.args(arguments).current_dir(folder).env_remove("BRANCHLINE_CONFIG").env("TEST_KEY", KEY);
    let output = program.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ended { code: output.status.code().unwrap(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// Runs `branchline` with these arguments and this standard input, away from the test's own threads.
pub async fn branchline(arguments: &[&str], input: &str) -> Ended {
    let (arguments, input): (Vec<_>, _) = (arguments.iter().map(|a| (*a).to_owned()).collect(), input.to_owned());
    let run = tokio::task::spawn_blocking(move || {
        let mut child = Command::new(env!("CARGO_BIN_EXE_branchline"))
            .args(&arguments)
            .env("TEST_KEY", KEY)
            .env("TEST_SECRET", super::SECRET)
            .env_remove("NO_COLOR")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // A command that ends early does not read all of it.
        let writing = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
        let output = child.wait_with_output().unwrap();
        writing.join().unwrap();
        let ended = Ended {
            code: output.status.code().expect("it was not killed"),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        };
        ended.shows_no_secret(&arguments);
        ended
    });
    run.await.unwrap()
}
