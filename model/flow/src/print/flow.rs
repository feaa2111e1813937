//! How does a flow look as text?

use abi::DropReason;

use super::{Color, Fields, Options, clean};
use crate::{
    decode::{TYPE_CAPTURE, TYPE_DROP, TYPE_POLICY_VERDICT, TYPE_TRACE, TYPE_TRACE_SOCK},
    directory::reserved_name,
    proto::flow::{
        AuthType, Flow, Policy, SocketTranslationPoint, TrafficDirection, Verdict, layer4::Protocol, layer7::Record,
    },
};

pub(super) fn fields(options: &Options, flow: &Flow) -> Fields {
    let time = options.time_format.print(flow.time.as_ref());
    let node = clean(&flow.node_name).into_owned();
    let (source, destination) = hosts(options, flow);
    let kind = kind(flow);
    let verdict = verdict(options, flow);
    let summary = summary(options, flow);
    let line = line(options, flow, [&time, &node, &source, &destination, &kind, &verdict, &summary]);

    let mut dict = vec![("TIMESTAMP", time.clone())];
    let mut columns = vec![("TIMESTAMP", time)];
    if options.node_name {
        dict.push(("NODE", node.clone()));
        columns.push(("NODE", node));
    }
    let common =
        [("SOURCE", source), ("DESTINATION", destination), ("TYPE", kind), ("VERDICT", verdict), ("SUMMARY", summary)];
    dict.extend(common.clone());
    columns.extend(common);
    Fields { line, dict, columns }
}

fn line(options: &Options, flow: &Flow, texts: [&str; 7]) -> String {
    let [time, node, mut source, mut destination, kind, verdict, summary] = texts;
    let identity_of = |endpoint: &Option<crate::proto::flow::Endpoint>| {
        identity(options.color, endpoint.as_ref().map_or(0, |endpoint| endpoint.identity))
    };
    let (mut source_identity, mut destination_identity) = (identity_of(&flow.source), identity_of(&flow.destination));
    let arrow = match flow.is_reply.map(|reply| reply.value) {
        None => "<>",
        Some(false) => "->",
        Some(true) => {
            // The one who began stands at the left.
            std::mem::swap(&mut source, &mut destination);
            std::mem::swap(&mut source_identity, &mut destination_identity);
            "<-"
        }
    };
    let node = if options.node_name { format!(" [{node}]") } else { String::new() };
    format!(
        "{time}{node}: {source} {source_identity} {arrow} {destination} {destination_identity} {kind} {verdict} ({summary})\n"
    )
}

fn identity(color: Color, identity: u32) -> String {
    match reserved_name(identity) {
        Some(name) => color.identity(&format!("({name})")),
        None => color.identity(&format!("(ID:{identity})")),
    }
}

fn hosts(options: &Options, flow: &Flow) -> (String, String) {
    let color = options.color;
    let Some(ip) = &flow.ip else {
        let ethernet =
            flow.ethernet.as_ref().map(|e| (color.host(&clean(&e.source)), color.host(&clean(&e.destination))));
        return ethernet.unwrap_or_default();
    };
    let (source_port, destination_port) = ports(flow);
    let side = |address: &str, port, endpoint: &Option<_>, service: &Option<_>, names: &[String]| {
        let host = Host { address, endpoint: endpoint.as_ref(), service: service.as_ref(), names };
        color.host(&with_port(color, &host.name(options.ip_translation), port))
    };
    (
        side(&ip.source, source_port, &flow.source, &flow.source_service, &flow.source_names),
        side(&ip.destination, destination_port, &flow.destination, &flow.destination_service, &flow.destination_names),
    )
}

struct Host<'a> {
    address: &'a str,
    endpoint: Option<&'a crate::proto::flow::Endpoint>,
    service: Option<&'a crate::proto::flow::Service>,
    names: &'a [String],
}

impl Host<'_> {
    fn name(&self, translate: bool) -> String {
        let pod = self.endpoint.map_or("", |endpoint| &endpoint.pod_name);
        let service = self.service.map_or("", |service| &service.name);
        // A service's namespace has precedence, as in Hubble.
        let namespace = match (self.service, self.endpoint) {
            (Some(service), _) => &service.namespace,
            (None, Some(endpoint)) => &endpoint.namespace,
            (None, None) => "",
        };
        match (pod, service, self.names) {
            _ if !translate => clean(self.address).into_owned(),
            (pod, _, _) if !pod.is_empty() => join(namespace, pod),
            (_, service, _) if !service.is_empty() => join(namespace, service),
            (_, _, names) if !names.is_empty() => clean(&names.join(",")).into_owned(),
            _ => clean(self.address).into_owned(),
        }
    }
}

fn join(namespace: &str, name: &str) -> String {
    match namespace {
        "" => clean(name).into_owned(),
        namespace => format!("{}/{}", clean(namespace), clean(name)),
    }
}

fn with_port(color: Color, host: &str, port: u32) -> String {
    match port {
        0 => host.to_owned(),
        port if host.contains(':') => format!("[{host}]:{}", color.port(&port.to_string())),
        port => format!("{host}:{}", color.port(&port.to_string())),
    }
}

fn ports(flow: &Flow) -> (u32, u32) {
    match flow.l4.as_ref().and_then(|l4| l4.protocol.as_ref()) {
        Some(Protocol::Tcp(tcp)) => (tcp.source_port, tcp.destination_port),
        Some(Protocol::Udp(udp)) => (udp.source_port, udp.destination_port),
        Some(Protocol::Sctp(sctp)) => (sctp.source_port, sctp.destination_port),
        _ => (0, 0),
    }
}

