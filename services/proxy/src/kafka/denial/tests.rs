//! Has each kind a denial that its clients can read?
#![allow(clippy::unwrap_used)]

#[path = "../../../../../model/l7/tests/kafka/messages.rs"]
mod messages;

use kafka_protocol::protocol::Decodable;
use l7::kafka::Rules;
use proptest::prelude::*;

use super::*;

/// What is answered to this frame, of which no rule allows anything.
fn answered(frame: &[u8]) -> Option<(Vec<u8>, i16)> {
    let request = Request::read(frame).ok()?;
    denied(&request, &Rules::default().judge(&request, |_, _| {}))
}

#[test]
fn each_kind_has_a_denial_in_each_version_that_its_clients_can_read() {
    let mut answers = 0;
    for api in l7::kafka::all() {
        // The library has no messages of four kinds that brokers sent each other before Kafka 4.
        let Ok(key) = ApiKey::try_from(api.key) else {
            assert!((4..=7).contains(&api.key), "{}", api.name);
            continue;
        };
        for version in api.first..=api.last {
            let flexible = api.is_flexible(version);
            let topics = if api.has_topics() { &["a".to_owned(), "b".to_owned()][..] } else { &[] };
            // Kinds whose bodies do not matter for the answer are sent without one.
            let frame = messages::request(key, version, flexible, topics).unwrap_or_else(|| {
                let tags = if flexible { &[0][..] } else { &[] };
                [&api.key.to_be_bytes()[..], &version.to_be_bytes(), &4711i32.to_be_bytes(), &[0xff, 0xff], tags]
                    .concat()
            });
            let (bytes, error) = answered(&frame).unwrap_or_else(|| panic!("{key:?} {version} has no answer"));
            assert_eq!(bytes.len() - 4, usize::try_from(i32::from_be_bytes(bytes[..4].try_into().unwrap())).unwrap());
            let mut bytes = Bytes::copy_from_slice(&bytes[4..]);
            let header = ResponseHeader::decode(&mut bytes, key.response_header_version(version)).unwrap();
            let answer =
                ResponseKind::decode(key, &mut bytes, version).unwrap_or_else(|e| panic!("{key:?} {version}: {e}"));
            assert!(bytes.is_empty(), "{key:?} {version}: {bytes:?} follow");
            assert_eq!(header.correlation_id, 4711);
            let told = format!("{answer:?}");
            assert!(told.contains(&format!("error_code: {error}")), "{key:?} {version}, not {error}: {told}");
            // What was asked for comes again, where the layout has a place for it.
            let of_topics =
                matches!(error, TOPIC) || [ApiKey::AlterReplicaLogDirs, ApiKey::ElectLeaders].contains(&key);
            if of_topics {
                assert!(topics.iter().all(|topic| told.contains(&format!("{topic:?}"))), "{key:?} {version}: {told}");
            }
            answers += 1;
        }
    }
    assert!(answers > 230, "{answers}");
}

#[test]
fn errors_are_those_of_what_somebody_lacks() {
    let of = |name: &str| error_of(ApiKey::try_from(l7::kafka::by_name(name).unwrap().key).unwrap());
    assert_eq!(["produce", "fetch", "createtopics", "deleterecords"].map(of), [29; 4]);
    assert_eq!(["joingroup", "describegroups", "listgroups", "deletegroups"].map(of), [30; 4]);
    assert_eq!(["createacls", "describecluster", "initproducerid", "alterclientquotas"].map(of), [31; 4]);
    assert_eq!(["endtxn", "describetransactions"].map(of), [53; 2]);
    assert_eq!(["saslauthenticate", "createdelegationtoken"].map(of), [58, 65]);
}

proptest! {
    /// Whatever is read to its end can be given to the library: it takes no length from it that is not true.
    #[test]
    fn what_is_read_can_be_answered(
        key in 0i16..95,
        version in 0i16..14,
        body in proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(2), Just(0xff), any::<u8>()], 0..60),
    ) {
        let start = [&key.to_be_bytes()[..], &version.to_be_bytes(), &[0, 0, 0, 9], &[0xff, 0xff], &body].concat();
        if let Some((bytes, _)) = answered(&start) {
            assert_eq!(bytes.len() - 4, usize::try_from(i32::from_be_bytes(bytes[..4].try_into().unwrap())).unwrap());
            assert_eq!(bytes[4..8], [0, 0, 0, 9]);
        }
    }
}
