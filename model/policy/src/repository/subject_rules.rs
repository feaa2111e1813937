//! What do the rules that select one subject say together with the settings, whoever its peers are?

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use abi::identity::HOST;

use super::Compiled;
use super::selectors::SelectorId;
use crate::origin::{Direction, Implicit, RuleOrigin};
use crate::peer::{Learned, Peer, PeerIdentity};
use crate::redirect::Redirect;
use crate::resolve::{By, Candidate, PeerKey, RangeKey, Row, Statement, settle};
use crate::rule::{Effect, L7, Ports, Rule, Tier, protocol};
use crate::settings::{AllowLocalhost, Mode, Settings};

/// What the rules of one subject say, whoever the peers are.
#[derive(Clone)]
pub(super) struct SubjectRules {
    pub origins: Vec<Arc<RuleOrigin>>,
    /// The selectors of the rules; candidates have their numbers.
    pub selectors: Vec<SelectorId>,
    /// Ingress and egress.
    pub directions: [DirectionRules; 2],
}

/// What they say of one direction.
#[derive(Clone)]
pub(super) struct DirectionRules {
    pub direction: Direction,
    pub enforced: bool,
    /// Numbers of the rules that close the subject.
    pub closed_by: Vec<u32>,
    pub candidates: Vec<Candidate>,
}

/// Ports, and what the proxy asks on them.
type Ranged = (RangeKey, Option<Arc<Redirect>>);

/// What rules depend on of the identity that they are put together for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Whom {
    is_host: bool,
    is_init: bool,
    namespace: Box<str>,
}

impl Whom {
    /// What matters of an identity. Its namespace does only for what proxies ask.
    pub fn of(identity: &PeerIdentity, with_namespace: bool) -> Whom {
        Whom {
            is_host: identity.identity == HOST,
            is_init: identity.labels.has_reserved("init"),
            namespace: if with_namespace { identity.namespace().into() } else { Box::default() },
        }
    }
}

/// Whom the rules are put together for.
struct Subject<'a> {
    settings: &'a Settings,
    whom: &'a Whom,
    rules: &'a [Arc<Compiled>],
    host: SelectorId,
    /// Names that it may not ask for.
    denied_names: BTreeSet<String>,
}

impl SubjectRules {
    /// What these rules, which select the subject, say; an error if some of them cannot be put together.
    pub fn new(
        settings: &Settings,
        whom: &Whom,
        mut rules: Vec<Arc<Compiled>>,
        host: SelectorId,
    ) -> Result<Self, String> {
        rules.sort_by(|one, other| one.order.cmp(&other.order));
        let origins = rules.iter().map(|one| one.rule().origin.clone()).collect();
        let mut numbers = Numbers::default();
        let subject = Subject { settings, whom, rules: &rules, host, denied_names: denied_names(&rules) };
        let ingress = subject.direction(Direction::Ingress, &mut numbers)?;
        let egress = subject.direction(Direction::Egress, &mut numbers)?;
        Ok(SubjectRules { origins, selectors: numbers.selectors, directions: [ingress, egress] })
    }

    /// Rules that let nothing pass: those of a subject whose own ones cannot be put together.
    pub fn closed() -> Self {
        let directions = Direction::BOTH.map(|direction| DirectionRules {
            direction,
            enforced: true,
            closed_by: Vec::new(),
            candidates: Vec::new(),
        });
        SubjectRules { origins: Vec::new(), selectors: Vec::new(), directions }
    }
}

/// Selectors by their number within the subject.
#[derive(Default)]
struct Numbers {
    selectors: Vec<SelectorId>,
    by_selector: HashMap<SelectorId, u32>,
}

impl Numbers {
    fn of(&mut self, selector: SelectorId) -> u32 {
        *self.by_selector.entry(selector).or_insert_with(|| {
            self.selectors.push(selector);
            (self.selectors.len() - 1) as u32
        })
    }
}

/// Places among tiers and priorities, given in the order in which they are asked.
#[derive(Default)]
struct Levels {
    last: Option<(Tier, u32)>,
    level: u32,
}

impl Levels {
    fn of(&mut self, tier: Tier, priority: u32) -> u32 {
        match self.last {
            Some(last) if last != (tier, priority) => self.level += 1,
            _ => {}
        }
        self.last = Some((tier, priority));
        self.level
    }
}

