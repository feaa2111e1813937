//! Which of many patterns match a text?

use regex_automata::meta;
use regex_automata::{Input, PatternSet as Matches};

use super::{PatternError, compile, whole};

/// Distinct patterns, asked in one pass over the text, however many they are.
#[derive(Debug, Clone, Default)]
pub struct PatternSet {
    texts: Vec<String>,
    regex: Option<meta::Regex>,
}

impl PatternSet {
    /// Compiles these. The numbers of [`matches`](Self::matches) are their places.
    pub fn new(texts: Vec<String>) -> Result<PatternSet, PatternError> {
        let parsed = texts.iter().map(|text| whole(text)).collect::<Result<Vec<_>, _>>()?;
        let regex = match parsed.as_slice() {
            [] => None,
            all => Some(compile(all).map_err(|why| PatternError { pattern: texts.join(" | "), why })?),
        };
        Ok(PatternSet { texts, regex })
    }

    /// As they were written.
    pub fn texts(&self) -> &[String] {
        &self.texts
    }

    /// Calls with the place of each pattern that the whole of the text matches, in order.
    pub fn matches(&self, text: &[u8]) -> Matching {
        let mut found = Matches::new(self.texts.len());
        if let Some(regex) = &self.regex {
            regex.which_overlapping_matches(&Input::new(text), &mut found);
        }
        Matching(found)
    }
}

/// The patterns of a set that matched.
#[derive(Debug, Clone)]
pub struct Matching(Matches);

impl Matching {
    /// Whether the pattern at this place did.
    pub fn has(&self, place: usize) -> bool {
        regex_automata::PatternID::new(place).is_ok_and(|id| self.0.contains(id))
    }
}
