//! What happens when rustc starts the build script as its linker?

use std::ffi::OsString;
use std::process::{Command, exit};
use std::{env, fs};

/// Set by [`crate::build`] for the inner build only: the `llc` to run.
pub(crate) const LLC: &str = "AXONEME_BPF_LINK_WITH_LLC";

/// Call this first in `main` of the build script: if rustc started it as the linker, it links and exits.
pub fn linker_entry() {
    let Some(llc) = env::var_os(LLC) else { return };
    let arguments: Vec<String> = env::args().skip(1).collect();
    if !arguments.iter().any(|a| a == "-o") {
        return;
    }
    match link(&llc, &Invocation::parse(&arguments)) {
        Ok(()) => exit(0),
        Err(e) => {
            eprintln!("linking BPF: {e}");
            exit(1)
        }
    }
}

/// The part of a linker's command line that matters here.
#[derive(Debug, Default, PartialEq)]
struct Invocation {
    output: Option<String>,
    objects: Vec<String>,
    cpu: Option<String>,
}

impl Invocation {
    fn parse(arguments: &[String]) -> Self {
        let mut it = arguments.iter();
        let mut found = Invocation::default();
        while let Some(a) = it.next() {
            match a.as_str() {
                "-o" => found.output = it.next().cloned(),
                "--cpu" => found.cpu = it.next().cloned(),
                "--export-symbols" | "-L" | "--cpu-features" => drop(it.next()),
                s if [".o", ".rlib", ".bc"].iter().any(|end| s.ends_with(end)) => found.objects.push(a.clone()),
                _ => {}
            }
        }
        found
    }
}

fn link(llc: &OsString, what: &Invocation) -> Result<(), String> {
    let output = what.output.as_ref().ok_or("no output named")?;
    let [object] = what.objects.as_slice() else {
        return Err(format!(
            "one object is expected after optimisation (lto = \"fat\", codegen-units = 1), not {:?}",
            what.objects
        ));
    };
    let cpu = format!("-mcpu={}", what.cpu.as_deref().unwrap_or("v3"));
    let status = Command::new(llc)
        .args(["-march=bpfel", &cpu, "-O3", "-filetype=obj", object, "-o", output])
        .status()
        .map_err(|e| format!("{llc:?}: {e}"))?;
    if !status.success() {
        return Err(format!("{llc:?}: {status}"));
    }
    let mut elf = fs::read(output).map_err(|e| format!("{output}: {e}"))?;
    crate::repair(&mut elf)?;
    fs::write(output, elf).map_err(|e| format!("{output}: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_output_and_cpu_are_found_among_other_arguments() {
        let a = ["--cpu", "v4", "-L", "x.o", "main.o", "--btf", "-o", "out"].map(String::from);
        let found = Invocation::parse(&a);
        let expected =
            Invocation { output: Some("out".into()), objects: vec!["main.o".into()], cpu: Some("v4".into()) };
        assert_eq!(found, expected);
    }
}
