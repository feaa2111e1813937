//! What is refused, and what is said of it: the field, what was found there, and what would be right.
//!
//! The table holds the refusals of Cilium 1.20.2's parser and of its definitions, those of the API server for
//! NetworkPolicy, and those of ClusterNetworkPolicy's definition.
#![allow(clippy::expect_used)]

const TABLE: &str = include_str!("refusals.txt");

/// A policy of the table, and what is said of it.
struct Row {
    policy: &'static str,
    said: Vec<&'static str>,
}

fn rows() -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
        match line.strip_prefix("    ") {
            None => rows.push(Row { policy: line, said: Vec::new() }),
            Some(said) => rows.last_mut().expect("a policy first").said.push(said),
        }
    }
    rows
}

/// The whole object of a line.
fn object(line: &str) -> String {
    let whole = |version: &str, kind: &str, spec: &str| {
        format!("{{apiVersion: {version}, kind: {kind}, metadata: {{name: p}}, spec: {{{spec}}}}}")
    };
    match line.split_once(' ') {
        Some(("cnp", spec)) => whole("cilium.io/v2", "CiliumNetworkPolicy", &format!("endpointSelector: {{}}, {spec}")),
        Some(("bare", spec)) => whole("cilium.io/v2", "CiliumNetworkPolicy", spec),
        Some(("ccnp", spec)) => whole("cilium.io/v2", "CiliumClusterwideNetworkPolicy", spec),
        Some(("np", spec)) => whole("networking.k8s.io/v1", "NetworkPolicy", spec),
        Some(("kcnp", spec)) => whole("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy", spec),
        _ => line.to_owned(),
    }
}

/// What is said of a policy in a file.
fn problems(text: &str) -> Vec<String> {
    let (documents, mut problems) = crds::load_documents("p.yaml", text, &crds::LIMITS);
    for one in &documents {
        let read = policy::PolicyObject::from_value(&one.value, &one.source, &policy::Settings::default());
        problems.extend(read.err().into_iter().flatten());
    }
    problems.iter().map(ToString::to_string).collect()
}

#[test]
fn each_refusal_names_file_line_field_and_what_would_be_right() {
    let mut wrong = Vec::new();
    for Row { policy, said } in rows() {
        let expected: Vec<String> =
            said.iter().filter(|one| **one != "taken").map(|one| format!("p.yaml:1: {one}")).collect();
        let found = problems(&object(policy));
        if found != expected {
            wrong.push(format!("{policy}\n  expected {expected:#?}\n  found {found:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_table_is_of_all_kinds_and_no_row_says_nothing() {
    let rows = rows();
    assert!(rows.len() > 110, "{}", rows.len());
    assert!(rows.iter().all(|row| !row.said.is_empty()));
    for kind in ["cnp ", "bare ", "ccnp ", "np ", "kcnp ", "{"] {
        assert!(rows.iter().any(|row| row.policy.starts_with(kind)), "{kind}");
    }
}
