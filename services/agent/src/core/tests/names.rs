//! What follows from names that endpoints learn, with the policy language's own engine?

use std::collections::{BTreeSet, HashMap};

use abi::policy::DIR_EGRESS;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::config::{Settings, Values};
use crate::proxy::Ports;

/// A synced core with one ready pod `web` of identity 1000.
fn real(found: Found) -> Core {
    let settings = Settings::new(&Values::new(), "n1").unwrap();
    let engine = crate::engine::repository(&settings, Some(Ports::default()), 1).unwrap();
    let mut core = core_with(found, 16_384, engine);
    core.facts.cluster = settings.cluster;
    core.handle(namespace());
    core.handle(Event::Pod(key("web"), pod(&[("app", "web")])));
    core.add_endpoint(record(5, "web"));
    core
}

fn ready(core: &mut Core) {
    core.handle(Event::Synced);
    core.flush();
    let labels = core.wanted_labels(&core.endpoints()[&5]).unwrap();
    core.handle(Event::Allocated(labels, Ok(1000)));
    core.flush();
}

fn egress(name: &str, rules: serde_json::Value) -> Event {
    let key = PolicyKey { kind: PolicyKind::Cilium, namespace: "default".into(), name: name.into() };
    let object = json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"endpointSelector": {"matchLabels": {"app": "web"}}, "egress": rules},
    });
    Event::Policy(key, Box::new(object))
}

fn names(selectors: &[&str]) -> serde_json::Value {
    let one = |text: &&str| if text.contains('*') { json!({"matchPattern": text}) } else { json!({"matchName": text}) };
    json!([{"toFQDNs": selectors.iter().map(one).collect::<Vec<_>>()}])
}

fn answer(name: &str, addresses: &[&str]) -> Event {
    let addresses = addresses.iter().map(|address| ip(address)).collect();
    Event::Answered(5, fqdn::Answer { name: name.into(), addresses, ttl: 60 }, 100)
}

/// What the kernel holds after operations, as far as addresses and classes go.
#[derive(Default)]
struct Kernel {
    ipcache: BTreeMap<IpNet, RemoteEndpoint>,
    classes: HashMap<u32, BTreeMap<Identity, abi::policy::Class>>,
}

impl Kernel {
    fn apply(&mut self, ops: &[Op]) {
        for op in ops {
            match op {
                Op::Ipcache(Change::Set(prefix, value)) => drop(self.ipcache.insert(*prefix, *value)),
                Op::Ipcache(Change::Remove(prefix)) => drop(self.ipcache.remove(prefix)),
                Op::InstallPolicy { slot, classes, .. } => {
                    self.classes.insert(*slot, classes.iter().copied().collect());
                }
                Op::SetClass(slot, peer, class) => drop(self.classes.entry(*slot).or_default().insert(*peer, *class)),
                Op::RemoveClass(slot, peer) => drop(self.classes.entry(*slot).or_default().remove(peer)),
                _ => {}
            }
        }
    }
}

fn identity_of(core: &Core, address: &str) -> Identity {
    core.ipcache().find(ip(address)).unwrap().1.identity
}

fn labels_of(core: &Core, address: &str) -> String {
    core.identities()[&identity_of(core, address)].to_string()
}

#[test]
fn an_address_of_a_known_kind_is_one_entry_of_the_ip_cache_and_nothing_else() {
    let mut core = real(Found::default());
    core.handle(egress("p", names(&["*.x", "a.x"])));
    ready(&mut core);
    core.handle(answer("a.x", &["1.1.1.1"]));
    let ops = core.flush();
    assert_eq!(labels_of(&core, "1.1.1.1"), "fqdn:*.x,fqdn:a.x,reserved:world");
    let class = position(&ops, |op| matches!(op, Op::SetClass(..) | Op::InstallPolicy { .. }));
    let written = position(&ops, |op| matches!(op, Op::Ipcache(Change::Set(..))));
    assert!(class < written, "the tables know the identity before an address has it: {ops:#?}");
    core.handle(answer("a.x", &["1.1.1.2"]));
    let ops = core.flush();
    let number = identity_of(&core, "1.1.1.1");
    let set =
        |prefix: &str| Change::Set(prefix.parse().unwrap(), RemoteEndpoint { identity: number, ..Default::default() });
    assert_eq!(ops, [Op::Ipcache(set("1.1.1.2/32")), Op::BumpGeneration]);
    core.handle(answer("b.x", &["1.1.1.3"]));
    core.flush();
    assert_eq!(labels_of(&core, "1.1.1.3"), "fqdn:*.x,reserved:world");
    let names: Vec<String> = core.engine().names().into_iter().map(|one| one.addresses.join(" ")).collect();
    assert_eq!(names, ["1.1.1.1 1.1.1.2 1.1.1.3", "1.1.1.1 1.1.1.2"]);
}

