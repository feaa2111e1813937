//! Do situations that made others fail leave these policies as narrow as they are?

#[path = "support/cluster.rs"]
mod cluster;

use cluster::{Cluster, ccnp, cnp, wrong};
use policy::{Direction, Learned, Settings, protocol};

/// Takes a policy of namespace a away.
fn remove(cluster: &mut Cluster, name: &str) {
    let kind = policy::PolicyKind::CiliumNetworkPolicy;
    let reference = policy::PolicyRef { kind, namespace: "a".to_owned(), name: name.to_owned() };
    let change = cluster.repository.remove_policy(&reference);
    cluster.take(change);
}

fn cluster() -> Cluster {
    Cluster::default_mode().pod("a/web", &["app=web"]).pod("a/db", &["app=db"]).pod("b/web", &["app=web"])
}

#[test]
fn a01_a_wide_denial_holds_against_narrow_and_wide_allowances() {
    for allow in [
        "egress: [{toCIDR: [10.1.2.3/32]}], enableDefaultDeny: {egress: false}",
        "egress: [{toEntities: [all]}], enableDefaultDeny: {egress: false}",
        "egress: [{toFQDNs: [{matchName: a.example}]}]",
        "egress: [{toFQDNs: [{matchName: a.example}]}], enableDefaultDeny: {egress: false}",
        "egress: [{toFQDNs: [{matchPattern: \"*.example\"}], toPorts: [{ports: [{port: \"80\", protocol: TCP}]}]}]",
        "egress: [{toCIDRSet: [{cidr: 10.0.0.0/7, except: [11.0.0.0/8]}]}], enableDefaultDeny: {egress: false}",
        "egress: [{toEntities: [world], toPorts: [{ports: [{port: \"80\"}]}]}]",
        "egress: [{toPorts: [{ports: [{port: \"80\", protocol: TCP}], rules: {http: [{}]}}]}]",
    ] {
        let mut cluster = cluster();
        cluster.apply_text(&cnp("allow", allow));
        cluster.apply_text(&cnp("deny", "egressDeny: [{toCIDR: [10.0.0.0/8]}], enableDefaultDeny: {egress: false}"));
        cluster.learn("10.1.2.3", &["a.example", "*.example"]);
        for address in ["10.1.2.3", "10.9.9.9"] {
            let (verdict, rules) = cluster.answer("a/web", Direction::Egress, address, protocol::TCP, 80);
            assert_eq!(verdict, "deny", "{address} with {allow}");
            assert_eq!(rules.rules[0].to_string(), "CiliumNetworkPolicy a/deny egressDeny[0]");
        }
    }
    // As much for what comes in, and for denials of the whole cluster that close nothing.
    let mut cluster = cluster();
    cluster.apply_text(&cnp("allow", "ingress: [{fromEntities: [all]}, {fromCIDR: [10.1.2.3/32]}]"));
    let deny = "endpointSelector: {}, ingressDeny: [{fromCIDR: [10.0.0.0/8]}], enableDefaultDeny: {ingress: false}";
    cluster.apply_text(&ccnp("deny", deny));
    for (address, verdict) in [("10.1.2.3", "deny"), ("10.9.9.9", "deny"), ("11.0.0.1", "allow")] {
        assert_eq!(cluster.ingress(address, "a/web", 80), verdict, "{address}");
    }
}

#[test]
fn a02_a_range_does_not_swallow_the_rules_of_a_port_in_it() {
    let mut cluster = cluster();
    let l7 = "{fromEndpoints: [{}], toPorts: [{ports: [{port: \"80\", protocol: TCP}], rules: {http: [{path: /a}]}}]}";
    let wide = "{fromEndpoints: [{}], toPorts: [{ports: [{port: \"1\", endPort: 1024, protocol: TCP}]}]}";
    cluster.apply_text(&cnp("p", &format!("ingress: [{wide}, {l7}]")));
    assert_eq!(cluster.ingress("a/web", "a/db", 80), "redirect");
    assert_eq!(cluster.ingress("a/web", "a/db", 81), "allow");
    cluster.apply_text(&cnp("q", "ingress: [{fromEndpoints: [{}]}]"));
    assert_eq!(cluster.ingress("a/web", "a/db", 80), "redirect");
    // Whoever else allows the range, by other selectors or for everybody.
    for from in ["fromEndpoints: [{matchLabels: {app: web}}], ", "fromEntities: [cluster], ", ""] {
        let mut cluster = self::cluster();
        cluster.apply_text(&cnp("l7", &format!("ingress: [{l7}]")));
        let range = "toPorts: [{ports: [{port: \"79\", endPort: 90, protocol: TCP}]}]";
        cluster.apply_text(&cnp("range", &format!("ingress: [{{{from}{range}}}]")));
        for (port, verdict) in [(78, "none"), (79, "allow"), (80, "redirect"), (90, "allow"), (91, "none")] {
            assert_eq!(cluster.ingress("a/web", "a/db", port), verdict, "{from} {port}");
        }
    }
}

