//! Which kinds tell the error of each topic, partition or group that was asked for?

use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;

use super::{CLUSTER, GROUP, TOPIC, TRANSACTION, each, made};

/// The answer to a request, whose parts come again in it. `None`: this kind has no such answer.
#[allow(clippy::too_many_lines)]
pub fn answer(asked: RequestKind, version: i16) -> Option<ResponseKind> {
    Some(match asked {
        RequestKind::Produce(asked) => {
            use produce_response::*;
            made!(ProduceResponse {
                responses: each!(asked.topic_data, topic => TopicProduceResponse {
                    name: topic.name,
                    partition_responses: each!(topic.partition_data, one => PartitionProduceResponse {
                        index: one.index, error_code: TOPIC, base_offset: -1, log_append_time_ms: -1,
                    }),
                })
            })
            .into()
        }
        RequestKind::Fetch(asked) => {
            use fetch_response::*;
            // Without a topic there is no other place for it.
            let error_code = if asked.topics.is_empty() && version >= 7 { TOPIC } else { 0 };
            made!(FetchResponse {
                error_code: error_code,
                responses: each!(asked.topics, topic => FetchableTopicResponse {
                    topic: topic.topic,
                    partitions: each!(topic.partitions, one => PartitionData {
                        partition_index: one.partition,
                        error_code: TOPIC,
                        high_watermark: -1,
                        aborted_transactions: None,
                        records: Some(bytes::Bytes::new()),
                    }),
                })
            })
            .into()
        }
        RequestKind::ListOffsets(asked) => {
            use list_offsets_response::*;
            made!(ListOffsetsResponse {
                topics: each!(asked.topics, topic => ListOffsetsTopicResponse {
                    name: topic.name,
                    partitions: each!(topic.partitions, one => ListOffsetsPartitionResponse {
                        partition_index: one.partition_index, error_code: TOPIC,
                    }),
                })
            })
            .into()
        }
        RequestKind::Metadata(asked) => {
            use metadata_response::*;
            made!(MetadataResponse {
                error_code: if version >= 13 { TOPIC } else { 0 },
                topics: each!(asked.topics.unwrap_or_default(), topic => MetadataResponseTopic {
                    name: topic.name, topic_id: topic.topic_id, error_code: TOPIC,
                }),
            })
            .into()
        }
        RequestKind::OffsetCommit(asked) => {
            use offset_commit_response::*;
            made!(OffsetCommitResponse {
                topics: each!(asked.topics, topic => OffsetCommitResponseTopic {
                    name: topic.name,
                    partitions: each!(topic.partitions, one => OffsetCommitResponsePartition {
                        partition_index: one.partition_index, error_code: TOPIC,
                    }),
                })
            })
            .into()
        }
        RequestKind::OffsetFetch(asked) => offset_fetch(asked, version).into(),
        RequestKind::FindCoordinator(asked) => {
            use find_coordinator_response::*;
            if version < 4 {
                made!(FindCoordinatorResponse { error_code: GROUP, node_id: (-1).into(), port: -1 }).into()
            } else {
                made!(FindCoordinatorResponse {
                    coordinators: each!(asked.coordinator_keys, key => Coordinator {
                        key: key, error_code: GROUP, node_id: (-1).into(), port: -1,
                    })
                })
                .into()
            }
        }
        RequestKind::DescribeGroups(asked) => {
            use describe_groups_response::*;
            made!(DescribeGroupsResponse {
                groups: each!(asked.groups, group => DescribedGroup {
                    group_id: group, error_code: GROUP,
                })
            })
            .into()
        }
        RequestKind::ConsumerGroupDescribe(asked) => {
            use consumer_group_describe_response::*;
            made!(ConsumerGroupDescribeResponse {
                groups: each!(asked.group_ids, group => DescribedGroup {
                    group_id: group, error_code: GROUP,
                })
            })
            .into()
        }
        RequestKind::ShareGroupDescribe(asked) => {
            use share_group_describe_response::*;
            made!(ShareGroupDescribeResponse {
                groups: each!(asked.group_ids, group => DescribedGroup {
                    group_id: group, error_code: GROUP,
                })
            })
            .into()
        }
        RequestKind::DescribeShareGroupOffsets(asked) => {
            use describe_share_group_offsets_response::*;
            made!(DescribeShareGroupOffsetsResponse {
                groups: each!(asked.groups, group => DescribeShareGroupOffsetsResponseGroup {
                    group_id: group.group_id, error_code: GROUP,
                }),
            })
            .into()
        }
        RequestKind::DeleteGroups(asked) => {
            use delete_groups_response::*;
            made!(DeleteGroupsResponse {
                results: each!(asked.groups_names, group => DeletableGroupResult {
                    group_id: group, error_code: GROUP,
                })
            })
            .into()
        }
        RequestKind::OffsetDelete(asked) => {
            use offset_delete_response::*;
            made!(OffsetDeleteResponse {
                topics: each!(asked.topics, topic => OffsetDeleteResponseTopic {
                    name: topic.name,
                    partitions: each!(topic.partitions, one => OffsetDeleteResponsePartition {
                        partition_index: one.partition_index, error_code: TOPIC,
                    }),
                })
            })
            .into()
        }
        RequestKind::CreateTopics(asked) => {
            use create_topics_response::*;
            made!(CreateTopicsResponse {
                topics: each!(asked.topics, topic => CreatableTopicResult {
                    name: topic.name, error_code: TOPIC,
                })
            })
            .into()
        }
        RequestKind::DeleteTopics(asked) => {
            use delete_topics_response::*;
            let named: Vec<_> = each!(asked.topic_names, name => DeletableTopicResult {
                name: Some(name), error_code: TOPIC,
            });
            let stated: Vec<_> = each!(asked.topics, topic => DeletableTopicResult {
                name: topic.name, topic_id: topic.topic_id, error_code: TOPIC,
            });
            made!(DeleteTopicsResponse { responses: [named, stated].concat() }).into()
        }
        RequestKind::DeleteRecords(asked) => {
            use delete_records_response::*;
            made!(DeleteRecordsResponse {
                topics: each!(asked.topics, topic => DeleteRecordsTopicResult {
                    name: topic.name,
                    partitions: each!(topic.partitions, one => DeleteRecordsPartitionResult {
                        partition_index: one.partition_index, low_watermark: -1, error_code: TOPIC,
                    }),
                })
            })
            .into()
        }
        RequestKind::CreatePartitions(asked) => {
            use create_partitions_response::*;
            made!(CreatePartitionsResponse {
                results: each!(asked.topics, topic => CreatePartitionsTopicResult {
                    name: topic.name, error_code: TOPIC,
                })
            })
            .into()
        }
        RequestKind::DescribeTopicPartitions(asked) => {
            use describe_topic_partitions_response::*;
            made!(DescribeTopicPartitionsResponse {
                topics: each!(asked.topics, topic => DescribeTopicPartitionsResponseTopic {
                    name: Some(topic.name), error_code: TOPIC,
                }),
            })
            .into()
        }
        RequestKind::DescribeProducers(asked) => {
            use describe_producers_response::*;
            made!(DescribeProducersResponse {
                topics: each!(asked.topics, topic => TopicResponse {
                    name: topic.name,
                    partitions: each!(topic.partition_indexes, index => PartitionResponse {
                        partition_index: index, error_code: TOPIC,
                    }),
                })
            })
            .into()
        }
        RequestKind::OffsetForLeaderEpoch(asked) => {
            use offset_for_leader_epoch_response::*;
            made!(OffsetForLeaderEpochResponse {
                topics: each!(asked.topics, topic => OffsetForLeaderTopicResult {
                    topic: topic.topic,
                    partitions: each!(topic.partitions, one => EpochEndOffset {
                        partition: one.partition, error_code: TOPIC,
                    }),
                })
            })
            .into()
        }
        RequestKind::AddPartitionsToTxn(asked) => add_partitions(asked).into(),
        RequestKind::TxnOffsetCommit(asked) => {
            use txn_offset_commit_response::*;
            made!(TxnOffsetCommitResponse {
                topics: each!(asked.topics, topic => TxnOffsetCommitResponseTopic {
                    name: topic.name,
                    partitions: each!(topic.partitions, one => TxnOffsetCommitResponsePartition {
                        partition_index: one.partition_index, error_code: TOPIC,
                    }),
                })
            })
            .into()
        }
        RequestKind::DescribeTransactions(asked) => {
            use describe_transactions_response::*;
            made!(DescribeTransactionsResponse {
                transaction_states: each!(asked.transactional_ids, id => TransactionState {
                    transactional_id: id, error_code: TRANSACTION,
                }),
            })
            .into()
        }
        RequestKind::WriteTxnMarkers(asked) => {
            use write_txn_markers_response::*;
            made!(WriteTxnMarkersResponse {
                markers: each!(asked.markers, marker => WritableTxnMarkerResult {
                    producer_id: marker.producer_id,
                    topics: each!(marker.topics, topic => WritableTxnMarkerTopicResult {
                        name: topic.name,
                        partitions: each!(topic.partition_indexes, index => WritableTxnMarkerPartitionResult {
                            partition_index: index, error_code: CLUSTER,
                        }),
                    }),
                })
            })
            .into()
        }
        other => return super::cluster::answer(other, version),
    })
}

