//! What does Hubble know of addresses, identities, devices and rules? The agent's latest snapshot.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use abi::identity::Identity;
use arc_swap::ArcSwap;
use flow::proto::flow::{Policy, Service};
use flow::{Directory, Node, Peer};

use crate::core::{SharedNames, View, read_names};

/// The agent's knowledge for Hubble.
pub struct Snapshot {
    node: Arc<Node>,
    devices: HashMap<u32, Arc<str>>,
    view: Arc<ArcSwap<View>>,
    names: SharedNames,
}

impl Snapshot {
    /// Of this node, with these devices besides those of endpoints.
    pub fn new(node: Node, devices: HashMap<u32, Arc<str>>, view: Arc<ArcSwap<View>>, names: SharedNames) -> Self {
        Snapshot { node: Arc::new(node), devices, view, names }
    }
}

impl Directory for Snapshot {
    fn node(&self) -> Arc<Node> {
        self.node.clone()
    }

    fn peer(&self, address: IpAddr) -> Option<Arc<Peer>> {
        let view = self.view.load();
        if let Some(peer) = view.peers.get(&address) {
            return Some(peer.clone());
        }
        view.networks.iter().find(|(prefix, _)| prefix.contains(&address)).map(|(_, peer)| peer.clone())
    }

    fn labels(&self, identity: Identity) -> Option<Arc<[String]>> {
        self.view.load().labels.get(&identity).cloned()
    }

    fn names(&self, endpoint: u32, address: IpAddr) -> Option<Arc<[String]>> {
        let names = read_names(&self.names);
        let found: Vec<String> = names.why(endpoint, address).map(|found| found.name.to_owned()).collect();
        (!found.is_empty()).then(|| found.into())
    }

    fn service(&self, address: IpAddr, port: u16) -> Option<Service> {
        let view = self.view.load();
        let (namespace, name) = view.services.get(&(address, port))?.service.clone();
        Some(Service { name, namespace })
    }

    fn interface(&self, index: u32) -> Option<Arc<str>> {
        self.view.load().devices.get(&index).or_else(|| self.devices.get(&index)).cloned()
    }

    fn policies(&self, endpoint: u32, rule_set: u32) -> Option<Arc<[Policy]>> {
        let view = self.view.load();
        let (revision, decisions) = view.decisions.get(&endpoint)?;
        // Of several rules of one policy that have the same labels, one.
        let mut policies: Vec<Policy> = Vec::new();
        for rule in decisions.get(&rule_set)?.rules.iter() {
            let policy = Policy {
                name: rule.policy.name.clone(),
                namespace: rule.policy.namespace.clone(),
                labels: rule.labels.to_strings(),
                revision: *revision,
                kind: rule.policy.kind.name().into(),
            };
            if !policies.contains(&policy) {
                policies.push(policy);
            }
        }
        Some(policies.into())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::hits::Decision;
    use crate::hits::fixtures::rule;

    #[test]
    fn each_policy_of_a_rule_set_is_named_once() {
        let decision = Decision { implicit: None, rules: [rule("a", 0), rule("b", 0), rule("a", 1)].into() };
        let mut view = View::default();
        view.decisions.insert(7, (5, Arc::new([(3, decision)].into())));
        let view = Arc::new(ArcSwap::from_pointee(view));
        let snapshot = Snapshot::new(Node::default(), HashMap::new(), view, SharedNames::default());
        let found = snapshot.policies(7, 3).unwrap();
        let found: Vec<_> = found.iter().map(|one| (one.name.as_str(), one.kind.as_str(), one.revision)).collect();
        assert_eq!(found, [("a", "CiliumNetworkPolicy", 5), ("b", "CiliumNetworkPolicy", 5)]);
        assert!(snapshot.policies(7, 4).is_none() && snapshot.policies(8, 3).is_none());
    }
}
