//! Are requests to Kafka read as the protocol's own library writes them, and judged as the rules say?
#![allow(clippy::unwrap_used)]

#[path = "kafka/messages.rs"]
mod messages;

use std::collections::BTreeSet;

use bytes::BytesMut;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable};
use l7::kafka::{Api, Malformed, Request, Rule, Rules, Said, Verdict, all, by_name, name_of, offer};
use messages::{frame, request, text};
use proptest::prelude::*;

fn topics_of(bytes: &[u8]) -> (Vec<String>, usize, Result<(), Malformed>) {
    let (mut named, mut unnamed) = (Vec::new(), 0);
    let read = Request::read(bytes).unwrap();
    let (_, result) = read.walk(|said| match said {
        Said::Topic(topic) => named.push(String::from_utf8(topic.to_vec()).unwrap()),
        Said::Unnamed => unnamed += 1,
    });
    (named, unnamed, result)
}

/// Versions that are not read, because topics are numbers there, or because what follows is no request.
fn by_number(key: ApiKey, version: i16) -> bool {
    match key {
        ApiKey::Produce | ApiKey::Fetch => version >= 13,
        ApiKey::OffsetCommit | ApiKey::OffsetFetch => version >= 10,
        ApiKey::SaslHandshake => version == 0,
        _ => false,
    }
}

#[test]
fn all_that_the_library_knows_is_known() {
    for number in 0..=200 {
        let Ok(key) = ApiKey::try_from(number) else { continue };
        let api = all().iter().find(|api| api.key == number).unwrap_or_else(|| panic!("{key:?}"));
        let name = format!("{key:?}").to_lowercase();
        assert_eq!(by_name(&name).map(|api| api.key), Some(number), "{name}");
        let valid = key.valid_versions();
        let read: Vec<i16> = (valid.min..=valid.max).filter(|version| !by_number(key, *version)).collect();
        assert_eq!(read, (api.first..=api.last).collect::<Vec<_>>(), "{key:?}");
        for version in read {
            assert_eq!(api.is_flexible(version), key.request_header_version(version) == 2, "{key:?} {version}");
        }
    }
    assert_eq!((by_name("ListOffsets").unwrap().key, by_name("offsets").unwrap().key), (2, 2));
    assert_eq!((name_of(0), name_of(999)), ("produce".to_owned(), "999".to_owned()));
    assert!(by_name("nosuch").is_none());
}

/// All kinds whose bodies are read, in all versions.
fn each_read(check: &mut dyn FnMut(ApiKey, i16, &Api)) {
    for api in all() {
        let Ok(key) = ApiKey::try_from(api.key) else { continue };
        for version in api.first..=api.last {
            if request(key, version, false, &[]).is_some() {
                check(key, version, api);
            }
        }
    }
}

/// Kinds that need a rule without a topic, though their bodies are read.
fn is_of_the_cluster(key: ApiKey) -> bool {
    let name = format!("{key:?}");
    name.ends_with("eAcls") || (name.contains("ShareGroupState"))
}

