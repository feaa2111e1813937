//! Which compiler of this machine can build for BPF?

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fmt};

use crate::TARGET;

/// A compiler that can build for BPF, and how to call it.
#[derive(Debug)]
pub struct Toolchain {
    /// The command that runs cargo.
    pub cargo: Vec<String>,
    /// The compiler that cargo must use, if it would not find it by itself.
    pub rustc: Option<PathBuf>,
    /// Release of rustc.
    pub release: String,
    /// Major version of its LLVM.
    pub llvm: u32,
    /// False: `core` has to be compiled from source with each build.
    pub core_is_compiled: bool,
    /// What turns bitcode into an object.
    pub linker: Linker,
}

/// What turns bitcode into an object.
#[derive(Debug)]
pub enum Linker {
    /// LLVM's static compiler, of the LLVM that rustc uses.
    Llc(PathBuf),
    /// The stand-alone linker.
    BpfLinker(PathBuf),
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let linker = match &self.linker {
            Linker::Llc(path) | Linker::BpfLinker(path) => path.display(),
        };
        write!(f, "{} (rustc {}, LLVM {}, {linker})", self.cargo.join(" "), self.release, self.llvm)
    }
}

impl Toolchain {
    /// A command without what an outer cargo put into the environment.
    pub(crate) fn command(&self, words: &[String]) -> Command {
        clean(words)
    }
}

/// The first of: `$BPF_TOOLCHAIN` (a name that rustup knows), rustup's nightly, `/usr/bin/rustc`, the rustc in `PATH`.
/// An error lists why each was rejected.
pub fn detect() -> Result<Toolchain, Vec<String>> {
    if let Ok(name) = env::var("BPF_TOOLCHAIN") {
        return rustup(&name).map_err(|e| vec![e]);
    }
    let candidates: [&dyn Fn() -> Result<Toolchain, String>; 3] =
        [&|| rustup("nightly"), &|| plain("/usr/bin/rustc", "/usr/bin/cargo"), &|| plain("rustc", "cargo")];
    let mut reasons = Vec::new();
    for candidate in candidates {
        match candidate() {
            Ok(toolchain) => return Ok(toolchain),
            Err(reason) => reasons.push(reason),
        }
    }
    Err(reasons)
}

fn rustup(name: &str) -> Result<Toolchain, String> {
    if in_path("rustup").is_none() {
        return Err(format!("{name}: there is no rustup"));
    }
    let run = |tool: &str| ["rustup", "run", name, tool].map(String::from).to_vec();
    probe(&run("rustc"), run("cargo"), None)
}

fn plain(rustc: &str, cargo: &str) -> Result<Toolchain, String> {
    probe(&[rustc.to_string()], vec![cargo.to_string()], Some(rustc.into()))
}

fn probe(rustc: &[String], cargo: Vec<String>, path: Option<PathBuf>) -> Result<Toolchain, String> {
    let name = rustc.join(" ");
    let version = output(rustc, "-vV").ok_or_else(|| format!("{name} does not run"))?;
    let sysroot = output(rustc, "--print=sysroot").ok_or_else(|| format!("{name} has no sysroot"))?;
    let field = |key: &str| version.lines().find_map(|l| l.strip_prefix(key)).unwrap_or("").trim().to_string();
    let release = field("release:");
    let llvm = field("LLVM version:").split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0);
    let rustlib = Path::new(&sysroot).join("lib/rustlib");
    let core_is_compiled = rustlib.join(TARGET).join("lib").is_dir();
    if !core_is_compiled && !rustlib.join("src/rust/library/core/src/lib.rs").is_file() {
        return Err(format!("{name} {release} has neither a compiled core for {TARGET} nor the library's source"));
    }
    let linker = linker(&rustlib.join(field("host:")), llvm).ok_or_else(|| {
        format!("{name} {release}: there is no llc of LLVM {llvm} (component llvm-tools, package llvm-{llvm}) and no bpf-linker")
    })?;
    Ok(Toolchain { cargo, rustc: path, release, llvm, core_is_compiled, linker })
}

fn linker(host: &Path, llvm: u32) -> Option<Linker> {
    let mut llc: Vec<PathBuf> = env::var_os("BPF_LLC").map(PathBuf::from).into_iter().collect();
    llc.push(host.join("bin/llc"));
    llc.extend(in_path(&format!("llc-{llvm}")));
    llc.push(format!("/usr/lib/llvm-{llvm}/bin/llc").into());
    let llc = llc.into_iter().find(|p| p.is_file()).map(Linker::Llc);
    llc.or_else(|| in_path("bpf-linker").map(Linker::BpfLinker))
}

fn output(command: &[String], argument: &str) -> Option<String> {
    let output = clean(command).arg(argument).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_string())
}

fn in_path(program: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|dir| dir.join(program)).find(|p| p.is_file())
}

fn clean(words: &[String]) -> Command {
    let (program, arguments) = words.split_first().expect("a toolchain's commands have a program");
    let mut command = Command::new(program);
    command.args(arguments);
    for (key, _) in env::vars_os() {
        if of_the_outer_build(&key.to_string_lossy()) {
            command.env_remove(&key);
        }
    }
    command
}

fn of_the_outer_build(key: &str) -> bool {
    let kept = ["CARGO_HOME", "CARGO_NET_OFFLINE"].contains(&key);
    let exact = ["RUSTFLAGS", "RUSTUP_TOOLCHAIN", "RUSTDOC"].contains(&key);
    !kept && (exact || key.starts_with("CARGO") || key.starts_with("RUSTC"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_the_outer_build_do_not_reach_the_inner_one() {
        assert!(of_the_outer_build("CARGO_ENCODED_RUSTFLAGS"));
        assert!(of_the_outer_build("RUSTC_WRAPPER"));
        assert!(!of_the_outer_build("CARGO_HOME"));
        assert!(!of_the_outer_build("PATH"));
    }
}