/// Pods, the own node, another node and the API server: whoever answers for a name opens none of them, before they are known
/// nor after.
#[test]
fn a53_a_name_makes_nobody_s_address_its_own() {
    let mut core = real(Found::default());
    core.handle(egress("p", names(&["**"])));
    for (name, address) in [("n1", "172.18.0.2"), ("n2", "172.18.0.3")] {
        core.handle(Event::Node(name.into(), Node { addresses: [ip(address)].into(), ..Node::default() }));
    }
    core.handle(Event::AgentNode(
        "n2".into(),
        AgentNode { routers: [ip("10.244.2.1")].into(), health: [ip("10.244.2.2")].into() },
    ));
    let slice = Slice { ready: vec![ip("9.9.9.9")], ..Slice::default() };
    core.handle(Event::Slice(key("kubernetes"), key("kubernetes"), slice));
    ready(&mut core);
    let all = [
        ("10.244.1.5", 1000),
        ("10.244.1.1", identity::HOST),
        ("172.18.0.2", identity::HOST),
        ("172.18.0.3", identity::REMOTE_NODE),
        ("10.244.2.1", identity::REMOTE_NODE),
        ("10.244.2.2", identity::HEALTH),
    ];
    let who = |core: &Core| all.map(|(address, _)| (address, identity_of(core, address)));
    assert_eq!(who(&core), all);
    core.handle(answer("evil.x", &all.map(|(address, _)| address)));
    core.handle(answer("evil.x", &["10.244.2.9", "9.9.9.9"]));
    core.flush();
    assert_eq!(who(&core), all);
    assert!(labels_of(&core, "9.9.9.9").contains("reserved:kube-apiserver"), "{}", labels_of(&core, "9.9.9.9"));
    // A pod that comes later takes its address back.
    core.handle(Event::RemotePod(
        key("far"),
        RemotePod {
            addresses: [ip("10.244.2.9")].into(),
            node: Some(ip("172.18.0.3")),
            identity: Some(1000),
            ..RemotePod::default()
        },
    ));
    core.flush();
    assert_eq!(identity_of(&core, "10.244.2.9"), 1000);
}

#[test]
fn a_name_that_leaves_takes_its_label_along_and_the_last_one_the_identity() {
    let mut core = real(Found::default());
    core.handle(egress("p", names(&["a.x", "b.x"])));
    core.handle(egress("q", json!([{"toCIDR": ["1.1.0.0/16"]}])));
    ready(&mut core);
    core.handle(answer("a.x", &["1.1.1.1"]));
    core.handle(answer("b.x", &["1.1.1.1", "2.2.2.2"]));
    core.flush();
    assert_eq!(labels_of(&core, "1.1.1.1"), "cidr:1.1.0.0/16,fqdn:a.x,fqdn:b.x,reserved:world");
    let both = identity_of(&core, "1.1.1.1");
    core.clean_names(|name| name == "a.x");
    let ops = core.flush();
    assert_eq!(labels_of(&core, "1.1.1.1"), "cidr:1.1.0.0/16,fqdn:b.x,reserved:world");
    let known =
        |op: &Op| matches!(op, Op::InstallPolicy { classes, .. } if classes.iter().any(|(one, _)| *one == both));
    assert!(ops.iter().any(known), "tables know what the IP cache holds until it is written: {ops:#?}");
    let ops = core.flush();
    position(&ops, |op| matches!(op, Op::RemoveClass(_, peer) if *peer == both));
    assert!(!core.identities().contains_key(&both));
    core.clean_names(|_| true);
    let ops = core.flush();
    let address = "2.2.2.2/32".parse().unwrap();
    assert!(ops.contains(&Op::Ipcache(Change::Remove(address))), "{ops:#?}");
    assert_eq!(labels_of(&core, "1.1.1.1"), "cidr:1.1.0.0/16,reserved:world");
}

