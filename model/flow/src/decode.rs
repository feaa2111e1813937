//! What flow is an event? Addresses become names, numbers become words, as Cilium's parser for layers 3 and 4 does it.

mod endpoint;
mod icmp;
mod packet;

use abi::{
    DropReason,
    event::{self, Event},
    identity::Identity,
    policy,
};

use crate::{
    directory::Directory,
    proto::flow::{
        self, CiliumEventType, Flow, FlowType, NetworkInterface, Policy, TraceObservationPoint, TraceReason,
        TrafficDirection, Verdict,
    },
    record::{Clock, Record, addresses},
    wkt::{BoolValue, Timestamp},
};

/// Number of policy verdicts among Cilium's event types.
pub const TYPE_POLICY_VERDICT: i32 = 5;
/// Number of drops among Cilium's event types.
pub const TYPE_DROP: i32 = 1;
/// Number of debug captures among Cilium's event types.
pub const TYPE_CAPTURE: i32 = 3;
/// Number of traces among Cilium's event types.
pub const TYPE_TRACE: i32 = 4;
/// Number of socket traces among Cilium's event types.
pub const TYPE_TRACE_SOCK: i32 = 7;
/// Number of requests and responses (layer 7) among Cilium's event types.
pub const TYPE_L7: i32 = 129;

/// The flow of an event that was not stored, with the names of now and without a unique identifier.
pub fn decode(event: &Event, directory: &(impl Directory + ?Sized), clock: &Clock) -> Flow {
    let record = Record::new(*event, clock.wall(event.time), 0, directory);
    let mut flow = decode_record(&record, directory);
    flow.uuid.clear();
    flow
}

/// The flow of a stored event.
pub fn decode_record(record: &Record, directory: &(impl Directory + ?Sized)) -> Flow {
    let event = &record.event;
    let node = directory.node();
    let packet = packet::decode(event);
    let source = endpoint::resolve(record.source.as_deref(), event.source_identity, directory);
    let destination = endpoint::resolve(record.destination.as_deref(), event.destination_identity, directory);
    let (source_service, destination_service) = services(event, directory);
    let drop_reason = drop_reason(event);
    let is_reply = is_reply(event);

    let mut flow = Flow {
        time: Some(Timestamp::from_nanos(record.time)),
        uuid: packet::uuid(record.uuid),
        emitter: Some(flow::Emitter { name: EMITTER.into(), version: env!("CARGO_PKG_VERSION").into() }),
        verdict: verdict(event).into(),
        ethernet: packet.ethernet,
        ip: packet.ip,
        l4: packet.l4,
        r#type: FlowType::L3L4.into(),
        node_name: node.full_name(),
        node_labels: node.labels.clone(),
        source_names: record.source_names.as_deref().unwrap_or_default().to_vec(),
        destination_names: record.destination_names.as_deref().unwrap_or_default().to_vec(),
        event_type: Some(event_type(event)),
        source_service,
        destination_service,
        traffic_direction: direction(event, source.id).into(),
        trace_observation_point: observation_point(event).into(),
        trace_reason: trace_reason(event).into(),
        drop_reason_desc: drop_reason,
        is_reply: is_reply.map(BoolValue::from),
        interface: interface(event, directory),
        source: Some(source),
        destination: Some(destination),
        ..Flow::default()
    };
    #[allow(deprecated)]
    {
        flow.drop_reason = drop_number(event);
        flow.reply = is_reply.unwrap_or(false);
        flow.summary = packet.summary;
    }
    if event.kind == event::KIND_POLICY_VERDICT {
        flow.policy_match_type = u32::from(event.detail);
        attribute(&mut flow, record);
    }
    if event.kind == event::KIND_TRACE && event.code == event::TRACE_TO_PROXY {
        flow.proxy_port = u32::from(event.proxy_port.number());
    }
    flow
}

/// One side of what a proxy tells: who has an address, with the identity by which policy was decided.
pub fn party(address: std::net::IpAddr, identity: Identity, directory: &(impl Directory + ?Sized)) -> flow::Endpoint {
    endpoint::resolve(directory.peer(address).as_deref(), identity, directory)
}

/// Under which name flows are emitted; clients know this one.
const EMITTER: &str = "Hubble";

fn verdict(event: &Event) -> Verdict {
    match (event.kind, event.code) {
        (event::KIND_DROP, _) => Verdict::Dropped,
        (event::KIND_TRACE, _) => Verdict::Forwarded,
        (event::KIND_POLICY_VERDICT, policy::VERDICT_ALLOW) => Verdict::Forwarded,
        (event::KIND_POLICY_VERDICT, policy::VERDICT_REDIRECT) => Verdict::Redirected,
        (event::KIND_POLICY_VERDICT, _) if audited(event) => Verdict::Audit,
        (event::KIND_POLICY_VERDICT, _) => Verdict::Dropped,
        _ => Verdict::Unknown,
    }
}

fn audited(event: &Event) -> bool {
    event.flags & event::FLAG_AUDITED != 0
}

