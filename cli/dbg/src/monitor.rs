//! How does an event of the datapath look as a line of text?

use std::net::{IpAddr, SocketAddr};

use abi::event::{self, Event};
use abi::{DropReason, policy};

/// Which events are shown.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// `drop`, `trace`, `policy-verdict`; none: all.
    pub types: Vec<String>,
    /// Seen at or going to one of these endpoints.
    pub related: Vec<u32>,
    /// Seen at one of these endpoints.
    pub from: Vec<u32>,
    /// Show all fields.
    pub verbose: bool,
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
        let name = match event.kind {
            event::KIND_DROP => "drop",
            event::KIND_TRACE => "trace",
            event::KIND_POLICY_VERDICT => "policy-verdict",
            _ => "debug",
        };
        let of = |wanted: &Vec<u32>| wanted.is_empty() || wanted.contains(&event.endpoint);
        (self.types.is_empty() || self.types.iter().any(|t| t == name)) && of(&self.related) && of(&self.from)
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

fn identities(event: &Event) -> String {
    let name = |id| match id {
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
pub fn line(event: &Event, interface: &str, verbose: bool) -> String {
    let more = if verbose {
        format!(
            " [time {} length {} rule-set {} revision {}]",
            event.time, event.length, event.rule_set, event.revision
        )
    } else {
        String::new()
    };
    let (who, what) = (identities(event), connection(event));
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
        assert_eq!(line(&event, "7", false), text);
        let only = Filter { types: vec!["trace".into()], ..Filter::default() };
        assert!(!only.shows(&event) && Filter::default().shows(&event));
    }
}
