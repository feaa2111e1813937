//! What do an answer of DNS and a pod that comes cost the agent, however many addresses there are?
//!
//! `cargo run --release -p agent --example addresses`
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use agent::config::{Settings, Values};
use agent::core::{Core, EndpointRecord, Event, Facts, Found, SharedNames};
use agent::ipcache::Change;
use agent::objects::{Pod, RemotePod};
use agent::ops::{Op, PolicyKey, PolicyKind};
use serde_json::json;

fn main() {
    names(1_000, 20);
    for pods in [1_000, 10_000, 100_000] {
        addresses(pods);
    }
}

/// Each name has a policy of its own for it, half of them a pattern that means all besides.
fn names(count: u32, each: u32) {
    let mut core = core();
    for at in 0..count {
        core.handle(policy(&format!("p{at}"), json!([{"toFQDNs": [{"matchName": format!("n{at}.example")}]}])));
    }
    core.handle(policy("all", json!([{"toFQDNs": [{"matchPattern": "*.example"}]}])));
    settle(&mut core);
    let (mut first, mut again, mut ops) = (Vec::new(), Vec::new(), BTreeMap::new());
    for (round, times) in [(0, &mut first), (1, &mut again)] {
        for at in 0..count {
            // The second time half of the addresses are new.
            let from = at * 100 + round * each / 2;
            let addresses = (from..from + each).map(|number| IpAddr::V4(Ipv4Addr::from(0x0800_0000 + number)));
            let answer = fqdn::Answer { name: format!("n{at}.example"), addresses: addresses.collect(), ttl: 600 };
            let began = Instant::now();
            core.handle(Event::Answered(5, answer, 100));
            let done = core.flush();
            core.view();
            times.push(began.elapsed());
            for op in done {
                *ops.entry((round, kind(&op))).or_insert(0_usize) += 1;
            }
        }
    }
    let local = core.local_numbers().numbers().len();
    let entries = core.ipcache().iter().count();
    println!("{count} names of {each} addresses, a selector for each and one for all:");
    println!("  {local} identities, {entries} entries of the IP cache");
    println!("  an answer of a new name: {}", spread(&mut first));
    println!("  an answer with {} new addresses: {}", each / 2, spread(&mut again));
    println!("  operations by round and kind: {ops:?}");
}

/// One pod of another node comes, changes its identity and goes.
fn addresses(count: u32) {
    let mut core = core();
    let pod = |number: u32, identity| RemotePod {
        identity: Some(identity),
        addresses: [IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + number))].into(),
        node: Some(IpAddr::V4(Ipv4Addr::new(172, 18, 0, 3))),
        ..RemotePod::default()
    };
    let key = |number: u32| ("default".to_owned(), format!("pod-{number}"));
    for number in 0..count {
        core.handle(Event::RemotePod(key(number), pod(number, 2_000 + number % 1_000)));
    }
    let began = Instant::now();
    settle(&mut core);
    core.view();
    let all = began.elapsed();
    let mut times = Vec::new();
    for round in 0..300 {
        let number = count + round / 3;
        let event = match round % 3 {
            0 => Event::RemotePod(key(number), pod(number, 3_000)),
            1 => Event::RemotePod(key(number), pod(number, 3_001)),
            _ => Event::RemotePodGone(key(number)),
        };
        let began = Instant::now();
        core.handle(event);
        let ops = core.flush();
        core.view();
        times.push(began.elapsed());
        assert!(ops.iter().any(|op| matches!(op, Op::Ipcache(Change::Set(..) | Change::Remove(_)))));
    }
    println!("{count} pods of other nodes: all at once {all:.1?}, one more or less {}", spread(&mut times));
}

fn spread(times: &mut [Duration]) -> String {
    times.sort();
    format!("{:.1?}, 99 of 100 within {:.1?}", times[times.len() / 2], times[times.len() * 99 / 100])
}

fn kind(op: &Op) -> &'static str {
    match op {
        Op::Ipcache(_) => "ipcache",
        Op::BumpGeneration => "generation",
        Op::SetClass(..) | Op::RemoveClass(..) => "class",
        Op::InstallPolicy { .. } => "tables",
        Op::UsePolicy(..) => "switch",
        _ => "other",
    }
}

fn core() -> Core {
    let settings = Settings::new(&Values::new(), "n1").unwrap();
    let engine = agent::engine::repository(&settings, None, 1).unwrap();
    let facts = Facts {
        cluster: settings.cluster,
        node: "n1".into(),
        ipv4: true,
        ipv6: false,
        enforcement: settings.enforcement,
        routers: vec![Ipv4Addr::new(10, 244, 1, 1).into()],
        node_addresses: vec![Ipv4Addr::new(172, 18, 0, 2).into()],
        filter: labels::LabelFilter::default(),
        policy_slots: 16_384,
        names: SharedNames::default(),
    };
    let mut core = Core::new(facts, engine, Found::default());
    core.handle(Event::Namespace("default".into(), BTreeMap::new()));
    let labels = [("app".to_owned(), "web".to_owned())].into();
    core.handle(Event::Pod(("default".into(), "web".into()), Pod { labels, ..Pod::default() }));
    core.add_endpoint(EndpointRecord {
        id: 5,
        namespace: "default".into(),
        pod: "web".into(),
        ifindex: 15,
        ipv4: Some(Ipv4Addr::new(10, 244, 1, 5)),
        ..EndpointRecord::default()
    });
    core
}

/// Everything is listed, and the pod gets its identity.
fn settle(core: &mut Core) {
    core.handle(Event::Synced);
    for op in core.flush() {
        if let Op::AllocateIdentity(labels) = op {
            core.handle(Event::Allocated(labels, Ok(1000)));
        }
    }
    core.flush();
}

fn policy(name: &str, egress: serde_json::Value) -> Event {
    let key = PolicyKey { kind: PolicyKind::Cilium, namespace: "default".into(), name: name.into() };
    let object = json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"endpointSelector": {"matchLabels": {"app": "web"}}, "egress": egress},
    });
    Event::Policy(key, Box::new(object))
}
