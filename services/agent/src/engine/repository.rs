//! How does the policy language's repository serve the agent?

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ::identity::Families;
use abi::Port;
use abi::identity::Identity;
use abi::policy::{PREFIX_FULL, PREFIX_PROTOCOL, VERDICT_REDIRECT, VerdictEntry, VerdictKey};
use fqdn::Selected;
use ipnet::IpNet;
use labels::Labels;
use policy::{
    AllowLocalhost, Change, EndpointPolicy, Known, Learned, Mode, Peer, PolicyRef, Repository, RuleSet, What,
};

use super::{Asked, Engine, NamedPorts, Places, RedirectedPort, Redirects, TableChange, Tables, rules};
use crate::config::{Enforcement, Settings};
use crate::hits::Decision;
use crate::objects::{Key, ServiceLabels};
use crate::ops::{PolicyKey, PolicyKind};
use crate::proxy::Ports;

/// The implementation over the policy language's repository.
pub fn repository(settings: &Settings, proxy: Option<Ports>, first_rule_set: u32) -> Result<Box<dyn Engine>, String> {
    let allow_localhost = match settings.given.get("allow-localhost").map(String::as_str) {
        None | Some("" | "auto" | "always") => AllowLocalhost::EvenWithoutRules,
        Some("policy") => AllowLocalhost::Policy,
        Some(other) => return Err(format!("setting allow-localhost: {other:?} is not auto, always or policy")),
    };
    let mode = match settings.enforcement {
        Enforcement::Default => Mode::Default,
        Enforcement::Always => Mode::Always,
        Enforcement::Never => Mode::Never,
    };
    let settings = policy::Settings {
        mode,
        cluster_name: settings.cluster.clone(),
        families: Families { ipv4: settings.ipv4, ipv6: settings.ipv6 },
        allow_localhost,
        l7_proxy: proxy.is_some(),
        first_rule_set,
        ..policy::Settings::default()
    };
    Ok(Box::new(Policies {
        repository: Repository::new(settings),
        ports: proxy.unwrap_or_default(),
        groups: BTreeMap::new(),
        services: BTreeMap::new(),
        names: Selected::default(),
        objects: BTreeMap::new(),
        changes: BTreeMap::new(),
        named: BTreeMap::new(),
    }))
}

struct Policies {
    repository: Repository,
    /// Where the proxy listens.
    ports: Ports,
    groups: BTreeMap<String, Group>,
    services: BTreeMap<Key, Service>,
    names: Selected,
    /// The objects whose rules hold, as they were given.
    objects: BTreeMap<PolicyKey, serde_json::Value>,
    /// What nobody has been told of yet.
    changes: BTreeMap<Identity, Pending>,
    /// Prefixes that policies name or do not name any more, as nobody has been told yet.
    named: BTreeMap<IpNet, bool>,
}

/// What changed in the tables of one subject.
enum Pending {
    /// Peers went into classes that were there, or out of them.
    Peers(Vec<TableChange>),
    /// More than that.
    Everything,
}

/// A service, for rules that name it.
#[derive(PartialEq)]
struct Service {
    labels: Labels,
    pods: BTreeMap<String, String>,
    /// Of a service that does not select pods.
    backends: Vec<IpNet>,
}

struct Group {
    labels: Labels,
    prefixes: Vec<IpNet>,
}

fn reference(key: &PolicyKey) -> PolicyRef {
    let kind = match key.kind {
        PolicyKind::Cilium => policy::PolicyKind::CiliumNetworkPolicy,
        PolicyKind::CiliumClusterwide => policy::PolicyKind::CiliumClusterwideNetworkPolicy,
        PolicyKind::Kubernetes => policy::PolicyKind::NetworkPolicy,
        PolicyKind::KubernetesCluster => policy::PolicyKind::ClusterNetworkPolicy,
    };
    PolicyRef { kind, namespace: key.namespace.clone(), name: key.name.clone() }
}

