//! Does a name match a pattern with asterisks, or a regular expression?

use regex::Regex;

use super::FilterError;

/// Any name.
const NAME: &str = r"(?:[-0-9_a-z]+(?:\.[-0-9_a-z]+)*)";

/// One expression for all patterns of DNS names.
pub(super) fn dns_names(patterns: &[String]) -> Result<Regex, FilterError> {
    let parts = patterns.iter().map(|pattern| dns_name(pattern)).collect::<Result<Vec<_>, _>>()?;
    whole(&parts)
}

/// One expression for all patterns of node names: `[CLUSTER/]NODE`, where an empty part matches all.
pub(super) fn node_names(patterns: &[String]) -> Result<Regex, FilterError> {
    let parts = patterns.iter().map(|pattern| node_name(pattern)).collect::<Result<Vec<_>, _>>()?;
    whole(&parts)
}

/// Regular expressions that may match anywhere.
pub(super) fn expressions(what: &'static str, patterns: &[String]) -> Result<Vec<Regex>, FilterError> {
    let compile =
        |text: &String| Regex::new(text).map_err(|error| FilterError::Expression { what, why: error.to_string() });
    patterns.iter().map(compile).collect()
}

fn whole(parts: &[String]) -> Result<Regex, FilterError> {
    let text = format!(r"\A(?:{})\z", parts.join("|"));
    Regex::new(&text).map_err(|error| FilterError::Expression { what: "name pattern", why: error.to_string() })
}

fn invalid(text: &str, why: impl Into<String>) -> FilterError {
    FilterError::Pattern { text: text.to_owned(), why: why.into() }
}

fn dns_name(text: &str) -> Result<String, FilterError> {
    let lower = text.trim().to_lowercase();
    let name = lower.strip_suffix('.').unwrap_or(&lower);
    if name.is_empty() {
        return Err(invalid(text, "empty pattern"));
    }
    if name.ends_with('.') {
        return Err(invalid(text, "multiple trailing dots in pattern"));
    }
    let mut expression = String::with_capacity(name.len() * 2);
    for character in name.chars() {
        match character {
            '.' => expression.push_str(r"\."),
            '*' => expression.push_str("[-.0-9a-z]*"),
            '-' | '_' | '0'..='9' | 'a'..='z' => expression.push(character),
            other => return Err(invalid(text, format!("{other:?}: invalid rune in pattern"))),
        }
    }
    Ok(expression)
}

fn node_name(text: &str) -> Result<String, FilterError> {
    let part = |text: &str| if text.is_empty() { Ok(NAME.to_owned()) } else { dns_name(text) };
    let parts: Vec<&str> = text.split('/').collect();
    match parts.as_slice() {
        [""] => Err(invalid(text, "empty pattern")),
        [node] => Ok(format!("{}/{}", NAME, part(node)?)),
        [cluster, node] => Ok(format!("{}/{}", part(cluster)?, part(node)?)),
        _ => Err(invalid(text, "too many slashes in pattern")),
    }
}
