//! Which bytes does a pod send? TCP in IPv4 or IPv6, from the client pod to the server pod or back.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::node::remote_addresses;
use crate::topology::{Pod, Topology};
use crate::workload::PORT_CONNECT;

/// Opens a connection.
pub const SYN: u8 = 0x02;
/// Answers that.
pub const SYN_ACK: u8 = 0x12;
/// Everything afterwards.
pub const ACK: u8 = 0x10;

const PORT_DENIED: u16 = 9;

/// IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A segment from the client pod's port to the server pod.
pub fn to_server(topology: &Topology, family: Family, port: u16, flags: u8) -> Vec<u8> {
    segment((&topology.client, port), (addresses(&topology.server), PORT_CONNECT), family, flags)
}

/// The same to the pod of another node.
pub fn to_remote(topology: &Topology, family: Family, port: u16, flags: u8) -> Vec<u8> {
    segment((&topology.client, port), (remote_addresses(), PORT_CONNECT), family, flags)
}

/// A segment from the client pod to a port of the server pod that no policy allows.
pub fn denied(topology: &Topology, family: Family, port: u16) -> Vec<u8> {
    segment((&topology.client, port), (addresses(&topology.server), PORT_DENIED), family, SYN)
}

/// A segment from the server pod to the client pod's port.
pub fn to_client(topology: &Topology, family: Family, port: u16, flags: u8) -> Vec<u8> {
    segment((&topology.server, PORT_CONNECT), (addresses(&topology.client), port), family, flags)
}

type Addresses = (Ipv4Addr, Ipv6Addr);

fn addresses(pod: &Pod) -> Addresses {
    (pod.v4, pod.v6)
}

fn segment((from, source): (&Pod, u16), (to, destination): (Addresses, u16), family: Family, flags: u8) -> Vec<u8> {
    let mut packet = Vec::with_capacity(74);
    packet.extend(from.node_mac);
    packet.extend(from.mac);
    match family {
        Family::V4 => packet.extend(ipv4(from.v4.octets(), to.0.octets())),
        Family::V6 => packet.extend(ipv6(from.v6.octets(), to.1.octets())),
    }
    packet.extend(source.to_be_bytes());
    packet.extend(destination.to_be_bytes());
    packet.extend([0, 0, 0, 1, 0, 0, 0, 1, 5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
    packet
}

/// EtherType and header for 20 bytes of TCP.
fn ipv4(from: [u8; 4], to: [u8; 4]) -> Vec<u8> {
    let mut header = vec![0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0];
    header.extend(from);
    header.extend(to);
    let checksum = checksum(&header);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    [&[0x08, 0x00], &header[..]].concat()
}

fn ipv6(from: [u8; 16], to: [u8; 16]) -> Vec<u8> {
    [&[0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, 6, 64][..], &from, &to].concat()
}

/// RFC 1071.
fn checksum(header: &[u8]) -> u16 {
    let words = header.chunks_exact(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])));
    let sum: u32 = words.sum();
    !((sum & 0xffff) + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_sums_to_zero_with_its_checksum() {
        let packet = ipv4([10, 244, 0, 1], [10, 244, 0, 2]);
        assert_eq!(checksum(&packet[2..]), 0);
        assert_eq!(packet.len(), 22);
        assert_eq!(ipv6([1; 16], [2; 16]).len(), 42);
    }
}
