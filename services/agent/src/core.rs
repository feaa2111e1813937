//! What follows from what happened: events of the cluster and of the runtime in, operations out.
//!
//! The core has no clock, no I/O and no randomness. [`Core::handle`] takes events, [`Core::flush`] says what is to be done
//! in an order in which no packet sees more than its policy allows: tables before endpoints that use them, classes
//! before the IP cache entries whose identities they sort, removals last.

mod addresses;
mod endpoints;
mod names;
mod policies;
mod shards;
#[cfg(test)]
pub(crate) mod tests;
mod view;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ::identity::{Families, Outside};
use abi::identity::Identity;
use abi::ipcache::RemoteEndpoint;
use ipnet::IpNet;
use labels::{LabelFilter, Labels};

pub use endpoints::{Endpoint, EndpointRecord, Kind, State};
pub use names::{SharedNames, is_meant, read as read_names};
pub use view::View;

use crate::config::Enforcement;
use crate::engine::Engine;
use crate::hits::Hits;
use crate::ipcache::{Change, IpCache, Teller, Written};
use crate::objects::{AgentNode, Key, Node, Pod, RemotePod, ServiceLabels};
use crate::ops::{Op, PolicyKey};
use crate::services::{Service, Services, Slice, Table};
use addresses::Unsaid;
use endpoints::Applied;
use policies::Slots;
use view::Unseen;

/// What the core knows of its own node from the start.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Name of the cluster.
    pub cluster: String,
    /// Name of the node.
    pub node: String,
    /// IPv4 is on.
    pub ipv4: bool,
    /// IPv6 is on.
    pub ipv6: bool,
    /// When policy is enforced.
    pub enforcement: Enforcement,
    /// Addresses of `cilium_host`.
    pub routers: Vec<IpAddr>,
    /// The node's own addresses.
    pub node_addresses: Vec<IpAddr>,
    /// Which labels make up identities.
    pub filter: LabelFilter,
    /// How many policies the datapath can hold, with the one that denies all.
    pub policy_slots: u32,
    /// What is known of names.
    pub names: SharedNames,
}

impl Facts {
    /// The node's address that others see, IPv4 first.
    pub fn main_address(&self) -> Option<IpAddr> {
        let v4 = self.node_addresses.iter().find(|a| a.is_ipv4());
        v4.or_else(|| self.node_addresses.first()).copied()
    }
}

/// Something that happened.
#[derive(Debug)]
pub enum Event {
    /// A pod of this node is there or changed.
    Pod(Key, Pod),
    /// A pod of this node is gone.
    PodGone(Key),
    /// A namespace's labels.
    Namespace(String, BTreeMap<String, String>),
    /// A namespace is gone.
    NamespaceGone(String),
    /// A node is there or changed.
    Node(String, Node),
    /// A node is gone.
    NodeGone(String),
    /// What a node's agent says.
    AgentNode(String, AgentNode),
    /// A node's agent says nothing any more.
    AgentNodeGone(String),
    /// A CiliumEndpoint is there or changed.
    RemotePod(Key, RemotePod),
    /// A CiliumEndpoint is gone.
    RemotePodGone(Key),
    /// An identity is there.
    Identity(Identity, Labels),
    /// An identity was removed.
    IdentityGone(Identity),
    /// The answer to [`Op::AllocateIdentity`].
    Allocated(Labels, Result<Identity, String>),
    /// A service is there or changed; nothing: it has no address.
    Service(Key, Option<Service>),
    /// Labels of a service, with or without an address, and of its pods.
    ServiceLabels(Key, ServiceLabels),
    /// A service is gone.
    ServiceGone(Key),
    /// A slice (namespace, name) of a service is there or changed.
    Slice(Key, Key, Slice),
    /// A slice (namespace, name) is gone.
    SliceGone(Key),
    /// A policy object is there or changed.
    Policy(PolicyKey, Box<serde_json::Value>),
    /// A policy object is gone.
    PolicyGone(PolicyKey),
    /// A group of prefixes is there or changed.
    CidrGroup(String, Box<crds::CiliumCIDRGroup>),
    /// A group of prefixes is gone.
    CidrGroupGone(String),
    /// An endpoint gets an answer of DNS, at this second since the epoch.
    Answered(u32, fqdn::Answer, u64),
    /// It is this second since the epoch; these endpoints have connections to these addresses.
    Elapsed(u64, HashSet<(u32, IpAddr)>),
    /// Everything has been listed once: what is not known now does not exist.
    Synced,
}

