//! Who has which address: how the IP cache follows from nodes, pods, policies and services.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use abi::identity::{self, Identity};
use ipnet::IpNet;

use super::Core;
use crate::ipcache::{Entry, IpCache, Source};
use crate::ops::Op;

impl Core {
    /// Gives each prefix that a policy names an identity, and takes it from those that none names.
    pub(super) fn refresh_prefixes(&mut self) {
        let wanted = self.engine.prefixes();
        let gone: Vec<(IpNet, Identity)> =
            self.prefixes.iter().filter(|(p, _)| !wanted.contains_key(*p)).map(|(p, i)| (*p, *i)).collect();
        for (prefix, number) in gone {
            self.prefixes.remove(&prefix);
            self.identities.remove(&number);
            self.engine.remove_identity(number);
            self.dirty.addresses = true;
        }
        let mut used: BTreeSet<Identity> = self.prefixes.values().copied().collect();
        for (prefix, labels) in wanted {
            let number = match self.prefixes.get(&prefix) {
                Some(number) => *number,
                None => {
                    let Some(free) = (identity::LOCAL_CIDR..identity::LOCAL_REMOTE_NODE).find(|n| !used.contains(n))
                    else {
                        continue;
                    };
                    used.insert(free);
                    self.prefixes.insert(prefix, free);
                    self.dirty.addresses = true;
                    free
                }
            };
            if self.identities.get(&number) != Some(&labels) {
                self.engine.add_identity(number, &labels);
                if self.identities.insert(number, labels).is_none() {
                    self.fresh.insert(number);
                }
            }
        }
    }

    /// Writes what changed of the IP cache.
    pub(super) fn write_addresses(&mut self, ops: &mut Vec<Op>) {
        self.ipcache = self.build_ipcache();
        let (changes, outdated) = self.ipcache.changes(&self.written);
        ops.extend(changes.into_iter().map(Op::Ipcache));
        if outdated {
            ops.push(Op::BumpGeneration);
        }
        self.written = self.ipcache.iter().map(|(prefix, entry)| (*prefix, entry.value())).collect();
    }

    fn build_ipcache(&self) -> IpCache {
        let mut cache = IpCache::new(self.facts.ipv4, self.facts.ipv6);
        let on = |address: &IpAddr| if address.is_ipv4() { self.facts.ipv4 } else { self.facts.ipv6 };
        for (prefix, number) in self.prefixes.iter().filter(|(p, _)| on(&p.addr())) {
            cache.add(*prefix, Entry { identity: *number, tunnel: None, source: Source::Generated, pod: None });
        }
        let servers = self.api_servers();
        for address in servers.iter().filter(|a| on(a)) {
            cache.add_address(*address, node_entry(identity::KUBE_APISERVER, None));
        }
        self.add_remote_pods(&mut cache, &on);
        self.add_nodes(&mut cache, &servers, &on);
        self.add_own(&mut cache, &on);
        cache
    }

    /// The own node has the API server's label too while it runs one: rules for the API server mean it then.
    pub(super) fn tell_what_the_host_is(&mut self) {
        let servers = self.api_servers();
        let serves = self.facts.node_addresses.iter().any(|address| servers.contains(address));
        let names: &[&str] = if serves { &["reserved:host", "reserved:kube-apiserver"] } else { &["reserved:host"] };
        let Ok(labels) = labels::Labels::parse(names.iter().copied()) else { return };
        if self.identities.get(&identity::HOST) != Some(&labels) {
            self.engine.add_identity(identity::HOST, &labels);
            self.identities.insert(identity::HOST, labels);
            self.dirty.policies = true;
        }
    }

    /// Addresses that serve the Kubernetes API.
    fn api_servers(&self) -> BTreeSet<IpAddr> {
        self.services.backend_addresses(&("default".into(), "kubernetes".into()))
    }

    fn add_remote_pods(&self, cache: &mut IpCache, on: &impl Fn(&IpAddr) -> bool) {
        for (key, pod) in &self.remote_pods {
            // Pods of this node are known better than by what was once written of them.
            if pod.node.is_some_and(|node| self.facts.node_addresses.contains(&node)) {
                continue;
            }
            let Some(number) = pod.identity else { continue };
            let tunnel = pod.node.and_then(|node| self.tunnel_of(node));
            for address in pod.addresses.iter().filter(|a| on(a)) {
                let entry = Entry { identity: number, tunnel, source: Source::CustomResource, pod: Some(key.clone()) };
                cache.add_address(*address, entry);
            }
        }
    }

    /// Tunnels run over IPv4: a node that is named by its IPv6 address is looked up.
    fn tunnel_of(&self, node: IpAddr) -> Option<Ipv4Addr> {
        match node {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => self.nodes.values().find(|n| n.addresses.contains(&node))?.tunnel(),
        }
    }

    fn add_nodes(&self, cache: &mut IpCache, servers: &BTreeSet<IpAddr>, on: &impl Fn(&IpAddr) -> bool) {
        for (name, node) in self.nodes.iter().filter(|(name, _)| **name != self.facts.node) {
            let serves = node.addresses.iter().any(|address| servers.contains(address));
            let number = if serves { identity::KUBE_APISERVER } else { identity::REMOTE_NODE };
            for address in node.addresses.iter().filter(|a| on(a)) {
                cache.add_address(*address, node_entry(number, None));
            }
            let Some(agent) = self.agent_nodes.get(name) else { continue };
            for address in agent.routers.iter().filter(|a| on(a)) {
                cache.add_address(*address, node_entry(number, node.tunnel()));
            }
            for address in agent.health.iter().filter(|a| on(a)) {
                cache.add_address(*address, node_entry(identity::HEALTH, node.tunnel()));
            }
        }
    }

    fn add_own(&self, cache: &mut IpCache, on: &impl Fn(&IpAddr) -> bool) {
        let local = |identity, pod| Entry { identity, tunnel: None, source: Source::Local, pod };
        let own = self.facts.node_addresses.iter().chain(&self.facts.routers);
        for address in own.filter(|a| on(a)) {
            cache.add_address(*address, local(identity::HOST, None));
        }
        for endpoint in self.endpoints.values() {
            for address in endpoint.addresses() {
                cache.add_address(address, local(endpoint.record.identity, endpoint.pod()));
            }
        }
    }
}

fn node_entry(identity: Identity, tunnel: Option<Ipv4Addr>) -> Entry {
    Entry { identity, tunnel, source: Source::Node, pod: None }
}
