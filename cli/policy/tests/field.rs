//! Do cases whose meaning once was another one have the answers of the field's own engine?
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

/// The result of a case that is written as YAML, with the text of its policies.
fn judge(case: &str, policies: &str) -> Value {
    let mut case: Value = serde_saphyr::from_str(case).unwrap();
    case["policies"] = json!(policies);
    serde_json::from_str(&cli_policy::judge_value(case, None)).unwrap()
}

/// The answer of one direction of the first flow: verdict, match type and rules.
#[track_caller]
fn check(case: &str, policies: &str, direction: &str, expected: (&str, &str, &[&str])) {
    let result = judge(case, policies);
    assert!(result["policies"].as_array().unwrap().iter().all(|policy| policy["ok"] == true), "{result}");
    let found = &result["flows"][0][direction];
    let rules: Vec<&str> = found["rules"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let found = (found["verdict"].as_str().unwrap(), found["match"].as_str().unwrap(), rules.as_slice());
    assert_eq!(found, expected, "{result}");
}

fn cnp(spec: &str) -> String {
    format!(
        "{{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {{name: p}}, spec: {{endpointSelector: {{}}, {spec}}}}}\n---\n"
    )
}

fn kcnp(tier: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {{name: k}}, spec: {{tier: {tier}, priority: 1, subject: {{namespaces: {{}}}}, {spec}}}}}\n---\n"
    )
}

fn group(name: &str, labels: &str, prefix: &str) -> String {
    format!(
        "{{apiVersion: cilium.io/v2, kind: CiliumCIDRGroup, metadata: {{name: {name}, labels: {labels}}}, spec: {{externalCIDRs: [{prefix}]}}}}\n---\n"
    )
}

const CNP: &[&str] = &["CiliumNetworkPolicy default/p"];
const KCNP: &[&str] = &["ClusterNetworkPolicy k"];
const PODS: &str = "{endpoints: [{name: a}, {name: b}], flows: [{src: a, dst: b, port: 80}]}";

#[test]
fn selectors_that_only_say_what_is_absent_select_sums() {
    let spec = "ingress: [{action: Accept, from: [{namespaces: {matchExpressions: [{key: team, operator: NotIn, values: [x]}]}}]}]";
    let case =
        "{namespaces: {default: {team: x}}, endpoints: [{name: a}, {name: b}], flows: [{src: a, dst: b, port: 80}]}";
    // Both pods are of team x, but the sum of all of the cluster's pods has no team.
    check(case, &kcnp("Baseline", spec), "ingress", ("allow", "all", KCNP));
    let spec = spec.replace("NotIn, values: [x]", "In, values: [z]");
    check(case, &kcnp("Baseline", &spec), "ingress", ("allow", "all", &["allow-any-ingress"]));
    let without_host =
        "egressDeny: [{toEndpoints: [{matchExpressions: [{key: \"reserved:host\", operator: DoesNotExist}]}]}]";
    check(PODS, &cnp(without_host), "egress", ("deny", "all", CNP));
}

#[test]
fn services_in_denials_are_nobody_and_on_ports_everybody() {
    let case = "{endpoints: [{name: a}, {name: b}], services: [{name: s, backends: [192.0.2.1]}], \
                flows: [{src: a, dst: 192.0.2.1, port: 80}]}";
    let spec = "enableDefaultDeny: {egress: false}, egressDeny: [{toServices: [{k8sService: {serviceName: s}}]}]";
    check(case, &cnp(spec), "egress", ("allow", "all", &["allow-any-egress"]));
    let spec = "egressDeny: [{toServices: [{k8sService: {serviceName: s}}], toPorts: [{ports: [{port: '80'}]}]}]";
    check(case, &cnp(spec), "egress", ("deny", "l4-only", CNP));
    let other = case.replace("dst: 192.0.2.1", "dst: b");
    check(&other, &cnp(spec), "egress", ("deny", "l4-only", CNP));
}

