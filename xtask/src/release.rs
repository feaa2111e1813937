//! What is in `dist/`? The release binary, and beside it its command names as links.

use crate::step::{cargo, root, step, target};
use anyhow::{Context, Result};
use std::fs;
use std::os::unix::fs::symlink;

/// Command names that people type; each is a link to the one binary.
const NAMES: &[&str] = &[
    "cilium",
    "cilium-agent",
    "cilium-cni",
    "cilium-dbg",
    "cilium-operator",
    "hubble",
    "hubble-relay",
    "kubectl-axoneme",
];

/// Builds `dist/axoneme` and the links.
pub fn build() -> Result<()> {
    step("building the release binary", || cargo(&["build", "--release", "--package", "axoneme"]))?;
    let dist = root().join("dist");
    fs::create_dir_all(&dist).context("create dist/")?;
    let binary = dist.join("axoneme");
    let fresh = dist.join("axoneme.new");
    fs::copy(target().join("release/axoneme"), &fresh).context("copy the binary to dist/")?;
    // renamed, not overwritten: the old one may be running
    fs::rename(&fresh, &binary)?;
    for name in NAMES {
        let link = dist.join(name);
        if link.symlink_metadata().is_ok() {
            fs::remove_file(&link)?;
        }
        symlink("axoneme", &link).with_context(|| format!("link dist/{name}"))?;
    }
    let size = fs::metadata(&binary)?.len();
    eprintln!("dist/axoneme: {:.1} MB, {} command names", size as f64 / 1e6, NAMES.len());
    Ok(())
}
