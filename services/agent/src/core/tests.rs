//! Does the core do the right things in the right order?
#![allow(clippy::unwrap_used)]

mod names;

use std::collections::BTreeMap;
use std::net::IpAddr;

use abi::identity::{self, Identity};
use abi::policy::{DIR_INGRESS, PREFIX_ANY_PROTOCOL, VERDICT_ALLOW, VerdictEntry, VerdictKey};
use ipnet::IpNet;
use labels::{LabelFilter, Labels};

use super::*;
use crate::engine::{Places, TableChange, Tables};
use crate::ipcache::Change;
use crate::ops::PolicyKind;

/// Policy objects do not matter but for the revision; whoever has the label `friend` may talk to everybody.
#[derive(Default)]
pub struct Fake {
    revision: u64,
    identities: BTreeMap<Identity, Labels>,
    prefixes: BTreeSet<IpNet>,
    places: Places,
    /// What was told of subjects.
    told: BTreeMap<Identity, Tables>,
}

impl Fake {
    fn tables(&self) -> Tables {
        let key = VerdictKey {
            prefix_len: PREFIX_ANY_PROTOCOL,
            class: 1,
            direction: DIR_INGRESS,
            protocol: 0,
            port: abi::Port(0),
        };
        let entry = VerdictEntry { rule_set: self.revision as u32, verdict: VERDICT_ALLOW, ..VerdictEntry::default() };
        let friends = self
            .identities
            .iter()
            .filter(|(number, labels)| labels.get("k8s", "friend").is_some() || identity::is_node_local(**number));
        Tables {
            ingress: self.revision > 0,
            classes: friends.map(|(number, _)| (*number, 1)).collect(),
            verdicts: vec![(key, entry)],
            ..Tables::default()
        }
    }
}

/// What it takes to come from one to the other.
fn difference(old: &Tables, new: &Tables) -> Vec<TableChange> {
    if (old.ingress, old.egress, &old.verdicts) != (new.ingress, new.egress, &new.verdicts) {
        return vec![TableChange::Rebuilt(Box::new(new.clone()))];
    }
    let gone = old.classes.keys().filter(|peer| !new.classes.contains_key(peer)).map(|peer| TableChange::Others(*peer));
    let set = new.classes.iter().filter(|(peer, class)| old.classes.get(peer) != Some(class));
    gone.chain(set.map(|(peer, class)| TableChange::Class(*peer, *class))).collect()
}

