//! The hubble command.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod command;
mod completion;
mod config;
mod connect;
mod error;
mod filters;
mod flags;
mod forward;
mod input;
mod inspect;
mod observe;
mod parse;
mod settings;

use std::{
    ffi::OsString,
    io::{self, Write as _},
    process::ExitCode,
};

pub use error::Error;

use crate::{
    parse::{Line, parse},
    settings::Settings,
};

/// Runs the command; the first argument is its name.
pub fn main_with(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let words: Vec<String> = arguments.skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    match run(&words) {
        Ok(()) | Err(Error::Closed) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[String]) -> Result<(), Error> {
    if words == ["--version"] || words == ["-v"] {
        return write(format!("hubble {VERSION}\n").as_bytes());
    }
    let line = parse(words)?;
    if line.help || !line.command.runnable {
        return write(line.command.usage(&line.path).as_bytes());
    }
    match line.path.as_str() {
        "hubble version" => write(version().as_bytes()),
        "hubble help" => help(&line.arguments),
        "hubble completion" => completions(&line.arguments),
        path => match path.strip_prefix("hubble config ") {
            Some(action) => write(config::run(action, &line.arguments, &Settings::new(&line)?)?.as_bytes()),
            None => ask(&line),
        },
    }
}

/// Commands that ask a server.
fn ask(line: &Line) -> Result<(), Error> {
    let settings = Settings::new(line)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Start)?;
    runtime.block_on(async {
        match line.path.as_str() {
            "hubble observe" | "hubble observe flows" => observe::flows(line, &settings).await,
            "hubble observe agent-events" => observe::agent_events(line, &settings).await,
            "hubble observe debug-events" => observe::debug_events(line, &settings).await,
            "hubble list nodes" => inspect::nodes(line, &settings).await,
            "hubble list namespaces" => inspect::namespaces(line, &settings).await,
            "hubble status" => inspect::status(line, &settings).await,
            "hubble watch peers" => inspect::peers(&settings).await,
            other => Err(Error::Usage(format!(
                "{other} is not available yet: the server answers gRPC reflection, e.g. to grpcurl -plaintext SERVER list"
            ))),
        }
    })
}

const VERSION: &str = concat!("v", env!("CARGO_PKG_VERSION"));

fn version() -> String {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("hubble {VERSION} on {}/{architecture}\n", std::env::consts::OS)
}

fn help(words: &[String]) -> Result<(), Error> {
    let line = parse(words)?;
    write(line.command.usage(&line.path).as_bytes())
}

fn completions(words: &[String]) -> Result<(), Error> {
    match words {
        [shell] => write(&completion::script(shell)?),
        _ => Err(Error::Usage("name one shell: bash, fish, powershell or zsh".to_owned())),
    }
}

fn write(text: &[u8]) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    out.write_all(text)?;
    out.flush()?;
    Ok(())
}
