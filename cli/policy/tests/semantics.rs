//! What does each sentence of docs/policy-semantics.md come to?
#![allow(clippy::unwrap_used)]

#[path = "support/file.rs"]
mod file;

use std::path::{Path, PathBuf};

use file::File;
use serde_json::{Value, json};

const CLUSTER: &str = r#"
  namespaces: {other: {team: a}, default: {team: b}}
  endpoints:
  - {name: web, labels: {app: web, tier: front}, ports: [{name: http, port: 80}, {name: dns, port: 53, protocol: UDP}]}
  - {name: db, labels: {app: db}, ports: [{name: sql, port: 5432}]}
  - {name: old, labels: {app: db, version: v0}, ports: [{name: sql, port: 5433}]}
  - {namespace: other, name: web, labels: {app: web}}
  - {namespace: other, name: robot, labels: {app: robot}, service_account: robot}
  - {name: far, labels: {app: db}, cluster: mesh, cluster_id: 3, remote: true}
  - {name: own, reserved: host, labels: {role: infra}}
  - {name: new, reserved: init}
  nodes:
  - {name: n1, ips: [172.18.0.2], local: true}
  - {name: n2, ips: [172.18.0.3], labels: {role: infra}}
  - {name: n3, ips: [172.18.0.4], kube_apiserver: true}
  dns:
  - {name: a.example.com, ips: [192.0.2.1]}
  - {name: b.a.example.com, ips: [192.0.2.2]}
  services:
  - {name: sql, namespace: default, labels: {kind: store}, selector: {app: db}}
  - {name: outside, namespace: default, backends: [192.0.2.9]}
"#;

/// The outcomes of flows with these policies; all must be as expected.
#[track_caller]
fn hold(config: &str, policies: &[String], expect: &[&str]) {
    let mut cluster: Value = serde_saphyr::from_str(CLUSTER).unwrap();
    cluster["config"] = serde_saphyr::from_str(config).unwrap();
    cluster["policies"] = json!(policies.join("\n---\n"));
    let expect: Vec<Value> = expect
        .iter()
        .map(|line| {
            let (kind, flow) = line.split_once(' ').unwrap();
            json!({ kind: flow })
        })
        .collect();
    let suite = json!({ "cluster": cluster, "expect": expect }).to_string();
    let at = std::panic::Location::caller();
    let file = File::new(&format!("semantics-{}.yaml", at.line()), &suite);
    let (text, well) = cli_policy::answer(&["test", file.name()]).unwrap();
    assert!(well, "{text}");
}

/// A policy of `default` for `app=web`.
fn web(name: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {{name: {name}, namespace: default}}, spec: {{endpointSelector: {{matchLabels: {{app: web}}}}, {spec}}}}}"
    )
}

/// A policy of the cluster.
fn clusterwide(name: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: cilium.io/v2, kind: CiliumClusterwideNetworkPolicy, metadata: {{name: {name}}}, spec: {{{spec}}}}}"
    )
}

/// A NetworkPolicy of `default` for `app=web`.
fn plain(spec: &str) -> String {
    format!(
        "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: np, namespace: default}}, spec: {{podSelector: {{matchLabels: {{app: web}}}}, {spec}}}}}"
    )
}

/// A ClusterNetworkPolicy for all pods.
fn cluster(name: &str, tier: &str, priority: u32, rules: &str) -> String {
    format!(
        "{{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {{name: {name}}}, spec: {{tier: {tier}, priority: {priority}, subject: {{namespaces: {{}}}}, {rules}}}}}"
    )
}

