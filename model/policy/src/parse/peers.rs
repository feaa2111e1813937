//! Whom does a rule of cilium.io name?

use ipnet::IpNet;
use labels::{CLUSTER, NAMESPACE_LABELS, Operator, POD_NAMESPACE, Selector, SelectorKey, source};

use super::Reader;
use super::prefix::{parse_prefix, parse_prefix_or_address};
use crate::peer::{CidrSet, ENTITIES, Entity, Learned, Peer};
use crate::settings::SchemaMode;
use l7::dns::canonical_name;

/// The peers of a rule by kind; `None` is an absent field.
pub(super) struct PeerLists<'a> {
    /// `from` or `to`, and `From` or `To`.
    prefix: (&'static str, &'static str),
    endpoints: Option<&'a [crds::LabelSelector]>,
    nodes: Option<&'a [crds::LabelSelector]>,
    cidrs: Option<&'a [String]>,
    cidr_sets: Option<&'a [crds::CidrRule]>,
    entities: Option<&'a [String]>,
    groups: Option<&'a [crds::Group]>,
    services: Option<&'a [crds::Service]>,
    names: Option<&'a [crds::FqdnSelector]>,
    requires: bool,
}

impl<'a> PeerLists<'a> {
    pub(super) fn of_ingress(from: &'a crds::IngressPeers) -> Self {
        PeerLists {
            prefix: ("from", "From"),
            endpoints: from.from_endpoints.as_deref(),
            nodes: from.from_nodes.as_deref(),
            cidrs: from.from_cidr.as_deref(),
            cidr_sets: from.from_cidr_set.as_deref(),
            entities: from.from_entities.as_deref(),
            groups: from.from_groups.as_deref(),
            services: None,
            names: None,
            requires: from.from_requires.as_ref().is_some_and(|list| !list.is_empty()),
        }
    }

    pub(super) fn of_egress(to: &'a crds::EgressPeers, names: Option<&'a [crds::FqdnSelector]>) -> Self {
        PeerLists {
            prefix: ("to", "To"),
            endpoints: to.to_endpoints.as_deref(),
            nodes: to.to_nodes.as_deref(),
            cidrs: to.to_cidr.as_deref(),
            cidr_sets: to.to_cidr_set.as_deref(),
            entities: to.to_entities.as_deref(),
            groups: to.to_groups.as_deref(),
            services: to.to_services.as_deref(),
            names,
            requires: to.to_requires.as_ref().is_some_and(|list| !list.is_empty()),
        }
    }

    /// Kinds that are there, with how many peers they name.
    fn given(&self) -> Vec<(&'static str, usize)> {
        let all = [
            ("Endpoints", self.endpoints.map(<[_]>::len)),
            ("Nodes", self.nodes.map(<[_]>::len)),
            ("CIDR", self.cidrs.map(<[_]>::len)),
            ("CIDRSet", self.cidr_sets.map(<[_]>::len)),
            ("Entities", self.entities.map(<[_]>::len)),
            ("Groups", self.groups.map(<[_]>::len)),
            ("Services", self.services.map(<[_]>::len)),
            ("FQDNs", self.names.map(<[_]>::len)),
        ];
        all.into_iter().filter_map(|(kind, count)| Some((kind, count?))).collect()
    }
}

impl PeerLists<'_> {
    /// True if services or groups are all that is spoken of.
    pub(super) fn names_services_only(&self) -> bool {
        let others = [self.endpoints.is_some(), self.nodes.is_some(), self.cidrs.is_some(), self.cidr_sets.is_some()];
        (self.services.is_some() || self.groups.is_some())
            && !others.contains(&true)
            && self.entities.is_none()
            && self.names.is_none()
    }
}

