//! The README's walkthrough of one bad day: a shell runs every command as it stands there, in a copy of the folder, and what is
//! printed is compared with what stands below it. Times, durations, sizes and digests are masked.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::eventually;
use crate::support::router::{RouterProcess, free_port};

const PATIENCE: Duration = Duration::from_secs(60);
/// What the shell says when a command has ended.
const ENDED: &str = "---ended---";
/// Words after a number that differs from run to run.
const UNITS: [&str; 6] = ["ns", "µs", "ms", "s", "MiB", "instructions"];

/// A command of the README, and what stands below it.
struct Step {
    command: String,
    printed: Vec<String>,
}

/// The commands of a section: lines of its console blocks that begin with `$ `.
fn steps(readme: &str, heading: &str) -> Vec<Step> {
    let section = readme.split_once(heading).expect("the README has the section").1;
    let section = section.split("\n## ").next().unwrap();
    let mut steps: Vec<Step> = Vec::new();
    let blocks = section.split("```console\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    for line in blocks.flat_map(str::lines) {
        match line.strip_prefix("$ ") {
            Some(command) => steps.push(Step { command: command.to_owned(), printed: vec![] }),
            None => steps.last_mut().expect("a block begins with a command").printed.push(line.to_owned()),
        }
    }
    steps
}

/// A line with its words apart by one blank, and what differs from run to run masked.
fn masked(line: &str) -> String {
    let words: Vec<_> = line.split_whitespace().collect();
    let bare = |word: &'_ str| word.trim_matches(['(', ')', ',', ':']).to_owned();
    let mask = |(place, word): (usize, &&str)| {
        let (core, next) = (bare(word), words.get(place + 1).map(|next| bare(next)).unwrap_or_default());
        let tail = core.rsplit('@').next().unwrap_or_default();
        let is_number = core.starts_with(|c: char| c.is_ascii_digit());
        if is_number && core.len() > 19 && core.contains('T') && core.ends_with('Z') {
            word.replace(&core, "TIME")
        } else if is_number && UNITS.contains(&&*next) {
            word.replace(&core, "NUMBER")
        } else if is_number && UNITS.contains(&&*core.replace(|c: char| c.is_ascii_digit() || c == '.', "")) {
            word.replace(&core, "DURATION")
        } else if tail.len() == 12 && tail.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            word.replace(tail, "DIGEST")
        } else if UNITS.contains(&&*core) {
            word.replace(&core, "UNIT")
        } else {
            (*word).to_owned()
        }
    };
    words.iter().enumerate().map(mask).collect::<Vec<_>>().join(" ")
}

/// A shell in the copied folder. What it has started ends with it.
struct Shell {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// The ids of what goes on beside it.
    started: Vec<String>,
}

impl Shell {
    fn start(folder: &Path, environment: &[(&str, String)]) -> Self {
        let programs = Path::new(env!("CARGO_BIN_EXE_branchline")).parent().unwrap();
        let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
        let mut child = Command::new("sh")
            .current_dir(folder)
            .env("PATH", path)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut shell = Self { child, input, output, started: vec![] };
        shell.run("exec 2>&1");
        shell
    }

    /// The lines that a command prints.
    fn run(&mut self, command: &str) -> Vec<String> {
        writeln!(self.input, "{command}\necho {ENDED}").unwrap();
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            assert!(self.output.read_line(&mut line).unwrap() > 0, "the shell ended at `{command}`: {lines:?}");
            match line.trim_end_matches('\n') {
                ENDED => break,
                line => lines.push(line.to_owned()),
            }
        }
        if command.ends_with('&') {
            let id = self.run("echo $!");
            self.started.extend(id);
        }
        lines
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = writeln!(self.input, "kill {}; wait; exit", self.started.join(" "));
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_readmes_bad_day_is_as_it_is_told() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let copy = tempfile::tempdir().unwrap();
    let (ingest, admin, warehouse) = (free_port(), free_port(), free_port());
    let here = |text: &str| text.replace("8081", &admin.to_string()).replace("9000", &warehouse.to_string());
    let folder = copy.path().join("config/bad-day");
    std::fs::create_dir_all(folder.join("fixtures")).unwrap();
    std::fs::create_dir(copy.path().join("plugins")).unwrap();
    std::fs::copy(root.join("plugins/jq.wasm"), copy.path().join("plugins/jq.wasm")).unwrap();
    for name in ["deployed.toml", "fixed.toml", "orders.ndjson", "receiver.py", "fixtures/order-4711.json"] {
        let text = std::fs::read_to_string(root.join("config/bad-day").join(name)).unwrap();
        std::fs::write(folder.join(name), here(&text)).unwrap();
    }

    let environment = [
        ("BRANCHLINE_INGEST__LISTEN", format!("127.0.0.1:{ingest}")),
        ("BRANCHLINE_ADMIN__LISTEN", format!("127.0.0.1:{admin}")),
        ("BRANCHLINE_CONFIG", "branchline.toml".to_owned()),
    ];
    let mut shell = Shell::start(copy.path(), &environment);
    let mut probe = RouterProcess::new("file:unused", "");
    probe.admin = admin;
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let steps = steps(&readme, "\n## One bad day\n");
    let must = ["explain", "plugin test", "backtest", "plan", "reload", "--dry-run", "replay", "received"];
    let mut commands = steps.iter().map(|step| step.command.as_str());
    for part in must {
        assert!(commands.any(|command| command.contains(part)), "`{part}` comes at its place in the walkthrough");
    }
    for Step { command, printed } in &steps {
        let came = shell.run(&here(command));
        if command.ends_with('&') {
            let port = if command.contains("serve") { ingest } else { warehouse };
            eventually("it listens", PATIENCE, async || tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok())
                .await;
            continue;
        }
        let masked = |lines: &[String]| {
            let lines: Vec<_> = lines.iter().map(|line| masked(line)).collect();
            lines.join("\n").trim_end().to_owned()
        };
        let printed: Vec<_> = printed.iter().map(|line| here(line)).collect();
        assert_eq!(masked(&came), masked(&printed), "`{command}` prints\n{}", came.join("\n"));
        if ["send", "replay"].iter().any(|name| command.contains(name)) {
            eventually("nothing is left to do", PATIENCE, async || {
                let (_, stats) = probe.get("/api/v1/stats").await?;
                let stats: Value = serde_json::from_str(&stats).ok()?;
                (stats["backlog"] == 0 && stats["scheduled"] == 0).then_some(())
            })
            .await;
        }
    }
}
