//! Are cases judged as the field judges them?
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

/// The result of a case that is written as YAML.
fn judged(case: &str) -> Value {
    let case: Value = serde_saphyr::from_str(case).unwrap();
    serde_json::from_str(&cli_policy::judge_value(case, None)).unwrap()
}

/// Policies as one text, and flows as `src dst port direction-result`.
fn check(policies: &str, flows: &[(&str, Value)]) {
    check_with("{}", policies, flows);
}

fn check_with(config: &str, policies: &str, flows: &[(&str, Value)]) {
    let endpoints = "
- {name: web, labels: {app: web}, ports: [{name: http, port: 80}], ips: [10.0.0.1]}
- {name: db, labels: {app: db}, ips: [10.0.0.2]}
- {name: far, namespace: other, labels: {app: far}, namespace_labels: {team: a}}
- {name: there, labels: {app: web}, cluster: mesh, cluster_id: 3, remote: true}
- {name: node, reserved: host, labels: {role: infra}}
- {name: new, reserved: init}";
    let case: Value = json!({
        "config": serde_saphyr::from_str::<Value>(config).unwrap(),
        "policies": policies,
        "endpoints": serde_saphyr::from_str::<Value>(endpoints).unwrap(),
        "nodes": [{ "name": "n1", "ips": ["172.18.0.2"], "local": true },
            { "name": "n2", "ips": ["172.18.0.3"], "kube_apiserver": true, "labels": { "role": "x" } }],
        "dns": [{ "name": "a.example.com", "ips": ["192.0.2.1"] }],
        "flows": flows.iter().map(|(flow, _)| {
            let mut parts = flow.split(' ');
            let mut next = || parts.next().unwrap_or_default().to_owned();
            json!({ "src": next(), "dst": next(), "port": next().parse::<u16>().unwrap_or(0),
                "direction": next(), "proto": next() })
        }).collect::<Vec<_>>(),
    });
    let result: Value = serde_json::from_str(&cli_policy::judge_value(case, None)).unwrap();
    assert_eq!(result.get("error"), None, "{result}");
    for (policy, at) in result["policies"].as_array().unwrap().iter().zip(0..) {
        assert_eq!(policy["ok"], true, "policy {at}: {policy}");
    }
    for ((flow, expected), found) in flows.iter().zip(result["flows"].as_array().unwrap()) {
        for (key, value) in expected.as_object().unwrap() {
            assert_eq!(found.pointer(key).unwrap_or(&Value::Null), value, "{flow}: {key} of {found:#}");
        }
    }
}

fn cnp(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: {name}, namespace: default}}\nspec:\n  endpointSelector: {{matchLabels: {{app: web}}}}\n  {spec}\n"
    )
}

#[test]
fn without_policies_all_is_open_and_says_so() {
    check(
        "",
        &[(
            "db web 80",
            json!({ "/verdict": "ALLOWED", "/egress/match": "all", "/egress/enforced": null,
            "/egress/rules": ["allow-any-egress"], "/ingress/rules": ["allow-any-ingress"] }),
        )],
    );
}

#[test]
fn denials_say_why() {
    let policies = cnp(
        "p",
        "ingress: [{fromEndpoints: [{matchLabels: {app: db}}], toPorts: [{ports: [{port: \"80\"}]}]}]\n  ingressDeny: [{fromEntities: [world]}]",
    );
    check(
        &policies,
        &[
            ("db web 80", json!({ "/verdict": "ALLOWED", "/ingress/match": "l3-l4" })),
            (
                "db web 81",
                json!({ "/verdict": "DENIED", "/ingress/match": "none", "/ingress/reason": "policy", "/ingress/rules": null }),
            ),
            (
                "9.9.9.9 web 80",
                json!({ "/ingress/reason": "policy-deny", "/ingress/match": "l3-only", "/src_identity": 2 }),
            ),
            ("reserved:host web 1", json!({ "/verdict": "ALLOWED", "/ingress/rules": ["allow-localhost-ingress"] })),
        ],
    );
    check_with(
        "{audit: true}",
        &policies,
        &[("db web 81", json!({ "/verdict": "AUDITED", "/ingress/verdict": "deny" }))],
    );
}

#[test]
fn sums_are_told_from_peers_of_their_own() {
    let policies = cnp(
        "p",
        "ingress: [{fromEntities: [cluster], toPorts: [{ports: [{port: \"80\"}]}]}]\n  egress: [{toEntities: [world], toPorts: [{ports: [{port: \"53\"}]}]}, {toCIDR: [192.0.2.0/24], toPorts: [{ports: [{port: \"54\"}]}]}]",
    );
    check(
        &policies,
        &[
            ("db web 80 ingress", json!({ "/ingress/match": "l4-only" })),
            ("there web 80 ingress", json!({ "/ingress/match": "none" })),
            ("reserved:host web 80 ingress", json!({ "/ingress/match": "l3-l4" })),
            ("web 9.9.9.9 53 egress", json!({ "/egress/match": "l3-l4" })),
            ("web 192.0.2.9 53 egress", json!({ "/egress/match": "l4-only" })),
        ],
    );
}

