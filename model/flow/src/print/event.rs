//! How do losses, node states, events of the agent and debug messages look as text?

use std::fmt::Write as _;

use super::{Fields, Options, clean};
use crate::{
    proto::{
        flow::{AgentEvent, DebugEvent, Endpoint, LostEvent, ServiceUpsertNotificationAddr, agent_event::Notification},
        observer::{GetAgentEventsResponse, GetDebugEventsResponse, GetFlowsResponse},
        relay::{NodeState, NodeStatusEvent},
    },
    time::TimeFormat,
    wkt::{Int32Value, UInt32Value},
};

pub(super) fn lost(options: &Options, response: &GetFlowsResponse, lost: &LostEvent) -> Fields {
    let time = options.time_format.print(response.time.as_ref());
    let source = lost.source().as_str_name().to_owned();
    let cpu = lost.cpu.map_or(0, |cpu| cpu.value);
    let span = match (&lost.first, &lost.last) {
        (Some(first), Some(last)) => format!(
            " (first: {}, last: {})",
            options.time_format.print(Some(first)),
            options.time_format.print(Some(last))
        ),
        _ => String::new(),
    };
    let count = lost.num_events_lost;
    let summary = format!("CPU({cpu}) - {count}{span}");
    let node = if response.node_name.is_empty() { "-".to_owned() } else { clean(&response.node_name).into_owned() };

    let line = format!("{time} EVENTS LOST: {source} CPU({cpu}) {count}{span}\n");
    let mut dict = vec![("TIMESTAMP", time.clone())];
    let mut columns = vec![("TIMESTAMP", time)];
    if options.node_name {
        dict.push(("NODE", node.clone()));
        columns.push(("NODE", node));
    }
    let (dash, kind) = (|| "-".to_owned(), || "EVENTS LOST".to_owned());
    dict.extend([("SOURCE", source.clone()), ("TYPE", kind()), ("VERDICT", dash()), ("SUMMARY", summary.clone())]);
    columns.extend([
        ("SOURCE", source),
        ("DESTINATION", dash()),
        ("TYPE", kind()),
        ("VERDICT", dash()),
        ("SUMMARY", summary),
    ]);
    Fields { line, dict, columns }
}

pub(super) fn node_line(options: &Options, response: &GetFlowsResponse, status: &NodeStatusEvent) -> String {
    let prefix = format!("{} [{}]", options.time_format.print(response.time.as_ref()), clean(&response.node_name));
    let count = status.node_names.len();
    let names = shortened(&status.node_names);
    match status.state_change() {
        NodeState::NodeConnected => format!("{prefix}: Receiving flows from {count} nodes: {names}\n"),
        NodeState::NodeUnavailable => format!("{prefix}: {count} nodes are unavailable: {names}\n"),
        NodeState::NodeGone => format!("{prefix}: {count} nodes removed from cluster: {names}\n"),
        NodeState::NodeError => format!("{prefix}: Error {:?} on {count} nodes: {names}\n", status.message),
        NodeState::UnknownNodeState => format!("{prefix}: unknown node status event of {count} nodes: {names}\n"),
    }
}

pub(super) fn node_dict(options: &Options, response: &GetFlowsResponse, status: &NodeStatusEvent) -> String {
    let message = match status.message.as_str() {
        "" => "N/A".to_owned(),
        message => format!("{message:?}"),
    };
    format!(
        "  TIMESTAMP: {}\n      STATE: {}\n      NODES: {}\n    MESSAGE: {message}\n",
        options.time_format.print(response.time.as_ref()),
        status.state_change().as_str_name(),
        shortened(&status.node_names),
    )
}

/// So many names as fit into fifty characters, but at least one.
fn shortened(names: &[String]) -> String {
    let mut length = 0;
    let fitting = names.iter().enumerate().take_while(|(index, name)| {
        length += name.len() + 2;
        length <= 50 || *index == 0
    });
    let shown: Vec<_> = fitting.map(|(_, name)| clean(name).into_owned()).collect();
    match names.len() - shown.len() {
        0 => shown.join(", "),
        more => format!("{} (and {more} more)", shown.join(", ")),
    }
}

pub(super) fn agent(options: &Options, response: &GetAgentEventsResponse) -> Fields {
    let empty = AgentEvent::default();
    let event = response.agent_event.as_ref().unwrap_or(&empty);
    let time = options.time_format.print(response.time.as_ref());
    let kind = event.r#type().as_str_name().to_owned();
    let details = clean(&details(event, options.time_format)).into_owned();
    let node = node(options, &response.node_name);
    let line = format!("{time}{}: {kind} ({details})\n", bracketed(&node));
    let mut columns = vec![("TIMESTAMP", time)];
    columns.extend(node.map(|node| ("NODE", node)));
    columns.extend([("TYPE", kind), ("DETAILS", details)]);
    Fields { line, dict: columns.clone(), columns }
}

fn node(options: &Options, name: &str) -> Option<String> {
    options.node_name.then(|| clean(name).into_owned())
}

fn bracketed(node: &Option<String>) -> String {
    node.as_ref().map(|node| format!(" [{node}]")).unwrap_or_default()
}

/// Writing to a string cannot fail.
macro_rules! add {
    ($text:ident, $($arguments:tt)*) => { let _ = write!($text, $($arguments)*); };
}

