//! What does the agent ask of the policy language's implementation?

mod repository;
mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use abi::identity::Identity;
use abi::policy::{Class, VerdictEntry, VerdictKey};
use ipnet::IpNet;
use labels::Labels;

use crate::hits::Decisions;
use crate::objects::{Key, ServiceLabels};
use crate::ops::PolicyKey;
pub use crate::proxy::Asked;

pub use repository::repository;

/// A policy of one subject as the datapath reads it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tables {
    /// Ingress is enforced.
    pub ingress: bool,
    /// Egress is enforced.
    pub egress: bool,
    /// Identity to class; others belong to class 0.
    pub classes: BTreeMap<Identity, Class>,
    /// Class, direction, protocol and port to verdict.
    pub verdicts: Vec<(VerdictKey, VerdictEntry)>,
    /// Revision of the policies that they are of.
    pub revision: u64,
    /// Rule set to what the proxy asks, of those that redirect.
    pub redirects: Redirects,
    /// Rule set to the rules that it stands for.
    pub decisions: Decisions,
    /// The ports whose connections go to the proxy.
    pub redirected: Arc<BTreeSet<RedirectedPort>>,
}

/// Ports whose connections go to the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RedirectedPort {
    /// Of which direction.
    pub direction: u8,
    /// IP protocol number.
    pub protocol: u8,
    /// The first port.
    pub first: u16,
    /// The last port.
    pub last: u16,
    /// What is read there: `http`, `dns`, ...
    pub reads: &'static str,
    /// The proxy's port.
    pub proxy_port: u16,
}

/// What the proxy asks, by number of the rule set.
pub type Redirects = BTreeMap<u32, Arc<Asked>>;

/// Ports with names: protocol and name, with all numbers that pods of one identity give it.
pub type NamedPorts = BTreeMap<(u8, String), BTreeSet<u16>>;

/// What changed of what needs identities of its own outside of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// Prefixes that policies name (true: from now on, false: no more).
    pub named: BTreeMap<IpNet, bool>,
    /// Addresses with the names and patterns of policies that they were learned for.
    pub learned: BTreeMap<IpAddr, BTreeSet<String>>,
}

/// What changed in the tables of a subject that was resolved.
#[derive(Clone, Debug, PartialEq)]
pub enum TableChange {
    /// A peer belongs to a class that the tables have.
    Class(Identity, Class),
    /// A peer is one of all others again.
    Others(Identity),
    /// New tables in place of the old ones.
    Rebuilt(Box<Tables>),
}

/// Holds policies and identities and resolves them.
pub trait Engine: Send {
    /// Grows with each change of a policy.
    fn revision(&self) -> u64;
    /// Adds or replaces a policy object; what is wrong with it. One with problems leaves the last good state of it.
    fn set_policy(&mut self, key: &PolicyKey, object: &serde_json::Value) -> Vec<String>;
    /// Removes a policy object.
    fn remove_policy(&mut self, key: &PolicyKey);
    /// Adds or replaces a group of prefixes.
    fn set_cidr_group(&mut self, name: &str, group: &crds::CiliumCIDRGroup);
    /// Removes a group of prefixes.
    fn remove_cidr_group(&mut self, name: &str);
    /// A service is there or changed, or gone: its labels, those of its pods, and its backends.
    fn set_service(&mut self, service: &Key, is: Option<(&ServiceLabels, BTreeSet<IpAddr>)>);
    /// Names came to stand for addresses, or do not any more.
    fn set_names(&mut self, change: &fqdn::Change);
    /// An identity is known.
    fn add_identity(&mut self, identity: Identity, labels: &Labels);
    /// An identity is gone.
    fn remove_identity(&mut self, identity: Identity);
    /// What changed since the last call of the prefixes that policies name and the addresses that they know by name.
    fn places(&mut self) -> Places;
    /// Which ports of an identity's pods have names.
    fn set_named_ports(&mut self, identity: Identity, ports: NamedPorts);
    /// The policy of the endpoints of an identity; nothing: the identity is not known. From now on [`Engine::changes`]
    /// tells of it.
    fn resolve(&mut self, subject: Identity) -> Option<Tables>;
    /// What changed in the tables of resolved subjects since the last call: for each subject one list, to be done in order.
    fn changes(&mut self) -> BTreeMap<Identity, Vec<TableChange>>;
    /// The identity has no endpoints on this node any more.
    fn release(&mut self, subject: Identity);
    /// The number of the next new rule set.
    fn next_rule_set(&self) -> u32;
    /// Whether there is a policy object of this name.
    fn has_policy(&self, policy: &policy::PolicyRef) -> bool;
    /// How many policy objects there are.
    fn policy_count(&self) -> usize;
    /// The policies as JSON text.
    fn describe(&self) -> String;
    /// The names and patterns of policies with their addresses.
    fn names(&self) -> Vec<agent_api::NameSelector>;
    /// The rules for an identity that speak of a name.
    fn rules_for_name(&self, subject: Identity, name: &str) -> Vec<String>;
    /// Selectors, what they select and how many rules use them.
    fn selectors(&self) -> Vec<agent_api::Selector>;
}