#[test]
fn every_test_that_the_document_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let document = std::fs::read_to_string(root.join("docs/policy-semantics.md")).unwrap();
    let mut sources = String::new();
    let mut folders: Vec<PathBuf> = ["cli", "model", "services", "test"].iter().map(|one| root.join(one)).collect();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else if entry.path().extension().is_some_and(|end| end == "rs") {
                sources += &std::fs::read_to_string(entry.path()).unwrap();
            }
        }
    }
    let mut count = 0;
    for (line, text) in document.lines().enumerate().filter(|(_, text)| text.starts_with("- ")) {
        let tests = text.rsplit_once('[').and_then(|(_, rest)| rest.strip_suffix(']'));
        let tests = tests.unwrap_or_else(|| panic!("line {} names no test: {text}", line + 1));
        for test in tests.split(", ") {
            let test = test.trim_matches('`');
            assert!(sources.contains(&format!("fn {test}(")), "line {}: there is no test {test}", line + 1);
            count += 1;
        }
    }
    assert!(count > 60, "{count} tests");
}

#[test]
fn a_direction_is_closed_by_a_rule_for_it() {
    let ingress = web("p", "ingress: [{fromEndpoints: [{matchLabels: {app: db}}]}]");
    hold("{}", &[ingress], &["allow db -> web:80", "deny other/web -> web:80", "allow web -> 192.0.2.7:80"]);
    hold("{}", &[web("p", "ingress: [], egress: [{}]")], &["allow db -> web:80"]);
    hold("{}", &[web("p", "ingress: [{}]")], &["deny db -> web:80"]);
}

#[test]
fn denials_close_a_direction_too() {
    let deny = web("p", "ingressDeny: [{fromEndpoints: [{matchLabels: {app: robot}}]}]");
    hold("{}", &[deny], &["deny db -> web:80", "allow web -> db:80"]);
    let open = web("p", "enableDefaultDeny: {ingress: false}, ingressDeny: [{fromEntities: [world]}]");
    hold("{}", &[open], &["allow db -> web:80", "deny 192.0.2.7 -> web:80"]);
}

#[test]
fn default_denial_can_be_switched_off_but_not_for_others() {
    let open = web("a", "enableDefaultDeny: {egress: false}, egress: [{toEndpoints: [{matchLabels: {app: db}}]}]");
    hold("{}", std::slice::from_ref(&open), &["allow web -> db:1", "allow web -> other/web:1"]);
    let closed = web("b", "egress: [{toPorts: [{ports: [{port: \"80\"}]}]}]");
    hold("{}", &[open, closed], &["allow web -> db:1", "allow web -> other/web:80", "deny web -> other/web:81"]);
}

#[test]
fn modes_close_all_or_nothing() {
    let policy = web("p", "ingress: [{fromEndpoints: [{matchLabels: {app: db}}]}]");
    hold("{mode: never}", std::slice::from_ref(&policy), &["allow other/web -> web:80"]);
    hold("{mode: always}", &[policy], &["deny other/web -> db:80", "deny db -> web:80"]);
    hold("{mode: always}", &[], &["deny web -> 192.0.2.7:1", "deny node:n2 -> web:80"]);
}

#[test]
fn selectors_need_all_that_they_say() {
    let selector = |text: &str| web("p", &format!("ingress: [{{fromEndpoints: [{text}]}}]"));
    hold(
        "{}",
        &[selector("{matchLabels: {app: db}, matchExpressions: [{key: version, operator: DoesNotExist}]}")],
        &["allow db -> web:1", "deny old -> web:1"],
    );
    hold(
        "{}",
        &[selector("{matchExpressions: [{key: version, operator: NotIn, values: [v1]}]}")],
        &["allow db -> web:1", "allow old -> web:1", "deny other/web -> web:1"],
    );
    hold(
        "{}",
        &[selector("{matchExpressions: [{key: version, operator: Exists}]}")],
        &["deny db -> web:1", "allow old -> web:1"],
    );
    hold(
        "{}",
        &[selector("{matchExpressions: [{key: app, operator: In, values: [db, x]}]}")],
        &["allow db -> web:1", "allow old -> web:1"],
    );
}

