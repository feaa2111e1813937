//! Which policies are refused, and which are read otherwise than they look?

#[path = "support/cluster.rs"]
mod cluster;

use cluster::{Cluster, cnp, read, wrong};
use policy::{Direction, PolicyObject, Settings, protocol};

#[test]
fn prefixes_with_leading_zeros_are_refused() {
    for prefix in ["10.0.0.0/08", "1.2.3.04/32", "010.0.0.0/8", "10.0.0.0/+8", "10.0.0.0/", "/8"] {
        for rule in [format!("toCIDR: [\"{prefix}\"]"), format!("toCIDRSet: [{{cidr: \"{prefix}\"}}]")] {
            let problems = wrong(&cnp("p", &format!("egress: [{{{rule}}}]"))).join("\n");
            assert!(problems.contains("unable to parse CIDR"), "{rule}: {problems}");
        }
    }
}

#[test]
fn labels_without_key_and_groups_by_labels_with_source_are_refused() {
    let problems = wrong(&cnp("p", "labels: [{key: \"\", value: v}], egress: [{}]")).join("\n");
    assert!(problems.contains("labels[0].key: a label must have a key"), "{problems}");
    let problems =
        wrong(&cnp("p", "egress: [{toCIDRSet: [{cidrGroupSelector: {matchLabels: {\"any:x\": v}}}]}]")).join("\n");
    assert!(problems.contains("have no source"), "{problems}");
}

#[test]
fn fields_that_are_not_known_refuse_the_policy() {
    for (rule, expected) in [
        ("{toEndpoints: [{}], toPort: [{}]}", "spec.egress[0].toPort: unknown field"),
        ("{toEndpoints: [{}], l7: {}}", "spec.egress[0].l7: unknown field"),
        ("{toEndpoints: [{matchLabel: {a: b}}]}", "spec.egress[0].toEndpoints[0].matchLabel: unknown field"),
        ("{toPorts: [{ports: [{port: \"80\"}], rules: {r2d2: [{}]}}]}", "rules.r2d2: unknown field"),
        ("{toGroups: [{aws: {}}]}", "groups of cloud providers are not supported"),
        ("{toNodes: [{}]}", "enable-node-selector-labels"),
        ("{toPorts: [{ports: [{port: \"65536\"}]}]}", "unable to parse port"),
        ("{toPorts: [{ports: [{port: \"080\"}]}]}", "unable to parse port"),
        ("{toPorts: [{ports: [{protocol: TCP}]}]}", "port must be specified"),
        ("{toPorts: [{ports: [{protocol: GRE}]}]}", "enable-extended-ip-protocols"),
        (
            "{toPorts: [{ports: [{port: \"80\", protocol: UDP}], rules: {http: [{}]}}]}",
            "L7 rules can only apply to TCP (not UDP)",
        ),
        (
            "{toPorts: [{ports: [{port: \"0\", protocol: TCP}], rules: {http: [{}]}}]}",
            "L7 rules can not be used when a port is 0",
        ),
        ("{toEndpoints: [{matchLabels: {\"a b\": c}}]}", "invalid label selector"),
        ("{toCIDR: [\"\"]}", "IP must be specified"),
        ("{toCIDRSet: [{}]}", "one of cidr, cidrGroupRef, or cidrGroupSelector is required"),
    ] {
        let problems = wrong(&cnp("p", &format!("egress: [{rule}]")));
        assert!(problems.iter().any(|one| one.contains(expected)), "{rule}: {problems:?}");
    }
    assert!(wrong(&cnp("p", "ingress: []"))[0].contains("rule must have at least one of Ingress"));
    assert!(
        wrong(&cnp("p", "ingress: [{toPorts: [{ports: [{port: \"53\"}], rules: {dns: [{matchPattern: '*'}]}}]}]"))
            .iter()
            .any(|one| one.contains("not allowed on ingress"))
    );
    let many = vec!["{port: \"80\"}"; 41].join(", ");
    assert!(
        wrong(&cnp("p", &format!("ingress: [{{toPorts: [{{ports: [{many}]}}]}}]")))
            .iter()
            .any(|one| one.contains("the max is 40"))
    );
}

