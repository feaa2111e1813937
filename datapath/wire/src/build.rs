//! How is a packet written, with right lengths and checksums?

use alloc::vec;
use alloc::vec::Vec;
use core::net::IpAddr;

use abi::Mac;

use crate::checksum::checksum;
use crate::view::pseudo;
use crate::{ETHER_IPV4, ETHER_IPV6, FRAGMENT, ICMP, ICMPV6, TCP, UDP};

/// A packet to be written; what is not said has an ordinary value.
#[derive(Clone, Debug)]
pub struct Frame {
    destination_mac: Mac,
    source_mac: Mac,
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    body: Vec<u8>,
    hop_limit: u8,
    fragment: Option<(u32, u16, bool)>,
    extensions: Vec<(u8, Vec<u8>)>,
    options: Vec<u8>,
}

impl Frame {
    /// Between two addresses of one family; without a body.
    pub fn between(source: impl Into<IpAddr>, destination: impl Into<IpAddr>) -> Self {
        Frame {
            destination_mac: Mac([2, 0, 0, 0, 0, 1]),
            source_mac: Mac([2, 0, 0, 0, 0, 2]),
            source: source.into(),
            destination: destination.into(),
            protocol: 255,
            body: Vec::new(),
            hop_limit: 64,
            fragment: None,
            extensions: Vec::new(),
            options: Vec::new(),
        }
    }

    /// From one Ethernet address to another.
    pub fn macs(mut self, source: Mac, destination: Mac) -> Self {
        (self.source_mac, self.destination_mac) = (source, destination);
        self
    }

    /// TCP with these ports, flags and data.
    pub fn tcp(self, source: u16, destination: u16, flags: u8, data: &[u8]) -> Self {
        let mut body = ports(source, destination);
        body.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        body.extend(data);
        self.with_checksum(TCP, body, 16)
    }

    /// UDP with these ports and data.
    pub fn udp(self, source: u16, destination: u16, data: &[u8]) -> Self {
        let mut body = ports(source, destination);
        body.extend((8 + data.len() as u16).to_be_bytes());
        body.extend([0, 0]);
        body.extend(data);
        self.with_checksum(UDP, body, 6)
    }

    /// ICMP or ICMPv6, whichever belongs to the addresses: type, code, the second word, and data.
    pub fn icmp(self, kind: u8, code: u8, word: u32, data: &[u8]) -> Self {
        let mut body = vec![kind, code, 0, 0];
        body.extend(word.to_be_bytes());
        body.extend(data);
        let protocol = if self.source.is_ipv4() { ICMP } else { ICMPV6 };
        self.with_checksum(protocol, body, 2)
    }

    /// An echo request with this identifier.
    pub fn echo_request(self, id: u16) -> Self {
        let kind = if self.source.is_ipv4() { 8 } else { 128 };
        self.icmp(kind, 0, u32::from(id) << 16 | 1, b"are you there?")
    }

    /// An echo reply with this identifier.
    pub fn echo_reply(self, id: u16) -> Self {
        let kind = if self.source.is_ipv4() { 0 } else { 129 };
        self.icmp(kind, 0, u32::from(id) << 16 | 1, b"are you there?")
    }

    /// Any protocol with these bytes, as they are.
    pub fn raw(mut self, protocol: u8, body: &[u8]) -> Self {
        (self.protocol, self.body) = (protocol, body.to_vec());
        self
    }

    /// Hop limit (time to live).
    pub fn hop_limit(mut self, hop_limit: u8) -> Self {
        self.hop_limit = hop_limit;
        self
    }

    /// IPv4 options; padded to words.
    pub fn options(mut self, options: &[u8]) -> Self {
        self.options = options.to_vec();
        self.options.resize(options.len().next_multiple_of(4), 0);
        self
    }

    /// An IPv6 extension header before layer 4: its protocol number and its bytes from the third on.
    pub fn extension(mut self, protocol: u8, data: &[u8]) -> Self {
        let mut data = data.to_vec();
        data.resize((data.len() + 2).next_multiple_of(8) - 2, 0);
        self.extensions.push((protocol, data));
        self
    }

    /// Splits the packet's body into fragments of at most `size` bytes (a multiple of eight) and writes each.
    pub fn fragments(self, id: u32, size: usize) -> Vec<Vec<u8>> {
        let count = self.body.len().div_ceil(size);
        let parts = self.body.chunks(size).enumerate().map(|(i, part)| {
            let fragment = Some((id, (i * size) as u16, i + 1 < count));
            Frame { body: part.to_vec(), fragment, ..self.clone() }.build()
        });
        parts.collect()
    }