// Services are deprecated, but old agents still send them.
#[allow(deprecated)]
fn details(event: &AgentEvent, layout: TimeFormat) -> String {
    let mut text = String::new();
    match &event.notification {
        None => text.push_str("UNKNOWN"),
        Some(Notification::Unknown(unknown)) => {
            add!(text, "type: {}, notification: {}", unknown.r#type, unknown.notification);
        }
        Some(Notification::AgentStart(start)) => {
            add!(text, "start time: {}", layout.print(start.time.as_ref()));
        }
        Some(Notification::PolicyUpdate(update)) => {
            let labels = update.labels.join(",");
            add!(text, "labels: [{labels}], revision: {}, count: {}", update.revision, update.rule_count);
        }
        Some(Notification::EndpointRegenerate(endpoint)) => {
            add!(text, "id: {}, labels: [{}]", endpoint.id, endpoint.labels.join(","));
            optional(&mut text, "error", &endpoint.error);
        }
        Some(Notification::EndpointUpdate(endpoint)) => {
            add!(text, "id: {}", endpoint.id);
            optional(&mut text, "namespace", &endpoint.namespace);
            optional(&mut text, "pod name", &endpoint.pod_name);
        }
        Some(Notification::IpcacheUpdate(update)) => {
            add!(text, "cidr: {}, identity: {}", update.cidr, update.identity);
            if let Some(old) = &update.old_identity {
                add!(text, ", old identity: {}", old.value);
            }
            optional(&mut text, "host ip", &update.host_ip);
            optional(&mut text, "old host ip", &update.old_host_ip);
            add!(text, ", encrypt key: {}", update.encrypt_key);
        }
        Some(Notification::ServiceUpsert(service)) => service_details(&mut text, service),
        Some(Notification::ServiceDelete(service)) => {
            add!(text, "id: {}", service.id);
        }
    }
    text
}

#[allow(deprecated)]
fn service_details(text: &mut String, service: &crate::proto::flow::ServiceUpsertNotification) {
    add!(text, "id: {}", service.id);
    if let Some(frontend) = &service.frontend_address {
        add!(text, ", frontend: {}", address(frontend));
    }
    if !service.backend_addresses.is_empty() {
        let backends: Vec<_> = service.backend_addresses.iter().map(address).collect();
        add!(text, ", backends: [{}]", backends.join(","));
    }
    optional(text, "type", &service.r#type);
    optional(text, "traffic policy", &service.traffic_policy);
    optional(text, "namespace", &service.namespace);
    optional(text, "name", &service.name);
}

fn optional(text: &mut String, name: &str, value: &str) {
    if !value.is_empty() {
        add!(text, ", {name}: {value}");
    }
}

fn address(address: &ServiceUpsertNotificationAddr) -> String {
    match address.ip.contains(':') {
        true => format!("[{}]:{}", address.ip, address.port),
        false => format!("{}:{}", address.ip, address.port),
    }
}

pub(super) fn debug(options: &Options, response: &GetDebugEventsResponse) -> Fields {
    let empty = DebugEvent::default();
    let event = response.debug_event.as_ref().unwrap_or(&empty);
    let time = options.time_format.print(response.time.as_ref());
    let kind = event.r#type().as_str_name().to_owned();
    let from = endpoint(event.source.as_ref());
    let (mark, cpu) = (hex(event.hash.as_ref()), processor(event.cpu.as_ref()));
    let message = clean(&event.message).into_owned();
    let node = node(options, &response.node_name);
    let line = format!("{time}{}: {from} {kind} MARK: {mark} CPU: {cpu} ({message})\n", bracketed(&node));

    let mut dict = vec![("TIMESTAMP", time.clone())];
    let mut columns = vec![("TIMESTAMP", time)];
    dict.extend(node.clone().map(|node| ("NODE", node)));
    columns.extend(node.map(|node| ("NODE", node)));
    columns.extend([("FROM", from.clone()), ("", String::new()), ("TYPE", kind.clone())]);
    columns.extend([("CPU/MARK", format!("{cpu} {mark}")), ("MESSAGE", message.clone())]);
    dict.extend([("TYPE", kind), ("FROM", from), ("MARK", mark), ("CPU", cpu), ("MESSAGE", message)]);
    Fields { line, dict, columns }
}

fn hex(value: Option<&UInt32Value>) -> String {
    value.map_or_else(|| "N/A".to_owned(), |value| format!("{:#x}", value.value))
}

fn processor(value: Option<&Int32Value>) -> String {
    value.map_or_else(|| "N/A".to_owned(), |value| format!("{:02}", value.value))
}

fn endpoint(endpoint: Option<&Endpoint>) -> String {
    let Some(endpoint) = endpoint else { return "N/A".to_owned() };
    let id = format!("ID: {}", endpoint.id);
    match (endpoint.namespace.as_str(), endpoint.pod_name.as_str(), endpoint.labels.as_slice()) {
        (namespace, pod, _) if !namespace.is_empty() && !pod.is_empty() => {
            format!("{}/{} ({id})", clean(namespace), clean(pod))
        }
        (_, _, [label]) if label.starts_with("reserved:") => format!("{} ({id})", clean(label)),
        _ => id,
    }
}