#[test]
fn peers_are_of_the_policy_s_namespace_and_cluster_unless_they_say_otherwise() {
    let from = |labels: &str| web("p", &format!("ingress: [{{fromEndpoints: [{{matchLabels: {{{labels}}}}}]}}]"));
    hold("{}", &[from("app: db")], &["allow db -> web:1", "deny far -> web:1"]);
    hold(
        "{}",
        &[from("\"k8s:io.kubernetes.pod.namespace\": other")],
        &["allow other/robot -> web:1", "deny db -> web:1"],
    );
    hold("{}", &[from("app: db, io.cilium.k8s.policy.cluster: mesh")], &["allow far -> web:1", "deny db -> web:1"]);
    hold(
        "{}",
        &[from("\"k8s:io.cilium.k8s.namespace.labels.team\": a")],
        &["allow other/web -> web:1", "deny db -> web:1"],
    );
    hold(
        "{}",
        &[from("io.cilium.k8s.policy.serviceaccount: robot, \"k8s:io.kubernetes.pod.namespace\": other")],
        &["allow other/robot -> web:1", "deny other/web -> web:1"],
    );
    hold("{any_cluster: true}", &[from("app: db")], &["allow far -> web:1"]);
}

#[test]
fn an_empty_list_of_peers_is_nobody_and_no_list_is_everybody() {
    hold("{}", &[web("p", "ingress: [{fromEndpoints: []}]")], &["deny db -> web:1", "deny other/web -> web:1"]);
    let all = web("p", "ingress: [{toPorts: [{ports: [{port: \"80\"}]}]}]");
    hold("{}", &[all], &["allow 192.0.2.7 -> web:80", "allow other/web -> web:80", "deny db -> web:81"]);
    let any = clusterwide("c", "endpointSelector: {}, egress: [{toEndpoints: [{}]}]");
    hold("{}", &[any], &["allow web -> other/robot:1", "deny web -> 192.0.2.7:1"]);
}

#[test]
fn entities_are_groups_of_identities() {
    let to = |entity: &str| web("p", &format!("egress: [{{toEntities: [{entity}]}}]"));
    hold("{}", &[to("world")], &["allow web -> 192.0.2.7:1", "deny web -> db:1", "deny web -> node:n2:1"]);
    hold(
        "{}",
        &[to("cluster")],
        &["allow web -> db:1", "allow web -> node:n1:1", "allow web -> node:n2:1", "deny web -> 192.0.2.7:1"],
    );
    hold("{}", &[to("host")], &["allow web -> node:n1:1", "deny web -> node:n2:1"]);
    hold("{}", &[to("remote-node")], &["allow web -> node:n2:1", "allow web -> node:n3:1", "deny web -> node:n1:1"]);
    hold("{}", &[to("kube-apiserver")], &["allow web -> node:n3:1", "deny web -> node:n2:1"]);
    hold("{}", &[to("all")], &["allow web -> 192.0.2.7:1", "allow web -> db:1", "allow web -> node:n1:1"]);
    hold("{}", &[to("none")], &["deny web -> 192.0.2.7:1", "deny web -> db:1"]);
}

#[test]
fn prefixes_are_addresses_outside_unless_the_settings_say_more() {
    let to = web("p", "egress: [{toCIDRSet: [{cidr: 0.0.0.0/0, except: [192.0.2.0/24]}]}, {toCIDR: [192.0.2.8/32]}]");
    let flows =
        ["allow web -> 198.51.100.1:1", "deny web -> 192.0.2.7:1", "allow web -> 192.0.2.8:1", "deny web -> db:1"];
    hold("{}", std::slice::from_ref(&to), &flows);
    let node = web("p", "egress: [{toCIDR: [172.18.0.0/16]}]");
    hold("{}", std::slice::from_ref(&node), &["deny web -> node:n2:1"]);
    hold("{cidr_match_mode: [nodes]}", &[node], &["allow web -> node:n2:1", "deny web -> db:1"]);
}

