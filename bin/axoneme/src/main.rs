//! One binary for every command: `argv[0]` or the first argument picks.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod commands;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let called = args.first().map(Path::new).and_then(Path::file_name).and_then(|n| n.to_str()).unwrap_or("axoneme");
    if commands::find(called).is_some() {
        return commands::run(called, &args);
    }
    let first = args.get(1).and_then(|a| a.to_str()).unwrap_or("help");
    match first {
        "help" | "-h" | "--help" => {
            print!("{}", commands::help());
            ExitCode::SUCCESS
        }
        "version" | "--version" | "-V" => {
            println!("axoneme {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        name if commands::find(name).is_some() => commands::run(name, &args[1..]),
        other => {
            eprintln!("axoneme: no command is named {other:?}\n");
            eprint!("{}", commands::help());
            ExitCode::from(2)
        }
    }
}
