//! Where in a request's body are topics?
//!
//! From Kafka's message definitions (`clients/src/main/resources/common/message/*Request.json`). The tests hold each of
//! them against the crate `kafka-protocol`, which is made of the same.

/// A field of a message, and the versions that have it.
#[derive(Debug)]
pub(super) struct Field {
    pub kind: Kind,
    pub from: i16,
    pub to: i16,
}

/// What a field holds.
#[derive(Debug)]
pub(super) enum Kind {
    /// So many bytes.
    Fixed(usize),
    /// A text.
    Text,
    /// Bytes with their length.
    Blob,
    /// So many bytes for each element.
    Numbers(usize),
    /// Texts.
    Texts,
    /// The name of a topic.
    Topic,
    /// Names of topics; null names none.
    Topics,
    /// The number of a topic: 16 bytes, zero if it is named.
    TopicId,
    /// A kind of resource (one byte, 2 is a topic) and its name.
    Resource,
    /// A text that, if it is there, stands for any topics.
    Pattern,
    /// Structs one after the other.
    List(&'static [Field]),
    /// The same; null stands for all that there are.
    NullIsAll(&'static [Field]),
    /// The same; none stands for all that there are.
    EmptyIsAll(&'static [Field]),
    /// The same; null is as good as none.
    NullIsNone(&'static [Field]),
    /// One struct or null.
    Maybe(&'static [Field]),
    /// From how many replicas a producer wants to hear; 0: it gets no answer.
    Acks,
    /// Number of a fetch session; 0: none.
    Session,
    /// Where in its life a fetch session is.
    SessionEpoch,
    /// Nothing; what follows is of the cluster, or names topics in ways that rules do not know.
    Cluster,
}

use Kind::{
    Acks, Blob, Cluster, EmptyIsAll, Fixed, List, Maybe, NullIsAll, NullIsNone, Numbers, Pattern, Resource, Session,
    SessionEpoch, Text, Texts, Topic, TopicId, Topics,
};

const fn all(kind: Kind) -> Field {
    between(0, i16::MAX, kind)
}

const fn from(from: i16, kind: Kind) -> Field {
    between(from, i16::MAX, kind)
}

const fn until(to: i16, kind: Kind) -> Field {
    between(0, to, kind)
}

const fn between(from: i16, to: i16, kind: Kind) -> Field {
    Field { kind, from, to }
}

pub(super) const PRODUCE: &[Field] =
    &[all(Text), all(Acks), all(Fixed(4)), all(List(&[all(Topic), all(List(&[all(Fixed(4)), all(Blob)]))]))];

pub(super) const FETCH: &[Field] = &[
    all(Fixed(4 + 4 + 4 + 4 + 1)),
    from(7, Session),
    from(7, SessionEpoch),
    all(List(&[
        all(Topic),
        all(List(&[
            all(Fixed(4)),
            from(9, Fixed(4)),
            all(Fixed(8)),
            from(12, Fixed(4)),
            from(5, Fixed(8)),
            all(Fixed(4)),
        ])),
    ])),
    from(7, List(&[all(Topic), all(Numbers(4))])),
    from(11, Text),
];

pub(super) const LIST_OFFSETS: &[Field] = &[
    all(Fixed(4)),
    from(2, Fixed(1)),
    all(List(&[all(Topic), all(List(&[all(Fixed(4)), from(4, Fixed(4)), all(Fixed(8))]))])),
    from(10, Fixed(4)),
];

pub(super) const METADATA: &[Field] = &[
    until(0, EmptyIsAll(&[all(Topic)])),
    from(1, NullIsAll(&[from(10, TopicId), all(Topic)])),
    from(4, Fixed(1)),
    between(8, 10, Fixed(1)),
    from(8, Fixed(1)),
];

pub(super) const OFFSET_COMMIT: &[Field] = &[
    all(Text),
    all(Fixed(4)),
    all(Text),
    from(7, Text),
    until(4, Fixed(8)),
    all(List(&[all(Topic), all(List(&[all(Fixed(4)), all(Fixed(8)), from(6, Fixed(4)), all(Text)]))])),
];

const TOPIC_PARTITIONS: &[Field] = &[all(Topic), all(Numbers(4))];

pub(super) const OFFSET_FETCH: &[Field] = &[
    until(7, Text),
    until(7, NullIsAll(TOPIC_PARTITIONS)),
    from(8, List(&[all(Text), from(9, Text), from(9, Fixed(4)), all(NullIsAll(TOPIC_PARTITIONS))])),
    from(7, Fixed(1)),
];

pub(super) const FIND_COORDINATOR: &[Field] = &[until(3, Text), from(1, Fixed(1)), from(4, Texts)];

pub(super) const CREATE_TOPICS: &[Field] = &[
    all(List(&[
        all(Topic),
        all(Fixed(4 + 2)),
        all(List(&[all(Fixed(4)), all(Numbers(4))])),
        all(List(&[all(Text), all(Text)])),
    ])),
    all(Fixed(4 + 1)),
];

pub(super) const DELETE_TOPICS: &[Field] =
    &[from(6, List(&[all(Topic), all(TopicId)])), until(5, Topics), all(Fixed(4))];

pub(super) const DELETE_RECORDS: &[Field] = &[all(List(&[all(Topic), all(List(&[all(Fixed(4 + 8))]))])), all(Fixed(4))];

pub(super) const OFFSET_FOR_LEADER_EPOCH: &[Field] =
    &[from(3, Fixed(4)), all(List(&[all(Topic), all(List(&[all(Fixed(4 + 4 + 4))]))]))];

pub(super) const ADD_PARTITIONS_TO_TXN: &[Field] = &[
    from(4, List(&[all(Text), all(Fixed(8 + 2 + 1)), all(List(TOPIC_PARTITIONS))])),
    until(3, Text),
    until(3, Fixed(8 + 2)),
    until(3, List(TOPIC_PARTITIONS)),
];

pub(super) const TXN_OFFSET_COMMIT: &[Field] = &[
    all(Text),
    all(Text),
    all(Fixed(8 + 2)),
    from(3, Fixed(4)),
    from(3, Text),
    from(3, Text),
    all(List(&[all(Topic), all(List(&[all(Fixed(4 + 8)), from(2, Fixed(4)), all(Text)]))])),
];

pub(super) const DESCRIBE_CONFIGS: &[Field] =
    &[all(List(&[all(Resource), all(Texts)])), all(Fixed(1)), from(3, Fixed(1))];

pub(super) const ALTER_CONFIGS: &[Field] =
    &[all(List(&[all(Resource), all(List(&[all(Text), all(Text)]))])), all(Fixed(1))];

pub(super) const INCREMENTAL_ALTER_CONFIGS: &[Field] =
    &[all(List(&[all(Resource), all(List(&[all(Text), all(Fixed(1)), all(Text)]))])), all(Fixed(1))];

pub(super) const ALTER_REPLICA_LOG_DIRS: &[Field] = &[all(List(&[all(Text), all(List(TOPIC_PARTITIONS))]))];

pub(super) const DESCRIBE_LOG_DIRS: &[Field] = &[all(NullIsAll(TOPIC_PARTITIONS))];

pub(super) const CREATE_PARTITIONS: &[Field] =
    &[all(List(&[all(Topic), all(Fixed(4)), all(NullIsNone(&[all(Numbers(4))]))])), all(Fixed(4 + 1))];

pub(super) const ELECT_LEADERS: &[Field] = &[from(1, Fixed(1)), all(NullIsAll(TOPIC_PARTITIONS)), all(Fixed(4))];

pub(super) const ALTER_PARTITION_REASSIGNMENTS: &[Field] =
    &[all(Fixed(4)), from(1, Fixed(1)), all(List(&[all(Topic), all(List(&[all(Fixed(4)), all(Numbers(4))]))]))];

pub(super) const LIST_PARTITION_REASSIGNMENTS: &[Field] = &[all(Fixed(4)), all(NullIsAll(TOPIC_PARTITIONS))];

pub(super) const OFFSET_DELETE: &[Field] = &[all(Text), all(List(&[all(Topic), all(List(&[all(Fixed(4))]))]))];

pub(super) const DESCRIBE_PRODUCERS: &[Field] = &[all(List(TOPIC_PARTITIONS))];

/// Names that are absent stay as they were in the member's last one.
pub(super) const CONSUMER_GROUP_HEARTBEAT: &[Field] = &[
    all(Text),
    all(Text),
    all(Fixed(4)),
    all(Text),
    all(Text),
    all(Fixed(4)),
    all(Topics),
    from(1, Pattern),
    all(Text),
    all(NullIsNone(&[all(Fixed(16)), all(Numbers(4))])),
];

pub(super) const DESCRIBE_TOPIC_PARTITIONS: &[Field] =
    &[all(List(&[all(Topic)])), all(Fixed(4)), all(Maybe(&[all(Topic), all(Fixed(4))]))];

pub(super) const NAMES: &[Field] = &[all(Texts)];

pub(super) const DESCRIBE_GROUPS: &[Field] = &[all(Texts), from(3, Fixed(1))];

pub(super) const DESCRIBE_NEW_GROUPS: &[Field] = &[all(Texts), all(Fixed(1))];

pub(super) const DESCRIBE_SHARE_GROUP_OFFSETS: &[Field] = &[all(List(&[all(Text), all(NullIsAll(TOPIC_PARTITIONS))]))];

pub(super) const ALTER_CLIENT_QUOTAS: &[Field] =
    &[all(List(&[all(List(&[all(Text), all(Text)])), all(List(&[all(Text), all(Fixed(8 + 1))]))])), all(Fixed(1))];

pub(super) const ALTER_USER_SCRAM_CREDENTIALS: &[Field] =
    &[all(List(&[all(Text), all(Fixed(1))])), all(List(&[all(Text), all(Fixed(1 + 4)), all(Blob), all(Blob)]))];

pub(super) const WRITE_TXN_MARKERS: &[Field] =
    &[all(List(&[all(Fixed(8 + 2 + 1)), all(List(TOPIC_PARTITIONS)), all(Fixed(4))]))];

/// Of those that create access lists and of those that delete them.
pub(super) const ACLS: &[Field] =
    &[all(Cluster), all(List(&[all(Fixed(1)), all(Text), all(Fixed(1)), all(Text), all(Text), all(Fixed(2))]))];

pub(super) const INITIALIZE_SHARE_STATE: &[Field] =
    &[all(Cluster), all(Text), all(List(&[all(Fixed(16)), all(List(&[all(Fixed(4 + 4 + 8))]))]))];

/// Of those that read states and of those that read a summary of them.
pub(super) const READ_SHARE_STATE: &[Field] =
    &[all(Cluster), all(Text), all(List(&[all(Fixed(16)), all(List(&[all(Fixed(4 + 4))]))]))];

pub(super) const WRITE_SHARE_STATE: &[Field] = &[
    all(Cluster),
    all(Text),
    all(List(&[all(Fixed(16)), all(List(&[all(Fixed(4 + 4 + 4 + 8)), all(List(&[all(Fixed(8 + 8 + 1 + 2))]))]))])),
];

pub(super) const DELETE_SHARE_STATE: &[Field] =
    &[all(Cluster), all(Text), all(List(&[all(Fixed(16)), all(List(&[all(Fixed(4))]))]))];
