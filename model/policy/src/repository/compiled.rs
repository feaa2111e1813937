//! What is known of a policy's rule before it is asked for anybody?

use std::sync::Arc;

use abi::identity::HOST;

use super::selectors::SelectorId;
use crate::origin::{Direction, PolicyKind, PolicyRef};
use crate::peer::PeerIdentity;
use crate::rule::{PolicyObject, PortRange, Ports, Rule, Subject, Tier};

/// A policy's rule with its peer selectors.
pub(super) struct Compiled {
    /// No two rules have the same, not even one that is read again.
    pub number: u64,
    /// Its place among the rules of a subject.
    pub order: Order,
    /// For each peer that is not everybody.
    pub selectors: Vec<SelectorId>,
    /// It names ports that the subject gives numbers.
    pub asks_subject: bool,
    /// It asks something at the application's level.
    pub asks_proxy: bool,
    object: Arc<PolicyObject>,
    at: usize,
}

/// The order in which rules are asked; the names at the end make it the same wherever it is asked for.
pub(super) type Order = (Tier, u32, Box<str>, usize, bool, usize);

impl Compiled {
    /// The rule at a place of its policy.
    pub fn new(number: u64, object: &Arc<PolicyObject>, at: usize, selectors: Vec<SelectorId>) -> Self {
        let rule = &object.rules[at];
        let ports = match &rule.ports {
            Ports::All => &[],
            Ports::Some(ports) => ports.as_slice(),
        };
        let named = ports.iter().any(|port| matches!(port.range, PortRange::Named(_)));
        Compiled {
            number,
            order: order(rule),
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
}

fn order(rule: &Rule) -> Order {
    let origin = &rule.origin;
    let id = resource_id(&origin.policy).into_boxed_str();
    // Denials have sections of their own, behind those of what is allowed.
    let denies = origin.section().ends_with("Deny");
    (rule.tier, rule.priority, id, origin.spec, denies, origin.index)
}

fn resource_id(policy: &PolicyRef) -> String {
    let kind = match policy.kind {
        PolicyKind::CiliumNetworkPolicy => "cnp",
        PolicyKind::CiliumClusterwideNetworkPolicy => "ccnp",
        PolicyKind::NetworkPolicy => "netpol",
        PolicyKind::ClusterNetworkPolicy => "kcnp",
    };
    format!("{kind}/{}/{}", policy.namespace, policy.name)
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
