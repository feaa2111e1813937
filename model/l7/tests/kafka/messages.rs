//! Which requests does the protocol's own library write, at each version?

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Encodable, HeaderVersion, StrBytes};

/// A text.
pub fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn name(topic: &str) -> TopicName {
    TopicName(text(topic))
}

/// A request as it stands in a frame, behind the length.
pub fn frame<M: Encodable + HeaderVersion>(key: ApiKey, version: i16, client: Option<&str>, message: &M) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    let header = RequestHeader::default()
        .with_request_api_key(key as i16)
        .with_request_api_version(version)
        .with_correlation_id(4711)
        .with_client_id(client.map(text));
    header.encode(&mut bytes, M::header_version(version)).expect("a header");
    message.encode(&mut bytes, version).unwrap_or_else(|error| panic!("{key:?} {version}: {error}"));
    bytes.to_vec()
}

/// Tagged fields that nobody knows.
fn tags(is: bool) -> BTreeMap<i32, Bytes> {
    if is { BTreeMap::from([(90, Bytes::from_static(b"later")), (200, Bytes::new())]) } else { BTreeMap::new() }
}

/// Calls these with what they are given, one after the other.
macro_rules! with {
    ($message:expr $(, $name:ident($($value:expr),*) $(if $when:expr)?)* $(,)?) => {{
        let mut message = $message;
        $( if true $(&& $when)? { message = message.$name($($value),*); } )*
        message
    }};
}