#[test]
fn bodies_are_read_to_their_end_and_no_further() {
    let topics = ["a".to_owned(), "b.c-d_e".to_owned()];
    let mut kinds = BTreeSet::new();
    each_read(&mut |key, version, api| {
        kinds.insert(api.key);
        let topics = if api.has_topics() && !is_of_the_cluster(key) { &topics[..] } else { &[] };
        let bytes = request(key, version, api.is_flexible(version), topics).unwrap();
        let header = Request::read(&bytes).unwrap();
        assert_eq!((header.key, header.version, header.correlation), (api.key, version, 4711));
        assert_eq!(header.client, b"a client");
        let (mut named, unnamed, result) = topics_of(&bytes);
        let cluster = usize::from(is_of_the_cluster(key));
        assert_eq!((unnamed, result), (cluster, Ok(())), "{key:?} {version}");
        // Some name them twice: per group, per transaction, in a cursor.
        named.retain(|topic| topic != "forgotten");
        let named: BTreeSet<String> = named.into_iter().collect();
        assert_eq!(named, topics.iter().cloned().collect(), "{key:?} {version}");
        let start = bytes.len() - header.body().len();
        for end in start..bytes.len() {
            assert!(topics_of(&bytes[..end]).2.is_err(), "{key:?} {version} cut at {end}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(topics_of(&longer).2, Err(Malformed::Trailing), "{key:?} {version}");
    });
    assert_eq!(kinds.len(), 42, "{kinds:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn topics_are_those_that_were_written(topics in proptest::collection::btree_set("[a-z._-]{1,60}", 0..4)) {
        let topics: Vec<String> = topics.into_iter().collect();
        each_read(&mut |key, version, api| {
            let bytes = request(key, version, api.is_flexible(version), &topics).unwrap();
            let (named, unnamed, result) = topics_of(&bytes);
            let named: BTreeSet<String> = named.into_iter().filter(|topic| topic != "forgotten").collect();
            assert_eq!(result, Ok(()));
            let cluster = is_of_the_cluster(key);
            assert_eq!(named, topics.iter().filter(|_| api.has_topics() && !cluster).cloned().collect());
            // No topics at all mean all of them in the oldest Metadata.
            let all = topics.is_empty() && key == ApiKey::Metadata && version == 0;
            assert_eq!(unnamed > 0, all || cluster, "{key:?} {version}");
        });
    }

    /// A plainer way to the same answer: each topic by itself, each rule in turn, with the words of the rules.
    #[test]
    fn rules_are_met_as_a_plain_reading_of_them_has_it(
        rules in proptest::collection::vec(rule(), 0..5),
        topics in proptest::collection::btree_set("[abc]", 0..3),
        client in proptest::option::of("[xy]"),
    ) {
        let topics: Vec<String> = topics.into_iter().collect();
        let (judge, problems) = Rules::new(&rules);
        assert!(problems.is_empty(), "{problems:?}");
        for (key, version) in [(ApiKey::Produce, 5), (ApiKey::Metadata, 9), (ApiKey::OffsetCommit, 8)] {
            let mut bytes = request(key, version, version > 7, &topics).unwrap();
            let header = Request::read(&bytes).unwrap();
            let body = header.body().to_vec();
            // Another client's name, in place of the one in the header.
            bytes.truncate(8);
            match &client {
                Some(name) => bytes.extend([&1i16.to_be_bytes()[..], name.as_bytes()].concat()),
                None => bytes.extend((-1i16).to_be_bytes()),
            }
            bytes.extend(if version > 7 { &[0][..] } else { &[] });
            bytes.extend(body);
            let name = client.clone().unwrap_or_default();
            check_plainly(&judge, &rules, &bytes, key, version, &name, &topics);
        }
        let heartbeat = HeartbeatRequest::default();
        let bytes = frame(ApiKey::Heartbeat, 3, client.as_deref(), &heartbeat);
        check_plainly(&judge, &rules, &bytes, ApiKey::Heartbeat, 3, &client.clone().unwrap_or_default(), &[]);
    }

    #[test]
    fn whatever_comes_is_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), key in 0i16..100, version in 0i16..14) {
        let mut framed = [key.to_be_bytes(), version.to_be_bytes(), [0, 0], [0, 1]].concat();
        framed.extend(bytes);
        if let Ok(request) = Request::read(&framed) {
            let (facts, _) = request.walk(|_| {});
            // No list is longer than the bytes that it is written with.
            assert!(facts.elements <= framed.len());
        }
    }
}

fn rule() -> impl Strategy<Value = crds::KafkaRule> {
    let pick =
        |words: &'static [&'static str]| proptest::option::of(proptest::sample::select(words).prop_map(str::to_owned));
    let what = prop_oneof![
        pick(&["produce", "Consume"]).prop_map(|role| (role, None)),
        pick(&["produce", "Metadata", "offsetcommit", "heartbeat"]).prop_map(|key| (None, key)),
    ];
    (what, pick(&["5", "9"]), pick(&["x", "y"]), pick(&["a", "b", "c"])).prop_map(
        |((role, api_key), api_version, client_id, topic)| crds::KafkaRule {
            role,
            api_key,
            api_version,
            client_id,
            topic,
        },
    )
}

