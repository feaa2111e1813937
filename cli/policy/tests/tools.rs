//! Do `policy diff`, `lint`, `suggest` and `graph` tell the truth, each with its proof?
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use serde_json::Value;

/// A folder with files, which is away when the test ends.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str, files: &[(&str, &str)]) -> Folder {
        let path = std::env::temp_dir().join(format!("axoneme-tools-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        for (file, text) in files {
            std::fs::write(path.join(file), text).unwrap();
        }
        Folder(path)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    fn answer(&self, words: &str) -> (String, bool) {
        let words: Vec<String> = words
            .split_whitespace()
            .map(|word| if word.contains('.') && !word.contains('/') { self.file(word) } else { word.to_owned() })
            .collect();
        cli_policy::answer(&words.iter().map(String::as_str).collect::<Vec<_>>()).unwrap()
    }

    fn json(&self, words: &str) -> (Value, bool) {
        let (text, well) = self.answer(&format!("{words} -o json"));
        (serde_json::from_str(&text).unwrap(), well)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const POLICIES: &str = r#"
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: db, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: db}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: web}}]
    toPorts: [{ports: [{port: "5432", protocol: TCP}]}]
  - fromEndpoints: [{matchLabels: {app: web}}]
    toPorts: [{ports: [{port: "8080", protocol: TCP}], rules: {http: [{method: GET, path: "/metrics"}]}}]
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: web, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: web}}
  egress:
  - toEndpoints: [{}]
  - toCIDRSet: [{cidr: 10.0.0.0/8, except: [10.1.0.0/16]}]
  - toFQDNs: [{matchName: api.example.com}]
"#;

const CLUSTER: &str = "
endpoints:
- {name: web, labels: {app: web}}
- {name: db, labels: {app: db}}
- {name: batch, labels: {app: batch}, namespace: jobs}
dns: [{name: api.example.com, ips: [203.0.113.7]}]
";

fn folder(name: &str, new: &str) -> Folder {
    Folder::new(name, &[("old.yaml", POLICIES), ("new.yaml", new), ("cluster.yaml", CLUSTER)])
}

fn regions<'a>(value: &'a Value, change: &str) -> Vec<&'a Value> {
    value["regions"].as_array().unwrap().iter().filter(|region| region["change"] == change).collect()
}

#[test]
fn a_wider_range_of_ports_is_traffic_gained() {
    let new = POLICIES.replace("{port: \"5432\", protocol: TCP}", "{port: \"5432\", endPort: 5440, protocol: TCP}");
    let (value, well) = folder("ports", &new).json("diff old.yaml new.yaml --cluster cluster.yaml");
    assert!(!well);
    let gained = regions(&value, "gained");
    assert_eq!((gained.len(), value["regions"].as_array().unwrap().len()), (1, 1), "{value:#}");
    assert_eq!(gained[0]["ports"], serde_json::json!(["5433-5440/TCP"]));
    assert_eq!(gained[0]["sources"]["known"], serde_json::json!(["default/web"]));
    let witness = &gained[0]["witness"];
    assert_eq!((&witness["before"]["verdict"], &witness["after"]["verdict"]), (&"DENIED".into(), &"ALLOWED".into()));
    assert!(witness["after"]["rules"].to_string().contains("default/db ingress[0]"), "{witness:#}");
}

#[test]
fn an_exception_that_goes_is_addresses_gained() {
    let (value, _) =
        folder("except", &POLICIES.replace(", except: [10.1.0.0/16]", "")).json("diff old.yaml new.yaml --prove");
    let gained = regions(&value, "gained");
    assert_eq!(gained.len(), 1, "{value:#}");
    let others = gained[0]["destinations"]["others"].to_string();
    assert!(others.contains("10.1.0.0/16") && others.contains("not learned for api.example.com"), "{others}");
    assert_eq!(value["proved"], false);
}

#[test]
fn other_requests_are_told_with_one_that_shows_it() {
    let (value, _) = folder("requests", &POLICIES.replace("\"/metrics\"", "\"/metrics|/debug/.*\""))
        .json("diff old.yaml new.yaml --cluster cluster.yaml");
    let changed = regions(&value, "requests");
    assert_eq!(changed.len(), 1, "{value:#}");
    assert_eq!(changed[0]["l7"]["gained"], "GET /debug/");
    assert_eq!(changed[0]["l7"].get("lost"), None);
    // The same requests, written otherwise.
    let (value, well) = folder("same-requests", &POLICIES.replace("\"/metrics\"", "\"/metric[s]\""))
        .json("diff old.yaml new.yaml --cluster cluster.yaml --prove");
    assert!(well && value["proved"] == true, "{value:#}");
}