/// A request of this kind and version that names these topics; `None`: kinds whose bodies are not read.
#[allow(clippy::too_many_lines)]
pub fn request(key: ApiKey, version: i16, flexible: bool, topics: &[String]) -> Option<Vec<u8>> {
    let v = version;
    let names = || topics.iter().map(|topic| name(topic));
    let extra = || tags(flexible);
    let client = Some("a client");
    Some(match key {
        ApiKey::Produce => {
            use produce_request::{PartitionProduceData, TopicProduceData};
            let records = [Some(Bytes::from(vec![7; 300])), None, Some(Bytes::new())];
            let partition = |records: &Option<Bytes>| {
                PartitionProduceData::default().with_records(records.clone()).with_unknown_tagged_fields(extra())
            };
            let topic = |name| {
                TopicProduceData::default()
                    .with_name(name)
                    .with_partition_data(records.iter().map(partition).collect())
                    .with_unknown_tagged_fields(extra())
            };
            let message = with!(
                ProduceRequest::default(),
                with_transactional_id(Some(TransactionalId(text("t")))) if v % 2 == 0,
                with_acks(-1),
                with_topic_data(names().map(topic).collect()),
                with_unknown_tagged_fields(extra()),
            );
            frame(key, v, client, &message)
        }
        ApiKey::Fetch => {
            use fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
            let partition = |number| {
                with!(
                    FetchPartition::default(),
                    with_partition(number),
                    with_current_leader_epoch(5) if v >= 9,
                    with_last_fetched_epoch(4) if v >= 12,
                    with_log_start_offset(3) if v >= 5,
                    with_unknown_tagged_fields(extra()),
                )
            };
            let topic = |name| FetchTopic::default().with_topic(name).with_partitions((0..3).map(partition).collect());
            let forgotten = ForgottenTopic::default().with_topic(name("forgotten")).with_partitions(vec![1, 2]);
            let message = with!(
                FetchRequest::default(),
                with_replica_id((-1).into()),
                with_session_id(77) if v >= 7,
                with_session_epoch(5) if v >= 7,
                with_topics(names().map(topic).collect()),
                with_forgotten_topics_data(vec![forgotten]) if v >= 7,
                with_rack_id(text("rack")) if v >= 11,
                with_cluster_id(Some(text("cluster"))) if v >= 12,
                with_unknown_tagged_fields(extra()),
            );
            frame(key, v, client, &message)
        }
        ApiKey::ListOffsets => {
            use list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
            let partition = |number| with!(ListOffsetsPartition::default(), with_partition_index(number), with_current_leader_epoch(1) if v >= 4);
            let topic =
                |name| ListOffsetsTopic::default().with_name(name).with_partitions((0..2).map(partition).collect());
            let message = with!(
                ListOffsetsRequest::default(),
                with_isolation_level(1) if v >= 2,
                with_topics(names().map(topic).collect()),
                with_timeout_ms(9) if v >= 10,
                with_unknown_tagged_fields(extra()),
            );
            frame(key, v, client, &message)
        }
        ApiKey::Metadata => {
            let topic = |name| {
                metadata_request::MetadataRequestTopic::default()
                    .with_name(Some(name))
                    .with_unknown_tagged_fields(extra())
            };
            let message = with!(
                MetadataRequest::default(),
                with_topics(Some(names().map(topic).collect())),
                with_allow_auto_topic_creation(true),
                with_include_cluster_authorized_operations(true) if (8..=10).contains(&v),
                with_include_topic_authorized_operations(true) if v >= 8,
            );
            frame(key, v, client, &message)
        }
        ApiKey::OffsetCommit => {
            use offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
            let partition = |number| {
                with!(
                    OffsetCommitRequestPartition::default(),
                    with_partition_index(number),
                    with_committed_leader_epoch(1) if v >= 6,
                    with_committed_metadata(Some(text("m"))) if number == 1,
                )
            };
            let topic = |name| {
                OffsetCommitRequestTopic::default().with_name(name).with_partitions((0..2).map(partition).collect())
            };
            let message = with!(
                OffsetCommitRequest::default(),
                with_group_id(GroupId(text("g"))),
                with_group_instance_id(Some(text("i"))) if v >= 7,
                with_retention_time_ms(1) if v <= 4,
                with_topics(names().map(topic).collect()),
            );
            frame(key, v, client, &message)
        }
        ApiKey::OffsetFetch => {
            use offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics};
            let old = |name| OffsetFetchRequestTopic::default().with_name(name).with_partition_indexes(vec![0, 1]);
            let new = |name| OffsetFetchRequestTopics::default().with_name(name).with_partition_indexes(vec![0, 1]);
            let group = || {
                with!(
                    OffsetFetchRequestGroup::default(),
                    with_group_id(GroupId(text("g"))),
                    with_member_id(Some(text("m"))) if v >= 9,
                    with_member_epoch(3) if v >= 9,
                    with_topics(Some(names().map(new).collect())),
                )
            };
            let message = with!(
                OffsetFetchRequest::default(),
                with_topics(Some(names().map(old).collect())) if v <= 7,
                with_group_id(GroupId(text("g"))) if v <= 7,
                with_groups(vec![group(), group()]) if v >= 8,
                with_require_stable(true) if v >= 7,
            );
            frame(key, v, client, &message)
        }
        ApiKey::FindCoordinator => {
            let message = with!(
                FindCoordinatorRequest::default(),
                with_key(text("g")) if v <= 3,
                with_key_type(1) if v >= 1,
                with_coordinator_keys(vec![text("g"), text("h")]) if v >= 4,
            );
            frame(key, v, client, &message)
        }
        ApiKey::CreateTopics => {
            use create_topics_request::{CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig};
            let assigned = CreatableReplicaAssignment::default().with_broker_ids(vec![1.into(), 2.into()]);
            let config = CreatableTopicConfig::default().with_name(text("c")).with_value(None);
            let topic = |name| {
                CreatableTopic::default()
                    .with_name(name)
                    .with_assignments(vec![assigned.clone()])
                    .with_configs(vec![config.clone()])
            };
            frame(key, v, client, &CreateTopicsRequest::default().with_topics(names().map(topic).collect()))
        }
        ApiKey::DeleteTopics => {
            use delete_topics_request::DeleteTopicState;
            let topic = |name| DeleteTopicState::default().with_name(Some(name));
            let message = with!(
                DeleteTopicsRequest::default(),
                with_topics(names().map(topic).collect()) if v >= 6,
                with_topic_names(names().collect()) if v <= 5,
            );
            frame(key, v, client, &message)
        }
        ApiKey::DeleteRecords => {
            use delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
            let topic = |name| {
                DeleteRecordsTopic::default().with_name(name).with_partitions(vec![DeleteRecordsPartition::default()])
            };
            frame(key, v, client, &DeleteRecordsRequest::default().with_topics(names().map(topic).collect()))
        }
        ApiKey::OffsetForLeaderEpoch => {
            use offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
            let topic = |name| {
                let partitions = vec![OffsetForLeaderPartition::default(), OffsetForLeaderPartition::default()];
                OffsetForLeaderTopic::default().with_topic(name).with_partitions(partitions)
            };
            frame(key, v, client, &OffsetForLeaderEpochRequest::default().with_topics(names().map(topic).collect()))
        }
        ApiKey::AddPartitionsToTxn => {
            use add_partitions_to_txn_request::{AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction};
            let topic = |name| AddPartitionsToTxnTopic::default().with_name(name).with_partitions(vec![0, 1]);
            let transaction = || {
                AddPartitionsToTxnTransaction::default()
                    .with_transactional_id(TransactionalId(text("t")))
                    .with_topics(names().map(topic).collect())
            };
            let message = with!(
                AddPartitionsToTxnRequest::default(),
                with_transactions(vec![transaction(), transaction()]) if v >= 4,
                with_v3_and_below_transactional_id(TransactionalId(text("t"))) if v <= 3,
                with_v3_and_below_topics(names().map(topic).collect()) if v <= 3,
            );
            frame(key, v, client, &message)
        }
        ApiKey::TxnOffsetCommit => {
            use txn_offset_commit_request::{TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic};
            let partition =
                || with!(TxnOffsetCommitRequestPartition::default(), with_committed_leader_epoch(2) if v >= 2);
            let topic =
                |name| TxnOffsetCommitRequestTopic::default().with_name(name).with_partitions(vec![partition()]);
            let message = with!(
                TxnOffsetCommitRequest::default(),
                with_generation_id(1) if v >= 3,
                with_member_id(text("m")) if v >= 3,
                with_group_instance_id(Some(text("i"))) if v >= 3,
                with_topics(names().map(topic).collect()),
            );
            frame(key, v, client, &message)
        }
        ApiKey::DescribeConfigs => {
            use describe_configs_request::DescribeConfigsResource;
            let resource = |topic: &String| {
                DescribeConfigsResource::default()
                    .with_resource_type(2)
                    .with_resource_name(text(topic))
                    .with_configuration_keys(Some(vec![text("a"), text("b")]))
            };
            frame(
                key,
                v,
                client,
                &DescribeConfigsRequest::default().with_resources(topics.iter().map(resource).collect()),
            )
        }
        ApiKey::AlterConfigs => {
            use alter_configs_request::{AlterConfigsResource, AlterableConfig};
            let config = AlterableConfig::default().with_name(text("c"));
            let resource = |topic: &String| {
                AlterConfigsResource::default()
                    .with_resource_type(2)
                    .with_resource_name(text(topic))
                    .with_configs(vec![config.clone()])
            };
            frame(key, v, client, &AlterConfigsRequest::default().with_resources(topics.iter().map(resource).collect()))
        }
        ApiKey::IncrementalAlterConfigs => {
            use incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
            let config = AlterableConfig::default().with_name(text("c"));
            let resource = |topic: &String| {
                AlterConfigsResource::default()
                    .with_resource_type(2)
                    .with_resource_name(text(topic))
                    .with_configs(vec![config.clone()])
            };
            let resources = topics.iter().map(resource).collect();
            frame(key, v, client, &IncrementalAlterConfigsRequest::default().with_resources(resources))
        }
        ApiKey::AlterReplicaLogDirs => {
            use alter_replica_log_dirs_request::{AlterReplicaLogDir, AlterReplicaLogDirTopic};
            let topic = |name| AlterReplicaLogDirTopic::default().with_name(name).with_partitions(vec![3]);
            let dir = AlterReplicaLogDir::default().with_path(text("/a")).with_topics(names().map(topic).collect());
            frame(key, v, client, &AlterReplicaLogDirsRequest::default().with_dirs(vec![dir]))
        }
        ApiKey::DescribeLogDirs => {
            use describe_log_dirs_request::DescribableLogDirTopic;
            let topic = |name| DescribableLogDirTopic::default().with_topic(name).with_partitions(vec![3]);
            frame(key, v, client, &DescribeLogDirsRequest::default().with_topics(Some(names().map(topic).collect())))
        }
        ApiKey::CreatePartitions => {
            use create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic};
            let assigned = CreatePartitionsAssignment::default().with_broker_ids(vec![1.into()]);
            let topic =
                |name| CreatePartitionsTopic::default().with_name(name).with_assignments(Some(vec![assigned.clone()]));
            frame(key, v, client, &CreatePartitionsRequest::default().with_topics(names().map(topic).collect()))
        }
        ApiKey::ElectLeaders => {
            use elect_leaders_request::TopicPartitions;
            let topic = |name| TopicPartitions::default().with_topic(name).with_partitions(vec![0]);
            let topics = Some(names().map(topic).collect());
            frame(key, v, client, &ElectLeadersRequest::default().with_topic_partitions(topics))
        }
        ApiKey::AlterPartitionReassignments => {
            use alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
            let partition = ReassignablePartition::default().with_replicas(Some(vec![1.into()]));
            let topic = |name| {
                let unassigned = ReassignablePartition::default().with_replicas(None);
                ReassignableTopic::default().with_name(name).with_partitions(vec![partition.clone(), unassigned])
            };
            let message = AlterPartitionReassignmentsRequest::default().with_topics(names().map(topic).collect());
            frame(key, v, client, &message)
        }
        ApiKey::ListPartitionReassignments => {
            use list_partition_reassignments_request::ListPartitionReassignmentsTopics;
            let topic =
                |name| ListPartitionReassignmentsTopics::default().with_name(name).with_partition_indexes(vec![0]);
            let message = ListPartitionReassignmentsRequest::default().with_topics(Some(names().map(topic).collect()));
            frame(key, v, client, &message)
        }
        ApiKey::OffsetDelete => {
            use offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
            let partitions = vec![OffsetDeleteRequestPartition::default()];
            let topic = |name| OffsetDeleteRequestTopic::default().with_name(name).with_partitions(partitions.clone());
            frame(key, v, client, &OffsetDeleteRequest::default().with_topics(names().map(topic).collect()))
        }
        ApiKey::DescribeProducers => {
            use describe_producers_request::TopicRequest;
            let topic = |name| TopicRequest::default().with_name(name).with_partition_indexes(vec![0, 1]);
            frame(key, v, client, &DescribeProducersRequest::default().with_topics(names().map(topic).collect()))
        }
        ApiKey::ConsumerGroupHeartbeat => {
            use consumer_group_heartbeat_request::TopicPartitions;
            let owned = TopicPartitions::default().with_topic_id(uuid::Uuid::from_u128(5)).with_partitions(vec![1]);
            let message = ConsumerGroupHeartbeatRequest::default()
                .with_subscribed_topic_names(Some(names().collect()))
                .with_topic_partitions(Some(vec![owned]));
            frame(key, v, client, &message)
        }
        ApiKey::DescribeTopicPartitions => {
            use describe_topic_partitions_request::{Cursor, TopicRequest};
            let topic = |name| TopicRequest::default().with_name(name);
            let cursor = topics.last().map(|topic| Cursor::default().with_topic_name(name(topic)));
            let message =
                DescribeTopicPartitionsRequest::default().with_topics(names().map(topic).collect()).with_cursor(cursor);
            frame(key, v, client, &message)
        }
        ApiKey::WriteTxnMarkers => {
            use write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic};
            let topic = |name| WritableTxnMarkerTopic::default().with_name(name).with_partition_indexes(vec![0, 1]);
            let marker = WritableTxnMarker::default().with_topics(names().map(topic).collect());
            frame(key, v, client, &WriteTxnMarkersRequest::default().with_markers(vec![marker.clone(), marker]))
        }
        ApiKey::DescribeShareGroupOffsets => {
            use describe_share_group_offsets_request::*;
            let topic = |name| {
                DescribeShareGroupOffsetsRequestTopic::default().with_topic_name(name).with_partitions(vec![0, 1])
            };
            let group =
                DescribeShareGroupOffsetsRequestGroup::default().with_topics(Some(names().map(topic).collect()));
            frame(key, v, client, &DescribeShareGroupOffsetsRequest::default().with_groups(vec![group]))
        }
        _ => return of_the_cluster(key, v, client),
    })
}