#[test]
fn a03_allowing_one_peer_all_does_not_allow_others_all() {
    let mut cluster = cluster();
    let l7 = "{fromEndpoints: [{matchLabels: {app: web}}, {matchLabels: {app: db}}], toPorts: [{ports: [{port: \"80\", protocol: TCP}], rules: {http: [{path: /a}]}}]}";
    let all = "{fromEndpoints: [{matchLabels: {app: web}}], toPorts: [{ports: [{port: \"80\", protocol: TCP}]}]}";
    cluster.apply_text(&cnp("p", &format!("ingress: [{l7}, {all}]")));
    assert_eq!(cluster.ingress("a/web", "a/db", 80), "open");
    assert_eq!(cluster.ingress("a/db", "a/db", 80), "redirect");
}

#[test]
fn a05_an_empty_set_of_peers_is_nobody() {
    let ports = "toPorts: [{ports: [{port: \"80\", protocol: TCP}]}]";
    for field in ["toEndpoints", "toCIDR", "toCIDRSet", "toEntities", "toServices", "toGroups", "toNodes", "toFQDNs"] {
        for rest in ["", ports] {
            let mut cluster = cluster();
            cluster.apply_text(&cnp("p", &format!("egress: [{{{field}: [], {rest}}}]")));
            for peer in ["a/db", "world", "host"] {
                assert_eq!(cluster.egress("a/web", peer, 80), "none", "{field}: [] to {peer}");
            }
        }
        let problems = wrong(&cnp("p", &format!("egress: [{{{field}: null, {ports}}}]")));
        assert!(
            problems.iter().any(|one| one.contains(&format!("spec.egress[0].{field}: invalid type: found null"))),
            "{problems:?}"
        );
    }
    // What was written is what comes back.
    for list in ["[]", "[{}]"] {
        let text = cnp("p", &format!("egress: [{{toEndpoints: {list}}}]"));
        let (documents, _) = crds::load_documents("p", &text, &crds::LIMITS);
        let typed: crds::CiliumNetworkPolicy = serde_json::from_value(documents[0].value.clone()).expect("a policy");
        let back = serde_json::to_value(&typed).expect("a value");
        assert_eq!(back["spec"]["egress"], documents[0].value["spec"]["egress"]);
    }
    let mut cluster = cluster();
    cluster.apply_text(&cnp("p", "egress: [{toEndpoints: [{}]}]"));
    assert_eq!((cluster.egress("a/web", "a/db", 80), cluster.egress("a/web", "b/web", 80)), ("allow", "none"));
}

#[test]
fn a06_rules_for_nodes_are_not_for_pods_with_the_same_labels() {
    let mut cluster = cluster();
    cluster.apply_text(&ccnp("p", "nodeSelector: {matchLabels: {app: web}}, ingress: [{fromEntities: [all]}]"));
    assert_eq!(cluster.enforced("a/web"), (false, false));
    assert_eq!(cluster.enforced("host"), (false, false));
    // With the host firewall on, a node's policy is the node's, and a pod's is not the node's, though both have the label.
    let mut cluster = Cluster::new(Settings { host_firewall: true, ..Settings::default() }).pod("a/web", &["app=web"]);
    let labels = labels::Labels::parse(["reserved:host", "k8s:app=web"]).expect("labels");
    cluster.repository.upsert_identity(1, &labels);
    cluster.apply_text(&ccnp("p", "nodeSelector: {matchLabels: {app: web}}, ingress: [{fromEntities: [all]}]"));
    assert_eq!((cluster.enforced("a/web"), cluster.enforced("host")), ((false, false), (true, false)));
    cluster.apply_text(&ccnp("p", "endpointSelector: {matchLabels: {app: web}}, ingress: [{fromEntities: [all]}]"));
    assert_eq!((cluster.enforced("a/web"), cluster.enforced("host")), ((true, false), (false, false)));
}