#[test]
fn a05_names_groups_and_services_that_are_empty_are_nobody() {
    let ports = "toPorts: [{ports: [{port: '80'}]}]";
    for peers in ["toServices: []", "toFQDNs: []", "toGroups: []", "toServices: [{k8sService: {serviceName: none}}]"] {
        check(PODS, &cnp(&format!("egress: [{{{peers}, {ports}}}]")), "egress", ("deny", "none", &[]));
        check(PODS, &cnp(&format!("egress: [{{{peers}}}]")), "egress", ("deny", "none", &[]));
    }
    check(PODS, &cnp(&format!("ingress: [{{fromGroups: [], {ports}}}]")), "ingress", ("deny", "none", &[]));
    let empty = "egress: [{toCIDRSet: [{cidrGroupSelector: {}}]}]";
    check(PODS, &cnp(empty), "egress", ("deny", "none", &[]));
}

#[test]
fn labels_of_all_groups_around_an_address_are_asked_together() {
    let case = "{endpoints: [{name: a}], flows: [{src: a, dst: 192.0.2.1}]}";
    let groups = group("g1", "{role: db}", "192.0.2.0/24") + &group("g2", "{env: live}", "192.0.2.1/32");
    let select = |selector: &str| cnp(&format!("egress: [{{toCIDRSet: [{{cidrGroupSelector: {selector}}}]}}]"));
    let both = groups.clone() + &select("{matchLabels: {role: db, env: live}}");
    check(case, &both, "egress", ("allow", "l3-only", CNP));
    let none = groups
        + &select("{matchExpressions: [{key: role, operator: In, values: [db]}, {key: env, operator: DoesNotExist}]}");
    check(case, &none, "egress", ("deny", "none", &[]));
}

#[test]
fn what_a_group_leaves_out_may_be_wider_than_the_group() {
    let case = "{endpoints: [{name: a}], flows: [{src: a, dst: 10.1.2.3}]}";
    let groups = group("g", "{role: db}", "10.1.2.3/32");
    let without = |select: &str, part: &str| {
        groups.clone() + &cnp(&format!("egress: [{{toCIDRSet: [{{{select}, except: [{part}]}}]}}]"))
    };
    for select in ["cidrGroupRef: g", "cidrGroupSelector: {matchLabels: {role: db}}"] {
        check(case, &without(select, "10.1.2.0/24"), "egress", ("deny", "none", &[]));
        check(case, &without(select, "10.1.3.0/24"), "egress", ("allow", "l3-only", CNP));
    }
}

#[test]
fn empty_lists_of_names_groups_and_services_add_nothing_to_other_peers() {
    for empty in ["toGroups", "toFQDNs", "toServices"] {
        let policy = cnp(&format!("egress: [{{toEntities: [cluster], {empty}: []}}]"));
        check(PODS, &policy, "egress", ("allow", "all", CNP));
    }
    for empty in ["toEndpoints", "toCIDR", "toCIDRSet"] {
        let policy = cnp(&format!("egress: [{{toEntities: [cluster], {empty}: []}}]"));
        check(PODS, &policy, "egress", ("deny", "none", &[]));
    }
}

#[test]
fn addresses_of_groups_count_as_addresses_of_their_own() {
    let case = "{endpoints: [{name: a}], flows: [{src: a, dst: 10.1.9.9}]}";
    let policies = cnp("egress: [{toEntities: [world]}]") + &group("g", "{}", "10.1.0.0/16");
    check(case, &policies, "egress", ("allow", "all", CNP));
    let without = cnp("egress: [{toEntities: [world]}]");
    check(case, &without, "egress", ("allow", "l3-only", CNP));
}