#[test]
fn a20_names_keep_their_numbers_over_a_restart_and_leave_them_to_nobody_else() {
    let mut kernel = Kernel::default();
    let mut core = real(Found::default());
    core.handle(egress("p", names(&["a.x", "b.x"])));
    ready(&mut core);
    core.handle(answer("a.x", &["1.1.1.1", "1.1.1.2"]));
    core.handle(answer("b.x", &["2.2.2.2"]));
    core.handle(Event::Answered(5, fqdn::Answer { name: "b.x".into(), addresses: vec![ip("1.1.1.2")], ttl: 60 }, 100));
    core.look_at_all_addresses();
    kernel.apply(&core.flush());
    let all = ["1.1.1.1", "1.1.1.2", "2.2.2.2"].map(|address| identity_of(&core, address));
    assert_eq!(BTreeSet::from(all).len(), 3);
    let before = kernel.ipcache.len();
    let found = Found { numbers: core.local_numbers().numbers(), ipcache: kernel.ipcache.clone(), ..Found::default() };
    // While the agent was away the policy was changed: now a.x is nobody's.
    let mut after = real(found);
    let saved = read_names(core.names()).save();
    after.restore_names(saved);
    after.handle(egress("p", names(&["b.x", "c.x"])));
    after.handle(Event::Synced);
    after.flush();
    assert!(after.identities().contains_key(&all[1]), "tables know what the IP cache holds until it is written");
    let labels = after.wanted_labels(&after.endpoints()[&5]).unwrap();
    after.handle(Event::Allocated(labels, Ok(1000)));
    after.flush();
    assert!(before >= 3);
    assert!(!after.identities().contains_key(&all[0]), "what was of the earlier run is forgotten when it is of no use");
    assert_eq!(identity_of(&after, "1.1.1.2"), all[2], "its labels are those of 2.2.2.2 now");
    assert_eq!(identity_of(&after, "2.2.2.2"), all[2]);
    assert_eq!(identity_of(&after, "1.1.1.1"), identity::WORLD);
    after.handle(answer("c.x", &["3.3.3.3"]));
    after.flush();
    assert!(!all.contains(&identity_of(&after, "3.3.3.3")));
}

#[test]
fn two_pods_that_name_different_numbers_have_identities_of_their_own() {
    let mut core = real(Found::default());
    ready(&mut core);
    let named = |port| Pod { ports: vec![("HTTP".into(), port, "TCP".into())], ..pod(&[("app", "db")]) };
    for (id, name, port) in [(7, "one", 80), (8, "two", 8080), (9, "three", 80)] {
        core.handle(Event::Pod(key(name), named(port)));
        core.add_endpoint(record(id, name));
    }
    let labels = |core: &Core, id: u32| core.wanted_labels(&core.endpoints()[&id]).unwrap();
    let ops = core.flush();
    assert_eq!(ops.iter().filter(|op| matches!(op, Op::AllocateIdentity(_))).count(), 2, "{ops:#?}");
    assert!(labels(&core, 7).to_string().starts_with("gen:io.cilium.k8s.named-ports=http.TCP.80,"));
    core.handle(Event::Allocated(labels(&core, 7), Ok(2000)));
    core.handle(Event::Allocated(labels(&core, 8), Ok(2001)));
    core.flush();
    let identities = [7, 8, 9].map(|id| core.endpoints()[&id].record.identity);
    assert_eq!(identities, [2000, 2001, 2000]);
    // A rule for the name opens each pod's own number.
    core.handle(egress("p", json!([{"toEndpoints": [{}], "toPorts": [{"ports": [{"port": "http"}]}]}])));
    let ops = core.flush();
    let tables = ops.iter().find_map(|op| match op {
        Op::InstallPolicy { classes, verdicts, .. } => Some((classes, verdicts)),
        _ => None,
    });
    let (classes, verdicts) = tables.unwrap();
    let class = |peer| classes.iter().find(|(one, _)| *one == peer).unwrap().1;
    for (peer, port) in [(2000, 80), (2001, 8080)] {
        let ports = verdicts.iter().filter(|(key, entry)| {
            (key.class, key.direction, entry.verdict) == (class(peer), DIR_EGRESS, VERDICT_ALLOW)
        });
        assert_eq!(ports.map(|(key, _)| key.port.number()).collect::<Vec<_>>(), [port]);
    }
}

#[test]
fn an_endpoint_of_an_earlier_run_keeps_what_its_identity_says_of_named_ports() {
    for (before, expected) in [("k8s:app=web", false), ("gen:io.cilium.k8s.named-ports=http.TCP.80", true)] {
        let mut core = real(Found::default());
        let labels = Labels::parse([before]).unwrap();
        core.handle(Event::Pod(key("old"), Pod { ports: vec![("http".into(), 80, "TCP".into())], ..pod(&[]) }));
        core.restore_endpoint(EndpointRecord { identity: 3000, labels, ..record(9, "old") });
        let wanted = core.wanted_labels(&core.endpoints()[&9]).unwrap();
        assert_eq!(wanted.get("gen", "io.cilium.k8s.named-ports").is_some(), expected, "{wanted}");
    }
}

