//! Do the policies that people published do what they say they do? Each test has the number of the expectation.

#[path = "support/cluster.rs"]
mod cluster;

use cluster::{Cluster, data, read, wrong};
use policy::{Direction, Mode, PolicyObject, Settings, protocol};

const DNS: u16 = 53;

/// Every file, with the directions that its policies close: i, e, both or none.
const FILES: &[(&str, &str)] = &[
    ("oke/01-l3-ep-hr-rule1.yaml", "i"),
    ("oke/02-frontend-to-kube-apiserver.yaml", "e"),
    ("oke/03-fron-to-cluster.yaml", "e"),
    ("oke/04-fin-frontend-cidr-rule-runnable.yaml", "e"),
    ("oke/05-default-deny-all-cilium-hr.yaml", "e"),
    ("oke/06-port-range.yaml", "e"),
    ("oke/07-cidr-l4-rule-runnable.yaml", "e"),
    ("oke/08-icmp-rule.yaml", "e"),
    ("oke/09-l7-rule.yaml", "i"),
    ("emojivoto/02-l7-visibility.yaml", "e"),
    ("castle/03-host-cp.yaml", "i"),
    ("castle/04-host-infra.yaml", "i"),
    ("castle/05-host-all.yaml", "i"),
    ("castle/06-allow-within-namespace-infra-ns-name.yaml", "ie"),
    ("castle/07-allow-within-namespace-ingress-nginx.yaml", "ie"),
    ("castle/08-all-to-nginx.yaml", "i"),
    ("castle/09-nginx-ingress-to-kapi.yaml", "e"),
    ("castle/10-global-infra-dns.yaml", "e"),
    ("castle/11-allow-to-coredns.yaml", "i"),
    ("castle/13-nginx-to-services.yaml", "e"),
    ("castle/14-global-infra-nginx.yaml", "i"),
    ("castle/15-prometheus-to-metrics.yaml", "e"),
    ("castle/16-global-infra-prometheus.yaml", "i"),
    ("castle/18-allow-within-namespace-my-namespace-xy.yaml", "ie"),
    ("kind-always/01-core-dns.yaml", "e"),
    ("kind-always/02-local-path-provisioner.yaml", "e"),
    ("kind-always/03-hubble-relay.yaml", "e"),
    ("kind-always/04-hubble-ui.yaml", "e"),
    ("kind-always/05-hubble-ui-and-hubble-relay.yaml", "e ie"),
    ("kind-always/06-hubble-ui-and-core-dns.yaml", "e ie"),
    ("kind-always/07-core-dns-world.yaml", "ie"),
    ("bookinfo/01-productpage-deny-all-fig5.yaml", "e"),
    ("bookinfo/02-productpage-deny-all-fig13.yaml", "e"),
    ("bookinfo/03-allow-to-dns-fig17.yaml", "e"),
    ("bookinfo/04-allow-to-dns-l7-fig19.yaml", "e"),
    ("bookinfo/05-from-product-to-reviews-details-fig21.yaml", "e"),
    ("bookinfo/06-from-internal-client-to-fqdn-fig23.yaml", "e"),
];

#[test]
fn every_policy_loads_and_closes_what_it_should() {
    for (file, expected) in FILES {
        let flags: Vec<String> = data(file)
            .iter()
            .map(|document| {
                let read = PolicyObject::from_value(&document.value, &document.source, &Settings::default());
                let policy = read.unwrap_or_else(|problems| panic!("{problems:?}"));
                let flag = |direction, letter: &str| {
                    if policy.default_deny(direction) { letter.to_owned() } else { String::new() }
                };
                flag(Direction::Ingress, "i") + &flag(Direction::Egress, "e")
            })
            .collect();
        assert_eq!(flags.join(" "), *expected, "{file}");
    }
}

#[test]
fn every_file_is_in_the_list() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let mut count = 0;
    for topic in std::fs::read_dir(folder).expect("the data").flatten() {
        count += std::fs::read_dir(topic.path()).expect("a topic").count();
    }
    assert_eq!(count, FILES.len() + 2, "two files are masked and refused");
}

