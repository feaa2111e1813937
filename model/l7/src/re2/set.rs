//! Which of many patterns match a text?

use regex_automata::meta;
use regex_automata::{Input, PatternID, PatternSet as Matches};
use regex_syntax::hir::Hir;

use super::{PatternError, compile, refuse, whole};

/// Distinct patterns, asked in one pass over the text, however many they are. A bad one matches nothing.
#[derive(Debug, Clone, Default)]
pub struct PatternSet {
    count: usize,
    regexes: Regexes,
}

#[derive(Debug, Clone, Default)]
enum Regexes {
    #[default]
    None,
    /// All in one.
    One(meta::Regex),
    /// One by one, where together they are too large. Bad ones are `None`.
    Each(Vec<Option<meta::Regex>>),
}

impl PatternSet {
    /// Compiles these. The numbers of [`matches`](Self::matches) are their places.
    pub fn new(texts: Vec<String>) -> (PatternSet, Vec<PatternError>) {
        let mut problems = Vec::new();
        let parsed: Vec<Hir> = texts
            .iter()
            .map(|text| {
                whole(text).unwrap_or_else(|problem| {
                    problems.push(problem);
                    Hir::fail()
                })
            })
            .collect();
        let regexes = match parsed.as_slice() {
            [] => Regexes::None,
            all => compile(all).map_or_else(|_| each(&texts, all, &mut problems), Regexes::One),
        };
        (PatternSet { count: texts.len(), regexes }, problems)
    }

    /// Which patterns the whole of the text matches.
    pub fn matches(&self, text: &[u8]) -> Matching {
        let mut found = Matches::new(self.count);
        match &self.regexes {
            Regexes::None => {}
            Regexes::One(regex) => regex.which_overlapping_matches(&Input::new(text), &mut found),
            Regexes::Each(regexes) => {
                for (place, regex) in regexes.iter().enumerate() {
                    if let (Some(regex), Ok(id)) = (regex, PatternID::new(place))
                        && regex.is_match(text)
                    {
                        found.insert(id);
                    }
                }
            }
        }
        Matching(found)
    }
}

fn each(texts: &[String], parsed: &[Hir], problems: &mut Vec<PatternError>) -> Regexes {
    let one = |(text, hir): (&String, &Hir)| {
        compile(std::slice::from_ref(hir)).map_err(|why| problems.push(refuse(text, why))).ok()
    };
    Regexes::Each(texts.iter().zip(parsed).map(one).collect())
}

/// The patterns of a set that matched.
#[derive(Debug, Clone)]
pub struct Matching(Matches);

impl Matching {
    /// Whether the pattern at this place did.
    pub fn has(&self, place: usize) -> bool {
        PatternID::new(place).is_ok_and(|id| self.0.contains(id))
    }
}
