//! Do requests to Kafka brokers pass where rules allow them, and are others answered as a broker would?

mod broker;
mod faults;
mod tls;

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::*;
use proxy_api::*;
use rskafka::BackoffConfig;
use rskafka::chrono::DateTime;
use rskafka::client::partition::{Compression, UnknownTopicHandling};
use rskafka::client::{ClientBuilder, error::Error, error::ProtocolError};
use rskafka::record::Record as KafkaRecord;

use crate::harness::*;
use broker::*;

pub fn kafka_rules(rules: &str) -> RuleSet {
    RuleSet { kafka: Some(serde_json::from_str(rules).unwrap()), ..RuleSet::open(1, Parser::Kafka) }
}

/// A broker, and a proxy before it.
fn before(rules: &str) -> (Broker, Proxy) {
    let broker = Broker::default();
    let proxy = Proxy::new(broker.listen(), vec![kafka_rules(rules)]);
    broker.is_known_as(proxy.address);
    (broker, proxy)
}

const ORDERS: &str = r#"[{"role": "produce", "topic": "orders"}, {"role": "consume", "topic": "orders"}]"#;

fn produce(topics: &[&str], acks: i16) -> ProduceRequest {
    use produce_request::{PartitionProduceData, TopicProduceData};
    let partition = || PartitionProduceData::default().with_records(Some(Bytes::from_static(b"records")));
    let data = topics
        .iter()
        .map(|name| TopicProduceData::default().with_name(topic(name)).with_partition_data(vec![partition()]));
    ProduceRequest::default().with_acks(acks).with_topic_data(data.collect())
}

fn fetch(topics: &[&str]) -> FetchRequest {
    use fetch_request::{FetchPartition, FetchTopic};
    let topics = topics
        .iter()
        .map(|name| FetchTopic::default().with_topic(topic(name)).with_partitions(vec![FetchPartition::default()]));
    FetchRequest::default().with_topics(topics.collect())
}

/// Correlation and error of each partition of the next answer to a Produce request.
fn produced(client: &mut impl std::io::Read, version: i16) -> (i32, Vec<i16>) {
    let (correlation, answer): (i32, ProduceResponse) = answer(client, version);
    let partitions = answer.responses.iter().flat_map(|topic| &topic.partition_responses);
    (correlation, partitions.map(|one| one.error_code).collect())
}

/// What a Kafka client of the field makes of it.
#[test]
fn a_client_writes_and_reads_what_it_may_and_learns_what_it_may_not() {
    let (broker, proxy) = before(
        r#"[{"role": "produce", "topic": "orders"}, {"role": "consume", "topic": "orders"}, {"apiKey": "metadata"}]"#,
    );
    proxy.block_on(async {
        let patience = BackoffConfig { deadline: Some(Duration::from_secs(5)), ..BackoffConfig::default() };
        let client =
            ClientBuilder::new(vec![proxy.address.to_string()]).backoff_config(patience).build().await.unwrap();
        let orders = client.partition_client("orders", 0, UnknownTopicHandling::Error).await.unwrap();
        let secrets = client.partition_client("secrets", 0, UnknownTopicHandling::Error).await.unwrap();
        let record = |value: &str| KafkaRecord {
            key: None,
            value: Some(value.as_bytes().to_vec()),
            headers: Default::default(),
            timestamp: DateTime::UNIX_EPOCH,
        };
        let is_denied = |error: Error| match error {
            Error::ServerError { protocol_error, .. } => {
                assert_eq!(protocol_error, ProtocolError::TopicAuthorizationFailed);
            }
            other => panic!("{other}"),
        };
        let offsets = orders.produce(vec![record("a book")], Compression::NoCompression).await.unwrap();
        assert_eq!(offsets, [0]);
        is_denied(secrets.produce(vec![record("a leak")], Compression::NoCompression).await.unwrap_err());
        is_denied(secrets.fetch_records(0, 1..1_000, 10).await.unwrap_err());
        let (records, _) = orders.fetch_records(0, 1..1_000, 10).await.unwrap();
        assert_eq!(records[0].record.value.as_deref(), Some(&b"a book"[..]));
    });
    assert_eq!((broker.batches("orders"), broker.batches("secrets")), (1, 0));
    let heard = broker.heard();
    assert_eq!(heard.iter().filter(|(key, _)| *key == ApiKey::Fetch).count(), 1, "{heard:?}");
}