#[test]
fn masked_prefixes_are_refused_and_named() {
    for (file, path) in [
        ("oke/04-fin-frontend-cidr-rule.yaml", "spec.egress[3].toCIDRSet[0].cidr"),
        ("oke/07-cidr-l4-rule.yaml", "spec.egress[0].toCIDR[0]"),
    ] {
        let document = data(file).remove(0);
        let problems =
            PolicyObject::from_value(&document.value, &document.source, &Settings::default()).expect_err("refused");
        let text = problems[0].to_string();
        assert!(problems.len() == 1 && text.starts_with(file), "{problems:?}");
        assert!(
            text.contains(path) && text.contains("10.xx.0.0/24") && text.contains("unable to parse CIDR"),
            "{text}"
        );
    }
}

fn oke() -> Cluster {
    Cluster::default_mode()
        .pod("cilium-hr/frontend", &["app=frontend"])
        .pod("cilium-hr/backend", &["app=backend"])
        .pod("cilium-hr/pmo", &["app=pmo"])
        .pod("cilium-fin/frontend", &["app=frontend"])
        .pod("cilium-fin/backend", &["app=backend"])
        .pod("cilium-mfg/frontend", &["app=frontend"])
        .pod("kube-system/kube-dns", &["k8s-app=kube-dns"])
}

#[test]
fn e0_07_pods_of_the_own_namespace_may_come_in() {
    let mut cluster = oke();
    cluster.apply(&["oke/01-l3-ep-hr-rule1.yaml"]);
    for port in [1, 80, 65535] {
        assert_eq!(cluster.ingress("cilium-hr/frontend", "cilium-hr/backend", port), "allow");
    }
}

#[test]
fn e0_08_pods_of_a_named_namespace_may_come_in() {
    let mut cluster = oke();
    cluster.apply(&["oke/01-l3-ep-hr-rule1.yaml"]);
    for proto in [protocol::TCP, protocol::UDP, protocol::SCTP, protocol::ICMP] {
        for pod in ["cilium-fin/frontend", "cilium-fin/backend"] {
            let (verdict, rules) = cluster.answer("cilium-hr/backend", Direction::Ingress, pod, proto, 8);
            assert_eq!(
                (verdict, rules.rules[0].to_string().as_str()),
                ("allow", "CiliumNetworkPolicy cilium-hr/l3-ep-hr-rule1 ingress[1]")
            );
        }
    }
}

#[test]
fn e0_09_others_may_not() {
    let mut cluster = oke();
    cluster.apply(&["oke/01-l3-ep-hr-rule1.yaml"]);
    assert_eq!(cluster.connect("cilium-mfg/frontend", "cilium-hr/backend", 80), "ingress");
    let (verdict, rules) =
        cluster.answer("cilium-hr/backend", Direction::Ingress, "cilium-mfg/frontend", protocol::TCP, 80);
    assert_eq!(verdict, "none");
    let policies: Vec<String> = rules.policies().iter().map(ToString::to_string).collect();
    assert_eq!(policies, ["CiliumNetworkPolicy cilium-hr/l3-ep-hr-rule1"], "who closed it");
}

#[test]
fn e0_10_world_may_not_come_in_the_own_host_may_and_all_may_go_out() {
    let mut cluster = oke();
    cluster.apply(&["oke/01-l3-ep-hr-rule1.yaml"]);
    for (peer, verdict) in
        [("world", "none"), ("kube-system/kube-dns", "none"), ("remote-node", "none"), ("host", "allow")]
    {
        assert_eq!(cluster.ingress(peer, "cilium-hr/backend", 80), verdict, "{peer}");
    }
    for peer in ["world", "1.2.3.4", "host", "cilium-mfg/frontend"] {
        assert_eq!(cluster.egress("cilium-hr/backend", peer, 80), "allow");
    }
    assert_eq!(cluster.enforced("cilium-hr/backend"), (true, false));
    let (_, rules) = cluster.answer("cilium-hr/backend", Direction::Ingress, "host", protocol::TCP, 80);
    assert_eq!(rules.implicit.map(policy::Implicit::name), Some("allow-localhost-ingress"));
}

