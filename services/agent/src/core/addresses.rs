//! Who has which address: how the IP cache follows from nodes, pods, policies and services.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use abi::identity::{self, Identity};
use ipnet::IpNet;

use super::Core;
use crate::ipcache::{Entry, Teller};
use crate::objects::Key;
use crate::ops::Op;

/// Of whom something must be said anew to the IP cache.
#[derive(Debug, Default)]
pub(super) struct Unsaid {
    /// Pods of other nodes.
    pub pods: BTreeSet<Key>,
    /// Nodes and who serves the API; pods whose way there depends on nodes.
    pub nodes: bool,
    /// The own node and its endpoints.
    pub own: bool,
    /// Nodes and endpoints that are gone.
    pub gone: Vec<Teller>,
    /// The datapath has to be told that what it knew is not true any more.
    pub outdated: bool,
}

impl Core {
    /// Gives identities to the prefixes that policies name and the addresses that they know by name, and takes them from
    /// those that none does.
    pub(super) fn refresh_outside(&mut self) {
        let places = self.engine.places();
        let change = self.outside.change(&places.named, places.learned);
        if let Some(error) = change.exhausted {
            tracing::error!(%error, "prefixes and addresses of policies count as what is around them");
        }
        for (number, labels) in change.added {
            self.engine.add_identity(number, &labels);
            self.know_labels(number, labels);
            self.fresh.insert(number);
        }
        for (prefix, number) in change.moved {
            self.ipcache.tell_policy(prefix, number);
        }
    }

    /// What the IP cache holds from an earlier run counts as what it was until the IP cache is written.
    pub(super) fn know_earlier_numbers(&mut self) {
        for (number, labels) in self.outside.numbers() {
            self.engine.add_identity(number, &labels);
            self.know_labels(number, labels);
        }
    }

    /// Forgets the identities that no address has any more, unless the IP cache may hold them: tables know them until no
    /// packet can have them, so that none counts as one of all others meanwhile.
    pub(super) fn forget_outside(&mut self) {
        if !self.written.is_sure() {
            return;
        }
        for number in self.outside.retire() {
            self.forget_labels(number);
            self.engine.remove_identity(number);
            self.dirty.policies = true;
        }
    }

    /// Numbers of this node with their labels, for the next run.
    pub fn local_numbers(&self) -> &::identity::Outside {
        &self.outside
    }

    /// Writes what changed of the IP cache.
    pub(super) fn write_addresses(&mut self, ops: &mut Vec<Op>) {
        self.say();
        let mut outdated = std::mem::take(&mut self.unsaid.outdated);
        for prefix in self.ipcache.take_touched() {
            let change = self.written.change(prefix, self.ipcache.get(&prefix));
            outdated |= change.is_some();
            ops.extend(change.map(Op::Ipcache));
            self.unseen.prefixes.insert(prefix);
        }
        if outdated {
            ops.push(Op::BumpGeneration);
        }
    }

    /// What an earlier run wrote is looked at once.
    pub(super) fn look_at_all_addresses(&mut self) {
        self.unsaid.nodes = true;
        self.unsaid.own = true;
        self.unsaid.pods.extend(self.remote_pods.keys().cloned());
        self.ipcache.touch(self.written.prefixes().copied());
    }

    /// Says to the IP cache what has not been said yet.
    fn say(&mut self) {
        std::mem::take(&mut self.unsaid.gone).into_iter().for_each(|teller| self.ipcache.tell(teller, []));
        if std::mem::take(&mut self.unsaid.nodes) {
            self.say_nodes();
        }
        for key in std::mem::take(&mut self.unsaid.pods) {
            self.say_pod(key);
        }
        if std::mem::take(&mut self.unsaid.own) {
            self.say_own();
        }
    }

