//! Are requests to Kafka judged inside TLS, and who gets nothing because of a certificate?

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, StreamOwned};

use super::*;
use crate::tls::{certificate, client_config, connect, server_config};

type Pem = (String, String);

/// A broker that speaks TLS.
fn behind_tls(broker: &Broker, config: ServerConfig) -> SocketAddr {
    let (broker, config) = (broker.clone(), Arc::new(config));
    server(move |peer| {
        let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
        broker.serve(&mut StreamOwned::new(connection, peer.0));
    })
}

fn ends_here(pem: &Pem) -> Option<TlsServer> {
    Some(TlsServer { certificates: pem.0.clone(), key: Hidden(pem.1.clone()), trusted: None })
}

fn begins_here(trusted: &Pem) -> Option<TlsClient> {
    Some(TlsClient { trusted: trusted.0.clone(), own: None })
}

fn open(proxy: &Proxy, config: ClientConfig) -> StreamOwned<ClientConnection, TcpStream> {
    connect(proxy.address, config, "kafka.example")
}

/// What comes for this request: the error of each partition. An error: the connection ended.
fn ask(client: &mut (impl Read + Write), topics: &[&str]) -> std::io::Result<Vec<i16>> {
    client.write_all(&request(ApiKey::Produce, 9, 1, &produce(topics, 1)))?;
    client.flush()?;
    let mut length = [0; 4];
    client.read_exact(&mut length)?;
    let mut rest = vec![0; usize::try_from(i32::from_be_bytes(length)).unwrap()];
    client.read_exact(&mut rest)?;
    Ok(produced(&mut [&length[..], &rest].concat().as_slice(), 9).1)
}

/// What was told of failures.
fn failures(proxy: &Proxy) -> Vec<String> {
    proxy.records().into_iter().filter(|one| one.verdict == Verdict::Error).map(|one| one.info).collect()
}

