//! What is an endpoint of this node, and how does its identity follow from its pod?

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use abi::identity::{self, Identity};
use labels::{Labels, Workload, is_named_ports_label, named_port_labels, workload_labels};
use serde::{Deserialize, Serialize};

use super::{Core, both};
use crate::engine::NamedPorts;
use crate::ipcache::Teller;
use crate::objects::{Key, Pod, protocol_number};
use crate::ops::Op;

/// What kind of thing it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
pub enum Kind {
    /// A pod.
    #[default]
    Pod,
    /// The node's health endpoint.
    Health,
    /// The node itself.
    Host,
}

/// What is remembered of an endpoint across restarts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct EndpointRecord {
    /// Its number on this node.
    pub id: u32,
    /// What kind of thing it is.
    pub kind: Kind,
    /// Container and device.
    pub attachment: String,
    /// The runtime's name of the container.
    pub container_id: String,
    /// The device inside.
    pub container_device: String,
    /// The pod's namespace; empty if it is none.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's UID, if the runtime said it.
    pub uid: String,
    /// Number of the host's side.
    pub ifindex: u32,
    /// Name of the host's side.
    pub device: String,
    /// Ethernet address of the container's side.
    pub mac: [u8; 6],
    /// Ethernet address of the host's side.
    pub node_mac: [u8; 6],
    /// Its IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
    /// Its IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
    /// Number of its network namespace.
    pub netns_cookie: String,
    /// Its identity.
    pub identity: Identity,
    /// The labels of that identity.
    pub labels: Labels,
}

/// Where an endpoint is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its pod or the number for its labels is not known yet.
    WaitingForIdentity,
    /// Its policy is being made.
    Regenerating,
    /// Its policy could not be written; it may do nothing.
    NotReady,
    /// All is in place.
    Ready,
}

impl State {
    /// As the API names it.
    pub fn as_str(self) -> &'static str {
        match self {
            State::WaitingForIdentity => "waiting-for-identity",
            State::Regenerating => "regenerating",
            State::NotReady => "not-ready",
            State::Ready => "ready",
        }
    }
}

/// What the datapath was told of an endpoint's policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Slot of the tables.
    pub slot: u32,
    /// Revision that connections remember.
    pub revision: u32,
    /// Ingress is enforced.
    pub ingress: bool,
    /// Egress is enforced.
    pub egress: bool,
    /// Revision of the policy repository for which the tables were made; 0: an earlier run's.
    pub realized: u64,
}

/// An endpoint of this node.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// What is remembered of it.
    pub record: EndpointRecord,
    /// Where it is in its life.
    pub state: State,
    /// Its policy in the datapath.
    pub applied: Applied,
    /// The endpoint as the datapath has it.
    pub written: Option<abi::endpoint::Endpoint>,
    /// Its CiliumEndpoint as it was last published.
    pub published: Option<Box<crds::CiliumEndpoint>>,
    /// It had its identity in an earlier run, and keeps what that says of named ports.
    pub restored: bool,
}

impl Endpoint {
    /// Namespace and name of its pod.
    pub fn pod(&self) -> Option<Key> {
        let is_pod = self.record.kind == Kind::Pod && !self.record.pod.is_empty();
        is_pod.then(|| (self.record.namespace.clone(), self.record.pod.clone()))
    }

    /// Its addresses.
    pub fn addresses(&self) -> Vec<IpAddr> {
        both(self.record.ipv4, self.record.ipv6)
    }

    /// The endpoint as the datapath is to have it.
    pub(super) fn value(&self) -> abi::endpoint::Endpoint {
        let host = if self.record.kind == Kind::Host { abi::endpoint::FLAG_HOST } else { 0 };
        let not_ready =
            if self.applied.slot == 0 && self.record.kind != Kind::Host { abi::endpoint::FLAG_NOT_READY } else { 0 };
        abi::endpoint::Endpoint {
            ifindex: if self.record.kind == Kind::Host { 0 } else { self.record.ifindex },
            id: self.record.id,
            identity: self.record.identity,
            flags: host | not_ready,
            mac: abi::Mac(self.record.mac),
            node_mac: abi::Mac(self.record.node_mac),
            pad: 0,
        }
    }
}