fn drop_number(event: &Event) -> u32 {
    match (event.kind, event.code) {
        (event::KIND_DROP, reason) => u32::from(reason),
        (event::KIND_POLICY_VERDICT, _) if audited(event) => 0,
        (event::KIND_POLICY_VERDICT, policy::VERDICT_DENY) => u32::from(DropReason::POLICY_DENY.0),
        (event::KIND_POLICY_VERDICT, policy::VERDICT_ALLOW | policy::VERDICT_REDIRECT) => 0,
        (event::KIND_POLICY_VERDICT, _) => u32::from(DropReason::POLICY.0),
        _ => 0,
    }
}

/// The number if the API has a name for it, so that clients can print it; else 0.
fn drop_reason(event: &Event) -> i32 {
    let number = drop_number(event) as i32;
    flow::DropReason::try_from(number).map_or(0, i32::from)
}

fn event_type(event: &Event) -> CiliumEventType {
    match event.kind {
        event::KIND_POLICY_VERDICT => CiliumEventType { r#type: TYPE_POLICY_VERDICT, sub_type: 0 },
        kind => CiliumEventType { r#type: i32::from(kind), sub_type: i32::from(event.code) },
    }
}

fn knows_connection(event: &Event) -> bool {
    event.kind == event::KIND_TRACE && event.detail < event::CT_UNKNOWN
}

/// Traces know it from connection tracking; a verdict that lets pass is about a first packet; of drops nobody knows.
fn is_reply(event: &Event) -> Option<bool> {
    match event.kind {
        event::KIND_TRACE if knows_connection(event) => Some(event.detail == event::CT_REPLY),
        event::KIND_POLICY_VERDICT if verdict(event) != Verdict::Dropped => Some(false),
        _ => None,
    }
}

fn direction(event: &Event, source_endpoint: u32) -> TrafficDirection {
    match (event.kind, event.direction) {
        (event::KIND_POLICY_VERDICT | event::KIND_DROP, policy::DIR_INGRESS) => return TrafficDirection::Ingress,
        (event::KIND_POLICY_VERDICT | event::KIND_DROP, policy::DIR_EGRESS) => return TrafficDirection::Egress,
        _ => {}
    }
    if event.endpoint == 0 {
        return TrafficDirection::Unknown;
    }
    let from_endpoint = event.endpoint == source_endpoint;
    let outwards = match event.kind {
        event::KIND_TRACE if knows_connection(event) => from_endpoint != (event.detail == event::CT_REPLY),
        event::KIND_DROP => from_endpoint,
        _ => return TrafficDirection::Unknown,
    };
    if outwards { TrafficDirection::Egress } else { TrafficDirection::Ingress }
}

fn observation_point(event: &Event) -> TraceObservationPoint {
    match (event.kind, event.code) {
        (event::KIND_TRACE, event::TRACE_TO_LXC) => TraceObservationPoint::ToEndpoint,
        (event::KIND_TRACE, point) => TraceObservationPoint::try_from(i32::from(point)).unwrap_or_default(),
        _ => TraceObservationPoint::UnknownPoint,
    }
}

fn trace_reason(event: &Event) -> TraceReason {
    match (event.kind, event.detail) {
        (event::KIND_TRACE, event::CT_NEW) => TraceReason::New,
        (event::KIND_TRACE, event::CT_ESTABLISHED) => TraceReason::Established,
        (event::KIND_TRACE, event::CT_REPLY) => TraceReason::Reply,
        (event::KIND_TRACE, event::CT_RELATED) => TraceReason::Related,
        _ => TraceReason::Unknown,
    }
}

fn interface(event: &Event, directory: &(impl Directory + ?Sized)) -> Option<NetworkInterface> {
    if event.kind != event::KIND_TRACE || event.ifindex == 0 {
        return None;
    }
    let name = directory.interface(event.ifindex).map(|name| name.to_string()).unwrap_or_default();
    Some(NetworkInterface { index: event.ifindex, name })
}

fn services(event: &Event, directory: &(impl Directory + ?Sized)) -> (Option<flow::Service>, Option<flow::Service>) {
    let Some((source, destination)) = addresses(event) else { return (None, None) };
    let (source_port, destination_port) = packet::ports(event).unwrap_or((0, 0));
    (directory.service(source, source_port), directory.service(destination, destination_port))
}

/// Says which policies decided, on the side and in the sense of the verdict.
fn attribute(flow: &mut Flow, record: &Record) {
    let Some(deciders) = record.deciders.as_deref() else { return };
    let policies: Vec<Policy> = deciders
        .iter()
        .map(|policy| match record.event.revision {
            0 => policy.clone(),
            revision => Policy { revision: u64::from(revision), ..policy.clone() },
        })
        .collect();
    let allowed = matches!(flow.verdict(), Verdict::Forwarded | Verdict::Redirected);
    match (flow.traffic_direction(), allowed) {
        (TrafficDirection::Egress, true) => flow.egress_allowed_by = policies,
        (TrafficDirection::Egress, false) => flow.egress_denied_by = policies,
        (TrafficDirection::Ingress, true) => flow.ingress_allowed_by = policies,
        (TrafficDirection::Ingress, false) => flow.ingress_denied_by = policies,
        (TrafficDirection::Unknown, _) => {}
    }
}