impl Policies {
    /// Notes what a call changed, for [`Engine::changes`].
    fn note(&mut self, change: Change) {
        self.named.extend(change.prefixes_added.iter().map(|prefix| (*prefix, true)));
        self.named.extend(change.prefixes_removed.iter().map(|prefix| (*prefix, false)));
        for table in change.tables {
            let pending = self.changes.entry(table.subject).or_insert_with(|| Pending::Peers(Vec::new()));
            match (table.what, &mut *pending) {
                (_, Pending::Everything) => {}
                (What::ClassSet { identity, class, verdicts, .. }, Pending::Peers(peers)) if verdicts.is_empty() => {
                    peers.push(TableChange::Class(identity, class));
                }
                (What::ClassRemoved { identity }, Pending::Peers(peers)) => peers.push(TableChange::Others(identity)),
                // Entries of a new class go with all others into tables of their own: in use are only whole ones.
                (What::ClassSet { .. } | What::Rebuilt(_), Pending::Peers(_)) => *pending = Pending::Everything,
            }
        }
    }

    fn tables(&mut self, subject: Identity) -> Option<Tables> {
        let policy = self.repository.subject_policy(subject)?;
        Some(tables(&policy, self.repository.revision(), &self.ports))
    }

    /// Which names and patterns policies speak of.
    fn select_names(&mut self) {
        let wanted = self.repository.learned().filter_map(|learned| match learned {
            Learned::Name(name) | Learned::Pattern(name) => Some(name.clone()),
            Learned::Group(..) | Learned::Groups(..) | Learned::Service(..) | Learned::Services(..) => None,
        });
        self.names.select(&wanted.collect());
    }

    /// Tells the repository the prefixes of the groups and services that its policies name.
    fn teach(&mut self) {
        let wanted: Vec<Learned> = self.repository.learned().filter(|learned| !learned.is_name()).cloned().collect();
        for learned in wanted {
            let known: Known = match &learned {
                Learned::Group(name, _) => {
                    self.groups.get(name).map(|group| group.prefixes.clone()).unwrap_or_default().into()
                }
                Learned::Groups(..) => self.all_groups(),
                Learned::Service(namespace, name) => {
                    self.of_services(|key, _| in_namespace(key, namespace) && key.1 == *name)
                }
                Learned::Services(namespace, selector) => {
                    self.of_services(|key, service| in_namespace(key, namespace) && selector.matches(&service.labels))
                }
                Learned::Name(_) | Learned::Pattern(_) => continue,
            };
            let change = self.repository.set_learned(&learned, known);
            self.note(change);
        }
    }

    fn of_services(&self, is_meant: impl Fn(&Key, &Service) -> bool) -> Known {
        let mut known = Known::default();
        for (key, service) in self.services.iter().filter(|(key, service)| is_meant(key, service)) {
            let pods = service.pods.iter().map(|(key, value)| (key.as_str(), value.as_str()));
            known.add_service(&key.0, pods, service.backends.iter().copied(), self.repository.settings());
        }
        known
    }

    fn all_groups(&self) -> Known {
        Known::of_groups(self.groups.values().flat_map(|group| {
            let prefixes = group.prefixes.iter().copied();
            prefixes.map(|prefix| (group.labels.clone(), prefix))
        }))
    }
}

impl Engine for Policies {
    fn revision(&self) -> u64 {
        self.repository.revision()
    }

    fn set_policy(&mut self, key: &PolicyKey, object: &serde_json::Value) -> Vec<String> {
        let source = crds::Source::default();
        match policy::PolicyObject::from_value(object, &source, self.repository.settings()) {
            Ok(read) => {
                self.objects.insert(key.clone(), object.clone());
                let change = self.repository.upsert_policy(read);
                self.note(change);
                self.select_names();
                self.teach();
                Vec::new()
            }
            Err(problems) => problems.iter().map(ToString::to_string).collect(),
        }
    }

    fn remove_policy(&mut self, key: &PolicyKey) {
        self.objects.remove(key);
        let change = self.repository.remove_policy(&reference(key));
        self.note(change);
        self.select_names();
    }