impl Engine for Fake {
    fn revision(&self) -> u64 {
        self.revision + 1
    }
    fn set_policy(&mut self, _: &PolicyKey, object: &serde_json::Value) -> Vec<String> {
        self.revision += 1;
        if let Some(prefix) = object["prefix"].as_str().and_then(|text| text.parse::<IpNet>().ok()) {
            self.prefixes.insert(prefix);
            self.places.named.insert(prefix, true);
        }
        Vec::new()
    }
    fn remove_policy(&mut self, _: &PolicyKey) {
        self.revision += 1;
        self.places.named.extend(std::mem::take(&mut self.prefixes).into_iter().map(|prefix| (prefix, false)));
    }
    fn names(&self) -> Vec<agent_api::NameSelector> {
        Vec::new()
    }
    fn rules_for_name(&self, _: Identity, _: &str) -> Vec<String> {
        Vec::new()
    }
    fn set_names(&mut self, _: &fqdn::Change) {}
    fn set_service(&mut self, _: &Key, _: Option<(&ServiceLabels, BTreeSet<IpAddr>)>) {}
    fn set_cidr_group(&mut self, _: &str, _: &crds::CiliumCIDRGroup) {}
    fn remove_cidr_group(&mut self, _: &str) {}
    fn add_identity(&mut self, identity: Identity, labels: &Labels) {
        self.identities.insert(identity, labels.clone());
    }
    fn remove_identity(&mut self, identity: Identity) {
        self.identities.remove(&identity);
    }
    fn places(&mut self) -> Places {
        std::mem::take(&mut self.places)
    }
    fn set_named_ports(&mut self, _: Identity, _: crate::engine::NamedPorts) {}
    fn resolve(&mut self, subject: Identity) -> Option<Tables> {
        self.identities.get(&subject)?;
        self.told.insert(subject, self.tables());
        Some(self.tables())
    }
    fn changes(&mut self) -> BTreeMap<Identity, Vec<TableChange>> {
        let now = self.tables();
        let mut all = BTreeMap::new();
        for (subject, told) in &mut self.told {
            let changes = difference(told, &now);
            if !changes.is_empty() {
                all.insert(*subject, changes);
            }
            *told = now.clone();
        }
        all
    }
    fn release(&mut self, subject: Identity) {
        self.told.remove(&subject);
    }
    fn next_rule_set(&self) -> u32 {
        1
    }
    fn has_policy(&self, _: &policy::PolicyRef) -> bool {
        true
    }
    fn policy_count(&self) -> usize {
        0
    }
    fn describe(&self) -> String {
        "[]".into()
    }
    fn selectors(&self) -> Vec<agent_api::Selector> {
        Vec::new()
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn key(name: &str) -> Key {
    ("default".into(), name.into())
}

fn core(found: Found) -> Core {
    core_with_slots(found, 16_384)
}

fn core_with_slots(found: Found, policy_slots: u32) -> Core {
    core_with(found, policy_slots, Box::<Fake>::default())
}

fn core_with(found: Found, policy_slots: u32, engine: Box<dyn Engine>) -> Core {
    let facts = Facts {
        cluster: "kind-kind".into(),
        node: "n1".into(),
        ipv4: true,
        ipv6: false,
        enforcement: Enforcement::Default,
        routers: vec![ip("10.244.1.1")],
        node_addresses: vec![ip("172.18.0.2")],
        filter: LabelFilter::default(),
        policy_slots,
        names: SharedNames::default(),
    };
    Core::new(facts, engine, found)
}

fn namespace() -> Event {
    Event::Namespace("default".into(), [("kubernetes.io/metadata.name".into(), "default".into())].into())
}

fn pod(labels: &[(&str, &str)]) -> Pod {
    let labels = labels.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    Pod { labels, service_account: "default".into(), uid: "u1".into(), ..Pod::default() }
}

fn record(id: u32, name: &str) -> EndpointRecord {
    EndpointRecord {
        id,
        attachment: format!("{name}:eth0"),
        namespace: "default".into(),
        pod: name.into(),
        ifindex: id + 10,
        ipv4: Some(format!("10.244.1.{id}").parse().unwrap()),
        ..EndpointRecord::default()
    }
}

fn policy(name: &str, prefix: Option<&str>) -> Event {
    let key = PolicyKey { kind: PolicyKind::Cilium, namespace: "default".into(), name: name.into() };
    Event::Policy(key, Box::new(serde_json::json!({ "prefix": prefix })))
}

fn position(ops: &[Op], what: impl Fn(&Op) -> bool) -> usize {
    ops.iter().position(what).unwrap_or_else(|| panic!("not in {ops:#?}"))
}

/// A synced core with one ready pod of identity 1000.
fn with_web() -> Core {
    with_web_and_slots(16_384)
}

fn with_web_and_slots(slots: u32) -> Core {
    let mut core = core_with_slots(Found::default(), slots);
    core.handle(namespace());
    core.handle(Event::Pod(key("web"), pod(&[("app", "web")])));
    core.handle(Event::Synced);
    core.flush();
    core.add_endpoint(record(5, "web"));
    let ops = core.flush();
    let Some(Op::AllocateIdentity(labels)) = ops.iter().find(|op| matches!(op, Op::AllocateIdentity(_))) else {
        panic!("{ops:#?}")
    };
    core.handle(Event::Allocated(labels.clone(), Ok(1000)));
    core.flush();
    core
}

#[test]
fn a_new_pod_has_the_init_policy_until_its_identity_is_known_and_then_its_own() {
    let mut core = core(Found::default());
    core.handle(namespace());
    core.handle(Event::Pod(key("web"), pod(&[("app", "web")])));
    core.handle(Event::Synced);
    core.flush();
    core.add_endpoint(record(5, "web"));
    let ops = core.flush();
    let install = position(&ops, |op| matches!(op, Op::InstallPolicy { .. }));
    let switch = position(&ops, |op| matches!(op, Op::UsePolicy(5, _)));
    let shown = position(&ops, |op| matches!(op, Op::SetEndpoint(..)));
    assert!(install < switch && switch < shown, "{ops:#?}");
    let endpoint = &core.endpoints()[&5];
    assert_eq!((endpoint.record.identity, endpoint.state), (identity::INIT, State::WaitingForIdentity));
    let wanted = Labels::parse([
        "k8s:app=web",
        "k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=default",
        "k8s:io.cilium.k8s.policy.cluster=kind-kind",
        "k8s:io.cilium.k8s.policy.serviceaccount=default",
        "k8s:io.kubernetes.pod.namespace=default",
    ])
    .unwrap();
    assert!(ops.contains(&Op::AllocateIdentity(wanted.clone())), "{ops:#?}");
    core.handle(Event::Allocated(wanted, Ok(1000)));
    let ops = core.flush();
    let endpoint = &core.endpoints()[&5];
    assert_eq!((endpoint.record.identity, endpoint.state), (1000, State::Ready));
    let address = IpNet::from(ip("10.244.1.5"));
    assert!(ops.iter().any(|op| matches!(op, Op::Ipcache(Change::Set(p, e)) if *p == address && e.identity == 1000)));
    assert!(ops.contains(&Op::BumpGeneration));
    let published = ops.iter().any(|op| matches!(op, Op::Publish(k, e) if *k == key("web") && e.status.as_ref().unwrap().identity.as_ref().unwrap().id == Some(1000)));
    assert!(published, "{ops:#?}");
}

#[test]
fn equal_labels_share_a_policy_and_a_slot() {
    let mut core = with_web();
    core.handle(Event::Pod(key("web2"), pod(&[("app", "web")])));
    core.add_endpoint(record(6, "web2"));
    let ops = core.flush();
    assert!(!ops.iter().any(|op| matches!(op, Op::InstallPolicy { .. } | Op::AllocateIdentity(_))), "{ops:#?}");
    assert_eq!(core.endpoints()[&5].applied.slot, core.endpoints()[&6].applied.slot);
}

#[test]
fn a_new_identity_is_one_class_entry_before_its_addresses() {
    let mut core = with_web();
    let friend = Labels::parse(["k8s:friend=yes"]).unwrap();
    core.handle(Event::Identity(2000, friend));
    core.handle(Event::RemotePod(
        key("far"),
        RemotePod {
            identity: Some(2000),
            addresses: [ip("10.244.2.9")].into(),
            node: Some(ip("172.18.0.3")),
            ..RemotePod::default()
        },
    ));
    let ops = core.flush();
    let class = position(&ops, |op| matches!(op, Op::SetClass(_, 2000, 1)));
    let address = position(&ops, |op| matches!(op, Op::Ipcache(Change::Set(_, e)) if e.identity == 2000));
    assert!(class < address, "{ops:#?}");
    assert!(!ops.iter().any(|op| matches!(op, Op::InstallPolicy { .. } | Op::UsePolicy(..))), "{ops:#?}");
    let Op::Ipcache(Change::Set(_, entry)) = &ops[address] else { unreachable!() };
    assert_eq!(std::net::Ipv4Addr::from(entry.tunnel_endpoint).to_string(), "172.18.0.3");
}

#[test]
fn a_policy_is_built_aside_switched_and_only_then_the_old_one_goes() {
    let mut core = with_web();
    let before = core.endpoints()[&5].applied;
    core.handle(policy("p", None));
    let ops = core.flush();
    let install = position(&ops, |op| matches!(op, Op::InstallPolicy { .. }));
    let switch = position(&ops, |op| matches!(op, Op::UsePolicy(5, _)));
    let free = position(&ops, |op| *op == Op::FreeSlot(before.slot));
    assert!(install < switch && switch < free, "{ops:#?}");
    let after = core.endpoints()[&5].applied;
    assert!(after.slot != before.slot && after.revision > before.revision && after.ingress);
}

#[test]
fn a16_a_new_pod_never_reports_a_revision_that_it_does_not_have() {
    let mut core = with_web();
    core.handle(policy("p", None));
    core.add_endpoint(record(7, "new"));
    let told = core.describe_endpoints();
    let new = told.iter().find(|e| e.id == 7).unwrap();
    assert_eq!((new.status.policy.realized.policy_revision, new.status.policy.spec.policy_revision), (0, 2));
    core.flush();
    let told = core.describe_endpoints();
    assert!(told.iter().all(|e| e.status.policy.realized.policy_revision == 2));
    core.policy_failed(core.endpoints()[&7].applied.slot, "no memory");
    let locked = core.describe_endpoints().into_iter().find(|e| e.id == 7).unwrap();
    assert_eq!((locked.status.policy.realized.policy_revision, locked.status.state.as_str()), (0, "not-ready"));
}

#[test]
fn a15_a_policy_that_changes_while_an_endpoint_waits_for_its_identity_counts() {
    let mut core = with_web();
    core.handle(Event::Pod(key("late"), pod(&[("app", "late")])));
    core.add_endpoint(record(8, "late"));
    core.flush();
    core.handle(policy("p", None));
    core.flush();
    let labels = core.wanted_labels(&core.endpoints()[&8]).unwrap();
    core.handle(Event::Allocated(labels, Ok(1001)));
    core.flush();
    let endpoint = &core.endpoints()[&8];
    assert_eq!((endpoint.applied.realized, endpoint.applied.ingress, endpoint.state), (2, true, State::Ready));
}

#[test]
fn a08_a09_labels_that_a_pod_forges_do_not_reach_its_identity() {
    let mut core = with_web();
    let forged = [("io.kubernetes.pod.namespace", "kube-system"), ("io.cilium.k8s.namespace.labels.team", "admin")];
    core.handle(Event::Pod(key("evil"), pod(&forged)));
    core.add_endpoint(record(9, "evil"));
    let labels = core.wanted_labels(&core.endpoints()[&9]).unwrap();
    assert_eq!(labels.namespace(), Some("default"));
    assert_eq!(labels.get("k8s", "io.cilium.k8s.namespace.labels.team"), None);
}

#[test]
fn labels_that_change_give_another_identity_and_a_namesake_pod_gives_none() {
    let mut core = with_web();
    core.handle(Event::Pod(key("web"), pod(&[("app", "web"), ("friend", "yes")])));
    let ops = core.flush();
    assert!(ops.iter().any(|op| matches!(op, Op::AllocateIdentity(_))));
    assert_eq!(core.endpoints()[&5].record.identity, 1000, "the old one holds until the new one is known");
    let labels = core.wanted_labels(&core.endpoints()[&5]).unwrap();
    core.handle(Event::Allocated(labels, Ok(1002)));
    let ops = core.flush();
    assert!(ops.iter().any(|op| matches!(op, Op::SetEndpoint(_, e) if e.identity == 1002)), "{ops:#?}");
    core.add_endpoint(EndpointRecord { uid: "another".into(), ..record(11, "web") });
    core.flush();
    assert_eq!(core.endpoints()[&11].record.identity, identity::INIT);
}

#[test]
fn a26_an_identity_in_use_that_was_removed_is_made_again() {
    let mut core = with_web();
    core.handle(Event::IdentityGone(1000));
    let ops = core.flush();
    assert!(ops.iter().any(|op| matches!(op, Op::AllocateIdentity(_))), "{ops:#?}");
    assert_eq!(core.endpoints()[&5].record.identity, 1000);
    core.handle(Event::IdentityGone(4711));
    assert!(core.flush().is_empty());
}

#[test]
fn nothing_is_touched_before_the_cluster_is_known() {
    let web = IpNet::from(ip("10.244.1.5"));
    let far = IpNet::from(ip("10.244.2.9"));
    let entry = |identity| RemoteEndpoint { identity, ..RemoteEndpoint::default() };
    let found = Found {
        ipcache: [(web, entry(1000)), (far, entry(2000))].into(),
        slots: vec![0, 3],
        policies: [(5, abi::endpoint::EndpointPolicy { slot: 3, revision_and_modes: 41 })].into(),
        ..Found::default()
    };
    let mut core = core(found);
    let labels = Labels::parse(["k8s:app=web"]).unwrap();
    core.restore_endpoint(EndpointRecord { identity: 1000, labels, ..record(5, "web") });
    let ops = core.flush();
    assert!(ops.iter().all(|op| matches!(op, Op::Persist(_))), "{ops:#?}");
    core.handle(Event::RemotePod(
        key("far"),
        RemotePod { identity: Some(2000), addresses: [far.addr()].into(), ..RemotePod::default() },
    ));
    core.handle(Event::Synced);
    let ops = core.flush();
    let install = position(&ops, |op| matches!(op, Op::InstallPolicy { slot, .. } if *slot != 3));
    let switch = position(&ops, |op| matches!(op, Op::UsePolicy(5, p) if p.revision_and_modes > 41));
    let free = position(&ops, |op| *op == Op::FreeSlot(3));
    assert!(install < switch && switch < free);
    let touched = |prefix: &IpNet| {
        ops.iter().any(|op| matches!(op, Op::Ipcache(Change::Set(p, _) | Change::Remove(p)) if p == prefix))
    };
    assert!(!touched(&web) && !touched(&far), "{ops:#?}");
}

#[test]
fn a20_prefixes_keep_their_numbers_over_a_restart() {
    let (wide, narrow): (IpNet, IpNet) = ("10.0.0.0/8".parse().unwrap(), "10.1.0.0/16".parse().unwrap());
    let kept = RemoteEndpoint { identity: identity::LOCAL_CIDR + 7, ..RemoteEndpoint::default() };
    let mut core = core(Found { ipcache: [(narrow, kept)].into(), ..Found::default() });
    core.handle(policy("wide", Some("10.0.0.0/8")));
    core.handle(policy("narrow", Some("10.1.0.0/16")));
    core.handle(Event::Synced);
    core.flush();
    assert_eq!(core.ipcache().find(ip("10.1.2.3")).unwrap().1.identity, identity::LOCAL_CIDR + 7);
    let other = core.ipcache().find(ip("10.2.2.3")).unwrap();
    assert_eq!(other.0, wide);
    assert_ne!(other.1.identity, identity::LOCAL_CIDR + 7);
}

#[test]
fn nodes_that_serve_the_api_are_told_from_others() {
    let mut core = with_web();
    for (name, address) in [("n1", "172.18.0.2"), ("n2", "172.18.0.3"), ("n3", "172.18.0.4")] {
        core.handle(Event::Node(name.into(), Node { addresses: [ip(address)].into(), ..Node::default() }));
    }
    let agent = AgentNode { routers: [ip("10.244.2.1")].into(), health: [ip("10.244.2.2")].into() };
    core.handle(Event::AgentNode("n2".into(), agent));
    let slice = Slice { ready: vec![ip("172.18.0.2"), ip("172.18.0.4"), ip("9.9.9.9")], ..Slice::default() };
    core.handle(Event::Slice(key("kubernetes"), key("kubernetes"), slice));
    core.flush();
    let who = |address: &str| {
        let (_, entry) = core.ipcache().find(ip(address)).unwrap();
        (entry.identity, entry.tunnel.map(|t| t.to_string()).unwrap_or_default())
    };
    assert_eq!(who("172.18.0.2"), (identity::HOST, String::new()));
    assert_eq!(who("172.18.0.3"), (identity::REMOTE_NODE, String::new()));
    assert_eq!(who("172.18.0.4"), (identity::KUBE_APISERVER, String::new()));
    assert_eq!(who("9.9.9.9"), (identity::KUBE_APISERVER, String::new()));
    assert_eq!(who("10.244.2.1"), (identity::REMOTE_NODE, "172.18.0.3".into()));
    assert_eq!(who("10.244.2.2"), (identity::HEALTH, "172.18.0.3".into()));
    assert_eq!(who("10.244.1.1"), (identity::HOST, String::new()));
    assert_eq!(who("8.8.8.8"), (identity::WORLD, String::new()));
}

#[test]
fn a_removed_endpoint_leaves_nothing() {
    let mut core = with_web();
    let slot = core.endpoints()[&5].applied.slot;
    assert!(core.remove_endpoint(5) && !core.remove_endpoint(5));
    let ops = core.flush();
    let address = IpNet::from(ip("10.244.1.5"));
    for wanted in [
        Op::RemoveEndpoint(vec![ip("10.244.1.5")], 15),
        Op::ForgetConnections(ip("10.244.1.5")),
        Op::Forget(5),
        Op::Unpublish(key("web"), vec![ip("10.244.1.5")]),
        Op::Ipcache(Change::Remove(address)),
        Op::FreeSlot(slot),
    ] {
        assert!(ops.contains(&wanted), "{wanted:?} not in {ops:#?}");
    }
}

#[test]
fn a_slot_that_is_emptied_in_a_round_is_given_to_nobody_in_it() {
    let mut core = with_web();
    core.handle(Event::Pod(key("other"), pod(&[("app", "other")])));
    core.add_endpoint(record(8, "other"));
    core.flush();
    let labels = core.wanted_labels(&core.endpoints()[&8]).unwrap();
    core.handle(Event::Allocated(labels, Ok(1001)));
    core.flush();
    for name in ["p", "q", "r"] {
        core.handle(policy(name, None));
        let ops = core.flush();
        let freed: Vec<u32> =
            ops.iter().filter_map(|op| if let Op::FreeSlot(s) = op { Some(*s) } else { None }).collect();
        let filled = |op: &Op| matches!(op, Op::InstallPolicy { slot, .. } if freed.contains(slot));
        assert!(!ops.iter().any(filled), "{ops:#?}");
    }
}

/// The last that the datapath was told of an endpoint's policy.
fn told(ops: &[Op], id: u32) -> Option<abi::endpoint::EndpointPolicy> {
    let of = |op: &Op| if let Op::UsePolicy(one, policy) = op { (*one == id).then_some(*policy) } else { None };
    ops.iter().rev().find_map(of)
}

#[test]
fn without_a_free_slot_an_endpoint_is_locked_down_and_says_why_until_there_is_one() {
    // Slot 0 denies all, one is web's, one the other's, and one is there for changes.
    let mut core = with_web_and_slots(4);
    core.handle(Event::Pod(key("other"), pod(&[("app", "other")])));
    core.add_endpoint(record(8, "other"));
    core.flush();
    let labels = core.wanted_labels(&core.endpoints()[&8]).unwrap();
    core.handle(Event::Allocated(labels, Ok(1001)));
    core.flush();
    let before = core.endpoints()[&8].applied;
    assert_eq!((before.slot, core.endpoints()[&8].state), (3, State::Ready));
    core.handle(policy("p", None));
    let ops = core.flush();
    assert_eq!(told(&ops, 5).unwrap().slot, 1);
    let locked = told(&ops, 8).unwrap();
    assert_eq!(locked.slot, 0, "the old policy must not stay");
    let modes = abi::endpoint::MODE_INGRESS | abi::endpoint::MODE_EGRESS;
    assert_eq!(locked.revision_and_modes & modes, modes, "drops are told");
    assert!(locked.revision_and_modes & !modes > before.revision, "running connections are judged again");
    assert_eq!(core.endpoints()[&8].state, State::NotReady);
    assert_eq!(core.locked()[&1001], "all 3 policy slots are in use");
    let other = core.describe_endpoints().into_iter().find(|e| e.id == 8).unwrap();
    assert_eq!((other.status.state.as_str(), other.status.policy.realized.policy_revision), ("not-ready", 0));
    assert!(ops.contains(&Op::FreeSlot(3)), "{ops:#?}");
    core.retry();
    let ops = core.flush();
    assert_eq!(told(&ops, 8).unwrap().slot, 2, "{ops:#?}");
    assert!(core.locked().is_empty() && core.endpoints()[&8].state == State::Ready);
    core.retry();
    assert_eq!(core.flush(), []);
}

#[test]
fn a_class_that_cannot_be_written_locks_down_at_once() {
    let mut core = with_web();
    core.handle(Event::Identity(2000, Labels::parse(["k8s:friend=yes"]).unwrap()));
    let ops = core.flush();
    let slot = core.endpoints()[&5].applied.slot;
    assert!(ops.contains(&Op::SetClass(slot, 2000, 1)));
    let ops = core.policy_failed(slot, "no memory");
    assert_eq!(told(&ops, 5).unwrap().slot, 0);
    let lock = position(&ops, |op| matches!(op, Op::UsePolicy(5, _)));
    let free = position(&ops, |op| *op == Op::FreeSlot(slot));
    assert!(lock < free, "{ops:#?}");
    assert_eq!(core.locked()[&1000], "no memory");
    assert_eq!(core.policy_failed(slot, "again"), []);
    core.retry();
    let ops = core.flush();
    assert!(told(&ops, 5).is_some_and(|policy| policy.slot != 0), "{ops:#?}");
}

#[test]
fn only_what_a_change_concerns_is_touched() {
    let mut core = with_web();
    core.handle(Event::Identity(2001, Labels::parse(["k8s:foe=yes"]).unwrap()));
    assert_eq!(core.flush(), []);
}

#[test]
fn connections_are_judged_again_when_a_known_peer_becomes_another() {
    let mut core = with_web();
    let (friend, foe) = (Labels::parse(["k8s:friend=yes"]).unwrap(), Labels::parse(["k8s:foe=yes"]).unwrap());
    core.handle(Event::Identity(2000, friend.clone()));
    let ops = core.flush();
    assert!(told(&ops, 5).is_none(), "nobody was judged by a new identity: {ops:#?}");
    let applied = core.endpoints()[&5].applied;
    core.handle(Event::Identity(2000, foe));
    let ops = core.flush();
    let removed = position(&ops, |op| *op == Op::RemoveClass(applied.slot, 2000));
    let judged = position(&ops, |op| matches!(op, Op::UsePolicy(5, p) if p.slot == applied.slot));
    assert!(removed < judged, "{ops:#?}");
    assert!(core.endpoints()[&5].applied.revision > applied.revision);
    core.handle(Event::Identity(2000, friend));
    assert!(told(&core.flush(), 5).is_some());
}

#[test]
fn an_identity_that_the_cluster_lost_meanwhile_is_kept_and_asked_for_again() {
    let found = Found {
        slots: vec![3],
        policies: [(5, abi::endpoint::EndpointPolicy { slot: 3, revision_and_modes: 41 })].into(),
        ..Found::default()
    };
    let mut core = core(found);
    let labels = Labels::parse(["k8s:app=web"]).unwrap();
    core.restore_endpoint(EndpointRecord { identity: 1000, labels: labels.clone(), ..record(5, "web") });
    core.handle(Event::Synced);
    let ops = core.flush();
    assert!(ops.contains(&Op::AllocateIdentity(labels)), "{ops:#?}");
    let policy = told(&ops, 5).unwrap();
    assert!(policy.slot != 0 && policy.slot != 3, "its own policy and no emptied slot: {ops:#?}");
}

#[test]
fn a27_an_endpoint_leaves_a_number_that_stands_for_other_labels_now() {
    let mut core = with_web();
    core.handle(Event::Identity(1000, Labels::parse(["k8s:app=another"]).unwrap()));
    let ops = core.flush();
    assert_eq!(core.endpoints()[&5].record.identity, identity::INIT);
    assert!(ops.iter().any(|op| matches!(op, Op::AllocateIdentity(_))), "{ops:#?}");
    let shown = |op: &Op| matches!(op, Op::SetEndpoint(_, e) if e.identity == identity::INIT);
    assert!(ops.iter().any(shown), "{ops:#?}");
    assert!(told(&ops, 5).is_some(), "{ops:#?}");
    let address = IpNet::from(ip("10.244.1.5"));
    let init = |op: &Op| matches!(op, Op::Ipcache(Change::Set(p, e)) if *p == address && e.identity == identity::INIT);
    assert!(ops.iter().any(init), "{ops:#?}");
}

#[test]
fn what_the_datapath_refused_is_done_again() {
    let mut core = with_web();
    core.handle(Event::RemotePod(
        key("far"),
        RemotePod { identity: Some(2000), addresses: [ip("10.244.2.9")].into(), ..RemotePod::default() },
    ));
    let slice = Slice { ready: vec![ip("10.244.2.9")], ports: vec![("http".into(), 80, 6)], ..Slice::default() };
    let service = Service { addresses: vec![ip("10.96.0.7")], ports: vec![("http".into(), 80, 6)], affinity: 0 };
    core.handle(Event::Service(key("far"), Some(service)));
    core.handle(Event::Slice(key("far-1"), key("far"), slice));
    let ops = core.flush();
    let kinds: [fn(&Op) -> bool; 2] =
        [|op| matches!(op, Op::Ipcache(Change::Set(..))), |op| matches!(op, Op::Services { .. })];
    for kind in kinds {
        core.refused(&ops[position(&ops, kind)]);
        assert_eq!(core.flush(), [], "not at once");
        core.retry();
        let again = core.flush();
        position(&again, kind);
    }
    core.retry();
    assert_eq!(core.flush(), []);
    let shown = core.endpoints()[&5].written.unwrap();
    core.refused(&Op::SetEndpoint(vec![ip("10.244.1.5")], shown));
    core.retry();
    assert!(core.flush().contains(&Op::SetEndpoint(vec![ip("10.244.1.5")], shown)));
}

#[test]
fn names_are_known_while_an_answer_or_a_connection_holds_them_and_their_endpoint_lives() {
    let mut core = core(Found::default());
    core.add_endpoint(record(7, "web"));
    let answer = |name: &str, address: &str| fqdn::Answer { name: name.into(), addresses: vec![ip(address)], ttl: 30 };
    core.handle(Event::Answered(7, answer("a.example", "1.1.1.1"), 100));
    core.handle(Event::Answered(8, answer("b.example", "1.1.1.2"), 100));
    core.handle(Event::Answered(7, answer("evil.example", "169.254.169.254"), 100));
    let names = |core: &Core| read_names(core.names()).names().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(names(&core), ["a.example"], "no endpoint, no name; A53");
    core.handle(Event::Elapsed(130, [(7, ip("1.1.1.1"))].into()));
    assert_eq!(names(&core), ["a.example"]);
    let saved = read_names(core.names()).save();
    core.handle(Event::Elapsed(160, HashSet::new()));
    assert!(names(&core).is_empty());
    core.restore_names(saved.clone());
    assert_eq!(names(&core), ["a.example"]);
    core.remove_endpoint(7);
    assert!(names(&core).is_empty());
    core.restore_names(saved);
    assert!(names(&core).is_empty(), "of an endpoint that is gone");
}
