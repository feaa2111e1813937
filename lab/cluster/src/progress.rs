//! How does `up` learn how far the supervisor is?

use serde::{Deserialize, Serialize};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// One line from the supervisor to `up`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Line {
    /// A step is done.
    Done {
        /// What was done.
        step: String,
        /// How long it took.
        milliseconds: u64,
    },
    /// Something to tell beside the steps.
    Note(String),
    /// All is up.
    Ready,
    /// It will not be up.
    Failed(String),
}

/// The supervisor's side.
#[derive(Debug, Clone)]
pub struct Reporter {
    stream: Arc<Mutex<UnixStream>>,
}

impl Reporter {
    /// Reports into this stream.
    pub fn new(stream: UnixStream) -> Reporter {
        Reporter { stream: Arc::new(Mutex::new(stream)) }
    }

    /// Sends a line; `up` may have gone.
    pub fn send(&self, line: &Line) {
        let Ok(mut text) = serde_json::to_string(line) else { return };
        text.push('\n');
        let mut stream = self.stream.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let _ = stream.write_all(text.as_bytes());
    }

    /// Does a step and reports its time.
    pub fn step<T>(&self, step: &str, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        let began = Instant::now();
        let done = work().map_err(|e| e.context(step.to_string()))?;
        self.send(&Line::Done { step: step.into(), milliseconds: began.elapsed().as_millis() as u64 });
        Ok(done)
    }
}