#[test]
fn groups_of_prefixes_are_what_they_hold() {
    let group = "{apiVersion: cilium.io/v2, kind: CiliumCIDRGroup, metadata: {name: g, labels: {kind: office}}, spec: {externalCIDRs: [198.51.100.0/24]}}".to_owned();
    let by_name = web("p", "egress: [{toCIDRSet: [{cidrGroupRef: g, except: [198.51.100.8/32]}]}]");
    hold(
        "{}",
        &[group.clone(), by_name],
        &["allow web -> 198.51.100.1:1", "deny web -> 198.51.100.8:1", "deny web -> 192.0.2.7:1"],
    );
    let by_labels = web("p", "egress: [{toCIDRSet: [{cidrGroupSelector: {matchLabels: {kind: office}}}]}]");
    hold("{}", &[group, by_labels], &["allow web -> 198.51.100.1:1", "deny web -> 192.0.2.7:1"]);
    let unknown = web("p", "egress: [{toCIDRSet: [{cidrGroupRef: nosuch}]}]");
    hold("{}", &[unknown], &["deny web -> 198.51.100.1:1"]);
}

#[test]
fn groups_that_hold_a_whole_family_are_all_that_is_outside() {
    let group = "{apiVersion: cilium.io/v2, kind: CiliumCIDRGroup, metadata: {name: g, labels: {kind: office}}, spec: {externalCIDRs: [0.0.0.0/0]}}".to_owned();
    for to in ["cidrGroupRef: g", "cidrGroupSelector: {matchLabels: {kind: office}}"] {
        let allowed = web("p", &format!("egress: [{{toCIDRSet: [{{{to}, except: [192.0.2.0/24]}}]}}]"));
        let flows = ["allow web -> 198.51.100.1:1", "deny web -> 192.0.2.7:1", "deny web -> db:1"];
        hold("{}", &[group.clone(), allowed], &flows);
        let denied =
            web("p", &format!("egress: [{{}}, {{toEntities: [all]}}], egressDeny: [{{toCIDRSet: [{{{to}}}]}}]"));
        hold("{}", &[group.clone(), denied], &["deny web -> 198.51.100.1:1", "allow web -> db:1"]);
    }
}

#[test]
fn names_are_the_addresses_that_were_learned() {
    let name = web("p", "egress: [{toFQDNs: [{matchName: A.Example.com.}]}]");
    hold("{}", &[name], &["allow web -> dns:a.example.com:1", "deny web -> dns:b.a.example.com:1"]);
    let one = web("p", "egress: [{toFQDNs: [{matchPattern: \"*.example.com\"}]}]");
    hold("{}", &[one], &["allow web -> dns:a.example.com:1", "deny web -> dns:b.a.example.com:1"]);
    let many = web("p", "egress: [{toFQDNs: [{matchPattern: \"**.example.com\"}]}]");
    hold(
        "{}",
        &[many],
        &["allow web -> dns:a.example.com:1", "allow web -> dns:b.a.example.com:1", "deny web -> 192.0.2.7:1"],
    );
}

#[test]
fn services_are_their_pods_or_their_addresses() {
    let named = web("p", "egress: [{toServices: [{k8sService: {serviceName: sql, namespace: default}}]}]");
    hold("{}", &[named], &["allow web -> db:1", "deny web -> other/web:1"]);
    let outside = web("p", "egress: [{toServices: [{k8sService: {serviceName: outside, namespace: default}}]}]");
    hold("{}", &[outside], &["allow web -> 192.0.2.9:1", "deny web -> 192.0.2.8:1", "deny web -> db:1"]);
    let labelled = web("p", "egress: [{toServices: [{k8sServiceSelector: {selector: {matchLabels: {kind: store}}}}]}]");
    hold("{}", &[labelled], &["allow web -> db:1", "deny web -> 192.0.2.9:1"]);
}

#[test]
fn nodes_are_selected_by_labels_where_that_is_on() {
    let to = clusterwide(
        "c",
        "endpointSelector: {matchLabels: {app: web}}, egress: [{toNodes: [{matchLabels: {role: infra}}]}]",
    );
    hold(
        "{node_selector_labels: true}",
        &[to],
        &["allow web -> node:n2:1", "deny web -> node:n3:1", "deny web -> db:1"],
    );
}

