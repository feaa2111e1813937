//! How many flows does one core store, decode and encode in a second? Build it with optimisation.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::{
    collections::HashMap,
    hint::black_box,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use abi::{
    Addr, Port, V4,
    event::{self, Event},
};
use flow::{Directory, Node, Peer, Record, decode_record};
use hubble::{Config, Hubble};
use nix::time::{ClockId, clock_gettime};
use prost::Message;

struct World {
    node: Arc<Node>,
    peers: HashMap<IpAddr, Arc<Peer>>,
    labels: HashMap<u32, Arc<[String]>>,
    interface: Arc<str>,
}

impl Directory for World {
    fn node(&self) -> Arc<Node> {
        self.node.clone()
    }
    fn peer(&self, address: IpAddr) -> Option<Arc<Peer>> {
        self.peers.get(&address).cloned()
    }
    fn labels(&self, identity: u32) -> Option<Arc<[String]>> {
        self.labels.get(&identity).cloned()
    }
    fn interface(&self, _: u32) -> Option<Arc<str>> {
        Some(self.interface.clone())
    }
}

const PODS: u8 = 200;

fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, number)
}

/// Pods with six labels each, every second one on this node.
fn world() -> World {
    let labels = |number: u8| -> Vec<String> {
        ["app", "version", "io.kubernetes.pod.namespace", "io.cilium.k8s.policy.cluster", "tier", "team"]
            .iter()
            .map(|key| format!("k8s:{key}=value-{number}"))
            .collect()
    };
    let peer = |number: u8| Peer {
        endpoint: if number.is_multiple_of(2) { u32::from(number) } else { 0 },
        identity: 1000 + u32::from(number),
        namespace: "default".into(),
        pod: format!("productpage-v1-675fc69cf-{number:05}"),
        labels: if number.is_multiple_of(2) { labels(number) } else { Vec::new() },
        ..Peer::default()
    };
    World {
        node: Arc::new(Node { cluster: "kind".into(), name: "worker".into(), labels: Vec::new() }),
        peers: (0..PODS).map(|number| (IpAddr::V4(address(number)), Arc::new(peer(number)))).collect(),
        labels: (0..PODS).map(|number| (1000 + u32::from(number), labels(number).into())).collect(),
        interface: "lxc240530c746ff".into(),
    }
}

fn event(number: u32) -> Event {
    let (source, destination) = ((number % u32::from(PODS)) as u8, (number * 7 % u32::from(PODS)) as u8);
    Event {
        time: u64::from(number),
        source: V4::from(address(source)).widen(),
        destination: V4::from(address(destination)).widen(),
        source_identity: 1000 + u32::from(source),
        destination_identity: 1000 + u32::from(destination),
        source_port: Port::new(number as u16),
        destination_port: Port::new(80),
        ip_version: 4,
        protocol: 6,
        tcp_flags: 16,
        endpoint: u32::from(source),
        ifindex: 15,
        kind: event::KIND_TRACE,
        code: event::TRACE_TO_LXC,
        direction: event::DIR_UNKNOWN,
        ..Event::default()
    }
}

/// Time that this process computed: other processes do not count.
fn computed() -> Duration {
    Duration::from(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).unwrap())
}

fn report(what: &str, count: u32, started: Duration) {
    let seconds = (computed() - started).as_secs_f64();
    let (rate, each) = (f64::from(count) / seconds / 1e6, seconds / f64::from(count) * 1e9);
    println!("{what}: {rate:.2} million/s, {each:.0} ns each");
}

fn main() {
    let world = Arc::new(world());
    let hubble = Hubble::new(Config::default(), world.clone());
    let events: Vec<Event> = (0..100_000).map(event).collect();
    let started = computed();
    for _ in 0..20 {
        events.chunks(256).for_each(|batch| hubble.push_batch(batch));
    }
    report("stored with names", 20 * events.len() as u32, started);

    let records: Vec<Record> = events[..4000].iter().map(|event| Record::new(*event, 0, 1, &*world)).collect();
    let started = computed();
    for _ in 0..50 {
        records.iter().for_each(|record| drop(black_box(decode_record(record, &*world))));
    }
    report("decoded for a client", 50 * records.len() as u32, started);

    let started = computed();
    let mut buffer = Vec::with_capacity(4096);
    for _ in 0..50 {
        for record in &records {
            buffer.clear();
            decode_record(record, &*world).encode(&mut buffer).unwrap();
            black_box(&buffer);
        }
    }
    report("decoded and encoded for a client", 50 * records.len() as u32, started);
}
