//! Which events of the datapath are shown, and how does one look as a line of text?

mod l7;

use std::net::{IpAddr, SocketAddr};

use abi::event::{self, Event};
use abi::{DropReason, policy};
use agent_api::{Client, MonitorEvent};
use anyhow::Result;

use crate::arguments::{EventType, MonitorArgs};
use crate::output::emit;

/// Which events are shown.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Of these types; none: all.
    pub types: Vec<EventType>,
    /// Seen at or going to one of these endpoints.
    pub related: Vec<u32>,
    /// Sent by one of these endpoints.
    pub from: Vec<u32>,
    /// Going to one of these endpoints.
    pub to: Vec<u32>,
}

/// `cilium-dbg monitor`: shows events until nobody reads or sends any more.
pub async fn watch(client: &Client, arguments: &MonitorArgs) -> Result<()> {
    let filter = Filter {
        types: arguments.types.clone(),
        related: arguments.related_to.clone(),
        from: arguments.from.clone(),
        to: arguments.to.clone(),
    };
    if !arguments.json {
        emit("Listening for events on one ring buffer for all processors\nPress Ctrl-C to quit\n")?;
    }
    client.monitor(|record| shown(&record, &filter, arguments).is_none_or(|line| emit(&line).is_ok())).await?;
    Ok(())
}

/// The line for a record, if it is shown.
fn shown(record: &MonitorEvent, filter: &Filter, arguments: &MonitorArgs) -> Option<String> {
    if let Some(log) = record.log.as_ref() {
        let text = || if arguments.json { l7::json(log).to_string() } else { l7::line(log) };
        return filter.shows_log(log).then(|| format!("{}\n", text()));
    }
    let event = parse(&record.record).filter(|event| filter.shows(event))?;
    if arguments.hex {
        return Some(format!("{}\n", record.record));
    }
    let interface = if record.interface.is_empty() { event.ifindex.to_string() } else { record.interface.clone() };
    let style = Style { verbose: arguments.verbose > 0, numeric: arguments.numeric };
    let line = line(&event, &interface, style);
    let text = if arguments.json { serde_json::json!({ "message": line }).to_string() } else { line };
    Some(format!("{text}\n"))
}

/// How much a line says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Style {
    /// All fields.
    pub verbose: bool,
    /// Reserved identities by their number.
    pub numeric: bool,
}

/// The record of a line of `/v1/monitor`.
pub fn parse(record: &str) -> Option<Event> {
    let digits = record.as_bytes().chunks_exact(2);
    let bytes: Option<Vec<u8>> =
        digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect();
    abi::from_bytes(&bytes?)
}

impl Filter {
    /// Is this one shown?
    pub fn shows(&self, event: &Event) -> bool {
        let kind = match event.kind {
            event::KIND_DROP => EventType::Drop,
            event::KIND_TRACE => EventType::Trace,
            event::KIND_POLICY_VERDICT => EventType::PolicyVerdict,
            _ => EventType::Debug,
        };
        let goes_in = match event.kind {
            event::KIND_TRACE => event.code == event::TRACE_TO_LXC,
            _ => event.direction == policy::DIR_INGRESS,
        };
        let of = |wanted: &Vec<u32>, side: bool| wanted.is_empty() || side && wanted.contains(&event.endpoint);
        (self.types.is_empty() || self.types.contains(&kind))
            && of(&self.related, true)
            && of(&self.from, !goes_in)
            && of(&self.to, goes_in)
    }
}

impl Filter {
    /// The same of a proxy's record.
    pub fn shows_log(&self, record: &agent_api::LogRecord) -> bool {
        let (source, destination) = (record.source.endpoint, record.destination.endpoint);
        let of = |wanted: &Vec<u32>, ids: &[u32]| wanted.is_empty() || ids.iter().any(|id| wanted.contains(id));
        (self.types.is_empty() || self.types.contains(&EventType::L7))
            && of(&self.related, &[source, destination])
            && of(&self.from, &[source])
            && of(&self.to, &[destination])
    }
}

fn addresses(event: &Event) -> (IpAddr, IpAddr) {
    let narrow = |words| abi::address::narrow(event.ip_version, words);
    (narrow(event.source), narrow(event.destination))
}