#[test]
fn e0_11_only_the_api_server_may_be_reached() {
    let mut cluster = oke();
    cluster.apply(&["oke/02-frontend-to-kube-apiserver.yaml"]);
    assert_eq!(cluster.egress("cilium-fin/frontend", "kube-apiserver", 6443), "allow");
    for peer in ["kube-system/kube-dns", "cilium-fin/backend", "world", "host", "remote-node"] {
        assert_eq!(cluster.egress("cilium-fin/frontend", peer, 443), "none", "{peer}");
    }
    assert_eq!(cluster.enforced("cilium-fin/frontend"), (false, true));
    assert_eq!(cluster.enforced("cilium-fin/backend"), (false, false));
    assert_eq!(cluster.enforced("cilium-hr/frontend"), (false, false));
}

#[test]
fn e0_12_everything_in_the_cluster_may_be_reached() {
    let mut cluster = oke();
    cluster.apply(&["oke/03-fron-to-cluster.yaml"]);
    for peer in [
        "cilium-fin/backend",
        "kube-system/kube-dns",
        "host",
        "remote-node",
        "kube-apiserver",
        "health",
        "unmanaged",
        "init",
        "ingress",
    ] {
        assert_eq!(cluster.egress("cilium-hr/frontend", peer, 80), "allow", "{peer}");
    }
    for peer in ["world", "134.70.24.1"] {
        assert_eq!(cluster.egress("cilium-hr/frontend", peer, 80), "none", "{peer}");
    }
}

#[test]
fn e0_13_pods_without_the_label_are_closed_only_by_another_policy() {
    let mut cluster = oke();
    cluster.apply(&["oke/03-fron-to-cluster.yaml"]);
    assert_eq!(cluster.egress("cilium-hr/backend", "cilium-fin/backend", 80), "allow");
    cluster.apply(&["oke/05-default-deny-all-cilium-hr.yaml"]);
    assert_eq!(cluster.egress("cilium-hr/backend", "cilium-fin/backend", 80), "none");
    assert_eq!(cluster.egress("cilium-hr/frontend", "cilium-fin/backend", 80), "allow");
}

const HEAD: &str = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: p, namespace: a}\nspec:\n  endpointSelector: {}\n";

#[test]
fn e0_14_entities_are_known_by_name() {
    for name in ["host", "remote-node", "cluster", "kube-apiserver", "init", "unmanaged", "world", "all"] {
        let text = format!("{HEAD}  egress: [{{toEntities: [{name}]}}]");
        assert_eq!(read(&text, &Settings::default()).map(|policies| policies.len()), Ok(1), "{name}");
    }
    let problems = wrong(&format!("{HEAD}  egress: [{{toEntities: [nosuch]}}]"));
    assert!(
        problems.iter().any(|one| one.contains("spec.egress[0].toEntities[0]: unsupported entity: nosuch")),
        "{problems:?}"
    );
}

#[test]
fn e0_15_only_the_prefixes_may_be_reached() {
    let mut cluster = oke();
    cluster.apply(&["oke/04-fin-frontend-cidr-rule-runnable.yaml"]);
    for address in ["134.70.24.1", "134.70.28.1", "134.70.32.1", "10.20.0.0", "10.20.0.255"] {
        assert_eq!(cluster.egress("cilium-fin/frontend", address, 22), "allow", "{address}");
        assert!(cluster.identity(address) >= 16_777_216);
    }
    for peer in ["134.70.24.2", "10.20.1.0", "world", "cilium-fin/backend", "kube-system/kube-dns", "host"] {
        assert_eq!(cluster.egress("cilium-fin/frontend", peer, 22), "none", "{peer}");
    }
}