#[test]
fn kafka_inside_tls_is_judged_with_certificates_of_both_sides() {
    let (ours, theirs) = (certificate("kafka.example"), certificate("kafka.example"));
    let broker = Broker::default();
    let mut set = kafka_rules(ORDERS);
    set.server_names = vec!["kafka.example".into()];
    set.terminating_tls = ends_here(&ours);
    set.originating_tls = begins_here(&theirs);
    let proxy = Proxy::new(behind_tls(&broker, server_config(&theirs, None)), vec![set.clone()]);
    let mut client = open(&proxy, client_config(&ours.0, None));
    assert_eq!(ask(&mut client, &["orders"]).unwrap(), [0]);
    assert_eq!(ask(&mut client, &["secrets"]).unwrap(), [29]);
    // Several at once, the last one longer than a record of TLS.
    client.write_all(&request(ApiKey::Produce, 9, 2, &produce(&["orders"], 1))).unwrap();
    client.write_all(&request(ApiKey::Produce, 9, 3, &produce(&["orders", "secrets"], 1))).unwrap();
    client.write_all(&request(ApiKey::Produce, 9, 4, &faults::large("orders", 200 << 10))).unwrap();
    for (correlation, errors) in [(2, vec![0]), (3, vec![29, 29]), (4, vec![0])] {
        assert_eq!(produced(&mut client, 9), (correlation, errors));
    }
    assert_eq!((broker.batches("orders"), broker.batches("secrets")), (3, 0));
    // A change of rules counts inside, too; and rules without TLS are not for this connection.
    let changed = RuleSet { kafka: kafka_rules(r#"[{"role": "consume"}]"#).kafka, ..set.clone() };
    proxy.set(vec![changed]);
    assert_eq!(ask(&mut client, &["orders"]).unwrap(), [29]);
    proxy.set(vec![kafka_rules(ORDERS)]);
    ask(&mut client, &["orders"]).unwrap_err();
    assert_eq!(broker.batches("orders"), 3);
    // A name that is not listed, and a client that trusts somebody else.
    proxy.set(vec![set]);
    ask(&mut connect(proxy.address, client_config(&ours.0, None), "other.example"), &["orders"]).unwrap_err();
    ask(&mut open(&proxy, client_config(&theirs.0, None)), &["orders"]).unwrap_err();
    ask(&mut proxy.client(), &["orders"]).unwrap_err();
    assert_eq!(broker.batches("orders"), 3);
}

#[test]
fn a_broker_with_another_certificate_gets_nothing() {
    let (ours, theirs) = (certificate("kafka.example"), certificate("kafka.example"));
    let broker = Broker::default();
    let mut set = kafka_rules(ORDERS);
    set.terminating_tls = ends_here(&ours);
    set.originating_tls = begins_here(&ours);
    let proxy = Proxy::new(behind_tls(&broker, server_config(&theirs, None)), vec![set]);
    ask(&mut open(&proxy, client_config(&ours.0, None)), &["orders"]).unwrap_err();
    assert!(failures(&proxy)[0].starts_with("TLS with the server: "));
    assert!(broker.heard().is_empty());
}

#[test]
fn tls_of_kafka_ends_here_or_begins_here_alone() {
    let ours = certificate("kafka.example");
    let broker = Broker::default();
    let mut set = kafka_rules(ORDERS);
    set.terminating_tls = ends_here(&ours);
    let proxy = Proxy::new(broker.listen(), vec![set]);
    let mut client = open(&proxy, client_config(&ours.0, None));
    assert_eq!(ask(&mut client, &["orders"]).unwrap(), [0]);
    assert_eq!(ask(&mut client, &["secrets"]).unwrap(), [29]);
    drop(client);
    // Plain text here: nobody names the broker, whose certificate is for its address.
    let theirs = certificate("127.0.0.1");
    let mut set = kafka_rules(ORDERS);
    set.originating_tls = begins_here(&theirs);
    let proxy = Proxy::new(behind_tls(&broker, server_config(&theirs, None)), vec![set]);
    let mut client = proxy.client();
    assert_eq!(ask(&mut client, &["orders"]).unwrap(), [0]);
    assert_eq!(ask(&mut client, &["secrets"]).unwrap(), [29]);
    assert_eq!((broker.batches("orders"), broker.batches("secrets")), (2, 0));
    // A certificate for a name is none for the address.
    let mut set = kafka_rules(ORDERS);
    set.originating_tls = begins_here(&ours);
    let proxy = Proxy::new(behind_tls(&broker, server_config(&ours, None)), vec![set]);
    assert!(ask(&mut proxy.client(), &["orders"]).is_err());
    assert!(failures(&proxy)[0].starts_with("the broker cannot be reached: invalid peer certificate"));
    assert_eq!(broker.batches("orders"), 2);
}

#[test]
fn brokers_and_proxy_ask_for_certificates_of_clients() {
    let (ours, theirs) = (certificate("kafka.example"), certificate("kafka.example"));
    let (client, stranger) = (certificate("client"), certificate("client"));
    let broker = Broker::default();
    let address = behind_tls(&broker, server_config(&theirs, Some(&ours.0)));
    let mut set = kafka_rules(ORDERS);
    set.terminating_tls = ends_here(&ours);
    set.terminating_tls.as_mut().unwrap().trusted = Some(client.0.clone());
    set.originating_tls =
        Some(TlsClient { trusted: theirs.0.clone(), own: Some((ours.0.clone(), Hidden(ours.1.clone()))) });
    let proxy = Proxy::new(address, vec![set.clone()]);
    assert_eq!(ask(&mut open(&proxy, client_config(&ours.0, Some(&client))), &["orders"]).unwrap(), [0]);
    ask(&mut open(&proxy, client_config(&ours.0, Some(&stranger))), &["orders"]).unwrap_err();
    ask(&mut open(&proxy, client_config(&ours.0, None)), &["orders"]).unwrap_err();
    // The broker asks the proxy, which has none or another's.
    for own in [None, Some((stranger.0.clone(), Hidden(stranger.1.clone())))] {
        set.originating_tls = Some(TlsClient { trusted: theirs.0.clone(), own });
        proxy.set(vec![set.clone()]);
        ask(&mut open(&proxy, client_config(&ours.0, Some(&client))), &["orders"]).unwrap_err();
    }
    assert_eq!(broker.batches("orders"), 1);
}

#[test]
fn a_broker_without_tls_is_not_waited_for_for_long() {
    let ours = certificate("kafka.example");
    let broker = server(|mut peer| drop(peer.rest()));
    let mut set = kafka_rules(ORDERS);
    set.originating_tls = begins_here(&ours);
    let proxy = Proxy::new(broker, vec![set]);
    proxy.settings(|settings| settings.timeouts.head = 200);
    let started = std::time::Instant::now();
    assert!(ask(&mut proxy.client(), &["orders"]).is_err());
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(failures(&proxy), ["the broker cannot be reached: timed out"]);
}
