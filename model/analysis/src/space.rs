//! Who can send and receive, and how do questions of policies divide them?

use std::collections::{BTreeMap, BTreeSet, HashMap};

use abi::identity as id;
use identity::NumericIdentity;
use ipnet::IpNet;
use labels::{Labels, Selector};
use policy::{Context, Known, Learned, NamedPorts, Peer, PeerIdentity, Settings, Subject};

use crate::area::Area;
use crate::region::{Kind, Owner, PortName, Region, Role};

/// Somebody who is there.
#[derive(Clone, PartialEq, Debug)]
pub struct Party {
    /// As users call it.
    pub name: String,
    /// Its identity.
    pub identity: NumericIdentity,
    /// The labels of its identity.
    pub labels: Labels,
    /// True if its policy is asked.
    pub is_subject: bool,
    /// Names of its own ports.
    pub ports: NamedPorts,
    /// Names of the ports of all endpoints of its identity.
    pub identity_ports: NamedPorts,
}

/// Some of all who can be there.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Set {
    members: Members,
    /// Disjoint.
    pub regions: Vec<Region>,
}

/// Parties by number.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
struct Members(Vec<u64>);

/// What divides them.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Question {
    /// Is it a subject of this?
    Subject(Subject),
    /// Is it one of these peers?
    Peer(Peer, Facts),
    /// Is it an address that has an identity of its own because of these prefixes?
    Named(Vec<IpNet>),
    /// Is it a node, does it wait for its labels, is it in a namespace?
    Nature(u8),
    /// Has its policy a say?
    HasPolicy,
}

/// What is known of what a peer waits to be told of: prefixes, selectors and groups.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Facts {
    prefixes: Vec<IpNet>,
    selectors: Vec<Selector>,
    groups: Vec<(Labels, IpNet)>,
}

impl From<Known> for Facts {
    fn from(known: Known) -> Facts {
        let Known { prefixes, selectors, groups } = known;
        Facts { prefixes, selectors, groups }
    }
}

impl Facts {
    fn known(&self) -> Known {
        let Facts { prefixes, selectors, groups } = self.clone();
        Known { prefixes, selectors, groups }
    }
}

/// Number of a question.
pub type QuestionId = usize;

/// All who can be there.
pub struct Space {
    parties: Vec<Party>,
    peers: Vec<PeerIdentity>,
    regions: Vec<Region>,
    settings: Settings,
    questions: Vec<(Question, Members)>,
    by_question: HashMap<Question, QuestionId>,
    /// Names are not known: addresses can be learned for any.
    open_names: bool,
}

/// Which names of ports a part of a set has.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Names {
    /// Numbers that are known.
    pub known: NamedPorts,
    /// Names of ports whose numbers can be any.
    pub open: BTreeSet<PortName>,
}

impl Names {
    /// True if some port of this protocol has an open name.
    pub fn has_open(&self, protocol: Option<u8>) -> bool {
        self.open.iter().any(|(of, _)| Some(*of) == protocol)
    }
}

impl Members {
    fn all(count: usize, is: impl Fn(usize) -> bool) -> Members {
        let mut words = vec![0_u64; count.div_ceil(64)];
        (0..count).filter(|at| is(*at)).for_each(|at| words[at / 64] |= 1 << (at % 64));
        Members(words)
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    fn with(&self, other: &Members, each: impl Fn(u64, u64) -> u64) -> Members {
        Members(self.0.iter().zip(&other.0).map(|(one, two)| each(*one, *two)).collect())
    }

    fn iter(&self) -> impl Iterator<Item = usize> {
        self.0
            .iter()
            .enumerate()
            .flat_map(|(at, word)| (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| at * 64 + bit))
    }
}

impl Set {
    /// True if nobody is in it.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.regions.is_empty()
    }

    /// The numbers of those in it who are there.
    pub fn parties(&self) -> impl Iterator<Item = usize> {
        self.members.iter()
    }

    /// Those who are in both.
    pub fn and(&self, other: &Set) -> Set {
        let pairs = self.regions.iter().flat_map(|one| other.regions.iter().filter_map(|two| one.and(two)));
        Set {
            members: self.members.with(&other.members, |one, two| one & two),
            regions: Region::joined(pairs.collect()),
        }
    }

