//! Which rules does each of two sets of policies have, and which have both?

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ipnet::IpNet;
use labels::{CLUSTER, Operator, POD_NAMESPACE, Requirement, Selector, source};
use policy::{Direction, Known, Learned, Peer, PolicyObject, PortRange, Ports, Rule, Settings};

use crate::space::{Question, QuestionId, Space};

/// Policies with all that they mean something by.
#[derive(Clone, Debug)]
pub struct Side {
    /// The agents' settings.
    pub settings: Settings,
    /// The policies.
    pub policies: Vec<PolicyObject>,
    /// What is known of names, groups and services.
    pub learned: BTreeMap<Learned, Known>,
    /// Prefixes that have identities of their own, besides those that policies name.
    pub prefixes: BTreeSet<IpNet>,
}

/// Number of a rule.
pub type RuleId = usize;

/// Where a rule stands: the policy and the rule in it, by their places.
pub type Place = (usize, usize);

/// A rule that is on one side or on both.
pub struct Entry {
    /// The rule; of several that are equal, the first.
    pub rule: Rule,
    /// Where it is on each side.
    pub places: [Vec<Place>; 2],
    /// Whom it is for.
    pub subject: QuestionId,
    /// Its peers.
    pub peers: Vec<QuestionId>,
}

/// The rules of both sides; equal ones are one.
pub struct Rules {
    /// By number.
    pub entries: Vec<Entry>,
    /// Distinct questions of subjects.
    pub subjects: Vec<QuestionId>,
    by_subject: HashMap<QuestionId, Vec<RuleId>>,
    /// Prefixes that have identities of their own, on each side.
    pub prefixes: [BTreeSet<IpNet>; 2],
    /// Why it cannot be told whom some rule speaks of.
    pub unclear: Option<&'static str>,
}

impl Side {
    /// Of policies of one name the last counts.
    pub fn distinct(&self) -> Vec<&PolicyObject> {
        let last: BTreeMap<_, usize> = self.policies.iter().enumerate().map(|(at, one)| (&one.reference, at)).collect();
        self.policies.iter().enumerate().filter(|(at, one)| last[&one.reference] == *at).map(|(_, one)| one).collect()
    }

    fn known(&self, peer: &Peer) -> Known {
        match peer {
            Peer::Learned(learned) => self.learned.get(learned).cloned().unwrap_or_default(),
            Peer::All | Peer::Labels(_) | Peer::Sums(_) | Peer::Entity { .. } | Peer::Cidr(_) => Known::default(),
        }
    }

    fn question(&self, peer: &Peer) -> Question {
        Question::Peer(peer.clone(), self.known(peer).into())
    }

    fn named_prefixes(&self) -> BTreeSet<IpNet> {
        let peers = self.policies.iter().flat_map(|policy| &policy.rules).flat_map(|rule| &rule.peers);
        let prefixes = peers.flat_map(|peer| peer.prefixes(&self.known(peer)).collect::<Vec<_>>());
        prefixes.chain(self.prefixes.iter().copied()).filter(|prefix| prefix.prefix_len() > 0).collect()
    }
}

impl Rules {
    /// The rules of both sides.
    pub fn new(sides: &[&Side; 2], space: &mut Space) -> Rules {
        let mut rules = Rules {
            entries: Vec::new(),
            subjects: Vec::new(),
            by_subject: HashMap::new(),
            prefixes: [sides[0].named_prefixes(), sides[1].named_prefixes()],
            unclear: None,
        };
        let mut known: HashMap<String, RuleId> = HashMap::new();
        for (side, policies) in sides.iter().enumerate() {
            for (at, policy) in policies.policies.iter().enumerate() {
                for (number, rule) in policy.rules.iter().enumerate() {
                    let key = meaning(rule, policies);
                    let id = *known.entry(key).or_insert_with(|| rules.add(rule, policies, space));
                    rules.entries[id].places[side].push((at, number));
                }
            }
        }
        rules
    }

    fn add(&mut self, rule: &Rule, side: &Side, space: &mut Space) -> RuleId {
        let subject = space.question(Question::Subject(rule.subject.clone()));
        let peers = rule.peers.iter().filter(|peer| **peer != Peer::All);
        let peers = peers.map(|peer| space.question(side.question(peer))).collect();
        let id = self.entries.len();
        let rules = self.by_subject.entry(subject).or_default();
        if rules.is_empty() {
            self.subjects.push(subject);
        }
        rules.push(id);
        let has_open_nodes = space.has_open_nodes();
        self.unclear = self.unclear.or_else(|| rule.peers.iter().find_map(|peer| unclear(peer, side, has_open_nodes)));
        self.entries.push(Entry { rule: rule.clone(), places: [Vec::new(), Vec::new()], subject, peers });
        id
    }

