//! What is answered in the broker's place?
//!
//! The same that a broker answers to somebody who may not ask: the kind's own layout, with an error where the kind has
//! a place for it. Kinds without an answer (those of brokers among themselves before Kafka 4) get none.

mod cluster;
mod parts;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Encodable, StrBytes};
use l7::kafka::{
    CLUSTER_AUTHORIZATION_FAILED as CLUSTER, FETCH_SESSION_ID_NOT_FOUND, GROUP_AUTHORIZATION_FAILED as GROUP,
    Judgement, Request, TOPIC_AUTHORIZATION_FAILED as TOPIC,
};

/// A request with more topics and partitions than this gets no answer, which would be as long.
const MOST_ELEMENTS: usize = 20_000;

/// `TRANSACTIONAL_ID_AUTHORIZATION_FAILED`
const TRANSACTION: i16 = 53;
/// `SASL_AUTHENTICATION_FAILED`
const SASL: i16 = 58;
/// `DELEGATION_TOKEN_AUTHORIZATION_FAILED`
const TOKEN: i16 = 65;

/// A message with these fields, and all others as they are without a value.
macro_rules! made {
    ($message:ty { $($field:ident: $value:expr),* $(,)? }) => {{
        let mut message = <$message>::default();
        $(message.$field = $value;)*
        message
    }};
}

/// One of those for each of a list.
macro_rules! each {
    ($list:expr, $one:ident => $message:ty { $($fields:tt)* }) => {
        $list.into_iter().map(|$one| made!($message { $($fields)* })).collect()
    };
}
use {each, made};

/// The answer to a request that no rule allows, with its length, and the error in it.
pub fn denied(request: &Request<'_>, judgement: &Judgement) -> Option<(Vec<u8>, i16)> {
    // What was not read to its end here must not be read by a library that trusts lengths.
    if judgement.malformed.is_some() || judgement.facts.elements > MOST_ELEMENTS {
        return None;
    }
    let key = ApiKey::try_from(request.key).ok()?;
    let response = at_the_top(key, request.version).or_else(|| {
        let body = &mut Bytes::copy_from_slice(request.body());
        parts::answer(RequestKind::decode(key, body, request.version).ok()?, request.version)
    });
    Some((write(request, &response?)?, error_of(key)))
}

/// The answer to a Fetch request that goes on with a session.
pub fn no_session(request: &Request<'_>) -> Option<Vec<u8>> {
    write(request, &FetchResponse::default().with_error_code(FETCH_SESSION_ID_NOT_FOUND).into())
}

fn write(request: &Request<'_>, response: &ResponseKind) -> Option<Vec<u8>> {
    let mut bytes = BytesMut::from(&[0; 4][..]);
    let header = ResponseHeader::default().with_correlation_id(request.correlation);
    header.encode(&mut bytes, response.header_version(request.version)).ok()?;
    response.encode(&mut bytes, request.version).ok()?;
    let length = i32::try_from(bytes.len() - 4).ok()?;
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    Some(bytes.to_vec())
}

/// What somebody lacks who may not ask this.
fn error_of(key: ApiKey) -> i16 {
    use ApiKey as K;
    match key {
        K::Produce | K::Fetch | K::ListOffsets | K::Metadata | K::OffsetCommit | K::OffsetFetch => TOPIC,
        K::CreateTopics | K::DeleteTopics | K::DeleteRecords | K::CreatePartitions | K::OffsetForLeaderEpoch => TOPIC,
        K::AddPartitionsToTxn | K::TxnOffsetCommit | K::OffsetDelete => TOPIC,
        K::DescribeConfigs | K::AlterConfigs | K::IncrementalAlterConfigs => TOPIC,
        K::DescribeProducers | K::DescribeTopicPartitions => TOPIC,
        K::FindCoordinator | K::JoinGroup | K::Heartbeat | K::LeaveGroup | K::SyncGroup => GROUP,
        K::DescribeGroups | K::ListGroups | K::DeleteGroups => GROUP,
        K::ConsumerGroupHeartbeat | K::ConsumerGroupDescribe => GROUP,
        K::ShareGroupHeartbeat | K::ShareGroupDescribe | K::ShareFetch | K::ShareAcknowledge => GROUP,
        K::DescribeShareGroupOffsets | K::AlterShareGroupOffsets | K::DeleteShareGroupOffsets => GROUP,
        K::AddOffsetsToTxn | K::EndTxn | K::DescribeTransactions | K::ListTransactions => TRANSACTION,
        K::CreateDelegationToken | K::RenewDelegationToken => TOKEN,
        K::ExpireDelegationToken | K::DescribeDelegationToken => TOKEN,
        K::SaslAuthenticate => SASL,
        _ => CLUSTER,
    }
}

