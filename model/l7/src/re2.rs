//! Does a whole text match a regular expression in RE2's dialect, as policies mean it?
//!
//! Cilium checks patterns with Go's `regexp` and matches them with RE2 in Envoy. Both read one grammar
//! (RE2's `doc/syntax.txt`), which the `regex` crate does not: it gives `\<`, `[a&&b]` and `/{id}` other meanings and
//! accepts what RE2 refuses. So the grammar is read here, and only matching is the crate's.

mod class;
mod parse;
mod set;

pub use set::{Matching, PatternSet};

use regex_automata::{MatchKind, meta};
use regex_syntax::hir::{Hir, Look};

/// Bytes of a pattern.
pub const LONGEST: usize = 64 << 10;
/// Bytes that a compiled pattern may take.
const LARGEST: usize = 4 << 20;

/// A pattern that is no regular expression, or a too large one.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
#[error("invalid regular expression {pattern:?}: {why}")]
pub struct PatternError {
    /// The pattern; its beginning if it is long.
    pub pattern: String,
    /// What is wrong with it, and where.
    pub why: String,
}

/// A compiled pattern. Clones share it.
#[derive(Debug, Clone)]
pub struct Pattern {
    text: String,
    regex: meta::Regex,
}

impl Pattern {
    /// Compiles a pattern that the whole of a text has to match.
    pub fn new(text: &str) -> Result<Pattern, PatternError> {
        let regex = compile(&[whole(text)?]).map_err(|why| refuse(text, why))?;
        Ok(Pattern { text: text.to_owned(), regex })
    }

    /// Whether the whole of it matches.
    pub fn matches(&self, text: impl AsRef<[u8]>) -> bool {
        self.regex.is_match(text.as_ref())
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

fn refuse(text: &str, why: String) -> PatternError {
    PatternError { pattern: text.chars().take(200).collect(), why }
}

/// A pattern that the whole of a text has to match.
pub fn whole(text: &str) -> Result<Hir, PatternError> {
    if text.len() > LONGEST {
        return Err(refuse(text, format!("it has {} bytes and may have at most {LONGEST}", text.len())));
    }
    let hir = parse::parse(text).map_err(|why| refuse(text, why))?;
    Ok(Hir::concat(vec![Hir::look(Look::Start), hir, Hir::look(Look::End)]))
}

fn compile(patterns: &[Hir]) -> Result<meta::Regex, String> {
    let limits = meta::Config::new()
        .match_kind(MatchKind::All)
        .utf8_empty(false)
        .nfa_size_limit(Some(LARGEST))
        .hybrid_cache_capacity(1 << 20);
    let regex = meta::Builder::new().configure(limits).build_many_from_hir(patterns);
    regex.map_err(|_| format!("compiled it takes more than {LARGEST} bytes"))
}

#[cfg(test)]
mod tests;
