//! One step of a chore: says what it does, does it, says how long it took.

use anyhow::{Context, Result, bail};
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

/// Runs `work` between two lines on standard error.
pub fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("==> {what}");
    let started = Instant::now();
    let result = work().with_context(|| what.to_string());
    let ending = if result.is_ok() { "done" } else { "FAILED" };
    eprintln!("==> {what}: {ending} in {:.1} s", started.elapsed().as_secs_f32());
    result
}

/// `cargo WORDS` at the root of the workspace.
pub fn cargo(words: &[&str]) -> Result<()> {
    succeed(&mut command(words))
}

/// The same, not started yet.
pub fn command(words: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(words).current_dir(root());
    command
}

/// Runs a command whose output goes to the terminal; an error if it fails.
pub fn succeed(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("start {command:?}"))?;
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(())
}

/// The root of the workspace.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Where cargo puts what it builds.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}
