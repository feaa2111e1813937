//! Does a selector match a set of labels?

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::{Labels, source, validate};

/// The key of a requirement: `k8s:app`, `reserved:host`; without a source, or with `any:`, labels of all sources.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SelectorKey {
    /// One of [`source`]; [`source::ANY`] for all.
    pub source: String,
    /// The label's key.
    pub key: String,
}

/// What a requirement asks of a key's value.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Operator {
    /// There, with one of these values.
    In(Vec<String>),
    /// Not there, or with none of these values.
    NotIn(Vec<String>),
    /// There.
    Exists,
    /// Not there.
    DoesNotExist,
}

/// One condition.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Requirement {
    /// Of which label.
    pub key: SelectorKey,
    /// What is asked of it.
    pub operator: Operator,
}

/// Conditions that must all hold. Without any it matches everything. Equal meanings of equal form are equal. Cloning
/// copies a pointer.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Selector {
    requirements: Arc<[Requirement]>,
}

/// Why something is not a selector.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SelectorError {
    /// The key of a requirement.
    #[error("invalid label selector: {0}")]
    Key(String),
    /// The value of a requirement.
    #[error("invalid label selector: value of {key}: {why}")]
    Value {
        /// The requirement's key.
        key: String,
        /// What is wrong.
        why: String,
    },
    /// The name of the operator.
    #[error("invalid label selector: {found:?} is not an operator; one of In, NotIn, Exists, DoesNotExist is")]
    Operator {
        /// What was found.
        found: String,
    },
    /// `In` and `NotIn` need values.
    #[error("invalid label selector: values of {key} must be specified when operator is In or NotIn")]
    ValuesMissing {
        /// The requirement's key.
        key: String,
    },
    /// `Exists` and `DoesNotExist` take none.
    #[error("invalid label selector: values of {key} may not be specified when operator is Exists or DoesNotExist")]
    ValuesGiven {
        /// The requirement's key.
        key: String,
    },
}

impl SelectorKey {
    /// A key from its parts.
    pub fn new(source: impl Into<String>, key: impl Into<String>) -> Self {
        SelectorKey { source: source.into(), key: key.into() }
    }
}

impl FromStr for SelectorKey {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let (source, key) = match text.split_once(':') {
            Some(("", key)) => (source::ANY, key),
            Some((source, key)) => (source, key),
            None => match text.strip_prefix('$') {
                Some(key) => (source::RESERVED, key),
                None => (source::ANY, text),
            },
        };
        if let Some(why) = validate::key_problem(key).or_else(|| validate::key_problem(source)) {
            return Err(SelectorError::Key(why));
        }
        Ok(SelectorKey::new(source, key))
    }
}

impl fmt::Display for SelectorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.source, self.key)
    }
}

impl Operator {
    /// Reads the operator of a match expression of this key.
    pub fn parse(key: &str, name: &str, values: &[String]) -> Result<Self, SelectorError> {
        let key = || key.to_owned();
        let wanted = matches!(name, "In" | "NotIn");
        if wanted && values.is_empty() {
            return Err(SelectorError::ValuesMissing { key: key() });
        }
        if !wanted && matches!(name, "Exists" | "DoesNotExist") && !values.is_empty() {
            return Err(SelectorError::ValuesGiven { key: key() });
        }
        if let Some(why) = values.iter().find_map(|value| validate::value_problem(value)) {
            return Err(SelectorError::Value { key: key(), why });
        }
        let mut values = values.to_vec();
        values.sort();
        values.dedup();
        match name {
            "In" => Ok(Operator::In(values)),
            "NotIn" => Ok(Operator::NotIn(values)),
            "Exists" => Ok(Operator::Exists),
            "DoesNotExist" => Ok(Operator::DoesNotExist),
            _ => Err(SelectorError::Operator { found: name.to_owned() }),
        }
    }
}

impl Requirement {
    /// True if the labels fulfil it.
    pub fn matches(&self, labels: &Labels) -> bool {
        if self.key.source == source::ANY {
            return self.is_fulfilled_by(labels.get_any(&self.key.key));
        }
        self.is_fulfilled_by(labels.get(&self.key.source, &self.key.key).into_iter())
    }

    fn is_fulfilled_by<'a>(&self, mut values: impl Iterator<Item = &'a str>) -> bool {
        match &self.operator {
            Operator::In(wanted) => values.any(|value| wanted.iter().any(|one| one == value)),
            Operator::NotIn(unwanted) => !values.any(|value| unwanted.iter().any(|one| one == value)),
            Operator::Exists => values.next().is_some(),
            Operator::DoesNotExist => values.next().is_none(),
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.operator {
            Operator::In(values) if values.len() == 1 => write!(f, "{}={}", self.key, values[0]),
            Operator::In(values) => write!(f, "{} in ({})", self.key, values.join(",")),
            Operator::NotIn(values) => write!(f, "{} notin ({})", self.key, values.join(",")),
            Operator::Exists => self.key.fmt(f),
            Operator::DoesNotExist => write!(f, "!{}", self.key),
        }
    }
}

