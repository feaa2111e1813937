//! What is known of a policy's rule before it is asked for anybody?

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use abi::identity::HOST;
use smallvec::SmallVec;

use super::selectors::SelectorId;
use crate::origin::{Direction, PolicyKind, PolicyRef, RuleOrigin};
use crate::peer::PeerIdentity;
use crate::rule::{PolicyObject, PortRange, Ports, Rule, Subject};

/// A policy's rule with its peer selectors.
pub(super) struct Compiled {
    /// No two rules have the same, not even one that is read again.
    pub number: u64,
    /// Where it stands: the same value wherever it stands in rule sets.
    pub origin: Arc<RuleOrigin>,
    /// For each peer that is not everybody.
    pub selectors: SmallVec<[SelectorId; 2]>,
    /// It names ports that the subject gives numbers.
    pub asks_subject: bool,
    /// It asks something at the application's level.
    pub asks_proxy: bool,
    object: Arc<PolicyObject>,
    at: usize,
}

impl Compiled {
    /// The rule at a place of its policy.
    pub fn new(
        number: u64,
        object: &Arc<PolicyObject>,
        at: usize,
        origin: Arc<RuleOrigin>,
        selectors: SmallVec<[SelectorId; 2]>,
    ) -> Self {
        let rule = &object.rules[at];
        let ports = match &rule.ports {
            Ports::All => &[],
            Ports::Some(ports) => ports.as_slice(),
        };
        let named = ports.iter().any(|port| matches!(port.range, PortRange::Named(_)));
        Compiled {
            number,
            origin,
            selectors,
            asks_subject: named && rule.direction == Direction::Ingress,
            asks_proxy: ports.iter().any(|port| port.l7.is_some()),
            object: object.clone(),
            at,
        }
    }

    /// The rule.
    pub fn rule(&self) -> &Rule {
        &self.object.rules[self.at]
    }

    /// The order in which rules are asked; the names at the end make it the same wherever it is asked for.
    pub fn order(&self, other: &Compiled) -> Ordering {
        let (one, two) = (self.rule(), other.rule());
        (one.tier, one.priority)
            .cmp(&(two.tier, two.priority))
            .then_with(|| by_resource(&self.origin.policy, &other.origin.policy))
            .then_with(|| place(&self.origin).cmp(&place(&other.origin)))
    }
}

/// Denials have sections of their own, behind those of what is allowed.
fn place(origin: &RuleOrigin) -> (usize, bool, usize) {
    (origin.spec, origin.section().ends_with("Deny"), origin.index)
}

/// As `kind/namespace/name` sorts.
fn by_resource(one: &PolicyRef, two: &PolicyRef) -> Ordering {
    if one.kind != two.kind {
        return short(one.kind).cmp(short(two.kind));
    }
    if one.namespace == two.namespace {
        return one.name.cmp(&two.name);
    }
    let text = |policy: &PolicyRef| [policy.namespace.as_str(), "/", &policy.name].concat();
    text(one).cmp(&text(two))
}

fn short(kind: PolicyKind) -> &'static str {
    match kind {
        PolicyKind::CiliumNetworkPolicy => "cnp/",
        PolicyKind::CiliumClusterwideNetworkPolicy => "ccnp/",
        PolicyKind::NetworkPolicy => "netpol/",
        PolicyKind::ClusterNetworkPolicy => "kcnp/",
    }
}

/// The rules that select a subject, in the order in which they are asked. Equal if they are the same rules.
#[derive(Clone, Default)]
pub(super) struct Rules(Arc<[Arc<Compiled>]>);

impl Rules {
    /// These rules, given in any order.
    pub fn new(mut rules: Vec<Arc<Compiled>>) -> Self {
        rules.sort_by(|one, two| one.order(two));
        Rules(rules.into())
    }

    /// True if the rule is among them.
    pub fn has(&self, rule: &Compiled) -> bool {
        self.binary_search_by(|one| one.order(rule)).is_ok_and(|at| {
            let alike = |one: &&Arc<Compiled>| one.order(rule).is_eq();
            let (before, behind) = self.split_at(at);
            let mut near = before.iter().rev().take_while(alike).chain(behind.iter().take_while(alike));
            near.any(|one| one.number == rule.number)
        })
    }
}

impl Deref for Rules {
    type Target = [Arc<Compiled>];

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl PartialEq for Rules {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.iter().map(|one| one.number).eq(other.iter().map(|one| one.number))
    }
}

impl Eq for Rules {}

impl Hash for Rules {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.iter().for_each(|one| one.number.hash(state));
    }
}

impl Subject {
    /// True if the rule is for endpoints of this identity. Rules for nodes are for the own node, rules for endpoints
    /// never are.
    pub fn selects(&self, subject: &PeerIdentity) -> bool {
        match self {
            Subject::Endpoints(selector) => subject.identity != HOST && selector.matches(subject.subject_labels()),
            Subject::Nodes(selector) => subject.identity == HOST && selector.matches(subject.subject_labels()),
        }
    }
}