/// Kinds with one error for all, whatever was asked: nothing of the request is needed for it.
fn at_the_top(key: ApiKey, version: i16) -> Option<ResponseKind> {
    macro_rules! plain {
        ($($kind:ident $response:ident),* $(,)?) => {
            match key {
                $(ApiKey::$kind => $response::default().with_error_code(error_of(key)).into(),)*
                // The name could not be absent before version 7.
                ApiKey::JoinGroup => JoinGroupResponse::default()
                    .with_error_code(GROUP)
                    .with_generation_id(-1)
                    .with_protocol_name((version < 7).then(StrBytes::default))
                    .into(),
                ApiKey::InitProducerId => InitProducerIdResponse::default()
                    .with_error_code(CLUSTER)
                    .with_producer_id((-1).into())
                    .with_producer_epoch(-1)
                    .into(),
                _ => return None,
            }
        };
    }
    Some(plain! {
        Heartbeat HeartbeatResponse,
        LeaveGroup LeaveGroupResponse,
        SyncGroup SyncGroupResponse,
        ListGroups ListGroupsResponse,
        ConsumerGroupHeartbeat ConsumerGroupHeartbeatResponse,
        ShareGroupHeartbeat ShareGroupHeartbeatResponse,
        ShareFetch ShareFetchResponse,
        ShareAcknowledge ShareAcknowledgeResponse,
        AlterShareGroupOffsets AlterShareGroupOffsetsResponse,
        DeleteShareGroupOffsets DeleteShareGroupOffsetsResponse,
        SaslHandshake SaslHandshakeResponse,
        SaslAuthenticate SaslAuthenticateResponse,
        ApiVersions ApiVersionsResponse,
        AddOffsetsToTxn AddOffsetsToTxnResponse,
        EndTxn EndTxnResponse,
        ListTransactions ListTransactionsResponse,
        DescribeAcls DescribeAclsResponse,
        CreateDelegationToken CreateDelegationTokenResponse,
        RenewDelegationToken RenewDelegationTokenResponse,
        ExpireDelegationToken ExpireDelegationTokenResponse,
        DescribeDelegationToken DescribeDelegationTokenResponse,
        AlterPartitionReassignments AlterPartitionReassignmentsResponse,
        ListPartitionReassignments ListPartitionReassignmentsResponse,
        DescribeClientQuotas DescribeClientQuotasResponse,
        DescribeUserScramCredentials DescribeUserScramCredentialsResponse,
        DescribeCluster DescribeClusterResponse,
        UpdateFeatures UpdateFeaturesResponse,
        ListConfigResources ListConfigResourcesResponse,
        GetTelemetrySubscriptions GetTelemetrySubscriptionsResponse,
        PushTelemetry PushTelemetryResponse,
        Vote VoteResponse,
        BeginQuorumEpoch BeginQuorumEpochResponse,
        EndQuorumEpoch EndQuorumEpochResponse,
        DescribeQuorum DescribeQuorumResponse,
        FetchSnapshot FetchSnapshotResponse,
        AddRaftVoter AddRaftVoterResponse,
        RemoveRaftVoter RemoveRaftVoterResponse,
        UpdateRaftVoter UpdateRaftVoterResponse,
        AlterPartition AlterPartitionResponse,
        Envelope EnvelopeResponse,
        BrokerRegistration BrokerRegistrationResponse,
        BrokerHeartbeat BrokerHeartbeatResponse,
        UnregisterBroker UnregisterBrokerResponse,
        ControllerRegistration ControllerRegistrationResponse,
        AllocateProducerIds AllocateProducerIdsResponse,
        AssignReplicasToDirs AssignReplicasToDirsResponse,
    })
}

#[cfg(test)]
mod tests;