fn offset_fetch(asked: OffsetFetchRequest, version: i16) -> OffsetFetchResponse {
    use offset_fetch_response::*;
    // All topics at once have no place of their own for the error.
    let error_of = |none: bool| if none { GROUP } else { 0 };
    if version >= 8 {
        return made!(OffsetFetchResponse {
            groups: each!(asked.groups, group => OffsetFetchResponseGroup {
                error_code: error_of(group.topics.as_ref().is_none_or(Vec::is_empty)),
                group_id: group.group_id,
                topics: each!(group.topics.unwrap_or_default(), topic => OffsetFetchResponseTopics {
                    name: topic.name,
                    partitions: each!(topic.partition_indexes, index => OffsetFetchResponsePartitions {
                        partition_index: index,
                        committed_offset: -1,
                        metadata: Some(StrBytes::default()),
                        error_code: TOPIC,
                    }),
                }),
            })
        });
    }
    let topics = asked.topics.unwrap_or_default();
    made!(OffsetFetchResponse {
        error_code: error_of(topics.is_empty() && version >= 2),
        topics: each!(topics, topic => OffsetFetchResponseTopic {
            name: topic.name,
            partitions: each!(topic.partition_indexes, index => OffsetFetchResponsePartition {
                partition_index: index,
                committed_offset: -1,
                metadata: Some(StrBytes::default()),
                error_code: TOPIC,
            }),
        }),
    })
}

fn add_partitions(asked: AddPartitionsToTxnRequest) -> AddPartitionsToTxnResponse {
    use add_partitions_to_txn_response::*;
    let of = |topics: Vec<add_partitions_to_txn_request::AddPartitionsToTxnTopic>| {
        each!(topics, topic => AddPartitionsToTxnTopicResult {
            name: topic.name,
            results_by_partition: each!(topic.partitions, index => AddPartitionsToTxnPartitionResult {
                partition_index: index, partition_error_code: TOPIC,
            }),
        })
    };
    // Of the two only one is there in each version.
    made!(AddPartitionsToTxnResponse {
        results_by_topic_v3_and_below: of(asked.v3_and_below_topics),
        results_by_transaction: each!(asked.transactions, one => AddPartitionsToTxnResult {
            transactional_id: one.transactional_id, topic_results: of(one.topics),
        }),
    })
}
