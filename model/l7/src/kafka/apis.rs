//! Which requests are there, in which versions, and do they name topics?

use super::schema::{self, Field};

/// A kind of request: a row of <https://kafka.apache.org/protocol#protocol_api_keys>.
#[derive(Debug)]
pub struct Api {
    /// Its number.
    pub key: i16,
    /// Its name, as rules have it.
    pub name: &'static str,
    /// The first version that is read here.
    pub first: i16,
    /// The last one that is read here. Later ones name topics by numbers, or are not known.
    pub last: i16,
    /// The first version with tagged fields in its header and its body; behind `last`, if there is none.
    pub(super) flexible: i16,
    pub(super) body: Body,
}

/// What is known of topics in a body.
#[derive(Debug)]
pub(super) enum Body {
    /// It has none: rules' topics do not matter.
    Plain,
    /// It has none, and is read all the same: its parts come again in an answer.
    Checked(&'static [Field]),
    /// They are where the schema says.
    Read(&'static [Field]),
    /// It may have some, and is not read: only a rule without a topic allows it.
    Unread,
}

impl Api {
    const fn new(key: i16, name: &'static str, (first, last): (i16, i16), flexible: i16, body: Body) -> Api {
        Api { key, name, first, last, flexible, body }
    }

    /// True if this version's messages have tagged fields.
    pub fn is_flexible(&self, version: i16) -> bool {
        version >= self.flexible
    }

    /// True if requests of this kind may name topics.
    pub fn has_topics(&self) -> bool {
        matches!(self.body, Body::Read(_) | Body::Unread)
    }
}

/// The kind with this number.
pub(super) fn by_key(key: i16) -> Option<&'static Api> {
    APIS.binary_search_by_key(&key, |api| api.key).ok().map(|at| &APIS[at])
}

/// All kinds, by number.
pub fn all() -> &'static [Api] {
    APIS
}

/// The kind with this name, in whatever case: Cilium's names, else the protocol's.
pub fn by_name(name: &str) -> Option<&'static Api> {
    let is = |known: &str| known.eq_ignore_ascii_case(name);
    if is("listoffsets") { by_key(2) } else { APIS.iter().find(|api| is(api.name)) }
}

/// The name of a kind, or its number, as Hubble shows it.
pub fn name_of(key: i16) -> String {
    by_key(key).map_or_else(|| key.to_string(), |api| api.name.to_owned())
}

/// There is no version with tagged fields.
const NEVER: i16 = i16::MAX;

use Body::{Checked, Plain, Read, Unread};

