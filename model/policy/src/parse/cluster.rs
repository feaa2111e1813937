//! Which rules does a ClusterNetworkPolicy say?

use std::sync::Arc;

use labels::{Labels, Operator, Selector, SelectorKey, source};

use super::cilium::derived_labels;
use super::ports::numbers;
use super::{Owner, Reader};
use crate::origin::{Direction, RuleOrigin};
use crate::peer::{CidrSet, Learned, Peer};
use crate::rule::{Effect, L7, PortRange, PortSpec, Ports, Rule, Subject, Tier, protocol};
use crate::settings::SchemaMode;

/// Priorities of objects are this far apart, so that the rules of one object have places of their own in between.
const RULES: u32 = 100;

/// What all rules of the policy have in common.
struct Common<'a> {
    owner: &'a Owner<'a>,
    tier: Tier,
    priority: u32,
    subject: Subject,
    labels: Labels,
}

/// What one peer of a rule comes to.
enum Peers {
    /// These.
    Are(Vec<Peer>),
    /// Names, which DNS has to be asked for.
    Names(Vec<Learned>, Vec<crds::DnsRule>),
    /// It is none that is known.
    Unknown,
}

impl Reader<'_> {
    /// The rules of the policy.
    pub(super) fn cluster_network_policy(
        &mut self,
        owner: &Owner<'_>,
        spec: &crds::ClusterNetworkPolicySpec,
    ) -> Vec<Rule> {
        let tier = if spec.tier == "Baseline" { Tier::Baseline } else { Tier::Admin };
        let Some(subject) = self.cluster_subject(&spec.subject) else { return Vec::new() };
        let priority = u32::try_from(spec.priority).unwrap_or(0) * RULES;
        let labels = derived_labels(owner).into_iter().collect();
        let common = Common { owner, tier, priority, subject: Subject::Endpoints(subject), labels };
        let mut rules = Vec::new();
        for (index, rule) in spec.ingress.iter().flatten().enumerate() {
            let path = format!("spec.ingress[{index}]");
            let Some(effect) = self.action(&path, &rule.action) else { continue };
            let ports = self.protocols(&path, rule.protocols.as_deref());
            let peers = rule.from.iter().flatten().enumerate().filter_map(|(at, peer)| {
                self.cluster_pods(&format!("{path}.from[{at}]"), peer.pods.as_ref(), peer.namespaces.as_ref())
            });
            let peers: Vec<Peers> = peers.collect();
            let place = common.place(Direction::Ingress, index, effect, ports);
            rules.extend(place.rules(peers, rule.from.as_ref().is_none_or(Vec::is_empty)));
        }
        for (index, rule) in spec.egress.iter().flatten().enumerate() {
            let path = format!("spec.egress[{index}]");
            let Some(effect) = self.action(&path, &rule.action) else { continue };
            let ports = self.protocols(&path, rule.protocols.as_deref());
            self.check_named_ports(&path, rule);
            let peers = rule.to.iter().flatten().enumerate();
            let peers: Vec<Peers> =
                peers.filter_map(|(at, peer)| self.cluster_peer(&format!("{path}.to[{at}]"), effect, peer)).collect();
            let place = common.place(Direction::Egress, index, effect, ports);
            rules.extend(place.rules(peers, rule.to.as_ref().is_none_or(Vec::is_empty)));
        }
        rules
    }

    fn cluster_subject(&mut self, subject: &crds::ClusterNetworkPolicySubject) -> Option<Selector> {
        match (&subject.namespaces, &subject.pods) {
            (Some(namespaces), _) => self.k8s_namespaces("spec.subject.namespaces", namespaces),
            (None, Some(pods)) => self.namespaced_pods("spec.subject.pods", pods),
            (None, None) => {
                self.refuse("spec.subject", "one of namespaces and pods must be set");
                None
            }
        }
    }

    fn namespaced_pods(&mut self, path: &str, pods: &crds::NamespacedPod) -> Option<Selector> {
        let namespaces = self.k8s_namespaces(&format!("{path}.namespaceSelector"), &pods.namespace_selector)?;
        let pods = self.k8s_selector(&format!("{path}.podSelector"), &pods.pod_selector, "")?;
        Some(Selector::new(pods.requirements().iter().chain(namespaces.requirements()).cloned()))
    }

    fn action(&mut self, path: &str, action: &str) -> Option<Effect> {
        match action {
            "Accept" => Some(Effect::Allow),
            "Deny" => Some(Effect::Deny),
            "Pass" => Some(Effect::Pass),
            other => {
                self.refuse(format!("{path}.action"), format!("{other:?} is not Accept, Deny or Pass"));
                None
            }
        }
    }

    fn cluster_pods(
        &mut self,
        path: &str,
        pods: Option<&crds::NamespacedPod>,
        namespaces: Option<&crds::LabelSelector>,
    ) -> Option<Peers> {
        if let Some(pods) = pods {
            let selector = self.namespaced_pods(&format!("{path}.pods"), pods)?;
            return Some(Peers::Are(Peer::of_selector(self.in_own_cluster(selector))));
        }
        match namespaces {
            Some(namespaces) => {
                let selector = self.k8s_namespaces(&format!("{path}.namespaces"), namespaces)?;
                Some(Peers::Are(Peer::of_selector(selector)))
            }
            None => Some(Peers::Unknown),
        }
    }

    fn cluster_peer(
        &mut self,
        path: &str,
        effect: Effect,
        peer: &crds::ClusterNetworkPolicyEgressPeer,
    ) -> Option<Peers> {
        if let Some(nodes) = &peer.nodes {
            return self.cluster_nodes(&format!("{path}.nodes"), nodes);
        }
        if let Some(networks) = &peer.networks {
            let networks = networks.iter().enumerate();
            let peers = networks.filter_map(|(at, cidr)| self.network(&format!("{path}.networks[{at}]"), cidr));
            return Some(Peers::Are(peers.collect()));
        }
        if let Some(names) = &peer.domain_names {
            return self.domain_names(&format!("{path}.domainNames"), effect, names);
        }
        self.cluster_pods(path, peer.pods.as_ref(), peer.namespaces.as_ref())
    }

    /// What the API server asks of rules besides their schema.
    fn check_named_ports(&mut self, path: &str, rule: &crds::ClusterNetworkPolicyEgressRule) {
        let has_names = rule.protocols.iter().flatten().any(|one| one.destination_named_port.is_some());
        let is_no_pod = |peer: &crds::ClusterNetworkPolicyEgressPeer| {
            peer.networks.is_some() || peer.nodes.is_some() || peer.domain_names.is_some()
        };
        if self.settings.schema == SchemaMode::Reject && has_names && rule.to.iter().flatten().any(is_no_pod) {
            self.refuse(
                path,
                "networks, nodes and domainNames have no named ports: destinationNamedPort is for pods only",
            );
        }
    }

    fn cluster_nodes(&mut self, path: &str, nodes: &crds::LabelSelector) -> Option<Peers> {
        if !self.settings.node_selector_labels {
            self.refuse(path, "egress.to.nodes is not supported since node selector labels are disabled");
        }
        let read = |key: &str| match labels::validate::key_problem(key) {
            Some(why) => Err(labels::SelectorError::Key(why)),
            None => Ok(SelectorKey::new(source::NODE, key)),
        };
        let selector = match nodes.parse_with(read) {
            Ok(selector) => selector,
            Err(problems) => {
                for (below, error) in problems {
                    self.refuse(format!("{path}.{below}"), error.to_string());
                }
                return None;
            }
        };
        let of_kind = |kind: &str| {
            let nodes = selector.clone().and(SelectorKey::new(source::RESERVED, kind), Operator::Exists);
            Peer::Labels(self.in_own_cluster(nodes))
        };
        Some(Peers::Are(vec![of_kind("host"), of_kind("remote-node")]))
    }

    fn network(&mut self, path: &str, cidr: &str) -> Option<Peer> {
        let Ok(prefix) = cidr.parse::<ipnet::IpNet>() else {
            self.refuse(path, format!("unable to parse CIDR: {cidr:?} is not a prefix like 192.0.2.0/24"));
            return None;
        };
        Some(Peer::Cidr(CidrSet::new(prefix, [])))
    }

    /// Names: a star in front stands for any number of labels.
    fn domain_names(&mut self, path: &str, effect: Effect, names: &[String]) -> Option<Peers> {
        if effect != Effect::Allow {
            self.refuse(path, "egress.to.domainNames is only supported for egress.action=Accept");
            return None;
        }
        if !self.settings.l7_proxy {
            self.refuse(path, "egress.to.domainNames is not supported since L7 proxy is disabled");
            return None;
        }
        let (mut learned, mut asked) = (Vec::new(), Vec::new());
        for (at, name) in names.iter().enumerate() {
            let bare = name.strip_prefix("*.").unwrap_or(name);
            let bare = bare.strip_suffix('.').unwrap_or(bare);
            let is_name = bare.contains('.') && bare.split('.').all(|part| !part.is_empty()) && !bare.contains('*');
            if self.settings.schema == SchemaMode::Reject && !is_name {
                let message = format!("{name:?} is not a name of two or more labels, with *. in front or without");
                self.refuse(format!("{path}[{at}]"), message);
            }
            let name = match name.strip_prefix('*') {
                Some(rest) if !rest.starts_with('*') => {
                    crds::DnsRule { match_name: None, match_pattern: Some(format!("**{rest}")) }
                }
                Some(_) => crds::DnsRule { match_name: None, match_pattern: Some(name.clone()) },
                None => crds::DnsRule { match_name: Some(name.clone()), match_pattern: None },
            };
            learned.extend(self.name(&format!("{path}[{at}]"), &name));
            asked.push(name);
        }
        Some(Peers::Names(learned, asked))
    }

    fn protocols(&mut self, path: &str, protocols: Option<&[crds::ClusterNetworkPolicyProtocol]>) -> Ports {
        let protocols = protocols.unwrap_or_default();
        if protocols.is_empty() {
            return Ports::All;
        }
        let mut specs = Vec::new();
        for (at, one) in protocols.iter().enumerate() {
            let of_protocol = [(protocol::TCP, &one.tcp), (protocol::UDP, &one.udp), (protocol::SCTP, &one.sctp)];
            let given = of_protocol.iter().find_map(|(number, ports)| Some((*number, ports.as_ref()?)));
            match (given, &one.destination_named_port) {
                (Some((number, ports)), _) => {
                    let range = self.destination(&format!("{path}.protocols[{at}]"), ports.destination_port.as_ref());
                    let written_end = ports.written_end();
                    specs.extend(range.map(|range| PortSpec { written_end, ..PortSpec::new(number, range) }));
                }
                (None, Some(name)) => specs.extend(named(name, None)),
                (None, None) => {
                    self.refuse(
                        format!("{path}.protocols[{at}]"),
                        "one of tcp, udp, sctp and destinationNamedPort must be set",
                    );
                }
            }
        }
        Ports::Some(specs)
    }

    fn destination(&mut self, path: &str, port: Option<&crds::Port>) -> Option<PortRange> {
        let Some(port) = port else { return Some(PortRange::All) };
        let (first, last) = match (&port.number, &port.range) {
            (_, Some(range)) => {
                if self.settings.schema == SchemaMode::Reject && range.start >= range.end {
                    self.refuse(
                        path,
                        format!("the range must start before its end; found {} to {}", range.start, range.end),
                    );
                }
                (range.start, range.end)
            }
            (Some(number), None) => (*number, *number),
            (None, None) => (0, 0),
        };
        match (u16::try_from(first), u16::try_from(last)) {
            (Ok(first), Ok(last)) => Some(numbers(first, last)),
            _ => {
                self.refuse(path, format!("ports {first} to {last} are not numbers from 1 to 65535"));
                None
            }
        }
    }
}

