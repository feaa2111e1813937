//! Do patterns mean what RE2 says?

#![allow(clippy::unwrap_used)]

use serde::Deserialize;

use super::*;

/// What google-re2 1.1 and Go 1.26's `regexp` agreed on.
#[derive(Deserialize)]
struct Row {
    pattern: String,
    #[serde(default)]
    refused: bool,
    #[serde(default)]
    yes: Option<Vec<String>>,
    #[serde(default)]
    no: Option<Vec<String>>,
}

#[test]
fn a61_patterns_mean_what_re2_says() {
    let rows = include_str!("../../testdata/re2.jsonl").lines().map(|line| serde_json::from_str::<Row>(line).unwrap());
    let mut wrong = Vec::new();
    for row in rows {
        let pattern = match Pattern::new(&row.pattern) {
            Ok(pattern) => pattern,
            Err(error) if row.refused => {
                assert!(!error.why.is_empty());
                continue;
            }
            Err(error) => {
                wrong.push(error.to_string());
                continue;
            }
        };
        if row.refused {
            wrong.push(format!("{:?} is accepted", row.pattern));
        }
        for (texts, expected) in [(row.yes, true), (row.no, false)] {
            for text in texts.into_iter().flatten() {
                if pattern.matches(&text) != expected {
                    wrong.push(format!("{:?} on {text:?}: expected {expected}", row.pattern));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
}

/// Where Rust's own patterns and RE2's differ, one by one.
#[test]
fn a61_what_other_dialects_read_otherwise_is_read_as_re2_does() {
    for pattern in ["[a--b]", "x**", "a++", "a{1001}", "(?x)a", "(?<=a)b", "a(?=b)", r"(a)\1", r"\z\"] {
        assert!(Pattern::new(pattern).is_err(), "{pattern} is accepted");
    }
    for (pattern, yes, no) in [
        (r"\<foo\>", &["<foo>"][..], &["foo"][..]),
        ("[a&&b]", &["a", "b", "&"], &["", "c"]),
        ("[a~~b]", &["a", "b", "~"], &["", "c"]),
        ("/api/{id}", &["/api/{id}"], &["/api/", "/api/1"]),
        ("a{,3}", &["a{,3}"], &["a", "aaa", ""]),
        ("[[]", &["["], &["[["]),
        (r"\Qa.b\E*", &["a.b", "a.bbb", "a."], &["axb"]),
        (r"\d+", &["0", "19"], &["\u{0661}", "\u{ff11}", ""]),
        (r"\w", &["a", "_"], &["\u{e9}", "\u{17f}"]),
        (r"\bfoo\b", &["foo"], &["xfoo", "foox"]),
        // All of the text, from end to end, whatever its alternatives are.
        ("a|b", &["a", "b"], &["ab", "xa", "bx", "a\n"]),
        ("/a", &["/a"], &["/a/b", "x/a", "/a\n", "\n/a"]),
        ("^/a$", &["/a"], &["/a\n"]),
    ] {
        let compiled = Pattern::new(pattern).unwrap();
        yes.iter().for_each(|text| assert!(compiled.matches(text), "{pattern} on {text:?}"));
        no.iter().for_each(|text| assert!(!compiled.matches(text), "{pattern} on {text:?}"));
    }
}

#[track_caller]
fn refused(pattern: &str, why: &str) {
    assert_eq!(Pattern::new(pattern).unwrap_err().why, why);
}

#[test]
fn refusals_say_what_and_where() {
    refused("/a**", "bad repetition operator ** at byte 2");
    refused("a|*", "nothing to repeat at byte 2");
    refused("(a", "missing ) for the ( at byte 0");
    refused("a)", "unexpected ) at byte 1");
    refused("[z-a]", "bad range z-a at byte 1");
    refused("a{2,1}", "bad number of repetitions at byte 1: at most 1000, the smaller number first");
    refused("(a{100}){11}", "repetitions in each other are more than 1000 at byte 8");
    refused(r"\q", r#"bad escape at byte 0: "\\q""#);
    refused(r"\", "it ends with a backslash");
    refused("[[:foo:]]", "no such class [:foo:] at byte 1");
}

#[test]
fn bombs_are_refused() {
    refused(&"(".repeat(2_000), "groups lie more than 500 deep in each other");
    refused(&"a".repeat(LONGEST + 1), "it has 65537 bytes and may have at most 65536");
    assert!(Pattern::new(r"\pL{999}").unwrap_err().why.starts_with("compiled it takes more"));
}

#[test]
fn bytes_that_are_no_text_match_nothing_that_means_characters() {
    let pattern = Pattern::new("/a.b").unwrap();
    assert!(pattern.matches("/aéb"));
    assert!(!pattern.matches(b"/a\xffb"));
    assert!(!pattern.matches(b"/a\nb"));
}

proptest::proptest! {
    #[test]
    fn no_pattern_panics(pattern in "\\PC{0,40}", text in "\\PC{0,20}") {
        if let Ok(pattern) = Pattern::new(&pattern) {
            pattern.matches(&text);
        }
    }

    #[test]
    fn no_likely_pattern_panics(pattern in r"[a\\(){}\[\]|*+?^$.,0-9:PQEidx<>=!-]{0,24}") {
        if let Ok(pattern) = Pattern::new(&pattern) {
            pattern.matches("aaa");
        }
    }

    /// A text that is escaped matches itself and nothing else.
    #[test]
    fn escaped_text_matches_itself(text in "\\PC{0,20}", other in "\\PC{0,20}") {
        let quoted: String = text.chars().flat_map(|c| {
            (c.is_ascii() && !c.is_ascii_alphanumeric()).then_some('\\').into_iter().chain([c])
        }).collect();
        let pattern = Pattern::new(&quoted).unwrap();
        assert!(pattern.matches(&text));
        assert_eq!(pattern.matches(&other), text == other);
    }
}