impl Reader<'_> {
    /// The peers; `None` if no kind is there. A kind that is there and empty names nobody.
    pub(super) fn peers(
        &mut self,
        path: &str,
        namespace: &str,
        subject_is_init: bool,
        lists: &PeerLists<'_>,
    ) -> Option<Vec<Peer>> {
        let (lower, upper) = lists.prefix;
        let field = |kind: &str| format!("{path}.{lower}{kind}");
        if lists.requires {
            self.refuse(field("Requires"), "it is no longer supported; name the labels in the other selectors instead");
        }
        let given = lists.given();
        let filled: Vec<&str> = given.iter().filter(|(_, count)| *count > 0).map(|(kind, _)| *kind).collect();
        if let [first, second, ..] = filled.as_slice() {
            let message = format!("combining {upper}{first} and {upper}{second} is not supported yet");
            self.refuse(path, format!("{message}: write one rule for each"));
        }
        if given.is_empty() {
            return None;
        }
        let mut peers = Vec::new();
        for (at, selector) in lists.endpoints.unwrap_or_default().iter().enumerate() {
            let selector = self.selector(&format!("{}[{at}]", field("Endpoints")), selector);
            let scoped = selector.map(|one| self.scoped(one, namespace, subject_is_init));
            peers.extend(scoped.into_iter().flat_map(Peer::of_selector));
        }
        for (at, selector) in lists.nodes.unwrap_or_default().iter().enumerate() {
            peers.extend(self.nodes(&format!("{}[{at}]", field("Nodes")), selector));
        }
        for (at, cidr) in lists.cidrs.unwrap_or_default().iter().enumerate() {
            peers.extend(self.cidr(&format!("{}[{at}]", field("CIDR")), cidr));
        }
        for (at, rule) in lists.cidr_sets.unwrap_or_default().iter().enumerate() {
            peers.extend(self.cidr_rule(&format!("{}[{at}]", field("CIDRSet")), rule));
        }
        for (at, name) in lists.entities.unwrap_or_default().iter().enumerate() {
            peers.extend(self.entity(&format!("{}[{at}]", field("Entities")), name));
        }
        if lists.groups.is_some_and(|groups| !groups.is_empty()) {
            let message = "groups of cloud providers are not supported: their APIs are not asked; list the prefixes in a CiliumCIDRGroup";
            self.refuse(field("Groups"), message);
        }
        for (at, service) in lists.services.unwrap_or_default().iter().enumerate() {
            peers.extend(self.service(&format!("{}[{at}]", field("Services")), service));
        }
        for (at, name) in lists.names.unwrap_or_default().iter().enumerate() {
            peers.extend(self.name(&format!("{}[{at}]", field("FQDNs")), name).map(Peer::Learned));
        }
        // A kind that is there and empty names nobody, whatever else is there; but names, groups and services may add to
        // nothing.
        let adds = ["Groups", "Services", "FQDNs"];
        if given.iter().any(|(kind, count)| *count == 0 && !adds.contains(kind)) {
            return Some(Vec::new());
        }
        peers.sort();
        peers.dedup();
        Some(peers)
    }

    /// A selector of pods means the policy's namespace and the own cluster unless it names others.
    fn scoped(&self, selector: Selector, namespace: &str, subject_is_init: bool) -> Selector {
        if selector.has_key_prefix(source::RESERVED, "") {
            return selector;
        }
        let names =
            |selector: &Selector, key: &str| [source::K8S, source::ANY].iter().any(|one| selector.has_key(one, key));
        let by_labels =
            [source::K8S, source::ANY].iter().any(|one| selector.has_key_prefix(one, &format!("{NAMESPACE_LABELS}.")));
        let key = SelectorKey::new(source::K8S, POD_NAMESPACE);
        let selector = match (names(&selector, POD_NAMESPACE), namespace) {
            (true, _) => selector,
            // Only what has a namespace is a pod.
            (false, "") if !subject_is_init => selector.and(key, Operator::Exists),
            (false, "") => selector,
            (false, _) if by_labels => selector,
            (false, namespace) => selector.and(key, Operator::In(vec![namespace.to_owned()])),
        };
        self.in_own_cluster(selector)
    }

    pub(super) fn in_own_cluster(&self, selector: Selector) -> Selector {
        let named = [source::K8S, source::ANY].iter().any(|one| selector.has_key(one, CLUSTER));
        if self.settings.any_cluster || named {
            return selector;
        }
        selector.and_label(source::K8S, CLUSTER, &self.settings.cluster_name)
    }

    fn nodes(&mut self, path: &str, selector: &crds::LabelSelector) -> Option<Peer> {
        if !self.settings.node_selector_labels {
            let message =
                "FromNodes/ToNodes rules can only be applied when the \"enable-node-selector-labels\" flag is set";
            self.refuse(path, message);
        }
        let selector = self.selector(path, selector)?;
        let node = SelectorKey::new(source::RESERVED, "remote-node");
        Some(Peer::Labels(self.in_own_cluster(selector.and(node, Operator::Exists))))
    }

    fn entity(&mut self, path: &str, name: &str) -> Vec<Peer> {
        let Some(entity) = Entity::parse(name) else {
            let known: Vec<&str> = ENTITIES.iter().map(|(_, name)| *name).collect();
            self.refuse(path, format!("unsupported entity: {name}; there are {}", known.join(", ")));
            return Vec::new();
        };
        Peer::of_entity(entity)
    }

    fn cidr(&mut self, path: &str, text: &str) -> Option<Peer> {
        let Some(prefix) = parse_prefix_or_address(text) else {
            let message = match text {
                "" => "IP must be specified".to_owned(),
                _ => format!("unable to parse CIDR: {text:?} is neither a prefix like 192.0.2.0/24 nor an address"),
            };
            self.refuse(path, message);
            return None;
        };
        Some(Peer::Cidr(CidrSet::new(prefix, [])))
    }

    fn cidr_rule(&mut self, path: &str, rule: &crds::CidrRule) -> Option<Peer> {
        let text = |field: &Option<String>| field.clone().filter(|text| !text.is_empty());
        let (cidr, group) = (text(&rule.cidr), text(&rule.cidr_group_ref));
        match (cidr, group, &rule.cidr_group_selector) {
            (None, None, None) => {
                self.refuse(path, "one of cidr, cidrGroupRef, or cidrGroupSelector is required");
                None
            }
            (Some(cidr), None, None) => {
                let set = self.prefix_without(path, &cidr, rule.except.as_deref().unwrap_or_default())?;
                Some(Peer::Cidr(set))
            }
            (None, Some(name), None) => {
                let except = self.exceptions(path, rule.except.as_deref().unwrap_or_default());
                Some(Peer::Learned(Learned::Group(name, except)))
            }
            (None, None, Some(selector)) => {
                let path_of_selector = format!("{path}.cidrGroupSelector");
                if let Some(key) = keys(selector).find(|key| key.contains(':')) {
                    self.refuse(&path_of_selector, format!("{key:?}: labels of a CiliumCIDRGroup have no source"));
                }
                let selector = self.selector(&path_of_selector, selector)?;
                let except = self.exceptions(path, rule.except.as_deref().unwrap_or_default());
                Some(Peer::Learned(Learned::Groups(selector, except)))
            }
            _ => {
                self.refuse(path, "more than one of cidr, cidrGroupRef, or cidrGroupSelector may not be set");
                None
            }
        }
    }

    /// A prefix and parts that lie in it.
    pub(super) fn prefix_without(&mut self, path: &str, cidr: &str, except: &[String]) -> Option<CidrSet> {
        let Some(prefix) = parse_prefix(cidr) else {
            let message = format!("unable to parse CIDRRule {cidr:?}: a prefix like 192.0.2.0/24 is needed");
            self.refuse(format!("{path}.cidr"), message);
            return None;
        };
        let parts = self.exceptions(path, except);
        for (at, part) in parts.iter().enumerate() {
            if !prefix.contains(part) {
                let message = format!("allow CIDR prefix {prefix} does not contain exclude CIDR prefix {part}");
                self.refuse(format!("{path}.except[{at}]"), message);
            }
        }
        Some(CidrSet::new(prefix, parts))
    }

    fn exceptions(&mut self, path: &str, except: &[String]) -> Vec<IpNet> {
        let mut parts = Vec::new();
        for (at, text) in except.iter().enumerate() {
            match parse_prefix(text) {
                Some(prefix) => parts.push(prefix),
                None => {
                    let message = format!("unable to parse CIDR: {text:?} is not a prefix like 192.0.2.0/24");
                    self.refuse(format!("{path}.except[{at}]"), message);
                }
            }
        }
        parts
    }

    /// Services of one namespace, or of any if none is named.
    fn service(&mut self, path: &str, service: &crds::Service) -> Option<Peer> {
        let own = |named: &Option<String>| named.clone().filter(|name| !name.is_empty());
        match (&service.k8s_service, &service.k8s_service_selector) {
            (Some(by_name), None) => {
                let Some(name) = own(&by_name.service_name) else {
                    self.refuse(format!("{path}.k8sService.serviceName"), "the service must have a name");
                    return None;
                };
                let namespace = own(&by_name.namespace).unwrap_or_default();
                Some(Peer::Learned(Learned::Service(namespace, name)))
            }
            (None, Some(by_labels)) => {
                let selector = self.selector(&format!("{path}.k8sServiceSelector.selector"), &by_labels.selector)?;
                let namespace = own(&by_labels.namespace).unwrap_or_default();
                Some(Peer::Learned(Learned::Services(namespace, selector)))
            }
            _ => {
                self.refuse(path, "exactly one of k8sService and k8sServiceSelector must be set");
                None
            }
        }
    }

    /// A name or a pattern of names.
    pub(super) fn name(&mut self, path: &str, name: &crds::FqdnSelector) -> Option<Learned> {
        let text = |field: &Option<String>| field.clone().filter(|text| !text.is_empty());
        let allowed = |text: &str, more: &str| {
            text.chars().all(|one| one.is_ascii_alphanumeric() || "-_.".contains(one) || more.contains(one))
        };
        let given = [("matchName", text(&name.match_name)), ("matchPattern", text(&name.match_pattern))];
        for (field, given) in given.iter().filter(|_| self.settings.schema == SchemaMode::Reject) {
            if given.as_ref().is_some_and(|text| text.starts_with('.') || text.contains("..")) {
                self.refuse(
                    format!("{path}.{field}"),
                    "a label of the name is empty: two dots follow each other, or one comes first",
                );
            }
        }
        match (text(&name.match_name), text(&name.match_pattern)) {
            (Some(_), Some(_)) => {
                self.refuse(path, "only one of MatchName or MatchPattern is allowed in an FQDNSelector");
                None
            }
            (None, None) => {
                self.refuse(path, "one of matchName and matchPattern is required");
                None
            }
            (Some(name), None) if !allowed(&name, "") => {
                let message = format!(
                    "Invalid characters in MatchName: {name:?}. Only 0-9, a-z, A-Z and ., -, _ characters are allowed"
                );
                self.refuse(path, message);
                None
            }
            (None, Some(pattern)) if !allowed(&pattern, "*") => {
                let message = format!(
                    "Invalid characters in MatchPattern: {pattern:?}. Only 0-9, a-z, A-Z and ., -, _ and * characters are allowed"
                );
                self.refuse(path, message);
                None
            }
            (Some(name), None) => Some(Learned::Name(canonical_name(&name))),
            (None, Some(pattern)) => Some(Learned::Pattern(canonical_name(&pattern))),
        }
    }
}

/// The keys of the labels that a selector asks for.
fn keys(selector: &crds::LabelSelector) -> impl Iterator<Item = &str> {
    let equal = selector.match_labels.iter().flat_map(|labels| labels.keys().map(String::as_str));
    equal.chain(selector.match_expressions.iter().flatten().map(|expression| expression.key.as_str()))
}
