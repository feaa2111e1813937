//! How often did which rules decide? The datapath counts in the tables of a policy; here is what became of these counts when
//! tables went.

use std::collections::BTreeMap;
use std::sync::Arc;

use abi::policy::{
    CountedVerdict, DIR_INGRESS, VERDICT_ALLOW, VERDICT_DEFAULT_DENY, VERDICT_DENY, VERDICT_REDIRECT, VerdictKey,
};
use agent_api::{RuleName, RuleSetHits};
use flow::Clock;
use jiff::Timestamp;
use policy::{Implicit, PolicyRef, RuleOrigin};

/// What the number of a rule set stands for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Decision {
    /// Set where no rule allowed or denied.
    pub implicit: Option<Implicit>,
    /// The rules; with a default denial, those that closed the endpoint.
    pub rules: Arc<[Arc<RuleOrigin>]>,
}

/// Decisions by the number of the rule set.
pub type Decisions = BTreeMap<u32, Decision>;

/// Counts of tables that are gone.
#[derive(Debug, Default)]
pub struct Hits {
    past: BTreeMap<Decided, Count>,
}

/// A decision, and which way it went.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Decided {
    decision: Decision,
    direction: u8,
    verdict: u8,
}

/// Packets that were judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    packets: u64,
    bytes: u64,
    /// Seconds since boot of the last one.
    last: u32,
}

impl Count {
    fn add(&mut self, other: Count) {
        self.packets = self.packets.saturating_add(other.packets);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.last = self.last.max(other.last);
    }
}

/// Decisions of tables that are gone which are remembered; beyond it those that were hit longest ago are forgotten.
const MOST_PAST: usize = 65_536;

impl Hits {
    /// Takes over what a policy's tables counted, now that they are gone.
    pub fn keep(&mut self, decisions: &Decisions, counted: &[(VerdictKey, CountedVerdict)]) {
        add(&mut self.past, decisions, counted, |count| count.packets > 0);
        if self.past.len() > MOST_PAST {
            let mut times: Vec<u32> = self.past.values().map(|count| count.last).collect();
            let (_, middle, _) = times.select_nth_unstable(MOST_PAST / 2);
            let oldest_kept = *middle;
            self.past.retain(|_, count| count.last > oldest_kept);
        }
    }

    /// All counts: these, and those of the tables in use. Of policies that are there; rules that were never hit have zeros.
    pub fn report<'a>(
        &self,
        in_use: impl IntoIterator<Item = (&'a Decisions, Vec<(VerdictKey, CountedVerdict)>)>,
        is_there: impl Fn(&PolicyRef) -> bool,
        clock: &Clock,
    ) -> Vec<RuleSetHits> {
        let mut all = self.past.clone();
        for (decisions, counted) in in_use {
            add(&mut all, decisions, &counted, |_| true);
        }
        let there = all.into_iter().filter(|(decided, _)| {
            let rules = &decided.decision.rules;
            rules.is_empty() || rules.iter().any(|rule| is_there(&rule.policy))
        });
        there.map(|(decided, count)| decided.told(count, clock)).collect()
    }
}

fn add(
    all: &mut BTreeMap<Decided, Count>,
    decisions: &Decisions,
    counted: &[(VerdictKey, CountedVerdict)],
    wanted: impl Fn(&Count) -> bool,
) {
    // Many entries have one rule set: numbers are added up before names are looked at.
    let mut sums: BTreeMap<(u32, u8, u8), Count> = BTreeMap::new();
    for (key, value) in counted {
        let (packets, bytes) = (value.packets.get(), value.bytes.get());
        let last = if packets == 0 { 0 } else { value.last.get() };
        let sum = sums.entry((value.entry.rule_set, key.direction, value.entry.verdict)).or_default();
        sum.add(Count { packets, bytes, last });
    }
    for ((rule_set, direction, verdict), count) in sums.into_iter().filter(|(_, count)| wanted(count)) {
        if let Some(decision) = decisions.get(&rule_set) {
            all.entry(Decided { decision: decision.clone(), direction, verdict }).or_default().add(count);
        }
    }
}

