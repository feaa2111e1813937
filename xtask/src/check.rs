//! Does the code keep the project's habits? Format, lints, layers, documentation.

use crate::layers;
use crate::step::{cargo, root, step};
use anyhow::{Result, bail};
use std::fs;
use std::path::Path;

/// Every check; the first that fails ends it.
pub fn run() -> Result<()> {
    step("format", || cargo(&["fmt", "--all", "--check"]))?;
    step("layers", layers::check)?;
    step("first lines", first_lines)?;
    step("lints", || cargo(&["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]))?;
    step("documentation", || cargo(&["doc", "--workspace", "--no-deps", "--quiet"]))
}

/// Every source file opens with a `//!` sentence that says which question it answers.
fn first_lines() -> Result<()> {
    let mut without = Vec::new();
    for folder in ["benches", "bin", "bpf", "cli", "datapath", "io", "lab", "model", "services", "test", "xtask"] {
        collect(&root().join(folder), &mut without)?;
    }
    if !without.is_empty() {
        bail!("files that do not open with a `//!` sentence:\n  {}", without.join("\n  "));
    }
    Ok(())
}

fn collect(folder: &Path, without: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() && !path.ends_with("target") {
            collect(&path, without)?;
        } else if path.extension().is_some_and(|e| e == "rs") && !opens_with_sentence(&fs::read_to_string(&path)?) {
            without.push(path.display().to_string());
        }
    }
    Ok(())
}

/// Attributes of the crate may come before the sentence.
fn opens_with_sentence(text: &str) -> bool {
    text.lines().find(|l| !l.is_empty() && !l.starts_with("#![")).is_none_or(|l| l.starts_with("//!"))
}
