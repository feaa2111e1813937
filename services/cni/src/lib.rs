//! The CNI plugin: what does a runtime ask for a container's network, and what is done about it?
//!
//! The plugin makes the device pair and the container's side of it; the agent allocates addresses, attaches the
//! programs and sets the policy. The host's side goes up last, so that no packet flows without policy.

mod container;
mod error;
mod request;
mod result;
mod steps;

use std::io::Read;
use std::process::ExitCode;

pub use agent_api::queue::{DEFAULT_QUEUE, Queue, QueuedDelete};
pub use error::{CniError, Code};
pub use request::{Attachment, Command, Configuration, Request, SUPPORTED_VERSIONS};
pub use result::NetworkResult;

/// The command `cilium-cni`: everything comes by environment and standard input; the answer goes to standard output.
pub fn main_with<I: IntoIterator<Item = String>>(_args: I) -> ExitCode {
    let mut input = Vec::new();
    let read = std::io::stdin().lock().read_to_end(&mut input);
    let version = request::version_of(&input);
    let answer = match read {
        Ok(_) => answer(|name| std::env::var(name).ok(), &input),
        Err(error) => Err(CniError::new(Code::Io, "read the configuration from standard input", error)),
    };
    match answer {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            print!("{}", error.to_json(&version));
            ExitCode::FAILURE
        }
    }
}

/// Does what the environment and the configuration ask; the text to print.
pub fn answer(environment: impl Fn(&str) -> Option<String>, input: &[u8]) -> Result<String, CniError> {
    let request = Request::parse(environment, input)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| CniError::new(Code::Io, "start a runtime", e))?;
    runtime.block_on(steps::run(&request))
}