/// The state of the agent.
pub struct Core {
    facts: Facts,
    engine: Box<dyn Engine>,
    synced: bool,
    pods: BTreeMap<Key, Pod>,
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
    nodes: BTreeMap<String, Node>,
    agent_nodes: BTreeMap<String, AgentNode>,
    remote_pods: BTreeMap<Key, RemotePod>,
    identities: BTreeMap<Identity, Labels>,
    /// Identities of restored endpoints that the cluster has not confirmed yet.
    unconfirmed: BTreeSet<Identity>,
    /// Identities that came since the policies were last brought up to date: no connection was judged by them.
    fresh: BTreeSet<Identity>,
    numbers: BTreeMap<Labels, BTreeSet<Identity>>,
    requested: BTreeSet<Labels>,
    outside: Outside,
    endpoints: BTreeMap<u32, Endpoint>,
    services: Services,
    service_labels: BTreeMap<Key, ServiceLabels>,
    slices: BTreeMap<Key, Key>,
    service_table: Table,
    slots: Slots,
    hits: Hits,
    names: SharedNames,
    named: BTreeMap<Identity, crate::engine::NamedPorts>,
    ipcache: IpCache,
    unsaid: Unsaid,
    written: Written,
    /// Everything was looked at once.
    settled: bool,
    dirty: Dirty,
    /// What is to be thought over when it is time to try again.
    failed: Failed,
    view: View,
    unseen: Unseen,
    queue: Vec<Op>,
}

/// What must be thought over.
#[derive(Debug, Default)]
struct Dirty {
    policies: bool,
    ports: bool,
    services: bool,
}

impl Dirty {
    const ALL: Dirty = Dirty { policies: true, ports: true, services: true };
}

/// What the datapath refused.
#[derive(Debug, Default)]
struct Failed {
    policies: bool,
    services: bool,
    prefixes: BTreeSet<IpNet>,
    outdated: bool,
}

/// What is found in the kernel at start, so that nothing is torn down and built again.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The IP cache.
    pub ipcache: BTreeMap<IpNet, RemoteEndpoint>,
    /// Policy slots in use.
    pub slots: Vec<u32>,
    /// Endpoints' slots and revisions.
    pub policies: BTreeMap<u32, abi::endpoint::EndpointPolicy>,
    /// Services and backends.
    pub services: Table,
    /// The identities of this node in the IP cache, as far as their labels were remembered.
    pub numbers: BTreeMap<Identity, Labels>,
}

impl Found {
    /// The labels of the IP cache's identities of this node. Where they were not remembered, the prefix says them; but
    /// an address may have been learned for a name.
    fn outside(&self, families: Families) -> Outside {
        let local = || self.ipcache.iter().filter(|(_, entry)| abi::identity::is_node_local(entry.identity));
        let held: Vec<Identity> = local().map(|(_, entry)| entry.identity).collect();
        let mut numbers = self.numbers.clone();
        for (prefix, entry) in local().filter(|(prefix, _)| prefix.prefix_len() < prefix.max_prefix_len()) {
            let alone = held.iter().filter(|number| **number == entry.identity).count() == 1;
            if alone && !self.numbers.contains_key(&entry.identity) {
                numbers.insert(entry.identity, ::identity::cidr_labels(*prefix, families));
            }
        }
        Outside::new(families, &numbers, held)
    }
}

impl Core {
    /// A core that knows its node and what is in the kernel.
    pub fn new(facts: Facts, engine: Box<dyn Engine>, found: Found) -> Self {
        let mut services = Services::default();
        let backends = found.services.backends.iter().map(|(number, address)| (*address, *number));
        let reverse = found.services.frontends.values().map(|f| (f.address, u32::from(f.rev_nat)));
        services.restore(backends, reverse);
        let outside = found.outside(Families { ipv4: facts.ipv4, ipv6: facts.ipv6 });
        let ipcache = IpCache::new(facts.ipv4, facts.ipv6);
        let names = facts.names.clone();
        let slots = Slots::new(facts.policy_slots, &found.slots, &found.policies);
        let mut core = Core {
            facts,
            engine,
            synced: false,
            pods: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            nodes: BTreeMap::new(),
            agent_nodes: BTreeMap::new(),
            remote_pods: BTreeMap::new(),
            identities: BTreeMap::new(),
            unconfirmed: BTreeSet::new(),
            fresh: BTreeSet::new(),
            numbers: BTreeMap::new(),
            requested: BTreeSet::new(),
            outside,
            endpoints: BTreeMap::new(),
            services,
            service_labels: BTreeMap::new(),
            slices: BTreeMap::new(),
            service_table: found.services,
            slots,
            hits: Hits::default(),
            names,
            named: BTreeMap::new(),
            ipcache,
            unsaid: Unsaid::default(),
            written: Written::new(found.ipcache),
            settled: false,
            dirty: Dirty::ALL,
            failed: Failed::default(),
            view: View::default(),
            unseen: Unseen { services: true, ..Unseen::default() },
            queue: Vec::new(),
        };
        core.add_reserved();
        core.know_earlier_numbers();
        core
    }