impl Core {
    /// All endpoints by number.
    pub fn endpoints(&self) -> &BTreeMap<u32, Endpoint> {
        &self.endpoints
    }

    /// The pod of an endpoint, if it is known and the same that the runtime spoke of.
    pub fn pod_of(&self, endpoint: &Endpoint) -> Option<&Pod> {
        let pod = self.pods.get(&endpoint.pod()?)?;
        let uid = &endpoint.record.uid;
        (uid.is_empty() || pod.uid.is_empty() || *uid == pod.uid).then_some(pod)
    }

    /// Takes a new endpoint in. It may do nothing until a flush has given it a policy.
    pub fn add_endpoint(&mut self, record: EndpointRecord) {
        self.insert(record, Applied::default(), false);
    }

    /// Takes an endpoint of an earlier run in, with the policy that the datapath has for it.
    pub fn restore_endpoint(&mut self, record: EndpointRecord) {
        let applied = self.slots.restored(record.id);
        let had_identity = ![identity::UNKNOWN, identity::INIT].contains(&record.identity);
        self.insert(record, applied, had_identity);
    }

    fn insert(&mut self, mut record: EndpointRecord, applied: Applied, restored: bool) {
        match record.kind {
            Kind::Health => (record.identity, record.labels) = (identity::HEALTH, Labels::reserved("health")),
            Kind::Host => (record.identity, record.labels) = (identity::HOST, Labels::reserved("host")),
            Kind::Pod if record.identity == identity::UNKNOWN => {
                (record.identity, record.labels) = (identity::INIT, Labels::reserved("init"));
            }
            Kind::Pod => {}
        }
        let id = record.id;
        let state = if record.identity == identity::INIT { State::WaitingForIdentity } else { State::Regenerating };
        self.know_identity_of(&record);
        self.queue.push(Op::Persist(Box::new(record.clone())));
        self.endpoints.insert(id, Endpoint { record, state, applied, written: None, published: None, restored });
        self.ports_changed();
        self.unsaid.own = true;
        self.refresh_labels(id);
    }

    /// A restored endpoint keeps its identity and policy also if the cluster has lost the number meanwhile.
    fn know_identity_of(&mut self, record: &EndpointRecord) {
        if record.kind == Kind::Pod && !self.identities.contains_key(&record.identity) {
            self.add_identity(record.identity, record.labels.clone());
            self.unconfirmed.insert(record.identity);
        }
    }

    /// Everything is listed: numbers that the cluster does not know are asked for again.
    pub(super) fn confirm_identities(&mut self) {
        for number in std::mem::take(&mut self.unconfirmed) {
            self.identity_gone(number);
        }
    }

    /// An endpoint is gone; false: there was none.
    pub fn remove_endpoint(&mut self, id: u32) -> bool {
        let Some(endpoint) = self.endpoints.remove(&id) else { return false };
        let addresses = endpoint.addresses();
        self.queue.push(Op::RemoveEndpoint(addresses.clone(), endpoint.record.ifindex));
        self.queue.push(Op::UsePolicy(id, abi::endpoint::EndpointPolicy::default()));
        self.queue.extend(addresses.iter().copied().map(Op::ForgetConnections));
        self.queue.push(Op::Forget(id));
        self.forget_names(id);
        self.unsaid.gone.push(Teller::Endpoint(id));
        if let Some(key) = endpoint.pod() {
            self.queue.push(Op::Unpublish(key, addresses));
        }
        self.ports_changed();
        self.unsaid.own = true;
        true
    }

    /// A number that no endpoint has; `start` spreads them.
    pub fn free_endpoint_id(&self, start: u32) -> Option<u32> {
        (0..65535).map(|step| (start.wrapping_add(step)) % 65535 + 1).find(|id| !self.endpoints.contains_key(id))
    }

