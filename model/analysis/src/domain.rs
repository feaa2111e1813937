//! Which values may a label have?

use std::collections::BTreeSet;

use labels::Operator;

/// What a label's value may be.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Domain {
    /// It may be absent.
    pub absent: bool,
    /// These alone, or all but these.
    pub values: BTreeSet<String>,
    /// True for these alone.
    pub only: bool,
}

impl Domain {
    pub(crate) const ANYTHING: Domain = Domain { absent: true, values: BTreeSet::new(), only: false };

    pub(crate) fn present() -> Domain {
        Domain { absent: false, ..Domain::ANYTHING }
    }

    pub(crate) fn absent() -> Domain {
        Domain { absent: true, values: BTreeSet::new(), only: true }
    }

    pub(crate) fn one_of(values: &[String]) -> Domain {
        Domain { absent: false, values: values.iter().cloned().collect(), only: true }
    }

    pub(crate) fn none_of(values: &[String]) -> Domain {
        Domain { absent: true, values: values.iter().cloned().collect(), only: false }
    }

    pub(crate) fn and(&self, other: &Domain) -> Option<Domain> {
        let (values, only) = match (self.only, other.only) {
            (true, true) => (self.values.intersection(&other.values).cloned().collect(), true),
            (true, false) => (self.values.difference(&other.values).cloned().collect(), true),
            (false, true) => (other.values.difference(&self.values).cloned().collect(), true),
            (false, false) => (self.values.union(&other.values).cloned().collect(), false),
        };
        let both = Domain { absent: self.absent && other.absent, values, only };
        (both.absent || !both.only || !both.values.is_empty()).then_some(both)
    }

    pub(crate) fn meets(&self, other: &Domain) -> bool {
        self.absent && other.absent
            || match (self.only, other.only) {
                (true, true) => !self.values.is_disjoint(&other.values),
                (true, false) => !self.values.is_subset(&other.values),
                (false, true) => !other.values.is_subset(&self.values),
                (false, false) => true,
            }
    }

    pub(crate) fn or(&self, other: &Domain) -> Domain {
        let (values, only) = match (self.only, other.only) {
            (true, true) => (self.values.union(&other.values).cloned().collect(), true),
            (true, false) => (other.values.difference(&self.values).cloned().collect(), false),
            (false, true) => (self.values.difference(&other.values).cloned().collect(), false),
            (false, false) => (self.values.intersection(&other.values).cloned().collect(), false),
        };
        Domain { absent: self.absent || other.absent, values, only }
    }

    /// A value that fits; `None`: the label is not there.
    pub(crate) fn example(&self) -> Option<String> {
        if self.only {
            return self.values.first().cloned();
        }
        if self.absent {
            return None;
        }
        let names = (1..).map(|n| if n == 1 { "other".to_owned() } else { format!("other-{n}") });
        names.into_iter().find(|name| !self.values.contains(name))
    }

    pub(crate) fn describe(&self, key: &str) -> String {
        let values = || self.values.iter().cloned().collect::<Vec<_>>().join("|");
        match (self.absent, self.only, self.values.is_empty()) {
            (true, true, true) => format!("without {key}"),
            (false, false, true) => format!("with {key}"),
            (true, false, true) => String::new(),
            (false, true, _) => format!("{key}={}", values()),
            (true, true, false) => format!("{key}={} or without", values()),
            (false, false, false) => format!("{key} other than {}", values()),
            (true, false, false) => format!("{key} not {}", values()),
        }
    }
}

/// What an operator asks, and the opposite of it.
pub(crate) fn domains(operator: &Operator) -> (Domain, Domain) {
    match operator {
        Operator::In(values) => (Domain::one_of(values), Domain::none_of(values)),
        Operator::NotIn(values) => (Domain::none_of(values), Domain::one_of(values)),
        Operator::Exists => (Domain::present(), Domain::absent()),
        Operator::DoesNotExist => (Domain::absent(), Domain::present()),
    }
}
