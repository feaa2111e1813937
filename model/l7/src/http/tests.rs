//! Are requests judged as their rules say?

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;

use super::*;
use crate::re2::Pattern;

/// Secrets by name.
struct Known(BTreeMap<&'static str, &'static str>);

impl Secrets for Known {
    fn header_value(&self, secret: &crds::SecretRef) -> Option<Vec<u8>> {
        self.0.get(secret.name.as_str()).map(|value| value.as_bytes().to_vec())
    }
}

fn secrets() -> Known {
    Known(BTreeMap::from([("token", "t0p")]))
}

fn rules(json: &str) -> Vec<crds::HttpRule> {
    serde_json::from_str(json).unwrap()
}

fn sound((rules, problems): (HttpRules, Vec<PatternError>)) -> HttpRules {
    assert_eq!(problems, []);
    rules
}

fn compiled(json: &str) -> HttpRules {
    sound(HttpRules::new(&rules(json), &secrets()))
}

/// `METHOD authority path Name=value...`
fn allowed(rules: &HttpRules, request: &str) -> Option<Allowed> {
    let mut words = request.split(' ');
    let (method, authority, path) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
    let mut headers = HeaderMap::new();
    for word in words {
        let (name, value) = word.split_once('=').unwrap();
        headers.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
    }
    rules.allows(&Request { method, path, authority, headers: &headers })
}

#[track_caller]
fn check(json: &str, pass: &[&str], stop: &[&str]) {
    let rules = compiled(json);
    for request in pass {
        assert!(allowed(&rules, request).is_some(), "{request}");
    }
    for request in stop {
        assert!(allowed(&rules, request).is_none(), "{request}");
    }
}

#[test]
fn e0_28_29_only_the_listed_methods_and_paths() {
    check(
        r#"[{"method":"GET","path":"/downloads"},{"method":"PUT","path":"/upload"}]"#,
        &["GET web /downloads", "PUT web /upload"],
        &[
            "GET web /upload",
            "PUT web /downloads",
            "GET web /",
            "GET web /downloads/x",
            "GET web /downloads?x=1",
            "get web /downloads",
        ],
    );
}

