//! Where is a packet's state kept while it is judged? Outside of the kernel's small stack, in memory of the processor's own.
//!
//! That also keeps the kernel's verifier from following every combination of what it would know of values on the stack.

use crate::packet::Packet;
use crate::road::Road;
use abi::{V4, V6};

/// The state of one packet on its road. What an earlier packet left in it means nothing.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Work<A> {
    /// The packet, as read from its headers.
    pub packet: Packet<A>,
    /// Whence, whither, and what is to be told of it.
    pub road: Road,
    /// The packet that an ICMP error quotes.
    pub quoted: Packet<A>,
}

abi::plain!(Work<V4>: Packet<V4>, Road, Packet<V4>);
abi::plain!(Work<V6>: Packet<V6>, Road, Packet<V6>);