#[test]
fn equivalent_is_what_holds_for_those_who_are_not_there_too() {
    // Nobody in the cluster has the label; somebody may come.
    let new = POLICIES.replace(
        "fromEndpoints: [{matchLabels: {app: web}}]",
        "fromEndpoints: [{matchLabels: {app: web}}, {matchLabels: {app: late}}]",
    );
    let folder = folder("late", &new);
    let (value, well) = folder.json("diff old.yaml new.yaml --cluster cluster.yaml");
    assert!(well && value["proved"] == false, "no difference for those who are there: {value:#}");
    let (value, well) = folder.json("diff old.yaml new.yaml --cluster cluster.yaml --prove");
    assert!(!well, "{value:#}");
    let made_up = value["regions"][0]["witness"]["labels"].to_string();
    assert!(made_up.contains("app=late"), "{made_up}");
    let (value, well) = folder.json("diff old.yaml old.yaml --cluster cluster.yaml --prove");
    assert!(well && value["equivalent"] == true && value["proved"] == true);
}

#[test]
fn nothing_is_claimed_beyond_the_bound() {
    let folder = folder("bound", &POLICIES.replace("\"5432\"", "\"5433\""));
    let words = ["diff", &folder.file("old.yaml"), &folder.file("new.yaml"), "--prove", "--bound", "1"];
    let error = cli_policy::answer(&words).unwrap_err();
    assert!(error.to_string().contains("more cases than the bound"), "{error:#}");
}

#[test]
fn nothing_is_claimed_where_prefixes_select_pods() {
    let by_pods = format!("{CLUSTER}config: {{cidr_match_mode: [pods]}}\n");
    let folder = Folder::new("pods", &[("old.yaml", POLICIES), ("cluster.yaml", &by_pods)]);
    for prove in [None, Some("--prove")] {
        let (old, cluster) = (folder.file("old.yaml"), folder.file("cluster.yaml"));
        let words = ["diff", &old, &old, "--cluster", &cluster];
        let error = cli_policy::answer(&words.into_iter().chain(prove).collect::<Vec<_>>()).unwrap_err();
        assert!(error.to_string().contains("prefixes select"), "{error:#}");
    }
}

#[test]
fn addresses_that_other_policies_ask_for_are_told_from_the_rest() {
    let policy = |peers: &str| {
        format!(
            "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {{name: p}}\n\
             spec: {{endpointSelector: {{matchLabels: {{app: db}}}}, ingress: [{peers}]}}\n"
        )
    };
    let absent = "{fromEndpoints: [{matchExpressions: [{key: \"reserved:world\", operator: DoesNotExist}]}]}";
    let (old, new) = (policy("{fromEntities: [none]}"), policy(absent));
    let folder = Folder::new("sums", &[("old.yaml", &old), ("new.yaml", &new), ("cluster.yaml", CLUSTER)]);
    let (value, well) = folder.json("diff old.yaml new.yaml --cluster cluster.yaml --prove");
    assert!(!well, "{value:#}");
    let sources: Vec<String> =
        regions(&value, "gained").iter().map(|region| region["sources"]["others"].to_string()).collect();
    assert!(sources.concat().contains("0.0.0.0/0, learned for name.of.another.policy"), "{value:#}");
}

#[test]
fn another_mode_of_enforcement_is_a_difference() {
    let (value, well) =
        folder("mode", POLICIES).json("diff old.yaml old.yaml --cluster cluster.yaml --new-enforcement always");
    assert!(!well && !regions(&value, "lost").is_empty(), "{value:#}");
}

#[test]
fn a_wrong_policy_is_an_error_and_no_difference() {
    let folder = folder("wrong", &POLICIES.replace("app: web", "app: w/e/b"));
    let error = cli_policy::answer(&["diff", &folder.file("old.yaml"), &folder.file("new.yaml")]).unwrap_err();
    assert!(error.to_string().contains("new.yaml"), "{error:#}");
}

const DEAD: &str = r#"
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: db, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: db}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: web}}]
    toPorts: [{ports: [{port: "5432", endPort: 5440, protocol: TCP}]}]
  - fromEndpoints: [{matchLabels: {app: web, tier: front}}]
    toPorts: [{ports: [{port: "5433", protocol: TCP}]}]
  - fromEndpoints: [{matchLabels: {app: evil}}]
    toPorts: [{ports: [{port: "80", protocol: TCP}]}]
  - fromEndpoints: []
  - fromEndpoints: [{matchLabels: {app: web}}]
    toPorts: [{ports: [{port: "5432", endPort: 5440, protocol: TCP}]}]
  ingressDeny:
  - fromEndpoints: [{matchLabels: {app: evil}}]