impl Selector {
    /// Matches everything.
    pub fn everything() -> Self {
        Selector::default()
    }

    /// All of these must hold.
    pub fn new(requirements: impl IntoIterator<Item = Requirement>) -> Self {
        let mut requirements: Vec<Requirement> = requirements.into_iter().collect();
        requirements.sort();
        requirements.dedup();
        Selector { requirements: requirements.into() }
    }

    /// Matches what has the label `reserved:key`.
    pub fn reserved(key: &str) -> Self {
        Selector::everything().and(SelectorKey::new(source::RESERVED, key), Operator::Exists)
    }

    /// This and one more condition.
    pub fn and(self, key: SelectorKey, operator: Operator) -> Self {
        Selector::new(self.requirements.iter().cloned().chain([Requirement { key, operator }]))
    }

    /// This and `source:key=value`.
    pub fn and_label(self, source: &str, key: &str, value: &str) -> Self {
        self.and(SelectorKey::new(source, key), Operator::In(vec![value.to_owned()]))
    }

    /// True if the labels fulfil all conditions.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.requirements.iter().all(|requirement| requirement.matches(labels))
    }

    /// The conditions, sorted.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// True if it matches everything.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// True if a condition is about this label of this source (literally: `any:` is a source of its own here).
    pub fn has_key(&self, source: &str, key: &str) -> bool {
        self.requirements.iter().any(|one| one.key.source == source && one.key.key == key)
    }

    /// True if a condition is about a label of this source whose key starts so.
    pub fn has_key_prefix(&self, source: &str, prefix: &str) -> bool {
        self.requirements.iter().any(|one| one.key.source == source && one.key.key.starts_with(prefix))
    }
}

/// `k8s:app=web,!k8s:test`; `everything` for the empty one.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_everything() {
            return f.write_str("everything");
        }
        for (at, requirement) in self.requirements.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            requirement.fmt(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn selector(key: &str, operator: &str, values: &[&str]) -> Selector {
        let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
        Selector::everything().and(key.parse().unwrap(), Operator::parse(key, operator, &values).unwrap())
    }

    fn check(selector: &Selector, labels: &[&str], expected: bool) {
        let labels = Labels::parse(labels.iter().copied()).unwrap();
        assert_eq!(selector.matches(&labels), expected, "{selector} on {labels}");
    }

    #[test]
    fn operators_mean_what_kubernetes_means() {
        check(&selector("app", "In", &["a", "b"]), &["k8s:app=b"], true);
        check(&selector("app", "In", &["a", "b"]), &["k8s:app=c"], false);
        check(&selector("app", "In", &["a"]), &[], false);
        check(&selector("app", "NotIn", &["a"]), &["k8s:app=a"], false);
        check(&selector("app", "NotIn", &["a"]), &["k8s:app=b"], true);
        check(&selector("app", "NotIn", &["a"]), &[], true);
        check(&selector("app", "Exists", &[]), &["k8s:app"], true);
        check(&selector("app", "Exists", &[]), &[], false);
        check(&selector("app", "DoesNotExist", &[]), &[], true);
        check(&selector("app", "DoesNotExist", &[]), &["k8s:app=x"], false);
    }

    #[test]
    fn a_source_is_part_of_the_key_unless_any() {
        check(&selector("k8s:app", "Exists", &[]), &["node:app=x"], false);
        check(&selector("any:app", "Exists", &[]), &["node:app=x"], true);
        check(&selector("app", "Exists", &[]), &["node:app=x"], true);
        check(&selector("reserved:host", "Exists", &[]), &["reserved:host"], true);
        check(&selector("$host", "Exists", &[]), &["reserved:host"], true);
        check(&selector("cidr:10.0.0.0/8", "Exists", &[]), &["cidr:10.0.0.0/8"], true);
    }

    #[test]
    fn everything_matches_nothing_too() {
        check(&Selector::everything(), &[], true);
    }

    #[test]
    fn equal_selectors_are_equal_whatever_their_order() {
        let one = selector("a", "In", &["1", "2"]).and("b".parse().unwrap(), Operator::Exists);
        let two = selector("b", "Exists", &[]).and("a".parse().unwrap(), Operator::In(vec!["1".into(), "2".into()]));
        assert_eq!(one, two);
    }

    #[test]
    fn wrong_selectors_say_what_is_wrong() {
        let refused = |key: &str, operator: &str, values: &[&str]| {
            let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
            match key.parse::<SelectorKey>() {
                Err(error) => error.to_string(),
                Ok(_) => Operator::parse(key, operator, &values).unwrap_err().to_string(),
            }
        };
        assert!(refused("a b", "Exists", &[]).contains("not a label key"));
        assert!(refused("app", "Is", &["x"]).contains("one of In, NotIn"));
        assert!(refused("app", "In", &[]).contains("must be specified"));
        assert!(refused("app", "Exists", &["x"]).contains("may not be specified"));
        assert!(refused("app", "In", &["a/b"]).contains("not a label value"));
    }
}
