//! What does a small broker answer, and what did it hear?

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};

use crate::harness::server;

/// A broker with one partition for each topic, known by the proxy's address.
#[derive(Clone, Default)]
pub struct Broker(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Where clients are sent.
    address: Option<SocketAddr>,
    /// Batches of records, with the offset of each first one.
    topics: BTreeMap<String, Vec<Bytes>>,
    /// Kinds and versions of all requests.
    heard: Vec<(ApiKey, i16)>,
}

pub fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

pub fn topic(name: &str) -> TopicName {
    TopicName(text(name))
}

/// A request with its length.
pub fn request<M: Encodable + HeaderVersion>(key: ApiKey, version: i16, correlation: i32, message: &M) -> Vec<u8> {
    let header = RequestHeader::default()
        .with_request_api_key(key as i16)
        .with_request_api_version(version)
        .with_correlation_id(correlation)
        .with_client_id(Some(text("test")));
    let mut bytes = BytesMut::new();
    header.encode(&mut bytes, M::header_version(version)).unwrap();
    message.encode(&mut bytes, version).unwrap();
    [&i32::try_from(bytes.len()).unwrap().to_be_bytes()[..], &bytes].concat()
}

/// An answer with its length.
pub fn response<M: Encodable + HeaderVersion>(version: i16, correlation: i32, message: &M) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    let header = ResponseHeader::default().with_correlation_id(correlation);
    header.encode(&mut bytes, M::header_version(version)).unwrap();
    message.encode(&mut bytes, version).unwrap();
    [&i32::try_from(bytes.len()).unwrap().to_be_bytes()[..], &bytes].concat()
}

/// A frame without its length; `None`: the connection has ended.
pub fn frame(peer: &mut impl Read) -> Option<Bytes> {
    let mut length = [0; 4];
    peer.read_exact(&mut length).ok()?;
    let mut frame = vec![0; usize::try_from(i32::from_be_bytes(length)).unwrap()];
    peer.read_exact(&mut frame).ok()?;
    Some(frame.into())
}

/// The next answer: its correlation and its body.
pub fn answer<M: Decodable + HeaderVersion>(peer: &mut impl Read, version: i16) -> (i32, M) {
    let mut bytes = frame(peer).expect("an answer");
    let header = ResponseHeader::decode(&mut bytes, M::header_version(version)).unwrap();
    let message = M::decode(&mut bytes, version).unwrap();
    assert!(bytes.is_empty(), "{bytes:?} follow");
    (header.correlation_id, message)
}

impl Broker {
    /// Where it listens.
    pub fn listen(&self) -> SocketAddr {
        let broker = self.clone();
        server(move |mut peer| broker.serve(&mut peer))
    }

    /// Answers whatever is asked here.
    pub fn serve(&self, peer: &mut (impl Read + Write)) {
        while let Some(bytes) = frame(peer) {
            if let Some(answer) = self.answer(bytes) {
                let _ = peer.write_all(&answer).and_then(|()| peer.flush());
            }
        }
    }

    pub fn is_known_as(&self, address: SocketAddr) {
        self.0.lock().unwrap().address = Some(address);
    }

    pub fn heard(&self) -> Vec<(ApiKey, i16)> {
        std::mem::take(&mut self.0.lock().unwrap().heard)
    }

    pub fn batches(&self, topic: &str) -> usize {
        self.0.lock().unwrap().topics.get(topic).map_or(0, Vec::len)
    }