const SELECTORS: [&[&str]; 4] = [&["a.x"], &["*.x"], &["*.x", "b.y"], &["*"]];
const HOSTS: [&str; 3] = ["a.x", "b.x", "b.y"];
const ADDRESSES: [&str; 4] = ["1.1.1.1", "1.1.1.2", "1.2.1.1", "9.9.9.9"];

/// What a packet to each address meets: the labels that its identity stands for, and its class in the pod's tables.
fn told(core: &Core, kernel: &Kernel) -> Vec<(String, BTreeSet<Identity>)> {
    let slot = core.endpoints()[&5].applied.slot;
    let classes = &kernel.classes[&slot];
    let find = |address: &str| {
        let around = kernel.ipcache.iter().filter(|(prefix, _)| prefix.contains(&ip(address)));
        around.max_by_key(|(prefix, _)| prefix.prefix_len()).unwrap().1.identity
    };
    let class = |identity: Identity| classes.get(&identity).copied().unwrap_or(0);
    let alike = |address: &str| {
        let same = ADDRESSES.iter().enumerate().filter(|(_, other)| class(find(other)) == class(find(address)));
        same.map(|(at, _)| at as Identity).collect()
    };
    ADDRESSES.iter().map(|address| (core.identities()[&find(address)].to_string(), alike(address))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Answers, policies and names that go, in any order: the kernel holds what a fresh start writes at once.
    #[test]
    fn changes_of_names_and_policies_lead_where_a_fresh_start_leads(
        steps in prop::collection::vec((0..6usize, 0..4usize, 0..16usize), 1..16),
    ) {
        let mut core = real(Found::default());
        let mut kernel = Kernel::default();
        core.handle(Event::Synced);
        kernel.apply(&core.flush());
        let labels = core.wanted_labels(&core.endpoints()[&5]).unwrap();
        core.handle(Event::Allocated(labels, Ok(1000)));
        kernel.apply(&core.flush());
        let mut policies = BTreeMap::new();
        for (what, which, bits) in steps {
            let name = format!("p{}", which % 2);
            match what {
                0 | 1 => {
                    let rules = if what == 0 { names(SELECTORS[which]) } else { json!([{"toCIDR": ["1.1.0.0/16"]}]) };
                    policies.insert(name.clone(), rules.clone());
                    core.handle(egress(&name, rules));
                }
                2 => {
                    policies.remove(&name);
                    core.handle(Event::PolicyGone(PolicyKey { kind: PolicyKind::Cilium, namespace: "default".into(), name }));
                }
                3 => drop(core.clean_names(|name| name == HOSTS[which % 3])),
                _ => {
                    let some = ADDRESSES.iter().enumerate().filter(|(at, _)| bits >> at & 1 == 1);
                    core.handle(answer(HOSTS[which % 3], &some.map(|(_, address)| *address).collect::<Vec<_>>()));
                }
            }
            kernel.apply(&core.flush());
            core.view();
        }
        // What is gone is forgotten when nothing can speak of it any more.
        kernel.apply(&core.flush());
        let mut fresh = real(Found::default());
        fresh.restore_names(read_names(core.names()).save());
        policies.into_iter().for_each(|(name, rules)| fresh.handle(egress(&name, rules)));
        let mut wanted = Kernel::default();
        fresh.handle(Event::Synced);
        wanted.apply(&fresh.flush());
        let labels = fresh.wanted_labels(&fresh.endpoints()[&5]).unwrap();
        fresh.handle(Event::Allocated(labels, Ok(1000)));
        wanted.apply(&fresh.flush());
        prop_assert_eq!(told(&core, &kernel), told(&fresh, &wanted));
        prop_assert_eq!(kernel.ipcache.keys().collect::<Vec<_>>(), wanted.ipcache.keys().collect::<Vec<_>>());
        prop_assert_eq!(core.redirects().values().collect::<Vec<_>>().len(), fresh.redirects().len());
        // The snapshot that was kept is the one that is made at once.
        let seen = |view: &View, core: &Core| {
            let mut peers: Vec<_> = view.peers.iter().map(|(address, peer)| {
                (*address, core.identities().get(&peer.identity).map(Labels::to_strings), peer.endpoint)
            }).collect();
            peers.sort();
            let networks: Vec<_> = view.networks.iter().map(|(prefix, _)| *prefix).collect();
            (peers, networks, view.labels.iter().count())
        };
        prop_assert_eq!(seen(&core.view(), &core), seen(&fresh.view(), &fresh));
    }
}