    /// The facts of the node.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Everything has been listed once.
    pub fn is_synced(&self) -> bool {
        self.synced
    }

    /// The policy language's implementation.
    pub fn engine(&self) -> &dyn Engine {
        self.engine.as_ref()
    }

    /// Takes something that happened into account; what is to be done says [`Core::flush`].
    pub fn handle(&mut self, event: Event) {
        match event {
            Event::Pod(key, pod) => self.set_pod(key, pod),
            Event::PodGone(key) => {
                self.pods.remove(&key);
            }
            Event::Namespace(name, labels) => self.set_namespace(name, labels),
            Event::NamespaceGone(name) => {
                self.namespaces.remove(&name);
            }
            Event::Node(name, node) => {
                self.unsaid.nodes |= self.nodes.insert(name, node.clone()).as_ref() != Some(&node);
            }
            Event::NodeGone(name) => {
                self.unsaid.nodes |= self.nodes.remove(&name).is_some();
                self.unsaid.gone.push(Teller::Node(name));
            }
            Event::AgentNode(name, node) => {
                self.unsaid.nodes |= self.agent_nodes.insert(name, node.clone()).as_ref() != Some(&node);
            }
            Event::AgentNodeGone(name) => self.unsaid.nodes |= self.agent_nodes.remove(&name).is_some(),
            Event::RemotePod(key, pod) => {
                let before = self.remote_pods.insert(key.clone(), pod.clone());
                if before.as_ref() != Some(&pod) {
                    self.unsaid.pods.insert(key);
                }
                // Egress rules may name its ports.
                let named = |pod: &RemotePod| (pod.identity, pod.ports.clone());
                if before.as_ref().map(named).unwrap_or_default() != named(&pod) {
                    self.ports_changed();
                }
            }
            Event::RemotePodGone(key) => {
                let before = self.remote_pods.remove(&key);
                self.unsaid.pods.insert(key);
                if before.is_some_and(|pod| !pod.ports.is_empty()) {
                    self.ports_changed();
                }
            }
            Event::Identity(number, labels) => self.add_identity(number, labels),
            Event::IdentityGone(number) => self.identity_gone(number),
            Event::Allocated(labels, answer) => self.allocated(&labels, answer),
            Event::Service(key, service) => {
                match service {
                    Some(service) => self.services.set_service(key, service),
                    None => self.services.remove_service(&key),
                }
                self.dirty.services = true;
            }
            Event::ServiceLabels(key, labels) => {
                self.service_labels.insert(key.clone(), labels);
                self.tell_service(&key);
            }
            Event::ServiceGone(key) => {
                self.services.remove_service(&key);
                self.service_labels.remove(&key);
                self.tell_service(&key);
                self.dirty.services = true;
            }
            Event::Slice(key, service, slice) => self.set_slice(key, service, slice),
            Event::SliceGone(key) => self.remove_slice(&key),
            Event::Policy(key, object) => self.set_policy(key, &object),
            Event::PolicyGone(key) => {
                self.engine.remove_policy(&key);
                self.dirty.policies = true;
            }
            Event::CidrGroup(name, group) => {
                self.engine.set_cidr_group(&name, &group);
                self.dirty.policies = true;
            }
            Event::CidrGroupGone(name) => {
                self.engine.remove_cidr_group(&name);
                self.dirty.policies = true;
            }
            Event::Answered(endpoint, answer, now) => self.answered(endpoint, answer, now),
            Event::Elapsed(now, in_use) => self.elapsed(now, &in_use),
            Event::Synced => {
                self.synced = true;
                self.dirty = Dirty::ALL;
                self.look_at_all_addresses();
                self.confirm_identities();
                self.refresh_all_labels();
            }
        }
    }

    pub(super) fn ports_changed(&mut self) {
        self.dirty.ports = true;
        self.dirty.policies = true;
    }

