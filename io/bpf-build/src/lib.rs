//! How are the BPF programs built with whatever Rust toolchain for BPF the machine has?
//!
//! rustc does the link-time optimisation itself and hands one bitcode object to its "linker"; that linker is the very
//! build script which called [`build`], started again: it runs `llc` of the same LLVM and repairs the BTF. `bpf-linker`
//! is used where there is no `llc`. The calling build script therefore begins with [`linker_entry`].
#![forbid(unsafe_code)]

mod btf;
mod linker;
mod toolchain;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fmt, fs, io};

pub use btf::repair;
pub use linker::linker_entry;
pub use toolchain::{Linker, Toolchain, detect};

/// The target of all programs: little-endian BPF.
pub const TARGET: &str = "bpfel-unknown-none";

/// Why there is no object.
#[derive(Debug)]
pub enum Error {
    /// No compiler on this machine can build for [`TARGET`]; each line says why one was rejected.
    NoToolchain(Vec<String>),
    /// The compiler did not start.
    Start(String, io::Error),
    /// The compiler reported errors.
    Failed(String),
    /// The finished object could not be copied.
    Copy(PathBuf, io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NoToolchain(reasons) => {
                writeln!(f, "no Rust toolchain for {TARGET}:")?;
                for reason in reasons {
                    writeln!(f, "  {reason}")?;
                }
                writeln!(f, "Debian: apt-get install rustc-web cargo-web libstd-rust-web-dev-bpf llvm-22")?;
                write!(f, "elsewhere: rustup toolchain install nightly -c rust-src -c llvm-tools")
            }
            Error::Start(what, e) => write!(f, "{what} does not start: {e}"),
            Error::Failed(what) => write!(f, "building the BPF programs with {what} failed"),
            Error::Copy(path, e) => write!(f, "copying {}: {e}", path.display()),
        }
    }
}

impl std::error::Error for Error {}

/// Builds the binary `bin` of the workspace in `dir` and copies the object to `out_dir/bin`.
pub fn build(dir: &Path, out_dir: &Path, bin: &str) -> Result<Toolchain, Error> {
    let toolchain = detect().map_err(Error::NoToolchain)?;
    let target_dir = out_dir.join("bpf-target");
    let mut command = cargo(&toolchain, dir, bin)?;
    command.env("CARGO_TARGET_DIR", &target_dir);
    let status = command.status().map_err(|e| Error::Start(toolchain.to_string(), e))?;
    if !status.success() {
        return Err(Error::Failed(toolchain.to_string()));
    }
    let object = target_dir.join(TARGET).join("release").join(bin);
    fs::copy(&object, out_dir.join(bin)).map_err(|e| Error::Copy(object, e))?;
    Ok(toolchain)
}

/// The command that builds; without the settings that the outer cargo made for the machine's own target.
fn cargo(toolchain: &Toolchain, dir: &Path, bin: &str) -> Result<Command, Error> {
    let mut command = toolchain.command(&toolchain.cargo);
    command.args(["build", "--release", "--target", TARGET, "--bin", bin]).current_dir(dir);
    if !toolchain.core_is_compiled {
        command.args(["-Z", "build-std=core"]);
    }
    if let Some(rustc) = &toolchain.rustc {
        command.env("RUSTC", rustc);
    }
    let (program, flags) = linking(&toolchain.linker)?;
    command.env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", program);
    command.env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_RUSTFLAGS", format!("-Ctarget-cpu=v3 -Cdebuginfo=2{flags}"));
    if let Linker::Llc(llc) = &toolchain.linker {
        command.env(linker::LLC, llc);
    }
    // The BPF target and its precompiled core are not a stable part of the language.
    command.env("RUSTC_BOOTSTRAP", "1");
    Ok(command)
}

fn linking(linker: &Linker) -> Result<(OsString, &'static str), Error> {
    match linker {
        Linker::Llc(_) => {
            let me = env::current_exe().map_err(|e| Error::Start("this build script as linker".into(), e))?;
            Ok((me.into(), ""))
        }
        Linker::BpfLinker(path) => Ok((path.into(), " -Clink-arg=--btf -Clink-arg=--disable-expand-memcpy-in-order")),
    }
}