#[test]
fn a_peer_that_everybody_s_rule_allows_as_well_counts_as_everybody() {
    let policies = cnp("one", "ingress: [{fromEndpoints: [{matchLabels: {app: db}}]}]")
        + &cnp("two", "ingress: [{fromEntities: [all]}]");
    check(
        &policies,
        &[(
            "db web 80 ingress",
            json!({ "/ingress/match": "all", "/ingress/rules": ["CiliumNetworkPolicy default/two"] }),
        )],
    );
}

#[test]
fn broad_denials_stand_for_narrow_ones() {
    let policies = cnp("one", "ingressDeny: [{fromEndpoints: [{matchLabels: {app: db}}]}]")
        + &cnp(
            "two",
            "ingressDeny: [{fromEndpoints: [{matchLabels: {app: db}}], toPorts: [{ports: [{port: \"80\"}]}]}]",
        );
    check(
        &policies,
        &[(
            "db web 80 ingress",
            json!({ "/ingress/match": "l3-only", "/ingress/rules": ["CiliumNetworkPolicy default/one"] }),
        )],
    );
}

#[test]
fn plain_ports_open_the_proxy_s_rules_but_not_the_way_through_it() {
    let ports = "toPorts: [{ports: [{port: \"80\", protocol: TCP}]";
    let policies = cnp("l7", &format!("ingress: [{{{ports}, rules: {{http: [{{path: /a}}]}}}}]}}]"))
        + &cnp("l4", &format!("ingress: [{{{ports}}}]}}]"));
    check(
        &policies,
        &[(
            "db web 80 ingress",
            json!({ "/redirect": true, "/ingress/l7/0/parser": "http", "/ingress/l7/0/rules/http": [{ "path": "/a" }, {}],
            "/ingress/rules": ["CiliumNetworkPolicy default/l4", "CiliumNetworkPolicy default/l7"] }),
        )],
    );
}

#[test]
fn rules_of_two_proxies_on_one_port_make_the_policy_fail() {
    let ports = "toPorts: [{ports: [{port: \"53\", protocol: TCP}]";
    let policies = cnp(
        "p",
        &format!(
            "egress: [{{{ports}, rules: {{http: [{{}}]}}}}]}}, {{{ports}, rules: {{dns: [{{matchPattern: \"*\"}}]}}}}]}}]"
        ),
    );
    let result = judged(&format!(
        "policies: {}\nendpoints: [{{name: web, labels: {{app: web}}}}]\nflows: [{{src: web, dst: 9.9.9.9, port: 53}}]",
        Value::from(policies)
    ));
    assert_eq!(result["policies"][0]["ok"], true, "{result}");
    assert!(result["endpoints"][0]["error"].as_str().unwrap().contains("cannot merge conflicting L7 parsers"));
    assert_eq!(result["flows"][0]["verdict"], "ERROR");
}

#[test]
fn proof_that_nobody_gives_denies() {
    let policies = cnp(
        "p",
        "ingress: [{fromEndpoints: [{}], authentication: {mode: required}}, {fromEndpoints: [{}], toPorts: [{ports: [{port: \"80\"}]}]}]",
    );
    check(
        &policies,
        &[
            (
                "db web 81 ingress",
                json!({ "/verdict": "DENIED", "/auth": "spire", "/ingress/auth_explicit": true, "/ingress/reason": "auth-required" }),
            ),
            (
                "db web 80 ingress",
                json!({ "/auth": "spire", "/ingress/auth_explicit": null, "/ingress/match": "l3-l4" }),
            ),
        ],
    );
}

fn kcnp(name: &str, tier: &str, ingress: &str) -> String {
    format!(
        "---\napiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {{name: {name}}}\nspec:\n  tier: {tier}\n  priority: 5\n  subject: {{namespaces: {{}}}}\n  ingress: {ingress}\n"
    )
}