    pub(super) fn set_pod(&mut self, key: Key, pod: Pod) {
        if self.pods.insert(key.clone(), pod.clone()).as_ref() != Some(&pod) {
            let of_pod = self.endpoints.values().filter(|e| e.pod().as_ref() == Some(&key));
            let ids: Vec<u32> = of_pod.map(|e| e.record.id).collect();
            if !ids.is_empty() {
                self.ports_changed();
            }
            ids.into_iter().for_each(|id| self.refresh_labels(id));
        }
    }

    pub(super) fn set_namespace(&mut self, name: String, labels: BTreeMap<String, String>) {
        if self.namespaces.insert(name.clone(), labels.clone()).as_ref() != Some(&labels) {
            let within = self.endpoints.values().filter(|e| e.record.namespace == name);
            let ids: Vec<u32> = within.map(|e| e.record.id).collect();
            ids.into_iter().for_each(|id| self.refresh_labels(id));
        }
    }

    pub(super) fn refresh_all_labels(&mut self) {
        let ids: Vec<u32> = self.endpoints.keys().copied().collect();
        ids.into_iter().for_each(|id| self.refresh_labels(id));
    }

    /// The labels that an endpoint's identity is to have, if its pod and namespace are known.
    pub(super) fn wanted_labels(&self, endpoint: &Endpoint) -> Option<Labels> {
        let pod = self.pod_of(endpoint)?;
        let namespace_labels = self.namespaces.get(&endpoint.record.namespace)?;
        let workload = Workload {
            labels: &pod.labels,
            namespace: &endpoint.record.namespace,
            namespace_labels,
            service_account: &pod.service_account,
            cluster: &self.facts.cluster,
        };
        let labels = workload_labels(&workload, &self.facts.filter);
        // As in Cilium (`FetchK8sMetadataForEndpoint`), an endpoint gets these with its first identity: one that had none
        // before an upgrade goes on without.
        if !endpoint.restored {
            return Some(labels.with(named_port_labels(&ports_by_name(pod))));
        }
        let kept = endpoint.record.labels.iter().filter(|label| is_named_ports_label(label)).cloned();
        Some(labels.with(kept.collect::<Vec<_>>()))
    }

    fn refresh_labels(&mut self, id: u32) {
        let Some(endpoint) = self.endpoints.get(&id) else { return };
        let Some(labels) = self.wanted_labels(endpoint) else { return };
        if endpoint.record.labels == labels {
            return;
        }
        // Of several numbers for the same labels everybody takes the lowest.
        match self.numbers.get(&labels).and_then(|numbers| numbers.first().copied()) {
            Some(number) => self.set_identity(id, number, labels),
            None => {
                if let Some(endpoint) = self.endpoints.get_mut(&id) {
                    endpoint.state = State::WaitingForIdentity;
                }
                self.request_identity(labels);
            }
        }
    }

    fn request_identity(&mut self, labels: Labels) {
        if self.requested.insert(labels.clone()) {
            self.queue.push(Op::AllocateIdentity(labels));
        }
    }

    fn set_identity(&mut self, id: u32, number: Identity, labels: Labels) {
        let Some(endpoint) = self.endpoints.get_mut(&id) else { return };
        endpoint.record.identity = number;
        endpoint.record.labels = labels;
        endpoint.state = State::Regenerating;
        self.queue.push(Op::Persist(Box::new(endpoint.record.clone())));
        self.ports_changed();
        self.unsaid.own = true;
    }

    /// A number stands for these labels; what it stood for before.
    pub(super) fn know_labels(&mut self, number: Identity, labels: Labels) -> Option<Labels> {
        self.unseen.identities.insert(number);
        self.identities.insert(number, labels)
    }

    pub(super) fn forget_labels(&mut self, number: Identity) {
        self.unseen.identities.insert(number);
        self.identities.remove(&number);
    }

    pub(super) fn add_reserved(&mut self) {
        for (number, _) in ::identity::RESERVED {
            if let Some(labels) = ::identity::reserved_labels(*number)
                && *number != identity::UNKNOWN
            {
                self.engine.add_identity(*number, &labels);
                self.know_labels(*number, labels);
            }
        }
    }