/// `10.0.0.1:4000 -> 10.0.0.2:80 tcp SYN`
fn connection(event: &Event) -> String {
    if event.ip_version == 0 {
        return format!(
            "{} -> {} ethertype 0x{:04x}",
            event.source_mac,
            event.destination_mac,
            u16::from_be(event.ether_type)
        );
    }
    let (source, destination) = addresses(event);
    let ports = (event.source_port.number(), event.destination_port.number());
    match event.protocol {
        6 | 17 | 132 => {
            let name = match event.protocol {
                6 => "tcp",
                17 => "udp",
                _ => "sctp",
            };
            let flags = tcp_flags(event.tcp_flags);
            let flags = if event.protocol == 6 && !flags.is_empty() { format!(" {flags}") } else { String::new() };
            format!("{} -> {} {name}{flags}", SocketAddr::new(source, ports.0), SocketAddr::new(destination, ports.1))
        }
        1 | 58 => {
            let [kind, code] = event.source_port.0.to_ne_bytes();
            let name = if event.protocol == 1 { "icmp" } else { "icmpv6" };
            format!("{source} -> {destination} {name} type {kind} code {code}")
        }
        other => format!("{source} -> {destination} protocol {other}"),
    }
}

fn tcp_flags(flags: u8) -> String {
    let names = [(0x02, "SYN"), (0x10, "ACK"), (0x04, "RST"), (0x01, "FIN"), (0x08, "PSH"), (0x20, "URG")];
    let set: Vec<&str> = names.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, name)| *name).collect();
    set.join(", ")
}

fn identities(event: &Event, numeric: bool) -> String {
    let name = |id: u32| match id {
        id if numeric => id.to_string(),
        abi::identity::UNKNOWN => "unknown".to_owned(),
        abi::identity::HOST => "host".into(),
        abi::identity::WORLD => "world".into(),
        abi::identity::HEALTH => "health".into(),
        abi::identity::INIT => "init".into(),
        abi::identity::REMOTE_NODE => "remote-node".into(),
        abi::identity::KUBE_APISERVER => "kube-apiserver".into(),
        abi::identity::WORLD_IPV4 => "world-ipv4".into(),
        abi::identity::WORLD_IPV6 => "world-ipv6".into(),
        other => other.to_string(),
    };
    format!("{}->{}", name(event.source_identity), name(event.destination_identity))
}

/// One line; `interface` is the name of the event's device, or its number.
pub fn line(event: &Event, interface: &str, style: Style) -> String {
    let more = if style.verbose {
        format!(
            " [time {} length {} rule-set {} revision {}]",
            event.time, event.length, event.rule_set, event.revision
        )
    } else {
        String::new()
    };
    let (who, what) = (identities(event, style.numeric), connection(event));
    let text = match event.kind {
        event::KIND_DROP => {
            let reason = DropReason(event.code).text();
            format!(
                "xx drop ({reason}) flow 0x0 to endpoint {}, ifindex {}, identity {who}: {what}",
                event.endpoint, event.ifindex
            )
        }
        event::KIND_POLICY_VERDICT => verdict(event, &what),
        event::KIND_TRACE => {
            let state = match event.detail {
                event::CT_NEW => "new",
                event::CT_ESTABLISHED => "established",
                event::CT_REPLY => "reply",
                event::CT_RELATED => "related",
                _ => "unknown",
            };
            format!(
                "{} flow 0x0 , identity {who} state {state} ifindex {interface} orig-ip 0.0.0.0: {what}",
                observation(event)
            )
        }
        other => format!("event of kind {other}: {what}"),
    };
    text + &more
}

fn verdict(event: &Event, what: &str) -> String {
    let ingress = event.direction == policy::DIR_INGRESS;
    let remote = if ingress { event.source_identity } else { event.destination_identity };
    let action = match event.code {
        policy::VERDICT_ALLOW => "allow".to_owned(),
        policy::VERDICT_REDIRECT => "redirect".into(),
        _ if event.flags & event::FLAG_AUDITED != 0 => "audit".into(),
        _ => "deny".into(),
    };
    let matched = match event.detail {
        policy::MATCH_L3_ONLY => "L3-Only",
        policy::MATCH_L3_L4 => "L3-L4",
        policy::MATCH_L4_ONLY => "L4-Only",
        policy::MATCH_ALL => "all",
        policy::MATCH_L3_PROTO => "L3-Proto",
        policy::MATCH_PROTO_ONLY => "Proto-Only",
        _ => "none",
    };
    format!(
        "Policy verdict log: flow 0x0 local EP ID {}, remote ID {remote}, proto {}, {}, action {action}, auth: disabled, match {matched}, {what}",
        event.endpoint,
        event.protocol,
        if ingress { "ingress" } else { "egress" },
    )
}