#[test]
fn e0_18_exceptions_are_denied() {
    let mut cluster = oke();
    cluster.apply_text(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: p, namespace: cilium-fin}\nspec:\n  endpointSelector: {}\n  egress:\n  - toCIDRSet: [{cidr: 10.0.0.0/8, except: [10.96.0.0/12]}]",
    );
    assert_eq!(cluster.egress("cilium-fin/frontend", "10.1.2.3", 80), "allow");
    assert_eq!(cluster.egress("cilium-fin/frontend", "10.96.0.1", 80), "none");
    assert_eq!(cluster.egress("cilium-fin/frontend", "10.111.255.255", 80), "none");
    assert_eq!(cluster.egress("cilium-fin/frontend", "10.112.0.0", 80), "allow");
    // Another policy's prefix inside of the exception changes nothing for this one.
    cluster.apply_text(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: q, namespace: cilium-hr}\nspec:\n  endpointSelector: {}\n  egress:\n  - toCIDR: [10.96.0.1/32, 10.1.0.0/16]",
    );
    assert_eq!(cluster.egress("cilium-fin/frontend", "10.96.0.1", 80), "none");
    assert_eq!(cluster.egress("cilium-fin/frontend", "10.1.2.3", 80), "allow");
    assert_eq!(cluster.egress("cilium-hr/frontend", "10.96.0.1", 80), "allow");
}

#[test]
fn e0_19_names_cannot_be_combined_with_other_peers() {
    for (other, field) in [("toEndpoints: [{}]", "ToEndpoints"), ("toCIDR: [1.2.3.4/32]", "ToCIDR")] {
        let problems = wrong(&format!("{HEAD}  egress: [{{toFQDNs: [{{matchName: a.b}}], {other}}}]"));
        let expected = format!("combining {field} and ToFQDNs is not supported yet");
        assert!(problems.iter().any(|one| one.contains(&expected)), "{problems:?}");
    }
}

#[test]
fn e0_21_a_rule_without_ports_allows_all_of_them() {
    let mut cluster = oke();
    cluster.apply(&["oke/03-fron-to-cluster.yaml"]);
    for proto in [protocol::TCP, protocol::UDP, protocol::SCTP, protocol::ICMP, protocol::ICMPV6, 47] {
        assert_eq!(cluster.egress_by("cilium-hr/frontend", "cilium-fin/backend", proto, 8), "allow");
    }
}

#[test]
fn e0_22_dns_over_udp_goes_to_the_proxy_and_nothing_else_passes() {
    let mut cluster = oke();
    cluster.apply(&["oke/05-default-deny-all-cilium-hr.yaml"]);
    assert_eq!(cluster.egress_by("cilium-hr/backend", "kube-system/kube-dns", protocol::UDP, DNS), "open");
    assert_eq!(cluster.egress_by("cilium-hr/backend", "kube-system/kube-dns", protocol::TCP, DNS), "none");
    assert_eq!(cluster.egress_by("cilium-hr/backend", "world", protocol::UDP, DNS), "none");
}

#[test]
fn e0_23_what_has_no_ingress_section_stays_open_there() {
    let mut cluster = oke();
    cluster.apply(&["oke/05-default-deny-all-cilium-hr.yaml"]);
    for pod in ["cilium-hr/frontend", "cilium-hr/backend", "cilium-hr/pmo"] {
        assert_eq!(cluster.enforced(pod), (false, true));
        assert_eq!(cluster.ingress("cilium-mfg/frontend", pod, 80), "allow");
    }
    assert_eq!(cluster.enforced("kube-system/kube-dns"), (false, false));
}

#[test]
fn e0_24_ranges_have_exact_edges() {
    let mut cluster = oke();
    cluster.apply(&["oke/06-port-range.yaml"]);
    for (port, verdict) in
        [(79, "none"), (80, "allow"), (1024, "allow"), (6443, "allow"), (6444, "none"), (65535, "none")]
    {
        assert_eq!(cluster.egress("cilium-hr/frontend", "world", port), verdict, "{port}");
        assert_eq!(cluster.egress_by("cilium-hr/frontend", "world", protocol::UDP, port), "none");
    }
    let text = format!(
        "{HEAD}  egress: [{{toPorts: [{{ports: [{{port: \"53\", endPort: 60, protocol: UDP}}], rules: {{dns: [{{matchPattern: '*'}}]}}}}]}}]"
    );
    assert!(wrong(&text).iter().any(|one| one.contains("DNS rules do not support port ranges")));
}

