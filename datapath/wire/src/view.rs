//! What do the headers of a packet say? Every read is checked; a packet that ends too early says less.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use abi::Mac;

use crate::{ETHER_IPV4, ETHER_IPV6, ETHERNET, FRAGMENT, ICMP, ICMPV6, SCTP, TCP, UDP, checksum};

/// Most extension headers that are walked through.
const CHAIN: usize = 8;

/// A packet from the Ethernet header on.
#[derive(Clone, Copy, Debug)]
pub struct View<'a>(&'a [u8]);

/// What the IP header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ip {
    /// Source.
    pub source: IpAddr,
    /// Destination.
    pub destination: IpAddr,
    /// Protocol of layer 4.
    pub protocol: u8,
    /// Where layer 4 begins.
    pub layer4: usize,
    /// Offset of a fragment in bytes, 0 for the first and for whole packets.
    pub fragment_offset: usize,
    /// More fragments follow.
    pub more_fragments: bool,
    /// Where the packet ends, according to its header.
    pub end: usize,
}

/// What the layer 4 header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer4 {
    /// Ports and flags.
    Tcp {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
        /// Flags.
        flags: u8,
    },
    /// Ports.
    Udp {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
    },
    /// Ports.
    Sctp {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
    },
    /// Type, code, and the identifier of an echo.
    Icmp {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
        /// Identifier, meaningful for echoes.
        id: u16,
    },
}

impl<'a> View<'a> {
    /// A view, if there is an Ethernet header at all.
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        (bytes.len() >= ETHERNET).then_some(View(bytes))
    }

    fn get<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.0.get(at..)?.first_chunk::<N>().copied()
    }

    fn half(&self, at: usize) -> Option<u16> {
        self.get(at).map(u16::from_be_bytes)
    }

    /// Destination and source of the frame.
    pub fn macs(&self) -> Option<(Mac, Mac)> {
        Some((Mac(self.get(0)?), Mac(self.get(6)?)))
    }

    /// The EtherType.
    pub fn ether_type(&self) -> Option<u16> {
        self.half(12)
    }

    /// The IP header.
    pub fn ip(&self) -> Option<Ip> {
        match self.ether_type()? {
            ETHER_IPV4 => self.ipv4(),
            ETHER_IPV6 => self.ipv6(),
            _ => None,
        }
    }

    fn ipv4(&self) -> Option<Ip> {
        let [first] = self.get(ETHERNET)?;
        let header = usize::from(first & 0x0f) * 4;
        if first >> 4 != 4 || header < 20 {
            return None;
        }
        let fragment = self.half(ETHERNET + 6)?;
        Some(Ip {
            source: Ipv4Addr::from(self.get::<4>(ETHERNET + 12)?).into(),
            destination: Ipv4Addr::from(self.get::<4>(ETHERNET + 16)?).into(),
            protocol: self.get::<1>(ETHERNET + 9)?[0],
            layer4: ETHERNET + header,
            fragment_offset: usize::from(fragment & 0x1fff) * 8,
            more_fragments: fragment & 0x2000 != 0,
            end: ETHERNET + usize::from(self.half(ETHERNET + 2)?),
        })
    }

    fn ipv6(&self) -> Option<Ip> {
        if self.get::<1>(ETHERNET)?[0] >> 4 != 6 {
            return None;
        }
        let mut ip = Ip {
            source: Ipv6Addr::from(self.get::<16>(ETHERNET + 8)?).into(),
            destination: Ipv6Addr::from(self.get::<16>(ETHERNET + 24)?).into(),
            protocol: self.get::<1>(ETHERNET + 6)?[0],
            layer4: ETHERNET + 40,
            fragment_offset: 0,
            more_fragments: false,
            end: ETHERNET + 40 + usize::from(self.half(ETHERNET + 4)?),
        };
        for _ in 0..CHAIN {
            let [next, length] = match ip.protocol {
                0 | 43 | 60 | 135 | 51 | FRAGMENT => self.get(ip.layer4)?,
                _ => return Some(ip),
            };
            let size = match ip.protocol {
                FRAGMENT => {
                    let offset = self.half(ip.layer4 + 2)?;
                    ip.fragment_offset = usize::from(offset & !7);
                    ip.more_fragments = offset & 1 != 0;
                    8
                }
                51 => (usize::from(length) + 2) * 4,
                _ => (usize::from(length) + 1) * 8,
            };
            ip.protocol = next;
            ip.layer4 += size;
        }
        None
    }

    /// The layer 4 header; nothing in fragments after the first.
    pub fn layer4(&self) -> Option<Layer4> {
        let ip = self.ip()?;
        if ip.fragment_offset != 0 {
            return None;
        }
        let at = ip.layer4;
        match ip.protocol {
            TCP => Some(Layer4::Tcp {
                source: self.half(at)?,
                destination: self.half(at + 2)?,
                flags: self.get::<1>(at + 13)?[0],
            }),
            UDP => Some(Layer4::Udp { source: self.half(at)?, destination: self.half(at + 2)? }),
            SCTP => Some(Layer4::Sctp { source: self.half(at)?, destination: self.half(at + 2)? }),
            ICMP | ICMPV6 => {
                let [kind, code] = self.get(at)?;
                Some(Layer4::Icmp { kind, code, id: self.half(at + 4)? })
            }
            _ => None,
        }
    }

    /// Are the checksums of layers 3 and 4 right? Only for whole packets.
    pub fn checksums_hold(&self) -> bool {
        let Some(ip) = self.ip() else { return false };
        let header = self.0.get(ETHERNET..ip.layer4).unwrap_or_default();
        if ip.source.is_ipv4() && checksum::checksum(header, 0) != 0 {
            return false;
        }
        let Some(body) = self.0.get(ip.layer4..ip.end) else { return false };
        match (ip.protocol, body) {
            // no checksum at all
            (UDP, [_, _, _, _, _, _, 0, 0, ..]) if ip.source.is_ipv4() => true,
            (ICMP, _) => checksum::checksum(body, 0) == 0,
            (TCP | UDP | ICMPV6, _) => {
                checksum::checksum(body, pseudo(ip.source, ip.destination, ip.protocol, body.len())) == 0
            }
            _ => true,
        }
    }
}

/// Sum of the pseudo header.
pub fn pseudo(source: IpAddr, destination: IpAddr, protocol: u8, length: usize) -> u16 {
    let add = |initial: u16, addr: IpAddr| match addr {
        IpAddr::V4(a) => checksum::sum(&a.octets(), initial),
        IpAddr::V6(a) => checksum::sum(&a.octets(), initial),
    };
    let addresses = add(add(0, source), destination);
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    checksum::sum(&[0, protocol], checksum::sum(&length.to_be_bytes(), addresses))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200), v6: bool) {
            let mut bytes: Vec<u8> = bytes;
            if bytes.len() > 14 {
                let (kind, version) = if v6 { (ETHER_IPV6, 0x60) } else { (ETHER_IPV4, 0x45) };
                bytes[12..14].copy_from_slice(&kind.to_be_bytes());
                bytes[14] = version;
            }
            if let Some(view) = View::new(&bytes) {
                let _ = (view.macs(), view.ip(), view.layer4(), view.checksums_hold());
            }
        }
    }
}