fn observation(event: &Event) -> String {
    match event.code {
        event::TRACE_TO_LXC => format!("-> endpoint {}", event.endpoint),
        event::TRACE_TO_PROXY => "-> proxy".into(),
        event::TRACE_TO_HOST => "-> host from".into(),
        event::TRACE_TO_STACK => "-> stack".into(),
        event::TRACE_TO_OVERLAY => "-> overlay".into(),
        event::TRACE_TO_NETWORK => "-> network".into(),
        event::TRACE_FROM_LXC => format!("<- endpoint {}", event.endpoint),
        event::TRACE_FROM_PROXY => "<- proxy".into(),
        event::TRACE_FROM_HOST => "<- host".into(),
        event::TRACE_FROM_STACK => "<- stack".into(),
        event::TRACE_FROM_OVERLAY => "<- overlay".into(),
        event::TRACE_FROM_NETWORK => "<- network".into(),
        other => format!("at {other}"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_record_becomes_a_line() {
        let v4 = |text: &str| [abi::V4::from(text.parse::<std::net::Ipv4Addr>().unwrap()).0, 0, 0, 0];
        let event = Event {
            source: v4("10.0.0.1"),
            destination: v4("10.0.0.2"),
            source_identity: 1000,
            destination_identity: abi::identity::WORLD,
            kind: event::KIND_DROP,
            code: 133,
            ip_version: 4,
            protocol: 6,
            tcp_flags: 2,
            endpoint: 7,
            source_port: abi::Port::new(4000),
            destination_port: abi::Port::new(80),
            ..Event::default()
        };
        let record: String = abi::bytes_of(&event).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(parse(&record), Some(event));
        assert_eq!(parse("00"), None);
        let text = "xx drop (Policy denied) flow 0x0 to endpoint 7, ifindex 0, identity 1000->world: 10.0.0.1:4000 -> 10.0.0.2:80 tcp SYN";
        assert_eq!(line(&event, "7", Style::default()), text);
        let numeric = line(&event, "7", Style { numeric: true, verbose: true });
        assert!(numeric.contains("identity 1000->2: ") && numeric.contains(" rule-set "), "{numeric}");
        let only = Filter { types: vec![EventType::Trace], ..Filter::default() };
        assert!(!only.shows(&event) && Filter::default().shows(&event));
        let party = |endpoint| agent_api::LogParty { endpoint, ..Default::default() };
        let log = agent_api::LogRecord { source: party(7), destination: party(8), ..Default::default() };
        let l7 = Filter { types: vec![EventType::L7], from: vec![7], related: vec![8], to: vec![8] };
        assert!(l7.shows_log(&log) && !only.shows_log(&log) && !l7.shows(&event));
        assert!(!Filter { from: vec![8], ..Filter::default() }.shows_log(&log));
    }

    #[test]
    fn from_and_to_tell_the_directions_apart() {
        let event = |kind, direction, code| Event { kind, direction, code, endpoint: 7, ..Event::default() };
        let (from, to) = (Filter { from: vec![7], ..Filter::default() }, Filter { to: vec![7], ..Filter::default() });
        for (event, goes_in) in [
            (event(event::KIND_DROP, policy::DIR_EGRESS, 133), false),
            (event(event::KIND_DROP, policy::DIR_INGRESS, 133), true),
            (event(event::KIND_POLICY_VERDICT, policy::DIR_INGRESS, 0), true),
            (event(event::KIND_TRACE, event::DIR_UNKNOWN, event::TRACE_TO_LXC), true),
            (event(event::KIND_TRACE, event::DIR_UNKNOWN, event::TRACE_TO_STACK), false),
        ] {
            assert_eq!((from.shows(&event), to.shows(&event)), (!goes_in, goes_in), "{event:?}");
            assert!(!Filter { related: vec![8], ..Filter::default() }.shows(&event));
        }
    }
}
