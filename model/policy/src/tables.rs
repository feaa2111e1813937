//! What do the tables of an endpoint's policy answer?

use std::ops::Range;
use std::sync::Arc;

use abi::Port;
use abi::policy::{CLASS_OTHERS, Class, PREFIX_PROTOCOL, VerdictEntry, VerdictKey};
use identity::NumericIdentity;
use smallvec::SmallVec;

use crate::classes::Classes;
use crate::origin::{Direction, RuleSet};

/// The policy of all endpoints of one identity, as the datapath gets it.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct EndpointPolicy {
    /// Revision of the repository that the tables are of. Later revisions that did not change them hold too.
    pub revision: u64,
    /// True if what comes in must be allowed.
    pub ingress_enforced: bool,
    /// True if what goes out must be allowed.
    pub egress_enforced: bool,
    /// Classes of the identities that some selector selects; all others are of class 0.
    pub classes: Classes,
    /// The rule sets that entries name, sorted by number.
    pub rule_sets: Vec<RuleSet>,
    /// Why these are not the tables of the policies as they are now: rules that cannot be put together. The tables are
    /// the last ones that could be made, or closed ones.
    pub error: Option<Arc<str>>,
    /// The entries.
    pub(crate) entries: Entries,
}

/// Entries in order, and where those of each length of prefix lie.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Entries {
    /// Sorted by key, which begins with the length of the prefix.
    sorted: Vec<(VerdictKey, VerdictEntry)>,
    /// The longest first.
    lengths: SmallVec<[(u32, Range<usize>); 4]>,
}

impl Entries {
    /// These entries, sorted by key.
    pub fn new(sorted: Vec<(VerdictKey, VerdictEntry)>) -> Self {
        let mut lengths: SmallVec<[(u32, Range<usize>); 4]> = SmallVec::new();
        for same in sorted.chunk_by(|(one, _), (next, _)| one.prefix_len == next.prefix_len) {
            let begin = lengths.last().map_or(0, |(_, range)| range.end);
            lengths.extend(same.first().map(|(key, _)| (key.prefix_len, begin..begin + same.len())));
        }
        lengths.reverse();
        Entries { sorted, lengths }
    }
}

impl EndpointPolicy {
    /// The entries, sorted by key.
    pub fn verdicts(&self) -> &[(VerdictKey, VerdictEntry)] {
        &self.entries.sorted
    }

    /// Adds the entries of a class, as a change tells of them.
    pub fn add_verdicts(&mut self, verdicts: impl IntoIterator<Item = (VerdictKey, VerdictEntry)>) {
        let mut all = std::mem::take(&mut self.entries.sorted);
        all.extend(verdicts);
        all.sort_by_key(|(key, _)| *key);
        self.entries = Entries::new(all);
    }

    /// True if traffic in this direction must be allowed.
    pub fn enforced(&self, direction: Direction) -> bool {
        match direction {
            Direction::Ingress => self.ingress_enforced,
            Direction::Egress => self.egress_enforced,
        }
    }

    /// The class of a peer.
    pub fn class(&self, peer: NumericIdentity) -> Class {
        self.classes.get(peer).unwrap_or(CLASS_OTHERS)
    }

    /// What the tables answer, as the datapath asks them: the peer's class, then the longest prefix. `port` is the
    /// destination port, or the message type of ICMP and ICMPv6. An entry of zeros denies, should there be none.
    pub fn verdict(&self, peer: NumericIdentity, direction: Direction, protocol: u8, port: u16) -> VerdictEntry {
        let class = self.class(peer);
        for (prefix_len, range) in &self.entries.lengths {
            let (protocol, bits) = match prefix_len.checked_sub(PREFIX_PROTOCOL) {
                Some(bits) => (protocol, bits),
                None => (0, 0),
            };
            let key = (class, direction.number(), protocol, Port::new(masked(port, bits as u8)));
            let entries = &self.entries.sorted[range.clone()];
            let found = entries
                .binary_search_by_key(&key, |(known, _)| (known.class, known.direction, known.protocol, known.port));
            if let Ok(at) = found {
                return entries[at].1;
            }
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