fn check_plainly(
    judge: &Rules,
    rules: &[crds::KafkaRule],
    bytes: &[u8],
    key: ApiKey,
    version: i16,
    client: &str,
    topics: &[String],
) {
    let name = format!("{key:?}").to_lowercase();
    let fits = |rule: &crds::KafkaRule, topic: Option<&str>| {
        let role = match rule.role.as_deref() {
            None => true,
            Some("produce") => ["produce", "metadata", "apiversions"].contains(&name.as_str()),
            Some(_) => {
                "fetch offsets metadata offsetcommit offsetfetch findcoordinator joingroup heartbeat leavegroup \
                        syncgroup apiversions"
                    .split_whitespace()
                    .any(|one| one == name)
            }
        };
        role && rule.api_key.as_ref().is_none_or(|one| one.to_lowercase() == name)
            && rule.api_version.as_ref().is_none_or(|one| *one == version.to_string())
            && rule.client_id.as_ref().is_none_or(|one| one == client)
            && topic.is_none_or(|topic| rule.topic.as_ref().is_none_or(|one| one == topic))
    };
    let expected = match topics {
        [] => rules.iter().any(|rule| fits(rule, None)),
        topics => topics.iter().all(|topic| rules.iter().any(|rule| fits(rule, Some(topic)))),
    };
    let request = Request::read(bytes).unwrap();
    let mut heard = Vec::new();
    let judgement = judge.judge(&request, |topic, _| heard.push(String::from_utf8(topic.to_vec()).unwrap()));
    assert_eq!(judgement.malformed, None);
    assert_eq!(judgement.verdict == Verdict::Allowed { sessionless: None }, expected, "{key:?} {topics:?} {rules:?}");
    assert_eq!(heard, topics);
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    assert_eq!(judge.allow(&request, &names), expected);
}

fn rules(yaml: &str) -> Rules {
    let list: Vec<crds::KafkaRule> = serde_json::from_str(yaml).unwrap();
    let (rules, problems) = Rules::new(&list);
    assert!(problems.is_empty(), "{problems:?}");
    rules
}

fn verdict(rules: &Rules, bytes: &[u8]) -> Verdict {
    rules.judge(&Request::read(bytes).unwrap(), |_, _| {}).verdict
}

const PASSES: Verdict = Verdict::Allowed { sessionless: None };