#[test]
fn ports_have_protocols_ranges_and_names() {
    let ports = |text: &str| web("p", &format!("ingress: [{{toPorts: [{{ports: [{text}]}}]}}]"));
    hold("{}", &[ports("{port: \"53\", protocol: UDP}")], &["allow db -> web:53/UDP", "deny db -> web:53/TCP"]);
    hold(
        "{}",
        &[ports("{port: \"53\"}")],
        &["allow db -> web:53/UDP", "allow db -> web:53/SCTP", "deny db -> web icmp 8"],
    );
    hold(
        "{}",
        &[ports("{port: \"80\", endPort: 90, protocol: TCP}")],
        &["allow db -> web:90", "deny db -> web:91", "deny db -> web:79"],
    );
    hold("{}", &[ports("{port: \"0\", protocol: TCP}")], &["allow db -> web:1", "deny db -> web:1/UDP"]);
    hold("{}", &[ports("{port: http}")], &["allow db -> web:80", "deny db -> web:81"]);
    let sql = web("p", "egress: [{toPorts: [{ports: [{port: sql}]}]}]");
    hold("{}", &[sql], &["allow web -> db:5432", "allow web -> old:5433", "deny web -> db:5433"]);
}

#[test]
fn names_of_ports_are_those_of_peers_that_are_selected_themselves() {
    let namespace = "{apiVersion: v1, kind: Namespace, metadata: {name: default, labels: {env: x}}}".to_owned();
    let others = |operator: &str| {
        format!("to: [{{namespaces: {{matchExpressions: [{{key: env, operator: {operator}, values: [x]}}]}}}}]")
    };
    let rules = |operator: &str| {
        let named = format!("{{action: Accept, {}, protocols: [{{destinationNamedPort: sql}}]}}", others(operator));
        cluster("c", "Admin", 1, &format!("egress: [{named}, {{action: Deny, to: [{{namespaces: {{}}}}]}}]"))
    };
    hold("{}", &[namespace.clone(), rules("In")], &["allow web -> db:5432", "deny web -> db:5433"]);
    hold("{}", &[namespace, rules("NotIn")], &["deny web -> db:5432"]);
}

#[test]
fn messages_of_icmp_have_types() {
    let icmp = web("p", "ingress: [{icmps: [{fields: [{type: EchoRequest, family: IPv4}]}]}]");
    hold("{}", &[icmp], &["allow db -> web icmp 8", "deny db -> web icmp 0", "deny db -> web:8"]);
    let gre = web("p", "ingress: [{toPorts: [{ports: [{port: \"0\", protocol: GRE}]}]}]");
    hold("{extended_ip_protocols: true}", &[gre], &["allow db -> web:0/GRE", "deny db -> web:1"]);
}

#[test]
fn denial_stands_before_allowance_whatever_is_narrower() {
    let wide = web("wide", "ingressDeny: [{fromEntities: [cluster]}]");
    let narrow =
        web("narrow", "ingress: [{fromEndpoints: [{matchLabels: {app: db}}], toPorts: [{ports: [{port: \"80\"}]}]}]");
    hold("{}", &[wide, narrow.clone()], &["deny db -> web:80"]);
    let deny = clusterwide("deny", "endpointSelector: {}, ingressDeny: [{toPorts: [{ports: [{port: \"80\"}]}]}]");
    let both = plain("ingress: [{from: [{podSelector: {}}]}]");
    hold("{}", &[narrow, deny, both], &["deny db -> web:80", "allow db -> web:81"]);
}

#[test]
fn kinds_of_policies_add_up() {
    let one = web("p", "ingress: [{fromEndpoints: [{matchLabels: {app: db}}]}]");
    let two = plain(
        "ingress: [{from: [{namespaceSelector: {matchLabels: {team: a}}, podSelector: {matchLabels: {app: robot}}}]}]",
    );
    let three = clusterwide("c", "endpointSelector: {matchLabels: {app: web}}, ingress: [{fromCIDR: [192.0.2.7/32]}]");
    hold(
        "{}",
        &[one, two, three],
        &[
            "allow db -> web:1",
            "allow other/robot -> web:1",
            "allow 192.0.2.7 -> web:1",
            "deny other/web -> web:1",
            "deny 192.0.2.8 -> web:1",
        ],
    );
}

