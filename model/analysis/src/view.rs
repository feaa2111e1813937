//! What do the policies of one kind of subjects say of whom, on both sides?

mod round;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use abi::identity as id;
use identity::NumericIdentity;
use ipnet::IpNet;
use labels::Labels;
use policy::{
    Context, Direction, EndpointPolicy, Entity, Known, Learned, NamedPorts, Peer, PeerIdentity, PolicyObject,
    PortRange, Ports, RuleSet,
};

use self::round::Round;
use crate::decision::{Decision, DecisionId, Decisions};
use crate::region::{Kind, Owner, PortName};
use crate::side::{Place, RuleId, Rules, Side, port_names};
use crate::space::{Facts, Names, Question, QuestionId, Set, Space, number_of};

/// What is decided, by protocol (`None`: any that is not named) and first port of a range, on both sides.
pub type Profile = BTreeMap<Option<u8>, Vec<(u16, [DecisionId; 2])>>;

/// Peers that a subject tells apart, with what it says of them.
pub type Cells = Vec<(Set, Arc<Profile>)>;

/// What the policies of subjects of one kind say.
pub struct View {
    /// Of what comes in.
    pub ingress: Cells,
    /// Of what goes out.
    pub egress: Cells,
}

/// Subjects that the same rules are for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Class {
    /// The rules.
    pub rules: Vec<RuleId>,
    /// What else of them matters.
    pub nature: Vec<QuestionId>,
    /// The names of their ports.
    pub names: Names,
}

/// Stands for all names that only other policies ask for: an address that was learned for one has an identity of its
/// own.
pub const ELSEWHERE: &str = "name.of.another.policy";

/// There are more cases than may be looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooMany;

/// Two sides and all who can be there.
pub struct Scene<'a> {
    /// Who can be there.
    pub space: Space,
    /// The sides.
    pub sides: [&'a Side; 2],
    /// Their rules.
    pub rules: Rules,
    /// What they come to.
    pub decisions: Decisions,
    views: HashMap<Class, Arc<View>>,
    natures: Vec<QuestionId>,
    has_policy: QuestionId,
    host: QuestionId,
    named: Vec<QuestionId>,
    elsewhere: QuestionId,
    /// Protocols that some rule names.
    protocols: BTreeSet<u8>,
    /// So many parts of a set at most.
    most: usize,
    open_names: bool,
}

/// Somebody who stands for all in a set.
#[derive(Clone, Debug, Default)]
pub struct Stand {
    /// Its number, or one of the kind that it would have.
    pub identity: NumericIdentity,
    /// Its labels, without that of a prefix where `address` is set.
    pub labels: Labels,
    /// Its address, if it is outside of the cluster.
    pub address: Option<IpAddr>,
    /// What its address was learned for.
    pub learned: Vec<Learned>,
    /// Names of its ports.
    pub ports: NamedPorts,
}