#[test]
fn prefixes_select_pods_by_their_addresses_where_that_is_on() {
    let case = "{config: {cidr_match_mode: [pods]}, endpoints: [{name: a, ips: [10.244.1.1]}, {name: b}], \
                dns: [{name: x.com, ips: [10.244.1.1]}], flows: [{src: b, dst: a}]}";
    let to = |cidr: &str| cnp(&format!("egress: [{{toCIDR: [{cidr}]}}]"));
    check(case, &to("10.244.0.0/16"), "egress", ("allow", "l3-only", CNP));
    check(case, &to("0.0.0.0/0"), "egress", ("allow", "l3-only", CNP));
    check(case, &to("10.245.0.0/16"), "egress", ("deny", "none", &[]));
    check(&case.replace("[pods]", "[]"), &to("10.244.0.0/16"), "egress", ("deny", "none", &[]));
    // Names are addresses outside all the same.
    check(case, &cnp("egress: [{toFQDNs: [{matchName: x.com}]}]"), "egress", ("deny", "none", &[]));
    let labels = &judge(case, &to("10.244.0.0/16"))["endpoints"][0]["labels"];
    assert_eq!(labels[0], "cidr:10.244.0.0/16");
    assert_eq!(judge(case, "")["endpoints"][0]["labels"][0], "cidr:0.0.0.0/0");
}

#[test]
fn each_address_of_a_node_is_one_where_prefixes_select_nodes() {
    let case = "{config: {cidr_match_mode: [nodes]}, endpoints: [{name: a}], \
                nodes: [{name: m1, ips: [172.18.0.3, 172.19.0.3]}, {name: own, ips: [172.18.0.2, 'fd01::2'], local: true}], \
                flows: [{src: a, dst: ADDRESS}]}";
    let to = |address: &str, cidr: &str, expected| {
        check(
            &case.replace("ADDRESS", address),
            &cnp(&format!("egress: [{{toCIDR: ['{cidr}']}}]")),
            "egress",
            expected,
        );
    };
    to("172.18.0.3", "172.18.0.0/16", ("allow", "l3-only", CNP));
    to("172.19.0.3", "172.18.0.0/16", ("deny", "none", &[]));
    to("172.19.0.3", "172.19.0.0/16", ("allow", "l3-only", CNP));
    // Nodes are no part of the world, which is what a whole family is.
    to("172.18.0.3", "0.0.0.0/0", ("deny", "none", &[]));
    // The own node is one, with all of its addresses.
    to("172.18.0.2", "fd01::2/128", ("allow", "l3-only", CNP));
}

#[test]
fn the_own_node_is_a_subject_by_its_labels_and_a_peer_by_those_of_nodes() {
    let host = "{apiVersion: cilium.io/v2, kind: CiliumClusterwideNetworkPolicy, metadata: {name: h}, spec: {nodeSelector: {matchLabels: {LABEL: x}}, ingress: [{}]}}\n---\n";
    let case = "{config: {host_firewall: true, node_selector_labels: true}, endpoints: [{name: a}, {name: own, reserved: host}], \
                nodes: [{name: m1, local: true, ips: [172.18.0.2], labels: {zone: x, kubernetes.io/hostname: x}}], flows: [{src: a, dst: own}]}";
    let enforced = |label: &str| {
        let result = judge(case, &host.replace("LABEL", label));
        result["endpoints"][1]["ingress_enforced"] == true
    };
    assert!(enforced("zone") && enforced("\"k8s:zone\""));
    assert!(!enforced("\"node:zone\"") && !enforced("kubernetes.io/hostname"));
    let labels = &judge(case, "")["endpoints"][1]["labels"];
    assert_eq!(*labels, json!(["k8s:zone=x", "reserved:host"]));
}

#[test]
fn named_ports_are_part_of_a_pods_identity() {
    let case = "{endpoints: [{name: a, ports: [{name: web, port: 80}]}, {name: b, ports: [{name: web, port: 81}]}, {name: c}], \
                flows: [{src: c, dst: b, port: 81}]}";
    let policy = cnp("egress: [{toPorts: [{ports: [{port: web, protocol: TCP}]}]}]");
    check(case, &policy, "egress", ("allow", "l3-l4", CNP));
    assert_eq!(judge(case, &policy)["endpoints"][0]["labels"][0], "gen:io.cilium.k8s.named-ports=web.TCP.80");
    // Without those labels both pods have one identity, and a name with two numbers is none.
    let without = case.replace("{endpoints", "{config: {no_port_labels: true}, endpoints");
    check(&without, &policy, "egress", ("deny", "none", &[]));
    let agree = without.replace("port: 80}", "port: 81}");
    check(&agree, &policy, "egress", ("allow", "l3-l4", CNP));
}

