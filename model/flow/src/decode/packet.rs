//! What of a packet's headers goes into a flow?

use abi::event::{self, Event};

use super::icmp;
use crate::{
    proto::flow::{Ethernet, IcmPv4, IcmPv6, Igmp, Ip, IpVersion, Layer4, Sctp, Tcp, TcpFlags, Udp, layer4::Protocol},
    record::addresses,
};

const ICMP: u8 = 1;
const IGMP: u8 = 2;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const SCTP: u8 = 132;

pub(super) struct Packet {
    pub ethernet: Option<Ethernet>,
    pub ip: Option<Ip>,
    pub l4: Option<Layer4>,
    pub summary: String,
}

pub(super) fn decode(event: &Event) -> Packet {
    let ip = ip(event);
    let (protocol, summary) = match (&ip, has_l4(event)) {
        (None, _) => (None, "Ethernet".to_owned()),
        (Some(_), true) => l4(event),
        (Some(_), false) => (None, network_layer(event)),
    };
    let l4 = protocol.map(|protocol| Layer4 { protocol: Some(protocol) });
    Packet { ethernet: ethernet(event), ip, l4, summary }
}

/// Source and destination port, of protocols that have ports.
pub(super) fn ports(event: &Event) -> Option<(u16, u16)> {
    let with_ports = has_l4(event) && matches!(event.protocol, TCP | UDP | SCTP);
    with_ports.then(|| (event.source_port.number(), event.destination_port.number()))
}

fn has_l4(event: &Event) -> bool {
    matches!(event.ip_version, 4 | 6) && event.flags & event::FLAG_FRAGMENT == 0
}

fn network_layer(event: &Event) -> String {
    if event.ip_version == 4 { "IPv4".to_owned() } else { "IPv6".to_owned() }
}

fn ip(event: &Event) -> Option<Ip> {
    let (source, destination) = addresses(event)?;
    let version = if event.ip_version == 4 { IpVersion::IPv4 } else { IpVersion::IPv6 };
    Some(Ip {
        source: source.to_string(),
        destination: destination.to_string(),
        ip_version: version.into(),
        ..Ip::default()
    })
}

/// Packets of devices without link layer have no addresses there.
fn ethernet(event: &Event) -> Option<Ethernet> {
    let (source, destination) = (event.source_mac.0, event.destination_mac.0);
    if source == [0; 6] && destination == [0; 6] {
        return None;
    }
    Some(Ethernet { source: mac(source), destination: mac(destination) })
}

fn l4(event: &Event) -> (Option<Protocol>, String) {
    let (source_port, destination_port) =
        (u32::from(event.source_port.number()), u32::from(event.destination_port.number()));
    let [icmp_type, icmp_code] = event.source_port.0.to_ne_bytes();
    let (kind, code) = (u32::from(icmp_type), u32::from(icmp_code));
    match (event.protocol, event.ip_version) {
        (TCP, _) => {
            let flags = tcp_flags(event.tcp_flags);
            let summary = format!("TCP Flags: {}", tcp_summary(&flags));
            (Some(Protocol::Tcp(Tcp { source_port, destination_port, flags: Some(flags) })), summary)
        }
        (UDP, _) => (Some(Protocol::Udp(Udp { source_port, destination_port })), "UDP".to_owned()),
        (SCTP, _) => {
            let message = Sctp { source_port, destination_port, chunk_type: 0 };
            (Some(Protocol::Sctp(message)), "SCTP".to_owned())
        }
        (ICMP, 4) => (
            Some(Protocol::IcmPv4(IcmPv4 { r#type: kind, code })),
            format!("ICMPv4 {}", icmp::name_v4(icmp_type, icmp_code)),
        ),
        (ICMPV6, 6) => (
            Some(Protocol::IcmPv6(IcmPv6 { r#type: kind, code })),
            format!("ICMPv6 {}", icmp::name_v6(icmp_type, icmp_code)),
        ),
        (IGMP, 4) => (Some(Protocol::Igmp(Igmp { r#type: kind, group_address: String::new() })), "IGMP".to_owned()),
        _ => (None, network_layer(event)),
    }
}

fn tcp_flags(bits: u8) -> TcpFlags {
    let bit = |n: u8| bits & (1 << n) != 0;
    TcpFlags {
        fin: bit(0),
        syn: bit(1),
        rst: bit(2),
        psh: bit(3),
        ack: bit(4),
        urg: bit(5),
        ece: bit(6),
        cwr: bit(7),
        ns: false,
    }
}

fn tcp_summary(flags: &TcpFlags) -> String {
    let named = [
        (flags.syn, "SYN"),
        (flags.ack, "ACK"),
        (flags.rst, "RST"),
        (flags.fin, "FIN"),
        (flags.psh, "PSH"),
        (flags.urg, "URG"),
        (flags.ece, "ECE"),
        (flags.cwr, "CWR"),
        (flags.ns, "NS"),
    ];
    let mut text = String::with_capacity(16);
    for name in named.into_iter().filter_map(|(set, name)| set.then_some(name)) {
        if !text.is_empty() {
            text.push_str(", ");
        }
        text.push_str(name);
    }
    text
}

const HEX: &[u8; 16] = b"0123456789abcdef";

fn push_hex(text: &mut String, byte: u8) {
    text.push(char::from(HEX[usize::from(byte >> 4)]));
    text.push(char::from(HEX[usize::from(byte & 15)]));
}

fn mac(bytes: [u8; 6]) -> String {
    let mut text = String::with_capacity(17);
    for (index, byte) in bytes.into_iter().enumerate() {
        if index > 0 {
            text.push(':');
        }
        push_hex(&mut text, byte);
    }
    text
}

/// The usual form in five groups.
pub(super) fn uuid(bits: u128) -> String {
    let mut text = String::with_capacity(36);
    for (index, byte) in bits.to_be_bytes().into_iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        push_hex(&mut text, byte);
    }
    text
}
