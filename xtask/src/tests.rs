//! Does everything hold? The habits first, then units and properties, then the kernel's programs, then the scenarios on a lab.

use crate::step::{cargo, command, step, succeed};
use crate::{check, fuzz};
use anyhow::Result;

/// Runs all tests, or with words those packages' alone (`./dev test policy flow`).
pub fn run(packages: &[String]) -> Result<()> {
    if !packages.is_empty() {
        return step("testing the given packages", || only(packages));
    }
    check::run()?;
    step("building everything", || cargo(&["build", "--workspace", "--all-targets"]))?;
    step("testing units, properties and kernel programs", || {
        cargo(&["test", "--workspace", "--exclude", "scenarios", "--exclude", "bpf"])
    })?;
    step("fuzzing what reads from outside, a few seconds each", || fuzz::run(&["--seconds".into(), "5".into()]))?;
    // one after the other: their packets have deadlines
    step("testing real packets between namespaces", || cargo(&["test", "--package", "bpf", "--", "--test-threads=1"]))?;
    // the same on a device as older kernels have it, in so far as the device matters
    step("testing real packets where programs are filters", || {
        let words =
            ["test", "--package", "bpf", "--test", "node", "--", "--test-threads=1", "pods", "restart", "two_nodes"];
        succeed(command(&words).env("BPF_ATTACHMENT", "clsact"))
    })?;
    step("testing the scenarios on a running lab", || cargo(&["test", "--package", "scenarios"]))
}

fn only(packages: &[String]) -> Result<()> {
    let mut words = vec!["test"];
    for package in packages {
        words.extend(["--package", package]);
    }
    cargo(&words)
}