    /// Those who are in either; the two have nobody in common, or only the same regions.
    pub fn join(&mut self, other: &Set) {
        if self.members.0.is_empty() {
            self.members.clone_from(&other.members);
        } else {
            self.members = self.members.with(&other.members, |one, two| one | two);
        }
        let more: Vec<Region> = other.regions.iter().filter(|one| !self.regions.contains(one)).cloned().collect();
        self.regions.extend(more);
    }

    /// The same in fewer regions.
    pub fn simplify(&mut self) {
        self.regions = Region::joined(std::mem::take(&mut self.regions));
    }

    /// True if this party is in it.
    pub fn has(&self, party: usize) -> bool {
        self.members.0.get(party / 64).is_some_and(|word| word >> (party % 64) & 1 == 1)
    }
}

impl Space {
    /// These parties, and whoever is in the regions. With `open_names`, addresses can be learned for any name.
    pub fn new(parties: Vec<Party>, regions: Vec<Region>, settings: Settings, open_names: bool) -> Space {
        let peers = parties.iter().map(|party| PeerIdentity::new(party.identity, party.labels.clone())).collect();
        let (questions, by_question) = (Vec::new(), HashMap::new());
        Space { parties, peers, regions, settings, questions, by_question, open_names }
    }

    /// A party.
    pub fn party(&self, number: usize) -> &Party {
        &self.parties[number]
    }

    /// All parties.
    pub fn parties(&self) -> &[Party] {
        &self.parties
    }

    /// True if nodes can be there whose labels and addresses are not known.
    pub fn has_open_nodes(&self) -> bool {
        self.regions.iter().any(|region| matches!(region.kind, Kind::Host(_) | Kind::RemoteNode(_)))
    }

    /// Everybody.
    pub fn all(&self) -> Set {
        Set { members: Members::all(self.parties.len(), |_| true), regions: self.regions.clone() }
    }

    /// One party.
    pub fn one(&self, party: usize) -> Set {
        Set { members: Members::all(self.parties.len(), |at| at == party), regions: Vec::new() }
    }

    /// All of a region.
    pub fn whole(&self, region: Region) -> Set {
        Set { members: Members::all(self.parties.len(), |_| false), regions: vec![region] }
    }

    /// The number of a question.
    pub fn question(&mut self, question: Question) -> QuestionId {
        if let Some(known) = self.by_question.get(&question) {
            return *known;
        }
        let context = Context::of(&self.settings);
        let members = Members::all(self.parties.len(), |at| self.answer(&question, at, &context));
        self.questions.push((question.clone(), members));
        self.by_question.insert(question, self.questions.len() - 1);
        self.questions.len() - 1
    }

    fn answer(&self, question: &Question, at: usize, context: &Context<'_>) -> bool {
        let peer = &self.peers[at];
        match question {
            Question::Subject(subject) => subject.selects(peer),
            Question::Peer(one, known) => one.selects(peer, context, &known.known()),
            Question::Named(_) => (id::LOCAL_CIDR..id::LOCAL_REMOTE_NODE).contains(&peer.identity),
            Question::Nature(nature) => nature_of(peer.identity, &peer.labels) == *nature,
            Question::HasPolicy => self.parties[at].is_subject,
        }
    }

    /// Those of a set for whom the answer is yes, and the others.
    pub fn split(&self, set: &Set, question: QuestionId) -> (Set, Set) {
        let (asked, members) = &self.questions[question];
        let mut yes = Set { members: set.members.with(members, |one, two| one & two), regions: Vec::new() };
        let mut no = Set { members: set.members.with(members, |one, two| one & !two), regions: Vec::new() };
        for region in &set.regions {
            self.split_region(region, asked, &mut yes.regions, &mut no.regions);
        }
        yes.regions = Region::joined(yes.regions);
        no.regions = Region::joined(no.regions);
        (yes, no)
    }