#[test]
fn network_policies_close_the_directions_that_they_name() {
    hold("{}", &[plain("policyTypes: [Ingress, Egress], ingress: [{}]")], &["allow db -> web:1", "deny web -> db:1"]);
    hold(
        "{}",
        &[plain("egress: [{to: [{ipBlock: {cidr: 192.0.2.0/24, except: [192.0.2.8/32]}}]}]")],
        &["allow web -> 192.0.2.7:1", "deny web -> 192.0.2.8:1", "deny db -> web:1"],
    );
    hold("{}", &[plain("ingress: [{from: []}]")], &["allow db -> web:1"]);
}

#[test]
fn tiers_and_priorities_of_the_cluster_s_policies() {
    let from = |action: &str, app: &str| {
        format!(
            "{{name: r, action: {action}, from: [{{pods: {{namespaceSelector: {{}}, podSelector: {{matchLabels: {{app: {app}}}}}}}}}]}}"
        )
    };
    let rules = |list: &[String]| format!("ingress: [{}]", list.join(", "));
    let normal = web("p", "ingress: [{fromEndpoints: [{matchLabels: {app: db}}]}]");
    let admin = cluster("a", "Admin", 5, &rules(&[from("Deny", "db"), from("Accept", "robot")]));
    hold("{}", &[normal.clone(), admin.clone()], &["deny db -> web:1", "allow other/robot -> web:1"]);
    let first = cluster("b", "Admin", 1, &rules(&[from("Pass", "db")]));
    hold("{}", &[normal.clone(), admin.clone(), first.clone()], &["allow db -> web:1", "allow other/robot -> web:1"]);
    let base = cluster("c", "Baseline", 1, &rules(&[from("Deny", "db"), from("Deny", "robot")]));
    hold("{}", &[normal, base.clone()], &["allow db -> web:1"]);
    hold("{}", &[base], &["deny db -> web:1", "deny other/robot -> web:1", "allow 192.0.2.7 -> web:1"]);
    let ordered = cluster("o", "Admin", 1, &rules(&[from("Accept", "db"), from("Deny", "db")]));
    hold("{}", &[ordered], &["allow db -> web:1"]);
}

#[test]
fn the_own_node_comes_in_unless_policies_decide_that() {
    let policy = web("p", "ingress: [{fromEndpoints: [{matchLabels: {app: db}}]}]");
    hold("{}", std::slice::from_ref(&policy), &["allow node:n1 -> web:1", "deny node:n2 -> web:1"]);
    hold("{allow_localhost: policy}", std::slice::from_ref(&policy), &["deny node:n1 -> web:1"]);
    let denied = web("d", "ingressDeny: [{fromEntities: [host]}]");
    hold("{}", &[policy, denied], &["deny node:n1 -> web:1"]);
}

#[test]
fn nodes_have_policies_where_the_host_firewall_is_on() {
    let node = clusterwide("node", "nodeSelector: {matchLabels: {role: infra}}, ingress: [{fromEntities: [cluster]}]");
    hold("{host_firewall: true}", std::slice::from_ref(&node), &["deny 192.0.2.7 -> own:22", "allow db -> own:22"]);
    hold("{}", &[node], &["allow 192.0.2.7 -> own:22"]);
}

#[test]
fn endpoints_without_labels_yet_are_closed() {
    hold("{}", &[], &["deny db -> new:1", "deny new -> 192.0.2.7:1"]);
    let init =
        clusterwide("i", "endpointSelector: {matchLabels: {\"reserved:init\": \"\"}}, egress: [{toEntities: [world]}]");
    hold("{}", &[init], &["allow new -> 192.0.2.7:1", "deny db -> new:1"]);
}