#[test]
fn tiers_are_asked_in_order_and_pass_goes_on() {
    let any = "{namespaceSelector: {}, podSelector: {matchLabels: {app: db}}}";
    let policies = kcnp("admin", "Admin", &format!("[{{action: Pass, from: [{{pods: {any}}}]}}, {{action: Deny}}]"))
        + &kcnp("base", "Baseline", "[{action: Deny, protocols: [{tcp: {destinationPort: {number: 80}}}]}]");
    // An API server takes no rule for everybody, but it means something.
    check_with(
        "{crd: off}",
        &policies,
        &[
            (
                "other/far web 80 ingress",
                json!({ "/ingress/rules": ["ClusterNetworkPolicy admin"], "/ingress/match": "all" }),
            ),
            (
                "db web 80 ingress",
                json!({ "/ingress/rules": ["ClusterNetworkPolicy base"], "/ingress/reason": "policy-deny", "/ingress/match": "l3-l4" }),
            ),
            ("db web 81 ingress", json!({ "/verdict": "ALLOWED", "/ingress/rules": ["allow-any-ingress"] })),
        ],
    );
    let closed = policies + &cnp("own", "ingress: [{fromEndpoints: [{matchLabels: {app: nobody}}]}]");
    check_with(
        "{crd: off}",
        &closed,
        &[
            ("9.9.9.9 web 81 ingress", json!({ "/ingress/rules": ["ClusterNetworkPolicy admin"] })),
            ("db web 81 ingress", json!({ "/ingress/rules": ["deny-any-ingress"], "/ingress/reason": "policy-deny" })),
        ],
    );
}

#[test]
fn of_denials_below_passes_the_wider_one_is_named() {
    let passes = "[{action: Pass, to: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {range: {start: 81, end: 8080}}}}]}]";
    let passes = kcnp("admin", "Admin", passes).replace("ingress:", "egress:");
    let denials = "egressDeny: [{toEndpoints: [{matchLabels: {app: db}}]}, {toEndpoints: [{matchLabels: {app: db}}], toPorts: [{ports: [{port: \"1022\"}]}]}]";
    check(
        &(passes + &cnp("own", denials)),
        &[(
            "web db 1022 egress",
            json!({ "/verdict": "DENIED", "/egress/origins/0/index": 0, "/egress/origins/1": null }),
        )],
    );
}

#[test]
fn names_services_nodes_and_named_ports_are_found() {
    let policies = cnp(
        "p",
        "ingress: [{toPorts: [{ports: [{port: http}]}]}]\n  egress: [{toFQDNs: [{matchPattern: \"*.example.com\"}]}, {toEntities: [kube-apiserver]}, {toServices: [{k8sService: {serviceName: s}}]}]",
    ) + "---\napiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: default}\nspec: {selector: {app: db}}\n";
    check(
        &policies,
        &[
            ("db web 80 ingress", json!({ "/verdict": "ALLOWED", "/ingress/match": "l4-only" })),
            ("db web 81 ingress", json!({ "/verdict": "DENIED" })),
            ("web dns:a.example.com 443 egress", json!({ "/verdict": "ALLOWED" })),
            ("web node:n2 6443 egress", json!({ "/verdict": "ALLOWED", "/dst_identity": 7 })),
            ("web 172.18.0.3 6443 egress", json!({ "/verdict": "ALLOWED" })),
            ("web db 1 egress", json!({ "/verdict": "ALLOWED", "/egress/match": "l3-only" })),
            ("web 10.0.0.2 1 egress", json!({ "/verdict": "ALLOWED" })),
            ("web nobody 1", json!({ "/verdict": "ERROR" })),
        ],
    );
}

#[test]
fn init_is_closed_and_the_host_is_where_the_firewall_is() {
    check(
        "",
        &[
            ("db new 80 ingress", json!({ "/ingress/enforced": true, "/verdict": "DENIED" })),
            ("db node 80 ingress", json!({ "/ingress/enforced": null, "/verdict": "ALLOWED" })),
        ],
    );
    let policy = "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {name: h}\nspec: {nodeSelector: {matchLabels: {role: infra}}, ingress: [{fromEntities: [cluster]}]}\n";
    check_with(
        "{host_firewall: true}",
        policy,
        &[
            ("db node 80 ingress", json!({ "/ingress/enforced": true, "/ingress/match": "all" })),
            ("9.9.9.9 node 80 ingress", json!({ "/verdict": "DENIED" })),
        ],
    );
}

#[test]
fn what_cannot_be_read_is_a_result_with_an_error() {
    for (case, error) in [
        (json!(3), "this is not a case"),
        (json!({ "id": "x", "flows": 3 }), "this is not a case"),
        (json!({ "id": "x", "config": { "mode": "often" } }), "config.mode"),
        (json!({ "id": "x", "policies": "a: [" }), "not YAML"),
    ] {
        let result: Value = serde_json::from_str(&cli_policy::judge_value(case.clone(), None)).unwrap();
        assert!(result["error"].as_str().unwrap_or_default().contains(error), "{case}: {result}");
        assert_eq!(result.get("id"), case.get("id"));
    }
}

#[test]
fn schemas_are_kept_as_asked() {
    let policy = cnp("p", "ingress: [{}]\n  extra: 1");
    for (mode, ok) in [("reject", false), ("warn", true), ("off", true)] {
        let result = judged(&format!("config: {{crd: {mode}}}\npolicies: {}", Value::from(policy.as_str())));
        assert_eq!(result["policies"][0]["ok"], ok, "{mode}: {result}");
    }
}
