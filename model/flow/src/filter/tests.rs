//! Table of filters and flows: which match?
#![allow(clippy::unwrap_used)]

use super::*;
use crate::proto::flow::{
    CiliumEventType, Dns, DropReason, Endpoint, EventTypeFilter, Http, HttpHeader, IcmPv6, Ip, IpVersion, Layer4,
    Layer7, NetworkInterface, Service, Tcp, TrafficDirection, Udp, Workload,
};
use crate::wkt::BoolValue;

fn endpoint(identity: u32, namespace: &str, pod: &str, labels: &[&str]) -> Endpoint {
    Endpoint {
        identity,
        namespace: namespace.into(),
        pod_name: pod.into(),
        labels: labels.iter().map(|label| (*label).to_owned()).collect(),
        cluster_name: "kind".into(),
        workloads: vec![Workload { name: "web".into(), kind: "Deployment".into() }],
        ..Endpoint::default()
    }
}

/// A SYN from default/client-1 to kube-system/coredns-a.
fn syn() -> Flow {
    let flags = TcpFlags { syn: true, ..TcpFlags::default() };
    let tcp = Tcp { source_port: 40000, destination_port: 80, flags: Some(flags) };
    Flow {
        uuid: "u-1".into(),
        verdict: Verdict::Forwarded.into(),
        ip: Some(Ip {
            source: "10.0.1.7".into(),
            destination: "fd00::7".into(),
            ip_version: IpVersion::IPv4.into(),
            ..Ip::default()
        }),
        l4: Some(Layer4 { protocol: Some(Protocol::Tcp(tcp)) }),
        source: Some(endpoint(1000, "default", "client-1", &["k8s:app=client", "k8s:tier=front", "reserved:x"])),
        destination: Some(endpoint(2000, "kube-system", "coredns-a", &["k8s:k8s-app=kube-dns", "cidr:1.0.0.0/8"])),
        destination_service: Some(Service { name: "kube-dns".into(), namespace: "kube-system".into() }),
        destination_names: vec!["www.cilium.io".into()],
        node_name: "kind/kind-worker".into(),
        node_labels: vec!["zone=a".into()],
        event_type: Some(CiliumEventType { r#type: 4, sub_type: 0 }),
        traffic_direction: TrafficDirection::Egress.into(),
        is_reply: Some(BoolValue { value: false }),
        interface: Some(NetworkInterface { index: 7, name: "eth0".into() }),
        ..Flow::default()
    }
}

fn dropped() -> Flow {
    Flow {
        verdict: Verdict::Dropped.into(),
        drop_reason_desc: DropReason::PolicyDenied.into(),
        is_reply: None,
        event_type: Some(CiliumEventType { r#type: 1, sub_type: 133 }),
        l4: Some(Layer4 { protocol: Some(Protocol::IcmPv6(IcmPv6 { r#type: 133, code: 0 })) }),
        ..syn()
    }
}

fn http_flow() -> Flow {
    let http = Http {
        code: 404,
        method: "GET".into(),
        url: "http://a.b:80/page/12?x=1".into(),
        headers: vec![HttpHeader { key: "foo".into(), value: "bar".into() }],
        ..Http::default()
    };
    Flow { l7: Some(Layer7 { record: Some(Record::Http(http)), ..Layer7::default() }), ..syn() }
}

fn dns_flow() -> Flow {
    let dns = Dns { query: "cnn.com.".into(), ..Dns::default() };
    Flow {
        l7: Some(Layer7 { record: Some(Record::Dns(dns)), ..Layer7::default() }),
        l4: Some(Layer4 { protocol: Some(Protocol::Udp(Udp { source_port: 1, destination_port: 53 })) }),
        ..syn()
    }
}

/// The filter is written as users write it with `--allowlist`.
#[track_caller]
fn check(filter: &str, flow: &Flow, expected: bool) {
    let filter: FlowFilter = serde_json::from_str(filter).unwrap();
    assert_eq!(Filter::new(&filter).unwrap().matches(flow), expected, "{filter:?}");
}

#[track_caller]
fn check_all(cases: &[(&str, bool)], flow: &Flow) {
    for (filter, expected) in cases {
        check(filter, flow, *expected);
    }
}

#[test]
fn names_are_prefixes_within_a_namespace() {
    check_all(
        &[
            (r#"{"source_pod":["client"]}"#, true),
            (r#"{"source_pod":["default/client-1"]}"#, true),
            (r#"{"source_pod":["default/"]}"#, true),
            (r#"{"source_pod":["/cli"]}"#, true),
            (r#"{"source_pod":["other/client"]}"#, false),
            (r#"{"source_pod":["lient"]}"#, false),
            (r#"{"destination_pod":["coredns"]}"#, false),
            (r#"{"destination_pod":["kube-system/coredns"]}"#, true),
            (r#"{"destination_pod":["nope","kube-system/"]}"#, true),
            (r#"{"destination_service":["kube-system/kube"]}"#, true),
            (r#"{"source_service":["kube-system/"]}"#, false),
            (r#"{"source_workload":[{"kind":"Deployment"}]}"#, true),
            (r#"{"source_workload":[{"kind":"Deployment","name":"db"}]}"#, false),
        ],
        &syn(),
    );
}

#[test]
fn addresses_ports_and_identities() {
    check_all(
        &[
            (r#"{"source_ip":["10.0.1.7"]}"#, true),
            (r#"{"source_ip":["10.0.1.70"]}"#, false),
            (r#"{"source_ip":["10.0.0.0/16"]}"#, true),
            (r#"{"destination_ip":["fd00::/64"]}"#, true),
            (r#"{"destination_ip":["FD00:0::7"]}"#, true),
            (r#"{"destination_ip":["10.0.0.0/8"]}"#, false),
            (r#"{"source_ip_xlated":["10.0.0.0/8"]}"#, false),
            (r#"{"destination_port":["80","443"]}"#, true),
            (r#"{"source_port":["80"]}"#, false),
            (r#"{"source_identity":[1000]}"#, true),
            (r#"{"destination_identity":[1000]}"#, false),
            (r#"{"source_cluster_name":["kind"]}"#, true),
            (r#"{"ip_version":["IPv4"]}"#, true),
            (r#"{"ip_version":["IPv6","IP_NOT_USED"]}"#, false),
        ],
        &syn(),
    );
    check(r#"{"destination_port":["0"]}"#, &dropped(), false);
    check(r#"{"ip_version":["IP_NOT_USED"]}"#, &Flow { ip: None, ..syn() }, true);
}

#[test]
fn labels_by_kubernetes_selectors() {
    check_all(
        &[
            (r#"{"source_label":["app=client"]}"#, true),
            (r#"{"source_label":["k8s:app=client"]}"#, true),
            (r#"{"source_label":["any:app==client"]}"#, true),
            (r#"{"source_label":["reserved:app=client"]}"#, false),
            (r#"{"source_label":["reserved:x"]}"#, true),
            (r#"{"source_label":["app=client,tier=back"]}"#, false),
            (r#"{"source_label":["app=client,tier=back","app"]}"#, true),
            (r#"{"source_label":["app in (client, server), tier notin (back)"]}"#, true),
            (r#"{"source_label":["!k8s:nope"]}"#, true),
            (r#"{"source_label":["!app"]}"#, false),
            (r#"{"source_label":["app!=client"]}"#, false),
            (r#"{"source_label":["nope!=x"]}"#, true),
            (r#"{"node_labels":["zone=a"]}"#, true),
            (r#"{"node_labels":["zone=b"]}"#, false),
        ],
        &syn(),
    );
}

#[test]
fn names_of_nodes_and_the_world_by_patterns() {
    check_all(
        &[
            (r#"{"node_name":["kind-*"]}"#, true),
            (r#"{"node_name":["kind/kind-worker"]}"#, true),
            (r#"{"node_name":["kind/"]}"#, true),
            (r#"{"node_name":["other/"]}"#, false),
            (r#"{"node_name":["worker"]}"#, false),
            (r#"{"destination_fqdn":["*.cilium.io"]}"#, true),
            (r#"{"destination_fqdn":["WWW.cilium.io."]}"#, true),
            // A dot is a dot.
            (r#"{"destination_fqdn":["www.ciliumxio"]}"#, false),
            (r#"{"destination_fqdn":["wwwxcilium.io"]}"#, false),
            (r#"{"source_fqdn":["*"]}"#, false),
        ],
        &syn(),
    );
    check(r#"{"node_name":["default/a"]}"#, &Flow { node_name: "a".into(), ..syn() }, true);
}

#[test]
fn kinds_verdicts_and_directions() {
    check_all(
        &[
            (r#"{"verdict":["FORWARDED"]}"#, true),
            (r#"{"verdict":["DROPPED","AUDIT"]}"#, false),
            (r#"{"event_type":[{"type":4}]}"#, true),
            (r#"{"event_type":[{"type":4,"match_sub_type":true}]}"#, true),
            (r#"{"event_type":[{"type":4,"match_sub_type":true,"sub_type":3}]}"#, false),
            (r#"{"event_type":[{"type":1},{"type":5}]}"#, false),
            (r#"{"protocol":["TCP"]}"#, true),
            (r#"{"protocol":["icmp","udp"]}"#, false),
            (r#"{"tcp_flags":[{"SYN":true}]}"#, true),
            (r#"{"tcp_flags":[{"SYN":true,"ACK":true}]}"#, false),
            (r#"{"tcp_flags":[{"ACK":true},{"SYN":true}]}"#, true),
            (r#"{"traffic_direction":["EGRESS"]}"#, true),
            (r#"{"traffic_direction":["INGRESS"]}"#, false),
            (r#"{"reply":[false]}"#, true),
            (r#"{"reply":[true]}"#, false),
            (r#"{"encrypted":[false]}"#, true),
            (r#"{"encrypted":[true]}"#, false),
            (r#"{"interface":[{"name":"eth0"}]}"#, true),
            (r#"{"interface":[{"name":"eth0","index":8}]}"#, false),
            (r#"{"uuid":["u-1"]}"#, true),
            (r#"{"uuid":["u-2"]}"#, false),
            (r#"{"drop_reason_desc":["DROP_REASON_UNKNOWN"]}"#, false),
            (r#"{"ip_trace_id":["5"]}"#, false),
            (r#"{}"#, true),
        ],
        &syn(),
    );
    check_all(
        &[
            (r#"{"drop_reason_desc":["POLICY_DENIED"]}"#, true),
            (r#"{"reply":[false]}"#, true),
            (r#"{"protocol":["icmp"]}"#, true),
            (r#"{"protocol":["icmpv4"]}"#, false),
            (r#"{"tcp_flags":[{}]}"#, false),
        ],
        &dropped(),
    );
    check(r#"{"reply":[false]}"#, &Flow { is_reply: None, ..syn() }, false);
}

#[test]
fn requests_and_queries() {
    check_all(
        &[
            (r#"{"http_status_code":["404"]}"#, true),
            (r#"{"http_status_code":["4+"]}"#, true),
            (r#"{"http_status_code":["41+","5+"]}"#, false),
            (r#"{"http_method":["get"]}"#, true),
            (r#"{"http_path":["^/page/\\d+$"]}"#, true),
            (r#"{"http_path":["a.b"]}"#, false),
            (r#"{"http_url":["a\\.b:80"]}"#, true),
            (r#"{"http_header":[{"key":"foo","value":"bar"}]}"#, true),
            (r#"{"http_header":[{"key":"foo","value":"baz"}]}"#, false),
            (r#"{"protocol":["http"]}"#, true),
        ],
        &http_flow(),
    );
    check(r#"{"http_method":["get"]}"#, &syn(), false);
    check(r#"{"dns_query":["^cnn"]}"#, &dns_flow(), true);
    check(r#"{"dns_query":["^com"]}"#, &dns_flow(), false);
    check(r#"{"protocol":["dns"]}"#, &dns_flow(), true);
    let kafka = Some(Layer7 { record: Some(Record::Kafka(Default::default())), ..Layer7::default() });
    let kafka = Flow { l7: kafka, ..syn() };
    check(r#"{"protocol":["dns","kafka"]}"#, &kafka, true);
    check(r#"{"protocol":["kafka"]}"#, &http_flow(), false);
}

#[test]
fn all_fields_of_a_filter_and_any_filter_of_a_list() {
    check(r#"{"source_pod":["client"],"destination_port":["80"]}"#, &syn(), true);
    check(r#"{"source_pod":["client"],"destination_port":["81"]}"#, &syn(), false);

    let parse = |text: &str| -> Vec<FlowFilter> { serde_json::from_str(text).unwrap() };
    let pass = |allow: &str, deny: &str| Filters::new(&parse(allow), &parse(deny)).unwrap().pass(&syn());
    assert!(pass("[]", "[]"));
    assert!(pass(r#"[{"uuid":["no"]},{"uuid":["u-1"]}]"#, "[]"));
    assert!(!pass(r#"[{"uuid":["no"]}]"#, "[]"));
    assert!(!pass("[]", r#"[{"uuid":["no"]},{"uuid":["u-1"]}]"#));
    assert!(!pass(r#"[{"uuid":["u-1"]}]"#, r#"[{"destination_port":["80"]}]"#));
}

#[test]
fn wrong_filters_say_what_is_wrong() {
    for (filter, words) in [
        (r#"{"source_ip":["10.0.0"]}"#, "10.0.0"),
        (r#"{"source_ip":["10.0.0.0/33"]}"#, "prefix"),
        (r#"{"source_port":["65536"]}"#, "65536"),
        (r#"{"protocol":["tcpp"]}"#, "tcpp"),
        (r#"{"source_pod":[""]}"#, "empty"),
        (r#"{"source_cluster_name":[""]}"#, "empty"),
        (r#"{"node_name":["a/b/c"]}"#, "slashes"),
        (r#"{"node_name":[""]}"#, "empty"),
        (r#"{"source_fqdn":["a.."]}"#, "dots"),
        (r#"{"source_fqdn":["a(b"]}"#, "rune"),
        (r#"{"source_label":["a in b"]}"#, "expected"),
        (r#"{"source_label":["=b"]}"#, "key"),
        (r#"{"http_status_code":["600"]}"#, "600"),
        (r#"{"http_path":["("]}"#, "http path"),
        (r#"{"http_method":["GET"],"event_type":[{"type":1}]}"#, "l7"),
        (r#"{"experimental":{"cel_expression":["true"]}}"#, "CEL"),
    ] {
        let parsed: FlowFilter = serde_json::from_str(filter).unwrap();
        let error = Filter::new(&parsed).err().unwrap_or_else(|| panic!("{filter} was accepted")).to_string();
        assert!(error.contains(words), "{filter}: {error}");
    }
}

#[test]
fn types_of_events_can_be_filtered_for_http() {
    let filter = FlowFilter {
        http_method: vec!["GET".into()],
        event_type: vec![EventTypeFilter { r#type: 129, ..EventTypeFilter::default() }],
        ..FlowFilter::default()
    };
    assert!(Filter::new(&filter).is_ok());
}
