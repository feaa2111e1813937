//! What do the tables of an endpoint's policy answer?

use std::collections::BTreeMap;
use std::sync::Arc;

use abi::Port;
use abi::policy::{CLASS_OTHERS, Class, PREFIX_PROTOCOL, VerdictEntry, VerdictKey};
use identity::NumericIdentity;

use crate::origin::{Direction, RuleSet};

/// The policy of all endpoints of one identity, as the datapath gets it.
#[derive(Clone, PartialEq, Debug)]
pub struct EndpointPolicy {
    /// Revision of the repository that the tables are of. Later revisions that did not change them hold too.
    pub revision: u64,
    /// True if what comes in must be allowed.
    pub ingress_enforced: bool,
    /// True if what goes out must be allowed.
    pub egress_enforced: bool,
    /// Classes of the identities that some selector selects; all others are of class 0.
    pub classes: BTreeMap<NumericIdentity, Class>,
    /// The entries, sorted by key.
    pub verdicts: Vec<(VerdictKey, VerdictEntry)>,
    /// The rule sets that entries name, sorted by number.
    pub rule_sets: Vec<RuleSet>,
    /// Why these are not the tables of the policies as they are now: rules that cannot be put together. The tables are
    /// the last ones that could be made, or closed ones.
    pub error: Option<Arc<str>>,
}

impl EndpointPolicy {
    /// True if traffic in this direction must be allowed.
    pub fn enforced(&self, direction: Direction) -> bool {
        match direction {
            Direction::Ingress => self.ingress_enforced,
            Direction::Egress => self.egress_enforced,
        }
    }

    /// The class of a peer.
    pub fn class(&self, peer: NumericIdentity) -> Class {
        self.classes.get(&peer).copied().unwrap_or(CLASS_OTHERS)
    }

    /// What the tables answer, as the datapath asks them: the peer's class, then the longest prefix. `port` is the
    /// destination port, or the message type of ICMP and ICMPv6. An entry of zeros denies, should there be none.
    pub fn verdict(&self, peer: NumericIdentity, direction: Direction, protocol: u8, port: u16) -> VerdictEntry {
        let class = self.class(peer);
        // The entries are sorted by the length of their prefix: only lengths that there are need to be asked.
        let mut rest = self.verdicts.as_slice();
        while let Some((last, _)) = rest.last() {
            let prefix_len = last.prefix_len;
            let (protocol, bits) = match prefix_len.checked_sub(PREFIX_PROTOCOL) {
                Some(bits) => (protocol, bits),
                None => (0, 0),
            };
            let key = VerdictKey {
                prefix_len,
                class,
                direction: direction.number(),
                protocol,
                port: Port::new(masked(port, bits as u8)),
            };
            if let Ok(at) = rest.binary_search_by(|(known, _)| known.cmp(&key)) {
                return rest[at].1;
            }
            rest = &rest[..rest.partition_point(|(known, _)| known.prefix_len < prefix_len)];
        }
        VerdictEntry::default()
    }

    /// The rule set of an entry.
    pub fn rule_set(&self, id: u32) -> Option<&RuleSet> {
        self.rule_sets.binary_search_by_key(&id, |set| set.id).ok().map(|at| &self.rule_sets[at])
    }
}

/// The first bits of a port.
pub(crate) fn masked(port: u16, bits: u8) -> u16 {
    match bits {
        0 => 0,
        bits => port & (u16::MAX << (16 - bits)),
    }
}
