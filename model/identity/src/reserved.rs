//! Which numbers are fixed, and what are they called?

use abi::identity as id;
use labels::{Label, Labels};

use crate::NumericIdentity;

/// All reserved identities with their names.
pub const RESERVED: &[(NumericIdentity, &str)] = &[
    (id::UNKNOWN, "unknown"),
    (id::HOST, "host"),
    (id::WORLD, "world"),
    (id::UNMANAGED, "unmanaged"),
    (id::HEALTH, "health"),
    (id::INIT, "init"),
    (id::REMOTE_NODE, "remote-node"),
    (id::KUBE_APISERVER, "kube-apiserver"),
    (id::INGRESS, "ingress"),
    (id::WORLD_IPV4, "world-ipv4"),
    (id::WORLD_IPV6, "world-ipv6"),
];

/// True for the numbers that never stand for labels of users.
pub const fn is_reserved(identity: NumericIdentity) -> bool {
    identity < id::MINIMAL_ALLOCATED
}

/// The name of a reserved identity.
pub fn reserved_name(identity: NumericIdentity) -> Option<&'static str> {
    RESERVED.iter().find(|(number, _)| *number == identity).map(|(_, name)| *name)
}

/// The labels of a reserved identity. The host has the API server's label too if it runs one, which only the agent
/// knows.
pub fn reserved_labels(identity: NumericIdentity) -> Option<Labels> {
    if identity == id::KUBE_APISERVER {
        // A node that serves the API is a node.
        return Some(Labels::new([Label::reserved("kube-apiserver"), Label::reserved("remote-node")]));
    }
    reserved_name(identity).map(Labels::reserved)
}

/// The reserved identity that has these labels, if they are those of one.
pub fn reserved_by_labels(labels: &Labels) -> Option<NumericIdentity> {
    if labels.has_reserved("host") {
        return Some(id::HOST);
    }
    if labels.has_reserved("remote-node") {
        let serves_api = labels.has_reserved("kube-apiserver");
        return Some(if serves_api { id::KUBE_APISERVER } else { id::REMOTE_NODE });
    }
    // Others have this one label only, lest a workload gets one by adding it.
    let mut all = labels.iter();
    let (Some(only), None) = (all.next(), all.next()) else { return None };
    RESERVED.iter().find(|(_, name)| only.is_reserved(name)).map(|(number, _)| *number)
}

/// What flows print in brackets behind an address: `host`, `world`, `ID:4711`.
pub fn display_name(identity: NumericIdentity) -> String {
    match reserved_name(identity) {
        Some(name) => name.to_owned(),
        None => format!("ID:{identity}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn numbers_and_labels_lead_to_each_other() {
        for (number, name) in RESERVED {
            assert_eq!(reserved_by_labels(&reserved_labels(*number).unwrap()), Some(*number), "{name}");
        }
        let control_plane = Labels::parse(["reserved:host", "reserved:kube-apiserver", "k8s:role=x"]).unwrap();
        assert_eq!(reserved_by_labels(&control_plane), Some(id::HOST));
        assert_eq!(reserved_labels(256), None);
    }

    #[test]
    fn a_workload_does_not_become_reserved_by_a_label() {
        let forged = Labels::parse(["k8s:app=x", "reserved:health"]).unwrap();
        assert_eq!(reserved_by_labels(&forged), None);
        assert_eq!(reserved_by_labels(&Labels::parse(["k8s:health"]).unwrap()), None);
        let address = Labels::parse(["reserved:kube-apiserver", "reserved:world"]).unwrap();
        assert_eq!(reserved_by_labels(&address), None);
    }

    #[test]
    fn names_are_those_that_flows_print() {
        assert_eq!(display_name(1), "host");
        assert_eq!(display_name(0), "unknown");
        assert_eq!(display_name(16777217), "ID:16777217");
    }
}
