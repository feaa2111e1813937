//! Which rules does a policy of cilium.io say?

use std::sync::Arc;

use labels::{
    Label, Labels, POD_NAMESPACE, POLICY_DERIVED_FROM, POLICY_NAME, POLICY_NAMESPACE, POLICY_UID, Selector, source,
};

use super::peers::PeerLists;
use super::{Owner, Reader};
use crate::origin::{Direction, PolicyKind, RuleOrigin};
use crate::peer::Peer;
use crate::rule::{Auth, Effect, PortSpec, Ports, Rule, Subject, Tier};

/// What the rules of one `spec` have in common.
struct Spec<'a> {
    rule: &'a crds::Rule,
    path: String,
    index: usize,
    subject: Subject,
    labels: Labels,
}

/// One of the four sections of a `spec`.
struct Section<'a> {
    name: &'static str,
    direction: Direction,
    effect: Effect,
    rules: Vec<Written<'a>>,
}

/// A rule of any section.
struct Written<'a> {
    peers: PeerLists<'a>,
    ports: WrittenPorts<'a>,
    icmps: Option<&'a [crds::IcmpRule]>,
    auth: Option<&'a crds::Authentication>,
}

enum WrittenPorts<'a> {
    Allowed(Option<&'a [crds::PortRule]>),
    Denied(Option<&'a [crds::PortDenyRule]>),
}

/// Where a rule stands, and its ports as they are read.
struct Place {
    direction: Direction,
    effect: Effect,
    index: usize,
    path: String,
    ports: Option<Vec<PortSpec>>,
}

/// The sections in the order in which rules are told.
fn sections(rule: &crds::Rule) -> [Section<'_>; 4] {
    fn all<'a, T>(list: &'a Option<Vec<T>>, written: impl Fn(&'a T) -> Written<'a>) -> Vec<Written<'a>> {
        list.iter().flatten().map(written).collect()
    }
    let ingress = all(&rule.ingress, |rule| Written {
        peers: PeerLists::of_ingress(&rule.from),
        ports: WrittenPorts::Allowed(rule.to_ports.as_deref()),
        icmps: rule.icmps.as_deref(),
        auth: rule.authentication.as_ref(),
    });
    let ingress_deny = all(&rule.ingress_deny, |rule| Written {
        peers: PeerLists::of_ingress(&rule.from),
        ports: WrittenPorts::Denied(rule.to_ports.as_deref()),
        icmps: rule.icmps.as_deref(),
        auth: None,
    });
    let egress = all(&rule.egress, |rule| Written {
        peers: PeerLists::of_egress(&rule.to, rule.to_fqdns.as_deref()),
        ports: WrittenPorts::Allowed(rule.to_ports.as_deref()),
        icmps: rule.icmps.as_deref(),
        auth: rule.authentication.as_ref(),
    });
    let egress_deny = all(&rule.egress_deny, |rule| Written {
        peers: PeerLists::of_egress(&rule.to, rule.to_fqdns.as_deref()),
        ports: WrittenPorts::Denied(rule.to_ports.as_deref()),
        icmps: rule.icmps.as_deref(),
        auth: None,
    });
    [
        Section { name: "ingress", direction: Direction::Ingress, effect: Effect::Allow, rules: ingress },
        Section { name: "ingressDeny", direction: Direction::Ingress, effect: Effect::Deny, rules: ingress_deny },
        Section { name: "egress", direction: Direction::Egress, effect: Effect::Allow, rules: egress },
        Section { name: "egressDeny", direction: Direction::Egress, effect: Effect::Deny, rules: egress_deny },
    ]
}

