//! Can an address be learned for some names and patterns and not for others?

use std::collections::BTreeMap;

use policy::Learned;

use crate::language::{Found, Language, find};

/// As policies have it.
pub fn text(learned: &Learned) -> String {
    match learned {
        Learned::Name(name) | Learned::Pattern(name) => name.clone(),
        other => format!("{other:?}"),
    }
}

/// True if an address has names for which it is learned just so. What cannot be told counts as possible: it only
/// makes more cases.
pub fn possible(learned: &BTreeMap<Learned, bool>) -> bool {
    names(learned, |found| *found != Found::Nothing).is_some()
}

/// Names of an address that is learned just so.
pub fn examples(learned: &BTreeMap<Learned, bool>) -> Vec<String> {
    let names = names(learned, |_| true).unwrap_or_default();
    let mut names: Vec<String> = names
        .into_iter()
        .filter_map(|found| match found {
            Found::Text(name) => Some(name),
            Found::Nothing | Found::TooLarge => None,
        })
        .collect();
    names.sort();
    names.dedup();
    names
}

/// A name for each that it is learned for, and that is none of the others; `None` if one is not as wanted.
fn names(learned: &BTreeMap<Learned, bool>, wanted: impl Fn(&Found) -> bool) -> Option<Vec<Found>> {
    let not: Vec<&Learned> = learned.iter().filter(|(_, is)| !**is).map(|(one, _)| one).collect();
    let mut not_languages = None;
    let mut found = Vec::new();
    for (one, _) in learned.iter().filter(|(_, is)| **is) {
        let name = match one {
            Learned::Name(name) => {
                let excluded = not.iter().any(|other| other.means(name));
                if excluded { Found::Nothing } else { Found::Text(name.clone()) }
            }
            Learned::Pattern(pattern) => {
                let not = not_languages.get_or_insert_with(|| {
                    not.iter().map(|other| Language::of_names(&text(other))).collect::<Option<Vec<_>>>()
                });
                // A name has a letter at least.
                let proper = Language::of_pattern("[a-z0-9][-_a-z0-9]*(\\.[-_a-z0-9]+)*");
                match (Language::of_names(pattern), proper, not) {
                    (Some(language), Some(proper), Some(not)) => {
                        find(&[&language, &proper], &not.iter().collect::<Vec<_>>())
                    }
                    _ => Found::TooLarge,
                }
            }
            Learned::Group(..) | Learned::Groups(..) | Learned::Service(..) | Learned::Services(..) => Found::TooLarge,
        };
        if !wanted(&name) {
            return None;
        }
        found.push(name);
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(is: &[&str], is_not: &[&str], expected: bool) {
        let one = |name: &&str| match name.contains('*') {
            true => Learned::Pattern((*name).to_owned()),
            false => Learned::Name((*name).to_owned()),
        };
        let learned = is.iter().map(|name| (one(name), true)).chain(is_not.iter().map(|name| (one(name), false)));
        let learned: BTreeMap<Learned, bool> = learned.collect();
        assert_eq!(possible(&learned), expected, "{learned:?}");
        if expected {
            assert!(!examples(&learned).is_empty());
        }
    }

    #[test]
    fn patterns_hold_for_the_names_in_them() {
        check(&["a.x.io"], &["*.x.io"], false);
        check(&["*.x.io"], &["a.x.io"], true);
        check(&["*.x.io"], &["**.x.io"], false);
        check(&["**.x.io"], &["*.x.io"], true);
        check(&["a.b", "c.d"], &["e.f"], true);
    }
}
