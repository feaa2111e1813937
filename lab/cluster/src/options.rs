//! What can a user choose about a cluster?

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// When pods without policies are open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Enforcement {
    /// Until a policy selects them.
    #[default]
    Default,
    /// Never.
    Always,
    /// Always, whatever policies say.
    Never,
}

impl Enforcement {
    /// As the agent's configuration spells it.
    pub fn word(self) -> &'static str {
        match self {
            Enforcement::Default => "default",
            Enforcement::Always => "always",
            Enforcement::Never => "never",
        }
    }
}

impl std::str::FromStr for Enforcement {
    type Err = String;

    fn from_str(text: &str) -> Result<Enforcement, String> {
        match text {
            "default" => Ok(Enforcement::Default),
            "always" => Ok(Enforcement::Always),
            "never" => Ok(Enforcement::Never),
            other => Err(format!("{other:?} is none of: default, always, never")),
        }
    }
}

/// A cluster as the user wants it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// Name of the lab; begins the names of its nodes.
    pub name: String,
    /// Number of nodes; the first is the control plane.
    pub nodes: u32,
    /// Whether there are IPv6 addresses as well.
    pub ipv6: bool,
    /// When pods are open.
    pub enforcement: Enforcement,
    /// Name of the cluster, as labels show it.
    pub cluster_name: String,
    /// Further keys of the agent's configuration.
    pub config: Vec<(String, String)>,
    /// Manifests to apply when the cluster is up.
    pub files: Vec<PathBuf>,
    /// The outside world, if it is not the usual one.
    pub world: Option<PathBuf>,
    /// Whether `up` waits until everything is ready.
    pub wait: bool,
    /// Where the names of its commands shall be looked for: the binary.
    pub program: PathBuf,
    /// What nodes, servers and agents log.
    pub log: String,
}

impl Options {
    /// Says what is wrong with it, if anything is.
    pub fn check(&self) -> Result<(), String> {
        let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let fine = !self.name.is_empty() && self.name.len() <= 40 && self.name.chars().all(letters);
        if !fine || self.name.starts_with('-') || self.name.ends_with('-') {
            return Err(format!(
                "name {:?}: up to 40 lower case letters, digits and dashes inside are expected",
                self.name
            ));
        }
        if !(1..=64).contains(&self.nodes) {
            return Err(format!("{} nodes: 1 to 64 are expected", self.nodes));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str, nodes: u32) -> bool {
        let options = Options {
            name: name.into(),
            nodes,
            ipv6: false,
            enforcement: Enforcement::Default,
            cluster_name: "default".into(),
            config: Vec::new(),
            files: Vec::new(),
            world: None,
            wait: true,
            program: PathBuf::new(),
            log: String::new(),
        };
        options.check().is_ok()
    }

    #[test]
    fn names_become_paths_and_hosts_and_must_be_fit_for_it() {
        assert!(named("lab", 3) && named("a-1", 1));
        for bad in ["", "-a", "a-", "A", "a/b", "..", "a b"] {
            assert!(!named(bad, 3), "{bad:?}");
        }
        assert!(!named("lab", 0) && !named("lab", 65));
    }
}
