//! Which kinds about the cluster, its brokers and its settings tell the error of each thing that was asked for?

use kafka_protocol::messages::*;

use super::{CLUSTER, TOPIC, each, made};

/// Kinds that are about the cluster, its brokers and its settings.
pub fn answer(asked: RequestKind, version: i16) -> Option<ResponseKind> {
    Some(match asked {
        RequestKind::DescribeConfigs(asked) => {
            use describe_configs_response::*;
            made!(DescribeConfigsResponse {
                results: each!(asked.resources, one => DescribeConfigsResult {
                    error_code: of_resource(one.resource_type),
                    resource_type: one.resource_type,
                    resource_name: one.resource_name,
                })
            })
            .into()
        }
        RequestKind::AlterConfigs(asked) => {
            use alter_configs_response::*;
            made!(AlterConfigsResponse {
                responses: each!(asked.resources, one => AlterConfigsResourceResponse {
                    error_code: of_resource(one.resource_type),
                    resource_type: one.resource_type,
                    resource_name: one.resource_name,
                })
            })
            .into()
        }
        RequestKind::IncrementalAlterConfigs(asked) => {
            use incremental_alter_configs_response::*;
            made!(IncrementalAlterConfigsResponse {
                responses: each!(asked.resources, one => AlterConfigsResourceResponse {
                    error_code: of_resource(one.resource_type),
                    resource_type: one.resource_type,
                    resource_name: one.resource_name,
                }),
            })
            .into()
        }
        RequestKind::AlterReplicaLogDirs(asked) => {
            use alter_replica_log_dirs_response::*;
            let topics = asked.dirs.into_iter().flat_map(|dir| dir.topics);
            made!(AlterReplicaLogDirsResponse {
                results: each!(topics, topic => AlterReplicaLogDirTopicResult {
                    topic_name: topic.name,
                    partitions: each!(topic.partitions, index => AlterReplicaLogDirPartitionResult {
                        partition_index: index, error_code: CLUSTER,
                    }),
                })
            })
            .into()
        }
        RequestKind::DescribeLogDirs(_) if version >= 3 => {
            made!(DescribeLogDirsResponse { error_code: CLUSTER }).into()
        }
        RequestKind::DescribeLogDirs(_) => {
            let result = made!(describe_log_dirs_response::DescribeLogDirsResult { error_code: CLUSTER });
            made!(DescribeLogDirsResponse { results: vec![result] }).into()
        }
        RequestKind::ElectLeaders(asked) => {
            use elect_leaders_response::*;
            made!(ElectLeadersResponse {
                error_code: if version >= 1 { CLUSTER } else { 0 },
                replica_election_results: each!(asked.topic_partitions.unwrap_or_default(), topic => ReplicaElectionResult {
                    topic: topic.topic,
                    partition_result: each!(topic.partitions, index => PartitionResult {
                        partition_id: index, error_code: CLUSTER,
                    }),
                }),
            })
            .into()
        }
        RequestKind::CreateAcls(asked) => {
            use create_acls_response::*;
            made!(CreateAclsResponse {
                results: each!(asked.creations, _one => AclCreationResult {
                    error_code: CLUSTER,
                })
            })
            .into()
        }
        RequestKind::DeleteAcls(asked) => {
            use delete_acls_response::*;
            made!(DeleteAclsResponse {
                filter_results: each!(asked.filters, _one => DeleteAclsFilterResult {
                    error_code: CLUSTER,
                })
            })
            .into()
        }
        RequestKind::AlterClientQuotas(asked) => {
            use alter_client_quotas_response::*;
            made!(AlterClientQuotasResponse {
                entries: each!(asked.entries, entry => EntryData {
                    error_code: CLUSTER,
                    entity: each!(entry.entity, one => EntityData {
                        entity_type: one.entity_type, entity_name: one.entity_name,
                    }),
                })
            })
            .into()
        }
        RequestKind::AlterUserScramCredentials(asked) => {
            use alter_user_scram_credentials_response::*;
            let users = asked.deletions.into_iter().map(|one| one.name);
            let users = users.chain(asked.upsertions.into_iter().map(|one| one.name));
            made!(AlterUserScramCredentialsResponse {
                results: each!(users, user => AlterUserScramCredentialsResult {
                    user: user, error_code: CLUSTER,
                })
            })
            .into()
        }
        other => return of_share_states(other),
    })
}

/// What brokers ask each other for share groups.
fn of_share_states(asked: RequestKind) -> Option<ResponseKind> {
    macro_rules! states {
        ($asked:ident, $messages:ident, $response:ident { $topic:ident }) => {{
            use $messages::*;
            made!($response { results: each!($asked.topics, topic => $topic {
                topic_id: topic.topic_id,
                partitions: each!(topic.partitions, one => PartitionResult {
                    partition: one.partition, error_code: CLUSTER,
                }),
            }) })
            .into()
        }};
    }
    Some(match asked {
        RequestKind::InitializeShareGroupState(asked) => states!(
            asked,
            initialize_share_group_state_response,
            InitializeShareGroupStateResponse { InitializeStateResult }
        ),
        RequestKind::ReadShareGroupState(asked) => {
            states!(asked, read_share_group_state_response, ReadShareGroupStateResponse { ReadStateResult })
        }
        RequestKind::WriteShareGroupState(asked) => {
            states!(asked, write_share_group_state_response, WriteShareGroupStateResponse { WriteStateResult })
        }
        RequestKind::DeleteShareGroupState(asked) => {
            states!(asked, delete_share_group_state_response, DeleteShareGroupStateResponse { DeleteStateResult })
        }
        RequestKind::ReadShareGroupStateSummary(asked) => states!(
            asked,
            read_share_group_state_summary_response,
            ReadShareGroupStateSummaryResponse { ReadStateSummaryResult }
        ),
        _ => return None,
    })
}

/// A topic, or something else of the cluster.
fn of_resource(kind: i8) -> i16 {
    if kind == 2 { TOPIC } else { CLUSTER }
}
