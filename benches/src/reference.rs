//! What is measured against? Two C programs: one that only redirects, one that does nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use netlink::Namespace;

use crate::supervisor::{BPFFS, SCRATCH};
use crate::topology::{Pod, Topology};

const REDIRECT: &str = include_str!("../c/redirect.bpf.c");
const EMPTY: &str = include_str!("../c/empty.bpf.c");
const CLANGS: [&str; 6] = ["clang-22", "clang-21", "clang-20", "clang-19", "clang", "clang-14"];

/// Compiles the programs with clang and loads them with bpftool.
pub struct Reference {
    clang: &'static str,
}

/// How a program came to a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Attachment {
    /// As ours are.
    Tcx,
    /// The older way, where the kernel knows no other.
    Clsact,
}

impl Reference {
    /// Finds the tools.
    pub fn find() -> Result<Reference> {
        let works = |program: &str| Command::new(program).arg("--version").output().is_ok_and(|o| o.status.success());
        let clang = CLANGS.into_iter().find(|c| works(c)).context("no clang (Debian: clang-22 or clang-19)")?;
        if !works("bpftool") {
            bail!("no bpftool");
        }
        Ok(Reference { clang })
    }

    /// Delivers between the pods of a topology by redirection alone.
    pub fn attach_redirect(&self, topology: &Topology) -> Result<Attachment> {
        let (client, server) = (&topology.client, &topology.server);
        let to_server = self.load(REDIRECT, "to_server", Some(server.ifindex))?;
        let to_client = self.load(REDIRECT, "to_client", Some(client.ifindex))?;
        attach(&topology.node, &to_server, client)?;
        attach(&topology.node, &to_client, server)
    }

    /// Loads the program that does nothing.
    pub fn empty(&self) -> Result<Empty> {
        let packet = Path::new(SCRATCH).join("packet");
        fs::write(&packet, [0; 64])?;
        Ok(Empty { program: self.load(EMPTY, "empty", None)?, packet })
    }

    fn load(&self, source: &str, name: &str, peer: Option<u32>) -> Result<PathBuf> {
        let (text, object) =
            (Path::new(SCRATCH).join(format!("{name}.c")), Path::new(SCRATCH).join(format!("{name}.o")));
        fs::write(&text, source)?;
        let peer = peer.map(|p| format!("-DPEER={p}"));
        let compile = Command::new(self.clang)
            .args(["-target", "bpf", "-O2", "-c"])
            .args(peer)
            .arg(&text)
            .arg("-o")
            .arg(&object)
            .output();
        succeeded(self.clang, compile)?;
        let pin = Path::new(BPFFS).join(name);
        succeeded("bpftool prog load", Command::new("bpftool").args(["prog", "load"]).args([&object, &pin]).output())?;
        Ok(pin)
    }
}

fn attach(node: &Namespace, program: &Path, pod: &Pod) -> Result<Attachment> {
    if let Ok(link) = node.run(|| bpf::attach_pinned(program, pod.ifindex))? {
        // It is to live as long as the namespaces, and these end with the process.
        std::mem::forget(link);
        return Ok(Attachment::Tcx);
    }
    let tc = |words: &[&str]| -> Result<String> {
        let command = || Command::new("tc").args(words).stdin(Stdio::null()).output();
        succeeded(&format!("tc {}", words.join(" ")), node.run(command)?)
    };
    let (device, program) = (pod.device.as_str(), program.to_str().context("a path in UTF-8")?);
    tc(&["qdisc", "add", "dev", device, "clsact"])?;
    tc(&["filter", "add", "dev", device, "ingress", "bpf", "da", "object-pinned", program])?;
    Ok(Attachment::Clsact)
}

fn succeeded(what: &str, output: std::io::Result<std::process::Output>) -> Result<String> {
    let output = output.with_context(|| format!("start {what}"))?;
    if !output.status.success() {
        bail!("{what}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The program that does nothing.
pub struct Empty {
    program: PathBuf,
    packet: PathBuf,
}

impl Empty {
    /// Nanoseconds of one run of `repeat`, on average; on the calling thread's processor.
    pub fn nanoseconds(&self, repeat: u32) -> Result<f64> {
        let mut run = Command::new("bpftool");
        run.args(["prog", "run", "pinned"]).arg(&self.program).arg("data_in").arg(&self.packet);
        let told = succeeded("bpftool prog run", run.args(["repeat", &repeat.to_string()]).output())?;
        duration(&told).with_context(|| format!("no duration in {told:?}"))
    }
}

fn duration(told: &str) -> Option<f64> {
    told.split("duration (average):").nth(1)?.trim().strip_suffix("ns")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_duration_is_read_out_of_what_bpftool_says() {
        assert_eq!(duration("Return value: 0, duration (average): 26ns\n"), Some(26.0));
        assert_eq!(duration("Error: no such program"), None);
    }
}
