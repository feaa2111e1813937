//! Does each crate use only its own layer and those above? Read from the manifests, against one table.

use crate::step::root;
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::fs;

/// Folders from the purest to the outermost; a crate may use crates of its own folder and of those before it.
const LAYERS: &[&str] = &["datapath", "model", "io", "services", "lab", "cli", "bin", "test"];

/// Crates of other people that only some folders may use.
const KEEPERS: &[(&str, &[&str])] = &[
    ("aya", &["io"]),
    ("rtnetlink", &["io"]),
    ("tokio", &["io", "services", "lab", "cli", "bin", "test"]),
    ("kube", &["services", "lab", "cli", "test"]),
    ("redb", &["lab"]),
];

/// Reads every manifest and fails with each arrow that points the wrong way.
pub fn check() -> Result<()> {
    let crates = manifests()?;
    let mut wrong = Vec::new();
    for (name, (folder, dependencies)) in &crates {
        for dependency in dependencies {
            if let Some((theirs, _)) = crates.get(dependency) {
                if rank(theirs) > rank(folder) {
                    wrong.push(format!("{folder}/{name} uses {theirs}/{dependency}, which is further out"));
                }
            } else if let Some((_, keepers)) = KEEPERS.iter().find(|(k, _)| k == dependency)
                && !keepers.contains(&folder.as_str())
            {
                wrong.push(format!("{folder}/{name} uses {dependency}, which only {} may", keepers.join(", ")));
            }
        }
    }
    if !wrong.is_empty() {
        bail!("layers:\n  {}", wrong.join("\n  "));
    }
    Ok(())
}

fn rank(folder: &str) -> usize {
    LAYERS.iter().position(|l| *l == folder).unwrap_or(LAYERS.len())
}

/// Package name to its folder and the names under `[dependencies]`.
fn manifests() -> Result<BTreeMap<String, (String, Vec<String>)>> {
    let mut found = BTreeMap::new();
    for folder in LAYERS {
        for entry in fs::read_dir(root().join(folder)).with_context(|| format!("read {folder}/"))? {
            let path = entry?.path().join("Cargo.toml");
            let Ok(text) = fs::read_to_string(&path) else { continue };
            let (name, dependencies) = read(&text);
            found.insert(
                name.with_context(|| format!("no name in {}", path.display()))?,
                (folder.to_string(), dependencies),
            );
        }
    }
    Ok(found)
}

/// Name and dependencies of a manifest. Development and build dependencies may point anywhere.
fn read(text: &str) -> (Option<String>, Vec<String>) {
    let (mut section, mut name, mut dependencies) = ("", None, Vec::new());
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line;
        } else if section == "[package]" && line.starts_with("name") {
            name = line.split('"').nth(1).map(String::from);
        } else if section == "[dependencies]" && !line.is_empty() && !line.starts_with('#') {
            dependencies.extend(line.split(['.', ' ', '=']).next().map(String::from));
        }
    }
    (name, dependencies)
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn a_manifest_gives_its_name_and_dependencies() {
        let text =
            "[package]\nname = \"a\"\n[dependencies]\nb.workspace = true\nc = \"1\"\n[dev-dependencies]\nd = \"1\"\n";
        assert_eq!(read(text), (Some("a".to_string()), vec!["b".to_string(), "c".to_string()]));
    }
}