#[test]
fn answers_come_in_the_order_of_requests_whoever_gives_them() {
    let (broker, proxy) = before(ORDERS);
    let mut client = proxy.client();
    // All at once, the last one in two pieces.
    let requests = [
        request(ApiKey::Produce, 9, 10, &produce(&["orders"], -1)),
        request(ApiKey::Produce, 9, 11, &produce(&["secrets"], -1)),
        request(ApiKey::Produce, 9, 12, &produce(&["orders"], 0)),
        request(ApiKey::Produce, 3, 13, &produce(&["orders", "secrets"], 1)),
        request(ApiKey::Heartbeat, 4, 14, &HeartbeatRequest::default()),
        request(ApiKey::Produce, 12, 15, &produce(&["orders", "orders"], 1)),
    ]
    .concat();
    let (first, second) = requests.split_at(requests.len() - 9);
    client.write(first);
    assert_eq!(produced(&mut client, 9), (10, vec![0]));
    client.write(second);
    assert_eq!(produced(&mut client, 9), (11, vec![29]));
    assert_eq!(produced(&mut client, 3), (13, vec![29, 29]), "one topic that is not allowed denies all");
    assert_eq!(answer::<HeartbeatResponse>(&mut client, 4).0, 14);
    assert_eq!(produced(&mut client, 12), (15, vec![0, 0]));
    assert_eq!(broker.batches("orders"), 4, "the one without an answer, too");
    assert_eq!(broker.batches("secrets"), 0);
}

#[test]
fn a_change_of_policy_holds_for_the_next_request_to_kafka() {
    let (broker, proxy) = before(ORDERS);
    let mut client = proxy.client();
    let mut ask = |number| {
        client.write(request(ApiKey::Produce, 9, number, &produce(&["orders"], 1)));
        produced(&mut client, 9)
    };
    assert_eq!(ask(1), (1, vec![0]));
    proxy.set(vec![kafka_rules(r#"[{"role": "consume", "topic": "orders"}]"#)]);
    assert_eq!(ask(2), (2, vec![29]));
    proxy.set(vec![RuleSet::open(1, Parser::Kafka)]);
    assert_eq!(ask(3), (3, vec![0]));
    assert_eq!(broker.batches("orders"), 2);
    proxy.set(vec![http_rules(1, "[{}]")]);
    client.write(request(ApiKey::Produce, 9, 4, &produce(&["orders"], 1)));
    assert!(client.is_reset(), "the rules are for HTTP now");
}

#[test]
fn clients_are_told_of_versions_that_name_topics() {
    let (_, proxy) = before(ORDERS);
    let mut client = proxy.client();
    for version in 0..=4 {
        client.write(request(ApiKey::ApiVersions, version, 7, &ApiVersionsRequest::default()));
        let (correlation, answer): (i32, ApiVersionsResponse) = answer(&mut client, version);
        let of = |key: ApiKey| answer.api_keys.iter().find(|one| one.api_key == key as i16).unwrap().max_version;
        assert_eq!((correlation, of(ApiKey::Fetch), of(ApiKey::Produce), of(ApiKey::Metadata)), (7, 12, 12, 13));
    }
}

#[test]
fn a_fetch_session_is_not_begun_and_one_that_is_there_is_begun_anew() {
    let (broker, proxy) = before(ORDERS);
    let mut client = proxy.client();
    let first = fetch(&["orders"]).with_session_epoch(0);
    client.write(request(ApiKey::Fetch, 11, 1, &first));
    assert_eq!(answer::<FetchResponse>(&mut client, 11).0, 1);
    client.write(request(ApiKey::Fetch, 11, 2, &FetchRequest::default().with_session_id(9).with_session_epoch(4)));
    let (correlation, answer): (i32, FetchResponse) = answer(&mut client, 11);
    assert_eq!((correlation, answer.error_code), (2, 70));
    assert_eq!(broker.heard(), [(ApiKey::Fetch, 11)]);
}

#[test]
fn each_topic_of_a_request_is_told_of() {
    let (_, proxy) = before(ORDERS);
    let mut client = proxy.client();
    client.write(request(ApiKey::Produce, 9, 1, &produce(&["orders"], 1)));
    produced(&mut client, 9);
    client.write(request(ApiKey::Produce, 9, 2, &produce(&["orders", "secrets"], 1)));
    produced(&mut client, 9);
    let told: Vec<_> = proxy
        .records()
        .into_iter()
        .map(|record| {
            let Application::Kafka(kafka) = record.application else { panic!() };
            assert_eq!((kafka.api_key.as_str(), kafka.api_version), ("produce", 9));
            assert_eq!(kafka.latency.is_some(), record.kind == Kind::Response);
            (record.kind, record.verdict, kafka.correlation_id, kafka.topic, kafka.error_code)
        })
        .collect();
    let (orders, secrets) = ("orders".to_owned(), "secrets".to_owned());
    assert_eq!(
        told,
        [
            (Kind::Request, Verdict::Forwarded, 1, orders.clone(), None),
            (Kind::Response, Verdict::Forwarded, 1, orders.clone(), None),
            (Kind::Request, Verdict::Denied, 2, orders, Some(29)),
            (Kind::Request, Verdict::Denied, 2, secrets, Some(29)),
        ]
    );
    proxy.settings(|settings| settings.records = false);
    client.write(request(ApiKey::Produce, 9, 3, &produce(&["orders"], 1)));
    assert_eq!(produced(&mut client, 9).0, 3);
    assert!(proxy.records().is_empty());
}