    pub(super) fn add_identity(&mut self, number: Identity, labels: Labels) {
        self.unconfirmed.remove(&number);
        if self.identities.get(&number) == Some(&labels) {
            return;
        }
        match self.know_labels(number, labels.clone()) {
            Some(earlier) => self.forget_number(&earlier, number),
            None => {
                self.fresh.insert(number);
            }
        }
        self.numbers.entry(labels.clone()).or_default().insert(number);
        self.engine.add_identity(number, &labels);
        self.dirty.policies = true;
        self.leave_number(number, &labels);
    }

    /// A number stands for other labels than those of endpoints that have it: they need another one, and until then they
    /// are nobody.
    fn leave_number(&mut self, number: Identity, labels: &Labels) {
        let wrong = |e: &&Endpoint| e.record.identity == number && e.record.labels != *labels;
        let ids: Vec<u32> = self.endpoints.values().filter(wrong).map(|e| e.record.id).collect();
        for id in ids {
            self.set_identity(id, identity::INIT, Labels::reserved("init"));
            if let Some(endpoint) = self.endpoints.get_mut(&id) {
                endpoint.state = State::WaitingForIdentity;
            }
            self.refresh_labels(id);
        }
    }

    fn forget_number(&mut self, labels: &Labels, number: Identity) {
        if let Some(numbers) = self.numbers.get_mut(labels) {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.numbers.remove(labels);
            }
        }
    }

    /// A number that an endpoint has is made again; others are forgotten.
    pub(super) fn identity_gone(&mut self, number: Identity) {
        let Some(labels) = self.identities.get(&number).cloned() else { return };
        if self.endpoints.values().any(|e| e.record.identity == number) {
            self.request_identity(labels);
            return;
        }
        self.forget_labels(number);
        self.forget_number(&labels, number);
        self.engine.remove_identity(number);
        self.dirty.policies = true;
    }

    pub(super) fn allocated(&mut self, labels: &Labels, answer: Result<Identity, String>) {
        self.requested.remove(labels);
        let Ok(number) = answer else {
            // Asked again as long as somebody needs it.
            let ids: Vec<u32> = self.waiting_for(labels);
            if !ids.is_empty() {
                self.request_identity(labels.clone());
            }
            return;
        };
        self.add_identity(number, labels.clone());
        for id in self.waiting_for(labels) {
            self.set_identity(id, number, labels.clone());
        }
    }

    fn waiting_for(&self, labels: &Labels) -> Vec<u32> {
        let wants = |e: &&Endpoint| self.wanted_labels(e).as_ref() == Some(labels);
        self.endpoints.values().filter(wants).map(|e| e.record.id).collect()
    }

    /// The identity for which an endpoint's policy is made; nothing: it has none.
    pub(super) fn subject(endpoint: &Endpoint) -> Option<Identity> {
        (endpoint.record.kind != Kind::Host).then_some(endpoint.record.identity)
    }

    /// Named ports of all pods by their identity.
    pub(super) fn named_ports(&self) -> BTreeMap<Identity, NamedPorts> {
        let mut all: BTreeMap<Identity, NamedPorts> = BTreeMap::new();
        let mut add = |identity, protocol, name: &String, port| {
            let ports = all.entry(identity).or_default();
            ports.entry((protocol, name.clone())).or_default().insert(port);
        };
        for endpoint in self.endpoints.values() {
            let ports = self.pod_of(endpoint).map(ports_by_name).unwrap_or_default();
            for (name, (protocol, port)) in &ports {
                if let Some(protocol) = protocol_number(Some(protocol)) {
                    add(endpoint.record.identity, protocol, name, *port);
                }
            }
        }
        for pod in self.remote_pods.values() {
            for (protocol, name, port) in &pod.ports {
                if let Some(identity) = pod.identity {
                    add(identity, *protocol, name, *port);
                }
            }
        }
        all
    }
}

/// The ports of a pod that have names, in lower case; of several with one name the last one counts.
fn ports_by_name(pod: &Pod) -> BTreeMap<String, (&str, u16)> {
    let ports = pod.ports.iter().map(|(name, port, protocol)| (name.to_ascii_lowercase(), (protocol.as_str(), *port)));
    ports.filter(|(name, (_, port))| policy::is_port_name(name) && *port > 0).collect()
}
