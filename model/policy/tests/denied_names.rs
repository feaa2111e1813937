//! What does a denial by name keep out, and what does it leave alone?

#[path = "support/cluster.rs"]
mod support;

use policy::{Direction, Parser, Redirect, Settings, protocol};
use support::{Cluster, read, wrong};

fn cnp(name: &str, rules: &str) -> String {
    format!(
        "{{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {{name: {name}, namespace: a}}, spec: {{endpointSelector: {{matchLabels: {{app: web}}}}, {rules}}}}}"
    )
}

fn cluster(rules: &[&str]) -> Cluster {
    let mut cluster = Cluster::default_mode().pod("a/web", &["app=web"]).pod("a/db", &["app=db"]);
    for (at, rules) in rules.iter().enumerate() {
        cluster.apply_text(&cnp(&format!("p{at}"), rules));
    }
    cluster
}

const DNS: &str = "egress: [{toEndpoints: [{}], toPorts: [{ports: [{port: \"53\", protocol: ANY}], rules: {dns: [{matchPattern: \"*\"}]}}]}]";
const ALLOW: &str = "egress: [{toFQDNs: [{matchPattern: \"*.example\"}]}]";
const DENY: &str = "egressDeny: [{toFQDNs: [{matchName: evil.example}]}]";

/// What the proxy is told of DNS.
fn questions(cluster: &mut Cluster) -> Vec<Redirect> {
    let (_, set) = cluster.answer("a/web", Direction::Egress, "a/db", protocol::UDP, 53);
    set.redirects.iter().map(|one| Redirect::clone(one)).collect()
}

#[test]
fn addresses_of_denied_names_are_denied_before_anything_allows_them() {
    let mut cluster = cluster(&[ALLOW, DENY, "egress: [{toCIDR: [192.0.2.0/24]}]"]);
    cluster.learn("192.0.2.1", &["*.example"]);
    cluster.learn("192.0.2.2", &["*.example", "evil.example"]);
    cluster.learn("198.51.100.1", &["evil.example"]);
    assert_eq!(cluster.egress("a/web", "192.0.2.1", 443), "allow");
    for address in ["192.0.2.2", "198.51.100.1"] {
        let (verdict, rules) = cluster.answer("a/web", Direction::Egress, address, protocol::TCP, 443);
        assert_eq!(verdict, "deny", "{address}");
        assert_eq!(rules.rules[0].to_string(), "CiliumNetworkPolicy a/p1 egressDeny[0]");
    }
    assert_eq!(cluster.egress("a/web", "192.0.2.3", 443), "allow", "nobody learned it for the name");
    assert_eq!(cluster.egress("a/web", "a/db", 443), "none");
}

#[test]
fn an_address_that_an_allowed_name_shares_with_a_denied_one_is_denied_until_it_is_the_denied_one_s_no_more() {
    let mut cluster = cluster(&["egress: [{toFQDNs: [{matchName: good.example}]}]", DENY]);
    cluster.learn("192.0.2.1", &["good.example"]);
    assert_eq!(cluster.egress("a/web", "192.0.2.1", 80), "allow");
    cluster.learn("192.0.2.1", &["good.example", "evil.example"]);
    assert_eq!(cluster.egress("a/web", "192.0.2.1", 80), "deny");
    cluster.learn("192.0.2.1", &["good.example"]);
    assert_eq!(cluster.egress("a/web", "192.0.2.1", 80), "allow");
}

#[test]
fn denials_by_name_close_their_direction_and_hold_on_their_ports_alone() {
    let ports = "egressDeny: [{toFQDNs: [{matchName: evil.example}], toPorts: [{ports: [{port: \"443\"}]}]}]";
    let mut cluster = cluster(&[DENY]);
    assert_eq!(cluster.enforced("a/web"), (false, true));
    let mut open = self::cluster(&[ports, "egress: [{toEntities: [all]}]"]);
    open.learn("192.0.2.1", &["evil.example"]);
    assert_eq!(open.egress("a/web", "192.0.2.1", 443), "deny");
    assert_eq!(open.egress("a/web", "192.0.2.1", 80), "allow");
    assert_eq!(cluster.egress("a/db", "192.0.2.1", 443), "allow", "other pods are not meant");
}

#[test]
fn questions_for_names_that_are_denied_on_all_ports_are_refused() {
    let mut cluster = cluster(&[DNS, DENY, "egressDeny: [{toFQDNs: [{matchPattern: \"*.bad.example\"}]}]"]);
    let asked = questions(&mut cluster);
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].parser, Parser::Dns);
    assert_eq!(asked[0].denied_names.iter().collect::<Vec<_>>(), ["*.bad.example", "evil.example"]);
    assert!(!asked[0].is_open());
    // Where the addresses are denied on some ports, they have to be known.
    let ports = "egressDeny: [{toFQDNs: [{matchName: evil.example}], toPorts: [{ports: [{port: \"443\"}]}]}]";
    let asked = questions(&mut self::cluster(&[DNS, ports]));
    assert!(asked[0].denied_names.is_empty());
    // What others may not ask is not this pod's.
    let other = "{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: o, namespace: a}, spec: {endpointSelector: {matchLabels: {app: db}}, egressDeny: [{toFQDNs: [{matchName: evil.example}]}]}}";
    let mut cluster = self::cluster(&[DNS]);
    cluster.apply_text(other);
    assert!(questions(&mut cluster)[0].denied_names.is_empty());
}

#[test]
fn denials_by_name_stand_alone_in_their_rule() {
    let both = "egressDeny: [{toFQDNs: [{matchName: evil.example}], toCIDR: [192.0.2.0/24]}]";
    assert!(wrong(&cnp("p", both))[0].contains("combining ToCIDR and ToFQDNs is not supported yet"));
    let none = "egressDeny: [{toFQDNs: [{}]}]";
    assert!(wrong(&cnp("p", none)).iter().any(|line| line.contains("matchName")), "{:?}", wrong(&cnp("p", none)));
}

#[test]
fn denials_by_name_without_a_dns_rule_are_warned_of() {
    let warnings = |rules: &str| {
        let policies = read(&cnp("p", rules), &Settings::default()).expect("a good policy");
        policies[0].warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let found = warnings(DENY);
    assert!(found.len() == 1 && found[0].contains("nothing is denied"), "{found:?}");
    assert_eq!(warnings(&format!("{DNS}, {DENY}")), Vec::<String>::new());
}