#[test]
fn topics_without_a_name_need_a_rule_without_a_topic() {
    let (one, any) = (rules(r#"[{"topic": "a"}]"#), rules(r#"[{"apiVersion": "12"}, {"apiVersion": "1"}]"#));
    let all = MetadataRequest::default().with_topics(None);
    let topic = metadata_request::MetadataRequestTopic::default();
    let numbered = topic.clone().with_topic_id(uuid::Uuid::from_u128(1)).with_name(None);
    let both = topic.with_topic_id(uuid::Uuid::from_u128(1)).with_name(Some(TopicName(text("a"))));
    for request in [
        all,
        MetadataRequest::default().with_topics(Some(vec![numbered])),
        MetadataRequest::default().with_topics(Some(vec![both])),
    ] {
        let bytes = frame(ApiKey::Metadata, 12, None, &request);
        assert_eq!((verdict(&one, &bytes), verdict(&any, &bytes)), (Verdict::Denied, PASSES), "{request:?}");
    }
    // The cluster's own configuration, beside a topic's.
    use describe_configs_request::DescribeConfigsResource;
    let of =
        |kind, name: &str| DescribeConfigsResource::default().with_resource_type(kind).with_resource_name(text(name));
    let resources =
        |list| frame(ApiKey::DescribeConfigs, 1, None, &DescribeConfigsRequest::default().with_resources(list));
    assert_eq!(verdict(&one, &resources(vec![of(2, "a")])), PASSES);
    assert_eq!(verdict(&one, &resources(vec![of(2, "a"), of(4, "1")])), Verdict::Denied);
    // What may name topics and is not read.
    let acls = frame(ApiKey::DescribeAcls, 1, None, &DescribeAclsRequest::default());
    assert_eq!((verdict(&one, &acls), verdict(&any, &acls)), (Verdict::Denied, PASSES));
}

#[test]
fn none_of_the_topics_asks_for_none() {
    let one = rules(r#"[{"role": "consume", "topic": "a"}]"#);
    let none = frame(ApiKey::Metadata, 4, None, &MetadataRequest::default().with_topics(Some(vec![])));
    assert_eq!(verdict(&one, &none), PASSES, "it asks for brokers");
    let other = rules(r#"[{"apiKey": "fetch", "topic": "a"}]"#);
    assert_eq!(verdict(&other, &none), Verdict::Denied);
}

#[test]
fn what_is_not_known_or_cannot_be_read_passes_only_where_all_does() {
    let (open, topicless) = (rules(r#"[{}, {"topic": "a"}]"#), rules(r#"[{"clientID": "a client"}]"#));
    let unknown = [500i16.to_be_bytes(), [0, 0], [0, 0], [0, 1], [0xff, 0xff]].concat();
    let numbered = frame(ApiKey::Fetch, 13, Some("a client"), &FetchRequest::default());
    let old = [&[0, 0, 0, 1, 0, 0, 0, 1, 0, 8][..], b"a client", &[0, 1]].concat();
    let mut cut = request(ApiKey::Produce, 7, false, &["a".to_owned()]).unwrap();
    cut.pop();
    let raw = frame(ApiKey::SaslHandshake, 0, Some("a client"), &SaslHandshakeRequest::default());
    for bytes in [unknown, numbered, old, cut, raw] {
        assert_eq!((verdict(&open, &bytes), verdict(&topicless, &bytes)), (PASSES, Verdict::Denied), "{bytes:?}");
    }
    assert_eq!(Request::read(&[0; 7]).unwrap_err(), Malformed::Short);
    // No rule at all.
    assert_eq!(
        verdict(&rules("[]"), &frame(ApiKey::ApiVersions, 0, None, &ApiVersionsRequest::default())),
        Verdict::Denied
    );
}

#[test]
fn lists_that_claim_to_be_long_cost_nothing() {
    let mut bytes = frame(ApiKey::Produce, 3, None, &ProduceRequest::default());
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&i32::MAX.to_be_bytes());
    let (facts, result) = Request::read(&bytes).unwrap().walk(|_| {});
    assert_eq!((facts.elements, result), (0, Err(Malformed::Short)));
    bytes[end - 4..].copy_from_slice(&(-2i32).to_be_bytes());
    assert_eq!(topics_of(&bytes).2, Err(Malformed::Within));
    let mut offsets = frame(ApiKey::OffsetDelete, 0, None, &OffsetDeleteRequest::default());
    let end = offsets.len();
    offsets[end - 4..].copy_from_slice(&(-1i32).to_be_bytes());
    assert_eq!(topics_of(&offsets).2, Err(Malformed::Within));
}

#[test]
fn sessions_of_fetching_are_not_begun_where_topics_matter() {
    use fetch_request::{FetchPartition, FetchTopic};
    let topic = FetchTopic::default().with_topic(TopicName(text("a"))).with_partitions(vec![FetchPartition::default()]);
    let fetch = |id, epoch, version: i16| {
        let message =
            FetchRequest::default().with_topics(vec![topic.clone()]).with_session_id(id).with_session_epoch(epoch);
        frame(ApiKey::Fetch, version, None, &message)
    };
    let (one, any) = (rules(r#"[{"role": "consume", "topic": "a"}]"#), rules(r#"[{"role": "consume"}]"#));
    for version in 7..=12 {
        let mut first = fetch(0, 0, version);
        let Verdict::Allowed { sessionless: Some(at) } = verdict(&one, &first) else { panic!("{version}") };
        assert_eq!(verdict(&any, &first), PASSES);
        let body = first.len() - Request::read(&first).unwrap().body().len();
        first[body + at..][..4].copy_from_slice(&(-1i32).to_be_bytes());
        assert_eq!(first, fetch(0, -1, version), "it is a request without a session");
        assert_eq!(verdict(&one, &first), PASSES);
        // Its topics were named in another request, maybe of another client.
        let later =
            frame(ApiKey::Fetch, version, None, &FetchRequest::default().with_session_id(9).with_session_epoch(3));
        assert_eq!((verdict(&one, &later), verdict(&any, &later)), (Verdict::Session, PASSES));
    }
}

#[test]
fn rules_say_what_is_wrong_with_them() {
    let wrong = |text: &str, expected: &str| {
        let (field, why) = Rule::new(&serde_json::from_str(text).unwrap()).unwrap_err();
        assert!(format!("{field}: {why}").contains(expected), "{field}: {why}");
    };
    wrong(
        r#"{"role": "produce", "apiKey": "fetch"}"#,
        r#"role: cannot set both Role "produce" and APIKey "fetch" together"#,
    );
    wrong(r#"{"role": "admin"}"#, r#"role: invalid Kafka Role "admin""#);
    wrong(r#"{"apiKey": "nosuch"}"#, r#"apiKey: invalid Kafka APIKey "nosuch""#);
    for version in ["x", "-1", "32768", "1.0"] {
        wrong(&format!(r#"{{"apiVersion": "{version}"}}"#), "apiVersion: invalid Kafka APIVersion");
    }
    wrong(
        &format!(r#"{{"topic": "{}"}}"#, "a".repeat(256)),
        "topic: kafka topic exceeds maximum len of 255; found 256",
    );
    for topic in ["a b", "a/b", "a*", "ä", "a\\\\b"] {
        wrong(&format!(r#"{{"topic": "{topic}"}}"#), "topic: invalid Kafka Topic name");
    }
    let right = |text: &str| Rule::new(&serde_json::from_str(text).unwrap()).unwrap();
    assert!(right("{}").is_open() && right(r#"{"role": "", "topic": ""}"#).is_open());
    assert_eq!(right(r#"{"apiKey": "Heartbeat", "topic": "a"}"#).topic_without_use(), Some("heartbeat"));
    assert_eq!(right(&format!(r#"{{"apiKey": "fetch", "topic": "{}"}}"#, "a".repeat(255))).topic_without_use(), None);
}

#[test]
fn clients_learn_of_versions_that_are_read_here() {
    use api_versions_response::ApiVersion;
    let of =
        |key: i16, first, last| ApiVersion::default().with_api_key(key).with_min_version(first).with_max_version(last);
    let told = vec![of(0, 0, 13), of(1, 4, 18), of(17, 0, 1), of(18, 0, 4), of(3, 0, 20), of(500, 0, 1), of(8, 10, 12)];
    for version in 0..=4 {
        let mut answer = ApiVersionsResponse::default()
            .with_api_keys(told.clone())
            .with_throttle_time_ms(if version > 0 { 7 } else { 0 });
        if version >= 3 {
            let feature =
                api_versions_response::SupportedFeatureKey::default().with_name(text("f")).with_max_version(3);
            answer = answer.with_supported_features(vec![feature]).with_finalized_features_epoch(12);
        }
        let mut bytes = BytesMut::new();
        answer.encode(&mut bytes, version).unwrap();
        for (unknown, count) in [(false, 5), (true, 6)] {
            let told = offer(&bytes, version, unknown).unwrap();
            let read = ApiVersionsResponse::decode(&mut bytes::Bytes::from(told), version).unwrap();
            let ranges: Vec<_> =
                read.api_keys.iter().map(|one| (one.api_key, one.min_version, one.max_version)).collect();
            assert_eq!(ranges[..5], [(0, 3, 12), (1, 4, 12), (17, 1, 1), (18, 0, 4), (3, 0, 13)]);
            assert_eq!(ranges.len(), count);
            assert_eq!(
                (read.throttle_time_ms, &read.supported_features, read.finalized_features_epoch),
                (answer.throttle_time_ms, &answer.supported_features, answer.finalized_features_epoch)
            );
        }
    }
    // A broker that does not know the version answers in the layout of version 0.
    let mut bytes = BytesMut::new();
    ApiVersionsResponse::default().with_error_code(35).with_api_keys(told).encode(&mut bytes, 0).unwrap();
    let told = offer(&bytes, 4, false).unwrap();
    let read = ApiVersionsResponse::decode(&mut bytes::Bytes::from(told), 0).unwrap();
    assert_eq!((read.error_code, read.api_keys.len()), (35, 5));
    assert!(offer(&bytes[..9], 0, false).is_err());
    assert!(offer(&[0, 0, 0x7f, 0xff, 0xff, 0xff], 0, false).is_err(), "a list that claims to be long");
}
