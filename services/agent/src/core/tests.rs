//! Does the core do the right things in the right order?
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::net::IpAddr;

use abi::identity::{self, Identity};
use abi::policy::{DIR_INGRESS, PREFIX_ANY_PROTOCOL, VERDICT_ALLOW, VerdictEntry, VerdictKey};
use ipnet::IpNet;
use labels::{LabelFilter, Labels};

use super::*;
use crate::engine::Tables;
use crate::ipcache::Change;
use crate::ops::PolicyKind;

/// Policy objects do not matter but for the revision; whoever has the label `friend` may talk to everybody.
#[derive(Default)]
pub struct Fake {
    revision: u64,
    identities: BTreeMap<Identity, Labels>,
    prefixes: BTreeMap<IpNet, Labels>,
}

impl Engine for Fake {
    fn revision(&self) -> u64 {
        self.revision + 1
    }
    fn set_policy(&mut self, _: &PolicyKey, object: &serde_json::Value) -> Vec<String> {
        self.revision += 1;
        if let Some(prefix) = object["prefix"].as_str().and_then(|text| text.parse::<IpNet>().ok()) {
            self.prefixes
                .insert(prefix, ::identity::cidr_labels(prefix, ::identity::Families { ipv4: true, ipv6: false }));
        }
        Vec::new()
    }
    fn remove_policy(&mut self, _: &PolicyKey) {
        self.revision += 1;
        self.prefixes.clear();
    }
    fn set_cidr_group(&mut self, _: &str, _: &crds::CiliumCIDRGroup) {}
    fn remove_cidr_group(&mut self, _: &str) {}
    fn add_identity(&mut self, identity: Identity, labels: &Labels) {
        self.identities.insert(identity, labels.clone());
    }
    fn remove_identity(&mut self, identity: Identity) {
        self.identities.remove(&identity);
    }
    fn prefixes(&self) -> BTreeMap<IpNet, Labels> {
        self.prefixes.clone()
    }
    fn set_named_ports(&mut self, _: Identity, _: crate::engine::NamedPorts) {}
    fn release(&mut self, _: Identity) {}
    fn resolve(&mut self, _: Identity) -> Option<Tables> {
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
        Some(Tables {
            ingress: self.revision > 0,
            classes: friends.map(|(number, _)| (*number, 1)).collect(),
            verdicts: vec![(key, entry)],
            ..Tables::default()
        })
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
    let facts = Facts {
        cluster: "kind-kind".into(),
        node: "n1".into(),
        ipv4: true,
        ipv6: false,
        enforcement: Enforcement::Default,
        routers: vec![ip("10.244.1.1")],
        node_addresses: vec![ip("172.18.0.2")],
        filter: LabelFilter::default(),
    };
    Core::new(facts, Box::<Fake>::default(), found)
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
    let mut core = core(Found::default());
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
    core.policy_failed(core.endpoints()[&7].applied.slot);
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