impl Decided {
    fn told(&self, count: Count, clock: &Clock) -> RuleSetHits {
        let last = clock.wall(u64::from(count.last) * 1_000_000_000);
        let last = Timestamp::from_nanosecond(last.into()).ok().filter(|_| count.packets > 0);
        RuleSetHits {
            direction: if self.direction == DIR_INGRESS { "ingress" } else { "egress" }.into(),
            verdict: match self.verdict {
                VERDICT_ALLOW => "allow",
                VERDICT_REDIRECT => "redirect",
                VERDICT_DENY => "deny",
                VERDICT_DEFAULT_DENY => "default-deny",
                _ => "unknown",
            }
            .into(),
            implicit: self.decision.implicit.map(|implicit| implicit.name().into()),
            rules: self.decision.rules.iter().map(|rule| named(rule)).collect(),
            packets: count.packets,
            bytes: count.bytes,
            last_hit: last.and_then(|at| at.round(jiff::Unit::Second).ok()).map(|at| at.to_string()),
        }
    }
}

fn named(rule: &RuleOrigin) -> RuleName {
    RuleName {
        kind: rule.policy.kind.name().into(),
        namespace: rule.policy.namespace.clone(),
        name: rule.policy.name.clone(),
        uid: rule.uid.clone(),
        section: rule.section().into(),
        spec: rule.spec,
        index: rule.index,
        labels: rule.labels.to_strings(),
    }
}

/// What tests of rule sets begin with.
#[cfg(test)]
pub(crate) mod fixtures {
    use std::sync::Arc;

    use policy::{Direction, PolicyKind, PolicyRef, RuleOrigin};

    /// A rule of a policy in namespace `default`.
    pub fn rule(name: &str, index: usize) -> Arc<RuleOrigin> {
        Arc::new(RuleOrigin {
            policy: PolicyRef { kind: PolicyKind::CiliumNetworkPolicy, namespace: "default".into(), name: name.into() },
            uid: String::new(),
            direction: Direction::Ingress,
            deny: false,
            spec: 0,
            index,
            labels: Default::default(),
            log: String::new(),
            line: 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::fixtures::rule;
    use super::*;
    use abi::policy::VerdictEntry;

    fn decisions(all: &[(u32, &[&Arc<RuleOrigin>])]) -> Decisions {
        let decision = |rules: &[&Arc<RuleOrigin>]| Decision {
            implicit: None,
            rules: rules.iter().map(|rule| (*rule).clone()).collect(),
        };
        all.iter().map(|(number, rules)| (*number, decision(rules))).collect()
    }

    fn counted(port: u16, rule_set: u32, packets: u64, last: u32) -> (VerdictKey, CountedVerdict) {
        let key =
            VerdictKey { prefix_len: 64, class: 1, direction: DIR_INGRESS, protocol: 6, port: abi::Port::new(port) };
        let entry = VerdictEntry { rule_set, verdict: VERDICT_ALLOW, ..VerdictEntry::default() };
        let value = CountedVerdict::from(entry);
        (0..packets).for_each(|_| value.count(last, 60));
        (key, value)
    }

    #[test]
    fn counts_outlive_the_tables_and_go_with_the_policy() {
        let (one, other) = (rule("one", 0), rule("other", 3));
        let mut hits = Hits::default();
        let before = decisions(&[(7, &[&one]), (8, &[&one, &other])]);
        hits.keep(&before, &[counted(80, 7, 2, 100), counted(81, 7, 3, 90), counted(82, 8, 0, 0)]);
        // the same rules under another number
        let now = decisions(&[(9, &[&one]), (10, &[&other])]);
        let clock = Clock::new(1_000_000_000_000_000_000, 0);
        let report = |hits: &Hits, there: &dyn Fn(&PolicyRef) -> bool| {
            let in_use = [(&now, vec![counted(80, 9, 4, 120), counted(443, 10, 0, 0)])];
            let told = hits.report(in_use, there, &clock);
            told.into_iter()
                .map(|set| (set.rules[0].name.clone(), set.packets, set.bytes, set.last_hit))
                .collect::<Vec<_>>()
        };
        let all = report(&hits, &|_| true);
        let last = Some("2001-09-09T01:48:40Z".to_owned());
        assert_eq!(all, [("one".to_owned(), 9, 540, last), ("other".to_owned(), 0, 0, None)]);
        let left = report(&hits, &|policy| policy.name == "other");
        assert_eq!(left, [("other".to_owned(), 0, 0, None)]);
    }

    #[test]
    fn what_was_hit_longest_ago_is_forgotten_first() {
        let mut hits = Hits::default();
        for at in 0..=MOST_PAST {
            let decisions = decisions(&[(1, &[&rule("churn", at)])]);
            hits.keep(&decisions, &[counted(80, 1, 1, at as u32)]);
        }
        assert_eq!(hits.past.len(), MOST_PAST / 2);
        assert!(hits.past.values().all(|count| count.last > (MOST_PAST / 2) as u32));
    }
}
