//! What does the policy command say, by itself and without the rest of axoneme?

use std::process::ExitCode;

fn main() -> ExitCode {
    cli_policy::main_with(std::env::args_os())
}
