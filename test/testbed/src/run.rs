//! What did a command print, and how did it end?

use anyhow::{Context, Result, bail};
use std::process::Command;
use std::time::{Duration, Instant};

/// A command that has ended.
#[derive(Debug, Clone)]
pub struct Run {
    /// What was typed, for messages.
    pub command: String,
    /// Exit code; -1 if a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Run {
    /// Runs a command to its end.
    pub fn of(command: &mut Command) -> Result<Run> {
        let typed = typed(command);
        let output = command.output().with_context(|| format!("start {typed}"))?;
        Ok(Run {
            command: typed,
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// The output of a command that succeeded.
    pub fn ok(self) -> Result<String> {
        if self.code != 0 {
            bail!("`{}` ended with {}\n{}{}", self.command, self.code, self.stdout, self.stderr);
        }
        Ok(self.stdout)
    }

    /// The output and errors of a command that failed.
    pub fn failed(self) -> Result<String> {
        if self.code == 0 {
            bail!("`{}` should have failed and printed\n{}", self.command, self.stdout);
        }
        Ok(self.stdout + &self.stderr)
    }
}

fn typed(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|a| a.to_string_lossy().into_owned()));
    words.join(" ")
}

/// Asks until the answer is `Ok` or the time is up; then the last answer's error, with what was waited for.
pub fn eventually<T>(within: Duration, what: &str, mut ask: impl FnMut() -> Result<T>) -> Result<T> {
    let end = Instant::now() + within;
    loop {
        match ask() {
            Ok(answer) => return Ok(answer),
            Err(e) if Instant::now() >= end => return Err(e.context(format!("not within {within:?}: {what}"))),
            Err(_) => std::thread::sleep(Duration::from_millis(200)),
        }
    }
}