/// The same for kinds that name no topics, or none in a way that is read.
fn of_the_cluster(key: ApiKey, v: i16, client: Option<&str>) -> Option<Vec<u8>> {
    let group = || vec![GroupId(text("one")), GroupId(text("two"))];
    macro_rules! states {
        ($request:ident, $messages:ident::$topic:ident) => {{
            let partition = $messages::PartitionData::default().with_partition(5);
            let topic = $messages::$topic::default().with_partitions(vec![partition.clone(), partition]);
            frame(key, v, client, &$request::default().with_group_id(text("g")).with_topics(vec![topic]))
        }};
    }
    Some(match key {
        ApiKey::DescribeGroups => frame(key, v, client, &DescribeGroupsRequest::default().with_groups(group())),
        ApiKey::DeleteGroups => frame(key, v, client, &DeleteGroupsRequest::default().with_groups_names(group())),
        ApiKey::ConsumerGroupDescribe => {
            frame(key, v, client, &ConsumerGroupDescribeRequest::default().with_group_ids(group()))
        }
        ApiKey::ShareGroupDescribe => {
            frame(key, v, client, &ShareGroupDescribeRequest::default().with_group_ids(group()))
        }
        ApiKey::DescribeTransactions => {
            let ids = vec![TransactionalId(text("t"))];
            frame(key, v, client, &DescribeTransactionsRequest::default().with_transactional_ids(ids))
        }
        ApiKey::AlterClientQuotas => {
            use alter_client_quotas_request::{EntityData, EntryData, OpData};
            let entry = EntryData::default()
                .with_entity(vec![EntityData::default().with_entity_type(text("user")).with_entity_name(None)])
                .with_ops(vec![OpData::default().with_key(text("k")).with_value(1.0)]);
            frame(key, v, client, &AlterClientQuotasRequest::default().with_entries(vec![entry]))
        }
        ApiKey::AlterUserScramCredentials => {
            use alter_user_scram_credentials_request::{ScramCredentialDeletion, ScramCredentialUpsertion};
            let set = ScramCredentialUpsertion::default()
                .with_name(text("u"))
                .with_salt(Bytes::from_static(b"salt"))
                .with_salted_password(Bytes::from_static(b"salted"));
            let message = AlterUserScramCredentialsRequest::default()
                .with_deletions(vec![ScramCredentialDeletion::default().with_name(text("w"))])
                .with_upsertions(vec![set]);
            frame(key, v, client, &message)
        }
        ApiKey::CreateAcls => {
            use create_acls_request::AclCreation;
            let acl = AclCreation::default().with_resource_type(2).with_resource_name(text("a")).with_host(text("*"));
            let acl = acl.with_resource_pattern_type(3).with_principal(text("User:u"));
            frame(key, v, client, &CreateAclsRequest::default().with_creations(vec![acl.clone(), acl]))
        }
        ApiKey::DeleteAcls => {
            use delete_acls_request::DeleteAclsFilter;
            let acl = DeleteAclsFilter::default().with_resource_name_filter(Some(text("a"))).with_host_filter(None);
            let acl = acl.with_pattern_type_filter(3).with_principal_filter(Some(text("User:u")));
            frame(key, v, client, &DeleteAclsRequest::default().with_filters(vec![acl.clone(), acl]))
        }
        ApiKey::InitializeShareGroupState => {
            states!(InitializeShareGroupStateRequest, initialize_share_group_state_request::InitializeStateData)
        }
        ApiKey::ReadShareGroupState => {
            states!(ReadShareGroupStateRequest, read_share_group_state_request::ReadStateData)
        }
        ApiKey::ReadShareGroupStateSummary => {
            states!(ReadShareGroupStateSummaryRequest, read_share_group_state_summary_request::ReadStateSummaryData)
        }
        ApiKey::DeleteShareGroupState => {
            states!(DeleteShareGroupStateRequest, delete_share_group_state_request::DeleteStateData)
        }
        ApiKey::WriteShareGroupState => {
            use write_share_group_state_request::{PartitionData, StateBatch, WriteStateData};
            let partition = PartitionData::default().with_state_batches(vec![StateBatch::default(); 2]);
            let topic = WriteStateData::default().with_partitions(vec![partition]);
            let message = WriteShareGroupStateRequest::default().with_group_id(text("g")).with_topics(vec![topic]);
            frame(key, v, client, &message)
        }
        _ => return None,
    })
}
