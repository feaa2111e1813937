//! What does the packet say? Addresses, ports and flags, read once and checked.

use crate::env::{Env, Tables};
use crate::family::Family;
use abi::fragment::{self, FragmentKey, FragmentPorts};
use abi::shared::Shared;
use abi::{DropReason, Port, V4, V6};

/// TCP flags.
pub const FIN: u8 = 1;
/// See [`FIN`].
pub const SYN: u8 = 2;
/// See [`FIN`].
pub const RST: u8 = 4;
/// See [`FIN`].
pub const ACK: u8 = 16;

/// Protocol numbers.
pub const TCP: u8 = 6;
/// See [`TCP`].
pub const UDP: u8 = 17;
/// See [`TCP`].
pub const SCTP: u8 = 132;

/// What stands in place of ports. A number and not an enumeration: see [`Packet`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(transparent)]
pub struct Shape(pub u8);

impl Shape {
    /// Another ICMP message, or a protocol without ports.
    pub const PLAIN: Shape = Shape(0);
    /// Ports, as in TCP, UDP and SCTP.
    pub const PORTS: Shape = Shape(1);
    /// An echo request; its identifier is the source port.
    pub const ECHO_REQUEST: Shape = Shape(2);
    /// An echo reply; its identifier is the destination port.
    pub const ECHO_REPLY: Shape = Shape(3);
    /// An ICMP error, which quotes the packet that it is about.
    pub const ERROR: Shape = Shape(4);
}

/// A packet of one family. Plain numbers all through, so that it can lie in a map ([`crate::work::Work`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Packet<A> {
    /// Source address.
    pub source: A,
    /// Destination address.
    pub destination: A,
    /// Offset of the layer 4 header.
    pub l4: u32,
    /// Offset of the quoted packet in an ICMP error.
    pub quoted: u32,
    /// Source port, or the echo identifier of a request.
    pub source_port: Port,
    /// Destination port, or the echo identifier of a reply.
    pub destination_port: Port,
    /// IP protocol number.
    pub protocol: u8,
    /// TCP flags.
    pub tcp_flags: u8,
    /// ICMP type.
    pub icmp_type: u8,
    /// ICMP code.
    pub icmp_code: u8,
    /// What the ports are.
    pub shape: Shape,
    /// 1: a fragment after the first, without a layer 4 header.
    pub later_fragment: u8,
    /// Always zero.
    pub pad: [u8; 6],
}

abi::plain!(Packet<V4>: V4, V4, u32, u32, Port, Port, u8, u8, u8, u8, Shape, u8, [u8; 6]);
abi::plain!(Packet<V6>: V6, V6, u32, u32, Port, Port, u8, u8, u8, u8, Shape, u8, [u8; 6]);

impl<A: Copy> Packet<A> {
    /// What a policy is asked for: the responder's port, or the ICMP type in its place.
    #[inline(always)]
    pub fn asked_port(&self, reply: bool) -> Port {
        match (self.shape, self.protocol) {
            (Shape::PORTS, _) if reply => self.source_port,
            (Shape::PORTS, _) => self.destination_port,
            (Shape::ECHO_REPLY, 1) if reply => Port::new(8),
            (Shape::ECHO_REPLY, 58) if reply => Port::new(128),
            (_, 1 | 58) => Port::new(self.icmp_type as u16),
            _ => Port(0),
        }
    }

    /// Where the layer 4 checksum is, if the packet has one that must follow its addresses, and whether it is UDP's.
    #[inline(always)]
    pub fn checksum(&self) -> Option<(u32, bool)> {
        if self.later_fragment != 0 {
            return None;
        }
        match self.protocol {
            TCP => Some((self.l4 + 16, false)),
            UDP => Some((self.l4 + 6, true)),
            58 => Some((self.l4 + 2, false)),
            _ => None,
        }
    }
}

/// A family's way to read its header.
pub trait Parse: Family {
    /// Reads the packet from the Ethernet header on; says why it cannot be read.
    fn read<E: Env + Tables<Self>>(env: &E, packet: &mut Packet<Self>) -> Result<(), DropReason>;
}

