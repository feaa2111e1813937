//! Does a flow pass the filters of a question?

mod address;
mod http;
mod labels;
mod pattern;
mod side;

use crate::proto::flow::{Flow, FlowFilter, TcpFlags, Verdict, layer4::Protocol, layer7::Record};

/// Why a filter cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FilterError {
    /// Neither an address nor a prefix.
    #[error("invalid IP {kind} {text:?} in filter: write e.g. 10.0.0.1 or 10.0.0.0/8")]
    Address {
        /// `address` or `prefix`.
        kind: &'static str,
        /// What was found.
        text: String,
    },
    /// An empty name where one is needed.
    #[error("invalid {what} filter: name must not be empty")]
    EmptyName {
        /// Which filter.
        what: &'static str,
    },
    /// Not a port.
    #[error("invalid {side} port filter: invalid port {text:?}: want a number from 0 to 65535")]
    Port {
        /// `source` or `destination`.
        side: &'static str,
        /// What was found.
        text: String,
    },
    /// Not a protocol that flows tell apart.
    #[error("invalid protocol filter: unknown protocol: {0:?}: want one of {PROTOCOLS}")]
    Protocol(String),
    /// Not a label selector.
    #[error("invalid {what} label filter: {text:?}: {why}")]
    Label {
        /// `source`, `destination` or `node`.
        what: &'static str,
        /// What was found.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// Not a name pattern.
    #[error("invalid pattern {text:?}: {why}")]
    Pattern {
        /// What was found.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// Not a regular expression.
    #[error("invalid {what} filter: {why}")]
    Expression {
        /// Which filter.
        what: &'static str,
        /// What the parser says.
        why: String,
    },
    /// Not a status code or prefix.
    #[error("invalid http status code filter: invalid status code prefix: {0:?}: want e.g. 404 or 4+")]
    HttpStatus(String),
    /// HTTP asked of events that carry none.
    #[error("filtering by {0} requires the event type filter to only match 'l7' events")]
    HttpType(&'static str),
    /// CEL cannot be evaluated.
    #[error("CEL expressions are not supported by this server: use the other filters")]
    Cel,
}

const PROTOCOLS: &str = "icmp, icmpv4, icmpv6, tcp, udp, sctp, vrrp, igmp, dns, http";

type Test = Box<dyn Fn(&Flow) -> bool + Send + Sync>;

/// What a question lets pass: what any of `allow` matches (everything, if there is none) and none of `deny` does.
#[derive(Default)]
pub struct Filters {
    allow: Vec<Filter>,
    deny: Vec<Filter>,
}

impl Filters {
    /// Checks and prepares the filters of a question.
    pub fn new(allow: &[FlowFilter], deny: &[FlowFilter]) -> Result<Self, FilterError> {
        let compile = |filters: &[FlowFilter]| filters.iter().map(Filter::new).collect::<Result<Vec<_>, _>>();
        Ok(Self { allow: compile(allow)?, deny: compile(deny)? })
    }

    /// True if nothing is filtered.
    pub fn is_empty(&self) -> bool {
        self.allow.is_empty() && self.deny.is_empty()
    }

    /// Does this flow pass?
    pub fn pass(&self, flow: &Flow) -> bool {
        let allowed = self.allow.is_empty() || self.allow.iter().any(|filter| filter.matches(flow));
        allowed && !self.deny.iter().any(|filter| filter.matches(flow))
    }
}

/// One filter message, prepared: all of its tests must hold.
pub struct Filter {
    tests: Vec<Test>,
}

impl Filter {
    /// Checks and prepares a filter.
    pub fn new(filter: &FlowFilter) -> Result<Self, FilterError> {
        let mut tests = Vec::new();
        general(filter, &mut tests)?;
        transport(filter, &mut tests)?;
        side::compile(filter, &mut tests)?;
        http::compile(filter, &mut tests)?;
        Ok(Self { tests })
    }

    /// Do all tests hold?
    pub fn matches(&self, flow: &Flow) -> bool {
        self.tests.iter().all(|test| test(flow))
    }
}

/// Adds a test for a list of wanted values; an empty list wants anything.
fn any<T: Clone + Send + Sync + 'static>(
    tests: &mut Vec<Test>,
    wanted: &[T],
    matches: impl Fn(&Flow, &T) -> bool + Send + Sync + 'static,
) {
    if !wanted.is_empty() {
        let wanted = wanted.to_vec();
        tests.push(Box::new(move |flow| wanted.iter().any(|value| matches(flow, value))));
    }
}

fn general(filter: &FlowFilter, tests: &mut Vec<Test>) -> Result<(), FilterError> {
    any(tests, &filter.uuid, |flow, uuid| flow.uuid == *uuid);
    any(tests, &filter.event_type, |flow, wanted| {
        flow.event_type.as_ref().is_some_and(|event| {
            (wanted.r#type == 0 || wanted.r#type == event.r#type)
                && (!wanted.match_sub_type || wanted.sub_type == event.sub_type)
        })
    });
    any(tests, &filter.verdict, |flow, verdict| flow.verdict == *verdict);
    any(tests, &filter.drop_reason_desc, |flow, reason| {
        flow.verdict() == Verdict::Dropped && flow.drop_reason_desc == *reason
    });
    any(tests, &filter.reply, |flow, reply| is_reply(flow) == Some(*reply));
    any(tests, &filter.encrypted, |flow, encrypted| flow.ip.as_ref().is_some_and(|ip| ip.encrypted) == *encrypted);
    any(tests, &filter.traffic_direction, |flow, direction| flow.traffic_direction == *direction);
    any(tests, &filter.interface, |flow, wanted| {
        flow.interface.as_ref().is_some_and(|interface| {
            (wanted.index == 0 || wanted.index == interface.index)
                && (wanted.name.is_empty() || wanted.name == interface.name)
        })
    });
    any(tests, &filter.trace_id, |flow, wanted| {
        let parent = flow.trace_context.as_ref().and_then(|context| context.parent.as_ref());
        parent.map_or("", |parent| parent.trace_id.as_str()) == wanted
    });
    any(tests, &filter.ip_trace_id, |flow, wanted| {
        flow.ip_trace_id.as_ref().map_or(0, |trace| trace.trace_id) == *wanted
    });
    if !filter.node_name.is_empty() {
        let pattern = pattern::node_names(&filter.node_name)?;
        tests.push(Box::new(move |flow| pattern.is_match(&full_node_name(&flow.node_name))));
    }
    if !filter.node_labels.is_empty() {
        let selectors = labels::compile("node", &filter.node_labels)?;
        tests.push(Box::new(move |flow| selectors.iter().any(|selector| selector.matches(&flow.node_labels))));
    }
    if !filter.dns_query.is_empty() {
        let patterns = pattern::expressions("DNS query", &filter.dns_query)?;
        tests.push(Box::new(move |flow| match flow.l7.as_ref().and_then(|l7| l7.record.as_ref()) {
            Some(Record::Dns(dns)) => patterns.iter().any(|pattern| pattern.is_match(&dns.query)),
            _ => false,
        }));
    }
    let cel = filter.experimental.as_ref().is_some_and(|experimental| !experimental.cel_expression.is_empty());
    if cel { Err(FilterError::Cel) } else { Ok(()) }
}

/// Old clients ask drops for "no reply", although nobody knows it of drops.
fn is_reply(flow: &Flow) -> Option<bool> {
    match &flow.is_reply {
        Some(reply) => Some(reply.value),
        None if flow.verdict() == Verdict::Dropped => Some(false),
        None => None,
    }
}

/// With the cluster's name, which flows of an unnamed cluster lack.
fn full_node_name(name: &str) -> String {
    match name {
        "" => String::new(),
        name if name.contains('/') => name.to_owned(),
        name => format!("default/{name}"),
    }
}

fn transport(filter: &FlowFilter, tests: &mut Vec<Test>) -> Result<(), FilterError> {
    let protocols = filter.protocol.iter().map(|name| protocol(name)).collect::<Result<Vec<_>, _>>()?;
    any(tests, &protocols, |flow, matches| matches(flow));
    any(tests, &filter.tcp_flags, |flow, wanted| tcp_flags(flow).is_some_and(|flags| has_flags(flags, wanted)));
    any(tests, &filter.ip_version, |flow, wanted| flow.ip.as_ref().map_or(0, |ip| ip.ip_version) == *wanted);
    Ok(())
}

fn l4(flow: &Flow) -> Option<&Protocol> {
    flow.l4.as_ref()?.protocol.as_ref()
}

fn l7(flow: &Flow) -> Option<&Record> {
    flow.l7.as_ref()?.record.as_ref()
}

fn protocol(name: &str) -> Result<fn(&Flow) -> bool, FilterError> {
    Ok(match name.to_lowercase().as_str() {
        "icmp" => |flow| matches!(l4(flow), Some(Protocol::IcmPv4(_) | Protocol::IcmPv6(_))),
        "icmpv4" => |flow| matches!(l4(flow), Some(Protocol::IcmPv4(_))),
        "icmpv6" => |flow| matches!(l4(flow), Some(Protocol::IcmPv6(_))),
        "tcp" => |flow| matches!(l4(flow), Some(Protocol::Tcp(_))),
        "udp" => |flow| matches!(l4(flow), Some(Protocol::Udp(_))),
        "sctp" => |flow| matches!(l4(flow), Some(Protocol::Sctp(_))),
        "vrrp" => |flow| matches!(l4(flow), Some(Protocol::Vrrp(_))),
        "igmp" => |flow| matches!(l4(flow), Some(Protocol::Igmp(_))),
        "dns" => |flow| matches!(l7(flow), Some(Record::Dns(_))),
        "http" => |flow| matches!(l7(flow), Some(Record::Http(_))),
        "kafka" => |flow| matches!(l7(flow), Some(Record::Kafka(_))),
        _ => return Err(FilterError::Protocol(name.to_owned())),
    })
}

fn tcp_flags(flow: &Flow) -> Option<&TcpFlags> {
    match l4(flow)? {
        Protocol::Tcp(tcp) => tcp.flags.as_ref(),
        _ => None,
    }
}

/// Every wanted flag is set; others may be.
fn has_flags(flags: &TcpFlags, wanted: &TcpFlags) -> bool {
    (!wanted.fin || flags.fin)
        && (!wanted.syn || flags.syn)
        && (!wanted.rst || flags.rst)
        && (!wanted.psh || flags.psh)
        && (!wanted.ack || flags.ack)
        && (!wanted.urg || flags.urg)
        && (!wanted.ece || flags.ece)
        && (!wanted.cwr || flags.cwr)
        && (!wanted.ns || flags.ns)
}

#[cfg(test)]
mod tests;
