//! How do a proxy's records become flows?

use std::net::SocketAddr;
use std::sync::Arc;

use agent_api::MonitorEvent;
use flow::Directory;
use flow::proto::flow::{
    CiliumEventType, Dns, Flow, FlowType, Http, HttpHeader, Ip, IpVersion, L7FlowType, Layer4, Layer7, LostEventSource,
    Tcp, TrafficDirection, Udp, Verdict, layer4, layer7,
};
use flow::wkt::{BoolValue, Timestamp};
use hubble::Hubble;
use proxy_api::{Application, Direction, Kind, Party, Protocol, Record, Records};
use tokio::sync::broadcast;

use super::log_records::{canonical, log_record};
use super::tally::Tally;

/// Where records go.
pub struct Observer {
    hubble: Option<Hubble>,
    directory: Box<dyn Directory>,
    tally: Tally,
    monitors: broadcast::Sender<Arc<MonitorEvent>>,
}

impl Observer {
    /// Flows go to Hubble and to monitors, with the names of the directory; what is counted goes to the tally.
    pub fn new(
        hubble: Option<Hubble>,
        directory: Box<dyn Directory>,
        tally: Tally,
        monitors: broadcast::Sender<Arc<MonitorEvent>>,
    ) -> Self {
        Observer { hubble, directory, tally, monitors }
    }

    /// Takes records.
    pub fn observe(&self, records: &Records) {
        for record in &records.records {
            self.tally.counts().add(record);
            if self.monitors.receiver_count() > 0 {
                let log = Some(log_record(record, self.directory.as_ref()));
                // Nobody listens any more.
                let _ = self.monitors.send(Arc::new(MonitorEvent { log, ..MonitorEvent::default() }));
            }
            if let Some(hubble) = &self.hubble {
                hubble.push_flow(flow(record, self.directory.as_ref()));
            }
        }
        if let Some(hubble) = self.hubble.as_ref().filter(|_| records.lost > 0) {
            hubble.push_lost(LostEventSource::ObserverEventsQueue, records.lost);
        }
    }
}

/// Number of requests and answers among Cilium's event types.
const TYPE_L7: i32 = flow::decode::TYPE_L7;

