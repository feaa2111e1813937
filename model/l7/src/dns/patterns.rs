//! Does any of many names and patterns allow a name?
//!
//! A name is looked up, and of the patterns only those are tried whose last labels, up to the last star, are the name's.

use std::collections::{HashMap, HashSet};

use crate::dns::names::{canonical_name, name_matches};

/// Names and patterns of names.
#[derive(Clone, Debug, Default)]
pub struct Patterns {
    exact: HashSet<Box<str>>,
    /// By their last labels, as many as have no star.
    by_ending: HashMap<Box<str>, Vec<Box<str>>>,
    /// The most labels of such an ending.
    most_labels: usize,
    /// A star in the last label.
    others: Vec<Box<str>>,
}

impl Patterns {
    /// Of names (`matchName`) and patterns (`matchPattern`), in any writing.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>, patterns: impl IntoIterator<Item = &'a str>) -> Patterns {
        let mut all = Patterns::default();
        all.exact.extend(names.into_iter().map(|name| canonical_name(name).into_boxed_str()));
        for pattern in patterns {
            let pattern = canonical_name(pattern);
            if !pattern.contains('*') {
                all.exact.insert(pattern.into());
                continue;
            }
            match ending(&pattern) {
                Some(ending) => {
                    all.most_labels = all.most_labels.max(ending.split('.').count());
                    all.by_ending.entry(ending.into()).or_default().push(pattern.into());
                }
                None => all.others.push(pattern.into()),
            }
        }
        all
    }

    /// True if one of them allows the name, which is in canonical form.
    pub fn allow(&self, name: &str) -> bool {
        self.matching(name).next().is_some()
    }

    /// Those that mean the name, which is in canonical form, as they are in canonical form.
    pub fn matching<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        // A name with characters that no pattern matches is allowed by itself alone.
        let exact = self.exact.get(name).into_iter();
        let same_ending =
            endings(name).take(self.most_labels).filter_map(|ending| self.by_ending.get(ending)).flatten();
        let patterns = same_ending.chain(&self.others).filter(move |pattern| name_matches(pattern, name));
        exact.chain(patterns).map(AsRef::as_ref)
    }
}

/// The labels behind the last one with a star.
fn ending(pattern: &str) -> Option<&str> {
    let star = pattern.rfind('*')?;
    let dot = pattern[star..].find('.')?;
    Some(&pattern[star + dot + 1..])
}

/// The last label, the last two, and so on.
fn endings(name: &str) -> impl Iterator<Item = &str> {
    name.rmatch_indices('.').map(|(dot, _)| &name[dot + 1..]).chain([name])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_and_patterns_of_any_ending_are_found() {
        let all = Patterns::new(
            ["API.example.com."],
            ["*.cilium.io", "**.deep.org", "*", "a*.b"].iter().copied().filter(|p| *p != "*"),
        );
        for name in ["api.example.com", "www.cilium.io", "x.y.deep.org", "ab.b"] {
            assert!(all.allow(name), "{name}");
        }
        for name in ["example.com", "cilium.io", "a.www.cilium.io", "deep.org", "b.b", ""] {
            assert!(!all.allow(name), "{name}");
        }
        assert!(Patterns::new([], ["*"]).allow("anything.at.all"));
        assert!(!Patterns::default().allow("a.b"));
    }

    proptest! {
        /// Against asking each pattern by itself.
        #[test]
        fn no_pattern_is_missed_or_made_up(
            patterns in prop::collection::vec("(\\*\\*\\.)?[ab*]{0,2}(\\.[ab*]{0,2}){0,3}", 0..6),
            name in "[ab]{0,2}(\\.[ab]{0,2}){0,4}",
        ) {
            let all = Patterns::new([], patterns.iter().map(String::as_str));
            let name = canonical_name(&name);
            let plain = patterns.iter().map(|pattern| canonical_name(pattern)).any(|pattern| {
                if pattern.contains('*') { name_matches(&pattern, &name) } else { pattern == name }
            });
            prop_assert_eq!(all.allow(&name), plain);
            prop_assert!(all.matching(&name).all(|one| patterns.iter().any(|pattern| canonical_name(pattern) == one)));
        }
    }
}