    /// Rules may name the service.
    fn tell_service(&mut self, key: &Key) {
        let is = self.service_labels.get(key).map(|labels| (labels, self.services.backend_addresses(key)));
        self.engine.set_service(key, is);
        self.dirty.policies = true;
    }

    fn set_slice(&mut self, key: Key, service: Key, slice: Slice) {
        if let Some(earlier) = self.slices.insert(key.clone(), service.clone())
            && earlier != service
        {
            self.services.remove_slice(&earlier, &key.1);
            self.slice_changed(&earlier);
        }
        self.services.set_slice(service.clone(), key.1, slice);
        self.slice_changed(&service);
    }

    fn remove_slice(&mut self, key: &Key) {
        if let Some(service) = self.slices.remove(key) {
            self.services.remove_slice(&service, &key.1);
            self.slice_changed(&service);
        }
    }

    fn slice_changed(&mut self, service: &Key) {
        self.tell_service(service);
        self.dirty.services = true;
        // The nodes that serve the Kubernetes API have an identity of their own.
        self.unsaid.nodes |= service.0 == "default" && service.1 == "kubernetes";
    }

    fn set_policy(&mut self, key: PolicyKey, object: &serde_json::Value) {
        let problems = self.engine.set_policy(&key, object);
        self.queue.push(Op::PolicyStatus(key, problems));
        self.dirty.policies = true;
    }

    /// What is to be done now. Before everything has been listed once nothing that could widen or narrow is done.
    pub fn flush(&mut self) -> Vec<Op> {
        self.tell_what_the_host_is();
        let mut ops = std::mem::take(&mut self.queue);
        if !self.synced {
            return ops;
        }
        if std::mem::replace(&mut self.settled, true) {
            self.forget_outside();
        }
        let mut late = Vec::new();
        if std::mem::take(&mut self.dirty.policies) {
            self.refresh_outside();
            self.resolve_policies(&mut ops, &mut late);
        }
        self.switch_endpoints(&mut ops);
        self.write_addresses(&mut ops);
        if std::mem::take(&mut self.dirty.services) {
            self.write_services(&mut ops);
        }
        self.publish(&mut ops);
        ops.extend(late);
        ops
    }

    fn write_services(&mut self, ops: &mut Vec<Op>) {
        let new = self.services.table();
        if new != self.service_table {
            let old = std::mem::replace(&mut self.service_table, new.clone());
            ops.push(Op::Services { old: Box::new(old), new: Box::new(new) });
            self.unseen.services = true;
        }
    }

    /// The datapath refused an operation: it is not as it was taken to be, and is brought up to date when it is time to
    /// try again.
    pub fn refused(&mut self, op: &Op) {
        match op {
            Op::Ipcache(Change::Set(prefix, _) | Change::Remove(prefix)) => {
                self.written.refused(*prefix);
                self.failed.prefixes.insert(*prefix);
            }
            Op::BumpGeneration => self.failed.outdated = true,
            Op::SetEndpoint(_, value) => {
                if let Some(endpoint) = self.endpoints.get_mut(&value.id) {
                    endpoint.written = None;
                    self.failed.policies = true;
                }
            }
            Op::UsePolicy(id, _) => {
                if let Some(endpoint) = self.endpoints.get_mut(id) {
                    endpoint.applied = Applied::default();
                    self.failed.policies = true;
                }
            }
            Op::Services { old, new } => {
                self.service_table = old.unsure(new);
                self.failed.services = true;
            }
            _ => {}
        }
    }

    /// Tries again what could not be written.
    pub fn retry(&mut self) {
        let failed = std::mem::take(&mut self.failed);
        self.dirty.policies |= failed.policies || !self.slots.is_complete();
        self.ipcache.touch(failed.prefixes);
        self.unsaid.outdated |= failed.outdated;
        self.dirty.services |= failed.services;
    }

    /// The service whose address this is.
    pub fn service_table(&self) -> &Table {
        &self.service_table
    }

    /// The IP cache.
    pub fn ipcache(&self) -> &IpCache {
        &self.ipcache
    }

    /// Identities and their labels: reserved, cluster-wide and of this node.
    pub fn identities(&self) -> &BTreeMap<Identity, Labels> {
        &self.identities
    }

    /// Nodes by name.
    pub fn nodes(&self) -> &BTreeMap<String, Node> {
        &self.nodes
    }
}

/// The addresses of a pair that are there.
pub(crate) fn both(v4: Option<Ipv4Addr>, v6: Option<Ipv6Addr>) -> Vec<IpAddr> {
    v4.map(IpAddr::V4).into_iter().chain(v6.map(IpAddr::V6)).collect()
}
