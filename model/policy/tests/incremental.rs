//! Do changes of one thing at a time lead to the tables of a fresh start, and do they say exactly what changes?
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use identity::{Families, NumericIdentity, Outside};
use ipnet::IpNet;
use labels::{Label, Labels};
use policy::{Change, Direction, EndpointPolicy, Known, Learned, NamedPorts, PolicyObject, Repository, Settings, What};

const SUBJECT: NumericIdentity = 300;
const FAMILIES: Families = Families { ipv4: true, ipv6: false };

/// What a repository was told, so that another one can be told the same.
#[derive(Default)]
struct Told {
    policies: BTreeMap<usize, PolicyObject>,
    identities: BTreeMap<NumericIdentity, Labels>,
    ports: BTreeMap<NumericIdentity, NamedPorts>,
    learned: Vec<(Learned, Known)>,
}

/// A repository, and tables that are kept by its changes alone.
struct Kept {
    repository: Repository,
    tables: EndpointPolicy,
    outside: Outside,
}

impl Kept {
    fn new() -> Self {
        let mut repository = Repository::new(settings());
        repository.upsert_identity(SUBJECT, &workload("web"));
        let tables = EndpointPolicy::clone(&repository.subject_policy(SUBJECT).unwrap());
        Kept { repository, tables, outside: Outside::new(FAMILIES, &BTreeMap::new(), []) }
    }

    fn take(&mut self, change: Change) {
        for one in change.tables.into_iter().filter(|one| one.subject == SUBJECT) {
            match one.what {
                What::Rebuilt(tables) => self.tables = EndpointPolicy::clone(&tables),
                What::ClassRemoved { identity } => drop(self.tables.classes.remove(identity).unwrap()),
                What::ClassSet { identity, class, verdicts, rule_sets } => {
                    self.tables.classes.insert(identity, class);
                    self.tables.add_verdicts(verdicts);
                    self.tables.rule_sets.extend(rule_sets);
                    self.tables.rule_sets.sort_by_key(|set| set.id);
                }
            }
        }
        let added = change.prefixes_added.into_iter().map(|prefix| (prefix, true));
        let named = added.chain(change.prefixes_removed.into_iter().map(|prefix| (prefix, false))).collect();
        self.place(&named, BTreeMap::new());
    }

    /// Policies name other prefixes, and addresses are learned for other names.
    fn place(&mut self, named: &BTreeMap<IpNet, bool>, learned: BTreeMap<IpAddr, BTreeSet<String>>) {
        let change = self.outside.change(named, learned);
        for (identity, labels) in change.added {
            let change = self.repository.upsert_identity(identity, &labels);
            self.take(change);
        }
        for identity in change.removed {
            let change = self.repository.remove_identity(identity);
            self.take(change);
        }
        self.outside.retire();
    }
}

fn settings() -> Settings {
    Settings { node_selector_labels: true, ..Settings::default() }
}

fn workload(app: &str) -> Labels {
    let namespace = Label::k8s(labels::POD_NAMESPACE, "default");
    Labels::new([Label::k8s("app", app), namespace, Label::k8s(labels::CLUSTER, "default")])
}

fn node(zone: &str) -> Labels {
    let zone = Label::new("node", "zone", zone);
    Labels::new([Label::reserved("remote-node"), zone, Label::k8s(labels::CLUSTER, "default")])
}

fn policy(at: usize, rules: &str) -> PolicyObject {
    let text = format!(
        "{{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {{name: p{at}}}, spec: {{endpointSelector: {{matchLabels: {{app: web}}}}, {rules}}}}}"
    );
    let (documents, problems) = crds::load_documents("p", &text, &crds::LIMITS);
    assert!(problems.is_empty(), "{problems:?}");
    PolicyObject::from_value(&documents[0].value, &documents[0].source, &settings()).unwrap()
}

const RULES: &[&str] = &[
    "egress: [{toFQDNs: [{matchName: a.example}]}]",
    "egress: [{toCIDRSet: [{cidrGroupRef: g}]}]",
    "egress: [{toCIDRSet: [{cidrGroupSelector: {matchLabels: {role: db}}}], toPorts: [{ports: [{port: \"80\"}]}]}]",
    "egress: [{toServices: [{k8sService: {serviceName: s, namespace: default}}]}]",
    "egress: [{toNodes: [{matchLabels: {zone: x}}]}]",
    "egress: [{toEndpoints: [{matchLabels: {app: db}}], toPorts: [{ports: [{port: sql}]}]}], egressDeny: [{toCIDR: [10.1.0.0/16]}]",
    "ingress: [{fromEndpoints: [{matchLabels: {app: db}}]}, {fromEntities: [world], toPorts: [{ports: [{port: \"443\"}]}]}]",
];

fn prefixes(bits: usize) -> Vec<IpNet> {
    let all: [IpNet; 3] = ["10.1.2.3/32", "10.2.0.0/16", "192.0.2.1/32"].map(|text| text.parse().unwrap());
    all.into_iter().enumerate().filter(|(at, _)| bits >> at & 1 == 1).map(|(_, prefix)| prefix).collect()
}