    fn answer(&self, mut bytes: Bytes) -> Option<Vec<u8>> {
        let number = i16::from_be_bytes([bytes[0], bytes[1]]);
        let version = i16::from_be_bytes([bytes[2], bytes[3]]);
        let key = ApiKey::try_from(number).unwrap();
        let header = RequestHeader::decode(&mut bytes, key.request_header_version(version)).unwrap();
        let state = &mut *self.0.lock().unwrap();
        state.heard.push((key, version));
        let correlation = header.correlation_id;
        match key {
            ApiKey::ApiVersions => Some(response(version, correlation, &versions())),
            ApiKey::Metadata => {
                let asked = MetadataRequest::decode(&mut bytes, version).unwrap();
                Some(response(version, correlation, &state.metadata(asked, version)))
            }
            ApiKey::Produce => {
                let asked = ProduceRequest::decode(&mut bytes, version).unwrap();
                let silent = asked.acks == 0;
                let answer = state.produce(asked);
                (!silent).then(|| response(version, correlation, &answer))
            }
            ApiKey::Fetch => {
                let asked = FetchRequest::decode(&mut bytes, version).unwrap();
                Some(response(version, correlation, &state.fetch(&asked)))
            }
            ApiKey::Heartbeat => Some(response(version, correlation, &HeartbeatResponse::default())),
            other => panic!("{other:?} is not answered by this broker"),
        }
    }
}

fn versions() -> ApiVersionsResponse {
    let range = |key: ApiKey| {
        let valid = key.valid_versions();
        api_versions_response::ApiVersion::default()
            .with_api_key(key as i16)
            .with_min_version(valid.min)
            .with_max_version(valid.max)
    };
    let keys = [ApiKey::Produce, ApiKey::Fetch, ApiKey::Metadata, ApiKey::ApiVersions, ApiKey::Heartbeat];
    ApiVersionsResponse::default().with_api_keys(keys.into_iter().map(range).collect())
}

impl State {
    fn metadata(&self, asked: MetadataRequest, version: i16) -> MetadataResponse {
        use metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic};
        let address = self.address.unwrap();
        let broker = MetadataResponseBroker::default()
            .with_node_id(1.into())
            .with_host(text(&address.ip().to_string()))
            .with_port(address.port().into());
        let partition = MetadataResponsePartition::default()
            .with_leader_id(1.into())
            .with_replica_nodes(vec![1.into()])
            .with_isr_nodes(vec![1.into()]);
        let all = || ["orders", "secrets"].map(topic).to_vec();
        let names = match asked.topics {
            Some(topics) if version > 0 || !topics.is_empty() => {
                topics.into_iter().filter_map(|one| one.name).collect()
            }
            _ => all(),
        };
        let topics = names.into_iter().map(|name| {
            MetadataResponseTopic::default().with_name(Some(name)).with_partitions(vec![partition.clone()])
        });
        let controller = if version > 0 { 1 } else { -1 };
        MetadataResponse::default()
            .with_brokers(vec![broker])
            .with_controller_id(controller.into())
            .with_topics(topics.collect())
    }

    fn produce(&mut self, asked: ProduceRequest) -> ProduceResponse {
        use produce_response::{PartitionProduceResponse, TopicProduceResponse};
        let mut answers = Vec::new();
        for asked in asked.topic_data {
            let batches = self.topics.entry(asked.name.to_string()).or_default();
            let first = batches.len();
            batches.extend(asked.partition_data.into_iter().filter_map(|one| one.records));
            let partition = PartitionProduceResponse::default().with_base_offset(i64::try_from(first).unwrap());
            answers
                .push(TopicProduceResponse::default().with_name(asked.name).with_partition_responses(vec![partition]));
        }
        ProduceResponse::default().with_responses(answers)
    }

    fn fetch(&self, asked: &FetchRequest) -> FetchResponse {
        use fetch_response::{FetchableTopicResponse, PartitionData};
        let topics = asked.topics.iter().map(|topic| {
            let batches = self.topics.get(topic.topic.as_str());
            let records = batches.and_then(|batches| batches.first()).cloned().unwrap_or_default();
            let partition = PartitionData::default().with_high_watermark(1).with_records(Some(records));
            FetchableTopicResponse::default().with_topic(topic.topic.clone()).with_partitions(vec![partition])
        });
        FetchResponse::default().with_responses(topics.collect())
    }
}
