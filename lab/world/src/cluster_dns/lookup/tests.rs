//! Do names of the cluster have the answers that the scheme of names says?
#![allow(clippy::unwrap_used)]

use super::*;
use crate::cluster_dns::records::{service, slice};
use ResponseCode::{NXDomain, NoError};
use serde_json::{Value, from_value, json};

fn cluster() -> Cluster {
    let mut cluster = Cluster::new(Name::from_ascii("cluster.local").unwrap());
    cluster.set_namespace("shop");
    let mut add = |name: &str, spec: Value| {
        let key = Key { namespace: "shop".into(), name: name.into() };
        cluster.set_service(key, service(&from_value(json!({ "spec": spec })).unwrap()));
    };
    add(
        "web",
        json!({"clusterIP": "10.96.0.7", "ports": [{"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]}),
    );
    add("both", json!({"clusterIPs": ["10.96.0.8", "fd00:10:96::8"], "clusterIP": "10.96.0.8"}));
    add("db", json!({"clusterIP": "None", "ports": [{"name": "sql", "port": 5432}]}));
    add("empty", json!({"clusterIP": "None"}));
    add("news", json!({"type": "ExternalName", "externalName": "cnn.com"}));
    for (of, name, endpoints) in [
        ("db", "db-a", json!([{"addresses": ["10.244.1.5"], "hostname": "db-0"}, {"addresses": ["10.244.1.6"]}])),
        ("web", "web-a", json!([{"addresses": ["10.244.2.9"]}])),
    ] {
        let object = json!({"metadata": {"namespace": "shop", "labels": {"kubernetes.io/service-name": of}},
            "addressType": "IPv4", "endpoints": endpoints, "ports": [{"name": "sql", "port": 5432}]});
        let key = Key { namespace: "shop".into(), name: name.into() };
        cluster.set_slice(key, slice(&from_value(object).unwrap()));
    }
    cluster
}

fn ask(name: &str, kind: RecordType, turn: u16) -> Outcome {
    cluster().look_up(&Query::query(Name::from_ascii(name).unwrap(), kind), turn)
}

/// Name without the domain, type, outcome, data of the answers.
fn check(name: &str, kind: RecordType, code: ResponseCode, expected: &[&str]) {
    let full = format!("{name}.cluster.local.");
    let Outcome::Reply(reply) = ask(&full, kind, 0) else { panic!("{name} {kind} is not answered") };
    let data: Vec<String> = reply.answers.iter().map(|r| r.data.to_string()).collect();
    assert_eq!((reply.code, data), (code, expected.iter().map(|s| s.to_string()).collect()), "{name} {kind}");
    assert!(reply.authoritative && reply.answers.iter().all(|r| r.ttl == 30 && r.name.to_ascii() == full));
    let soa = reply.authorities.iter().any(|r| r.record_type() == RecordType::SOA);
    assert_eq!(soa, expected.is_empty(), "{name} {kind}");
}

#[test]
fn a_service_has_its_address() {
    check("web.shop.svc", RecordType::A, NoError, &["10.96.0.7"]);
    check("WEB.Shop.svc", RecordType::A, NoError, &["10.96.0.7"]);
    check("web.shop.svc", RecordType::AAAA, NoError, &[]);
    check("both.shop.svc", RecordType::AAAA, NoError, &["fd00:10:96::8"]);
    check("web.shop.svc", RecordType::MX, NoError, &[]);
}

#[test]
fn what_is_not_there_does_not_exist() {
    for name in [
        "cart.shop.svc",
        "web.market.svc",
        "market.svc",
        "cnn.com.shop.svc",
        "cnn.com.svc",
        "cnn.com",
        "web.shop",
        "empty.shop.svc",
        "x.y.z.web.shop.svc",
        "http.tcp.web.shop.svc",
        "_https._tcp.web.shop.svc",
        "nobody.db.shop.svc",
    ] {
        check(name, RecordType::A, NXDomain, &[]);
    }
    for name in ["shop.svc", "svc", "pod", "shop.pod"] {
        check(name, RecordType::A, NoError, &[]);
    }
}

#[test]
fn a_headless_service_has_the_addresses_of_its_endpoints() {
    check("db.shop.svc", RecordType::A, NoError, &["10.244.1.5", "10.244.1.6"]);
    check("db-0.db.shop.svc", RecordType::A, NoError, &["10.244.1.5"]);
    check("10-244-1-6.db.shop.svc", RecordType::A, NoError, &["10.244.1.6"]);
    check("10-244-2-9.web.shop.svc", RecordType::A, NoError, &["10.244.2.9"]);
    check("10-244-1-5.db.shop.svc", RecordType::A, NXDomain, &[]);
}

#[test]
fn another_address_comes_first_at_each_turn() {
    let Outcome::Reply(reply) = ask("db.shop.svc.cluster.local.", RecordType::A, 3) else { panic!() };
    assert_eq!(reply.answers[0].data.to_string(), "10.244.1.6");
}

#[test]
fn ports_have_names() {
    check("_http._tcp.web.shop.svc", RecordType::SRV, NoError, &["0 100 80 web.shop.svc.cluster.local."]);
    check("_dns._udp.web.shop.svc", RecordType::SRV, NoError, &["0 100 53 web.shop.svc.cluster.local."]);
    check("_dns._tcp.web.shop.svc", RecordType::SRV, NXDomain, &[]);
    check("_http._tcp.web.shop.svc", RecordType::A, NoError, &["10.96.0.7"]);
    let both = ["0 50 5432 db-0.db.shop.svc.cluster.local.", "0 50 5432 10-244-1-6.db.shop.svc.cluster.local."];
    check("_sql._tcp.db.shop.svc", RecordType::SRV, NoError, &both);
    check("db.shop.svc", RecordType::SRV, NoError, &both);
    check("both.shop.svc", RecordType::SRV, NoError, &[]);
    let Outcome::Reply(reply) = ask("db.shop.svc.cluster.local.", RecordType::SRV, 0) else { panic!() };
    assert_eq!(reply.additionals.len(), 2);
}

#[test]
fn any_address_has_a_name_as_a_pod() {
    check("10-244-1-99.shop.pod", RecordType::A, NoError, &["10.244.1.99"]);
    check("fd00--9.shop.pod", RecordType::AAAA, NoError, &["fd00::9"]);
    check("10-244-1-99.shop.pod", RecordType::AAAA, NoError, &[]);
    check("10-244-1-99.market.pod", RecordType::A, NXDomain, &[]);
    check("10-244-1.shop.pod", RecordType::A, NXDomain, &[]);
}

#[test]
fn addresses_have_names() {
    let names = |name: &str| match ask(name, RecordType::PTR, 0) {
        Outcome::Reply(reply) => reply.answers.iter().map(|r| r.data.to_string()).collect(),
        other => vec![format!("{other:?}")],
    };
    assert_eq!(names("7.0.96.10.in-addr.arpa."), ["web.shop.svc.cluster.local."]);
    assert_eq!(names("5.1.244.10.in-addr.arpa."), ["db-0.db.shop.svc.cluster.local."]);
    let v6 = Name::from("fd00:10:96::8".parse::<IpAddr>().unwrap()).to_ascii();
    assert_eq!(names(&v6), ["both.shop.svc.cluster.local."]);
    assert_eq!(names("1.1.1.1.in-addr.arpa."), ["Elsewhere"]);
    assert_eq!(names("96.10.in-addr.arpa."), ["Elsewhere"]);
}

#[test]
fn an_alias_leads_to_the_name_that_it_stands_for() {
    let Outcome::Alias(reply, target) = ask("news.shop.svc.cluster.local.", RecordType::AAAA, 0) else { panic!() };
    assert_eq!((target.to_ascii().as_str(), reply.answers.len()), ("cnn.com.", 1));
    check("news.shop.svc", RecordType::CNAME, NoError, &["cnn.com."]);
    check("_x._tcp.news.shop.svc", RecordType::A, NXDomain, &[]);
}

#[test]
fn the_domain_itself_and_the_rest_of_the_world() {
    check("dns-version", RecordType::TXT, NoError, &["1.1.0"]);
    for name in ["cnn.com.", "local.", "notcluster.local.", "."] {
        assert_eq!(ask(name, RecordType::A, 0), Outcome::Elsewhere, "{name}");
    }
    let Outcome::Reply(reply) = ask("cluster.local.", RecordType::SOA, 0) else { panic!() };
    assert!(reply.answers[0].to_string().contains("ns.dns.cluster.local. hostmaster.cluster.local."), "{reply:?}");
}
