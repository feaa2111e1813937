//! Do events print as users have seen them print? Lines and documents of real clusters, byte for byte.
#![allow(clippy::unwrap_used)]

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use abi::{
    DropReason, Mac, Port, V4, V6,
    event::{self, Event},
    policy,
};
use flow::{
    Clock, Directory, Node, Peer, decode,
    directory::reserved_identity,
    print::{self, Options, Output, Printer},
    proto::{
        flow::{CiliumEventType, Dns, Endpoint, Flow, Ip, L7FlowType, Layer4, Layer7, Policy, Udp, Workload},
        flow::{layer4::Protocol, layer7::Record},
        observer::{GetFlowsResponse, get_flows_response::ResponseTypes},
    },
    wkt::{BoolValue, Timestamp},
};
use regex::Regex;

/// A directory of what the lines speak of. Endpoint 1 is the source or, for ingress, the destination.
#[derive(Default)]
struct World {
    node: Arc<Node>,
    peers: HashMap<IpAddr, Arc<Peer>>,
    labels: HashMap<u32, Arc<[String]>>,
    names: HashMap<IpAddr, Arc<[String]>>,
    interfaces: HashMap<u32, Arc<str>>,
    policies: Vec<Policy>,
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
    fn names(&self, _: u32, address: IpAddr) -> Option<Arc<[String]>> {
        self.names.get(&address).cloned()
    }
    fn interface(&self, index: u32) -> Option<Arc<str>> {
        self.interfaces.get(&index).cloned()
    }
    fn policies(&self, _: u32, rule_set: u32) -> Option<Arc<[Policy]>> {
        (rule_set == 9).then(|| self.policies.clone().into())
    }
}

/// One side of a line.
struct Side {
    address: IpAddr,
    port: u16,
    identity: u32,
}

/// `namespace/pod:port`, `name:port`, `address:port` or `address`, and `(ID:n)` or `(name)`.
fn side(world: &mut World, host: &str, identity: &str, endpoint: u32, spare: u8) -> Side {
    let identity = match identity.strip_prefix("ID:") {
        Some(number) => number.parse().unwrap(),
        None => reserved_identity(identity).unwrap_or(0),
    };
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if host.parse::<IpAddr>().is_err() => (name, port.parse().unwrap()),
        _ => (host, 0),
    };
    let address = name.parse().unwrap_or(IpAddr::V4(Ipv4Addr::new(10, 0, 0, spare)));
    if let Some((namespace, pod)) = name.split_once('/') {
        let peer = Peer { endpoint, identity, namespace: namespace.into(), pod: pod.into(), ..Peer::default() };
        world.peers.insert(address, Arc::new(peer));
    } else if name.parse::<IpAddr>().is_err() {
        world.names.insert(address, [name.to_owned()].into());
    }
    Side { address, port, identity }
}

fn widen(address: IpAddr) -> [u32; 4] {
    use abi::Addr;
    match address {
        IpAddr::V4(address) => V4::from(address).widen(),
        IpAddr::V6(address) => V6::from(address).widen(),
    }
}

fn line_pattern() -> Regex {
    Regex::new(
        r"^(?<time>\w{3} [ \d]\d [\d:.]+): (?<a>\S+) \((?<ia>[^)]+)\) (?<arrow><>|->|<-) (?<b>\S+) \((?<ib>[^)]+)\) (?<kind>.+) (?<verdict>FORWARDED|DROPPED|DENIED|ALLOWED) \((?<summary>.*)\)$",
    )
    .unwrap()
}

/// The time of a line, in some year.
fn moment(text: &str) -> Timestamp {
    let parsed = jiff::civil::DateTime::strptime("%Y %b %e %H:%M:%S%.f", format!("2024 {text}")).unwrap();
    parsed.to_zoned(jiff::tz::TimeZone::UTC).unwrap().timestamp().into()
}

fn tcp_flags(summary: &str) -> Option<u8> {
    let flags = summary.strip_prefix("TCP Flags: ")?;
    let bit = |name: &str| match name {
        "FIN" => 1,
        "SYN" => 2,
        "RST" => 4,
        "PSH" => 8,
        "ACK" => 16,
        other => panic!("{other}"),
    };
    Some(flags.split(", ").map(bit).sum())
}