impl Parse for V4 {
    #[inline(never)]
    fn read<E: Env + Tables<Self>>(env: &E, packet: &mut Packet<Self>) -> Result<(), DropReason> {
        let invalid = DropReason::INVALID_PACKET;
        let first: u8 = env.load(14).ok_or(invalid)?;
        let header = ((first & 0x0f) as u32) * 4;
        if first >> 4 != 4 || header < 20 {
            return Err(invalid);
        }
        let fragment = u16::from_be(env.load(14 + 6).ok_or(invalid)?);
        let protocol: u8 = env.load(14 + 9).ok_or(invalid)?;
        let source = V4(env.load(14 + 12).ok_or(invalid)?);
        let destination = V4(env.load(14 + 16).ok_or(invalid)?);
        let l4 = 14 + header;
        let (more, later) = (fragment & 0x2000 != 0, fragment & 0x1fff != 0);
        *packet = blank(source, destination, protocol, l4);
        if later {
            if protocol == TCP && fragment & 0x1fff == 1 {
                // would lie over the flags of the first one (RFC 1858)
                return Err(DropReason::INVALID_PACKET);
            }
            let id: u16 = env.load(14 + 4).ok_or(invalid)?;
            return later_fragment(env, packet, id as u32);
        }
        layer4(env, packet)?;
        if more {
            let id: u16 = env.load(14 + 4).ok_or(invalid)?;
            first_fragment(env, packet, id as u32)?;
        }
        Ok(())
    }
}

/// Extension headers that are walked through before the chain counts as hostile.
const CHAIN: u32 = 6;

impl Parse for V6 {
    #[inline(never)]
    fn read<E: Env + Tables<Self>>(env: &E, packet: &mut Packet<Self>) -> Result<(), DropReason> {
        let invalid = DropReason::INVALID_PACKET;
        let first: u8 = env.load(14).ok_or(invalid)?;
        if first >> 4 != 6 {
            return Err(invalid);
        }
        let source = V6(env.load(14 + 8).ok_or(invalid)?);
        let destination = V6(env.load(14 + 24).ok_or(invalid)?);
        let mut next: u8 = env.load(14 + 6).ok_or(invalid)?;
        let mut l4: u32 = 14 + 40;
        let (mut more, mut later, mut id) = (false, false, 0u32);
        let mut i = 0;
        while i < CHAIN {
            match next {
                0 | 43 | 60 | 135 => {
                    let [following, length]: [u8; 2] = env.load_at(l4).ok_or(DropReason::INVALID_EXTHDR)?;
                    next = following;
                    l4 += (length as u32 + 1) * 8;
                }
                51 => {
                    let [following, length]: [u8; 2] = env.load_at(l4).ok_or(DropReason::INVALID_EXTHDR)?;
                    next = following;
                    l4 += (length as u32 + 2) * 4;
                }
                44 => {
                    let header: [u8; 8] = env.load_at(l4).ok_or(DropReason::INVALID_EXTHDR)?;
                    let offset = u16::from_be_bytes([header[2], header[3]]);
                    next = header[0];
                    more = offset & 1 != 0;
                    later = offset & 0xfff8 != 0;
                    id = u32::from_ne_bytes([header[4], header[5], header[6], header[7]]);
                    l4 += 8;
                    if matches!(next, 0 | 43 | 44 | 51 | 60 | 135) {
                        // which ports a later fragment has would be anybody's guess
                        return Err(DropReason::INVALID_EXTHDR);
                    }
                    if later && next == TCP && offset >> 3 == 1 {
                        return Err(DropReason::INVALID_PACKET);
                    }
                    break;
                }
                _ => break,
            }
            i += 1;
        }
        if matches!(next, 0 | 43 | 44 | 51 | 60 | 135) && !later {
            return Err(DropReason::INVALID_EXTHDR);
        }
        // from here on the verifier does not care how many headers there were
        let [l4, fragment, next] = env.opaque([l4, more as u32 | (later as u32) << 1, next as u32]);
        *packet = blank(source, destination, next as u8, l4);
        if fragment & 2 != 0 {
            return later_fragment(env, packet, id);
        }
        layer4(env, packet)?;
        if fragment & 1 != 0 {
            first_fragment(env, packet, id)?;
        }
        Ok(())
    }
}

#[inline(always)]
fn blank<A: Default>(source: A, destination: A, protocol: u8, l4: u32) -> Packet<A> {
    Packet { source, destination, protocol, l4, ..Packet::default() }
}

