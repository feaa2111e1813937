//! Do `policy check`, `policy explain` and `policy test` tell the truth?
#![allow(clippy::unwrap_used)]

#[path = "support/file.rs"]
mod file;

use std::path::Path;

use file::File;
use serde_json::Value;

fn answer(arguments: &[&str]) -> (String, bool) {
    cli_policy::answer(arguments).unwrap()
}

fn examples() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").display().to_string()
}

#[test]
fn the_examples_expect_what_is() {
    let (text, well) = answer(&["test", &format!("{}/policy-tests", examples()), "--coverage"]);
    assert!(well, "{text}");
    assert!(text.contains(" passed, 0 failed"), "{text}");
}

const GOOD: &str = "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: web, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: web}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: db}}]
    toPorts: [{ports: [{port: \"80\", protocol: TCP}]}]
  - toPorts: [{ports: [{port: \"8080\", protocol: TCP}], rules: {http: [{method: GET, path: /x}]}}]
  ingressDeny:
  - fromEndpoints: [{matchLabels: {app: evil}}]
";

const CLUSTER: &str = "
endpoints:
- {name: web, labels: {app: web}}
- {name: db, labels: {app: db}}
- {name: evil, labels: {app: evil}}
- {name: other, labels: {app: other}, namespace: far}
";

#[test]
fn good_policies_pass_the_check_and_wrong_ones_do_not() {
    let good = File::new("good.yaml", GOOD);
    assert_eq!(answer(&["check", good.name()]), ("1 policies, 0 errors, 0 warnings\n".to_owned(), true));
    let wrong = File::new("wrong.yaml", &GOOD.replace("\"80\"", "\"80x\\u0000\"").replace("app: evil", "app: ev/il/"));
    let (text, well) = answer(&["check", wrong.name()]);
    assert!(!well && text.contains("error: ") && text.contains("spec.ingress"), "{text}");
    assert!(text.contains(&format!("{}:9: spec.ingress[0]", wrong.name())), "file and line: {text}");
    let unread = File::new("unread.yaml", "a: [");
    assert!(!answer(&["check", unread.name()]).1);
}

#[test]
fn e0_19_names_beside_other_peers_are_refused_and_it_is_said_where() {
    for (other, field) in [("toEndpoints: [{}]", "ToEndpoints"), ("toCIDR: [1.2.3.4/32]", "ToCIDR")] {
        let head = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: both, namespace: a}\n";
        let spec =
            format!("spec:\n  endpointSelector: {{}}\n  egress:\n  - toFQDNs: [{{matchName: x.io}}]\n    {other}\n");
        let file = File::new("both.yaml", &format!("{head}{spec}"));
        let (text, good) = answer(&["check", file.name()]);
        let said = format!("both.yaml:7: spec.egress[0]: combining {field} and ToFQDNs is not supported yet");
        assert!(!good && text.contains(&said), "{text}");
    }
}

#[test]
fn an_empty_rule_is_warned_of_and_fails_a_strict_check() {
    let file = File::new("empty.yaml", &GOOD.replace("  ingress:\n", "  egress: [{}]\n  ingress:\n"));
    let (text, well) = answer(&["check", file.name()]);
    assert!(well && text.contains("warning: ") && text.contains("spec.egress[0]"), "{text}");
    assert!(!answer(&["check", "--strict", file.name()]).1);
}

#[test]
fn policies_of_the_same_name_are_told() {
    let file = File::new("twice.yaml", &format!("{GOOD}---{GOOD}"));
    let (text, _) = answer(&["check", file.name()]);
    assert!(text.contains("takes the place of the policy of the same name"), "{text}");
}

#[test]
fn findings_come_in_every_form() {
    let file = File::new("forms.yaml", &GOOD.replace("app: db", "app: d/b/"));
    let form = |name: &str| answer(&["check", "-o", name, file.name()]).0;
    let json: Value = serde_json::from_str(&form("json")).unwrap();
    assert_eq!(json["findings"][0]["severity"], "error", "{json:#}");
    assert_eq!(json["findings"][0]["file"], file.name());
    let yaml: Value = serde_saphyr::from_str(&form("yaml")).unwrap();
    assert_eq!(yaml, json);
    let sarif: Value = serde_json::from_str(&form("sarif")).unwrap();
    assert_eq!(sarif["version"], "2.1.0");
    assert_eq!(sarif["runs"][0]["results"][0]["level"], "error", "{sarif:#}");
    let junit = form("junit");
    assert!(junit.contains("<failure") && junit.contains("failures=\"1\""), "{junit}");
}

fn suite(expect: &str) -> (String, bool, File, File) {
    let policy = File::new(&format!("suite-policy-{}.yaml", expect.len()), GOOD);
    let indented = CLUSTER.replace('\n', "\n  ");
    let text = format!("policies: [{}]\ncluster:{indented}\nexpect:\n{expect}\n", policy.name());
    let file = File::new(&format!("suite-{}.yaml", expect.len()), &text);
    let (text, well) = answer(&["test", file.name()]);
    (text, well, policy, file)
}

#[test]
fn expectations_that_do_not_hold_fail_and_say_why() {
    let (text, well, ..) = suite("- deny: 'db -> web:80'\n  because: a reason");
    assert!(!well, "{text}");
    for part in ["FAILED", "deny db -> web:80", "a reason", "found allow", "default/web", "0 passed, 1 failed"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let (text, well, ..) = suite("- allow: 'db -> web:8080'");
    assert!(!well && text.contains("found redirect"), "what the proxy may refuse is not let through: {text}");
    let (text, well, ..) = suite("- deny: 'evil -> web:80'\n  denied_by: egress");
    assert!(!well && text.contains("denied at egress"), "{text}");
}

#[test]
fn rules_that_could_go_are_told() {
    let (_, well, _policy, file) = suite("- allow: 'db -> web:80'\n- deny: 'far/other -> web:81'");
    assert!(well);
    let (text, _) = answer(&["test", file.name(), "--coverage", "--mutation"]);
    assert!(text.contains("could go: CiliumNetworkPolicy default/web ingressDeny[0]"), "{text}");
    assert!(text.contains("not asked: CiliumNetworkPolicy default/web ingress[1]"), "{text}");
    assert!(!text.contains("could go: CiliumNetworkPolicy default/web ingress[0]"), "{text}");
    let (junit, _) = answer(&["test", file.name(), "-o", "junit"]);
    assert!(junit.contains("tests=\"2\"") && junit.contains("failures=\"0\""), "{junit}");
    let (json, _) = answer(&["test", file.name(), "--coverage", "--mutation", "-o", "json"]);
    let told: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(told["expectations"].as_array().map(Vec::len), Some(2), "{told:#}");
    let rule = |at: &str| format!("CiliumNetworkPolicy default/web {at}");
    assert!(told["coverage"][0]["missed"].as_array().is_some_and(|all| all.contains(&rule("ingress[1]").into())));
    let score = &told["mutation"][0];
    assert_eq!(score["missed"][0], rule("ingressDeny[0]"), "{score:#}");
    let count = |name: &str| score[name].as_u64().unwrap();
    assert_eq!(count("rules"), count("noticed") + score["missed"].as_array().unwrap().len() as u64);
    let (junit, _) = answer(&["test", file.name(), "--mutation", "-o", "junit"]);
    assert!(junit.contains("<system-out>") && junit.contains("could go: CiliumNetworkPolicy default/web"), "{junit}");
}

#[test]
fn a_suite_with_wrong_policies_does_not_run() {
    let policy = File::new("suite-wrong-policy.yaml", &GOOD.replace("app: db", "app: d/b/"));
    let text = format!("policies: [{}]\nexpect: [{{deny: 'a -> b'}}]", policy.name());
    let file = File::new("suite-wrong.yaml", &text);
    let error = cli_policy::answer(&["test", file.name()]).unwrap_err();
    assert!(format!("{error:#}").contains("spec.ingress[0]"), "{error:#}");
    let file = File::new("suite-unknown.yaml", "expected: []");
    assert!(cli_policy::answer(&["test", file.name()]).is_err(), "misspelt fields are told");
}

/// The explanation of a flow between endpoints of the cluster, as JSON.
fn explained(name: &str, arguments: &[&str]) -> (Value, bool) {
    let (policy, cluster) =
        (File::new(&format!("{name}-policy.yaml"), GOOD), File::new(&format!("{name}.yaml"), CLUSTER));
    let fixed = ["-o", "json", "--policies", policy.name(), "--cluster", cluster.name()];
    let arguments: Vec<&str> = ["explain"].iter().chain(arguments).chain(&fixed).copied().collect();
    let (text, well) = answer(&arguments);
    (serde_json::from_str(&text).unwrap(), well)
}

#[test]
fn an_explanation_names_the_deciding_rule_and_its_text() {
    let (value, well) = explained("allowed", &["db", "web:80"]);
    assert!(well);
    assert_eq!(value["verdict"], "ALLOWED", "{value:#}");
    let ingress = &value["ends"][1];
    assert_eq!(ingress["direction"], "ingress");
    let rule = &ingress["speaking"][0];
    assert_eq!(rule["rule"], "CiliumNetworkPolicy default/web ingress[0]");
    assert_eq!(rule["decides"], true);
    assert_eq!(rule["text"]["fromEndpoints"][0]["matchLabels"]["app"], "db");
    assert!(rule["file"].as_str().unwrap().ends_with("allowed-policy.yaml"));
    assert_eq!((&rule["line"], &ingress["origins"][0]["line"]), (&Value::from(8), &Value::from(8)));
    let removed = &value["changes"][0];
    assert_eq!(removed["to"], "DENIED");
    assert_eq!(removed["steps"][0]["take_out"], "CiliumNetworkPolicy default/web ingress[0]");
}

#[test]
fn a_denied_flow_gets_the_policy_that_would_allow_it() {
    let (value, well) = explained("denied", &["far/other", "web:443/TCP"]);
    assert!(!well);
    assert_eq!(value["ends"][1]["closed_by"][0], "CiliumNetworkPolicy default/web", "{value:#}");
    let add = &value["changes"][0]["steps"][0]["add"];
    let labels = &add["spec"]["ingress"][0]["fromEndpoints"][0]["matchLabels"];
    assert_eq!(labels["k8s:io.kubernetes.pod.namespace"], "far", "{value:#}");
    assert_eq!(labels["app"], "other");
    assert_eq!(add["spec"]["ingress"][0]["toPorts"][0]["ports"][0]["port"], "443");
    let (value, _) = explained("denied-world", &["192.0.2.1", "web:443/TCP"]);
    assert_eq!(value["changes"][0]["steps"][0]["add"]["spec"]["ingress"][0]["fromCIDR"][0], "192.0.2.1/32");
}

#[test]
fn a_rule_that_denies_is_to_be_taken_out_before_one_allows() {
    let (value, _) = explained("evil", &["evil", "web:80"]);
    assert_eq!(value["ends"][1]["reason"], "policy-deny", "{value:#}");
    let steps = &value["changes"][0]["steps"];
    assert_eq!(steps[0]["take_out"], "CiliumNetworkPolicy default/web ingressDeny[0]", "{value:#}");
    assert_eq!(steps[1]["add"]["kind"], "CiliumNetworkPolicy");
}

#[test]
fn requests_are_judged_as_the_proxy_would() {
    let ask = |name: &str, request: &str| explained(name, &["db", "web:8080", "--http", request]);
    let (value, well) = ask("get", "GET /x");
    assert!(well && value["l7"]["allowed"] == true, "{value:#}");
    let (value, well) = ask("put", "PUT /x");
    assert!(!well && value["l7"]["refused_at"][0] == "ingress", "{value:#}");
    let policy = File::new("text-policy.yaml", GOOD);
    let cluster = File::new("text.yaml", CLUSTER);
    let arguments = ["explain", "evil", "web:8080", "--policies", policy.name(), "--cluster", cluster.name()];
    let (text, well) = answer(&arguments);
    assert!(!well && text.starts_with("DENIED: evil"), "{text}");
    for part in ["* deny: CiliumNetworkPolicy default/web ingressDeny[0]", "app: evil", "take out or narrow"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

const NAMES: &str = "apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: web, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: web}}
  egress:
  - toFQDNs: [{matchPattern: \"*.example\"}]
  - toEndpoints: [{}]
    toPorts: [{ports: [{port: \"53\", protocol: ANY}], rules: {dns: [{matchPattern: \"*\"}]}}]
  egressDeny:
  - toFQDNs: [{matchName: evil.example}]
";
const NAMED: &str = "endpoints:
- {name: web, labels: {app: web}}
- {name: coredns, labels: {app: dns}}
dns:
- {name: good.example, ips: [192.0.2.1, 192.0.2.2]}
- {name: evil.example, ips: [192.0.2.2]}
";

#[test]
fn denials_by_name_are_explained_for_addresses_and_for_questions() {
    let (policy, cluster) = (File::new("names-policy.yaml", NAMES), File::new("names.yaml", NAMED));
    let ask = |arguments: &[&str]| {
        let fixed = ["--policies", policy.name(), "--cluster", cluster.name()];
        answer(&["explain"].iter().chain(arguments).chain(&fixed).copied().collect::<Vec<_>>())
    };
    let (text, well) = ask(&["web", "192.0.2.1:443"]);
    assert!(well && text.contains("the address is one of *.example\n"), "{text}");
    let (text, well) = ask(&["web", "192.0.2.2:443"]);
    assert!(!well && text.contains("the address is one of *.example and of evil.example\n"), "{text}");
    for part in
        ["* deny: CiliumNetworkPolicy default/web egressDeny[0]", "  allow: CiliumNetworkPolicy default/web egress[0]"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    let (text, well) = ask(&["web", "coredns:53/UDP", "--dns", "good.example"]);
    assert!(well && text.contains("  and refuses evil.example\n"), "{text}");
    let (text, well) = ask(&["web", "coredns:53/UDP", "--dns", "Evil.example."]);
    assert!(!well && text.contains("the proxy refuses it at egress"), "{text}");
}

#[test]
fn requests_to_kafka_are_judged_as_the_proxy_would() {
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/kafka");
    let (policies, cluster) = (format!("{examples}/01-empire.yaml"), format!("{examples}/cluster.yaml"));
    let ask = |from: &str, request: &str| {
        let flow = [from, "kafka-broker:9092", "--kafka", request];
        let files = ["--policies", &policies, "--cluster", &cluster, "-o", "json"];
        let (text, well) = answer(&[&["explain"], &flow[..], &files[..]].concat());
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["ends"].as_array().unwrap().last().unwrap()["l7"][0]["parser"], "kafka", "{value:#}");
        assert_eq!(value["l7"]["allowed"], well, "{value:#}");
        well
    };
    for (from, allowed, denied) in [
        (
            "empire-hq",
            &["produce empire-announce", "produce empire-announce deathstar-plans", "ApiVersions"][..],
            &["fetch empire-announce", "produce empire-announce other", "createtopics deathstar-plans"][..],
        ),
        (
            "empire-outpost-9999",
            &["fetch/4 empire-announce", "heartbeat", "metadata empire-announce", "offsetcommit empire-announce"],
            &["produce empire-announce", "fetch deathstar-plans", "initproducerid"],
        ),
        ("empire-backup", &["fetch deathstar-plans"], &["fetch empire-announce"]),
    ] {
        for request in allowed {
            assert!(ask(from, request), "{from}: {request}");
        }
        for request in denied {
            assert!(!ask(from, request), "{from}: {request}");
        }
    }
    let files = ["--policies", &policies, "--cluster", &cluster];
    let wrong = |request: &str| {
        let flow = ["explain", "empire-hq", "kafka-broker:9092", "--kafka", request];
        format!("{:#}", cli_policy::answer(&[&flow[..], &files[..]].concat()).unwrap_err())
    };
    let nosuch = wrong("nosuch x");
    assert!(nosuch.contains("no kind of request"), "{nosuch}");
    assert!(wrong("fetch/13 x").contains("reads versions 4 to 12"));
}

#[test]
fn definitions_are_documents_that_a_cluster_takes() {
    let (yaml, _) = answer(&["definitions"]);
    let documents: Vec<Value> =
        yaml.split("---\n").skip(1).map(|document| serde_saphyr::from_str(document).unwrap()).collect();
    let (json, _) = answer(&["definitions", "-o", "json"]);
    let lines: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(documents, lines);
    assert_eq!(documents.len(), crds::custom_resources().len());
    let (one, _) = answer(&["definitions", "CiliumNetworkPolicy"]);
    assert!(one.contains("name: ciliumnetworkpolicies.cilium.io"), "{one}");
    let unknown = cli_policy::answer(&["definitions", "CiliumPolicy"]).unwrap_err().to_string();
    assert!(unknown.starts_with("there is no kind CiliumPolicy; there are "), "{unknown}");
}