    fn set_cidr_group(&mut self, name: &str, group: &crds::CiliumCIDRGroup) {
        let labels = group.metadata.labels.iter().flatten();
        let labels = labels.map(|(key, value)| labels::Label::new(labels::source::CIDR_GROUP, key, value)).collect();
        let prefixes = group.spec.external_cidrs.iter().filter_map(|text| text.parse().ok()).collect();
        self.groups.insert(name.to_owned(), Group { labels, prefixes });
        self.teach();
    }

    fn remove_cidr_group(&mut self, name: &str) {
        self.groups.remove(name);
        self.teach();
    }

    fn set_service(&mut self, key: &Key, is: Option<(&ServiceLabels, BTreeSet<IpAddr>)>) {
        let changed = match is {
            Some((labels, backends)) => {
                let own = labels.own.iter().map(|(key, value)| labels::Label::k8s(key, value));
                // What selects pods is its pods, wherever its slices say that they are.
                let backends = if labels.pods.is_empty() { backends } else { BTreeSet::new() };
                let service = Service {
                    labels: own.collect(),
                    pods: labels.pods.clone(),
                    backends: backends.into_iter().map(IpNet::from).collect(),
                };
                let same = self.services.get(key) == Some(&service);
                self.services.insert(key.clone(), service);
                !same
            }
            None => self.services.remove(key).is_some(),
        };
        if changed {
            self.teach();
        }
    }

    fn set_names(&mut self, change: &fqdn::Change) {
        self.names.change(change);
    }

    fn add_identity(&mut self, identity: Identity, labels: &Labels) {
        let change = self.repository.upsert_identity(identity, labels);
        self.note(change);
    }

    fn remove_identity(&mut self, identity: Identity) {
        let change = self.repository.remove_identity(identity);
        self.changes.remove(&identity);
        self.note(change);
    }

    fn places(&mut self) -> Places {
        let learned = self.names.take_changed().into_iter();
        let learned = learned.map(|address| (address, self.names.of(address).map(str::to_owned).collect()));
        Places { learned: learned.collect(), named: std::mem::take(&mut self.named) }
    }

    fn set_named_ports(&mut self, identity: Identity, ports: NamedPorts) {
        let change = self.repository.set_named_ports(identity, ports);
        self.note(change);
    }

    fn resolve(&mut self, subject: Identity) -> Option<Tables> {
        // What was pending is in it.
        self.changes.remove(&subject);
        self.tables(subject)
    }

    fn changes(&mut self) -> BTreeMap<Identity, Vec<TableChange>> {
        let mut all = BTreeMap::new();
        for (subject, pending) in std::mem::take(&mut self.changes) {
            let changes = match pending {
                Pending::Peers(peers) => peers,
                Pending::Everything => match self.tables(subject) {
                    Some(tables) => vec![TableChange::Rebuilt(Box::new(tables))],
                    None => continue,
                },
            };
            all.insert(subject, changes);
        }
        all
    }

    fn release(&mut self, subject: Identity) {
        self.repository.release_subject(subject);
        self.changes.remove(&subject);
    }

    fn next_rule_set(&self) -> u32 {
        self.repository.next_rule_set()
    }

    fn has_policy(&self, policy: &PolicyRef) -> bool {
        self.repository.policy(policy).is_some()
    }

    fn policy_count(&self) -> usize {
        self.repository.policies().count()
    }

    fn describe(&self) -> String {
        let rules = self.objects.iter().flat_map(|(key, object)| rules::of(key, object));
        format!("{:#}", serde_json::Value::Array(rules.collect()))
    }

    fn names(&self) -> Vec<agent_api::NameSelector> {
        let named = self.repository.learned().filter_map(|learned| {
            let (selector, text) = match learned {
                Learned::Name(name) => (format!("MatchName: {name}., MatchPattern: "), name),
                Learned::Pattern(pattern) => (format!("MatchName: , MatchPattern: {pattern}"), pattern),
                Learned::Group(..) | Learned::Groups(..) | Learned::Service(..) | Learned::Services(..) => return None,
            };
            let addresses = self.names.addresses(text).map(|address| address.to_string()).collect();
            Some(agent_api::NameSelector { selector, addresses })
        });
        let mut all: Vec<_> = named.collect();
        all.sort_by(|one, two| one.selector.cmp(&two.selector));
        all
    }