#[test]
fn a07_a_policy_does_not_leave_its_namespace() {
    let mut cluster = cluster();
    let spec =
        "{endpointSelector: {matchExpressions: [{key: \"reserved:init\", operator: DoesNotExist}]}, ingress: [{}]}";
    cluster.apply_text(&format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: p, namespace: a}}\nspec: {spec}\n"
    ));
    assert_eq!(cluster.enforced("a/web"), (true, false));
    assert_eq!(cluster.enforced("b/web"), (false, false));
    assert_eq!(cluster.enforced("health"), (false, false));
    let named = "{endpointSelector: {matchLabels: {\"k8s:io.kubernetes.pod.namespace\": b}}, ingress: [{}]}";
    cluster.apply_text(&format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: q, namespace: a}}\nspec: {named}\n"
    ));
    assert_eq!(cluster.enforced("b/web"), (false, false));
    assert!(!cluster.repository.policies().nth(1).expect("q").warnings.is_empty());
}

#[test]
fn a08_a_forged_namespace_label_changes_no_policy() {
    let mut cluster = cluster()
        .pod("b/liar", &["app=web", "io.kubernetes.pod.namespace=a", "io.cilium.k8s.policy.serviceaccount=admin"]);
    cluster.apply_text(&cnp("p", "ingress: [{fromEndpoints: [{}]}]"));
    assert_eq!(cluster.ingress("b/liar", "a/db", 80), "none");
    assert_eq!(cluster.enforced("b/liar"), (false, false));
    for (key, value) in [("io.kubernetes.pod.namespace", "a"), ("io.cilium.k8s.policy.serviceaccount", "admin")] {
        let from = format!("fromEndpoints: [{{matchLabels: {{\"k8s:{key}\": {value}}}}}]");
        cluster
            .apply_text(&ccnp("q", &format!("endpointSelector: {{matchLabels: {{app: db}}}}, ingress: [{{{from}}}]")));
        assert_eq!(cluster.ingress("b/liar", "a/db", 80), "none", "{key}");
    }
}

#[test]
fn a09_forged_labels_of_a_namespace_satisfy_no_selector() {
    let forged = ["app=web", "io.cilium.k8s.namespace.labels.team=trusted"];
    let cluster = || cluster().pod("b/liar", &forged).pod_with("c/real", &["app=web"], "default", &["team=trusted"]);
    let of_kubernetes = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: a}\nspec: {podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: trusted}}}]}]}";
    let of_admins = "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: p}\nspec: {tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Accept, from: [{namespaces: {matchLabels: {team: trusted}}}]}, {action: Deny, from: [{namespaces: {}}]}]}";
    let own = |key: &str| cnp("p", &format!("ingress: [{{fromEndpoints: [{{matchLabels: {{\"{key}\": trusted}}}}]}}]"));
    let key = "io.cilium.k8s.namespace.labels.team";
    for policy in [of_kubernetes.to_owned(), of_admins.to_owned(), own(key), own(&format!("k8s:{key}"))] {
        let mut cluster = cluster();
        cluster.apply_text(&policy);
        assert_ne!(cluster.ingress("b/liar", "a/db", 80), "allow", "{policy}");
        assert_eq!(cluster.ingress("c/real", "a/db", 80), "allow", "{policy}");
    }
}

#[test]
fn a10_a_block_of_addresses_allows_no_pods() {
    let settings = Settings { cluster_name: "mine".to_owned(), ..Settings::default() };
    let mut cluster = Cluster::new(settings).pod("a/web", &["app=web"]).pod("a/db", &["app=db"]);
    cluster.apply_text(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: a}\nspec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}], egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8}}]}], policyTypes: [Ingress, Egress]}",
    );
    assert_eq!(cluster.egress("a/web", "a/db", 80), "none");
    assert_eq!(cluster.egress("a/web", "10.1.2.3", 80), "allow");
    assert_eq!(cluster.ingress("a/web", "a/db", 80), "none");
    assert_eq!(cluster.ingress("world", "a/db", 80), "allow");
    assert_eq!(cluster.ingress("remote-node", "a/db", 80), "none");
}