fn kind(flow: &Flow) -> String {
    if let Some(l7) = &flow.l7 {
        let kind = l7.r#type().as_str_name().to_lowercase();
        return match &l7.record {
            Some(Record::Http(_)) => format!("http-{kind}"),
            Some(Record::Kafka(_)) => format!("kafka-{kind}"),
            Some(Record::Dns(dns)) => format!("dns-{kind} {}", clean(&dns.observation_source)),
            _ => format!("l7-{kind}"),
        };
    }
    let (kind, sub_type) = flow.event_type.as_ref().map_or((0, 0), |event| (event.r#type, event.sub_type));
    match kind {
        TYPE_TRACE => trace_point(sub_type),
        TYPE_DROP => drop_text(sub_type),
        TYPE_POLICY_VERDICT => {
            let direction = flow.traffic_direction().as_str_name();
            format!("policy-verdict:{} {direction}", match_type(flow.policy_match_type))
        }
        TYPE_CAPTURE => flow.debug_capture_point().as_str_name().to_owned(),
        TYPE_TRACE_SOCK => translation_point(sub_type).to_owned(),
        _ => "UNKNOWN".to_owned(),
    }
}

/// Name of a trace point by its number in events.
fn trace_point(number: i32) -> String {
    match TRACE_POINTS.get(usize::try_from(number).unwrap_or(usize::MAX)) {
        Some(name) => (*name).to_owned(),
        None => number.to_string(),
    }
}

/// Names of the trace points, by their numbers.
pub const TRACE_POINTS: [&str; 14] = [
    "to-endpoint",
    "to-proxy",
    "to-host",
    "to-stack",
    "to-overlay",
    "from-endpoint",
    "from-proxy",
    "from-host",
    "from-stack",
    "from-overlay",
    "from-network",
    "to-network",
    "from-crypto",
    "to-crypto",
];

fn drop_text(number: i32) -> String {
    match DropReason::ALL.iter().find(|reason| i32::from(reason.0) == number) {
        Some(reason) => reason.text().to_owned(),
        None => format!("{number}, 0"),
    }
}

fn match_type(number: u32) -> &'static str {
    match number {
        0 => "none",
        1 => "L3-Only",
        2 => "L3-L4",
        3 => "L4-Only",
        4 => "all",
        5 => "L3-Proto",
        6 => "Proto-Only",
        _ => "unknown",
    }
}

fn translation_point(number: i32) -> &'static str {
    match SocketTranslationPoint::try_from(number).unwrap_or_default() {
        SocketTranslationPoint::SockXlatePointPreDirectionFwd => "pre-xlate-fwd",
        SocketTranslationPoint::SockXlatePointPostDirectionFwd => "post-xlate-fwd",
        SocketTranslationPoint::SockXlatePointPreDirectionRev => "pre-xlate-rev",
        SocketTranslationPoint::SockXlatePointPostDirectionRev => "post-xlate-rev",
        SocketTranslationPoint::SockXlatePointUnknown => "SOCK_XLATE_POINT_UNKNOWN",
    }
}

fn verdict(options: &Options, flow: &Flow) -> String {
    let of_policy = flow.event_type.as_ref().is_some_and(|event| event.r#type == TYPE_POLICY_VERDICT);
    let by = |egress: &[Policy], ingress: &[Policy]| match (options.policy_names && of_policy, flow.traffic_direction())
    {
        (true, TrafficDirection::Egress) => policy_names(egress),
        (true, TrafficDirection::Ingress) => policy_names(ingress),
        _ => String::new(),
    };
    let word = |of_policy_word: &str| match of_policy {
        true => of_policy_word.to_owned(),
        false => flow.verdict().as_str_name().to_owned(),
    };
    let denied_by = by(&flow.egress_denied_by, &flow.ingress_denied_by);
    let allowed_by = by(&flow.egress_allowed_by, &flow.ingress_allowed_by);
    match flow.verdict() {
        Verdict::Forwarded | Verdict::Redirected => options.color.good(&(word("ALLOWED") + &allowed_by)),
        Verdict::Dropped | Verdict::Error => options.color.bad(&(word("DENIED") + &denied_by)),
        Verdict::Audit => options.color.notable(&(word("AUDITED") + &denied_by)),
        Verdict::Traced | Verdict::Translated => options.color.notable(flow.verdict().as_str_name()),
        Verdict::Unknown => flow.verdict().as_str_name().to_owned(),
    }
}

fn policy_names(policies: &[Policy]) -> String {
    let named = policies.iter().filter(|policy| !policy.kind.is_empty() && !policy.name.is_empty());
    let names: Vec<_> = named.map(|policy| format!("{} ({})", clean(&policy.name), clean(&policy.kind))).collect();
    if names.is_empty() { String::new() } else { format!(" BY {}", names.join(", ")) }
}

fn summary(options: &Options, flow: &Flow) -> String {
    let trace = match flow.ip_trace_id.as_ref().map_or(0, |trace| trace.trace_id) {
        0 => String::new(),
        id => format!("IP Trace ID: {id}; "),
    };
    let auth = match flow.auth_type() {
        AuthType::Disabled => String::new(),
        AuthType::TestAlwaysFail => format!("; Auth: {}", options.color.bad(flow.auth_type().as_str_name())),
        AuthType::Spire => format!("; Auth: {}", options.color.good(flow.auth_type().as_str_name())),
    };
    #[allow(deprecated)]
    let summary = clean(&flow.summary);
    format!("{trace}{summary}{auth}")
}
