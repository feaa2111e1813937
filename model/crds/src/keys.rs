//! Which keys would kubectl read as something else?
//!
//! Its parser takes plain keys for the numbers and truth values that they look like, and makes texts of these: `on: a`
//! is the label `true`. Such a key is refused, so that nobody judges another policy than the one that is applied.

use serde_json::Value;
use serde_saphyr::Spanned;

use crate::form::Node;
use crate::load::{Limits, options};

/// What YAML 1.1 takes for true or false, and does not write so.
const TRUTH: [&str; 20] = [
    "y", "Y", "yes", "Yes", "YES", "on", "On", "ON", "True", "TRUE", "n", "N", "no", "No", "NO", "off", "Off", "OFF",
    "False", "FALSE",
];

/// The line of the first such key and what is wrong with it. `value` is what the text holds.
pub(crate) fn misread(text: &str, value: &Value, limits: &Limits) -> Option<(usize, String)> {
    // Hardly any text has such a key, and only where it stands tells whether it has quotes.
    if !has_any(value) {
        return None;
    }
    let root = serde_saphyr::from_str_with_options::<Spanned<Node>>(text, options(limits)).ok()?;
    let key = find(&root.value, &|key| is_misread(&key.value) && !is_quoted(text, key))?;
    let message = format!(
        "the key {} is read by kubectl as the number or truth value that it looks like: write it in quotes",
        key.value
    );
    Some((usize::try_from(key.referenced.line()).unwrap_or(1), message))
}

fn find<'a>(node: &'a Node, wanted: &dyn Fn(&Spanned<String>) -> bool) -> Option<&'a Spanned<String>> {
    match node {
        Node::Scalar => None,
        Node::List(items) => items.iter().find_map(|item| find(&item.value, wanted)),
        Node::Fields(fields) => fields.iter().find_map(|(key, field)| {
            let own = Some(key).filter(|key| wanted(key));
            own.or_else(|| find(&field.value, wanted))
        }),
    }
}

fn has_any(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.iter().any(|(key, field)| is_misread(key) || has_any(field)),
        Value::Array(items) => items.iter().any(has_any),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

fn is_misread(key: &str) -> bool {
    TRUTH.contains(&key) || is_number(key) && !is_plain_number(key)
}

/// A number in any of its forms.
fn is_number(key: &str) -> bool {
    let digits = key.replace('_', "");
    let digits = digits.strip_prefix(['-', '+']).unwrap_or(&digits);
    let of_radix =
        |prefix: &str, radix| digits.strip_prefix(prefix).is_some_and(|rest| u64::from_str_radix(rest, radix).is_ok());
    let starts = digits.starts_with(|first: char| first.is_ascii_digit() || first == '.');
    starts && (digits.parse::<f64>().is_ok() || of_radix("0x", 16) || of_radix("0o", 8) || of_radix("0b", 2))
}

/// A number that is written again as it is.
fn is_plain_number(key: &str) -> bool {
    let digits = key.strip_prefix('-').unwrap_or(key);
    let is_zero = key == "0";
    is_zero || digits.len() < 19 && !digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_quoted(text: &str, key: &Spanned<String>) -> bool {
    let (line, column) = (key.referenced.line(), key.referenced.column());
    let place = |number: u64| usize::try_from(number).ok()?.checked_sub(1);
    let line = place(line).and_then(|line| text.lines().nth(line));
    let first = line.zip(place(column)).and_then(|(line, column)| line.chars().nth(column));
    matches!(first, Some('"' | '\''))
}

#[cfg(test)]
mod tests {
    use crate::load::{LIMITS, load_documents};

    fn problem(text: &str) -> Option<String> {
        load_documents("f", text, &LIMITS).1.first().map(ToString::to_string)
    }

    #[test]
    fn keys_that_kubectl_reads_otherwise_are_refused_and_named() {
        for key in ["on", "y", "No", "TRUE", "010", "0x10", "1.0", "1e3", "+1", "1_0", ".5", "-0", "0o7", "0b1", "00"] {
            let said = problem(&format!("a:\n  b: [{{x: 1, {key}: 2}}]\n")).unwrap_or_default();
            assert!(
                said.starts_with("f:2") && said.contains(&format!("the key {key} is read by kubectl")),
                "{key}: {said}"
            );
            for quoted in [format!("\"{key}\""), format!("'{key}'")] {
                assert_eq!(problem(&format!("a:\n  - {{{quoted}: {key}}}\n  - b:\n      {quoted}: 1\n")), None);
            }
        }
        for key in ["true", "false", "1", "-1", "0", "1.2.3.4", "2026-01-01", "10.0.0.0/8", "one", "e1", "inf", "tRUE"]
        {
            assert_eq!(problem(&format!("a: {{{key}: 1}}\n")), None, "{key}");
        }
    }

    #[test]
    fn keys_on_later_lines_and_behind_letters_of_several_bytes_are_found() {
        assert!(problem("---\nä: {ö: 1, on: 2}\n---\nb: 1\n").is_some_and(|said| said.starts_with("f:2")));
        assert_eq!(problem("{\"ä\": {\"ö\": 1, \"on\": 2}}\n"), None);
        assert_eq!(problem("a:\n  ? \"on\"\n  : 1\n"), None);
        assert!(problem("a:\n  ? on\n  : 1\n").is_some_and(|said| said.starts_with("f:2")));
    }
}