#[test]
fn a11_an_exception_must_lie_in_its_prefix() {
    for (cidr, except) in [("10.1.0.0/16", "10.0.0.0/8"), ("10.1.0.0/16", "11.0.0.0/16"), ("10.0.0.0/8", "fd00::/8")] {
        let problems =
            wrong(&cnp("p", &format!("egress: [{{toCIDRSet: [{{cidr: {cidr}, except: [\"{except}\"]}}]}}]")));
        assert!(problems[0].contains("does not contain exclude CIDR prefix"), "{problems:?}");
        let block = format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p}}\nspec: {{podSelector: {{}}, ingress: [{{from: [{{ipBlock: {{cidr: {cidr}, except: [\"{except}\"]}}}}]}}]}}"
        );
        let problems = wrong(&block);
        assert!(problems[0].contains("does not contain exclude CIDR prefix"), "{problems:?}");
    }
    let mut cluster = cluster();
    cluster.apply_text(&cnp("p", "egress: [{toCIDRSet: [{cidr: 10.1.0.0/16, except: [10.1.0.0/16]}]}]"));
    assert_eq!(cluster.egress("a/web", "10.1.2.3", 80), "none");
}

#[test]
fn a12_prefixes_with_host_bits_are_the_prefix() {
    let mut cluster = cluster();
    cluster.apply_text(&cnp("p", "egress: [{toCIDR: [10.0.0.1/8]}]"));
    cluster.apply_text(&cnp("q", "egress: [{toCIDR: [10.0.0.0/8, 10.255.255.255/8]}]"));
    assert_eq!(cluster.repository.prefixes().len(), 1);
    for name in ["p", "q"] {
        assert_eq!(cluster.egress("a/web", "10.200.0.1", 80), "allow");
        let reference =
            cluster.repository.policies().find(|one| one.reference.name == name).expect("it").reference.clone();
        let change = cluster.repository.remove_policy(&reference);
        cluster.take(change);
    }
    assert!(cluster.repository.prefixes().is_empty());
}

#[test]
fn a13_an_address_that_is_gone_leaves_nothing_to_those_around_it() {
    let mut cluster = cluster();
    cluster.apply_text(&cnp("p", "egressDeny: [{toCIDR: [10.1.2.3/32]}], egress: [{toCIDR: [10.0.0.0/8]}]"));
    assert_eq!(cluster.egress("a/web", "10.1.2.3", 80), "deny");
    cluster.apply_text(&cnp("p", "egress: [{toCIDR: [10.0.0.0/8]}]"));
    assert_eq!(cluster.egress("a/web", "10.1.2.3", 80), "allow");
    assert_eq!(cluster.egress("a/web", "10.1.2.4", 80), "allow");
}

#[test]
fn a16_revisions_count_policies_and_tables_hold_for_the_newest() {
    let mut cluster = cluster();
    let web = cluster.identity("a/web");
    let before = cluster.repository.subject_policy(web).expect("tables").revision;
    // This one does not concern a/web: its tables are those of the new revision nevertheless.
    cluster.apply_text("apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: p, namespace: b}\nspec: {endpointSelector: {}, ingress: [{}]}");
    let after = cluster.repository.subject_policy(web).expect("tables").revision;
    assert_eq!((after, cluster.repository.revision()), (before + 1, before + 1));
}

#[test]
fn a04_rules_for_requests_are_never_skipped_while_policies_change() {
    let mut cluster = cluster();
    let http = "ingress: [{fromEndpoints: [{}], toPorts: [{ports: [{port: \"80\", protocol: TCP}], rules: {http: [{path: /ok}]}}]}]";
    cluster.apply_text(&cnp("http", http));
    let (subject, peer) = (cluster.identity("a/web"), cluster.identity("a/db"));
    let others = [
        "ingress: [{fromEndpoints: [{matchLabels: {app: db}}], toPorts: [{ports: [{port: \"81\"}]}]}]",
        "egress: [{toEntities: [world]}]",
        "ingress: [{fromEntities: [host]}]",
    ];
    for at in 0..3_000 {
        if at % 2 == 0 {
            cluster.apply_text(&cnp("other", others[at / 2 % 3]));
        } else {
            remove(&mut cluster, "other");
        }
        let tables = cluster.repository.subject_policy(subject).expect("tables");
        let entry = tables.verdict(peer, Direction::Ingress, protocol::TCP, 80);
        assert_eq!(entry.verdict, abi::policy::VERDICT_REDIRECT, "change {at}");
        let set = tables.rule_set(entry.rule_set).expect("a rule set");
        let rules = set.redirects.iter().filter_map(|redirect| redirect.rules.as_ref()?.http.as_ref());
        assert_eq!(rules.map(Vec::len).sum::<usize>(), 1, "change {at}");
        assert!(!set.redirects.iter().any(|redirect| redirect.is_open()), "change {at}");
    }
}

#[test]
fn a14_many_policies_and_priorities_keep_their_order() {
    let rule = |action: &str| {
        format!(
            "{{action: {action}, to: [{{namespaces: {{}}}}], protocols: [{{tcp: {{destinationPort: {{number: 80}}}}}}]}}"
        )
    };
    let policy = |name: usize, priority: usize, rules: &[String]| {
        format!(
            "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {{name: k{name}}}\nspec: {{tier: Admin, priority: {priority}, subject: {{namespaces: {{}}}}, egress: [{}]}}\n",
            rules.join(", ")
        )
    };
    for first in ["Deny", "Accept"] {
        let second = if first == "Deny" { "Accept" } else { "Deny" };
        let mut cluster = cluster();
        // As many rules as a policy can have, as many priorities as there are: only the first of all decides.
        let passing: Vec<String> = (0..25).map(|_| rule("Pass")).collect();
        for priority in (1..=1_000).rev().step_by(9) {
            let mut rules = passing.clone();
            rules[24] = rule(second);
            cluster.apply_text(&policy(priority, priority, &rules));
        }
        cluster.apply_text(&policy(0, 0, &[rule(first)]));
        let (subject, peer) = (cluster.identity("a/web"), cluster.identity("a/db"));
        let tables = cluster.repository.subject_policy(subject).expect("tables");
        let entry = tables.verdict(peer, Direction::Egress, protocol::TCP, 80);
        let expected = if first == "Deny" { abi::policy::VERDICT_DENY } else { abi::policy::VERDICT_ALLOW };
        assert_eq!(entry.verdict, expected, "{first}");
    }
}

#[test]
fn a17_dots_in_names_are_dots() {
    assert!(policy::name_matches("a.b.example", "a.b.example"));
    for other in ["axb.example", "a.bxexample", "aab.example", "a-b.example"] {
        assert!(!policy::name_matches("a.b.example", other), "{other}");
        assert!(!policy::name_matches("*.b.example", other), "{other}");
    }
    assert!(!policy::name_matches("*.example", "xexample"));
    for learned in [Learned::Name("a.b.example".to_owned()), Learned::Pattern("*.b.example".to_owned())] {
        assert!(learned.means("a.b.example"), "{learned:?}");
        assert!(!learned.means("axb.example") && !learned.means("a.bxexample"), "{learned:?}");
    }
    // What the proxy is told of questions is compared in the same way, and so are server names.
    let servers = l7::tls::ServerNames::new(&["a.b.example".to_owned(), "*.c.example".to_owned()]);
    assert!(servers.allows(Some("a.b.example")) && servers.allows(Some("x.c.example")));
    for other in ["axb.example", "a.bxexample", "xxc.example", "x.cxexample"] {
        assert!(!servers.allows(Some(other)), "{other}");
    }
}

#[test]
fn a18_what_clusterwide_policies_deny_stays_denied_when_a_namespace_loses_its_own() {
    let mut cluster = cluster();
    cluster.apply_text(&cnp("own", "ingress: [{}]"));
    cluster
        .apply_text(&ccnp("all", "endpointSelector: {}, ingressDeny: [{fromEndpoints: [{matchLabels: {app: web}}]}]"));
    let (subject, peer) = (cluster.identity("a/db"), cluster.identity("b/web"));
    for _ in 0..2 {
        let tables = cluster.repository.subject_policy(subject).expect("tables");
        assert!(tables.ingress_enforced);
        let entry = tables.verdict(peer, Direction::Ingress, protocol::TCP, 80);
        assert_eq!(entry.verdict, abi::policy::VERDICT_DENY);
        remove(&mut cluster, "own");
    }
}