    fn split_region(&self, region: &Region, question: &Question, yes: &mut Vec<Region>, no: &mut Vec<Region>) {
        let is_host = matches!(region.kind, Kind::Host(_));
        let settled = match question {
            Question::Subject(Subject::Endpoints(selector)) if !is_host => {
                return by_selector(region, selector, Role::Subject, yes, no);
            }
            Question::Subject(Subject::Nodes(selector)) if is_host => {
                return by_selector(region, selector, Role::Subject, yes, no);
            }
            Question::Subject(_) => false,
            Question::Peer(Peer::Labels(selector), _) => return by_selector(region, selector, Role::Peer, yes, no),
            Question::Peer(Peer::Cidr(set), _) => return by_addresses(region, std::slice::from_ref(set), yes, no),
            Question::Peer(Peer::Learned(learned), known) => return self.by_learned(region, learned, known, yes, no),
            // Which addresses are parts of sums, other questions tell: those that have identities of their own.
            Question::Peer(peer @ (Peer::All | Peer::Sums(_) | Peer::Entity { .. }), _) => {
                let example = PeerIdentity::new(number_of(&region.kind, &self.settings), region.example());
                peer.selects(&example, &Context::of(&self.settings), &Known::default())
            }
            Question::Named(_) if region.has_own_labels() => true,
            Question::Named(prefixes) => {
                let sets: Vec<_> = prefixes.iter().map(|prefix| policy::CidrSet::new(*prefix, [])).collect();
                return by_addresses(region, &sets, yes, no);
            }
            Question::Nature(nature) => {
                nature_of(number_of(&region.kind, &self.settings), &region.example()) == *nature
            }
            Question::HasPolicy => matches!(region.kind, Kind::Pod | Kind::Host(_)),
        };
        if settled { yes.push(region.clone()) } else { no.push(region.clone()) }
    }

    fn by_learned(
        &self,
        region: &Region,
        learned: &Learned,
        facts: &Facts,
        yes: &mut Vec<Region>,
        no: &mut Vec<Region>,
    ) {
        let is_name = matches!(learned, Learned::Name(_) | Learned::Pattern(_));
        if is_name && self.open_names {
            if region.area().is_none() {
                return no.push(region.clone());
            }
            yes.extend(region.with_learned(learned, true));
            no.extend(region.with_learned(learned, false));
            return;
        }
        if learned.is_group() {
            return self.by_groups(region, learned, facts, yes, no);
        }
        let sets = facts.prefixes.iter().map(|prefix| policy::CidrSet::new(*prefix, learned.except().iter().copied()));
        let mut rest = Vec::new();
        by_addresses(region, &sets.collect::<Vec<_>>(), yes, &mut rest);
        for selector in &facts.selectors {
            let mut others = Vec::new();
            rest.iter().for_each(|region| by_selector(region, selector, Role::Peer, yes, &mut others));
            rest = others;
        }
        no.extend(rest);
    }

    /// Addresses that lie in the same groups and exceptions are selected alike.
    fn by_groups(
        &self,
        region: &Region,
        learned: &Learned,
        facts: &Facts,
        yes: &mut Vec<Region>,
        no: &mut Vec<Region>,
    ) {
        let Some(area) = region.area() else { return no.push(region.clone()) };
        let mut parts: Vec<Area> = vec![area.clone()];
        for prefix in facts.prefixes.iter().chain(learned.except()) {
            let halves = |area: Area| {
                let (within, outside) = area.split(prefix);
                within.into_iter().chain(outside)
            };
            parts = parts.into_iter().flat_map(halves).collect();
        }
        let (peer, known) = (Peer::Learned(learned.clone()), facts.known());
        for area in parts {
            let own = identity::cidr_labels(IpNet::from(area.address(&|_| false)), self.settings.families);
            let example = PeerIdentity::new(id::LOCAL_CIDR, own.with(region.example().iter().cloned()));
            let is = peer.selects(&example, &Context::of(&self.settings), &known);
            if is { &mut *yes } else { &mut *no }.push(region.with_area(area));
        }
    }

    /// The parts of a set that answer these questions alike, with the questions that they say yes to. `None` if there
    /// are more than so many.
    pub fn partition(&self, set: Set, questions: &[QuestionId], most: usize) -> Option<Vec<(Set, Vec<QuestionId>)>> {
        let mut parts = vec![(set, Vec::new())];
        parts.retain(|(set, _)| !set.is_empty());
        for question in questions {
            let mut next = Vec::with_capacity(parts.len());
            for (set, said) in parts {
                let (yes, no) = self.split(&set, *question);
                match (yes.is_empty(), no.is_empty()) {
                    (true, _) => next.push((set, said)),
                    (false, is_all) => {
                        let mut more: Vec<QuestionId> = said.clone();
                        more.push(*question);
                        next.push((yes, more));
                        if !is_all {
                            next.push((no, said));
                        }
                    }
                }
            }
            if next.len() > most {
                return None;
            }
            parts = next;
        }
        Some(parts)
    }