    fn rules_for_name(&self, subject: Identity, name: &str) -> Vec<String> {
        let Some(labels) = self.repository.identity_labels(subject) else { return Vec::new() };
        let subject = policy::PeerIdentity::new(subject, labels.clone());
        let mut found = Vec::new();
        for object in self.repository.policies() {
            for rule in object.rules.iter().filter(|rule| rule.subject.selects(&subject)) {
                let origin = &rule.origin;
                for peer in &rule.peers {
                    if let Peer::Learned(learned @ (Learned::Name(text) | Learned::Pattern(text))) = peer
                        && learned.means(name)
                    {
                        found.push(format!("{}: {}[{}] {text}", object.reference, origin.section(), origin.index));
                    }
                }
            }
        }
        found
    }

    fn selectors(&self) -> Vec<agent_api::Selector> {
        let mut users: BTreeMap<&Peer, (u32, BTreeSet<String>)> = BTreeMap::new();
        for object in self.repository.policies() {
            for peer in object.rules.iter().flat_map(|rule| &rule.peers) {
                let entry = users.entry(peer).or_default();
                entry.0 += 1;
                entry.1.insert(object.reference.to_string());
            }
        }
        let describe = |(peer, (count, names)): (&Peer, (u32, BTreeSet<String>))| {
            let identities: BTreeSet<u32> = self.repository.selected(peer).collect();
            agent_api::Selector {
                selector: peer.to_string(),
                identities: identities.into_iter().collect(),
                users: count,
                labels: names.into_iter().collect(),
            }
        };
        users.into_iter().map(describe).collect()
    }
}

/// A rule that names no namespace means services of all.
fn in_namespace(service: &Key, namespace: &str) -> bool {
    namespace.is_empty() || service.0 == namespace
}

fn tables(policy: &EndpointPolicy, revision: u64, ports: &Ports) -> Tables {
    let redirects = policy.rule_sets.iter().filter_map(|set| Some((set.id, Arc::new(Asked::of(set)?))));
    let redirects: Redirects = redirects.collect();
    let verdicts = policy.verdicts().iter().map(|(key, entry)| (*key, redirected(key, entry, &redirects, ports)));
    let verdicts: Vec<_> = verdicts.collect();
    Tables {
        redirected: Arc::new(redirected_ports(&verdicts, &redirects)),
        ingress: policy.ingress_enforced,
        egress: policy.egress_enforced,
        classes: policy.classes.iter().collect(),
        verdicts,
        revision,
        redirects,
        decisions: policy.rule_sets.iter().map(|set| (set.id, decision(set))).collect(),
    }
}

fn decision(set: &RuleSet) -> Decision {
    Decision { implicit: set.implicit, rules: set.rules.clone() }
}

/// An entry that redirects names the proxy's port. Without one it drops.
fn redirected(key: &VerdictKey, entry: &VerdictEntry, redirects: &Redirects, ports: &Ports) -> VerdictEntry {
    let rules = redirects.get(&entry.rule_set).filter(|_| entry.verdict == VERDICT_REDIRECT);
    let port = rules.map_or(0, |rules| ports.of(rules.parser(), key.direction));
    VerdictEntry { proxy_port: Port::new(port), ..*entry }
}

fn redirected_ports(verdicts: &[(VerdictKey, VerdictEntry)], redirects: &Redirects) -> BTreeSet<RedirectedPort> {
    let there = verdicts.iter().filter(|(_, entry)| entry.proxy_port.number() != 0);
    let ports = there.filter_map(|(key, entry)| {
        // What is not one port is a range whose last bits are any.
        let free = PREFIX_FULL.saturating_sub(key.prefix_len.max(PREFIX_PROTOCOL)).min(16);
        let first = key.port.number();
        Some(RedirectedPort {
            direction: key.direction,
            protocol: key.protocol,
            first,
            last: first | u16::try_from((1u32 << free) - 1).unwrap_or(u16::MAX),
            reads: crate::proxy::name(redirects.get(&entry.rule_set)?.parser()),
            proxy_port: entry.proxy_port.number(),
        })
    });
    ports.collect()
}
