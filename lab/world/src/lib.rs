//! What is outside of the lab's cluster, and who answers when its pods ask for names?
//!
//! [`main_with`] is the outside: name server and servers at every address that is not the cluster's. [`cluster_dns`] is the
//! program of the cluster's DNS pods. The rest is how programs of the lab listen, shared with the crate `apps`.

pub mod cluster_dns;
pub mod config;
pub mod datagram;
pub mod http;
pub mod message;
pub mod name_server;
pub mod outside;
pub mod program;
pub mod sockets;
pub mod zone;

use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "usage: axoneme lab-world [--config FILE]";

/// `axoneme lab-world [--config FILE]`: serves the outside until it is told to end.
pub fn main_with(args: Vec<String>) -> ExitCode {
    match config_of(&args) {
        Ok(config) => program::run("world", outside::run(config)),
        Err(problem) => program::refuse("world", &problem),
    }
}

fn config_of(args: &[String]) -> Result<config::Config, String> {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        [] => Ok(config::Config::default()),
        ["--config", path] => config::read(Path::new(path)).map_err(|e| e.to_string()),
        [word] if word.starts_with("--config=") => {
            config::read(Path::new(&word["--config=".len()..])).map_err(|e| e.to_string())
        }
        other => Err(format!("arguments {other:?}; {USAGE}")),
    }
}