/// What can be learned, and what it is now by some number.
fn learned(which: usize, bits: usize) -> (Learned, Known) {
    let group = |role: &str| Labels::new([Label::new("cidrgroup", "role", role)]);
    match which {
        1 => (Learned::Group("g".to_owned(), Vec::new()), prefixes(bits).into()),
        2 => {
            let selector = "role".parse().unwrap();
            let selector = labels::Selector::everything().and(selector, labels::Operator::In(vec!["db".to_owned()]));
            let role = if bits & 4 == 0 { "db" } else { "web" };
            let groups = prefixes(bits).into_iter().map(|prefix| (group(role), prefix));
            (Learned::Groups(selector, Vec::new()), Known::of_groups(groups))
        }
        _ => {
            let mut known = Known::default();
            let pods = [("app", "db")].into_iter().filter(|_| bits & 1 == 1);
            known.add_service("default", pods, prefixes(bits), &settings());
            (Learned::Service("default".to_owned(), "s".to_owned()), known)
        }
    }
}

/// One thing changes, for what is told and for the repository.
fn step(number: u64, told: &mut Told, kept: &mut Kept) {
    let pick = |most: u64| (number >> 8) % most;
    let (some, bits) = (pick(RULES.len() as u64) as usize, (number >> 20) as usize & 7);
    let change = match number % 8 {
        0 | 1 => {
            let object = policy(some, RULES[(some + bits) % RULES.len()]);
            told.policies.insert(some, object.clone());
            kept.repository.upsert_policy(object)
        }
        2 => match told.policies.remove(&some) {
            Some(gone) => kept.repository.remove_policy(&gone.reference),
            None => return,
        },
        3 | 4 => {
            let identity = 400 + pick(5) as u32;
            let labels = workload(["db", "web", "other"][bits % 3]);
            told.identities.insert(identity, labels.clone());
            kept.repository.upsert_identity(identity, &labels)
        }
        5 => {
            let identity = 0x0200_0000 + pick(3) as u32;
            let labels = node(["x", "z"][bits % 2]);
            told.identities.insert(identity, labels.clone());
            kept.repository.upsert_identity(identity, &labels)
        }
        6 => {
            let Some(identity) = told.identities.keys().nth(some).copied() else { return };
            if bits & 1 == 0 {
                told.identities.remove(&identity);
                told.ports.remove(&identity);
                kept.repository.remove_identity(identity)
            } else {
                let ports = NamedPorts::from([((6, "sql".to_owned()), [5432 + bits as u16].into())]);
                told.ports.insert(identity, ports.clone());
                kept.repository.set_named_ports(identity, ports)
            }
        }
        _ if pick(4) == 0 => {
            let addresses = ["10.1.2.3", "10.2.0.1", "192.0.2.1"].into_iter().enumerate();
            let names = |at: usize| (bits >> at & 1 == 1).then(|| "a.example".to_owned()).into_iter().collect();
            let learned = addresses.map(|(at, address)| (address.parse().unwrap(), names(at)));
            return kept.place(&BTreeMap::new(), learned.collect());
        }
        _ => {
            let (what, known) = learned(pick(4) as usize, bits);
            told.learned.retain(|(other, _)| *other != what);
            told.learned.push((what.clone(), known.clone()));
            kept.repository.set_learned(&what, known)
        }
    };
    kept.take(change);
}

/// The tables of a repository that is told everything at once.
fn fresh(told: &Told, outside: &Outside) -> (Repository, Arc<EndpointPolicy>) {
    let mut repository = Repository::new(settings());
    repository.upsert_identity(SUBJECT, &workload("web"));
    for (what, known) in &told.learned {
        repository.set_learned(what, known.clone());
    }
    told.policies.values().for_each(|object| drop(repository.upsert_policy(object.clone())));
    for (identity, labels) in told.identities.clone().into_iter().chain(outside.numbers()) {
        repository.upsert_identity(identity, &labels);
    }
    for (identity, ports) in &told.ports {
        repository.set_named_ports(*identity, ports.clone());
    }
    let tables = repository.subject_policy(SUBJECT).unwrap();
    (repository, tables)
}

/// What tables say of a packet, without the numbers of rule sets.
fn said(tables: &EndpointPolicy, peer: NumericIdentity, direction: Direction, protocol: u8, port: u16) -> String {
    let entry = tables.verdict(peer, direction, protocol, port);
    let set = tables.rule_set(entry.rule_set).map(|set| (set.implicit, set.rules.to_vec()));
    format!("{} {} {set:?}", entry.verdict, entry.match_type)
}

#[test]
fn one_change_at_a_time_leads_where_a_fresh_start_leads() {
    let (mut told, mut kept) = (Told::default(), Kept::new());
    let mut number = 0x9e37_79b9_7f4a_7c15_u64;
    let mut changes = 0;
    for at in 0..1_500 {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let before = kept.tables.clone();
        step(number >> 33, &mut told, &mut kept);
        changes += usize::from(before.classes != kept.tables.classes || before.verdicts() != kept.tables.verdicts());
        let own = kept.repository.subject_policy(SUBJECT).unwrap();
        assert_eq!((&kept.tables.classes, kept.tables.verdicts()), (&own.classes, own.verdicts()), "step {at}");
        let (repository, new) = fresh(&told, &kept.outside);
        assert_eq!(kept.repository.prefixes(), repository.prefixes(), "step {at}");
        let peers = told.identities.keys().copied().chain(kept.outside.iter().map(|(_, identity)| identity));
        for peer in peers.chain([1, 2, 6, SUBJECT]) {
            for (protocol, port) in [(6, 80), (6, 443), (6, 5433), (17, 53)] {
                for direction in Direction::BOTH {
                    let found = said(&kept.tables, peer, direction, protocol, port);
                    let expected = said(&new, peer, direction, protocol, port);
                    assert_eq!(found, expected, "step {at}: {peer} {direction:?} {protocol} {port}");
                }
            }
        }
    }
    assert!(changes > 300, "{changes} steps changed the tables");
}