/// Event, names and time that a line must have come from.
fn event_of(line: &str) -> (Event, World) {
    let parts = line_pattern().captures(line).unwrap_or_else(|| panic!("{line}"));
    let text = |name: &str| parts.name(name).unwrap().as_str();
    let mut world = World::default();
    let reply = text("arrow") == "<-";
    let ingress = text("kind").contains("INGRESS");
    let left = side(&mut world, text("a"), text("ia"), u32::from(!ingress), 1);
    let right = side(&mut world, text("b"), text("ib"), u32::from(ingress), 2);
    let (source, destination) = if reply { (right, left) } else { (left, right) };
    let mut event = Event {
        time: u64::try_from(moment(text("time")).as_nanos()).unwrap(),
        source: widen(source.address),
        destination: widen(destination.address),
        source_identity: source.identity,
        destination_identity: destination.identity,
        source_port: Port::new(source.port),
        destination_port: Port::new(destination.port),
        ip_version: if source.address.is_ipv4() { 4 } else { 6 },
        endpoint: 1,
        direction: if ingress { policy::DIR_INGRESS } else { policy::DIR_EGRESS },
        ..Event::default()
    };
    match (tcp_flags(text("summary")), text("summary")) {
        (Some(flags), _) => (event.protocol, event.tcp_flags) = (6, flags),
        (None, "UDP") => event.protocol = 17,
        (None, "ICMPv6 RouterSolicitation") => {
            (event.protocol, event.source_port) = (58, Port(u16::from_ne_bytes([133, 0])));
        }
        (None, other) => panic!("{other}"),
    }
    set_kind(&mut event, text("kind"), text("verdict"), reply);
    (event, world)
}

fn set_kind(event: &mut Event, kind: &str, verdict: &str, reply: bool) {
    let detail = if reply { event::CT_REPLY } else { event::CT_ESTABLISHED };
    (event.kind, event.code, event.detail) = match (kind, verdict) {
        ("to-endpoint", _) => (event::KIND_TRACE, event::TRACE_TO_LXC, detail),
        ("to-stack", _) => (event::KIND_TRACE, event::TRACE_TO_STACK, detail),
        ("Policy denied", _) => (event::KIND_DROP, DropReason::POLICY.0, 0),
        ("Unsupported L3 protocol", _) => (event::KIND_DROP, DropReason::UNKNOWN_L3.0, 0),
        ("policy-verdict:none EGRESS" | "policy-verdict:none INGRESS", "DENIED") => {
            (event::KIND_POLICY_VERDICT, policy::VERDICT_DEFAULT_DENY, policy::MATCH_NONE)
        }
        ("policy-verdict:L3-Only EGRESS", "ALLOWED") => {
            (event::KIND_POLICY_VERDICT, policy::VERDICT_ALLOW, policy::MATCH_L3_ONLY)
        }
        other => panic!("{other:?}"),
    };
}

fn response(flow: Flow) -> GetFlowsResponse {
    GetFlowsResponse {
        node_name: flow.node_name.clone(),
        time: flow.time,
        response_types: Some(ResponseTypes::Flow(Box::new(flow))),
    }
}

fn printed(options: Options, flow: Flow) -> String {
    let mut printer = Printer::new(options);
    let printed = printer.flows(&response(flow)).unwrap();
    assert_eq!(printed.err, "");
    printed.out + &printer.close()
}

#[track_caller]
fn check_events(lines: &str) {
    for line in lines.lines() {
        // The author masked this address.
        let line = line.replace("10.xx.0.yy", "10.20.0.9");
        let (event, world) = event_of(&line);
        let flow = decode(&event, &world, &Clock::default());
        assert_eq!(printed(Options::default(), flow), line + "\n");
    }
}

#[test]
fn traces_verdicts_and_drops() {
    check_events(include_str!("transcripts/000-04.txt"));
    check_events(include_str!("transcripts/000-05.txt"));
    check_events(include_str!("transcripts/004-02.txt"));
    check_events(include_str!("transcripts/004-03.txt"));
    check_events(include_str!("transcripts/004-05.txt"));
    check_events(include_str!("transcripts/004-06.txt"));
    check_events(include_str!("transcripts/004-08.txt"));
    check_events(include_str!("transcripts/004-10.txt"));
    check_events(include_str!("transcripts/004-12.txt"));
}