#[test]
fn rules_for_kafka_are_refused_as_the_field_refused_them() {
    let with = |port: &str, rule: &str| {
        format!("ingress: [{{toPorts: [{{ports: [{{port: \"9092\"{port}}}], rules: {{kafka: [{rule}]}}}}]}}]")
    };
    let tcp = ", protocol: TCP";
    for (rule, expected) in [
        ("{role: produce, apiKey: fetch}", "kafka[0].role: cannot set both Role"),
        ("{}, {apiKey: nosuch}", "kafka[1].apiKey: invalid Kafka APIKey \"nosuch\""),
        ("{role: admin}", "kafka[0].role"),
        ("{apiVersion: \"-1\"}", "kafka[0].apiVersion: invalid Kafka APIVersion"),
        ("{topic: \"a b\"}", "kafka[0].topic: invalid Kafka Topic name"),
        ("{partition: \"1\"}", "kafka[0].partition: unknown field"),
    ] {
        let problems = wrong(&cnp("p", &with(tcp, rule)));
        assert!(problems.iter().any(|one| one.contains(expected)), "{rule}: {problems:?}");
    }
    let long = format!("{{topic: {}}}", "a".repeat(256));
    assert!(wrong(&cnp("p", &with(tcp, &long))).iter().any(|one| one.contains("kafka[0].topic")));
    let udp = wrong(&cnp("p", &with(", protocol: UDP", "{}")));
    assert!(udp.iter().any(|one| one.contains("L7 rules can only apply to TCP (not UDP)")), "{udp:?}");
    let two = "ingress: [{toPorts: [{ports: [{port: \"80\", protocol: TCP}], rules: {http: [{}], kafka: [{}]}}]}]";
    let two = wrong(&cnp("p", two));
    assert!(two.iter().any(|one| one.contains("multiple L7 protocol rule types")), "{two:?}");
}

#[test]
fn nulls_in_a_network_policy_are_absent_fields() {
    let text = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, creationTimestamp: null}\nspec: {podSelector: {matchLabels: null}, ingress: null, policyTypes: [Ingress]}";
    let policies = read(text, &Settings::default()).expect("a policy");
    assert!(policies[0].default_deny(Direction::Ingress) && !policies[0].default_deny(Direction::Egress));
    let other = serde_json::json!({ "apiVersion": "v1", "kind": "Pod" });
    let problems =
        PolicyObject::from_value(&other, &crds::Source::default(), &Settings::default()).expect_err("not a policy");
    assert!(problems[0].message.contains("kind Pod of v1 is not a policy"));
}

#[test]
fn host_policies_are_for_the_own_node_if_the_host_firewall_is_on() {
    let mut settings = Settings { host_firewall: true, ..Settings::default() };
    settings.cluster_name = "default".to_owned();
    let mut cluster =
        Cluster::new(settings).pod("kube-system/relay", &["app.kubernetes.io/name=hubble-relay"]).pod("a/web", &[]);
    cluster.apply(&["castle/05-host-all.yaml"]);
    let mut check = |peer: &str, proto, port, verdict| {
        assert_eq!(cluster.answer("host", Direction::Ingress, peer, proto, port).0, verdict, "{peer} {proto}/{port}");
    };
    check("10.1.101.110", protocol::TCP, 22, "allow");
    check("10.1.101.111", protocol::TCP, 22, "none");
    check("world", protocol::ICMP, 8, "allow");
    check("world", protocol::ICMPV6, 128, "none");
    check("kube-apiserver", protocol::TCP, 10250, "allow");
    check("remote-node", protocol::TCP, 4240, "allow");
    check("a/web", protocol::TCP, 4240, "none");
    check("remote-node", protocol::UDP, 8472, "allow");
    check("world", protocol::UDP, 8472, "none");
    check("kube-system/relay", protocol::TCP, 4244, "allow");
    check("a/web", protocol::TCP, 4244, "none");
    assert_eq!(cluster.enforced("host"), (true, false));
    assert_eq!(cluster.enforced("a/web"), (false, false));
}
