//! What do the rules that select one subject say together with the settings, whoever its peers are?

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use abi::identity::HOST;
use foldhash::fast::RandomState as FastHash;
use smallvec::smallvec;

use super::compiled::{Compiled, Rules};
use super::selectors::SelectorId;
use crate::origin::{Direction, Implicit};
use crate::peer::{Learned, Peer, PeerIdentity};
use crate::redirect::Redirect;
use crate::resolve::{By, Candidate, PeerKey, RangeKey, Row, settle};
use crate::rule::{Effect, L7, Ports, Rule, Tier, protocol};
use crate::settings::{AllowLocalhost, Mode, Settings};

/// What the rules of one subject say, whoever the peers are.
#[derive(Clone)]
pub(super) struct SubjectRules {
    pub rules: Rules,
    /// The selectors of the rules; candidates have their numbers.
    pub selectors: Numbers,
    /// Ingress and egress.
    pub directions: [DirectionRules; 2],
}

/// What they say of one direction.
#[derive(Clone)]
pub(super) struct DirectionRules {
    pub direction: Direction,
    pub enforced: bool,
    /// False if rules of this direction are not asked for the subject.
    pub applies: bool,
    /// In order of the peers, those for everybody first.
    pub candidates: Vec<Candidate>,
}

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
    rules: &'a Rules,
    host: SelectorId,
    /// Names that it may not ask for.
    denied_names: BTreeSet<String>,
}

impl SubjectRules {
    /// What these rules, which select the subject, say; an error if some of them cannot be put together.
    pub fn new(settings: &Settings, whom: &Whom, rules: Rules, host: SelectorId) -> Result<Self, String> {
        let mut selectors = Numbers::of_rules(&rules);
        let subject = Subject { settings, whom, rules: &rules, host, denied_names: denied_names(&rules) };
        let ingress = subject.direction(Direction::Ingress, &mut selectors)?;
        let egress = subject.direction(Direction::Egress, &mut selectors)?;
        Ok(SubjectRules { rules, selectors, directions: [ingress, egress] })
    }

    /// Rules that let nothing pass: those of a subject whose own ones cannot be put together.
    pub fn closed() -> Self {
        let directions = Direction::BOTH.map(|direction| DirectionRules {
            direction,
            enforced: true,
            applies: true,
            candidates: Vec::new(),
        });
        SubjectRules { rules: Rules::default(), selectors: Numbers::default(), directions }
    }

    /// Numbers of the rules that close the subject in a direction.
    pub fn closing(&self, direction: &DirectionRules) -> impl Iterator<Item = u32> {
        let (applies, direction) = (direction.applies, direction.direction);
        let closes = move |one: &Rule| applies && one.direction == direction && one.default_deny;
        (0..).zip(self.rules.iter()).filter(move |(_, one)| closes(one.rule())).map(|(number, _)| number)
    }
}

/// Selectors by their number within the subject.
#[derive(Clone, Default)]
pub(super) struct Numbers {
    all: Vec<SelectorId>,
    /// Empty while there are few of them.
    by_selector: HashMap<SelectorId, u32, FastHash>,
}

impl Numbers {
    /// Up to so many are walked through.
    const FEW: usize = 8;

    fn of_rules(rules: &[Arc<Compiled>]) -> Self {
        let most: usize = rules.iter().map(|one| one.selectors.len()).sum();
        let by_selector =
            HashMap::with_capacity_and_hasher(if most > Self::FEW { most } else { 0 }, FastHash::default());
        Numbers { all: Vec::with_capacity(most), by_selector }
    }

    fn of(&mut self, selector: SelectorId) -> u32 {
        let next = self.all.len() as u32;
        let number = match self.by_selector.is_empty() {
            true => self.get(selector).unwrap_or(next),
            false => *self.by_selector.entry(selector).or_insert(next),
        };
        if number == next {
            self.all.push(selector);
            if self.by_selector.is_empty() && self.all.len() > Self::FEW {
                self.by_selector.extend(self.all.iter().copied().zip(0..));
            }
        }
        number
    }

    /// The number of a selector, if it has one.
    pub fn get(&self, selector: SelectorId) -> Option<u32> {
        if self.by_selector.is_empty() {
            return self.all.iter().position(|one| *one == selector).map(|number| number as u32);
        }
        self.by_selector.get(&selector).copied()
    }

    /// The selectors in order of their numbers.
    pub fn all(&self) -> &[SelectorId] {
        &self.all
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
        let own = || {
            let rules = (0..).zip(self.rules.iter()).filter(|_| !exempt);
            rules.filter(|(_, one)| one.rule().direction == direction)
        };
        let always = !exempt && (self.settings.mode == Mode::Always || self.whom.is_init);
        let closed = always || own().any(|(_, one)| one.rule().default_deny);
        let (mut levels, mut said) = (Levels::default(), Vec::with_capacity(own().count()));
        let (mut some, mut passes) = (false, false);
        for (number, compiled) in own() {
            let rule = compiled.rule();
            let level = levels.of(rule.tier, rule.priority);
            self.add(number, compiled, (level, closed), numbers, &mut said)?;
            (some, passes) = (true, passes || rule.effect == Effect::Pass);
        }
        self.implied(direction, (closed, some, passes), numbers, &mut levels, &mut said);
        Ok(DirectionRules { direction, enforced: always || some, applies: !exempt, candidates: settle(said)? })
    }

