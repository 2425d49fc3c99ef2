//! Plugin calls in a process of their own. Two of these share nothing but the machine, so what they make at one time is
//! what it can give: cores may share units, caches and a clock that gets slower the more of them are busy.

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout};
use std::time::Duration;

use super::host::{CALLS, Calls};
use super::process::Child;
use crate::cli::Error;

/// Calls for as long each time that a line is read, and answers with the calls per second.
pub fn run(calls: &Calls<'_>, call: usize, duration: Duration) -> Result<(), Error> {
    let failed = |error| Error::Failed(format!("standard input or output: {error}"));
    let (_, plugin, config) = CALLS.get(call).ok_or_else(|| Error::Failed("there is no such call".to_owned()))?;
    let callee = calls.load(plugin, config)?;
    let mut stdout = std::io::stdout();
    writeln!(stdout, "ready").map_err(failed)?;
    for line in std::io::stdin().lines() {
        line.map_err(failed)?;
        writeln!(stdout, "{}", callee.measure(1, duration)?.per_second()).map_err(failed)?;
    }
    Ok(())
}

/// Such a process.
pub struct Caller {
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
    _process: Child,
}

impl Caller {
    /// Starts one, and waits until it can call.
    pub fn start(calls: &Calls<'_>, call: usize, duration: Duration) -> Result<Self, Error> {
        let (plugins, size) = (calls.plugins.to_string_lossy(), calls.size.to_string());
        let (call, duration) = (call.to_string(), duration.as_millis().to_string());
        let arguments = ["--plugins", &plugins, "--size", &size, "caller", &call, &duration];
        let (process, questions, answers) = Child::asked(arguments)?;
        let mut caller = Self { questions, answers: BufReader::new(answers), _process: process };
        caller.line()?;
        Ok(caller)
    }

    /// What all of these make at one time, in calls per second.
    pub fn together(callers: &mut [Self]) -> Result<f64, Error> {
        for caller in &mut *callers {
            writeln!(caller.questions).map_err(|error| Error::Failed(format!("a process of the bench: {error}")))?;
        }
        callers.iter_mut().map(Self::answer).sum()
    }

    fn answer(&mut self) -> Result<f64, Error> {
        let line = self.line()?;
        line.trim().parse().map_err(|_| Error::Failed(format!("a process of the bench answered `{}`", line.trim())))
    }

    fn line(&mut self) -> Result<String, Error> {
        let mut line = String::new();
        match self.answers.read_line(&mut line) {
            Ok(0) => Err(Error::Failed("a process of the bench has gone".to_owned())),
            Ok(_) => Ok(line),
            Err(error) => Err(Error::Failed(format!("a process of the bench: {error}"))),
        }
    }
}