#[test]
fn e0_25_a_port_of_a_prefix() {
    let mut cluster = oke();
    cluster.apply(&["oke/07-cidr-l4-rule-runnable.yaml"]);
    assert_eq!(cluster.egress("cilium-hr/pmo", "10.20.0.77", 22), "allow");
    assert_eq!(cluster.egress("cilium-hr/pmo", "10.20.0.77", 23), "none");
    assert_eq!(cluster.egress_by("cilium-hr/pmo", "10.20.0.77", protocol::UDP, 22), "none");
    assert_eq!(cluster.egress("cilium-hr/pmo", "10.20.1.77", 22), "none");
}

#[test]
fn e0_26_only_echo_requests_of_both_families() {
    let mut cluster = oke();
    cluster.apply(&["oke/08-icmp-rule.yaml"]);
    let mut check = |proto, number, verdict| {
        assert_eq!(cluster.egress_by("cilium-hr/backend", "world", proto, number), verdict, "{proto}/{number}");
    };
    check(protocol::ICMP, 8, "allow");
    check(protocol::ICMPV6, 128, "allow");
    for (proto, number) in [
        (protocol::ICMP, 0),
        (protocol::ICMP, 13),
        (protocol::ICMPV6, 129),
        (protocol::ICMPV6, 8),
        (protocol::TCP, 8),
        (protocol::UDP, 128),
    ] {
        check(proto, number, "none");
    }
}

#[test]
fn e0_27_icmp_types_by_number_and_name() {
    for (kind, family) in
        [("8", "IPv4"), ("EchoRequest", "IPv4"), ("EchoRequest", "IPv6"), ("PacketTooBig", "IPv6"), ("\"255\"", "IPv4")]
    {
        let text = format!("{HEAD}  ingress: [{{icmps: [{{fields: [{{type: {kind}, family: {family}}}]}}]}}]");
        assert_eq!(read(&text, &Settings::default()).map(|policies| policies.len()), Ok(1), "{kind} {family}");
    }
    for (kind, family) in [("PacketTooBig", "IPv4"), ("256", "IPv4"), ("-1", "IPv4"), ("echoRequest", "IPv6")] {
        let problems =
            wrong(&format!("{HEAD}  ingress: [{{icmps: [{{fields: [{{type: {kind}, family: {family}}}]}}]}}]"));
        assert!(
            problems.iter().any(|one| one.contains(&format!("ICMP type {kind} not found in {family}"))),
            "{problems:?}"
        );
    }
    let both = wrong(&format!(
        "{HEAD}  ingress: [{{icmps: [{{fields: [{{type: 8}}]}}], toPorts: [{{ports: [{{port: \"80\"}}]}}]}}]"
    ));
    assert!(both.iter().any(|one| one.contains("the ICMPs block may only be present without ToPorts")), "{both:?}");
}

#[test]
fn e0_30_ports_without_rules_cancel_rules_of_the_same_peers_and_ports() {
    let mut cluster = oke();
    let rule = |name: &str, rules: &str| {
        format!(
            "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: {name}, namespace: cilium-hr}}\nspec:\n  endpointSelector: {{}}\n  ingress: [{{toPorts: [{{ports: [{{port: \"80\", protocol: TCP}}]{rules}}}]}}]"
        )
    };
    cluster.apply_text(&rule("l7", ", rules: {http: [{method: GET}]}"));
    assert_eq!(cluster.ingress("world", "cilium-hr/backend", 80), "redirect");
    cluster.apply_text(&rule("l4", ""));
    assert_eq!(cluster.ingress("world", "cilium-hr/backend", 80), "open");
}