    /// The parts of a set by which of these names they give to which ports.
    pub fn by_names(&self, set: &Set, owner: Owner, asked: &BTreeSet<PortName>) -> Vec<(Set, Names)> {
        if asked.is_empty() {
            return vec![(set.clone(), Names::default())];
        }
        let mut parts: BTreeMap<Names, Set> = BTreeMap::new();
        let none = || Set { members: Members::all(self.parties.len(), |_| false), regions: Vec::new() };
        for at in set.members.iter() {
            let party = &self.parties[at];
            let ports = if owner == Owner::Identity { &party.identity_ports } else { &party.ports };
            let known = ports.iter().filter(|(name, _)| asked.contains(*name));
            let known = known.map(|(name, numbers)| (name.clone(), numbers.clone())).collect();
            let part = parts.entry(Names { known, open: BTreeSet::new() }).or_insert_with(none);
            part.members.0[at / 64] |= 1 << (at % 64);
        }
        for region in &set.regions {
            let mut divided = vec![(region.clone(), BTreeSet::new())];
            for name in asked {
                let mut next = Vec::new();
                for (region, open) in divided {
                    if let Some(with) = region.with_port_name(owner, name, true) {
                        let more: BTreeSet<PortName> = open.iter().cloned().chain([name.clone()]).collect();
                        next.push((with, more));
                    }
                    next.extend(region.with_port_name(owner, name, false).map(|without| (without, open)));
                }
                divided = next;
            }
            for (region, open) in divided {
                parts.entry(Names { open, ..Names::default() }).or_insert_with(none).regions.push(region);
            }
        }
        parts.into_iter().map(|(names, set)| (set, names)).collect()
    }
}

fn by_selector(region: &Region, selector: &Selector, role: Role, yes: &mut Vec<Region>, no: &mut Vec<Region>) {
    let mut rest = region.clone();
    for requirement in selector.requirements() {
        let (fits, fails) = rest.split(requirement, role);
        no.extend(fails);
        match fits {
            Some(fits) => rest = fits,
            None => return,
        }
    }
    yes.push(rest);
}

fn by_addresses(region: &Region, sets: &[policy::CidrSet], yes: &mut Vec<Region>, no: &mut Vec<Region>) {
    let Some(area) = region.area() else { return no.push(region.clone()) };
    let mut rest: Vec<Area> = vec![area.clone()];
    for set in sets {
        let mut others = Vec::new();
        for area in rest {
            let (within, outside) = area.split_by_set(set);
            yes.extend(within.into_iter().map(|area| region.with_area(area)));
            others.extend(outside);
        }
        rest = others;
    }
    no.extend(rest.into_iter().map(|area| region.with_area(area)));
}

/// A number of somebody of this kind.
pub fn number_of(kind: &Kind, settings: &Settings) -> NumericIdentity {
    match kind {
        Kind::Pod => (settings.cluster_id << 16) + id::MINIMAL_ALLOCATED,
        Kind::ForeignPod => {
            let other = if settings.cluster_id < 255 { settings.cluster_id + 1 } else { 1 };
            (other << 16) + id::MINIMAL_ALLOCATED
        }
        Kind::Host(_) => id::HOST,
        Kind::RemoteNode(_) if settings.node_selector_labels || settings.cidr_matches_nodes => id::LOCAL_REMOTE_NODE,
        Kind::RemoteNode(true) => id::KUBE_APISERVER,
        Kind::RemoteNode(false) => id::REMOTE_NODE,
        Kind::Address(_) => id::WORLD,
    }
}

/// What of a subject matters to its policy besides the rules for it.
fn nature_of(identity: NumericIdentity, labels: &Labels) -> u8 {
    match () {
        () if identity == id::HOST => 1,
        () if labels.has_reserved("init") => 2,
        () if labels.namespace().is_none() => 3,
        () => 0,
    }
}
