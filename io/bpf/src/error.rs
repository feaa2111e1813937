//! What can go wrong between the agent and the kernel, and with which map, key, program or device?

use std::io;
use std::path::PathBuf;

/// A failed operation, with the object that it was about.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A call on a map failed.
    #[error("{operation} in map {map}, key {key}: {source}")]
    Map {
        /// Name of the map.
        map: String,
        /// What was tried.
        operation: &'static str,
        /// The key in hexadecimal, or "-".
        key: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A map could not be made.
    #[error("create map {map} with {max_entries} entries: {source}")]
    CreateMap {
        /// Name of the map.
        map: String,
        /// Its size.
        max_entries: u32,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A pinned object could not be opened, written or removed.
    #[error("{operation} {path}: {source}", path = path.display())]
    Pin {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A pinned map is not the one that this program knows.
    #[error("pinned map {path} has {found}, expected {expected}", path = path.display())]
    OtherLayout {
        /// The file.
        path: PathBuf,
        /// What lies there.
        found: String,
        /// What should lie there.
        expected: String,
    },
    /// A socket of the caller could not be prepared.
    #[error("{operation}: {source}")]
    Socket {
        /// What was tried.
        operation: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The object with the programs was not accepted.
    #[error("load the programs: {0}")]
    Object(#[from] aya::EbpfError),
    /// One program was not accepted.
    #[error("load program {program}: {source}")]
    Program {
        /// Name of the program.
        program: &'static str,
        /// Why; with the verifier's last words.
        source: Box<aya::programs::ProgramError>,
    },
    /// The object lacks a program.
    #[error("the object has no program {0}")]
    NoProgram(&'static str),
    /// A program could not be attached.
    #[error("attach {program} to {target}: {source}")]
    Attach {
        /// Name of the program.
        program: &'static str,
        /// Device or cgroup.
        target: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A program did not run on test data.
    #[error("run {program} on a test packet: {source}")]
    TestRun {
        /// Name of the program.
        program: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The ring buffer could not be opened.
    #[error("open the event ring buffer: {0}")]
    Events(#[from] aya::maps::MapError),
}

/// Result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