fn named(name: &str, l7: Option<&Arc<L7>>) -> Vec<PortSpec> {
    let range = PortRange::Named(name.to_ascii_lowercase());
    let spec = |number: &u8| PortSpec { l7: l7.cloned(), ..PortSpec::new(*number, range.clone()) };
    protocol::WITH_PORTS.iter().map(spec).collect()
}

/// Where the rules of one element of ingress or egress stand.
struct Place<'a> {
    common: &'a Common<'a>,
    direction: Direction,
    index: usize,
    effect: Effect,
    ports: Ports,
}

impl Common<'_> {
    fn place(&self, direction: Direction, index: usize, effect: Effect, ports: Ports) -> Place<'_> {
        Place { common: self, direction, index, effect, ports }
    }
}

impl Place<'_> {
    fn rules(&self, peers: Vec<Peers>, everybody: bool) -> Vec<Rule> {
        if everybody {
            return vec![self.rule(self.effect, vec![Peer::All], self.ports.clone())];
        }
        let mut rules = Vec::new();
        for peer in peers {
            match peer {
                Peers::Are(peers) => rules.push(self.rule(self.effect, peers, self.ports.clone())),
                Peers::Names(names, asked) => {
                    rules.push(self.dns(asked));
                    let names = names.into_iter().map(Peer::Learned).collect();
                    rules.push(self.rule(self.effect, names, self.ports.clone()));
                }
                // Whom the rule speaks of is not known: fail closed.
                Peers::Unknown if self.effect == Effect::Allow => {}
                Peers::Unknown => rules.push(self.rule(Effect::Deny, vec![Peer::All], self.ports.clone())),
            }
        }
        rules
    }

    /// Names are learned by asking the cluster's DNS for them, which must be allowed.
    fn dns(&self, asked: Vec<crds::DnsRule>) -> Rule {
        let rules = crds::L7Rules { dns: Some(asked), ..crds::L7Rules::default() };
        let l7 = Arc::new(L7 { rules: Some(rules), ..L7::default() });
        let server = SelectorKey::new(source::ANY, "k8s-app");
        let server = Selector::everything().and(server, Operator::In(vec!["kube-dns".to_owned()]));
        let ports = ["dns", "dns-tcp"].iter().flat_map(|name| named(name, Some(&l7))).collect();
        self.rule(Effect::Allow, vec![Peer::Labels(server)], Ports::Some(ports))
    }

    fn rule(&self, effect: Effect, peers: Vec<Peer>, ports: Ports) -> Rule {
        let origin = RuleOrigin {
            policy: self.common.owner.reference.clone(),
            uid: self.common.owner.uid.to_owned(),
            direction: self.direction,
            deny: effect == Effect::Deny,
            spec: 0,
            index: self.index,
            labels: self.common.labels.clone(),
            log: String::new(),
            line: 0,
        };
        Rule {
            origin: Arc::new(origin),
            subject: self.common.subject.clone(),
            direction: self.direction,
            tier: self.common.tier,
            priority: self.common.priority + (self.index as u32).min(RULES - 1),
            effect,
            auth: None,
            default_deny: false,
            peers,
            ports,
        }
    }
}
