//! Does docs/policy-fields.md tell of every field of every kind of policy, and do its tests exist?
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crds::schema::structural;
use serde_json::{Value, json};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The fields of a kind. The sections of rules are told as one, `specs` as `spec`, and selectors of labels, which all
/// mean the same, as one field.
fn fields(kind: &str, schema: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    walk(schema, kind, &mut found);
    found
}

fn walk(schema: &Value, path: &str, found: &mut BTreeSet<String>) {
    let none = serde_json::Map::new();
    let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&none);
    if properties.len() == 2 && properties.contains_key("matchLabels") && properties.contains_key("matchExpressions") {
        return;
    }
    for (name, inner) in properties {
        if ["apiVersion", "kind", "metadata"].contains(&name.as_str()) && !path.contains('.') {
            continue;
        }
        let name = match name.as_str() {
            "specs" => "spec",
            "ingress" | "ingressDeny" | "egress" | "egressDeny" if inner["type"] == "array" => "rules",
            other => other,
        };
        let below = format!("{path}.{name}");
        found.insert(below.clone());
        walk(inner, &below, found);
    }
    for name in ["items", "additionalProperties"] {
        if let Some(inner) = schema.get(name) {
            walk(inner, path, found);
        }
    }
}

fn all_fields() -> BTreeSet<String> {
    let kinds = [
        fields("CiliumNetworkPolicy", &structural::<crds::CiliumNetworkPolicy>()),
        fields("CiliumClusterwideNetworkPolicy", &structural::<crds::CiliumClusterwideNetworkPolicy>()),
        fields("CiliumCIDRGroup", &structural::<crds::CiliumCIDRGroup>()),
        fields("NetworkPolicy", &structural::<crds::NetworkPolicy>()),
        fields("ClusterNetworkPolicy", &structural::<crds::ClusterNetworkPolicy>()),
    ];
    // The clusterwide kind has the namespaced one's fields.
    let names = kinds.into_iter().flatten();
    names.map(|name| name.replace("CiliumClusterwideNetworkPolicy.", "CiliumNetworkPolicy.")).collect()
}

/// The rows of the table: field, what it means here, file, tests.
fn rows(document: &str) -> Vec<[String; 4]> {
    let lines = document.lines().filter(|line| line.starts_with("| `"));
    let cells = |line: &str| -> [String; 4] {
        let cells: Vec<String> = line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect();
        cells.try_into().unwrap_or_else(|cells| panic!("a row has four cells: {cells:?}"))
    };
    lines.map(cells).collect()
}

fn names_in(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

#[test]
fn the_table_has_every_field_and_no_other() {
    let document = std::fs::read_to_string(root().join("docs/policy-fields.md")).unwrap();
    let told: Vec<String> = rows(&document).iter().map(|row| row[0].trim_matches('`').to_owned()).collect();
    let distinct: BTreeSet<String> = told.iter().cloned().collect();
    assert_eq!(distinct.len(), told.len(), "a field has two rows");
    let fields = all_fields();
    let missing: Vec<&String> = fields.difference(&distinct).collect();
    assert!(missing.is_empty(), "the table does not tell of {missing:#?}");
    let unknown: Vec<&String> = distinct.difference(&fields).collect();
    assert!(unknown.is_empty(), "these are no fields: {unknown:#?}");
}

#[test]
fn files_and_tests_of_the_table_exist() {
    let document = std::fs::read_to_string(root().join("docs/policy-fields.md")).unwrap();
    let folders = ["cli/policy/tests", "model/policy/tests", "model/policy/src", "model/crds/src", "model/l7", "test"];
    let sources: String = folders.iter().map(|folder| sources(&root().join(folder))).collect();
    for [field, means, files, tests] in rows(&document) {
        assert!(!means.is_empty(), "{field}: nothing is said of it");
        assert!(names_in(&files).count() > 0, "{field}: no file");
        for file in names_in(&files) {
            assert!(root().join(file).is_file(), "{field}: there is no file {file}");
        }
        assert!(names_in(&tests).count() > 0, "{field}: no test");
        for test in names_in(&tests) {
            assert!(sources.contains(&format!("fn {test}(")), "{field}: there is no test {test}");
        }
    }
}

fn sources(folder: &Path) -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            text += &sources(&path);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text += &std::fs::read_to_string(path).unwrap();
        }
    }
    text
}