#[test]
fn e2_03_subjects_are_pods_or_nodes() {
    let clusterwide = |spec: &str| {
        format!(
            "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {{name: p}}\nspec: {{{spec}, ingress: [{{}}]}}"
        )
    };
    let both = wrong(&clusterwide("endpointSelector: {}, nodeSelector: {}"));
    assert!(both.iter().any(|one| one.contains("rule cannot have both EndpointSelector and NodeSelector")), "{both:?}");
    let neither = wrong(&clusterwide("description: x"));
    assert!(
        neither.iter().any(|one| one.contains("rule must have one of EndpointSelector or NodeSelector")),
        "{neither:?}"
    );
    let text = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: p}\nspec: {nodeSelector: {}, ingress: [{}]}";
    assert!(wrong(text).iter().any(|one| one.contains("rule cannot have NodeSelector")));
}

fn always() -> Cluster {
    let settings = Settings { mode: Mode::Always, ..Settings::default() };
    Cluster::new(settings)
        .pod_with("kube-system/coredns", &["k8s-app=kube-dns"], "coredns", &[])
        .pod_with("kube-system/hubble-relay", &["k8s-app=hubble-relay"], "hubble-relay", &[])
        .pod_with("kube-system/hubble-ui", &["k8s-app=hubble-ui"], "hubble-ui", &[])
        .pod_with("kube-system/other", &["app=other"], "other", &[])
        .pod_with("local-path-storage/provisioner", &["app=x"], "local-path-provisioner-service-account", &[])
        .pod_with("local-path-storage/twin", &["app=y"], "local-path-provisioner-service-account", &[])
}

#[test]
fn e3_04_in_mode_always_every_pod_is_closed_without_any_policy() {
    let mut cluster = always();
    for pod in ["kube-system/coredns", "kube-system/other", "local-path-storage/provisioner", "health"] {
        assert_eq!(cluster.enforced(pod), (true, true), "{pod}");
        for peer in ["kube-apiserver", "world", "host", "kube-system/hubble-ui"] {
            assert_eq!(cluster.egress(pod, peer, 443), "none");
            assert_eq!(cluster.ingress(peer, pod, 443), "none", "{peer} to {pod}");
        }
    }
}

#[test]
fn e3_05_coredns_reaches_the_api_server() {
    let mut cluster = always();
    cluster.apply(&["kind-always/01-core-dns.yaml"]);
    assert_eq!(cluster.egress("kube-system/coredns", "kube-apiserver", 6443), "allow");
    assert_eq!(cluster.egress("kube-system/coredns", "world", 53), "none");
    assert_eq!(cluster.egress("kube-system/other", "kube-apiserver", 6443), "none");
}

#[test]
fn e3_06_the_provisioner_reaches_the_api_server() {
    let mut cluster = always();
    cluster.apply(&["kind-always/02-local-path-provisioner.yaml"]);
    assert_eq!(cluster.egress("local-path-storage/provisioner", "kube-apiserver", 6443), "allow");
}

#[test]
fn e3_07_the_relay_reaches_all_nodes() {
    let mut cluster = always();
    cluster.apply(&["kind-always/03-hubble-relay.yaml"]);
    for node in ["host", "remote-node", "kube-apiserver"] {
        assert_eq!(cluster.egress("kube-system/hubble-relay", node, 4244), "allow", "{node}");
    }
    assert_eq!(cluster.egress("kube-system/hubble-relay", "world", 4244), "none");
    cluster.apply_text(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: hubble-relay, namespace: kube-system}\nspec:\n  endpointSelector: {matchLabels: {io.cilium.k8s.policy.serviceaccount: hubble-relay}}\n  egress: [{toEntities: [host]}]",
    );
    assert_eq!(cluster.egress("kube-system/hubble-relay", "host", 4244), "allow");
    assert_eq!(cluster.egress("kube-system/hubble-relay", "remote-node", 4244), "none");
}

#[test]
fn e3_11_both_ends_must_allow() {
    let mut cluster = always();
    let connect = |cluster: &mut Cluster| cluster.connect("kube-system/hubble-ui", "kube-system/hubble-relay", 4245);
    cluster.apply(&["kind-always/04-hubble-ui.yaml", "kind-always/03-hubble-relay.yaml"]);
    assert_eq!(connect(&mut cluster), "egress");
    let both = data("kind-always/05-hubble-ui-and-hubble-relay.yaml");
    for (document, expected) in both.iter().zip(["ingress", "ok"]) {
        let policy =
            PolicyObject::from_value(&document.value, &document.source, &Settings::default()).expect("a policy");
        let change = cluster.repository.upsert_policy(policy);
        cluster.take(change);
        assert_eq!(connect(&mut cluster), expected);
    }
}

