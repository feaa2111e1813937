//! What does a policy decide? Two exact steps: identity to peer class, then class, direction, protocol and port to entry.
//!
//! Both tables of a policy lie in a slot of an array of maps; the slot is built aside and switched by the one store of
//! an [`EndpointPolicy`](crate::endpoint::EndpointPolicy). Precedence (deny, tiers, L7) is resolved when the table is
//! built: the longest matching prefix is the answer, and there always is one, because each class has an entry for
//! each direction without protocol and port.

use crate::shared::{Counter, Shared};
use crate::{Port, identity::Identity};

/// Set of identities that a policy does not tell apart.
pub type Class = u32;
/// The class of every identity that has no entry: those that no peer selector of the policy matches.
pub const CLASS_OTHERS: Class = 0;

/// Inner key of `cilium_policy_classes`.
pub type ClassKey = Identity;

/// Direction of traffic, seen from the endpoint that the policy is for.
pub const DIR_INGRESS: u8 = 0;
/// See [`DIR_INGRESS`].
pub const DIR_EGRESS: u8 = 1;

/// Inner key of `cilium_policy_verdicts`, an LPM trie.
///
/// ICMP and ICMPv6 have the message type in place of the port, as a 16 bit number. Protocols without ports have port 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(C)]
pub struct VerdictKey {
    /// Significant bits: [`PREFIX_ANY_PROTOCOL`], [`PREFIX_PROTOCOL`] or that plus 1 to 16 bits of the port.
    pub prefix_len: u32,
    /// Peer class.
    pub class: Class,
    /// [`DIR_INGRESS`] or [`DIR_EGRESS`].
    pub direction: u8,
    /// IP protocol number; 0 with [`PREFIX_ANY_PROTOCOL`].
    pub protocol: u8,
    /// Destination port.
    pub port: Port,
}

crate::plain!(VerdictKey: u32, Class, u8, u8, Port);

/// Any protocol and port.
pub const PREFIX_ANY_PROTOCOL: u32 = 32 + 8;
/// Any port of a protocol.
pub const PREFIX_PROTOCOL: u32 = 32 + 8 + 8;
/// One port of a protocol.
pub const PREFIX_FULL: u32 = 32 + 8 + 8 + 16;

/// What to do with a new connection (or one whose policy changed), and who says so.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(C)]
pub struct VerdictEntry {
    /// Which rules decided: number of a rule set, meaningful together with the endpoint's policy. 0: no policy.
    pub rule_set: u32,
    /// `VERDICT_*`.
    pub verdict: u8,
    /// `MATCH_*`.
    pub match_type: u8,
    /// With [`VERDICT_REDIRECT`]: the proxy's port; else 0.
    pub proxy_port: Port,
}

crate::plain!(VerdictEntry: u32, u8, u8, Port);

/// Inner value of `cilium_policy_verdicts`: the verdict, and how often it was the answer.
///
/// What asks is the first packet of a connection, each packet that is denied, and the next packet of a connection whose
/// policy changed. A slot is filled once and then used, so nothing writes the value but the counting.
#[derive(Clone, Debug, Default, PartialEq)]
#[repr(C)]
pub struct CountedVerdict {
    /// The verdict.
    pub entry: VerdictEntry,
    /// Seconds since boot at which it was last asked for; of no meaning as long as `packets` is 0.
    pub last: Shared<u32>,
    /// Always zero.
    pub pad: u32,
    /// Packets that asked.
    pub packets: Counter,
    /// Their bytes.
    pub bytes: Counter,
}

crate::plain!(CountedVerdict: VerdictEntry, Shared<u32>, u32, Counter, Counter);

impl CountedVerdict {
    /// Notes a packet that asked.
    #[inline(always)]
    pub fn count(&self, now: u32, bytes: u32) {
        self.last.set(now);
        self.packets.add(1);
        self.bytes.add(bytes as u64);
    }
}

impl From<VerdictEntry> for CountedVerdict {
    /// Not asked for so far.
    fn from(entry: VerdictEntry) -> Self {
        CountedVerdict { entry, ..CountedVerdict::default() }
    }
}

/// Nothing allows it: dropped with reason "Policy denied".
pub const VERDICT_DEFAULT_DENY: u8 = 0;
/// A deny rule forbids it: dropped with reason "Policy denied by denylist".
pub const VERDICT_DENY: u8 = 1;
/// Allowed.
pub const VERDICT_ALLOW: u8 = 2;
/// Allowed if the L7 proxy at `proxy_port` agrees.
pub const VERDICT_REDIRECT: u8 = 3;

/// Nothing matched.
pub const MATCH_NONE: u8 = 0;
/// A rule with peers, without ports.
pub const MATCH_L3_ONLY: u8 = 1;
/// A rule with peers and ports.
pub const MATCH_L3_L4: u8 = 2;
/// A rule with ports for all peers.
pub const MATCH_L4_ONLY: u8 = 3;
/// A rule for everything.
pub const MATCH_ALL: u8 = 4;
/// A rule with peers and a protocol without port.
pub const MATCH_L3_PROTO: u8 = 5;
/// A rule with a protocol without port for all peers.
pub const MATCH_PROTO_ONLY: u8 = 6;
