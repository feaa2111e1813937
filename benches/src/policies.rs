//! What does a policy with so many entries look like? Peer classes of ten verdicts each, allowed on the benchmarks' ports.

use abi::Port;
use abi::identity::Identity;
use abi::policy::{
    CLASS_OTHERS, Class, DIR_EGRESS, DIR_INGRESS, MATCH_L3_L4, MATCH_NONE, PREFIX_ANY_PROTOCOL, PREFIX_FULL,
    VERDICT_ALLOW, VERDICT_DEFAULT_DENY, VerdictEntry, VerdictKey,
};

use crate::workload::{PORT_CONNECT, PORT_ECHO, PORT_SINK, PORT_UDP};

/// First of the identities that only fill tables.
pub const FIRST_PEER: Identity = 5000;
/// Verdicts of one class: two for everything else, and four ports both ways.
const PER_CLASS: usize = 10;
const IDENTITIES_PER_CLASS: u32 = 4;
const ALLOWED: [(u8, u16); 4] = [(6, PORT_ECHO), (6, PORT_CONNECT), (6, PORT_SINK), (17, PORT_UDP)];

/// Both tables of a policy.
pub struct Tables {
    /// Identity to class.
    pub classes: Vec<(Identity, Class)>,
    /// Class, direction, protocol and port to verdict.
    pub verdicts: Vec<(VerdictKey, VerdictEntry)>,
}

/// A policy with this many verdict entries (to the next ten, besides those of everybody else). The peers belong to the
/// class in the middle.
pub fn tables(entries: usize, peers: &[Identity]) -> Tables {
    let count = entries.div_ceil(PER_CLASS).max(1) as Class;
    let middle = count.div_ceil(2);
    let mut classes: Vec<_> = peers.iter().map(|peer| (*peer, middle)).collect();
    let mut verdicts = base(CLASS_OTHERS).to_vec();
    for class in 1..=count {
        let first = FIRST_PEER + class * IDENTITIES_PER_CLASS;
        classes.extend((first..first + IDENTITIES_PER_CLASS).map(|identity| (identity, class)));
        verdicts.extend(base(class));
        verdicts.extend([DIR_INGRESS, DIR_EGRESS].into_iter().flat_map(|direction| allowed(class, direction)));
    }
    Tables { classes, verdicts }
}

fn base(class: Class) -> [(VerdictKey, VerdictEntry); 2] {
    let denied =
        VerdictEntry { rule_set: 0, verdict: VERDICT_DEFAULT_DENY, match_type: MATCH_NONE, proxy_port: Port(0) };
    [DIR_INGRESS, DIR_EGRESS].map(|direction| {
        let prefix_len = PREFIX_ANY_PROTOCOL;
        (VerdictKey { prefix_len, class, direction, protocol: 0, port: Port(0) }, denied)
    })
}

fn allowed(class: Class, direction: u8) -> [(VerdictKey, VerdictEntry); 4] {
    let verdict =
        VerdictEntry { rule_set: class, verdict: VERDICT_ALLOW, match_type: MATCH_L3_L4, proxy_port: Port(0) };
    ALLOWED.map(|(protocol, port)| {
        let port = Port::new(port);
        (VerdictKey { prefix_len: PREFIX_FULL, class, direction, protocol, port }, verdict)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn a_policy_has_as_many_entries_as_asked_for_besides_the_two_of_everybody_else() {
        for entries in [10, 1_000, 50_000, 131_000] {
            let tables = tables(entries, &[1, 2]);
            let distinct: HashMap<_, _> =
                tables.verdicts.iter().map(|(k, v)| ((k.class, k.direction, k.protocol, k.port.number()), v)).collect();
            assert_eq!((tables.verdicts.len(), distinct.len()), (entries + 2, entries + 2));
        }
    }

    #[test]
    fn the_peers_are_allowed_on_every_port_of_the_benchmarks() {
        let tables = tables(1_000, &[77]);
        let class = tables.classes.iter().find(|(id, _)| *id == 77).unwrap().1;
        let found = tables.verdicts.iter().filter(|(k, v)| k.class == class && v.verdict == VERDICT_ALLOW).count();
        assert_eq!((class, found), (50, 8));
    }
}