#[test]
fn e3_15_a_policy_of_the_same_name_takes_the_place() {
    let mut cluster = always();
    cluster.apply(&[
        "kind-always/01-core-dns.yaml",
        "kind-always/02-local-path-provisioner.yaml",
        "kind-always/03-hubble-relay.yaml",
        "kind-always/04-hubble-ui.yaml",
        "kind-always/05-hubble-ui-and-hubble-relay.yaml",
        "kind-always/06-hubble-ui-and-core-dns.yaml",
    ]);
    assert_eq!(cluster.egress("kube-system/coredns", "world", 53), "none");
    assert_eq!(cluster.connect("kube-system/hubble-ui", "kube-system/coredns", 53), "ok");
    cluster.apply(&["kind-always/07-core-dns-world.yaml"]);
    let names: Vec<String> = cluster.repository.policies().map(|policy| policy.reference.name.clone()).collect();
    assert_eq!(names, ["core-dns", "hubble-relay", "hubble-ui", "local-path-provisioner"]);
    assert_eq!(cluster.egress("kube-system/coredns", "world", 53), "allow");
    assert_eq!(cluster.ingress("kube-system/other", "kube-system/coredns", 53), "none");
    assert_eq!(cluster.egress("kube-system/hubble-relay", "remote-node", 4244), "allow");
}

#[test]
fn e3_16_a_service_account_selects_whatever_the_labels() {
    let mut cluster = always();
    cluster.apply(&["kind-always/02-local-path-provisioner.yaml"]);
    for pod in ["local-path-storage/provisioner", "local-path-storage/twin"] {
        assert_eq!(cluster.egress(pod, "kube-apiserver", 6443), "allow", "{pod}");
    }
}

fn bookinfo() -> Cluster {
    Cluster::default_mode()
        .pod("default/productpage", &["app=productpage", "version=v1"])
        .pod("default/details", &["app=details", "version=v1"])
        .pod("default/ratings", &["app=ratings", "version=v1"])
        .pod("default/reviews-v1", &["app=reviews", "version=v1"])
        .pod("default/reviews-v2", &["app=reviews", "version=v2"])
        .pod("default/reviews-v3", &["app=reviews", "version=v3"])
        .pod("default/internal-client", &["app=internal-client"])
        .pod("kube-system/coredns", &["k8s-app=kube-dns"])
}

const REVIEWS: [&str; 3] = ["default/reviews-v1", "default/reviews-v2", "default/reviews-v3"];

#[test]
fn e4_03_without_policy_open_with_policy_only_what_it_lists() {
    let mut cluster = bookinfo();
    assert_eq!(cluster.connect("default/productpage", "default/reviews-v1", 9080), "ok");
    let (verdict, rules) = cluster.answer("default/productpage", Direction::Egress, "world", protocol::TCP, 80);
    assert_eq!((verdict, rules.id), ("allow", 0));
    cluster.apply(&["bookinfo/05-from-product-to-reviews-details-fig21.yaml"]);
    assert_eq!(cluster.connect("default/productpage", "default/details", 9080), "ok");
    assert_eq!(cluster.egress("default/productpage", "world", 80), "none");
    assert_eq!(cluster.enforced("default/productpage"), (false, true));
}

#[test]
fn e4_05_new_pods_are_covered_at_once() {
    let mut cluster = bookinfo();
    cluster.apply(&["bookinfo/05-from-product-to-reviews-details-fig21.yaml"]);
    assert_eq!(cluster.egress("default/productpage", "default/details", 9080), "allow");
    let mut cluster = cluster.pod("default/reviews-v4", &["app=reviews", "version=v4"]);
    assert_eq!(cluster.egress("default/productpage", "default/reviews-v4", 9080), "allow");
}

