//! Which packet does an ICMP error quote?

use crate::env::Env;
use crate::family::Family;
use crate::packet::{Packet, SCTP, Shape, TCP, UDP};
use abi::{Port, V4, V6};

/// Reads the quoted packet's addresses and ports into `inner`. A quoted fragment after the first, or one with extension headers, says
/// too little.
#[inline(always)]
pub fn parse<A: Family, E: Env>(env: &E, outer: &Packet<A>, inner: &mut Packet<A>) -> Option<()> {
    let at = outer.quoted;
    let first: u8 = env.load_at(at)?;
    let (protocol, l4): (u8, u32) = if A::VERSION == 4 {
        let fragment: u16 = env.load_at(at + 6)?;
        if first >> 4 != 4 || u16::from_be(fragment) & 0x1fff != 0 {
            return None;
        }
        (env.load_at(at + 9)?, at + ((first & 0x0f) as u32) * 4)
    } else {
        if first >> 4 != 6 {
            return None;
        }
        (env.load_at(at + 6)?, at + 40)
    };
    let (source, destination) = A::quoted_addresses(env, at)?;
    *inner = Packet {
        source,
        destination,
        protocol,
        l4,
        shape: Shape::PLAIN,
        source_port: Port(0),
        destination_port: Port(0),
        tcp_flags: 0,
        later_fragment: 0,
        ..*outer
    };
    match protocol {
        TCP | UDP | SCTP => {
            let [a, b, c, d]: [u8; 4] = env.load_at(l4)?;
            inner.source_port = Port(u16::from_ne_bytes([a, b]));
            inner.destination_port = Port(u16::from_ne_bytes([c, d]));
            inner.shape = Shape::PORTS;
        }
        p if p == A::ICMP => {
            let header: [u8; 8] = env.load_at(l4)?;
            let id = Port(u16::from_ne_bytes([header[4], header[5]]));
            match (A::VERSION, header[0]) {
                (4, 8) | (6, 128) => {
                    inner.source_port = id;
                    inner.shape = Shape::ECHO_REQUEST;
                }
                (4, 0) | (6, 129) => {
                    inner.destination_port = id;
                    inner.shape = Shape::ECHO_REPLY;
                }
                _ => return None,
            }
        }
        _ => return None,
    }
    Some(())
}

/// How the two addresses of a quoted header are read.
pub trait Quoted: Sized {
    /// Source and destination of the header at this offset.
    fn quoted_addresses<E: Env>(env: &E, at: u32) -> Option<(Self, Self)>;
}

impl Quoted for V4 {
    #[inline(always)]
    fn quoted_addresses<E: Env>(env: &E, at: u32) -> Option<(Self, Self)> {
        Some((V4(env.load_at(at + 12)?), V4(env.load_at(at + 16)?)))
    }
}

impl Quoted for V6 {
    #[inline(always)]
    fn quoted_addresses<E: Env>(env: &E, at: u32) -> Option<(Self, Self)> {
        Some((V6(env.load_at(at + 8)?), V6(env.load_at(at + 24)?)))
    }
}