/// By number. Versions are those of Kafka 4; brokers before it took older ones too.
const APIS: &[Api] = &[
    Api::new(0, "produce", (3, 12), 9, Read(schema::PRODUCE)),
    Api::new(1, "fetch", (4, 12), 12, Read(schema::FETCH)),
    Api::new(2, "offsets", (1, 10), 6, Read(schema::LIST_OFFSETS)),
    Api::new(3, "metadata", (0, 13), 9, Read(schema::METADATA)),
    // Between brokers, before Kafka 4.
    Api::new(4, "leaderandisr", (0, 7), 4, Unread),
    Api::new(5, "stopreplica", (0, 4), 2, Unread),
    Api::new(6, "updatemetadata", (0, 8), 6, Unread),
    Api::new(7, "controlledshutdown", (1, 3), 3, Unread),
    Api::new(8, "offsetcommit", (2, 9), 8, Read(schema::OFFSET_COMMIT)),
    Api::new(9, "offsetfetch", (1, 9), 6, Read(schema::OFFSET_FETCH)),
    Api::new(10, "findcoordinator", (0, 6), 3, Checked(schema::FIND_COORDINATOR)),
    Api::new(11, "joingroup", (0, 9), 6, Plain),
    Api::new(12, "heartbeat", (0, 4), 4, Plain),
    Api::new(13, "leavegroup", (0, 5), 4, Plain),
    Api::new(14, "syncgroup", (0, 5), 4, Plain),
    Api::new(15, "describegroups", (0, 6), 5, Checked(schema::DESCRIBE_GROUPS)),
    Api::new(16, "listgroups", (0, 5), 3, Plain),
    // After version 0 come frames that are no requests.
    Api::new(17, "saslhandshake", (1, 1), NEVER, Plain),
    Api::new(18, "apiversions", (0, 4), 3, Plain),
    Api::new(19, "createtopics", (2, 7), 5, Read(schema::CREATE_TOPICS)),
    Api::new(20, "deletetopics", (1, 6), 4, Read(schema::DELETE_TOPICS)),
    Api::new(21, "deleterecords", (0, 2), 2, Read(schema::DELETE_RECORDS)),
    Api::new(22, "initproducerid", (0, 6), 2, Plain),
    Api::new(23, "offsetforleaderepoch", (2, 4), 4, Read(schema::OFFSET_FOR_LEADER_EPOCH)),
    Api::new(24, "addpartitionstotxn", (0, 5), 3, Read(schema::ADD_PARTITIONS_TO_TXN)),
    Api::new(25, "addoffsetstotxn", (0, 4), 3, Plain),
    Api::new(26, "endtxn", (0, 5), 3, Plain),
    Api::new(27, "writetxnmarkers", (1, 1), 1, Read(schema::WRITE_TXN_MARKERS)),
    Api::new(28, "txnoffsetcommit", (0, 5), 3, Read(schema::TXN_OFFSET_COMMIT)),
    Api::new(29, "describeacls", (1, 3), 2, Unread),
    Api::new(30, "createacls", (1, 3), 2, Read(schema::ACLS)),
    Api::new(31, "deleteacls", (1, 3), 2, Read(schema::ACLS)),
    Api::new(32, "describeconfigs", (1, 4), 4, Read(schema::DESCRIBE_CONFIGS)),
    Api::new(33, "alterconfigs", (0, 2), 2, Read(schema::ALTER_CONFIGS)),
    Api::new(34, "alterreplicalogdirs", (1, 2), 2, Read(schema::ALTER_REPLICA_LOG_DIRS)),
    Api::new(35, "describelogdirs", (1, 4), 2, Read(schema::DESCRIBE_LOG_DIRS)),
    Api::new(36, "saslauthenticate", (0, 2), 2, Plain),
    Api::new(37, "createpartitions", (0, 3), 2, Read(schema::CREATE_PARTITIONS)),
    Api::new(38, "createdelegationtoken", (1, 3), 2, Plain),
    Api::new(39, "renewdelegationtoken", (1, 2), 2, Plain),
    Api::new(40, "expiredelegationtoken", (1, 2), 2, Plain),
    Api::new(41, "describedelegationtoken", (1, 3), 2, Plain),
    Api::new(42, "deletegroups", (0, 2), 2, Checked(schema::NAMES)),
    Api::new(43, "electleaders", (0, 2), 2, Read(schema::ELECT_LEADERS)),
    Api::new(44, "incrementalalterconfigs", (0, 1), 1, Read(schema::INCREMENTAL_ALTER_CONFIGS)),
    Api::new(45, "alterpartitionreassignments", (0, 1), 0, Read(schema::ALTER_PARTITION_REASSIGNMENTS)),
    Api::new(46, "listpartitionreassignments", (0, 0), 0, Read(schema::LIST_PARTITION_REASSIGNMENTS)),
    Api::new(47, "offsetdelete", (0, 0), NEVER, Read(schema::OFFSET_DELETE)),
    Api::new(48, "describeclientquotas", (0, 1), 1, Plain),
    Api::new(49, "alterclientquotas", (0, 1), 1, Checked(schema::ALTER_CLIENT_QUOTAS)),
    Api::new(50, "describeuserscramcredentials", (0, 0), 0, Plain),
    Api::new(51, "alteruserscramcredentials", (0, 0), 0, Checked(schema::ALTER_USER_SCRAM_CREDENTIALS)),
    Api::new(52, "vote", (0, 2), 0, Unread),
    Api::new(53, "beginquorumepoch", (0, 1), 1, Unread),
    Api::new(54, "endquorumepoch", (0, 1), 1, Unread),
    Api::new(55, "describequorum", (0, 2), 0, Unread),
    Api::new(56, "alterpartition", (2, 3), 2, Unread),
    Api::new(57, "updatefeatures", (0, 2), 0, Plain),
    // A whole request within.
    Api::new(58, "envelope", (0, 0), 0, Unread),
    Api::new(59, "fetchsnapshot", (0, 1), 0, Unread),
    Api::new(60, "describecluster", (0, 2), 0, Plain),
    Api::new(61, "describeproducers", (0, 0), 0, Read(schema::DESCRIBE_PRODUCERS)),
    Api::new(62, "brokerregistration", (0, 4), 0, Unread),
    Api::new(63, "brokerheartbeat", (0, 1), 0, Unread),
    Api::new(64, "unregisterbroker", (0, 0), 0, Unread),
    Api::new(65, "describetransactions", (0, 0), 0, Checked(schema::NAMES)),
    Api::new(66, "listtransactions", (0, 2), 0, Plain),
    Api::new(67, "allocateproducerids", (0, 0), 0, Unread),
    Api::new(68, "consumergroupheartbeat", (0, 1), 0, Read(schema::CONSUMER_GROUP_HEARTBEAT)),
    Api::new(69, "consumergroupdescribe", (0, 1), 0, Checked(schema::DESCRIBE_NEW_GROUPS)),
    Api::new(70, "controllerregistration", (0, 0), 0, Unread),
    Api::new(71, "gettelemetrysubscriptions", (0, 0), 0, Plain),
    Api::new(72, "pushtelemetry", (0, 0), 0, Plain),
    Api::new(73, "assignreplicastodirs", (0, 0), 0, Unread),
    Api::new(74, "listconfigresources", (0, 1), 0, Plain),
    Api::new(75, "describetopicpartitions", (0, 0), 0, Read(schema::DESCRIBE_TOPIC_PARTITIONS)),
    Api::new(76, "sharegroupheartbeat", (1, 1), 1, Unread),
    Api::new(77, "sharegroupdescribe", (1, 1), 1, Checked(schema::DESCRIBE_NEW_GROUPS)),
    Api::new(78, "sharefetch", (1, 1), 1, Unread),
    Api::new(79, "shareacknowledge", (1, 1), 1, Unread),
    Api::new(80, "addraftvoter", (0, 0), 0, Unread),
    Api::new(81, "removeraftvoter", (0, 0), 0, Unread),
    Api::new(82, "updateraftvoter", (0, 0), 0, Unread),
    Api::new(83, "initializesharegroupstate", (0, 0), 0, Read(schema::INITIALIZE_SHARE_STATE)),
    Api::new(84, "readsharegroupstate", (0, 0), 0, Read(schema::READ_SHARE_STATE)),
    Api::new(85, "writesharegroupstate", (0, 0), 0, Read(schema::WRITE_SHARE_STATE)),
    Api::new(86, "deletesharegroupstate", (0, 0), 0, Read(schema::DELETE_SHARE_STATE)),
    Api::new(87, "readsharegroupstatesummary", (0, 0), 0, Read(schema::READ_SHARE_STATE)),
    Api::new(90, "describesharegroupoffsets", (0, 0), 0, Read(schema::DESCRIBE_SHARE_GROUP_OFFSETS)),
    Api::new(91, "altersharegroupoffsets", (0, 0), 0, Unread),
    Api::new(92, "deletesharegroupoffsets", (0, 0), 0, Unread),
];