#[test]
fn a61_patterns_are_about_the_whole_text() {
    check(r#"[{"path":"/a|/b"}]"#, &["GET w /a", "GET w /b"], &["GET w /a/secret", "GET w /x/b", "GET w /ab"]);
    check(r#"[{"method":"GET|HEAD","host":"a|b"}]"#, &["HEAD b /"], &["GETX a /", "XHEAD a /", "GET ax /", "GET xb /"]);
    check(r#"[{"path":"^/a$"}]"#, &["GET w /a"], &["GET w /a/b", "GET w /^/a$"]);
}

#[test]
fn e0_31_host_and_headers_can_be_asked_for() {
    check(
        r#"[{"host":".*\\.example\\.com","headers":["X-Any"]}]"#,
        &["GET www.example.com / x-any=1"],
        &["GET www.example.com /", "GET www.example.org / x-any=1"],
    );
    check(
        r#"[{"headers":["X-Token: ab","X-Any"]}]"#,
        &["GET a / x-token=ab x-any=1"],
        &["GET a / x-token=ab", "GET a / x-token=abc x-any=1"],
    );
    check(r#"[{"host":"a\\.b"}]"#, &["GET a.b /"], &["GET axb /", "GET a.b:80 /", "GET a.b. /", "GET A.B /"]);
}

#[test]
fn an_empty_rule_and_no_rules_allow_everything() {
    check("[{}]", &["GET a /", "PURGE b /x"], &[]);
    check("[]", &["GET a /"], &[]);
    check(r#"[{"path":"","method":""}]"#, &["GET a /"], &[]);
}

#[test]
fn a58_duplicate_headers_are_one_value() {
    check(r#"[{"headers":["X: a"]}]"#, &["GET a / x=a"], &["GET a / x=a x=b", "GET a / x=b x=a"]);
    check(r#"[{"headers":["X: a,b"]}]"#, &["GET a / x=a x=b"], &["GET a / x=b x=a"]);
    check(
        r#"[{"headerMatches":[{"name":"X","value":"a"}]}]"#,
        &["GET a / x=a"],
        &["GET a / x=a x=b", "GET a / x=b x=a"],
    );
}

#[test]
fn what_differs_is_logged_added_deleted_or_replaced() {
    let outcome = |mismatch: &str, request: &str| {
        let json = format!(r#"[{{"headerMatches":[{{"name":"X","value":"v","mismatch":"{mismatch}"}}]}}]"#);
        allowed(&compiled(&json), request).map(|allowed| (allowed.edits, allowed.records))
    };
    let name = || HeaderName::from_static("x");
    let value = || HeaderValue::from_static("v");
    let missing = || HeaderRecord::Missing(name(), "v".into());
    let rejected = || HeaderRecord::Rejected(name(), "w".into());
    for mismatch in ["LOG", "ADD", "DELETE", "REPLACE"] {
        assert_eq!(outcome(mismatch, "GET a / x=v"), Some((vec![], vec![])), "{mismatch}");
    }
    assert_eq!(outcome("LOG", "GET a / x=w"), Some((vec![], vec![missing()])));
    assert_eq!(outcome("ADD", "GET a / x=w"), Some((vec![Edit::Add(name(), value())], vec![missing()])));
    assert_eq!(outcome("DELETE", "GET a / x=w"), Some((vec![Edit::Remove(name())], vec![rejected()])));
    assert_eq!(outcome("DELETE", "GET a /"), Some((vec![], vec![])));
    assert_eq!(
        outcome("REPLACE", "GET a / x=w"),
        Some((vec![Edit::Set(name(), value())], vec![rejected(), missing()]))
    );
    check(r#"[{"headerMatches":[{"name":"X","value":"v"}]}]"#, &["GET a / x=v"], &["GET a / x=w", "GET a /"]);
}

#[test]
fn edits_change_headers() {
    let mut headers = HeaderMap::new();
    let name = HeaderName::from_static("x");
    let values =
        |headers: &HeaderMap| headers.get_all("x").iter().map(|v| v.to_str().unwrap().to_owned()).collect::<Vec<_>>();
    Edit::Add(name.clone(), HeaderValue::from_static("a")).apply(&mut headers);
    Edit::Add(name.clone(), HeaderValue::from_static("b")).apply(&mut headers);
    assert_eq!(values(&headers), ["a", "b"]);
    Edit::Set(name.clone(), HeaderValue::from_static("c")).apply(&mut headers);
    assert_eq!(values(&headers), ["c"]);
    Edit::Remove(name).apply(&mut headers);
    assert!(headers.is_empty());
}

#[test]
fn a43_a49_secrets_decide_and_are_never_shown() {
    let json = r#"[{"headerMatches":[{"name":"X","secret":{"name":"token"},"mismatch":"REPLACE"}]}]"#;
    let rules = compiled(json);
    let found = allowed(&rules, "GET a / x=guess").unwrap();
    assert_eq!(found.edits, [Edit::Set(HeaderName::from_static("x"), HeaderValue::from_static("t0p"))]);
    let records = format!("{:?} {rules:?}", found.records);
    assert!(!records.contains("t0p") && !records.contains("guess"), "{records}");
    check(
        r#"[{"headerMatches":[{"name":"X","secret":{"name":"token"}}]}]"#,
        &["GET a / x=t0p"],
        &["GET a / x=", "GET a /"],
    );
    // A secret that is not there allows nothing, not even by a presence match.
    check(
        r#"[{"headerMatches":[{"name":"X","secret":{"name":"gone"},"mismatch":"LOG"}]}]"#,
        &[],
        &["GET a / x=a", "GET a /"],
    );
    check(
        r#"[{"headerMatches":[{"name":"X","secret":{"name":"gone"},"value":"v"}]}]"#,
        &["GET a / x=v"],
        &["GET a / x=a"],
    );
}

#[test]
fn a56_a_path_passes_only_if_all_that_it_may_mean_is_allowed() {
    let rules = compiled(r#"[{"path":"/public/.*"},{"path":"/assets(/.*)?"}]"#);
    let headers = HeaderMap::new();
    let passes = |path: &str| {
        let request = Request { method: "GET", path, authority: "a", headers: &headers };
        rules.allows_all_meanings(&request).is_some()
    };
    for path in
        ["/public/x", "/public/a/../b", "/public/a//b", "/public/%41;v=1", "/assets/../public/x", "/public/?/../"]
    {
        assert!(passes(path), "{path}");
    }
    for path in ["/public/../admin", "/public/%2e%2e/admin", "/public/..%2Fadmin", "/public/..;/admin", "/admin"] {
        assert!(!passes(path), "{path}");
    }
}

#[test]
fn the_first_rule_that_allows_is_told() {
    let rules = compiled(r#"[{"path":"/a"},{"path":"/[ab]"},{}]"#);
    let first = |request: &str| allowed(&rules, request).unwrap().rule;
    assert_eq!((first("GET a /a"), first("GET a /b"), first("GET a /c")), (0, 1, 2));
}

#[test]
fn a_rule_with_a_bad_pattern_allows_nothing_and_the_others_go_on() {
    for (bad, name) in [("/a**", "path"), ("a[", "host"), ("(", "method")] {
        let json = format!(r#"[{{"{name}":"{bad}"}},{{"path":"/ok"}}]"#);
        let (rules, problems) = HttpRules::new(&rules(&json), &secrets());
        assert_eq!(problems.iter().map(|problem| problem.pattern.as_str()).collect::<Vec<_>>(), [bad]);
        assert_eq!(allowed(&rules, "GET a /ok").unwrap().rule, 1);
        assert!(allowed(&rules, "GET a /a**").is_none() && allowed(&rules, "( a[ /").is_none());
    }
}

#[test]
fn many_large_patterns_are_asked_one_by_one() {
    let rule = |number: u32| crds::HttpRule {
        path: Some(format!("/{number}/(a{{1,100}}b{{1,100}}){{1,8}}")),
        ..Default::default()
    };
    let list: Vec<_> = (0..60).map(rule).collect();
    let rules = sound(HttpRules::new(&list, &secrets()));
    assert_eq!(allowed(&rules, "GET a /59/abab").unwrap().rule, 59);
    assert!(allowed(&rules, "GET a /60/ab").is_none());
}

/// Rule by rule, pattern by pattern, as the specification reads: the rule that allows, and what it changes.
fn plain(rules: &[crds::HttpRule], request: &Request) -> Option<(usize, Vec<String>)> {
    let holds = |pattern: &Option<String>, text: &str| match pattern.as_deref() {
        None | Some("") => true,
        Some(pattern) => Pattern::new(pattern).unwrap().matches(text),
    };
    let values = |name: &str| {
        let mut all: Vec<String> = Vec::new();
        let name = name.parse::<HeaderName>().unwrap();
        request.headers.each(&name, &mut |value| all.push(String::from_utf8(value.to_vec()).unwrap()));
        (!all.is_empty()).then(|| all.join(","))
    };
    let header = |text: &String| {
        let (name, value) = text.split_once(": ").unwrap_or((text, ""));
        values(name).is_some_and(|found| value.is_empty() || found == value)
    };
    // `None`: the rule does not hold.
    let matched = |header: &crds::HeaderMatch| {
        let (name, value) = (header.name.to_lowercase(), header.value.clone().unwrap_or_default());
        let found = values(&name);
        if found.as_ref().is_some_and(|found| value.is_empty() || *found == value) {
            return Some(vec![]);
        }
        match header.mismatch.as_deref() {
            Some("LOG") => Some(vec![]),
            Some("ADD") => Some(vec![format!("add {name} {value}")]),
            Some("DELETE") if found.is_some() => Some(vec![format!("remove {name}")]),
            Some("DELETE") => Some(vec![]),
            Some("REPLACE") => Some(vec![format!("set {name} {value}")]),
            _ => None,
        }
    };
    rules.iter().enumerate().find_map(|(number, rule)| {
        let line = holds(&rule.method, request.method)
            && holds(&rule.path, request.path)
            && holds(&rule.host, request.authority)
            && rule.headers.iter().flatten().all(header);
        let edits = rule.header_matches.iter().flatten().map(matched).collect::<Option<Vec<_>>>();
        edits.filter(|_| line).map(|edits| (number, edits.concat()))
    })
}

/// As [`plain`] has it.
fn told(allowed: Allowed) -> (usize, Vec<String>) {
    let edit = |edit: &Edit| match edit {
        Edit::Add(name, value) => format!("add {name} {}", value.to_str().unwrap()),
        Edit::Remove(name) => format!("remove {name}"),
        Edit::Set(name, value) => format!("set {name} {}", value.to_str().unwrap()),
    };
    (allowed.rule, allowed.edits.iter().map(edit).collect())
}

fn some_header_match() -> impl Strategy<Value = crds::HeaderMatch> {
    let pick = |list: &'static [&'static str]| proptest::sample::select(list).prop_map(String::from);
    let mismatch = proptest::option::of(pick(&["LOG", "ADD", "DELETE", "REPLACE"]));
    (pick(&["X", "y"]), proptest::option::of(pick(&["1", "1,2", ""])), mismatch)
        .prop_map(|(name, value, mismatch)| crds::HeaderMatch { name, value, secret: None, mismatch })
}

fn some_rule() -> impl Strategy<Value = crds::HttpRule> {
    let pick =
        |list: &'static [&'static str]| proptest::option::of(proptest::sample::select(list).prop_map(String::from));
    (
        pick(&["GET", "PUT|POST", "", "G.*"]),
        pick(&["/", "/a.*", "/a/[0-9]+", "(?i)/A", "/b?", "", "/a|/b"]),
        pick(&["a", ".*\\.x", "a|b", ""]),
        proptest::collection::vec(proptest::sample::select(&["X: 1", "Y", "X: 1,2"][..]).prop_map(String::from), 0..2),
        proptest::collection::vec(some_header_match(), 0..3),
    )
        .prop_map(|(method, path, host, headers, matches)| crds::HttpRule {
            method,
            path,
            host,
            headers: Some(headers),
            header_matches: Some(matches),
        })
}

proptest! {
    #[test]
    fn many_rules_at_once_decide_as_one_by_one(
        rules in proptest::collection::vec(some_rule(), 1..12),
        method in proptest::sample::select(&["GET", "PUT", "POST", "X"][..]),
        path in proptest::sample::select(&["/", "/a", "/A", "/a/1", "/a/x", "/b", "//", "", "/a/../b", "/%61"][..]),
        authority in proptest::sample::select(&["a", "b", "w.x", "x", ""][..]),
        values in proptest::collection::vec((proptest::sample::select(&["x", "y"][..]), proptest::sample::select(&["1", "2"][..])), 0..4),
    ) {
        let mut headers = HeaderMap::new();
        for (name, value) in values {
            headers.append(name, HeaderValue::from_static(value));
        }
        let request = Request { method, path, authority, headers: &headers };
        let compiled = sound(HttpRules::new(&rules, &secrets()));
        prop_assert_eq!(compiled.allows(&request).map(told), plain(&rules, &request));
        let all = crate::meanings::others(path);
        let all_pass = all.iter().all(|path| plain(&rules, &Request { path, ..request }).is_some());
        prop_assert_eq!(compiled.allows_all_meanings(&request).map(told), plain(&rules, &request).filter(|_| all_pass));
    }
}