impl Reader<'_> {
    /// The rules of `spec` and `specs`.
    pub(super) fn cilium(
        &mut self,
        owner: &Owner<'_>,
        spec: Option<&crds::Rule>,
        specs: Option<&[crds::Rule]>,
    ) -> Vec<Rule> {
        let first = spec.into_iter().map(|rule| ("spec".to_owned(), rule));
        let more = specs.unwrap_or_default().iter().enumerate();
        let all: Vec<_> = first.chain(more.map(|(at, rule)| (format!("specs[{at}]"), rule))).collect();
        if all.is_empty() {
            self.refuse("spec", "the policy must have spec or specs, and has none");
        }
        let rules = all.into_iter().enumerate();
        rules.flat_map(|(index, (path, rule))| self.spec(owner, index, path, rule)).collect()
    }

    fn spec(&mut self, owner: &Owner<'_>, index: usize, path: String, rule: &crds::Rule) -> Vec<Rule> {
        let sections = sections(rule);
        if sections.iter().all(|section| section.rules.is_empty()) {
            self.refuse(&path, "rule must have at least one of Ingress, IngressDeny, Egress, EgressDeny");
        }
        self.check_log(&path, rule);
        self.check_labels(&path, rule);
        let Some(subject) = self.subject(owner, &path, rule) else { return Vec::new() };
        let labels = origin_labels(owner, rule);
        let spec = Spec { rule, path, index, subject, labels };
        let rules: Vec<Rule> = sections.into_iter().flat_map(|section| self.section(owner, &spec, section)).collect();
        self.lint_names_without_dns(&spec, &rules);
        rules
    }

    fn check_labels(&mut self, path: &str, rule: &crds::Rule) {
        for (at, label) in rule.labels.iter().flatten().enumerate() {
            if label.key.is_empty() {
                self.refuse(format!("{path}.labels[{at}].key"), "a label must have a key");
            }
        }
    }

    fn check_log(&mut self, path: &str, rule: &crds::Rule) {
        let log = rule.log.as_ref().and_then(|log| log.value.as_deref()).unwrap_or_default();
        if log.chars().any(char::is_control) {
            self.refuse(format!("{path}.log.value"), "it must consist of printable characters");
        }
    }

    fn subject(&mut self, owner: &Owner<'_>, path: &str, rule: &crds::Rule) -> Option<Subject> {
        let namespaced = owner.reference.kind == PolicyKind::CiliumNetworkPolicy;
        match (&rule.endpoint_selector, &rule.node_selector) {
            (Some(_), Some(_)) => {
                self.refuse(path, "rule cannot have both EndpointSelector and NodeSelector");
                None
            }
            (None, None) => {
                self.refuse(path, "rule must have one of EndpointSelector or NodeSelector");
                None
            }
            (None, Some(_)) if namespaced => {
                let message = "rule cannot have NodeSelector: nodes are subjects of clusterwide policies only";
                self.refuse(format!("{path}.nodeSelector"), message);
                None
            }
            (None, Some(selector)) => self.selector(&format!("{path}.nodeSelector"), selector).map(Subject::Nodes),
            (Some(selector), None) => {
                let path = format!("{path}.endpointSelector");
                let selector =
                    if namespaced { self.namespaced(owner, &path, selector) } else { self.selector(&path, selector) };
                selector.map(Subject::Endpoints)
            }
        }
    }

    /// A namespaced policy is for its own namespace, whatever it says.
    fn namespaced(&mut self, owner: &Owner<'_>, path: &str, selector: &crds::LabelSelector) -> Option<Selector> {
        let mut selector = selector.clone();
        let key = format!("{}:{POD_NAMESPACE}", source::K8S);
        let named = selector.match_labels.as_mut().and_then(|labels| labels.remove(&key));
        let namespace = &owner.reference.namespace;
        if let Some(named) = named.filter(|named| named != namespace) {
            let message =
                format!("a policy selects pods of its own namespace {namespace} only; {named:?} is not heeded");
            self.warn(format!("{path}.matchLabels[{key}]"), message);
        }
        Some(self.selector(path, &selector)?.and_label(source::K8S, POD_NAMESPACE, namespace))
    }

    fn section(&mut self, owner: &Owner<'_>, spec: &Spec<'_>, section: Section<'_>) -> Vec<Rule> {
        let nodes = matches!(spec.subject, Subject::Nodes(_));
        let Section { name, direction, effect, rules } = section;
        let mut read = Vec::new();
        for (index, rule) in rules.into_iter().enumerate() {
            let path = format!("{}.{name}[{index}]", spec.path);
            let ports = match rule.ports {
                WrittenPorts::Allowed(ports) => self.port_rules(&path, direction, nodes, ports),
                WrittenPorts::Denied(ports) => self.deny_port_rules(&path, ports),
            };
            let ports = self.with_icmp(&path, ports, rule.icmps);
            let place = Place { direction, effect, index, path, ports };
            read.push(self.rule(owner, spec, place, &rule.peers, rule.auth));
        }
        read
    }

    fn rule(
        &mut self,
        owner: &Owner<'_>,
        spec: &Spec<'_>,
        place: Place,
        peers: &PeerLists<'_>,
        auth: Option<&crds::Authentication>,
    ) -> Rule {
        let Place { direction, effect, index, path, ports } = place;
        let auth = auth.and_then(|auth| self.authentication(&path, auth));
        let init = match &spec.subject {
            Subject::Endpoints(subject) => subject.has_key(source::RESERVED, "init"),
            Subject::Nodes(_) => false,
        };
        let names_services_only = peers.names_services_only();
        let peers = self.peers(&path, &owner.reference.namespace, init, peers);
        let without_ports = ports.is_none();
        let peers = match peers {
            // The field does not look up services in denials: they are nobody, and on ports everybody.
            Some(_) if effect == Effect::Deny && names_services_only => {
                let message =
                    "services are not heeded in denials: without ports nobody is denied, on ports everybody is";
                self.warn(&path, message);
                if without_ports { Vec::new() } else { vec![Peer::All] }
            }
            Some(peers) => peers,
            // No peers are given: with ports, all are meant; without, nobody is.
            None if without_ports => {
                self.lint_empty(&path, effect);
                Vec::new()
            }
            None => vec![Peer::All],
        };
        let asked = spec.rule.enable_default_deny.clone().unwrap_or_default();
        let asked = match direction {
            Direction::Ingress => asked.ingress,
            Direction::Egress => asked.egress,
        };
        let origin = RuleOrigin {
            policy: owner.reference.clone(),
            uid: owner.uid.to_owned(),
            direction,
            deny: effect == Effect::Deny,
            spec: spec.index,
            index,
            labels: spec.labels.clone(),
            log: spec.rule.log.as_ref().and_then(|log| log.value.clone()).unwrap_or_default(),
            line: 0,
        };
        Rule {
            origin: Arc::new(origin),
            subject: spec.subject.clone(),
            direction,
            tier: Tier::Normal,
            priority: 0,
            effect,
            auth,
            // A rule that is there closes its section unless it says otherwise.
            default_deny: asked.unwrap_or(true),
            peers,
            ports: ports.map_or(Ports::All, Ports::Some),
        }
    }

    fn authentication(&mut self, path: &str, auth: &crds::Authentication) -> Option<Auth> {
        match auth.mode.as_str() {
            "disabled" => Some(Auth::Disabled),
            "required" => Some(Auth::Spire),
            "test-always-fail" => Some(Auth::AlwaysFail),
            other => {
                let message =
                    format!("unknown authentication mode {other:?}; disabled, required and test-always-fail are known");
                self.refuse(format!("{path}.authentication.mode"), message);
                None
            }
        }
    }

    fn lint_empty(&mut self, path: &str, effect: Effect) {
        let message = match effect {
            Effect::Allow | Effect::Pass => {
                "an empty rule allows nothing: what it selects is closed; to allow everything, name the entity all"
            }
            Effect::Deny => "an empty rule denies nothing; to deny everything, name the entity all",
        };
        self.warn(path, message);
    }

    fn lint_names_without_dns(&mut self, spec: &Spec<'_>, rules: &[Rule]) {
        let dns = spec.rule.egress.iter().flatten().flat_map(|rule| rule.to_ports.iter().flatten());
        let dns = dns.filter_map(|ports| ports.rules.as_ref()).any(|rules| rules.dns.is_some());
        let named = |effect: Effect| {
            let mut peers = rules.iter().filter(|rule| rule.effect == effect).flat_map(|rule| &rule.peers);
            peers.any(|peer| matches!(peer, Peer::Learned(learned) if learned.is_name()))
        };
        if named(Effect::Allow) && !dns {
            let message = "toFQDNs learns addresses from DNS answers that pass a dns rule; this policy has none, so another one must";
            self.warn(format!("{}.egress", spec.path), message);
        }
        if named(Effect::Deny) && !dns {
            let message = "toFQDNs denies addresses that DNS answers gave which pass a dns rule; this policy has none: unless another one sends the endpoints' questions to the proxy, nothing is denied";
            self.warn(format!("{}.egressDeny", spec.path), message);
        }
    }

    /// A selector as its author wrote it.
    pub(super) fn selector(&mut self, path: &str, selector: &crds::LabelSelector) -> Option<Selector> {
        match selector.parse() {
            Ok(selector) => Some(selector),
            Err(problems) => {
                for (below, error) in problems {
                    self.refuse(format!("{path}.{below}"), error.to_string());
                }
                None
            }
        }
    }
}

/// Labels that say where a rule comes from, and its author's.
pub(super) fn derived_labels(owner: &Owner<'_>) -> Vec<Label> {
    let reference = owner.reference;
    let mut labels = vec![
        Label::k8s(POLICY_DERIVED_FROM, reference.kind.name()),
        Label::k8s(POLICY_NAME, reference.name.as_str()),
        Label::k8s(POLICY_UID, owner.uid),
    ];
    if !reference.namespace.is_empty() {
        labels.push(Label::k8s(POLICY_NAMESPACE, reference.namespace.as_str()));
    }
    labels
}

fn origin_labels(owner: &Owner<'_>, rule: &crds::Rule) -> Labels {
    let own = rule.labels.iter().flatten().map(|label| {
        let source = label.source.clone().filter(|source| !source.is_empty());
        Label::new(
            source.unwrap_or_else(|| source::UNSPEC.to_owned()),
            label.key.as_str(),
            label.value.clone().unwrap_or_default(),
        )
    });
    own.chain(derived_labels(owner)).collect()
}
