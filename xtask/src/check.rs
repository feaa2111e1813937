//! Does the code keep the project's habits? Format, lints, layers, documentation.

use crate::layers;
use crate::step::{cargo, root, step};
use anyhow::{Result, bail};
use std::fs;
use std::path::{Path, PathBuf};

/// Every check; the first that fails ends it.
pub fn run() -> Result<()> {
    step("format", || {
        cargo(&["fmt", "--all", "--check"])?;
        // A workspace of its own.
        cargo(&["fmt", "--all", "--check", "--manifest-path", "bpf/Cargo.toml"])
    })?;
    step("layers", layers::check)?;
    step("first lines", first_lines)?;
    step("lints in every manifest", manifests)?;
    step("lints", || cargo(&["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]))?;
    step("documentation", || cargo(&["doc", "--workspace", "--no-deps", "--quiet"]))
}

/// What holds our own sources, by folder.
const FOLDERS: [&str; 11] =
    ["benches", "bin", "bpf", "cli", "datapath", "io", "lab", "model", "services", "test", "xtask"];

/// Every crate has the workspace's lints.
fn manifests() -> Result<()> {
    let mut files = Vec::new();
    for folder in FOLDERS.iter().filter(|folder| **folder != "bpf") {
        files_of(&root().join(folder), &mut files)?;
    }
    let manifests = files.iter().filter(|path| path.ends_with("Cargo.toml"));
    let without: Vec<_> = manifests
        .filter(|path| !fs::read_to_string(path).is_ok_and(|text| text.contains("[lints]\nworkspace = true")))
        .map(|path| path.display().to_string())
        .collect();
    if !without.is_empty() {
        bail!("manifests without `[lints] workspace = true`:\n  {}", without.join("\n  "));
    }
    Ok(())
}

/// Every source file opens with a `//!` sentence that says which question it answers.
fn first_lines() -> Result<()> {
    let mut files = Vec::new();
    for folder in FOLDERS {
        files_of(&root().join(folder), &mut files)?;
    }
    let mut without = Vec::new();
    for path in files.iter().filter(|path| path.extension().is_some_and(|e| e == "rs")) {
        if !opens_with_sentence(&fs::read_to_string(path)?) {
            without.push(path.display().to_string());
        }
    }
    if !without.is_empty() {
        bail!("files that do not open with a `//!` sentence:\n  {}", without.join("\n  "));
    }
    Ok(())
}

fn files_of(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if !path.is_dir() {
            files.push(path);
        } else if !path.ends_with("target") {
            files_of(&path, files)?;
        }
    }
    Ok(())
}

/// Attributes of the crate may come before the sentence.
fn opens_with_sentence(text: &str) -> bool {
    text.lines().find(|l| !l.is_empty() && !l.starts_with("#![")).is_none_or(|l| l.starts_with("//!"))
}