    /// Adds what holds where no rule decides. `there` says whether the direction is closed, has rules, and has rules
    /// that pass something on.
    fn implied(
        &self,
        direction: Direction,
        there: (bool, bool, bool),
        numbers: &mut Numbers,
        levels: &mut Levels,
        said: &mut Vec<Candidate>,
    ) {
        let (closed, some, passes) = there;
        if !closed {
            if some {
                let level = levels.of(Tier::Default, 0);
                said.push(implied(Implicit::AllowAny(direction), Effect::Allow, level));
            }
            return;
        }
        let localhost = direction == Direction::Ingress
            && !self.whom.is_host
            && match self.settings.allow_localhost {
                AllowLocalhost::Always => some,
                AllowLocalhost::EvenWithoutRules => true,
                AllowLocalhost::Policy => false,
            };
        if localhost {
            let level = levels.of(Tier::Default, 0);
            let peer = PeerKey::Selector(numbers.of(self.host));
            said.push(Candidate { peer, row: Row::Own, ..implied(Implicit::AllowLocalhost, Effect::Allow, level) });
        }
        if passes {
            let level = levels.of(Tier::Default, 1);
            said.push(implied(Implicit::DenyAny(direction), Effect::Deny, level));
        }
    }

    /// What one rule says of each of its peers and ports. `place` is its level, and whether its direction is closed.
    fn add(
        &self,
        number: u32,
        compiled: &Compiled,
        place: (u32, bool),
        numbers: &mut Numbers,
        said: &mut Vec<Candidate>,
    ) -> Result<(), String> {
        let rule = compiled.rule();
        let log = Some(&rule.origin.log).filter(|log| !log.is_empty()).map(|log| Arc::from(log.as_str()));
        let mut add = |range: RangeKey, redirect: Option<Arc<Redirect>>| {
            let mut selectors = compiled.selectors.iter();
            for peer in &rule.peers {
                let key = match peer {
                    Peer::All => PeerKey::All,
                    Peer::Labels(_) | Peer::Sums(_) | Peer::Entity { .. } | Peer::Cidr(_) | Peer::Learned(_) => {
                        let Some(selector) = selectors.next() else { continue };
                        PeerKey::Selector(numbers.of(*selector))
                    }
                };
                said.push(Candidate {
                    by: smallvec![By::Rule(number)],
                    tier: rule.tier,
                    level: place.0,
                    peer: key,
                    range: range.clone(),
                    row: if peer.is_sum() { Row::Sum } else { Row::Own },
                    effect: rule.effect,
                    auth: rule.auth.filter(|_| rule.effect == Effect::Allow),
                    redirect: redirect.clone(),
                    logs: log.iter().cloned().collect(),
                    elided: false,
                });
            }
        };
        let Ports::Some(ports) = &rule.ports else {
            add(RangeKey::Any, None);
            return Ok(());
        };
        let mut redirects = Redirects { subject: self, closed: place.1, known: Vec::new() };
        for port in ports {
            let asked = port.l7.as_ref().filter(|_| rule.effect == Effect::Allow);
            let redirect = asked.map_or(Ok(None), |asked| redirects.of(asked, port.protocol))?;
            add(RangeKey::Ports(port.protocol, port.range.clone(), port.written_end), redirect);
        }
        Ok(())
    }
}

/// What one rule sends to the proxy: what it asks on many ports is put together once.
struct Redirects<'a> {
    subject: &'a Subject<'a>,
    closed: bool,
    known: Vec<(*const L7, bool, Option<Arc<Redirect>>)>,
}

impl Redirects<'_> {
    fn of(&mut self, asked: &Arc<L7>, protocol: u8) -> Result<Option<Arc<Redirect>>, String> {
        let (place, is_tcp) = (Arc::as_ptr(asked), protocol == protocol::TCP);
        if let Some((.., known)) = self.known.iter().find(|(one, tcp, _)| (*one, *tcp) == (place, is_tcp)) {
            return Ok(known.clone());
        }
        let redirect = Redirect::new(asked, protocol, &self.subject.whom.namespace)?;
        let redirect = redirect.map(|one| one.denying(&self.subject.denied_names));
        // Where nothing closes the subject, what the rules do not name passes all the same.
        let redirect = redirect.map(|one| Arc::new(if self.closed { one } else { one.opened() }));
        self.known.push((place, is_tcp, redirect.clone()));
        Ok(redirect)
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

fn implied(what: Implicit, effect: Effect, level: u32) -> Candidate {
    Candidate {
        by: smallvec![By::Implicit(what)],
        tier: Tier::Default,
        level,
        peer: PeerKey::All,
        range: RangeKey::Any,
        row: Row::Sum,
        effect,
        auth: None,
        redirect: None,
        logs: Vec::new(),
        elided: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_have_one_number_each_whether_they_are_few_or_many() {
        for count in [1, Numbers::FEW, Numbers::FEW + 1, 100] {
            let mut numbers = Numbers::default();
            for _ in 0..2 {
                (0..count).for_each(|one| assert_eq!(numbers.of(7 * one as SelectorId), one as u32, "of {count}"));
            }
            let found: Vec<_> = (0..count).map(|one| numbers.get(7 * one as SelectorId)).collect();
            assert!(found.into_iter().eq((0..count as u32).map(Some)), "of {count}");
            assert_eq!((numbers.get(1), numbers.all().len()), (None, count));
        }
    }
}