#[test]
fn e4_11_an_empty_egress_rule_denies_everything() {
    let mut cluster = bookinfo();
    cluster.apply(&["bookinfo/01-productpage-deny-all-fig5.yaml"]);
    for peer in ["default/details", "kube-system/coredns", "world", "host", "kube-apiserver"] {
        assert_eq!(cluster.egress("default/productpage", peer, 9080), "none", "{peer}");
        assert_eq!(cluster.egress_by("default/productpage", peer, protocol::UDP, DNS), "none", "{peer}");
    }
    assert_eq!(cluster.ingress("default/internal-client", "default/productpage", 9080), "allow");
    let policy = cluster.repository.policies().next().expect("the policy");
    assert!(policy.warnings[0].to_string().contains("an empty rule allows nothing"), "{:?}", policy.warnings);
}

#[test]
fn e4_15_dns_is_allowed_and_nothing_else() {
    let mut cluster = bookinfo();
    cluster.apply(&["bookinfo/02-productpage-deny-all-fig13.yaml", "bookinfo/03-allow-to-dns-fig17.yaml"]);
    for proto in [protocol::UDP, protocol::TCP, protocol::SCTP] {
        assert_eq!(cluster.egress_by("default/productpage", "kube-system/coredns", proto, DNS), "allow");
    }
    assert_eq!(cluster.egress_by("default/productpage", "kube-system/coredns", protocol::UDP, 54), "none");
    for peer in REVIEWS.iter().chain(&["default/details"]) {
        assert_eq!(cluster.egress("default/productpage", peer, 9080), "none", "{peer}");
    }
}

#[test]
fn e4_19_reviews_and_details_are_allowed_and_ratings_is_not() {
    let mut cluster = bookinfo();
    cluster.apply(&[
        "bookinfo/02-productpage-deny-all-fig13.yaml",
        "bookinfo/03-allow-to-dns-fig17.yaml",
        "bookinfo/05-from-product-to-reviews-details-fig21.yaml",
    ]);
    for peer in REVIEWS.iter().chain(&["default/details"]) {
        assert_eq!(cluster.connect("default/productpage", peer, 9080), "ok", "{peer}");
    }
    assert_eq!(cluster.connect("default/productpage", "default/ratings", 9080), "egress");
    let (_, rules) = cluster.answer("default/productpage", Direction::Egress, "default/details", protocol::TCP, 9080);
    assert_eq!(rules.rules.len(), 1);
    assert_eq!(rules.rules[0].to_string(), "CiliumNetworkPolicy default/from-product-to-reviews-details egress[1]");
}

#[test]
fn e4_20_pods_that_are_not_selected_keep_all_traffic() {
    let mut cluster = bookinfo();
    cluster.apply(&[
        "bookinfo/02-productpage-deny-all-fig13.yaml",
        "bookinfo/05-from-product-to-reviews-details-fig21.yaml",
    ]);
    for pod in REVIEWS {
        assert_eq!(cluster.connect(pod, "default/ratings", 9080), "ok");
        assert_eq!(cluster.enforced(pod), (false, false));
    }
}

#[test]
fn e4_25_learned_addresses_of_a_name_are_allowed() {
    let mut cluster = bookinfo();
    cluster.apply(&["bookinfo/06-from-internal-client-to-fqdn-fig23.yaml"]);
    assert_eq!(cluster.egress("default/internal-client", "34.117.118.44", 80), "none");
    assert_eq!(cluster.egress("default/internal-client", "default/productpage", 9080), "none");
    let name = policy::Learned::Name("ifconfig.me".to_owned());
    assert!(cluster.repository.learned().any(|one| *one == name));
    cluster.learn("34.117.118.44", &["ifconfig.me"]);
    assert_eq!(cluster.egress("default/internal-client", "34.117.118.44", 80), "allow");
    assert_eq!(cluster.egress("default/internal-client", "151.101.3.5", 80), "none");
    cluster.learn("34.117.118.44", &[]);
    assert_eq!(cluster.egress("default/internal-client", "34.117.118.44", 80), "none");
}