#[test]
fn addresses_have_the_labels_that_they_were_given() {
    let case = "{endpoints: [{name: a}], ip_labels: [{prefix: 192.0.2.0/24, labels: ['LABEL']}], flows: [{src: 192.0.2.1, dst: a}]}";
    for (label, identity) in [("reserved:health", 4), ("reserved:ingress", 8), ("reserved:kube-apiserver", 1 << 24)] {
        let result = judge(&case.replace("LABEL", label), "");
        assert_eq!(result["flows"][0]["src_identity"], identity, "{label}");
    }
    let node = "{endpoints: [{name: a}], nodes: [{name: m1, ips: [192.0.2.1]}], \
                ip_labels: [{prefix: 192.0.2.1, labels: ['reserved:kube-apiserver']}], flows: [{src: 'node:m1', dst: a}]}";
    assert_eq!(judge(node, "")["flows"][0]["src_identity"], 7);
}

#[test]
fn rules_add_up_only_where_they_write_ports_alike() {
    let ports = |end: &str| {
        format!(
            "ingress: [{{toPorts: [{{ports: [{{port: '80', protocol: TCP}}], rules: {{http: [{{}}]}}}}, \
             {{ports: [{{port: '80'{end}, protocol: TCP}}], serverNames: [x.com]}}]}}]"
        )
    };
    let case = "{endpoints: [{name: a}, {name: b}], flows: [{src: a, dst: b, port: 80}]}";
    let error = |end: &str| judge(case, &cnp(&ports(end)))["endpoints"][1]["error"].is_string();
    assert!(error(""), "server names and rules without termination on one port");
    assert!(!error(", endPort: 80") && !error(", endPort: 79"), "other ports, as written");
}

#[test]
fn server_names_before_rules_get_them() {
    let first = "{ports: [{port: '80', protocol: TCP}], serverNames: [x.com]}";
    let second = "{ports: [{port: '80', protocol: TCP}], rules: {http: [{path: /}]}}";
    let fails = |one: &str, two: &str| {
        let policy = cnp(&format!("ingress: [{{toPorts: [{one}, {two}]}}]"));
        judge("{endpoints: [{name: a}]}", &policy)["endpoints"][0]["error"].is_string()
    };
    assert!(!fails(first, second));
    assert!(fails(second, first));
}

#[test]
fn what_is_allowed_is_put_together_before_denials_are_asked() {
    let ports = "ports: [{port: '80', protocol: TCP}]";
    let conflict = format!(
        "egress: [{{toPorts: [{{{ports}, rules: {{http: [{{}}]}}}}]}}, {{toPorts: [{{{ports}, rules: {{dns: [{{matchPattern: '*'}}]}}}}]}}]"
    );
    let denial = format!("egressDeny: [{{toPorts: [{{{ports}}}]}}]");
    let error = |spec: &str| judge("{endpoints: [{name: a}]}", &cnp(spec))["endpoints"][0]["error"].is_string();
    assert!(error(&conflict));
    assert!(error(&format!("{denial}, {conflict}")), "the denial comes behind both");
}

#[test]
fn proof_is_not_taken_over_where_something_is_passed_on() {
    let policy = cnp("egress: [{toCIDRSet: [{cidr: 192.0.2.0/24}], authentication: {mode: required}}, \
         {toCIDR: [0.0.0.0/0], toPorts: [{ports: [{port: '80'}]}]}]");
    let case = "{endpoints: [{name: a}], flows: [{src: a, dst: 192.0.2.1, port: 80}]}";
    check(case, &policy, "egress", ("deny", "l3-l4", CNP));
    let pass = kcnp("Baseline", "egress: [{action: Pass, to: [{namespaces: {matchLabels: {x: z}}}]}]");
    check(case, &(policy + &pass), "egress", ("allow", "l3-l4", CNP));
}

