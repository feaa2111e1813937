//! Is there a text that some patterns match and others do not?

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use regex_automata::dfa::{Automaton, StartKind, dense};
use regex_automata::nfa::thompson;
use regex_automata::util::primitives::StateID;
use regex_automata::{Anchored, MatchKind};

/// So many states of an automaton at most, in bytes.
const LARGEST: usize = 8 << 20;
/// So many states of several automata together are looked at.
const MOST: usize = 60_000;

/// The texts that a pattern matches as a whole. Clones share it.
#[derive(Clone)]
pub struct Language(Arc<dense::DFA<Vec<u32>>>);

/// What a search came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Found {
    /// This text does.
    Text(String),
    /// None does.
    Nothing,
    /// The automata are too large to tell.
    TooLarge,
}

impl Language {
    /// Of a pattern in RE2's dialect.
    pub fn of_pattern(pattern: &str) -> Option<Language> {
        let hir = l7::re2::whole(pattern).ok()?;
        let nfa = thompson::Compiler::new()
            .configure(thompson::Config::new().utf8(false).nfa_size_limit(Some(LARGEST)))
            .build_from_hir(&hir)
            .ok()?;
        let limits = dense::Config::new()
            .start_kind(StartKind::Anchored)
            .match_kind(MatchKind::All)
            .dfa_size_limit(Some(LARGEST))
            .determinize_size_limit(Some(LARGEST));
        dense::Builder::new().configure(limits).build_from_nfa(&nfa).ok().map(|dfa| Language(Arc::new(dfa)))
    }

    /// Of a pattern of DNS names, in canonical form.
    pub fn of_names(pattern: &str) -> Option<Language> {
        Language::of_pattern(&names_as_pattern(pattern))
    }

    fn start(&self) -> Option<StateID> {
        self.0.universal_start_state(Anchored::Yes).or_else(|| {
            let config = regex_automata::util::start::Config::new().anchored(Anchored::Yes);
            self.0.start_state(&config).ok()
        })
    }

    fn accepts_at(&self, state: StateID) -> bool {
        self.0.is_match_state(self.0.next_eoi_state(state))
    }
}

/// A shortest text that all of the first match and none of the others.
pub fn find(must: &[&Language], must_not: &[&Language]) -> Found {
    let all: Vec<&Language> = must.iter().chain(must_not).copied().collect();
    let Some(first) = all.iter().map(|one| one.start()).collect::<Option<Vec<_>>>() else { return Found::TooLarge };
    let accepts = |states: &[StateID]| {
        let mut each = all.iter().zip(states).map(|(one, state)| one.accepts_at(*state));
        each.by_ref().take(must.len()).all(|is| is) && !each.any(|is| is)
    };
    if accepts(&first) {
        return Found::Text(String::new());
    }
    let alphabet = alphabet(&all);
    // Each state with where it was come from, and by which byte.
    let mut known: HashMap<Vec<StateID>, (usize, u8)> = HashMap::from([(first.clone(), (usize::MAX, 0))]);
    let mut order = vec![first.clone()];
    let mut queue = VecDeque::from([0_usize]);
    while let Some(at) = queue.pop_front() {
        for byte in &alphabet {
            let states = order[at].clone();
            let next: Vec<StateID> =
                all.iter().zip(&states).map(|(one, state)| one.0.next_state(*state, *byte)).collect();
            let hopeless = all[..must.len()].iter().zip(&next).any(|(one, state)| one.0.is_dead_state(*state));
            if hopeless || known.contains_key(&next) {
                continue;
            }
            known.insert(next.clone(), (at, *byte));
            if accepts(&next) {
                return Found::Text(text(&known, &order, next));
            }
            if order.len() >= MOST {
                return Found::TooLarge;
            }
            queue.push_back(order.len());
            order.push(next);
        }
    }
    Found::Nothing
}

fn text(known: &HashMap<Vec<StateID>, (usize, u8)>, order: &[Vec<StateID>], last: Vec<StateID>) -> String {
    let mut bytes = Vec::new();
    let mut state = last;
    while let Some((from, byte)) = known.get(&state).filter(|(from, _)| *from != usize::MAX) {
        bytes.push(*byte);
        state.clone_from(&order[*from]);
    }
    bytes.reverse();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// One byte for each class that no automaton tells apart, preferably one that reads well.
fn alphabet(all: &[&Language]) -> Vec<u8> {
    let usual = (b'a'..=b'z').chain(b'A'..=b'Z').chain(b'0'..=b'9').chain(*b"/-.");
    let mut classes: HashMap<Vec<u8>, u8> = HashMap::new();
    let mut bytes = Vec::new();
    for byte in usual.chain(0..=u8::MAX) {
        let class: Vec<u8> = all.iter().map(|one| one.0.byte_classes().get(byte)).collect();
        if classes.insert(class, byte).is_none() {
            bytes.push(byte);
        }
    }
    bytes
}

/// A pattern of DNS names as a regular expression.
fn names_as_pattern(pattern: &str) -> String {
    const IN_LABEL: &str = "[-_a-z0-9]";
    if pattern == "*" {
        return "[-_.a-z0-9]*".to_owned();
    }
    let (mut expression, rest) = match pattern.strip_prefix("**.") {
        Some(rest) => (format!("({IN_LABEL}+\\.)+"), rest),
        None => (String::new(), pattern),
    };
    for one in rest.chars() {
        match one {
            '*' => expression.push_str(&format!("{IN_LABEL}*")),
            one if one.is_ascii_alphanumeric() || one == '_' => expression.push(one),
            one => {
                expression.push('\\');
                expression.push(one);
            }
        }
    }
    expression
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check(must: &[&str], must_not: &[&str], found: Option<&str>) {
        let of = |patterns: &[&str]| -> Vec<Language> {
            patterns.iter().map(|pattern| Language::of_pattern(pattern).unwrap()).collect()
        };
        let (must, must_not) = (of(must), of(must_not));
        let (must, must_not): (Vec<&Language>, Vec<&Language>) = (must.iter().collect(), must_not.iter().collect());
        let text = match find(&must, &must_not) {
            Found::Text(text) => Some(text),
            Found::Nothing => None,
            Found::TooLarge => panic!("too large"),
        };
        assert_eq!(text.as_deref(), found);
    }

    #[test]
    fn a_text_is_found_just_if_there_is_one() {
        check(&["/a.*"], &["/ab?"], Some("/aa"));
        check(&["/a|/b"], &["/[ab]"], None);
        check(&["GET|PUT"], &["GET"], Some("PUT"));
        check(&["a*", "b*"], &[], Some(""));
        check(&["a+", "b+"], &[], None);
        check(&[".*"], &[".+"], Some(""));
        check(&["(?i)get"], &["GET"], Some("get"));
    }

    #[test]
    fn patterns_of_names_mean_what_the_engine_says() {
        let patterns = ["*", "a.b", "*.x.io", "**.x.io", "*x.io", "a*.*", "a-b.c_d"];
        let names = ["a.b", "x.io", "a.x.io", "a.b.x.io", "ax.io", "ab.c", "a-b.c_d", "axb", "", "aa.", ".x.io"];
        for pattern in patterns {
            let language = Language::of_names(pattern).unwrap();
            for name in names {
                let literal: String = name.chars().map(|one| format!("[{one}]")).collect();
                let literal = Language::of_pattern(&literal.replace("[-]", "\\-")).unwrap();
                let is = find(&[&language, &literal], &[]) != Found::Nothing;
                assert_eq!(is, policy::name_matches(pattern, name), "{pattern} {name:?}");
            }
        }
    }
}