/// What the policies (YAML documents) say of flows to or from `default/web`, as `src dst protocol port`.
fn verdicts(config: Value, policies: &str, flows: &[&str]) -> Vec<bool> {
    let flows: Vec<Value> = flows
        .iter()
        .map(|flow| {
            let words: Vec<&str> = flow.split(' ').collect();
            json!({ "src": words[0], "dst": words[1], "proto": words[2], "port": words[3].parse::<u16>().unwrap() })
        })
        .collect();
    let case = json!({
        "config": config, "policies": policies, "flows": flows,
        "namespaces": { "other": { "team": "a" } },
        "endpoints": [
            { "name": "web", "labels": { "app": "web" }, "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }] },
            { "name": "db", "labels": { "app": "db" }, "ports": [{ "name": "sql", "port": 5432, "protocol": "TCP" }] },
            { "name": "far", "namespace": "other", "labels": { "app": "far" } },
        ],
        "nodes": [{ "name": "n2", "ips": ["172.18.0.3"], "labels": { "role": "x" } }],
        "dns": [{ "name": "a.example.com", "ips": ["192.0.2.1"] }],
    });
    let result: Value = serde_json::from_str(&cli_policy::judge_value(case, None)).unwrap();
    for policy in result["policies"].as_array().unwrap() {
        assert_eq!(policy["ok"], true, "{policy}");
    }
    let flows = result["flows"].as_array().unwrap().iter();
    flows
        .map(|flow| match flow["verdict"].as_str() {
            Some("ALLOWED") => true,
            Some("DENIED") => false,
            other => panic!("{other:?}: {flow}"),
        })
        .collect()
}

/// Flows that the policy changes, and flows that it does not.
fn check(config: Value, policy: &str, denied: &[&str], allowed: &[&str]) {
    for (flows, expected) in [(denied, false), (allowed, true)] {
        for (flow, found) in flows.iter().zip(verdicts(config.clone(), policy, flows)) {
            assert_eq!(found, expected, "{flow} with {policy}");
        }
    }
}

fn cluster_policy(rule: &str) -> String {
    format!(
        "{{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {{name: c}}, status: {{conditions: []}}, \
         spec: {{tier: Admin, priority: 1, subject: {{pods: {{namespaceSelector: {{}}, podSelector: {{matchLabels: {{app: web}}}}}}}}, {rule}}}}}"
    )
}

#[test]
fn ports_of_a_cluster_network_policy_are_read() {
    let deny = |protocols: &str| {
        cluster_policy(&format!(
            "ingress: [{{name: x, action: Deny, from: [{{namespaces: {{}}}}], protocols: [{protocols}]}}]"
        ))
    };
    for protocol in ["TCP", "UDP", "SCTP"] {
        let name = protocol.to_lowercase();
        let one = deny(&format!("{{{name}: {{destinationPort: {{number: 80}}}}}}"));
        let to = |port: u16| format!("db web {protocol} {port}");
        check(json!({}), &one, &[&to(80)], &[&to(79), &to(81), "db web ICMP 0"]);
        let range = deny(&format!("{{{name}: {{destinationPort: {{range: {{start: 80, end: 90}}}}}}}}"));
        check(json!({}), &range, &[&to(80), &to(90)], &[&to(79), &to(91)]);
    }
    let named = deny("{destinationNamedPort: http}");
    check(json!({}), &named, &["db web TCP 8080"], &["db web TCP 80", "db web UDP 8080"]);
}

#[test]
fn peers_of_a_cluster_network_policy_are_read() {
    let from = |peer: &str| cluster_policy(&format!("ingress: [{{action: Deny, from: [{{{peer}}}]}}]"));
    check(json!({}), &from("namespaces: {matchLabels: {team: a}}"), &["other/far web TCP 1"], &["db web TCP 1"]);
    let pods = "pods: {namespaceSelector: {matchLabels: {team: a}}, podSelector: {matchLabels: {app: far}}}";
    check(json!({}), &from(pods), &["other/far web TCP 1"], &["db web TCP 1"]);
    let to = |action: &str, peer: &str| cluster_policy(&format!("egress: [{{action: {action}, to: [{{{peer}}}]}}]"));
    check(json!({}), &to("Deny", "namespaces: {matchLabels: {team: a}}"), &["web other/far TCP 1"], &["web db TCP 1"]);
    check(json!({}), &to("Deny", pods), &["web other/far TCP 1"], &["web db TCP 1"]);
    check(json!({}), &to("Deny", "networks: [192.0.2.0/24]"), &["web 192.0.2.9 TCP 1"], &["web 198.51.100.1 TCP 1"]);
    let by_labels = json!({ "node_selector_labels": true });
    check(by_labels, &to("Deny", "nodes: {matchLabels: {role: x}}"), &["web node:n2 TCP 1"], &["web db TCP 1"]);
    let closed = "{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: p}, spec: {endpointSelector: {}, egress: [{}]}}";
    let names = format!("{}\n---\n{closed}", to("Accept", "domainNames: [\"*.example.com\"]"));
    check(json!({}), &names, &["web 192.0.2.2 TCP 1"], &["web 192.0.2.1 TCP 1"]);
}

#[test]
fn peers_and_ports_of_a_network_policy_are_read() {
    let policy = |rules: &str| {
        format!(
            "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: np}}, \
             spec: {{podSelector: {{matchLabels: {{app: web}}}}, policyTypes: [Ingress, Egress], {rules}}}}}"
        )
    };
    let ingress = policy(
        "ingress: [{from: [{namespaceSelector: {matchLabels: {team: a}}}, {podSelector: {matchLabels: {app: db}}}], ports: [{port: http}, {protocol: UDP, port: 1, endPort: 3}]}]",
    );
    check(
        json!({}),
        &ingress,
        &["db web TCP 80", "db web UDP 4", "web db TCP 80"],
        &["db web TCP 8080", "other/far web UDP 1", "db web UDP 3"],
    );
    let egress = policy(
        "egress: [{to: [{podSelector: {}}], ports: [{port: sql}]}, {to: [{ipBlock: {cidr: 192.0.2.0/24, except: [192.0.2.128/25]}}]}]",
    );
    check(
        json!({}),
        &egress,
        &["web db TCP 80", "web 192.0.2.200 TCP 1", "db web TCP 8080", "web other/far TCP 5432"],
        &["web db TCP 5432", "web 192.0.2.1 TCP 1"],
    );
}

#[test]
fn what_is_for_people_and_what_others_write_says_nothing_of_traffic() {
    let rule = "endpointSelector: {matchLabels: {app: web}}, ingress: [{fromEndpoints: [{matchLabels: {app: db}}]}]";
    let told = "description: allow all, labels: [{key: a, source: k8s, value: b}], log: {value: text}";
    let status = "status: {conditions: [{type: Valid, status: \"False\", reason: r, message: m, lastTransitionTime: \"2026-01-01T00:00:00Z\"}], derivativePolicies: {a: {ok: false, enforcing: true, error: e}}}";
    let policy = format!(
        "{{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {{name: p}}, spec: {{{rule}, {told}}}, {status}}}"
    );
    check(json!({}), &policy, &["other/far web TCP 1"], &["db web TCP 1"]);
}
