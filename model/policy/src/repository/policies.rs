//! Which policies are there, and which of their rules select an identity?

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState as FastHash;

use super::compiled::{Compiled, Rules};
use crate::origin::PolicyRef;
use crate::peer::PeerIdentity;
use crate::rule::{PolicyObject, Subject};

/// A policy with its rules.
pub(super) struct Policy {
    pub object: Arc<PolicyObject>,
    pub rules: Vec<Arc<Compiled>>,
}

/// All policies, by namespace; empty: of the whole cluster.
#[derive(Default)]
pub(super) struct Policies(HashMap<String, Namespace, FastHash>);

#[derive(Default)]
struct Namespace {
    policies: HashMap<PolicyRef, Policy, FastHash>,
    /// Rules by whom they are for, in the order in which they are asked: what many are for is asked once.
    by_subject: HashMap<Subject, Vec<Arc<Compiled>>, FastHash>,
}

impl Policies {
    /// The policies in order of their names.
    pub fn all(&self) -> impl Iterator<Item = &Arc<PolicyObject>> {
        let mut policies: Vec<(&PolicyRef, &Policy)> =
            self.0.values().flat_map(|namespace| &namespace.policies).collect();
        policies.sort_unstable_by_key(|(reference, _)| *reference);
        policies.into_iter().map(|(_, policy)| &policy.object)
    }

    /// A policy.
    pub fn get(&self, reference: &PolicyRef) -> Option<&Policy> {
        self.0.get(&reference.namespace)?.policies.get(reference)
    }

    /// A policy, to be changed without its rules.
    pub fn get_mut(&mut self, reference: &PolicyRef) -> Option<&mut Policy> {
        self.0.get_mut(&reference.namespace)?.policies.get_mut(reference)
    }

    /// Puts a policy in; yields the one of its name that was there.
    pub fn insert(&mut self, policy: Policy) -> Option<Policy> {
        let object = policy.object.clone();
        let reference = &object.reference;
        let namespace = match self.0.get_mut(&reference.namespace) {
            Some(namespace) => namespace,
            None => self.0.entry(reference.namespace.clone()).or_default(),
        };
        policy.rules.iter().for_each(|rule| namespace.add(rule));
        let old = namespace.policies.insert(reference.clone(), policy);
        old.iter().flat_map(|old| &old.rules).for_each(|rule| namespace.forget(rule));
        old
    }

    /// Takes a policy away.
    pub fn remove(&mut self, reference: &PolicyRef) -> Option<Policy> {
        let namespace = self.0.get_mut(&reference.namespace)?;
        let old = namespace.policies.remove(reference)?;
        old.rules.iter().for_each(|rule| namespace.forget(rule));
        if namespace.policies.is_empty() {
            self.0.remove(&reference.namespace);
        }
        Some(old)
    }

    /// The rules that select an identity.
    pub fn selecting(&self, subject: &PeerIdentity) -> Rules {
        let own = Some(subject.labels.namespace().unwrap_or_default()).filter(|own| !own.is_empty());
        let namespaces = [Some(""), own].into_iter().flatten().filter_map(|name| self.0.get(name));
        let all = namespaces.flat_map(|namespace| &namespace.by_subject);
        let selecting = all.filter(|(whom, _)| whom.selects(subject));
        Rules::new(selecting.flat_map(|(_, rules)| rules.iter().cloned()).collect())
    }
}

impl Namespace {
    fn add(&mut self, rule: &Arc<Compiled>) {
        let subject = &rule.rule().subject;
        let rules = match self.by_subject.get_mut(subject) {
            Some(rules) => rules,
            None => self.by_subject.entry(subject.clone()).or_default(),
        };
        let at = rules.partition_point(|one| one.order(rule).is_le());
        rules.insert(at, rule.clone());
    }

    fn forget(&mut self, rule: &Compiled) {
        let subject = &rule.rule().subject;
        let Some(rules) = self.by_subject.get_mut(subject) else { return };
        let from = rules.partition_point(|one| one.order(rule).is_lt());
        if let Some(at) = rules[from..].iter().position(|one| one.number == rule.number) {
            rules.remove(from + at);
        }
        if rules.is_empty() {
            self.by_subject.remove(subject);
        }
    }
}
