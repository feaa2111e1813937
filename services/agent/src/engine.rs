//! What does the agent ask of the policy language's implementation?

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use abi::identity::Identity;
use abi::policy::{Class, VerdictEntry, VerdictKey};
use ipnet::IpNet;
use labels::Labels;

use crate::ops::PolicyKey;

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
    /// Rule set to the policies that it stands for.
    pub rule_sets: BTreeMap<u32, Arc<[RulePolicy]>>,
}

/// A policy object that a rule set stands for.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct RulePolicy {
    /// Its kind.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Labels of the rule.
    pub labels: Vec<String>,
    /// Revision in which it came.
    pub revision: u64,
}

/// For whom a policy is made.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subject {
    /// Its identity.
    pub identity: Identity,
    /// Its named ports: name, protocol, number.
    pub ports: BTreeSet<(String, u8, u16)>,
}

/// A policy object, as the API gives it.
#[derive(Clone, Debug)]
pub enum PolicyObject {
    /// CiliumNetworkPolicy
    Cilium(Box<crds::CiliumNetworkPolicy>),
    /// CiliumClusterwideNetworkPolicy
    CiliumClusterwide(Box<crds::CiliumClusterwideNetworkPolicy>),
    /// NetworkPolicy
    Kubernetes(Box<crds::NetworkPolicy>),
}

/// Holds policies and identities and resolves them.
pub trait Engine: Send {
    /// Grows with each change of a policy.
    fn revision(&self) -> u64;
    /// Adds or replaces a policy object; what is wrong with it. Rules without problems count, the others are left out.
    fn set_policy(&mut self, key: &PolicyKey, object: PolicyObject) -> Vec<String>;
    /// Removes a policy object.
    fn remove_policy(&mut self, key: &PolicyKey);
    /// Adds or replaces a group of prefixes.
    fn set_cidr_group(&mut self, name: &str, group: &crds::CiliumCIDRGroup);
    /// Removes a group of prefixes.
    fn remove_cidr_group(&mut self, name: &str);
    /// An identity is known.
    fn add_identity(&mut self, identity: Identity, labels: &Labels);
    /// An identity is gone.
    fn remove_identity(&mut self, identity: Identity);
    /// Every prefix that policies name, each of which needs an identity, with the labels for it.
    fn prefixes(&self) -> BTreeMap<IpNet, Labels>;
    /// A subject's policy.
    fn resolve(&self, subject: &Subject) -> Tables;
    /// The policies as JSON text.
    fn describe(&self) -> String;
    /// Selectors, what they select and how many rules use them.
    fn selectors(&self) -> Vec<agent_api::Selector>;
}

/// The implementation over the policy language's repository.
pub fn repository(_: &crate::config::Settings) -> Result<Box<dyn Engine>, String> {
    Err("the policy repository is not joined yet".into())
}
