//! What is answered in the broker's place?
//!
//! The same that a broker answers to somebody who may not ask: the kind's own layout, with an error at each topic or
//! partition. Kinds without such an answer here get none.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};
use l7::kafka::{
    CLUSTER_AUTHORIZATION_FAILED, FETCH_SESSION_ID_NOT_FOUND, GROUP_AUTHORIZATION_FAILED, Judgement, Request,
    TOPIC_AUTHORIZATION_FAILED,
};

/// A request with more topics and partitions than this gets no answer, which would be as long.
const MOST_ELEMENTS: usize = 20_000;

const TOPIC: i16 = TOPIC_AUTHORIZATION_FAILED;
const GROUP: i16 = GROUP_AUTHORIZATION_FAILED;
const CLUSTER: i16 = CLUSTER_AUTHORIZATION_FAILED;
/// `TRANSACTIONAL_ID_AUTHORIZATION_FAILED`
const TRANSACTION: i16 = 53;
/// `SASL_AUTHENTICATION_FAILED`
const SASL: i16 = 58;

/// The answer to a request that no rule allows, with its length, and the error in it.
pub fn denied(request: &Request<'_>, judgement: &Judgement) -> Option<(Vec<u8>, i16)> {
    // What was not read to its end here must not be read by a library that trusts lengths.
    if judgement.malformed.is_some() || judgement.facts.elements > MOST_ELEMENTS {
        return None;
    }
    let key = ApiKey::try_from(request.key).ok()?;
    let asked = Asked { key, request };
    let error = match key {
        ApiKey::FindCoordinator
        | ApiKey::JoinGroup
        | ApiKey::Heartbeat
        | ApiKey::LeaveGroup
        | ApiKey::SyncGroup
        | ApiKey::ListGroups
        | ApiKey::ConsumerGroupHeartbeat => GROUP,
        ApiKey::AddOffsetsToTxn | ApiKey::EndTxn => TRANSACTION,
        ApiKey::SaslAuthenticate => SASL,
        _ if request.api().is_ok_and(l7::kafka::Api::has_topics) => TOPIC,
        _ => CLUSTER,
    };
    let answer = asked.of_topics().or_else(|| asked.of_partitions()).or_else(|| asked.plain());
    answer.map(|answer| (answer, error))
}

/// The answer to a Fetch request that goes on with a session.
pub fn no_session(request: &Request<'_>) -> Option<Vec<u8>> {
    let asked = Asked { key: ApiKey::Fetch, request };
    asked.answer(&FetchResponse::default().with_error_code(FETCH_SESSION_ID_NOT_FOUND))
}

#[derive(Clone, Copy)]
struct Asked<'a> {
    key: ApiKey,
    request: &'a Request<'a>,
}

