//! What becomes of frames that are none, of clients that are slow and of brokers that go astray?

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::*;

use super::*;

#[test]
fn lengths_that_are_none_end_the_connection() {
    let (broker, proxy) = before(ORDERS);
    for length in [-1i32, 0, 7, i32::MIN] {
        let mut client = proxy.client();
        client.write(length.to_be_bytes());
        assert!(client.is_reset(), "{length}");
    }
    // Longer than the limit, and about a topic.
    let mut client = proxy.client();
    let long = request(ApiKey::Produce, 9, 1, &produce(&["orders"], 1));
    client.write(i32::MAX.to_be_bytes());
    client.write(&long[4..]);
    client.write(vec![0; 200 << 10]);
    assert!(client.rest().is_empty());
    assert!(broker.heard().is_empty());
    let told = proxy.records();
    assert!(told.iter().any(|record| record.info.contains("longer than the limit")), "{told:?}");
}

#[test]
fn what_cannot_be_read_is_not_answered_and_does_not_go_on() {
    let (broker, proxy) = before(r#"[{"clientID": "test"}]"#);
    let cut = |mut bytes: Vec<u8>| {
        bytes.truncate(bytes.len() - 3);
        let length = i32::try_from(bytes.len() - 4).unwrap();
        bytes[..4].copy_from_slice(&length.to_be_bytes());
        bytes
    };
    let unknown = [&10i32.to_be_bytes()[..], &500i16.to_be_bytes(), &[0; 6], &[0xff; 2]].concat();
    let numbered = request(ApiKey::Fetch, 13, 1, &FetchRequest::default());
    for bytes in [cut(request(ApiKey::Produce, 9, 1, &produce(&["orders"], 1))), unknown, numbered] {
        let mut client = proxy.client();
        // What was asked before is answered, what comes after is not.
        client.write(request(ApiKey::Heartbeat, 3, 5, &HeartbeatRequest::default()));
        client.write(&bytes);
        client.write(request(ApiKey::Heartbeat, 3, 6, &HeartbeatRequest::default()));
        assert_eq!(answer::<HeartbeatResponse>(&mut client, 3).0, 5);
        assert!(client.rest().is_empty());
    }
    assert_eq!(broker.heard(), vec![(ApiKey::Heartbeat, 3); 3]);
}

#[test]
fn a_producer_that_wants_no_answer_learns_of_a_denial_by_the_end() {
    let (broker, proxy) = before(ORDERS);
    let mut client = proxy.client();
    client.write(request(ApiKey::Produce, 9, 1, &produce(&["orders"], 1)));
    client.write(request(ApiKey::Produce, 9, 2, &produce(&["secrets"], 0)));
    assert_eq!(produced(&mut client, 9), (1, vec![0]));
    assert!(client.rest().is_empty());
    assert_eq!(broker.batches("secrets"), 0);
}

/// Records of many bytes.
pub fn large(topic_name: &str, bytes: usize) -> ProduceRequest {
    use produce_request::{PartitionProduceData, TopicProduceData};
    let partition = PartitionProduceData::default().with_records(Some(Bytes::from(vec![7; bytes])));
    let topic = TopicProduceData::default().with_name(topic(topic_name)).with_partition_data(vec![partition]);
    ProduceRequest::default().with_acks(1).with_topic_data(vec![topic])
}

#[test]
fn long_requests_pass_whole_and_in_pieces() {
    let (broker, proxy) = before(ORDERS);
    let mut client = proxy.client();
    for (number, bytes) in [(1, 100), (2, 70 << 10), (3, 3 << 20), (4, 5)] {
        for piece in request(ApiKey::Produce, 9, number, &large("orders", bytes)).chunks(300_000) {
            client.write(piece);
        }
        assert_eq!(produced(&mut client, 9), (number, vec![0]));
    }
    assert_eq!(broker.batches("orders"), 4);
    assert_eq!(proxy.shared.kafka_room(), 256 << 10, "all room is given back");
    // Over the limit it passes only where nobody asks for topics.
    proxy.settings(|settings| settings.limits.kafka_request_bytes = 128 << 10);
    proxy.set(vec![kafka_rules(r#"[{"role": "produce"}]"#)]);
    client.write(request(ApiKey::Produce, 9, 5, &large("secrets", 2 << 20)));
    assert_eq!(produced(&mut client, 9), (5, vec![0]));
    proxy.set(vec![kafka_rules(ORDERS)]);
    client.write(request(ApiKey::Produce, 9, 6, &large("orders", 2 << 20)));
    assert!(client.rest().is_empty());
    assert_eq!((broker.batches("orders"), broker.batches("secrets")), (4, 1));
}

#[test]
fn half_a_request_is_waited_for_as_long_as_it_may_take() {
    let (broker, proxy) = before(ORDERS);
    proxy.settings(|settings| settings.timeouts.head = 200);
    let bytes = request(ApiKey::Produce, 9, 1, &produce(&["orders"], 1));
    for cut in [2, 4, 11, bytes.len() - 1] {
        let mut client = proxy.client();
        client.write(&bytes[..cut]);
        assert!(client.is_reset(), "{cut}");
    }
    // The client ends in the middle.
    let mut client = proxy.client();
    client.write(&bytes[..20]);
    client.end();
    assert!(client.rest().is_empty());
    assert!(broker.heard().is_empty());
}

#[test]
fn answers_of_a_broker_must_be_to_what_was_asked() {
    let heartbeat = |number| response(3, number, &HeartbeatResponse::default());
    let astray = [
        heartbeat(2),
        [&(-1i32).to_be_bytes()[..], &[0; 4]].concat(),
        [&3i32.to_be_bytes()[..], &[0; 4]].concat(),
        // The end in the middle of an answer, and before any.
        heartbeat(1)[..9].to_vec(),
        Vec::new(),
    ];
    for bytes in astray {
        let told = bytes.clone();
        let broker = server(move |mut peer| {
            frame(&mut peer);
            peer.write(&told);
        });
        let proxy = Proxy::new(broker, vec![kafka_rules(ORDERS)]);
        let mut client = proxy.client();
        client.write(request(ApiKey::Heartbeat, 3, 1, &HeartbeatRequest::default()));
        let mut all = Vec::new();
        let ended = std::io::Read::read_to_end(&mut client.0, &mut all);
        assert!(ended.is_err(), "{bytes:?}: the client knows that something is missing");
        assert!(all.len() < heartbeat(1).len());
    }
    // An answer that nobody asked for.
    let broker = server(move |mut peer| {
        frame(&mut peer);
        peer.write([heartbeat(1), heartbeat(2)].concat());
        peer.rest();
    });
    let proxy = Proxy::new(broker, vec![kafka_rules(ORDERS)]);
    let mut client = proxy.client();
    client.write(request(ApiKey::Heartbeat, 3, 1, &HeartbeatRequest::default()));
    assert!(client.rest().len() <= 14);
}

#[test]
fn a_broker_that_never_answers_is_given_up() {
    let broker = server(|mut peer| drop(peer.rest()));
    let proxy = Proxy::new(broker, vec![kafka_rules(ORDERS)]);
    proxy.settings(|settings| settings.timeouts.request = 200);
    let mut client = proxy.client();
    // More than is waited for at a time: the rest waits in the client's socket.
    let many: Vec<u8> =
        (0..5_000).flat_map(|n| request(ApiKey::Heartbeat, 3, n, &HeartbeatRequest::default())).collect();
    client.write(&many);
    assert!(client.rest().is_empty());
    let asked = proxy.records().iter().filter(|record| record.kind == Kind::Request).count();
    assert_eq!(asked, 256);
}

#[test]
fn an_answer_that_was_whole_arrives_though_the_broker_ends() {
    let broker = server(|mut peer| {
        frame(&mut peer);
        let records = vec![9; 1 << 20];
        let partition = fetch_response::PartitionData::default().with_records(Some(records.into()));
        let of = fetch_response::FetchableTopicResponse::default()
            .with_topic(topic("orders"))
            .with_partitions(vec![partition]);
        peer.write(response(11, 1, &FetchResponse::default().with_responses(vec![of])));
    });
    let proxy = Proxy::new(broker, vec![kafka_rules(ORDERS)]);
    let mut client = proxy.client();
    client.write(request(ApiKey::Fetch, 11, 1, &fetch(&["orders"]).with_session_epoch(-1)));
    std::thread::sleep(Duration::from_millis(50));
    let (_, answer): (i32, FetchResponse) = answer(&mut client, 11);
    assert_eq!(answer.responses[0].partitions[0].records.as_ref().unwrap().len(), 1 << 20);
    assert!(client.rest().is_empty());
}

#[test]
fn told_to_end_it_answers_what_was_asked_first() {
    let (_, proxy) = before(ORDERS);
    let mut client = proxy.client();
    client.write(request(ApiKey::Heartbeat, 3, 1, &HeartbeatRequest::default()));
    assert_eq!(answer::<HeartbeatResponse>(&mut client, 3).0, 1);
    let told = std::time::Instant::now();
    proxy.shared.begin_drain();
    assert!(client.rest().is_empty());
    assert!(told.elapsed() < Duration::from_secs(5), "at once");
    eventually("no connection is left", || proxy.shared.open() == 0);
}