impl<'a> Scene<'a> {
    /// With all questions that the sides ask.
    pub fn new(mut space: Space, sides: [&'a Side; 2], open_names: bool, most: usize) -> Scene<'a> {
        let rules = Rules::new(&sides, &mut space);
        let natures = [1, 2, 3].map(|nature| space.question(Question::Nature(nature))).to_vec();
        let has_policy = space.question(Question::HasPolicy);
        let localhost = Peer::Entity { entity: Entity::Host, sum: false };
        let host = space.question(Question::Peer(localhost, Facts::default()));
        let named = rules.prefixes.iter().map(|all| space.question(Question::Named(all.iter().copied().collect())));
        let named = named.collect();
        let elsewhere = Peer::Learned(Learned::Name(ELSEWHERE.to_owned()));
        let elsewhere = space.question(Question::Peer(elsewhere, Facts::default()));
        let ports = rules.entries.iter().filter_map(|entry| match &entry.rule.ports {
            Ports::Some(ports) => Some(ports),
            Ports::All => None,
        });
        let protocols = ports.flatten().map(|port| port.protocol).collect();
        let (decisions, views) = (Decisions::default(), HashMap::new());
        Scene {
            space,
            sides,
            rules,
            decisions,
            views,
            natures,
            has_policy,
            host,
            named,
            elsewhere,
            protocols,
            most,
            open_names,
        }
    }

    /// Those of a set whose policies have a say, and the others.
    pub fn subjects(&self, set: &Set) -> (Set, Set) {
        self.space.split(set, self.has_policy)
    }

    /// The kinds of subjects in a set.
    pub fn classes(&self, set: Set) -> Result<Vec<(Set, Class)>, TooMany> {
        let questions: Vec<QuestionId> = self.natures.iter().chain(&self.rules.subjects).copied().collect();
        let parts = self.space.partition(set, &questions, self.most).ok_or(TooMany)?;
        let mut classes = Vec::new();
        for (set, said) in parts {
            let rules = self.rules.of(&said);
            let nature: Vec<QuestionId> = said.into_iter().filter(|one| self.natures.contains(one)).collect();
            let asked = port_names(self.rules.directed(&rules, Direction::Ingress));
            self.few_names(&set, &asked)?;
            for (set, names) in self.space.by_names(&set, Owner::Endpoint, &asked) {
                classes.push((set, Class { rules: rules.clone(), nature: nature.clone(), names }));
            }
        }
        Ok(classes)
    }

    /// What the subjects of a class say; `of` are some of them.
    pub fn view(&mut self, class: &Class, of: &Set) -> Result<Arc<View>, TooMany> {
        if let Some(known) = self.views.get(class) {
            return Ok(known.clone());
        }
        let view = Arc::new(View {
            ingress: self.cells(class, of, Direction::Ingress)?,
            egress: self.cells(class, of, Direction::Egress)?,
        });
        self.views.insert(class.clone(), view.clone());
        Ok(view)
    }

    /// The peers that these rules tell apart in a direction.
    pub fn peers(&self, rules: &[RuleId], direction: Direction) -> Result<Vec<(Set, Names)>, TooMany> {
        let entries = || self.rules.directed(rules, direction);
        let mut questions: BTreeSet<QuestionId> = entries().flat_map(|entry| entry.peers.iter().copied()).collect();
        if direction == Direction::Ingress {
            questions.insert(self.host);
        }
        let asks_more = |entry: &crate::side::Entry| match &entry.rule.ports {
            _ if entry.rule.auth.is_some() => true,
            Ports::Some(ports) => ports.iter().any(|port| port.l7.is_some()),
            Ports::All => false,
        };
        // Whether it has an identity of its own makes an address part of sums, and that matters to what is asked besides
        // and to selectors that select sums alone.
        let asks_more = entries().any(asks_more);
        let peers = || entries().flat_map(|entry| &entry.rule.peers);
        let by_sums = peers().any(|peer| matches!(peer, Peer::Sums(_)) && self.is_sum_of_addresses(peer));
        if asks_more || by_sums {
            questions.extend(&self.named);
        }
        if self.open_names && (by_sums || asks_more && peers().any(|peer| self.is_sum_of_addresses(peer))) {
            questions.insert(self.elsewhere);
        }
        let questions: Vec<QuestionId> = questions.into_iter().collect();
        let parts = self.space.partition(self.space.all(), &questions, self.most).ok_or(TooMany)?;
        if direction == Direction::Ingress {
            return Ok(parts.into_iter().map(|(set, _)| (set, Names::default())).collect());
        }
        let asked = port_names(entries());
        parts.iter().try_for_each(|(set, _)| self.few_names(set, &asked))?;
        Ok(parts.into_iter().flat_map(|(set, _)| self.space.by_names(&set, Owner::Identity, &asked)).collect())
    }

    fn is_sum_of_addresses(&self, peer: &Peer) -> bool {
        let address = PeerIdentity::new(id::LOCAL_CIDR, Labels::empty());
        let context = Context::of(&self.sides[0].settings);
        *peer != Peer::All && peer.is_sum() && peer.selects(&address, &context, &Known::default())
    }

    /// Somebody who is not known can give each name to any port or to none.
    fn few_names(&self, set: &Set, asked: &BTreeSet<PortName>) -> Result<(), TooMany> {
        let most = 5;
        let pods = || set.regions.iter().any(|region| matches!(region.kind, Kind::Pod | Kind::ForeignPod));
        if asked.len() > most && pods() { Err(TooMany) } else { Ok(()) }
    }

    fn cells(&mut self, class: &Class, of: &Set, direction: Direction) -> Result<Cells, TooMany> {
        let parts = self.peers(&class.rules, direction)?;
        let all = starts(&self.protocols, self.rules.directed(&class.rules, direction).map(|entry| &entry.rule.ports));
        let starts: Vec<Starts> = parts
            .iter()
            .map(|(_, names)| with_names(&all, if direction == Direction::Egress { names } else { &class.names }))
            .collect();
        let (mut peers, mut firsts) = (Vec::new(), Vec::new());
        for ((set, names), starts) in parts.iter().zip(&starts) {
            firsts.push(peers.len());
            peers.extend(self.stands(set, names, starts));
        }
        let firsts = &firsts;
        let mut columns: Vec<Vec<Decision>> = Vec::new();
        for side in [0, 1] {
            let tables = self.tables(side, &class.rules, &self.stand(of, &class.names, &all), &peers);
            let ask = |(at, starts): (usize, &Starts)| {
                let (_, names) = &parts[at];
                let each = starts.iter().flat_map(|(protocol, ports)| {
                    // Whose name can be any port's has it at the port that is asked for.
                    let has_open = direction == Direction::Egress && names.has_open(*protocol);
                    let seat = move |place| firsts[at] + if has_open { place } else { 0 };
                    ports.iter().enumerate().map(move |(place, port)| (seat(place), *protocol, *port))
                });
                let each = each.map(|(seat, protocol, port)| {
                    let (policy, number) = &tables[seat];
                    Decision::of(policy, &policy.verdict(*number, direction, protocol.unwrap_or(UNNAMED), port))
                });
                each.collect::<Vec<_>>()
            };
            columns.push(starts.iter().enumerate().flat_map(ask).collect());
        }
        let mut both = columns[0].drain(..).collect::<Vec<_>>().into_iter().zip(std::mem::take(&mut columns[1]));
        let mut cells: Vec<(Set, Arc<Profile>)> = Vec::new();
        let mut by_profile: HashMap<Arc<Profile>, usize> = HashMap::new();
        for ((set, _), starts) in parts.into_iter().zip(&starts) {
            let mut profile = Profile::new();
            for (protocol, ports) in starts {
                let spans: &mut Vec<(u16, [DecisionId; 2])> = profile.entry(*protocol).or_default();
                for port in ports {
                    let Some((old, new)) = both.next() else { break };
                    let decided = [self.decisions.number(old), self.decisions.number(new)];
                    if spans.last().is_none_or(|(_, last)| *last != decided) {
                        spans.push((*port, decided));
                    }
                }
            }
            // Peers of whom the same is said need not be told apart any more.
            match by_profile.get(&profile) {
                Some(at) => cells[*at].0.join(&set),
                None => {
                    let profile = Arc::new(profile);
                    by_profile.insert(profile.clone(), cells.len());
                    cells.push((set, profile));
                }
            }
        }
        cells.iter_mut().for_each(|(set, _)| set.simplify());
        Ok(cells)
    }

    /// Somebody of a set. Open names of ports stand for each range of ports.
    pub fn stand(&self, set: &Set, names: &Names, starts: &Starts) -> Stand {
        let mut ports = names.known.clone();
        for name in &names.open {
            ports.insert(name.clone(), starts.get(&Some(name.0)).cloned().unwrap_or_default());
        }
        if let Some(party) = set.parties().next().map(|at| self.space.party(at)) {
            let (identity, labels) = (party.identity, party.labels.clone());
            return Stand { identity, labels, ports, ..Stand::default() };
        }
        let Some(region) = set.regions.first() else { return Stand::default() };
        Stand {
            identity: number_of(&region.kind, &self.sides[0].settings),
            labels: region.example(),
            address: region.address(&|_| false),
            learned: region.learned().cloned().collect(),
            ports,
        }
    }

    /// Those who stand for all peers in a set. A name that an identity's endpoints give to several ports is none of a
    /// peer's: for each range of ports there is one who has the open names there, the first at the first port, and so on.
    fn stands(&self, set: &Set, names: &Names, starts: &Starts) -> Vec<Stand> {
        let open: Vec<(Option<u8>, Vec<u16>)> = starts
            .iter()
            .filter(|(protocol, _)| names.has_open(**protocol))
            .map(|(protocol, ports)| (*protocol, ports.iter().copied().collect()))
            .collect();
        let count = open.iter().map(|(_, ports)| ports.len()).max().unwrap_or(1);
        let one = |place| {
            let here =
                open.iter().map(|(protocol, ports)| (*protocol, ports.get(place).copied().into_iter().collect()));
            self.stand(set, names, &here.collect())
        };
        (0..count).map(one).collect()
    }

    /// The tables of a subject on a side, with the number of each peer in them. Peers that cannot be there at once are
    /// in tables of their own.
    fn tables(
        &self,
        side: usize,
        rules: &[RuleId],
        subject: &Stand,
        peers: &[Stand],
    ) -> Vec<(Arc<EndpointPolicy>, NumericIdentity)> {
        let policies = self.policies(side, rules);
        let mut found: Vec<Option<(Arc<EndpointPolicy>, NumericIdentity)>> = vec![None; peers.len()];
        let mut left: Vec<usize> = (0..peers.len()).collect();
        while !left.is_empty() {
            let mut round = Round::new(self, side, &policies, subject);
            let mut seats = Vec::new();
            left.retain(|at| match round.seat(&peers[*at]) {
                Some(number) => {
                    seats.push((*at, number));
                    false
                }
                None => true,
            });
            let policy = round.finish();
            for (at, number) in seats {
                found[at] = Some((policy.clone(), number));
            }
        }
        found.into_iter().flatten().collect()
    }

    /// The policies of a side with these rules alone.
    pub fn policies(&self, side: usize, rules: &[RuleId]) -> Vec<PolicyObject> {
        let mut by_policy: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for rule in rules {
            for (policy, number) in &self.rules.entries[*rule].places[side] {
                by_policy.entry(*policy).or_default().push(*number);
            }
        }
        let all = &self.sides[side].policies;
        let with = |(policy, mut numbers): (usize, Vec<usize>)| {
            numbers.sort_unstable();
            let rules = numbers.iter().map(|number| all[policy].rules[*number].clone()).collect();
            PolicyObject { rules, warnings: Vec::new(), ..shallow(&all[policy]) }
        };
        by_policy.into_iter().map(with).collect()
    }

    /// Puts a rule elsewhere on a side, or nowhere.
    pub fn set_places(&mut self, rule: RuleId, side: usize, places: Vec<Place>) {
        self.rules.entries[rule].places[side] = places;
        self.views.retain(|class, _| class.rules.binary_search(&rule).is_err());
    }

    /// Who decides, on a side, and whether that is to keep out, for one peer of a subject.
    pub fn deciders(
        &self,
        side: usize,
        rules: &[RuleId],
        subject: &Stand,
        peer: &Stand,
        (direction, protocol, port): (Direction, Option<u8>, u16),
    ) -> (RuleSet, bool) {
        let mut round = Round::new(self, side, &self.policies(side, rules), subject);
        let Some(number) = round.seat(peer) else { return (RuleSet::none(), false) };
        let policy = round.finish();
        let entry = policy.verdict(number, direction, protocol.unwrap_or(UNNAMED), port);
        let denies = !matches!(Decision::of(&policy, &entry), Decision::Allow(_));
        (policy.rule_set(entry.rule_set).cloned().unwrap_or_else(RuleSet::none), denies)
    }

    /// Prefixes that have identities of their own, on the second side.
    pub fn prefixes(&self) -> &BTreeSet<IpNet> {
        &self.rules.prefixes[1]
    }

    /// Protocols that some rule names.
    pub fn protocols(&self) -> &BTreeSet<u8> {
        &self.protocols
    }

    /// So many parts of a set at most.
    pub fn most(&self) -> usize {
        self.most
    }
}

fn shallow(policy: &PolicyObject) -> PolicyObject {
    PolicyObject {
        reference: policy.reference.clone(),
        uid: policy.uid.clone(),
        resource_version: policy.resource_version.clone(),
        source: policy.source.clone(),
        rules: Vec::new(),
        warnings: Vec::new(),
    }
}

/// First ports of ranges by protocol, `None` for protocols that no rule names.
pub type Starts = BTreeMap<Option<u8>, BTreeSet<u16>>;

/// A protocol that no rule names: for experiments (RFC 3692).
pub const UNNAMED: u8 = 253;

fn starts<'a>(protocols: &BTreeSet<u8>, ports: impl Iterator<Item = &'a Ports>) -> Starts {
    let named = protocols.iter().map(|protocol| Some(*protocol));
    let mut starts: Starts = named.chain([None]).map(|protocol| (protocol, BTreeSet::from([0]))).collect();
    for port in ports.filter_map(|ports| if let Ports::Some(ports) = ports { Some(ports) } else { None }).flatten() {
        let of_protocol = starts.entry(Some(port.protocol)).or_insert_with(|| BTreeSet::from([0]));
        if let PortRange::Numbers(first, last) = port.range {
            of_protocol.insert(first);
            of_protocol.extend(last.checked_add(1));
        }
    }
    starts
}

fn with_names(all: &Starts, names: &Names) -> Starts {
    let mut starts = all.clone();
    for ((protocol, _), numbers) in &names.known {
        let of_protocol = starts.entry(Some(*protocol)).or_insert_with(|| BTreeSet::from([0]));
        for number in numbers {
            of_protocol.insert(*number);
            of_protocol.extend(number.checked_add(1));
        }
    }
    starts
}