    /// The rules for those who said yes to these questions.
    pub fn of(&self, said: &[QuestionId]) -> Vec<RuleId> {
        let mut rules: Vec<RuleId> =
            said.iter().filter_map(|one| self.by_subject.get(one)).flatten().copied().collect();
        rules.sort_unstable();
        rules
    }

    /// Those of them that are for a direction.
    pub fn directed<'a>(&'a self, rules: &'a [RuleId], direction: Direction) -> impl Iterator<Item = &'a Entry> {
        rules.iter().map(|rule| &self.entries[*rule]).filter(move |entry| entry.rule.direction == direction)
    }
}

impl Entry {
    /// True if it is on one side only.
    pub fn is_changed(&self) -> bool {
        self.places[0].is_empty() != self.places[1].is_empty()
    }
}

/// All of a rule that matters to packets.
fn meaning(rule: &Rule, side: &Side) -> String {
    let Rule { origin: _, subject, direction, tier, priority, effect, auth, default_deny, peers, ports } = rule;
    let groups = peers.iter().map(|peer| match peer {
        Peer::Learned(Learned::Name(_) | Learned::Pattern(_)) => Known::default(),
        peer => side.known(peer),
    });
    let groups: Vec<Known> = groups.filter(|known| *known != Known::default()).collect();
    format!(
        "{subject:?} {direction:?} {tier:?} {priority} {effect:?} {auth:?} {default_deny} {peers:?} {ports:?} {groups:?}"
    )
}

/// Names of ports that rules speak of, as protocol and name.
pub fn port_names<'a>(entries: impl Iterator<Item = &'a Entry>) -> BTreeSet<crate::region::PortName> {
    let ports = entries.filter_map(|entry| match &entry.rule.ports {
        Ports::Some(ports) => Some(ports),
        Ports::All => None,
    });
    let named = ports.flatten().filter_map(|port| match &port.range {
        PortRange::Named(name) => Some((port.protocol, name.clone())),
        PortRange::All | PortRange::Numbers(..) => None,
    });
    named.collect()
}

/// Why it cannot be told whom a peer stands for, if so.
fn unclear(peer: &Peer, side: &Side, has_open_nodes: bool) -> Option<&'static str> {
    let settings = &side.settings;
    match peer {
        // Labels of prefixes differ by what other policies name, which no division by labels knows.
        Peer::Labels(selector) | Peer::Sums(selector) if selector.requirements().iter().any(is_of_prefix) => {
            Some("a selector asks for labels of prefixes, which other policies' prefixes decide")
        }
        Peer::Labels(selector) | Peer::Sums(selector)
            if has_open_nodes && settings.node_selector_labels && asks_nodes(selector) =>
        {
            Some("a selector can ask for labels of nodes, of which not all are known")
        }
        Peer::Cidr(_) | Peer::Learned(_) if settings.cidr_matches_pods => {
            Some("prefixes select pods, whose labels other policies' prefixes decide")
        }
        Peer::Cidr(_) | Peer::Learned(_) if has_open_nodes && settings.cidr_matches_nodes => {
            Some("prefixes select nodes, of whose addresses not all are known")
        }
        Peer::All | Peer::Labels(_) | Peer::Sums(_) | Peer::Entity { .. } | Peer::Cidr(_) | Peer::Learned(_) => None,
    }
}

fn is_of_prefix(one: &Requirement) -> bool {
    let sources = [source::CIDR, source::FQDN, source::CIDR_GROUP];
    sources.contains(&one.key.source.as_str()) || one.key.key.parse::<IpNet>().is_ok()
}

/// True if labels of nodes, or the name of a node's cluster, can decide.
fn asks_nodes(selector: &Selector) -> bool {
    let all = selector.requirements();
    let is_namespace = |one: &Requirement| one.key.source == source::K8S && one.key.key == POD_NAMESPACE;
    let of_pods = |one: &Requirement| is_namespace(one) && matches!(one.operator, Operator::In(_) | Operator::Exists);
    let of_node =
        |one: &Requirement| [source::NODE, source::ANY].contains(&one.key.source.as_str()) || one.key.key == CLUSTER;
    !all.iter().any(of_pods) && all.iter().any(of_node)
}