"#;

#[test]
fn dead_rules_are_told_with_what_covers_them() {
    let folder = Folder::new("dead", &[("dead.yaml", DEAD)]);
    let (value, well) = folder.json("lint --dead dead.yaml");
    assert!(!well);
    let dead: Vec<(String, String)> = value["dead"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["rule"].as_str().unwrap().to_owned(), one["reason"].as_str().unwrap().to_owned()))
        .collect();
    let rule = |at: usize, reason: &str| (format!("CiliumNetworkPolicy default/db ingress[{at}]"), reason.to_owned());
    assert_eq!(
        dead,
        [rule(1, "covered"), rule(2, "shadowed"), rule(3, "no-traffic"), rule(4, "duplicate")],
        "{value:#}"
    );
    assert!(value["dead"][0]["covered_by"][0].as_str().unwrap().contains("ingress[0]"));
    assert!(value["dead"][1]["covered_by"][0].as_str().unwrap().contains("ingressDeny[0]"));
    assert!(value["dead"][0]["place"].as_str().unwrap().ends_with("dead.yaml:10"));
}

const FLOWS: &str = r#"{"flow":{"verdict":"FORWARDED","IP":{"source":"10.0.0.1","destination":"10.0.0.2"},"l4":{"TCP":{"destination_port":5432}},"source":{"labels":["k8s:app=web","k8s:pod-template-hash=7","k8s:io.kubernetes.pod.namespace=default","k8s:io.cilium.k8s.policy.cluster=default"]},"destination":{"labels":["k8s:app=db","k8s:io.kubernetes.pod.namespace=default","k8s:io.cilium.k8s.policy.cluster=default"]}}}
{"flow":{"verdict":"FORWARDED","IP":{"source":"10.0.0.2","destination":"10.0.0.1"},"l4":{"TCP":{"source_port":5432,"destination_port":40000}},"is_reply":true,"source":{"labels":["k8s:app=db"]},"destination":{"labels":["k8s:app=web"]}}}
{"flow":{"verdict":"FORWARDED","IP":{"source":"10.0.0.1","destination":"203.0.113.7"},"l4":{"TCP":{"destination_port":443}},"source":{"labels":["k8s:app=web","k8s:pod-template-hash=7","k8s:io.kubernetes.pod.namespace=default","k8s:io.cilium.k8s.policy.cluster=default"]},"destination":{"labels":["reserved:world"]},"destination_names":["api.example.com"]}}
{"flow":{"verdict":"FORWARDED","IP":{"source":"10.0.0.3","destination":"10.0.0.1"},"l4":{"TCP":{"destination_port":80}},"source":{"labels":["k8s:app=front","k8s:io.kubernetes.pod.namespace=shop","k8s:io.cilium.k8s.policy.cluster=default"]},"destination":{"labels":["k8s:app=web","k8s:pod-template-hash=7","k8s:io.kubernetes.pod.namespace=default","k8s:io.cilium.k8s.policy.cluster=default"]},"l7":{"type":"REQUEST","http":{"method":"GET","url":"http://web/users/17?x=1"}}}}
{"lost_events":{"num":1}}
"#;

#[test]
fn suggested_policies_allow_the_flows_and_say_which() {
    let folder = Folder::new("suggest", &[("flows.jsonl", FLOWS)]);
    let (value, well) = folder.json("suggest --flows flows.jsonl");
    assert!(well, "{value:#}");
    assert_eq!((&value["proof"]["flows"], &value["proof"]["allowed"]), (&3.into(), &3.into()));
    assert_eq!(value["score"]["over_permission"], 0.0, "{value:#}");
    let web = value["policies"].as_array().unwrap().iter().find(|one| one["metadata"]["name"] == "web").unwrap();
    assert_eq!(web["spec"]["endpointSelector"]["matchLabels"], serde_json::json!({ "app": "web" }));
    assert_eq!(web["spec"]["ingress"][0]["toPorts"][0]["rules"]["http"][0]["path"], "/users/[0-9]+(\\?.*)?");
    let names = web["spec"]["egress"]
        .as_array()
        .unwrap()
        .iter()
        .any(|rule| rule["toFQDNs"][0]["matchName"] == "api.example.com");
    assert!(names, "{web:#}");
    let (again, _) = folder.json("suggest --flows flows.jsonl");
    assert_eq!(value, again, "the same flows give the same policies");
    // What is printed can be applied, and explains itself.
    let (yaml, _) = folder.answer("suggest --flows flows.jsonl");
    assert!(yaml.contains("# egress[0]: default/web -> default/db 5432/TCP (line 1)"), "{yaml}");
    let applied = Folder::new("applied", &[("policies.yaml", &yaml)]);
    let (text, well) = applied.answer("check policies.yaml");
    assert!(well, "{text}");
}

