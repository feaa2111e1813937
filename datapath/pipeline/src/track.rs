//! Is the packet part of a known connection, and in which direction?

use crate::env::Tables;
use crate::family::Family;
use crate::packet::{ACK, FIN, Packet, RST, SYN, Shape, TCP};
use abi::conntrack::{self, CtEntry, CtKey};
use abi::{Port, event};

/// The key of a packet's connection, and whether its sender is `addr_a` of it.
#[inline(always)]
pub fn key<A: Family>(p: &Packet<A>, kind: u8) -> (CtKey<A>, bool) {
    let from_a = kind == conntrack::KIND_SERVICE || from_a(p);
    let (source_port, destination_port) = match p.shape {
        Shape::PORTS | Shape::ECHO_REQUEST | Shape::ECHO_REPLY => (p.source_port, p.destination_port),
        _ => (Port::new(p.icmp_type as u16 + 1), Port(0)),
    };
    let (addr_a, addr_b, port_a, port_b) = if from_a {
        (p.source, p.destination, source_port, destination_port)
    } else {
        (p.destination, p.source, destination_port, source_port)
    };
    (CtKey { addr_a, addr_b, port_a, port_b, protocol: p.protocol, kind, pad: 0 }, from_a)
}

/// Is the sender `addr_a` of the connection's key?
#[inline(always)]
fn from_a<A: Family>(p: &Packet<A>) -> bool {
    match p.shape {
        Shape::ECHO_REQUEST => true,
        Shape::ECHO_REPLY => false,
        Shape::PORTS if p.source == p.destination => p.source_port <= p.destination_port,
        Shape::PORTS => p.source.before(p.destination),
        // other messages have no replies: each direction and type is a connection of its own
        _ => true,
    }
}

/// A packet of a known connection.
pub struct Known<'a> {
    /// The connection.
    pub entry: &'a CtEntry,
    /// The packet goes to the initiator.
    pub reply: bool,
}

/// Finds the live connection of a packet. A packet that begins a connection anew (SYN on a closing one, SYN of the
/// responder) is of none.
#[inline(always)]
pub fn find<'a, A: Family, T: Tables<A>>(tables: &'a T, p: &Packet<A>, kind: u8, now: u32) -> Option<Known<'a>> {
    Some(known(live(tables, p, kind, now)?, p))
}

/// The connection, seen from the packet.
#[inline(always)]
pub fn known<'a, A: Family>(entry: &'a CtEntry, p: &Packet<A>) -> Known<'a> {
    Known { entry, reply: is_reply(entry, p) }
}

/// A function of its own, so that the key is on the stack once. It returns one register: no more is possible there.
#[inline(never)]
pub(crate) fn live<'a, A: Family, T: Tables<A>>(
    tables: &'a T,
    p: &Packet<A>,
    kind: u8,
    now: u32,
) -> Option<&'a CtEntry> {
    let (key, _) = key(p, kind);
    let entry = tables.connection(&key)?;
    if entry.expires.get() < now {
        return None;
    }
    if p.protocol == TCP && p.tcp_flags & (SYN | ACK) == SYN {
        let closing = entry.flags.get() & (conntrack::FLAG_TX_CLOSING | conntrack::FLAG_RX_CLOSING) != 0;
        if closing || is_reply(entry, p) {
            return None;
        }
    }
    Some(entry)
}

/// Does the packet go to the connection's initiator?
#[inline(always)]
pub(crate) fn is_reply<A: Family>(entry: &CtEntry, p: &Packet<A>) -> bool {
    (entry.flags.get() & conntrack::FLAG_INITIATOR_A != 0) != from_a(p)
}

/// Notes the packet in its connection; true if it is worth a trace event.
#[inline(always)]
pub fn touch<A: Family>(known: &Known, p: &Packet<A>, length: u32, now: u32) -> bool {
    let entry = known.entry;
    let side = known.reply as usize;
    let (packets, bytes, seen, reported) = if side == 0 {
        (&entry.packets[0], &entry.bytes[0], &entry.tcp_flags[0], &entry.reported[0])
    } else {
        (&entry.packets[1], &entry.bytes[1], &entry.tcp_flags[1], &entry.reported[1])
    };
    packets.set(packets.get() + 1);
    bytes.set(bytes.get() + length as u64);
    let mut flags = entry.flags.get();
    if p.protocol == TCP {
        if p.tcp_flags & SYN == 0 {
            flags |= conntrack::FLAG_SEEN_NON_SYN;
        }
        if p.tcp_flags & (FIN | RST) != 0 {
            flags |= if known.reply { conntrack::FLAG_RX_CLOSING } else { conntrack::FLAG_TX_CLOSING };
        }
        if p.tcp_flags & RST != 0 {
            flags |= conntrack::FLAG_RX_CLOSING | conntrack::FLAG_TX_CLOSING;
        }
    }
    if known.reply {
        flags |= conntrack::FLAG_SEEN_REPLY;
    }
    if flags != entry.flags.get() {
        entry.flags.set(flags);
    }
    entry.expires.set(now + lifetime(p.protocol, flags));
    let fresh = p.tcp_flags & !seen.get() != 0;
    let due = now.wrapping_sub(reported.get()) > conntrack::REPORT_INTERVAL;
    if fresh {
        seen.set(seen.get() | p.tcp_flags);
    }
    if fresh || due {
        reported.set(now);
    }
    fresh || due
}

#[inline(always)]
fn lifetime(protocol: u8, flags: u32) -> u32 {
    let both = conntrack::FLAG_RX_CLOSING | conntrack::FLAG_TX_CLOSING;
    if protocol != TCP {
        conntrack::LIFETIME_ANY
    } else if flags & both == both {
        conntrack::LIFETIME_CLOSE
    } else if flags & conntrack::FLAG_SEEN_NON_SYN == 0 {
        conntrack::LIFETIME_SYN
    } else {
        conntrack::LIFETIME_TCP
    }
}

/// The state that events carry.
#[inline(always)]
pub fn state(known: Option<&Known>) -> u8 {
    match known {
        None => event::CT_NEW,
        Some(k) if k.reply => event::CT_REPLY,
        Some(_) => event::CT_ESTABLISHED,
    }
}
