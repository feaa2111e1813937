//! Which texts do files and folders hold?

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Reads files, and of folders all files of YAML and JSON in order of their names; `-` is standard input.
pub fn read(paths: &[PathBuf], mut each: impl FnMut(&str, &str)) -> Result<()> {
    for path in paths {
        if path == Path::new("-") {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("read standard input")?;
            each("-", &text);
            continue;
        }
        for file in files(path)? {
            let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
            each(&file.display().to_string(), &text);
        }
    }
    Ok(())
}

fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    let entries = fs::read_dir(path).with_context(|| format!("read {}", path.display()))?;
    for entry in entries {
        let entry = entry?.path();
        if entry.is_dir() {
            found.extend(files(&entry)?);
        } else if entry.extension().is_some_and(|end| ["yaml", "yml", "json"].iter().any(|known| end == *known)) {
            found.push(entry);
        }
    }
    found.sort();
    if found.is_empty() {
        bail!("{} has no file that ends in .yaml, .yml or .json", path.display());
    }
    Ok(found)
}
