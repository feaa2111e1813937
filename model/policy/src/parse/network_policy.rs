//! Which rules does Kubernetes' own NetworkPolicy say?

use std::sync::Arc;

use labels::{Labels, NAMESPACE_LABELS, Operator, POD_NAMESPACE, Selector, SelectorKey, source, validate};

use super::cilium::derived_labels;
use super::ports::{is_service_name, numbers};
use super::prefix::parse_prefix;
use super::{Owner, Reader};
use crate::origin::{Direction, RuleOrigin};
use crate::peer::{CidrSet, Peer};
use crate::rule::{Effect, PortRange, PortSpec, Ports, Rule, Subject, Tier, protocol};
use crate::settings::SchemaMode;

/// What all rules of the policy have in common.
struct Common<'a> {
    owner: &'a Owner<'a>,
    subject: Subject,
    labels: Labels,
}

impl Reader<'_> {
    /// The rules of the policy.
    pub(super) fn network_policy(&mut self, owner: &Owner<'_>, spec: Option<&crds::NetworkPolicySpec>) -> Vec<Rule> {
        let none = crds::NetworkPolicySpec::default();
        let spec = spec.unwrap_or(&none);
        let namespace = &owner.reference.namespace;
        let Some(subject) = self.k8s_selector("spec.podSelector", &spec.pod_selector, "") else { return Vec::new() };
        let subject = Subject::Endpoints(subject.and_label(source::K8S, POD_NAMESPACE, namespace));
        let common = Common { owner, subject, labels: derived_labels(owner).into_iter().collect() };
        let mut rules = Vec::new();
        for (index, rule) in spec.ingress.iter().flatten().enumerate() {
            let path = format!("spec.ingress[{index}]");
            let peers = self.k8s_peers(&format!("{path}.from"), namespace, rule.from.as_deref());
            let ports = self.k8s_ports(&path, rule.ports.as_deref());
            rules.push(common.rule(Direction::Ingress, index, peers, ports));
        }
        for (index, rule) in spec.egress.iter().flatten().enumerate() {
            let path = format!("spec.egress[{index}]");
            let peers = self.k8s_peers(&format!("{path}.to"), namespace, rule.to.as_deref());
            let ports = self.k8s_ports(&path, rule.ports.as_deref());
            rules.push(common.rule(Direction::Egress, index, peers, ports));
        }
        rules.extend(self.closed(&common, spec));
        rules
    }

    /// Directions that the policy closes without a rule.
    fn closed(&self, common: &Common<'_>, spec: &crds::NetworkPolicySpec) -> Vec<Rule> {
        let named = |name: &str| spec.policy_types.iter().flatten().any(|one| one == name);
        let without = |count: Option<usize>| count.unwrap_or(0) == 0;
        let ingress = named("Ingress") || !named("Egress");
        let mut rules = Vec::new();
        if without(spec.ingress.as_ref().map(Vec::len)) && ingress {
            rules.push(common.rule(Direction::Ingress, 0, Vec::new(), Ports::All));
        }
        if without(spec.egress.as_ref().map(Vec::len)) && named("Egress") {
            rules.push(common.rule(Direction::Egress, 0, Vec::new(), Ports::All));
        }
        rules
    }

    fn k8s_peers(&mut self, path: &str, namespace: &str, peers: Option<&[crds::NetworkPolicyPeer]>) -> Vec<Peer> {
        let peers = peers.unwrap_or_default();
        if peers.is_empty() {
            return vec![Peer::All];
        }
        let peers = peers.iter().enumerate();
        let mut read: Vec<Peer> =
            peers.flat_map(|(at, peer)| self.k8s_peer(&format!("{path}[{at}]"), namespace, peer)).collect();
        read.sort();
        read.dedup();
        read
    }

    fn k8s_peer(&mut self, path: &str, namespace: &str, peer: &crds::NetworkPolicyPeer) -> Vec<Peer> {
        self.k8s_peer_of(path, namespace, peer).unwrap_or_default()
    }

    fn k8s_peer_of(&mut self, path: &str, namespace: &str, peer: &crds::NetworkPolicyPeer) -> Option<Vec<Peer>> {
        let selects = peer.pod_selector.is_some() || peer.namespace_selector.is_some();
        match &peer.ip_block {
            Some(_) if selects => {
                self.refuse(path, "may not specify both ipBlock and another peer");
                return None;
            }
            Some(block) => return self.ip_block(&format!("{path}.ipBlock"), block).map(|set| vec![Peer::Cidr(set)]),
            None if !selects => {
                self.refuse(path, "must specify a peer: podSelector, namespaceSelector or ipBlock");
                return None;
            }
            None => {}
        }
        let everything = crds::LabelSelector::default();
        let pods = peer.pod_selector.as_ref().unwrap_or(&everything);
        let pods = self.k8s_selector(&format!("{path}.podSelector"), pods, "")?;
        let Some(namespaces) = &peer.namespace_selector else {
            let selector = pods.and_label(source::K8S, POD_NAMESPACE, namespace);
            return Some(Peer::of_selector(self.in_own_cluster(selector)));
        };
        let namespaces = self.k8s_namespaces(&format!("{path}.namespaceSelector"), namespaces)?;
        let both = pods.requirements().iter().chain(namespaces.requirements()).cloned();
        Some(Peer::of_selector(self.in_own_cluster(Selector::new(both))))
    }

    /// Unlike in Cilium's kinds, nothing may be left out that is all of the block.
    fn ip_block(&mut self, path: &str, block: &crds::IpBlock) -> Option<CidrSet> {
        let set = self.prefix_without(path, &block.cidr, block.except.as_deref().unwrap_or_default())?;
        if self.settings.schema == SchemaMode::Reject && set.except.contains(&set.prefix) {
            let at = block.except.iter().flatten().position(|text| parse_prefix(text) == Some(set.prefix));
            let message =
                format!("{} must be a strict subset of cidr {}: it leaves nothing of it", set.prefix, set.prefix);
            self.refuse(format!("{path}.except[{}]", at.unwrap_or(0)), message);
        }
        Some(set)
    }

    /// Pods by labels of their namespaces; all that are in one if there are no conditions.
    pub(super) fn k8s_namespaces(&mut self, path: &str, selector: &crds::LabelSelector) -> Option<Selector> {
        let namespaces = self.k8s_selector(path, selector, NAMESPACE_LABELS)?;
        if namespaces.is_everything() {
            return Some(namespaces.and(SelectorKey::new(source::K8S, POD_NAMESPACE), Operator::Exists));
        }
        Some(namespaces)
    }

    /// A selector whose keys are Kubernetes' own; `prefix` stands before each.
    pub(super) fn k8s_selector(
        &mut self,
        path: &str,
        selector: &crds::LabelSelector,
        prefix: &str,
    ) -> Option<Selector> {
        let read_key = |key: &str| match validate::key_problem(key) {
            Some(why) => Err(labels::SelectorError::Key(why)),
            None if prefix.is_empty() => Ok(SelectorKey::new(source::K8S, key)),
            None => Ok(SelectorKey::new(source::K8S, format!("{prefix}.{key}"))),
        };
        match selector.parse_with(read_key) {
            Ok(selector) => Some(selector),
            Err(problems) => {
                for (below, error) in problems {
                    self.refuse(format!("{path}.{below}"), error.to_string());
                }
                None
            }
        }
    }

    fn k8s_ports(&mut self, path: &str, ports: Option<&[crds::NetworkPolicyPort]>) -> Ports {
        let ports = ports.unwrap_or_default();
        if ports.is_empty() {
            return Ports::All;
        }
        let ports = ports.iter().enumerate();
        Ports::Some(ports.filter_map(|(at, port)| self.k8s_port(&format!("{path}.ports[{at}]"), port)).collect())
    }

    fn k8s_port(&mut self, path: &str, port: &crds::NetworkPolicyPort) -> Option<PortSpec> {
        let protocol = match port.protocol.as_deref().unwrap_or("TCP") {
            "TCP" => protocol::TCP,
            "UDP" => protocol::UDP,
            "SCTP" => protocol::SCTP,
            other => {
                self.refuse(format!("{path}.protocol"), format!("{other:?} is not TCP, UDP or SCTP"));
                return None;
            }
        };
        let range = match &port.port {
            None if port.end_port.is_some() => {
                self.refuse(format!("{path}.endPort"), "it needs a port, where the range begins");
                return None;
            }
            None => PortRange::All,
            Some(crds::IntOrString::Int(number)) => self.k8s_range(path, *number, port.end_port)?,
            Some(crds::IntOrString::String(name)) if is_service_name(name) && port.end_port.is_none() => {
                PortRange::Named(name.to_ascii_lowercase())
            }
            Some(crds::IntOrString::String(name)) => {
                self.refuse(
                    format!("{path}.port"),
                    format!("{name:?} is not the name of a port, or it has an endPort"),
                );
                return None;
            }
        };
        let written_end = port.end_port.and_then(|end| u16::try_from(end).ok()).unwrap_or(0);
        Some(PortSpec { written_end, ..PortSpec::new(protocol, range) })
    }

    fn k8s_range(&mut self, path: &str, first: i64, last: Option<i32>) -> Option<PortRange> {
        let last = last.map_or(first, i64::from);
        let (Ok(low), Ok(high)) = (u16::try_from(first), u16::try_from(last)) else {
            self.refuse(path, format!("ports {first} to {last} are not numbers from 1 to 65535"));
            return None;
        };
        if low == 0 || high < low {
            self.refuse(
                path,
                format!("ports {low} to {high}: must be between 1 and 65535, and endPort not before port"),
            );
            return None;
        }
        Some(numbers(low, high))
    }
}

impl Common<'_> {
    fn rule(&self, direction: Direction, index: usize, peers: Vec<Peer>, ports: Ports) -> Rule {
        let origin = RuleOrigin {
            policy: self.owner.reference.clone(),
            uid: self.owner.uid.to_owned(),
            direction,
            deny: false,
            spec: 0,
            index,
            labels: self.labels.clone(),
            log: String::new(),
            line: 0,
        };
        Rule {
            origin: Arc::new(origin),
            subject: self.subject.clone(),
            direction,
            tier: Tier::Normal,
            priority: 0,
            effect: Effect::Allow,
            auth: None,
            default_deny: true,
            peers,
            ports,
        }
    }
}