#[test]
fn rules_without_rules_ask_nothing() {
    let policy = cnp("ingress: [{toPorts: [{ports: [{port: '80'}], rules: {http: []}}]}]");
    check(PODS, &policy, "ingress", ("allow", "l4-only", CNP));
    let empty_texts =
        cnp("ingress: [{toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {http: [{method: '', path: ''}]}}, \
         {ports: [{port: '80', protocol: TCP}]}]}]");
    let rules = &judge(PODS, &empty_texts)["flows"][0]["ingress"]["l7"][0]["rules"]["http"];
    assert_eq!(*rules, json!([{}]));
}

#[test]
fn the_world_of_a_family_that_is_not_in_use_has_its_name() {
    let case = "{endpoints: [{name: a}], flows: [{src: a, dst: '2001:db8::1'}]}";
    check(case, &cnp("egress: [{toCIDR: ['2001:db8::/32']}]"), "egress", ("allow", "l3-only", CNP));
    check(case, &cnp("egress: [{toCIDR: ['2001:db8::/32', '0.0.0.0/0']}, {}]"), "egress", ("allow", "l3-only", CNP));
    let both = cnp("egress: [{toCIDR: ['::/0']}], egressDeny: [{toCIDR: ['2001:db8:1::/48']}]");
    let named = case.replace("2001:db8::1", "2001:db8:1::1");
    check(&named, &both, "egress", ("deny", "l3-only", CNP));
}

/// True if the policy is taken, under each of the ways to treat the schema.
fn taken(policy: &str) -> [bool; 2] {
    ["reject", "off"].map(|crd| {
        let result = judge(&format!("{{config: {{crd: {crd}}}}}"), policy);
        result["policies"][0]["ok"] == true
    })
}

#[test]
fn what_the_schema_refuses_is_taken_where_there_is_no_schema() {
    let egress = |rule: &str| cnp(&format!("egress: [{{{rule}}}]"));
    let k = |rule: &str| kcnp("Admin", &format!("egress: [{{action: Accept, {rule}}}]"));
    let port = "toPorts: [{ports: [{port: '80', protocol: TCP}]";
    let both = [
        (egress("toCIDR: [192.0.2.1]"), [false, true]),
        (egress(&format!("{port}, rules: {{}}}}]")), [false, true]),
        (egress(&format!("{port}, rules: {{http: [], dns: []}}}}]")), [false, true]),
        (egress(&format!("{port}, rules: {{http: []}}}}]")), [true, true]),
        (egress("toFQDNs: [{matchPattern: a..b}]"), [false, true]),
        (egress("toPorts: [{ports: [{port: '0', protocol: GRE}]}]"), [true, true]),
        (egress("toPorts: [{ports: [{protocol: GRE}]}]"), [false, false]),
        (k("name: x"), [false, true]),
        (k("to: [{namespaces: {}}], protocols: [{tcp: {}}]"), [false, true]),
        (k("to: [{networks: [10.0.0.0/8]}], protocols: [{destinationNamedPort: web}]"), [false, true]),
        (k("to: [{namespaces: {}}], protocols: [{destinationNamedPort: web}]"), [true, true]),
        (k("to: [{domainNames: ['*.com']}]"), [false, true]),
        (k("to: [{domainNames: ['*.x.com']}]"), [true, true]),
        (
            k("to: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {range: {start: 80, end: 80}}}}]"),
            [false, true],
        ),
    ];
    for (policy, expected) in both {
        assert_eq!(taken(&policy), expected, "{policy}");
    }
}

#[test]
fn numbers_that_are_none_are_refused_whatever_the_schema() {
    for rule in [
        "toPorts: [{ports: [{port: '80', endPort: -1}]}]",
        "toPorts: [{ports: [{port: '1_0'}]}]",
        "icmps: [{fields: [{type: 256}]}]",
        "toFQDNs: [{}]",
        "authentication: {mode: x}",
    ] {
        assert_eq!(taken(&cnp(&format!("egress: [{{{rule}}}]"))), [false, false], "{rule}");
    }
    let nobody = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: np}, spec: {podSelector: {}, ingress: [{from: [{}]}]}}";
    assert_eq!(taken(nobody), [false, false]);
}
