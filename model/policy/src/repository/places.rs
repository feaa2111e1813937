//! Where do a direction's candidates stand, by peer selector and ports?

use std::collections::BTreeSet;

use super::NamedPorts;
use super::subject_rules::DirectionRules;
use crate::origin::Direction;
use crate::resolve::{Candidate, PeerKey, Prefix, RangeKey, Row};
use crate::rule::{Effect, PortRange};

/// Candidates of a direction by peer selector and prefix, as numbers into the rules' candidates.
#[derive(Clone, Default)]
pub(super) struct Places {
    /// First those for everybody, then those of each selector.
    all: Vec<(Prefix, u32)>,
    /// Where those of each selector begin, and where the last ones end; empty if there are none at all.
    begins: Vec<u32>,
    /// Those whose ports the peer names, in order of tier, ports and peer.
    pub peer_named: Vec<u32>,
    /// True if the subject names some of the ports.
    pub asks_subject: bool,
    /// The names of ports that peers are asked for.
    pub names: BTreeSet<(u8, String)>,
    /// True if some candidate leaves something to the next tier.
    pub passes: bool,
}

impl Places {
    /// Where the candidates of a subject with so many selectors and these ports of its own stand.
    pub fn new(rules: &DirectionRules, selectors: usize, own_ports: &NamedPorts) -> Self {
        let mut places = Places::default();
        if rules.candidates.is_empty() {
            return places;
        }
        places.all.reserve(rules.candidates.len());
        places.begins.reserve(selectors + 1);
        for (number, candidate) in (0..).zip(&rules.candidates) {
            if let PeerKey::Selector(selector) = candidate.peer {
                places.begins.resize(selector as usize + 1, places.all.len() as u32);
            }
            places.passes |= candidate.effect == Effect::Pass;
            candidate.prefixes(|prefix| places.all.push((prefix, number)));
            if let RangeKey::Ports(protocol, PortRange::Named(name), _) = &candidate.range {
                // A sum has no ports with names; who is part of it has, and is meant only if selected by itself.
                let is_sum = candidate.row == Row::Sum && candidate.peer != PeerKey::All;
                if rules.direction == Direction::Ingress || !is_sum {
                    places.add_named(number, rules.direction, (*protocol, name.clone()), own_ports);
                }
            }
        }
        places.begins.resize(selectors + 1, places.all.len() as u32);
        let order = |one: &Candidate| (one.tier, one.range.clone(), one.peer);
        places.peer_named.sort_by_cached_key(|number| order(&rules.candidates[*number as usize]));
        places
    }

    /// The names of ports are the peer's at egress and the subject's at ingress.
    fn add_named(&mut self, number: u32, direction: Direction, name: (u8, String), own_ports: &NamedPorts) {
        match direction {
            Direction::Egress => {
                self.peer_named.push(number);
                self.names.insert(name);
            }
            Direction::Ingress => {
                self.asks_subject = true;
                let numbers = own_ports.get(&name).into_iter().flatten();
                let prefix = |port: &u16| Prefix { protocol: Some(name.0), bits: 16, port: *port };
                self.all.extend(numbers.map(|port| (prefix(port), number)));
            }
        }
    }

    /// Those for everybody.
    pub fn of_everybody(&self) -> &[(Prefix, u32)] {
        &self.all[..self.begins.first().map_or(0, |begin| *begin as usize)]
    }

    /// Those of a selector.
    pub fn of_selector(&self, number: u32) -> &[(Prefix, u32)] {
        match self.begins.get(number as usize..number as usize + 2) {
            Some([begin, end]) => &self.all[*begin as usize..*end as usize],
            _ => &[],
        }
    }

    /// True if something is said of those whom these selectors select.
    pub fn concerns(&self, selectors: &[u32]) -> bool {
        selectors.iter().any(|number| !self.of_selector(*number).is_empty())
    }
}