    /// The own node has the API server's label too while it runs one: rules for the API server mean it then.
    pub(super) fn tell_what_the_host_is(&mut self) {
        let servers = self.api_servers();
        let serves = self.facts.node_addresses.iter().any(|address| servers.contains(address));
        let names: &[&str] = if serves { &["reserved:host", "reserved:kube-apiserver"] } else { &["reserved:host"] };
        let Ok(labels) = labels::Labels::parse(names.iter().copied()) else { return };
        if self.identities.get(&identity::HOST) != Some(&labels) {
            self.engine.add_identity(identity::HOST, &labels);
            self.know_labels(identity::HOST, labels);
            self.dirty.policies = true;
        }
    }

    /// Addresses that serve the Kubernetes API.
    fn api_servers(&self) -> BTreeSet<IpAddr> {
        self.services.backend_addresses(&("default".into(), "kubernetes".into()))
    }

    fn say_pod(&mut self, key: Key) {
        // Pods of this node are known better than by what was once written of them.
        let pod = self.remote_pods.get(&key);
        let pod = pod.filter(|pod| pod.node.is_none_or(|node| !self.facts.node_addresses.contains(&node)));
        let entries = pod.and_then(|pod| {
            let tunnel = pod.node.and_then(|node| self.tunnel_of(node));
            let entry = Entry { identity: pod.identity?, tunnel, pod: Some(key.clone()) };
            Some(pod.addresses.iter().map(|address| (IpNet::from(*address), entry.clone())).collect::<Vec<_>>())
        });
        self.ipcache.tell(Teller::Pod(key), entries.unwrap_or_default());
    }

    /// Tunnels run over IPv4: a node that is named by its IPv6 address is looked up.
    fn tunnel_of(&self, node: IpAddr) -> Option<Ipv4Addr> {
        match node {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => self.nodes.values().find(|n| n.addresses.contains(&node))?.tunnel(),
        }
    }

    fn say_nodes(&mut self) {
        let servers = self.api_servers();
        let serving = servers.iter().map(|address| node_entry(*address, identity::KUBE_APISERVER, None));
        self.ipcache.tell(Teller::ApiServer, serving.collect::<Vec<_>>());
        for (name, node) in self.nodes.iter().filter(|(name, _)| **name != self.facts.node) {
            let serves = node.addresses.iter().any(|address| servers.contains(address));
            let number = if serves { identity::KUBE_APISERVER } else { identity::REMOTE_NODE };
            let mut entries: Vec<_> = node.addresses.iter().map(|address| node_entry(*address, number, None)).collect();
            if let Some(agent) = self.agent_nodes.get(name) {
                entries.extend(agent.routers.iter().map(|address| node_entry(*address, number, node.tunnel())));
                let health = agent.health.iter();
                entries.extend(health.map(|address| node_entry(*address, identity::HEALTH, node.tunnel())));
            }
            self.ipcache.tell(Teller::Node(name.clone()), entries);
        }
        let by_node = self.remote_pods.iter().filter(|(_, pod)| pod.node.is_some_and(|node| node.is_ipv6()));
        self.unsaid.pods.extend(by_node.map(|(key, _)| key.clone()));
    }

    fn say_own(&mut self) {
        let own = self.facts.node_addresses.iter().chain(&self.facts.routers);
        let own = own.map(|address| (IpNet::from(*address), Entry::of(identity::HOST)));
        self.ipcache.tell(Teller::Host, own.collect::<Vec<_>>());
        for endpoint in self.endpoints.values() {
            let entry = Entry { pod: endpoint.pod(), ..Entry::of(endpoint.record.identity) };
            let addresses = endpoint.addresses().into_iter();
            let entries = addresses.map(|address| (IpNet::from(address), entry.clone()));
            self.ipcache.tell(Teller::Endpoint(endpoint.record.id), entries);
        }
    }
}

fn node_entry(address: IpAddr, identity: Identity, tunnel: Option<Ipv4Addr>) -> (IpNet, Entry) {
    (IpNet::from(address), Entry { tunnel, ..Entry::of(identity) })
}