#[test]
fn proxies_get_what_rules_ask_more_of() {
    let http =
        web("h", "ingress: [{toPorts: [{ports: [{port: \"80\", protocol: TCP}], rules: {http: [{method: GET}]}}]}]");
    hold("{}", std::slice::from_ref(&http), &["redirect db -> web:80", "deny db -> web:81"]);
    let all = web("a", "ingress: [{toPorts: [{ports: [{port: \"80\", protocol: TCP}]}]}]");
    hold("{}", &[http.clone(), all], &["allow db -> web:80", "redirect db -> web:80"]);
    let denied = web("d", "ingressDeny: [{fromEndpoints: [{matchLabels: {app: db}}]}]");
    hold("{}", &[http, denied], &["deny db -> web:80", "redirect other/web -> web:80"]);
}

#[test]
fn what_cannot_be_is_refused() {
    let wrong = |spec: &str, part: &str| {
        let value = serde_saphyr::from_str::<Value>(&web("p", spec)).unwrap();
        let found = policy::PolicyObject::from_value(&value, &crds::Source::default(), &policy::Settings::default());
        let problems: Vec<String> = found.unwrap_err().iter().map(ToString::to_string).collect();
        assert!(problems.iter().any(|one| one.contains(part)), "{spec}: {problems:?}");
    };
    wrong("egress: [{toGroups: [{aws: {}}]}]", "toGroups");
    wrong("ingress: [{fromEndpoints: [{}], fromCIDR: [192.0.2.0/24]}]", "ombining");
    wrong("egress: [{toPorts: [{ports: [{port: \"0\"}], rules: {http: [{}]}}]}]", "port");
    wrong("ingress: [{toPorts: [{ports: [{port: \"80\", protocol: UDP}], rules: {http: [{}]}}]}]", "TCP");
    wrong("ingress: [{toPorts: [{ports: [{port: \"80\"}], rules: {kafka: [{topic: a}]}}]}]", "TCP");
    wrong("ingress: [{toPorts: [{ports: [{port: \"80\"}], rules: {l7proto: r2d2, l7: [{}]}}]}]", "l7proto");
    wrong("egress: [{nosuch: 1}]", "nosuch");
    wrong("ingress: []", "at least one of");
}

#[test]
fn paths_are_expressions_that_the_field_takes() {
    let fits = |pattern: &str| {
        let spec = json!({ "endpointSelector": {}, "ingress": [{ "toPorts": [{ "ports": [{ "port": "80", "protocol": "TCP" }],
            "rules": { "http": [{ "path": pattern }] } }] }] });
        let value = json!({ "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": { "name": "p" }, "spec": spec });
        policy::PolicyObject::from_value(&value, &crds::Source::default(), &policy::Settings::default()).is_ok()
    };
    let taken = [
        "",
        "/api/{id}",
        "a{,3}",
        "[[]",
        r"\Q..\E",
        "/downloads/.*",
        "^/a$",
        "(a|b)+?",
        "[a-z]{1,3}",
        r"\d+\.\w*",
        "(?i)x",
        "(?i:x)",
        "(?P<n>x)",
        "(?<n>x)",
        "[]a]",
        "[^]a]",
        "[a-]",
        "[-a]",
        r"[\]\-]",
        "a{1000}",
        "[[:alpha:]]",
        r"\pL\p{Greek}",
        "{}",
        "x{a}",
        r"\x41\x{1F600}",
        "|",
        "a||b",
        r"\012",
        "()",
    ];
    let refused = [
        "[a--b]",
        "x**",
        "a++",
        "a{1001}",
        "(?x)",
        "(",
        ")",
        "[",
        "*",
        "+a",
        "(?=x)",
        "(?!x)",
        r"\1",
        r"\",
        "[z-a]",
        "a{2,1}",
        "(a{500}){3}",
        r"\8",
        r"\y",
        "[[:nope:]]",
        r"\p{Nope}",
        "(?P<>x)",
        r"\xZZ",
        "(?P=n)",
        "a???",
    ];
    let wrong: Vec<&str> =
        taken.into_iter().filter(|one| !fits(one)).chain(refused.into_iter().filter(|one| fits(one))).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    assert!(!fits(&"(".repeat(10_000)));
}