/// Reads ports, flags or ICMP type.
#[inline(always)]
fn layer4<A: Family, E: Env>(env: &E, packet: &mut Packet<A>) -> Result<(), DropReason> {
    let truncated = DropReason::CT_INVALID_HDR;
    match packet.protocol {
        TCP | UDP | SCTP => {
            packet.shape = Shape::PORTS;
            let [ports, flags] = match packet.protocol {
                TCP => {
                    let [ports, _, _, flags]: [u32; 4] = near(env, packet, truncated)?;
                    [ports, flags]
                }
                _ => near(env, packet, truncated)?,
            };
            let [a, b, c, d] = ports.to_ne_bytes();
            packet.source_port = Port(u16::from_ne_bytes([a, b]));
            packet.destination_port = Port(u16::from_ne_bytes([c, d]));
            if packet.protocol == TCP {
                packet.tcp_flags = flags.to_ne_bytes()[1];
            }
        }
        p if p == A::ICMP => icmp(env, packet)?,
        _ => {}
    }
    Ok(())
}

/// The beginning of the layer 4 header; without a helper where it lies as usual.
#[inline(always)]
fn near<A: Family, E: Env, const N: usize>(
    env: &E,
    packet: &Packet<A>,
    otherwise: DropReason,
) -> Result<[u32; N], DropReason>
where
    [u32; N]: Default,
{
    let words: Option<[u32; N]> =
        if packet.l4 == A::USUAL_L4 { env.load(A::USUAL_L4 as usize) } else { env.load_at(packet.l4) };
    words.ok_or(otherwise)
}

#[inline(always)]
fn icmp<A: Family, E: Env>(env: &E, packet: &mut Packet<A>) -> Result<(), DropReason> {
    let header: [u8; 8] = env.load_at(packet.l4).ok_or(DropReason::CT_INVALID_HDR)?;
    packet.icmp_type = header[0];
    packet.icmp_code = header[1];
    let id = Port(u16::from_ne_bytes([header[4], header[5]]));
    let (request, reply) = if A::VERSION == 4 { (8, 0) } else { (128, 129) };
    if header[0] == request {
        packet.source_port = id;
        packet.shape = Shape::ECHO_REQUEST;
    } else if header[0] == reply {
        packet.destination_port = id;
        packet.shape = Shape::ECHO_REPLY;
    } else if (A::VERSION == 4 && matches!(header[0], 3 | 11 | 12)) || (A::VERSION == 6 && header[0] < 128) {
        packet.shape = Shape::ERROR;
        packet.quoted = packet.l4 + 8;
    }
    Ok(())
}

/// The ports of a later fragment are those of the first, if that was seen.
#[inline(always)]
fn later_fragment<A: Family, E: Tables<A> + Env>(env: &E, packet: &mut Packet<A>, id: u32) -> Result<(), DropReason> {
    let key = FragmentKey {
        source: packet.source,
        destination: packet.destination,
        id,
        protocol: packet.protocol,
        pad: [0; 3],
    };
    let Some(ports) = env.fragment(&key) else { return Err(DropReason::FRAG_NOT_FOUND) };
    if ports.expires.get() < env.seconds() {
        return Err(DropReason::FRAG_NOT_FOUND);
    }
    packet.source_port = ports.source_port;
    packet.destination_port = ports.destination_port;
    packet.later_fragment = 1;
    packet.shape = match packet.protocol {
        TCP | UDP | SCTP => Shape::PORTS,
        p if p == A::ICMP && ports.source_port.0 != 0 => Shape::ECHO_REQUEST,
        p if p == A::ICMP => Shape::ECHO_REPLY,
        _ => Shape::PLAIN,
    };
    if packet.protocol == A::ICMP {
        let request = packet.shape == Shape::ECHO_REQUEST;
        packet.icmp_type = match (A::VERSION, request) {
            (4, true) => 8,
            (4, false) => 0,
            (_, true) => 128,
            (_, false) => 129,
        };
    }
    Ok(())
}

#[inline(always)]
fn first_fragment<A: Family, E: Tables<A> + Env>(env: &E, packet: &Packet<A>, id: u32) -> Result<(), DropReason> {
    let key = FragmentKey {
        source: packet.source,
        destination: packet.destination,
        id,
        protocol: packet.protocol,
        pad: [0; 3],
    };
    let ports = FragmentPorts {
        source_port: packet.source_port,
        destination_port: packet.destination_port,
        expires: Shared::new(env.seconds() + fragment::LIFETIME),
    };
    if env.fragment_insert(&key, &ports) { Ok(()) } else { Err(DropReason::FRAG_NOSUPPORT) }
}

abi::plain!(Shape: u8);