impl Subject<'_> {
    fn direction(&self, direction: Direction, numbers: &mut Numbers) -> Result<DirectionRules, String> {
        let is_host = self.whom.is_host;
        let exempt = self.settings.mode == Mode::Never || is_host && !self.settings.host_firewall;
        let of_direction = |one: &&Arc<Compiled>| one.rule().direction == direction;
        let own: Vec<(u32, &Arc<Compiled>)> =
            (0..).zip(self.rules.iter()).filter(|(_, one)| of_direction(one) && !exempt).collect();
        let closed_by: Vec<u32> =
            own.iter().filter(|(_, one)| one.rule().default_deny).map(|(number, _)| *number).collect();
        let always = !exempt && (self.settings.mode == Mode::Always || self.whom.is_init);
        let closed = always || !closed_by.is_empty();
        let (mut levels, mut said) = (Levels::default(), Vec::new());
        for (number, compiled) in &own {
            let level = levels.of(compiled.rule().tier, compiled.rule().priority);
            self.add(*number, compiled, (level, closed), numbers, &mut said)?;
        }
        said.extend(self.implied(direction, &own, closed, numbers, &mut levels));
        let candidates = settle(said)?;
        Ok(DirectionRules { direction, enforced: always || !own.is_empty(), closed_by, candidates })
    }

    /// What holds where no rule decides.
    fn implied(
        &self,
        direction: Direction,
        own: &[(u32, &Arc<Compiled>)],
        closed: bool,
        numbers: &mut Numbers,
        levels: &mut Levels,
    ) -> Vec<Statement> {
        if !closed && own.is_empty() {
            return Vec::new();
        }
        if !closed {
            let level = levels.of(Tier::Default, 0);
            return vec![implied(Implicit::AllowAny(direction), Effect::Allow, level)];
        }
        let localhost = direction == Direction::Ingress
            && !self.whom.is_host
            && match self.settings.allow_localhost {
                AllowLocalhost::Always => !own.is_empty(),
                AllowLocalhost::EvenWithoutRules => true,
                AllowLocalhost::Policy => false,
            };
        let mut said = Vec::new();
        if localhost {
            let level = levels.of(Tier::Default, 0);
            let peer = PeerKey::Selector(numbers.of(self.host));
            said.push(Statement { peer, row: Row::Own, ..implied(Implicit::AllowLocalhost, Effect::Allow, level) });
        }
        if own.iter().any(|(_, one)| one.rule().effect == Effect::Pass) {
            let level = levels.of(Tier::Default, 1);
            said.push(implied(Implicit::DenyAny(direction), Effect::Deny, level));
        }
        said
    }

    /// What one rule says of each of its peers and ports. `place` is its level, and whether its direction is closed.
    fn add(
        &self,
        number: u32,
        compiled: &Compiled,
        place: (u32, bool),
        numbers: &mut Numbers,
        said: &mut Vec<Statement>,
    ) -> Result<(), String> {
        let rule = compiled.rule();
        let ranges = self.ranges(rule, place.1)?;
        let mut selectors = compiled.selectors.iter();
        for peer in &rule.peers {
            let key = match peer {
                Peer::All => PeerKey::All,
                Peer::Labels(_) | Peer::Sums(_) | Peer::Entity { .. } | Peer::Cidr(_) | Peer::Learned(_) => {
                    let Some(selector) = selectors.next() else { continue };
                    PeerKey::Selector(numbers.of(*selector))
                }
            };
            for (range, redirect) in &ranges {
                said.push(Statement {
                    by: By::Rule(number),
                    tier: rule.tier,
                    level: place.0,
                    peer: key,
                    range: range.clone(),
                    row: if peer.is_sum() { Row::Sum } else { Row::Own },
                    effect: rule.effect,
                    auth: rule.auth.filter(|_| rule.effect == Effect::Allow),
                    redirect: redirect.clone(),
                    log: Some(&rule.origin.log).filter(|log| !log.is_empty()).map(|log| Arc::from(log.as_str())),
                });
            }
        }
        Ok(())
    }

    fn ranges(&self, rule: &Rule, closed: bool) -> Result<Vec<Ranged>, String> {
        let Ports::Some(ports) = &rule.ports else { return Ok(vec![(RangeKey::Any, None)]) };
        let namespace = &self.whom.namespace;
        let mut known: HashMap<(*const L7, bool), Option<Arc<Redirect>>> = HashMap::new();
        let mut ranges = Vec::new();
        for port in ports {
            let asked = port.l7.as_ref().filter(|_| rule.effect == Effect::Allow);
            let redirect = match asked {
                None => None,
                Some(asked) => {
                    let key = (Arc::as_ptr(asked), port.protocol == protocol::TCP);
                    match known.get(&key) {
                        Some(redirect) => redirect.clone(),
                        None => {
                            let redirect = Redirect::new(asked, port.protocol, namespace)?;
                            let redirect = redirect.map(|one| one.denying(&self.denied_names));
                            // Where nothing closes the subject, what the rules do not name passes all the same.
                            let redirect = redirect.map(|one| Arc::new(if closed { one } else { one.opened() }));
                            known.insert(key, redirect.clone());
                            redirect
                        }
                    }
                }
            };
            ranges.push((RangeKey::Ports(port.protocol, port.range.clone(), port.written_end), redirect));
        }
        Ok(ranges)
    }
}

/// The names that rules deny on all ports. What is denied on some may be asked for, so that its addresses are known.
fn denied_names(rules: &[Arc<Compiled>]) -> BTreeSet<String> {
    let denials = rules.iter().map(|one| one.rule()).filter(|rule| rule.effect == Effect::Deny);
    let denials = denials.filter(|rule| rule.direction == Direction::Egress && rule.ports == Ports::All);
    let names = denials.flat_map(|rule| &rule.peers).filter_map(|peer| match peer {
        Peer::Learned(Learned::Name(name) | Learned::Pattern(name)) => Some(name.clone()),
        _ => None,
    });
    names.collect()
}

fn implied(what: Implicit, effect: Effect, level: u32) -> Statement {
    Statement {
        by: By::Implicit(what),
        tier: Tier::Default,
        level,
        peer: PeerKey::All,
        range: RangeKey::Any,
        row: Row::Sum,
        effect,
        auth: None,
        redirect: None,
        log: None,
    }
}
