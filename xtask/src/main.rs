//! Which chore? `./dev WORD` ends here.

mod check;
mod demo;
mod fuzz;
mod layers;
mod release;
mod step;
mod tests;

use anyhow::{Result, bail};
use std::process::ExitCode;

const USAGE: &str = "\
usage: ./dev COMMAND

  demo     a cluster on this machine and the BookInfo scenario on it (--keep: leave it up)
  build    the release binary and its command names, in dist/
  test     every test: units, properties, kernel programs, and the scenarios on a running lab
  parity   packets through policies, tables, native datapath and kernel, which must agree (--cases N --seed S)
  fuzz     parsers on inputs that nobody thought of (TARGET... chooses some, --seconds N for each)
  bench    measurements against limits and peers, with ratios (names choose some)
  check    format, lints, layers, documentation";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("xtask: {e:#}");
            ExitCode::FAILURE
        }
    }
}

/// The measurements, in the profile that users run.
fn bench(words: &[String]) -> Result<()> {
    started(&["run", "--release", "--package", "benches", "--"], words)
}

/// Cases for all that judges packets, made from a seed.
fn parity(words: &[String]) -> Result<()> {
    started(&["run", "--package", "parity", "--"], words)
}

fn started(command: &[&str], words: &[String]) -> Result<()> {
    let words: Vec<&str> = command.iter().copied().chain(words.iter().map(String::as_str)).collect();
    step::cargo(&words)
}

fn run(words: &[String]) -> Result<()> {
    let (command, rest) = match words {
        [] => bail!("{USAGE}"),
        [command, rest @ ..] => (command.as_str(), rest),
    };
    match command {
        "build" => release::build(),
        "demo" => demo::run(rest),
        "bench" => bench(rest),
        "fuzz" => fuzz::run(rest),
        "parity" => parity(rest),
        "test" => tests::run(rest),
        "check" => check::run(),
        "layers" => layers::check(),
        unknown => bail!("no chore `{unknown}`\n{USAGE}"),
    }
}
