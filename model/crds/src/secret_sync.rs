//! Where are the copies of Secrets that policies name, if agents may read one namespace only? As Cilium 1.20 names them.

use sha2::{Digest, Sha256};

/// Label of a copy: the namespace of the Secret that it is of.
pub const OWNING_NAMESPACE: &str = "secretsync.cilium.io/owning-secret-namespace";
/// Label of a copy: the name of the Secret that it is of.
pub const OWNING_NAME: &str = "secretsync.cilium.io/owning-secret-name";
/// Annotations of a copy that say the same, with the kind.
pub const SOURCE_KIND: &str = "secretsync.cilium.io/source-kind";
/// The namespace of the Secret that it is of.
pub const SOURCE_NAMESPACE: &str = "secretsync.cilium.io/source-namespace";
/// The name of the Secret that it is of.
pub const SOURCE_NAME: &str = "secretsync.cilium.io/source-name";

/// The name of the copy of a Secret.
pub fn copy_name(namespace: &str, name: &str) -> String {
    let digest = Sha256::digest(format!("secret\0{namespace}\0{name}"));
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("cilium-sync-secret-{hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By `printf 'secret\\0default\\0s' | sha256sum`.
    #[test]
    fn copies_are_named_as_cilium_names_them() {
        let hash = "780f095098749873e8520ac838456ad54154ca28e29b9e480adda34057ee686d";
        assert_eq!(copy_name("default", "s"), format!("cilium-sync-secret-{hash}"));
        assert_ne!(copy_name("a-b", "c"), copy_name("a", "b-c"));
    }
}