#[test]
fn plain_flows_are_read_too_and_rules_are_put_together() {
    let flows = "{\"src\":\"web\",\"dst\":\"db\",\"port\":1}\n{\"src\":\"jobs/batch\",\"dst\":\"db\",\"port\":2}\n{\"src\":\"192.0.2.7\",\"dst\":\"web\",\"port\":80}\n";
    let folder = Folder::new("plain", &[("flows.jsonl", flows), ("cluster.yaml", CLUSTER)]);
    let rules = |words: &str| folder.json(&format!("suggest --flows flows.jsonl --cluster cluster.yaml {words}")).0;
    assert_eq!(rules("")["rules"].as_array().unwrap().len(), 5);
    let fewer = rules("--max-rules 4");
    assert_eq!(fewer["rules"].as_array().unwrap().len(), 4, "{fewer:#}");
    assert_eq!(fewer["proof"]["allowed"], 3);
}

#[test]
fn the_graph_has_who_reaches_whom_in_every_form() {
    let folder = folder("graph", POLICIES);
    let words = "graph --policies old.yaml --cluster cluster.yaml";
    let (value, _) = folder.json(words);
    let edge = value["edges"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["destination"] == "default/db" && one["source"] == "default/web")
        .unwrap();
    assert_eq!(edge["ports"], serde_json::json!(["5432/TCP"]));
    assert_eq!(edge["redirected"], serde_json::json!(["8080/TCP"]));
    assert!(edge["policies"].to_string().contains("default/db"), "{edge:#}");
    assert!(value["edges"].as_array().unwrap().iter().all(|one| one["source"] != "jobs/batch"), "{value:#}");
    let (svg, _) = folder.answer(&format!("{words} -o svg"));
    assert!(svg.starts_with("<svg ") && svg.contains(">default/web</text>") && svg.contains("stroke-dasharray"));
    let (dot, _) = folder.answer(&format!("{words} -o dot"));
    assert!(dot.starts_with("digraph") && dot.contains("style=dashed"), "{dot}");
    let (table, _) = folder.answer(words);
    assert!(table.contains("default/web -> default/db  5432/TCP 8080/TCP (proxy)"), "{table}");
}

#[test]
fn what_can_never_match_is_warned_of() {
    let file = r#"
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: p, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: web}}
  ingress:
  - fromEndpoints: []
  - fromEndpoints: [{matchLabels: {app: a}, matchExpressions: [{key: app, operator: NotIn, values: [a]}]}]
  # allow everything out
  egress: [{}]
"#;
    let (text, well) = Folder::new("never", &[("p.yaml", file)]).answer("check p.yaml");
    assert!(well, "{text}");
    for part in [
        "an empty list of peers selects nobody",
        "cannot all hold",
        "the comment beside it says \"allow everything out\", but an empty rule allows nothing",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn the_document_shows_what_the_examples_give() {
    let examples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/policy-tools");
    let file = |name: &str| examples.join(name).display().to_string();
    let document = std::fs::read_to_string(examples.join("../../docs/policy-tools.md")).unwrap();
    // The files have other folders here.
    let (old, new, cluster) = (file("old.yaml"), file("new.yaml"), file("cluster.yaml"));
    let plain = |text: String| text.replace(&old, "old.yaml").replace(&new, "new.yaml");
    let (diff, _) = cli_policy::answer(&["diff", &old, &new, "--cluster", &cluster]).unwrap();
    assert!(document.contains(&plain(diff.clone())), "{diff}");
    let (graph, _) = cli_policy::answer(&["graph", "--policies", &old, "--cluster", &cluster]).unwrap();
    assert!(document.contains(&plain(graph.clone())), "{graph}");
    let (_, well) = cli_policy::answer(&["suggest", "--flows", &file("flows.jsonl")]).unwrap();
    assert!(well, "all flows of the example are allowed by what is suggested");
}

#[test]
fn endpoints_that_wait_for_their_labels_count_too() {
    let policy = "
apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: {name: init}
spec:
  endpointSelector: {matchLabels: {'reserved:init': ''}}
  egress: [{toEntities: [host]}]
";
    let files = [("old.yaml", policy), ("new.yaml", &policy.replace("[host]", "[host, world]"))];
    let (value, well) = Folder::new("init", &files).json("diff old.yaml new.yaml --prove");
    assert!(!well, "{value:#}");
    let labels = value["regions"][0]["witness"]["labels"].to_string();
    assert!(labels.contains("reserved:init"), "{value:#}");
}