/// Requests come decoded from the proxy.
fn dns_flow(line: &str) -> Flow {
    let parts = line_pattern().captures(line).unwrap_or_else(|| panic!("{line}"));
    let text = |name: &str| parts.name(name).unwrap().as_str();
    let mut world = World::default();
    let client = side(&mut world, text("a"), text("ia"), 1, 1);
    let server = side(&mut world, text("b"), text("ib"), 0, 2);
    let (source, destination) = if text("arrow") == "<-" { (server, client) } else { (client, server) };
    let endpoint = |side: &Side| {
        let peer = &world.peers[&side.address];
        let (namespace, pod_name) = (peer.namespace.clone(), peer.pod.clone());
        Some(Endpoint { identity: side.identity, namespace, pod_name, ..Endpoint::default() })
    };
    let kind = if text("kind").starts_with("dns-request") { L7FlowType::Request } else { L7FlowType::Response };
    let dns = Dns { observation_source: "proxy".into(), ..Dns::default() };
    let ports = Udp { source_port: source.port.into(), destination_port: destination.port.into() };
    #[allow(deprecated)]
    Flow {
        time: Some(moment(text("time"))),
        verdict: 1,
        ip: Some(Ip {
            source: source.address.to_string(),
            destination: destination.address.to_string(),
            ..Ip::default()
        }),
        l4: Some(Layer4 { protocol: Some(Protocol::Udp(ports)) }),
        source: endpoint(&source),
        destination: endpoint(&destination),
        is_reply: Some(BoolValue { value: text("arrow") == "<-" }),
        event_type: Some(CiliumEventType { r#type: 129, sub_type: 0 }),
        l7: Some(Layer7 { r#type: kind.into(), record: Some(Record::Dns(dns)), ..Layer7::default() }),
        summary: text("summary").into(),
        ..Flow::default()
    }
}

#[test]
fn requests_for_names() {
    let lines = [include_str!("transcripts/004-09.txt"), include_str!("transcripts/004-11.txt")];
    for line in lines.iter().flat_map(|lines| lines.lines()) {
        assert_eq!(printed(Options::default(), dns_flow(line)), format!("{line}\n"));
    }
}

/// As Hubble's printer wrote them while Cilium knew of Kafka.
#[test]
fn requests_to_kafka() {
    let flow: Flow = serde_json::from_str(
        r#"{"time": "1970-01-01T00:20:34.567800Z", "verdict": "DROPPED", "Type": "L7", "is_reply": false,
            "IP": {"source": "1.1.1.1", "destination": "2.2.2.2"}, "l4": {"TCP": {"source_port": 31793, "destination_port": 8080}},
            "source": {"identity": 4}, "destination": {"identity": 12345},
            "l7": {"type": "REQUEST", "kafka": {"api_key": "produce", "correlation_id": 1, "topic": "plans"}},
            "event_type": {"type": 129}, "Summary": "Kafka request produce correlation id 1 topic 'plans'"}"#,
    )
    .unwrap();
    assert_eq!(
        printed(Options::default(), flow),
        "Jan  1 00:20:34.567: 1.1.1.1:31793 (health) -> 2.2.2.2:8080 (ID:12345) kafka-request DROPPED (Kafka request \
         produce correlation id 1 topic 'plans')\n"
    );
}

/// The same document on one line, as Go compacts it.
fn compacted(document: &str) -> String {
    document.lines().map(|line| line.trim().replacen("\": ", "\":", 1)).collect::<String>() + "\n"
}

#[test]
fn documents_are_read_and_written_byte_for_byte() {
    for document in [include_str!("transcripts/to-overlay.json"), include_str!("transcripts/to-endpoint.json")] {
        let response: GetFlowsResponse = serde_json::from_str(document).unwrap();
        assert_eq!(print::json(&response).unwrap(), compacted(document));
    }
}

/// The pods of both documents; only the one with `local` in its name is an endpoint of this node.
fn bookinfo(node: &str, productpage: u32, reviews: u32) -> World {
    let labels = |app: &str| {
        vec![
            "k8s:version=v1".to_owned(),
            format!("k8s:app={app}"),
            "k8s:io.kubernetes.pod.namespace=default".to_owned(),
            "k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=default".to_owned(),
            "k8s:io.cilium.k8s.policy.cluster=kind-kind".to_owned(),
            format!("k8s:io.cilium.k8s.policy.serviceaccount=bookinfo-{app}"),
        ]
    };
    let peer = |endpoint, identity, pod: &str, app: &str| Peer {
        endpoint,
        identity,
        namespace: "default".into(),
        pod: pod.into(),
        // Of remote pods only the identity is known.
        labels: if endpoint == 0 { Vec::new() } else { labels(app) },
        workloads: vec![Workload { name: format!("{app}-v1"), kind: "Deployment".into() }],
    };
    World {
        node: Arc::new(Node { cluster: "kind-kind".into(), name: node.into(), labels: Vec::new() }),
        peers: HashMap::from([
            (
                "10.244.2.148".parse().unwrap(),
                Arc::new(peer(productpage, 9889, "productpage-v1-675fc69cf-8zzxh", "productpage")),
            ),
            ("10.244.1.170".parse().unwrap(), Arc::new(peer(reviews, 55669, "reviews-v1-5b5d6494f4-dwvpn", "reviews"))),
        ]),
        labels: HashMap::from([(9889, labels("productpage").into()), (55669, labels("reviews").into())]),
        interfaces: HashMap::from([(6, "cilium_vxlan".into()), (15, "lxc240530c746ff".into())]),
        ..World::default()
    }
}

fn between_nodes(time: u64, point: u8, ifindex: u32, endpoint: u32) -> Event {
    Event {
        time,
        source: widen("10.244.2.148".parse().unwrap()),
        destination: widen("10.244.1.170".parse().unwrap()),
        source_identity: 9889,
        destination_identity: 55669,
        source_port: Port::new(47812),
        destination_port: Port::new(9080),
        ip_version: 4,
        protocol: 6,
        tcp_flags: 16,
        kind: event::KIND_TRACE,
        code: point,
        detail: event::CT_ESTABLISHED,
        direction: event::DIR_UNKNOWN,
        ifindex,
        endpoint,
        ..Event::default()
    }
}

/// All but what newer versions added and what is drawn.
#[track_caller]
fn check_document(event: &Event, world: &World, document: &str) {
    let mut flow = decode(event, world, &Clock::default());
    assert_eq!(flow.source.as_ref().unwrap().cluster_name, "kind-kind");
    assert_eq!(flow.trace_reason().as_str_name(), "ESTABLISHED");
    flow.emitter = None;
    flow.trace_reason = 0;
    for endpoint in [&mut flow.source, &mut flow.destination].into_iter().flatten() {
        endpoint.cluster_name.clear();
    }
    let mut expected: GetFlowsResponse = serde_json::from_str(document).unwrap();
    if let Some(ResponseTypes::Flow(expected)) = &mut expected.response_types {
        expected.uuid.clear();
    }
    assert_eq!(response(flow), expected);
}

#[test]
fn the_source_node_knows_the_source_endpoint() {
    let mut event = between_nodes(1_714_253_764_373_296_596, event::TRACE_TO_OVERLAY, 6, 1881);
    event.source_mac = Mac([0x9e, 0xf7, 0x72, 0x78, 0x39, 0xc7]);
    event.destination_mac = Mac([0xd6, 0x55, 0xa3, 0x91, 0x69, 0x37]);
    check_document(&event, &bookinfo("kind-worker3", 1881, 0), include_str!("transcripts/to-overlay.json"));
}

#[test]
fn the_destination_node_knows_the_destination_endpoint() {
    let mut event = between_nodes(1_714_253_764_373_343_054, event::TRACE_TO_LXC, 15, 2039);
    event.source_mac = Mac([0x72, 0xe6, 0x23, 0x94, 0x38, 0xbb]);
    event.destination_mac = Mac([0x02, 0x9e, 0x93, 0xc9, 0x74, 0x57]);
    check_document(&event, &bookinfo("kind-worker", 0, 2039), include_str!("transcripts/to-endpoint.json"));
}

#[test]
fn other_forms_of_a_flow() {
    let mut world = bookinfo("kind-worker", 0, 2039);
    world.policies = vec![Policy { name: "deny".into(), kind: "CiliumNetworkPolicy".into(), ..Policy::default() }];
    let mut event = between_nodes(1_690_960_814_103_450_000, 0, 15, 2039);
    event.kind = event::KIND_POLICY_VERDICT;
    event.code = policy::VERDICT_DENY;
    event.detail = policy::MATCH_L3_L4;
    event.direction = policy::DIR_INGRESS;
    event.tcp_flags = 2;
    (event.rule_set, event.revision) = (9, 4);
    let flow = decode(&event, &world, &Clock::default());
    assert_eq!(flow.ingress_denied_by[0].revision, 4);
    assert_eq!(flow.drop_reason_desc().as_str_name(), "POLICY_DENY");
    let options = Options { policy_names: true, node_name: true, ..Options::default() };
    let check = |options: Options, expected: &str| assert_eq!(printed(options, flow.clone()), expected);

    check(
        Options { ip_translation: false, color: print::Color::Always, ..options.clone() },
        "Aug  2 07:20:14.103 [kind-kind/kind-worker]: \x1b[36m10.244.2.148:\x1b[33m47812\x1b[0m\x1b[0m \x1b[35m(ID:9889)\x1b[0m <> \x1b[36m10.244.1.170:\x1b[33m9080\x1b[0m\x1b[0m \x1b[35m(ID:55669)\x1b[0m policy-verdict:L3-L4 INGRESS \x1b[31mDENIED BY deny (CiliumNetworkPolicy)\x1b[0m (TCP Flags: SYN)\n",
    );
    check(
        Options { output: Output::Dict, ..options.clone() },
        "  TIMESTAMP: Aug  2 07:20:14.103\n       NODE: kind-kind/kind-worker\n     SOURCE: default/productpage-v1-675fc69cf-8zzxh:47812\nDESTINATION: default/reviews-v1-5b5d6494f4-dwvpn:9080\n       TYPE: policy-verdict:L3-L4 INGRESS\n    VERDICT: DENIED BY deny (CiliumNetworkPolicy)\n    SUMMARY: TCP Flags: SYN\n",
    );
    check(
        Options { output: Output::Table, color: print::Color::Always, ..Options::default() },
        "TIMESTAMP             SOURCE                                         DESTINATION                                TYPE                           VERDICT   SUMMARY\nAug  2 07:20:14.103   default/productpage-v1-675fc69cf-8zzxh:47812   default/reviews-v1-5b5d6494f4-dwvpn:9080   policy-verdict:L3-L4 INGRESS   DENIED    TCP Flags: SYN\n",
    );
}

#[test]
fn names_cannot_take_over_the_terminal() {
    let mut world = bookinfo("kind-worker", 1, 0);
    let address = "10.244.1.170".parse().unwrap();
    world.peers.remove(&address);
    world.names.insert(address, ["evil\x1b[2J\r\nApr 28 fake".to_owned()].into());
    let flow = decode(&between_nodes(0, event::TRACE_TO_STACK, 0, 1), &world, &Clock::default());
    let line = printed(Options::default(), flow);
    assert!(line.contains("evil^[[2J\\r\\nApr 28 fake:9080"), "{line}");
    assert_eq!(line.matches(char::is_control).count(), 1);
}

#[test]
fn packets_that_are_not_ip_have_ethernet_addresses() {
    let event = Event {
        kind: event::KIND_DROP,
        code: DropReason::UNSUPPORTED_L2.0,
        source_mac: Mac([2, 0, 0, 0, 0, 1]),
        destination_mac: Mac([0xff; 6]),
        direction: event::DIR_UNKNOWN,
        ..Event::default()
    };
    let flow = decode(&event, &World::default(), &Clock::default());
    assert_eq!(
        printed(Options::default(), flow),
        "Jan  1 00:00:00.000: 02:00:00:00:00:01 (unknown) <> ff:ff:ff:ff:ff:ff (unknown) Unsupported L2 protocol DROPPED (Ethernet)\n"
    );
}

#[test]
fn audited_verdicts_are_not_drops() {
    let mut event = between_nodes(0, 0, 0, 2039);
    event.kind = event::KIND_POLICY_VERDICT;
    event.code = policy::VERDICT_DEFAULT_DENY;
    event.detail = policy::MATCH_NONE;
    event.direction = policy::DIR_INGRESS;
    event.flags = event::FLAG_AUDITED;
    let flow = decode(&event, &bookinfo("kind-worker", 0, 2039), &Clock::default());
    assert_eq!((flow.verdict().as_str_name(), flow.drop_reason_desc), ("AUDIT", 0));
    assert!(
        printed(Options::default(), flow)
            .contains("-> default/reviews-v1-5b5d6494f4-dwvpn:9080 (ID:55669) policy-verdict:none INGRESS AUDITED")
    );
}
