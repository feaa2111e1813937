//! Are questions and answers read as they are meant, and nothing else?
#![allow(clippy::unwrap_used)]

use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::svcb::{IpHint, SVCB, SvcParamKey, SvcParamValue};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, HTTPS};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use proptest::prelude::*;

use crate::{Mismatch, Question, Unfit, code, failure, read_answer, read_question};

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn question(text: &str, record_type: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.id = 7;
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name(text), record_type));
    message.set_edns(Edns::new());
    message
}

fn asked(text: &str, record_type: RecordType) -> Question {
    read_question(&question(text, record_type).to_vec().unwrap()).unwrap()
}

fn answer(to: &Question, records: Vec<Record>) -> Message {
    let mut message = Message::response(99, OpCode::Query);
    message.add_query(to.query.clone());
    message.insert_answers(records);
    message
}

fn a(owner: &str, ttl: u32, last: u8) -> Record {
    Record::from_rdata(name(owner), ttl, RData::A(A::new(192, 0, 2, last)))
}

fn alias(owner: &str, target: &str) -> Record {
    Record::from_rdata(name(owner), 60, RData::CNAME(CNAME(name(target))))
}

fn ip(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

#[test]
fn a_question_is_read_in_any_letters() {
    let read = asked("wWw.Example.COM.", RecordType::AAAA);
    assert_eq!((read.id, read.name(), read.record_type), (7, "www.example.com", RecordType::AAAA));
    assert_eq!(&**read.dotted(), "www.example.com.");
}

#[test]
fn a54_a_message_without_or_with_several_questions_goes_nowhere() {
    let mut none = question("a.example.", RecordType::A);
    none.queries.clear();
    assert_eq!(read_question(&none.to_vec().unwrap()), Err(Unfit::NotOne(7, 0)));
    let mut two = question("a.example.", RecordType::A);
    two.add_query(Query::query(name("b.example."), RecordType::A));
    let unfit = read_question(&two.to_vec().unwrap()).unwrap_err();
    assert_eq!(unfit, Unfit::NotOne(7, 2));
    let told = Message::from_vec(&unfit.answer().unwrap()).unwrap();
    assert_eq!((told.metadata.id, told.metadata.response_code), (7, ResponseCode::FormErr));
}

#[test]
fn a54_compression_that_goes_in_circles_ends() {
    let mut bytes = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    bytes.extend([0xc0, 12, 0, 1, 0, 1]);
    assert_eq!(read_question(&bytes), Err(Unfit::Unreadable(7)));
    let mut bytes = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    bytes.extend([1, b'a', 0xc0, 12, 0, 1, 0, 1]);
    assert_eq!(read_question(&bytes), Err(Unfit::Unreadable(7)));
}

#[test]
fn answers_and_updates_are_no_questions() {
    let to = asked("a.example.", RecordType::A);
    assert_eq!(read_question(&answer(&to, vec![]).to_vec().unwrap()), Err(Unfit::NoQuestion));
    assert!(Unfit::NoQuestion.answer().is_none());
    let mut update = question("a.example.", RecordType::A);
    update.metadata.op_code = OpCode::Update;
    let unfit = read_question(&update.to_vec().unwrap()).unwrap_err();
    assert_eq!(unfit, Unfit::OtherRequest(7, OpCode::Update));
    let told = Message::from_vec(&unfit.answer().unwrap()).unwrap().metadata;
    assert_eq!((told.id, told.op_code, told.response_code), (7, OpCode::Update, ResponseCode::NotImp));
    assert_eq!(read_question(&[0; 11]), Err(Unfit::NoQuestion));
}

#[test]
fn bytes_behind_a_message_and_answers_in_a_question_are_refused() {
    let mut bytes = question("a.example.", RecordType::A).to_vec().unwrap();
    bytes.push(0);
    assert_eq!(read_question(&bytes), Err(Unfit::Unreadable(7)));
    let mut brings = question("a.example.", RecordType::A);
    brings.add_answer(a("a.example.", 1, 1));
    assert_eq!(read_question(&brings.to_vec().unwrap()), Err(Unfit::Unreadable(7)));
}

#[test]
fn a_failure_repeats_number_and_question() {
    let to = asked("a.example.", RecordType::A);
    let told = Message::from_vec(&failure(&to, code::REFUSED)).unwrap();
    assert_eq!((told.metadata.id, told.metadata.response_code), (7, ResponseCode::Refused));
    assert!(told.metadata.recursion_desired);
    assert_eq!(told.queries, [to.query]);
}

#[test]
fn addresses_come_by_way_of_aliases_in_any_order() {
    let to = asked("www.example.", RecordType::A);
    let records = vec![
        a("c.example.", 20, 1),
        alias("b.example.", "c.example."),
        a("c.example.", 300, 2),
        alias("WWW.example.", "b.example."),
    ];
    let said = read_answer(&to, 99, &answer(&to, records).to_vec().unwrap()).unwrap();
    assert_eq!(said.addresses, [ip(1), ip(2)]);
    assert_eq!((said.ttl, said.code), (Some(20), 0));
    assert_eq!(said.cnames, ["c.example.", "b.example."]);
    assert_eq!(said.types.iter().map(|number| crate::type_name(*number)).collect::<Vec<_>>(), ["A", "CNAME"]);
}

#[test]
fn a51_a52_what_is_said_of_other_names_is_not_learned() {
    let to = asked("www.example.", RecordType::A);
    let said =
        read_answer(&to, 99, &answer(&to, vec![a("bank.example.", 20, 9), a("www.example.", 20, 1)]).to_vec().unwrap());
    assert_eq!(said.unwrap().addresses, [ip(1)]);
    let mut more = answer(&to, vec![]);
    more.add_additional(a("www.example.", 20, 9));
    more.add_authority(a("www.example.", 20, 9));
    assert!(read_answer(&to, 99, &more.to_vec().unwrap()).unwrap().addresses.is_empty());
    let circle = answer(&to, vec![alias("www.example.", "b.example."), alias("b.example.", "www.example.")]);
    assert!(read_answer(&to, 99, &circle.to_vec().unwrap()).unwrap().addresses.is_empty());
}

#[test]
fn a52_another_number_question_or_direction_is_no_answer() {
    let to = asked("www.example.", RecordType::A);
    let good = answer(&to, vec![a("www.example.", 20, 1)]);
    let bytes = good.to_vec().unwrap();
    assert_eq!(read_answer(&to, 98, &bytes), Err(Mismatch::OtherNumber));
    assert_eq!(read_answer(&asked("other.example.", RecordType::A), 99, &bytes), Err(Mismatch::OtherQuestion));
    assert_eq!(read_answer(&asked("www.example.", RecordType::AAAA), 99, &bytes), Err(Mismatch::OtherQuestion));
    let back = question("www.example.", RecordType::A).to_vec().unwrap();
    assert_eq!(read_answer(&to, 7, &back), Err(Mismatch::NoAnswer));
    let mut silent = good.clone();
    silent.queries.clear();
    assert_eq!(read_answer(&to, 99, &silent.to_vec().unwrap()), Err(Mismatch::OtherQuestion));
    let mut failed = answer(&to, vec![]);
    failed.queries.clear();
    failed.metadata.response_code = ResponseCode::ServFail;
    assert_eq!(read_answer(&to, 99, &failed.to_vec().unwrap()).unwrap().code, 2);
}

#[test]
fn hints_of_a_service_are_addresses_of_its_target() {
    let hint = |last| (SvcParamKey::Ipv4Hint, SvcParamValue::Ipv4Hint(IpHint(vec![A::new(192, 0, 2, last)])));
    let six =
        (SvcParamKey::Ipv6Hint, SvcParamValue::Ipv6Hint(IpHint(vec![AAAA::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)])));
    let record = |target: &str, params| {
        Record::from_rdata(name("www.example."), 60, RData::HTTPS(HTTPS(SVCB::new(1, name(target), params))))
    };
    let to = asked("www.example.", RecordType::HTTPS);
    let records = vec![record(".", vec![hint(1), six]), record("other.example.", vec![hint(2)])];
    let said = read_answer(&to, 99, &answer(&to, records).to_vec().unwrap()).unwrap();
    assert_eq!(said.addresses, [ip(1), "2001:db8::1".parse().unwrap()]);
}

proptest! {
    #[test]
    fn a51_no_bytes_make_the_reader_fail(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let to = asked("www.example.", RecordType::A);
        let _ = read_question(&bytes);
        let _ = read_answer(&to, 99, &bytes);
    }

    #[test]
    fn a51_no_damage_makes_the_reader_fail(at in 0..120usize, with in any::<u8>(), cut in 0..120usize) {
        let to = asked("www.example.", RecordType::A);
        let records = vec![alias("www.example.", "b.example."), a("b.example.", 20, 1), a("b.example.", 20, 2)];
        let mut bytes = answer(&to, records).to_vec().unwrap();
        if let Some(byte) = bytes.get_mut(at) {
            *byte = with;
        }
        bytes.truncate(cut.max(12));
        if let Ok(said) = read_answer(&to, 99, &bytes) {
            prop_assert!(said.addresses.len() <= 2);
        }
    }
}