    fn with_checksum(mut self, protocol: u8, mut body: Vec<u8>, at: usize) -> Self {
        let initial = if protocol == ICMP { 0 } else { pseudo(self.source, self.destination, protocol, body.len()) };
        let mut sum = checksum(&body, initial);
        if sum == 0 && protocol == UDP {
            sum = 0xffff;
        }
        body[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        (self.protocol, self.body) = (protocol, body);
        self
    }

    /// The bytes, from the Ethernet header on.
    pub fn build(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(self.destination_mac.0);
        bytes.extend(self.source_mac.0);
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                bytes.extend(ETHER_IPV4.to_be_bytes());
                bytes.extend(self.ipv4_header(source.octets(), destination.octets()));
            }
            (source, destination) => {
                bytes.extend(ETHER_IPV6.to_be_bytes());
                bytes.extend(self.ipv6_header(octets6(source), octets6(destination)));
            }
        }
        bytes.extend(&self.body);
        bytes
    }

    fn ipv4_header(&self, source: [u8; 4], destination: [u8; 4]) -> Vec<u8> {
        let header = 20 + self.options.len();
        let (id, offset, more) = self.fragment.unwrap_or((0, 0, false));
        let mut bytes = vec![0x40 | (header / 4) as u8, 0];
        bytes.extend(((header + self.body.len()) as u16).to_be_bytes());
        bytes.extend((id as u16).to_be_bytes());
        bytes.extend(((offset / 8) | (u16::from(more) << 13)).to_be_bytes());
        bytes.extend([self.hop_limit, self.protocol, 0, 0]);
        bytes.extend(source);
        bytes.extend(destination);
        bytes.extend(&self.options);
        let sum = checksum(&bytes, 0);
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    fn ipv6_header(&self, source: [u8; 16], destination: [u8; 16]) -> Vec<u8> {
        let mut chain: Vec<(u8, Vec<u8>)> = Vec::new();
        for (protocol, data) in &self.extensions {
            let length = ((data.len() + 2) / 8 - 1) as u8;
            chain.push((*protocol, [&[length], data.as_slice()].concat()));
        }
        if let Some((id, offset, more)) = self.fragment {
            let word = (offset & !7) | u16::from(more);
            chain.push((FRAGMENT, [&[0], word.to_be_bytes().as_slice(), &id.to_be_bytes()].concat()));
        }
        let length: usize = chain.iter().map(|(_, data)| data.len() + 1).sum::<usize>() + self.body.len();
        let first = chain.first().map_or(self.protocol, |(protocol, _)| *protocol);
        let mut bytes = vec![0x60, 0, 0, 0];
        bytes.extend((length as u16).to_be_bytes());
        bytes.extend([first, self.hop_limit]);
        bytes.extend(source);
        bytes.extend(destination);
        for (i, (_, data)) in chain.iter().enumerate() {
            bytes.push(chain.get(i + 1).map_or(self.protocol, |(protocol, _)| *protocol));
            bytes.extend(data);
        }
        bytes
    }
}

fn ports(source: u16, destination: u16) -> Vec<u8> {
    [source.to_be_bytes(), destination.to_be_bytes()].concat()
}

fn octets6(addr: IpAddr) -> [u8; 16] {
    match addr {
        IpAddr::V4(a) => a.to_ipv6_mapped().octets(),
        IpAddr::V6(a) => a.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Layer4, View};
    use core::net::{Ipv4Addr, Ipv6Addr};

    fn v4() -> Frame {
        Frame::between(Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2))
    }

    fn v6() -> Frame {
        Frame::between(Ipv6Addr::new(0xfd, 0, 0, 0, 0, 0, 0, 1), Ipv6Addr::new(0xfd, 0, 0, 0, 0, 0, 0, 2))
    }

    #[test]
    fn what_is_written_is_read_again() {
        for frame in [v4().options(&[1, 1, 1]), v6().extension(0, &[1, 0]), v6().extension(60, &[1; 9])] {
            let bytes = frame.tcp(4000, 80, 2, b"x").build();
            let view = View::new(&bytes).expect("a frame");
            assert_eq!(view.layer4(), Some(Layer4::Tcp { source: 4000, destination: 80, flags: 2 }));
            assert!(view.checksums_hold());
            assert_eq!(view.ip().map(|ip| ip.end), Some(bytes.len()));
        }
    }

    #[test]
    fn every_protocol_has_a_right_checksum() {
        for frame in [v4(), v6()] {
            for body in [frame.clone().udp(1, 2, b"abc"), frame.clone().echo_request(7), frame.tcp(1, 2, 16, b"")] {
                assert!(View::new(&body.build()).expect("a frame").checksums_hold());
            }
        }
    }

    #[test]
    fn fragments_carry_their_offsets() {
        for frame in [v4(), v6()] {
            let parts = frame.udp(1, 2, &[9; 100]).fragments(77, 48);
            let seen: Vec<(usize, bool)> = parts
                .iter()
                .filter_map(|part| View::new(part)?.ip().map(|ip| (ip.fragment_offset, ip.more_fragments)))
                .collect();
            assert_eq!(seen, [(0, true), (48, true), (96, false)]);
        }
    }
}
