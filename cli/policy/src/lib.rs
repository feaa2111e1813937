//! What do policies mean, asked offline on files?
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod address;
pub mod case;
mod check;
mod definitions;
mod diff;
mod eval;
mod explain;
mod files;
pub mod flow_ref;
mod flows;
mod graph;
mod hits;
pub mod judge;
mod junit;
mod lint;
mod live;
pub mod objects;
mod protocol;
pub mod result;
mod suggest;
mod suite;
mod target;
mod universe;
mod witness;
pub mod world;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

pub use eval::judge_value;

/// What policies mean: judge flows, check files, explain verdicts
#[derive(Debug, Parser)]
#[command(name = "policy", bin_name = "axoneme policy")]
struct Policy {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Judge flows: JSON lines in, JSON lines out
    Eval(eval::Eval),
    /// Parse, validate and lint policies; 1 if something is wrong
    Check(check::Check),
    /// Tell why a flow is let through or not, and what would change that
    Explain(explain::Explain),
    /// Print the definitions of the kinds that policies are written in, for a cluster or an editor
    Definitions(definitions::Definitions),
    /// Run tests of policies: what they allow and deny; 1 if something is not as expected
    Test(suite::Test),
    /// Tell which traffic a change of policies lets pass or keeps out; 1 if there is some
    Diff(diff::Diff),
    /// Tell which rules could go without any packet being judged otherwise; 1 if there are some
    Lint(lint::Lint),
    /// Suggest few policies that let flows pass which were seen
    Suggest(suggest::Suggest),
    /// Draw or list who reaches whom
    Graph(graph::Graph),
    /// Tell how often each rule decided, and when last, as agents counted it
    Hits(hits::Hits),
}

impl Policy {
    fn run(&self, out: &mut dyn Write) -> Result<bool> {
        match &self.action {
            Action::Eval(eval) => eval::run(eval, out).map(|()| true),
            Action::Check(check) => check::run(check, out),
            Action::Definitions(definitions) => definitions::run(definitions, out).map(|()| true),
            Action::Explain(explain) => explain::run(explain, out),
            Action::Test(test) => suite::run(test, out),
            Action::Diff(diff) => diff::run(diff, out),
            Action::Lint(lint) => lint::run(lint, out),
            Action::Suggest(suggest) => suggest::run(suggest, out),
            Action::Graph(graph) => graph::run(graph, out),
            Action::Hits(hits) => hits::run(hits, out).map(|()| true),
        }
    }
}

/// What the command prints, and whether all is well.
pub fn answer(arguments: &[&str]) -> Result<(String, bool)> {
    let policy = Policy::try_parse_from(["policy"].iter().chain(arguments))?;
    let mut out = Vec::new();
    let well = policy.run(&mut out)?;
    Ok((String::from_utf8(out)?, well))
}

/// Runs the command; the first argument is its name.
pub fn main_with(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let policy = match Policy::try_parse_from(arguments) {
        Ok(policy) => policy,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match policy.run(&mut std::io::stdout()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::from(2)
        }
    }
}