impl Asked<'_> {
    fn read<M: Decodable>(self) -> Option<M> {
        M::decode(&mut Bytes::copy_from_slice(self.request.body()), self.request.version).ok()
    }

    fn answer<M: Encodable + HeaderVersion>(self, message: &M) -> Option<Vec<u8>> {
        let mut bytes = BytesMut::from(&[0; 4][..]);
        let version = self.request.version;
        let header = ResponseHeader::default().with_correlation_id(self.request.correlation);
        header.encode(&mut bytes, M::header_version(version)).ok()?;
        message.encode(&mut bytes, version).ok()?;
        let length = i32::try_from(bytes.len() - 4).ok()?;
        bytes[..4].copy_from_slice(&length.to_be_bytes());
        Some(bytes.to_vec())
    }

    /// Kinds with an error for each topic or other thing.
    fn of_topics(self) -> Option<Vec<u8>> {
        match self.key {
            ApiKey::Metadata => {
                use metadata_response::MetadataResponseTopic;
                let topics = self.read::<MetadataRequest>()?.topics.unwrap_or_default().into_iter().map(|topic| {
                    MetadataResponseTopic::default()
                        .with_error_code(TOPIC)
                        .with_name(topic.name)
                        .with_topic_id(topic.topic_id)
                });
                let response = MetadataResponse::default().with_topics(topics.collect());
                let response = if self.request.version >= 13 { response.with_error_code(TOPIC) } else { response };
                self.answer(&response)
            }
            ApiKey::CreateTopics => {
                use create_topics_response::CreatableTopicResult;
                let topics = self.read::<CreateTopicsRequest>()?.topics.into_iter();
                let topics =
                    topics.map(|topic| CreatableTopicResult::default().with_name(topic.name).with_error_code(TOPIC));
                self.answer(&CreateTopicsResponse::default().with_topics(topics.collect()))
            }
            ApiKey::DeleteTopics => {
                use delete_topics_response::DeletableTopicResult;
                let DeleteTopicsRequest { topics, topic_names, .. } = self.read()?;
                let named = topic_names.into_iter().map(|name| DeletableTopicResult::default().with_name(Some(name)));
                let stated = topics
                    .into_iter()
                    .map(|topic| DeletableTopicResult::default().with_name(topic.name).with_topic_id(topic.topic_id));
                let responses = named.chain(stated).map(|one| one.with_error_code(TOPIC));
                self.answer(&DeleteTopicsResponse::default().with_responses(responses.collect()))
            }
            ApiKey::CreatePartitions => {
                use create_partitions_response::CreatePartitionsTopicResult;
                let topics = self.read::<CreatePartitionsRequest>()?.topics.into_iter();
                let results = topics
                    .map(|topic| CreatePartitionsTopicResult::default().with_name(topic.name).with_error_code(TOPIC));
                self.answer(&CreatePartitionsResponse::default().with_results(results.collect()))
            }
            ApiKey::DescribeConfigs => {
                use describe_configs_response::DescribeConfigsResult;
                let resources = self.read::<DescribeConfigsRequest>()?.resources.into_iter().map(|one| {
                    DescribeConfigsResult::default()
                        .with_error_code(of_resource(one.resource_type))
                        .with_resource_type(one.resource_type)
                        .with_resource_name(one.resource_name)
                });
                self.answer(&DescribeConfigsResponse::default().with_results(resources.collect()))
            }
            ApiKey::AlterConfigs => {
                use alter_configs_response::AlterConfigsResourceResponse;
                let resources = self.read::<AlterConfigsRequest>()?.resources.into_iter().map(|one| {
                    AlterConfigsResourceResponse::default()
                        .with_error_code(of_resource(one.resource_type))
                        .with_resource_type(one.resource_type)
                        .with_resource_name(one.resource_name)
                });
                self.answer(&AlterConfigsResponse::default().with_responses(resources.collect()))
            }
            ApiKey::IncrementalAlterConfigs => {
                use incremental_alter_configs_response::AlterConfigsResourceResponse;
                let resources = self.read::<IncrementalAlterConfigsRequest>()?.resources.into_iter().map(|one| {
                    AlterConfigsResourceResponse::default()
                        .with_error_code(of_resource(one.resource_type))
                        .with_resource_type(one.resource_type)
                        .with_resource_name(one.resource_name)
                });
                self.answer(&IncrementalAlterConfigsResponse::default().with_responses(resources.collect()))
            }
            ApiKey::FindCoordinator => {
                let response = FindCoordinatorResponse::default();
                if self.request.version < 4 {
                    return self.answer(&response.with_error_code(GROUP).with_node_id((-1).into()).with_port(-1));
                }
                let keys = self.read::<FindCoordinatorRequest>()?.coordinator_keys.into_iter().map(|key| {
                    find_coordinator_response::Coordinator::default()
                        .with_key(key)
                        .with_error_code(GROUP)
                        .with_node_id((-1).into())
                        .with_port(-1)
                });
                self.answer(&response.with_coordinators(keys.collect()))
            }
            _ => None,
        }
    }

    /// Kinds with an error for each partition.
    fn of_partitions(self) -> Option<Vec<u8>> {
        match self.key {
            ApiKey::Produce => {
                use produce_response::{PartitionProduceResponse, TopicProduceResponse};
                let topics = self.read::<ProduceRequest>()?.topic_data.into_iter().map(|topic| {
                    let partitions = topic.partition_data.iter().map(|one| {
                        PartitionProduceResponse::default()
                            .with_index(one.index)
                            .with_error_code(TOPIC)
                            .with_base_offset(-1)
                            .with_log_append_time_ms(-1)
                    });
                    TopicProduceResponse::default().with_name(topic.name).with_partition_responses(partitions.collect())
                });
                self.answer(&ProduceResponse::default().with_responses(topics.collect()))
            }
            ApiKey::Fetch => {
                use fetch_response::{FetchableTopicResponse, PartitionData};
                let topics = self.read::<FetchRequest>()?.topics.into_iter().map(|topic| {
                    let partitions = topic.partitions.iter().map(|one| {
                        PartitionData::default()
                            .with_partition_index(one.partition)
                            .with_error_code(TOPIC)
                            .with_high_watermark(-1)
                            .with_aborted_transactions(None)
                            .with_records(Some(Bytes::new()))
                    });
                    FetchableTopicResponse::default().with_topic(topic.topic).with_partitions(partitions.collect())
                });
                self.answer(&FetchResponse::default().with_responses(topics.collect()))
            }
            ApiKey::ListOffsets => {
                use list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
                let topics = self.read::<ListOffsetsRequest>()?.topics.into_iter().map(|topic| {
                    let partitions = topic.partitions.iter().map(|one| {
                        ListOffsetsPartitionResponse::default()
                            .with_partition_index(one.partition_index)
                            .with_error_code(TOPIC)
                    });
                    ListOffsetsTopicResponse::default().with_name(topic.name).with_partitions(partitions.collect())
                });
                self.answer(&ListOffsetsResponse::default().with_topics(topics.collect()))
            }
            ApiKey::OffsetCommit => {
                use offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
                let topics = self.read::<OffsetCommitRequest>()?.topics.into_iter().map(|topic| {
                    let partitions = topic.partitions.iter().map(|one| {
                        OffsetCommitResponsePartition::default()
                            .with_partition_index(one.partition_index)
                            .with_error_code(TOPIC)
                    });
                    OffsetCommitResponseTopic::default().with_name(topic.name).with_partitions(partitions.collect())
                });
                self.answer(&OffsetCommitResponse::default().with_topics(topics.collect()))
            }
            ApiKey::OffsetFetch => self.answer(&self.offset_fetch()?),
            ApiKey::TxnOffsetCommit => {
                use txn_offset_commit_response::{TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic};
                let topics = self.read::<TxnOffsetCommitRequest>()?.topics.into_iter().map(|topic| {
                    let partitions = topic.partitions.iter().map(|one| {
                        TxnOffsetCommitResponsePartition::default()
                            .with_partition_index(one.partition_index)
                            .with_error_code(TOPIC)
                    });
                    TxnOffsetCommitResponseTopic::default().with_name(topic.name).with_partitions(partitions.collect())
                });
                self.answer(&TxnOffsetCommitResponse::default().with_topics(topics.collect()))
            }
            ApiKey::DeleteRecords => {
                use delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
                let topics = self.read::<DeleteRecordsRequest>()?.topics.into_iter().map(|topic| {
                    let partitions = topic.partitions.iter().map(|one| {
                        DeleteRecordsPartitionResult::default()
                            .with_partition_index(one.partition_index)
                            .with_low_watermark(-1)
                            .with_error_code(TOPIC)
                    });
                    DeleteRecordsTopicResult::default().with_name(topic.name).with_partitions(partitions.collect())
                });
                self.answer(&DeleteRecordsResponse::default().with_topics(topics.collect()))
            }
            ApiKey::OffsetForLeaderEpoch => {
                use offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult};
                let topics = self.read::<OffsetForLeaderEpochRequest>()?.topics.into_iter().map(|topic| {
                    let partitions = topic
                        .partitions
                        .iter()
                        .map(|one| EpochEndOffset::default().with_partition(one.partition).with_error_code(TOPIC));
                    OffsetForLeaderTopicResult::default().with_topic(topic.topic).with_partitions(partitions.collect())
                });
                self.answer(&OffsetForLeaderEpochResponse::default().with_topics(topics.collect()))
            }
            ApiKey::AddPartitionsToTxn => self.answer(&self.add_partitions()?),
            _ => None,
        }
    }

    fn offset_fetch(self) -> Option<OffsetFetchResponse> {
        use offset_fetch_response::*;
        let OffsetFetchRequest { groups, topics, .. } = self.read()?;
        if self.request.version >= 8 {
            let groups = groups.into_iter().map(|group| {
                let topics = group.topics.unwrap_or_default().into_iter().map(|topic| {
                    let partitions = topic.partition_indexes.iter().map(|index| {
                        OffsetFetchResponsePartitions::default()
                            .with_partition_index(*index)
                            .with_committed_offset(-1)
                            .with_metadata(Some(StrBytes::default()))
                            .with_error_code(TOPIC)
                    });
                    OffsetFetchResponseTopics::default().with_name(topic.name).with_partitions(partitions.collect())
                });
                let topics: Vec<_> = topics.collect();
                // All topics at once have no place of their own for the error.
                let error = if topics.is_empty() { GROUP } else { 0 };
                OffsetFetchResponseGroup::default()
                    .with_group_id(group.group_id)
                    .with_topics(topics)
                    .with_error_code(error)
            });
            return Some(OffsetFetchResponse::default().with_groups(groups.collect()));
        }
        let topics = topics.unwrap_or_default().into_iter().map(|topic| {
            let partitions = topic.partition_indexes.iter().map(|index| {
                OffsetFetchResponsePartition::default()
                    .with_partition_index(*index)
                    .with_committed_offset(-1)
                    .with_metadata(Some(StrBytes::default()))
                    .with_error_code(TOPIC)
            });
            OffsetFetchResponseTopic::default().with_name(topic.name).with_partitions(partitions.collect())
        });
        let topics: Vec<_> = topics.collect();
        let error = if topics.is_empty() && self.request.version >= 2 { GROUP } else { 0 };
        Some(OffsetFetchResponse::default().with_topics(topics).with_error_code(error))
    }

    fn add_partitions(self) -> Option<AddPartitionsToTxnResponse> {
        use add_partitions_to_txn_response::*;
        let of = |topics: Vec<add_partitions_to_txn_request::AddPartitionsToTxnTopic>| -> Vec<_> {
            let topics = topics.into_iter().map(|topic| {
                let partitions = topic.partitions.iter().map(|index| {
                    AddPartitionsToTxnPartitionResult::default()
                        .with_partition_index(*index)
                        .with_partition_error_code(TOPIC)
                });
                AddPartitionsToTxnTopicResult::default()
                    .with_name(topic.name)
                    .with_results_by_partition(partitions.collect())
            });
            topics.collect()
        };
        let asked = self.read::<AddPartitionsToTxnRequest>()?;
        let response = AddPartitionsToTxnResponse::default();
        if self.request.version <= 3 {
            return Some(response.with_results_by_topic_v3_and_below(of(asked.v3_and_below_topics)));
        }
        let transactions = asked.transactions.into_iter().map(|one| {
            AddPartitionsToTxnResult::default()
                .with_transactional_id(one.transactional_id)
                .with_topic_results(of(one.topics))
        });
        Some(response.with_results_by_transaction(transactions.collect()))
    }

    /// Kinds with one error for all.
    fn plain(self) -> Option<Vec<u8>> {
        let name = |from: i16| (self.request.version >= from).then(StrBytes::default);
        match self.key {
            ApiKey::JoinGroup => {
                // The name could not be absent before.
                let response = JoinGroupResponse::default().with_error_code(GROUP).with_generation_id(-1);
                let response = if self.request.version < 7 {
                    response.with_protocol_name(Some(StrBytes::default()))
                } else {
                    response
                };
                self.answer(&response)
            }
            ApiKey::Heartbeat => self.answer(&HeartbeatResponse::default().with_error_code(GROUP)),
            ApiKey::LeaveGroup => self.answer(&LeaveGroupResponse::default().with_error_code(GROUP)),
            ApiKey::SyncGroup => self.answer(&SyncGroupResponse::default().with_error_code(GROUP)),
            ApiKey::ListGroups => self.answer(&ListGroupsResponse::default().with_error_code(GROUP)),
            ApiKey::ConsumerGroupHeartbeat => self
                .answer(&ConsumerGroupHeartbeatResponse::default().with_error_code(GROUP).with_error_message(name(0))),
            ApiKey::SaslHandshake => self.answer(&SaslHandshakeResponse::default().with_error_code(CLUSTER)),
            ApiKey::SaslAuthenticate => {
                self.answer(&SaslAuthenticateResponse::default().with_error_code(SASL).with_error_message(name(0)))
            }
            ApiKey::ApiVersions => self.answer(&ApiVersionsResponse::default().with_error_code(CLUSTER)),
            ApiKey::InitProducerId => self.answer(
                &InitProducerIdResponse::default()
                    .with_error_code(CLUSTER)
                    .with_producer_id((-1).into())
                    .with_producer_epoch(-1),
            ),
            ApiKey::AddOffsetsToTxn => self.answer(&AddOffsetsToTxnResponse::default().with_error_code(TRANSACTION)),
            ApiKey::EndTxn => self.answer(&EndTxnResponse::default().with_error_code(TRANSACTION)),
            ApiKey::DescribeCluster => self.answer(&DescribeClusterResponse::default().with_error_code(CLUSTER)),
            ApiKey::GetTelemetrySubscriptions => {
                self.answer(&GetTelemetrySubscriptionsResponse::default().with_error_code(CLUSTER))
            }
            ApiKey::PushTelemetry => self.answer(&PushTelemetryResponse::default().with_error_code(CLUSTER)),
            _ => None,
        }
    }
}

/// A topic, or something else of the cluster.
fn of_resource(kind: i8) -> i16 {
    if kind == 2 { TOPIC } else { CLUSTER }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use l7::kafka::Rules;
    use proptest::prelude::*;

    proptest! {
        /// Whatever is read to its end can be given to the library: it takes no length from it that is not true.
        #[test]
        fn what_is_read_can_be_answered(
            key in 0i16..80,
            version in 0i16..14,
            body in proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(2), Just(0xff), any::<u8>()], 0..60),
        ) {
            let start = [&key.to_be_bytes()[..], &version.to_be_bytes(), &[0, 0, 0, 9], &[0xff, 0xff], &body].concat();
            let request = Request::read(&start);
            let judged = request.ok().map(|request| (request, Rules::default().judge(&request, |_, _| {})));
            let answer = judged.and_then(|(request, judgement)| denied(&request, &judgement));
            if let Some((bytes, _)) = answer {
                assert_eq!(bytes.len() - 4, usize::try_from(i32::from_be_bytes(bytes[..4].try_into().unwrap())).unwrap());
                assert_eq!(bytes[4..8], [0, 0, 0, 9]);
            }
        }
    }
}