/// The flow of a record. Of an answer it names the sender first, as of a packet.
fn flow(record: &Record, directory: &dyn Directory) -> Flow {
    let (from, to) = match record.kind {
        Kind::Request => (&record.source, &record.destination),
        Kind::Response => (&record.destination, &record.source),
    };
    let side = |party: &Party| flow::decode::party(party.address.ip(), party.identity, directory);
    let service = |party: &Party| directory.service(party.address.ip(), party.address.port());
    let (source, destination) = (side(from), side(to));
    let names = |asker: u32, of: &Party| {
        let names = directory.names(asker, of.address.ip());
        names.as_deref().unwrap_or_default().to_vec()
    };
    let reply = record.kind == Kind::Response;
    let mut flow = Flow {
        time: Some(Timestamp::from_nanos(i64::try_from(record.time).unwrap_or(i64::MAX))),
        verdict: match record.verdict {
            proxy_api::Verdict::Forwarded => Verdict::Forwarded,
            proxy_api::Verdict::Denied => Verdict::Dropped,
            proxy_api::Verdict::Error => Verdict::Error,
        }
        .into(),
        ip: Some(ip(from.address, to.address)),
        l4: Some(l4(record.protocol, from.address, to.address)),
        r#type: FlowType::L7.into(),
        node_labels: directory.node().labels.clone(),
        source_names: names(destination.id, from),
        destination_names: names(source.id, to),
        l7: Some(l7(record)),
        event_type: Some(CiliumEventType { r#type: TYPE_L7, sub_type: 0 }),
        source_service: service(from),
        destination_service: service(to),
        traffic_direction: match record.direction {
            Direction::Ingress => TrafficDirection::Ingress,
            Direction::Egress => TrafficDirection::Egress,
        }
        .into(),
        is_reply: Some(BoolValue::from(reply)),
        source: Some(source),
        destination: Some(destination),
        ..Flow::default()
    };
    #[allow(deprecated)]
    {
        flow.reply = reply;
        flow.summary = summary(record);
    }
    attribute(&mut flow, record, directory);
    flow
}

fn attribute(flow: &mut Flow, record: &Record, directory: &dyn Directory) {
    let Some(policies) = directory.policies(record.endpoint, record.rule_set) else { return };
    let policies = policies.to_vec();
    match (record.direction, record.verdict) {
        (Direction::Ingress, proxy_api::Verdict::Denied) => flow.ingress_denied_by = policies,
        (Direction::Egress, proxy_api::Verdict::Denied) => flow.egress_denied_by = policies,
        (Direction::Ingress, _) => flow.ingress_allowed_by = policies,
        (Direction::Egress, _) => flow.egress_allowed_by = policies,
    }
}

fn ip(from: SocketAddr, to: SocketAddr) -> Ip {
    let version = if from.is_ipv4() { IpVersion::IPv4 } else { IpVersion::IPv6 };
    Ip { source: from.ip().to_string(), destination: to.ip().to_string(), ip_version: version.into(), ..Ip::default() }
}

fn l4(protocol: Protocol, from: SocketAddr, to: SocketAddr) -> Layer4 {
    let (source_port, destination_port) = (u32::from(from.port()), u32::from(to.port()));
    let protocol = match protocol {
        Protocol::Tcp => layer4::Protocol::Tcp(Tcp { source_port, destination_port, flags: None }),
        Protocol::Udp => layer4::Protocol::Udp(Udp { source_port, destination_port }),
    };
    Layer4 { protocol: Some(protocol) }
}

fn l7(record: &Record) -> Layer7 {
    let kind = match record.kind {
        Kind::Request => L7FlowType::Request,
        Kind::Response => L7FlowType::Response,
    };
    let (latency, what) = match &record.application {
        Application::Http(http) => (http.latency, Some(layer7::Record::Http(of_http(http)))),
        Application::Kafka(kafka) => (kafka.latency, Some(layer7::Record::Kafka(of_kafka(kafka, record.kind)))),
        Application::Dns(dns) => (dns.latency, Some(layer7::Record::Dns(of_dns(dns, record.kind)))),
        Application::Tls(_) => (None, None),
    };
    Layer7 { r#type: kind.into(), latency_ns: latency.unwrap_or(0), record: what }
}

/// What was said in one line, as Hubble's clients print it.
fn summary(record: &Record) -> String {
    match (&record.application, record.kind) {
        (Application::Http(http), kind) => {
            let (protocol, request) = (&http.protocol, format!("{} {}", http.method, http.url));
            let milliseconds = http.latency.unwrap_or(0) / 1_000_000;
            match kind {
                Kind::Request => format!("{protocol} {request}"),
                Kind::Response => format!("{protocol} {} {milliseconds}ms ({request})", http.code.unwrap_or(0)),
            }
        }
        (Application::Kafka(kafka), kind) => {
            let proxy_api::Kafka { api_key, correlation_id, topic, .. } = kafka;
            let what = format!("{api_key} correlation id {correlation_id} topic '{topic}'");
            match kind {
                Kind::Request => format!("Kafka request {what}"),
                Kind::Response => format!("Kafka response {what} return code {}", kafka.error_code.unwrap_or(0)),
            }
        }
        (Application::Dns(dns), kind) => {
            let question = format!("{} {}", dns.query, dns::type_name(dns.query_type));
            match kind {
                Kind::Request => format!("DNS Query {question}"),
                Kind::Response => {
                    format!("DNS Answer {} TTL: {} (Proxy {question})", answer(dns), dns.ttl.unwrap_or(u32::MAX))
                }
            }
        }
        (Application::Tls(tls), _) => format!("TLS {}", tls.server_name.as_deref().unwrap_or("without a server name")),
    }
}

fn answer(dns: &proxy_api::Dns) -> String {
    let code = match dns.code.unwrap_or(0) {
        0 => None,
        1 => Some("Format Error".to_owned()),
        2 => Some("Server Failure".to_owned()),
        3 => Some("Non-Existent Domain".to_owned()),
        4 => Some("Not Implemented".to_owned()),
        5 => Some("Query Refused".to_owned()),
        other => Some(other.to_string()),
    };
    if let Some(code) = code {
        return format!("RCode: {code}");
    }
    let addresses: Vec<String> = dns.addresses.iter().map(ToString::to_string).collect();
    let parts = [("", addresses.join(",")), ("CNAMEs: ", dns.cnames.join(","))];
    let parts = parts.iter().filter(|(_, text)| !text.is_empty()).map(|(name, text)| format!("{name}{text:?}"));
    parts.collect::<Vec<_>>().join(" ")
}

fn of_http(http: &proxy_api::Http) -> Http {
    let headers = canonical(&http.headers).into_iter().map(|(key, value)| HttpHeader { key, value });
    Http {
        code: http.code.unwrap_or(0).into(),
        method: http.method.clone(),
        url: http.url.clone(),
        protocol: http.protocol.clone(),
        headers: headers.collect(),
    }
}

/// Errors are told of answers only, as Cilium had it.
fn of_kafka(kafka: &proxy_api::Kafka, kind: Kind) -> flow::proto::flow::Kafka {
    let error = if kind == Kind::Response { kafka.error_code } else { None };
    flow::proto::flow::Kafka {
        error_code: error.unwrap_or(0).into(),
        api_version: kafka.api_version.into(),
        api_key: kafka.api_key.clone(),
        correlation_id: kafka.correlation_id,
        topic: kafka.topic.clone(),
    }
}

/// An answer without records holds for ever, as Cilium has it.
fn of_dns(dns: &proxy_api::Dns, kind: Kind) -> Dns {
    let without = if kind == Kind::Response { u32::MAX } else { 0 };
    Dns {
        query: dns.query.to_string(),
        ips: dns.addresses.iter().map(ToString::to_string).collect(),
        ttl: dns.ttl.unwrap_or(without),
        cnames: dns.cnames.clone(),
        observation_source: "proxy".into(),
        rcode: dns.code.unwrap_or(0).into(),
        qtypes: vec![dns::type_name(dns.query_type)],
        rrtypes: dns.answer_types.iter().map(|number| dns::type_name(*number)).collect(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use super::*;

    struct Nobody;

    impl Directory for Nobody {
        fn node(&self) -> Arc<flow::Node> {
            Arc::default()
        }
        fn policies(&self, endpoint: u32, rule_set: u32) -> Option<Arc<[flow::proto::flow::Policy]>> {
            assert_eq!((endpoint, rule_set), (7, 9));
            Some(Arc::new([flow::proto::flow::Policy { name: "rule1".into(), ..Default::default() }]))
        }
    }

    pub fn record(kind: Kind, verdict: proxy_api::Verdict, application: Application) -> Record {
        let party = |identity, text: &str| Party { identity, address: text.parse().unwrap() };
        Record {
            time: 1,
            verdict,
            kind,
            endpoint: 7,
            direction: Direction::Ingress,
            rule_set: 9,
            protocol: Protocol::Tcp,
            source: party(1001, "10.0.1.11:4000"),
            destination: party(1002, "10.0.1.12:80"),
            info: String::new(),
            application,
        }
    }

    fn said(record: &Record) -> (String, Flow) {
        let flow = flow(record, &Nobody);
        #[allow(deprecated)]
        (flow.summary.clone(), flow)
    }

    #[test]
    fn requests_and_answers_look_as_hubble_s_clients_know_them() {
        let http = proxy_api::Http {
            method: "PUT".into(),
            url: "http://deathstar/v1/exhaust-port".into(),
            protocol: "HTTP/1.1".into(),
            ..Default::default()
        };
        let request = record(Kind::Request, proxy_api::Verdict::Denied, Application::Http(http.clone()));
        let (summary, flow) = said(&request);
        assert_eq!(summary, "HTTP/1.1 PUT http://deathstar/v1/exhaust-port");
        assert_eq!((flow.verdict(), flow.ingress_denied_by.len()), (Verdict::Dropped, 1));
        assert_eq!(flow.source.unwrap().identity, 1001);
        let answer = proxy_api::Http { code: Some(403), latency: Some(2_600_000), ..http };
        let (summary, flow) = said(&record(Kind::Response, proxy_api::Verdict::Forwarded, Application::Http(answer)));
        assert_eq!(summary, "HTTP/1.1 403 2ms (PUT http://deathstar/v1/exhaust-port)");
        assert_eq!(
            (flow.source.unwrap().identity, flow.is_reply.unwrap().value),
            (1002, true),
            "the sender comes first"
        );
    }

    #[test]
    fn requests_to_kafka_look_as_cilium_told_them() {
        let kafka = proxy_api::Kafka {
            api_key: "produce".into(),
            api_version: 7,
            correlation_id: 3,
            topic: "deathstar-plans".into(),
            error_code: Some(29),
            latency: Some(5),
        };
        let request = record(Kind::Request, proxy_api::Verdict::Denied, Application::Kafka(kafka.clone()));
        let (summary, flow) = said(&request);
        assert_eq!(summary, "Kafka request produce correlation id 3 topic 'deathstar-plans'");
        assert_eq!((flow.verdict(), flow.ingress_denied_by.len()), (Verdict::Dropped, 1));
        let Some(layer7::Record::Kafka(told)) = flow.l7.unwrap().record else { panic!() };
        assert_eq!((told.error_code, told.api_version, told.api_key.as_str()), (0, 7, "produce"));
        let answer = record(Kind::Response, proxy_api::Verdict::Forwarded, Application::Kafka(kafka));
        let (summary, flow) = said(&answer);
        assert_eq!(summary, "Kafka response produce correlation id 3 topic 'deathstar-plans' return code 29");
        assert_eq!((flow.l7.as_ref().unwrap().latency_ns, flow.is_reply.unwrap().value), (5, true));
    }

    #[test]
    fn names_and_addresses_are_told_with_their_time() {
        let dns = proxy_api::Dns {
            query: "example.com.".into(),
            query_type: 1,
            addresses: vec!["1.2.3.4".parse().unwrap(), "1.2.3.5".parse().unwrap()],
            ttl: Some(30),
            ..Default::default()
        };
        let answer = record(Kind::Response, proxy_api::Verdict::Forwarded, Application::Dns(dns.clone()));
        assert_eq!(said(&answer).0, "DNS Answer \"1.2.3.4,1.2.3.5\" TTL: 30 (Proxy example.com. A)");
        let dns = proxy_api::Dns { code: Some(5), ..dns };
        let refused = record(Kind::Response, proxy_api::Verdict::Forwarded, Application::Dns(dns));
        assert!(said(&refused).0.starts_with("DNS Answer RCode: Query Refused"));
    }

    #[test]
    fn monitors_are_told_what_was_said_and_by_whom() {
        let (monitors, mut told) = broadcast::channel(4);
        let observer = Observer::new(None, Box::new(Nobody), Tally::default(), monitors);
        let http = proxy_api::Http { headers: vec![("x-a".into(), "1".into())], ..Default::default() };
        let records = vec![record(Kind::Request, proxy_api::Verdict::Denied, Application::Http(http.clone()))];
        observer.observe(&Records { lost: 0, records });
        let log = told.try_recv().unwrap().log.clone().unwrap();
        assert_eq!((log.flow_type.as_str(), log.verdict.as_str()), ("Request", "Denied"));
        assert_eq!((log.source.identity, log.destination.identity), (1001, 1002));
        assert!(matches!(log.said, agent_api::Said::Http { headers, .. } if headers == [("X-A".into(), "1".into())]));
        let flow = said(&record(Kind::Request, proxy_api::Verdict::Forwarded, Application::Http(http))).1;
        let Some(layer7::Record::Http(http)) = flow.l7.unwrap().record else { panic!() };
        assert_eq!(http.headers[0].key, "X-A");
    }
}
