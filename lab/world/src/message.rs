//! What does a DNS message ask, and what bytes answer it?

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType, rdata};

/// What we send by UDP at most, if the client takes that much: fits into every path without fragments.
pub const UDP_LIMIT: u16 = 1232;
/// What a client takes that does not say.
const UDP_DEFAULT: u16 = 512;
const HEADER: usize = 12;

/// How a message came, which limits how long its answer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// One datagram.
    Udp,
    /// A stream, each message after its length.
    Tcp,
}

/// What a message turned out to be.
#[derive(Debug)]
pub enum Request {
    /// A question to be answered.
    Question(Box<Question>),
    /// No question that we take; the bytes say so.
    Refused(Vec<u8>),
    /// Nothing that may be answered: no header, or itself an answer.
    Ignored,
}

/// One question.
#[derive(Debug, Clone)]
pub struct Question {
    /// The number by which the asker recognises the answer.
    pub id: u16,
    /// What is asked.
    pub query: Query,
    recursion_desired: bool,
    checking_disabled: bool,
    edns: Option<u16>,
    transport: Transport,
}

/// What is said to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The outcome.
    pub code: ResponseCode,
    /// Whether the name is ours.
    pub authoritative: bool,
    /// Records that answer.
    pub answers: Vec<Record>,
    /// With no answer: the zone's SOA.
    pub authorities: Vec<Record>,
    /// Records that save further questions.
    pub additionals: Vec<Record>,
}

impl Reply {
    /// An answer without records.
    pub fn of(code: ResponseCode) -> Reply {
        Reply { code, authoritative: false, answers: Vec::new(), authorities: Vec::new(), additionals: Vec::new() }
    }

    /// Records of a zone that is ours.
    pub fn answers(answers: Vec<Record>) -> Reply {
        Reply { authoritative: true, answers, ..Reply::of(ResponseCode::NoError) }
    }

    /// Nothing of that name (`NXDomain`) or type (`NoError`) in a zone that is ours.
    pub fn nothing(code: ResponseCode, soa: Record) -> Reply {
        Reply { authoritative: true, authorities: vec![soa], ..Reply::of(code) }
    }
}

/// Reads a message that somebody sent.
pub fn read(bytes: &[u8], transport: Transport) -> Request {
    let [high, low, flags, ..] = *bytes else { return Request::Ignored };
    if bytes.len() < HEADER || flags & 0x80 != 0 {
        return Request::Ignored;
    }
    let id = u16::from_be_bytes([high, low]);
    let op_code = OpCode::from_u8(flags >> 3 & 0xf);
    let refused = |code| Request::Refused(encoded(&Message::error_msg(id, op_code, code)));
    if op_code != OpCode::Query {
        return refused(ResponseCode::NotImp);
    }
    let Ok(message) = Message::from_vec(bytes) else { return refused(ResponseCode::FormErr) };
    let [query] = message.queries.as_slice() else { return refused(ResponseCode::FormErr) };
    let question = Question {
        id,
        query: query.clone(),
        recursion_desired: message.metadata.recursion_desired,
        checking_disabled: message.metadata.checking_disabled,
        edns: message.edns.as_ref().map(Edns::max_payload),
        transport,
    };
    match refusal(&message, query) {
        Some(code) => Request::Refused(question.answer(Reply::of(code))),
        None => Request::Question(Box::new(question)),
    }
}

/// Why a well-formed question is not answered.
fn refusal(message: &Message, query: &Query) -> Option<ResponseCode> {
    if message.edns.as_ref().is_some_and(|e| e.version() > 0) {
        return Some(ResponseCode::BADVERS);
    }
    if query.query_class() != DNSClass::IN {
        return Some(ResponseCode::Refused);
    }
    match query.query_type() {
        RecordType::AXFR | RecordType::IXFR => Some(ResponseCode::Refused),
        RecordType::ANY => Some(ResponseCode::NotImp),
        _ => None,
    }
}

impl Question {
    /// The bytes that say `reply` to this question, within what the asker takes.
    pub fn answer(&self, reply: Reply) -> Vec<u8> {
        let mut message = Message::response(self.id, OpCode::Query);
        message.metadata.authoritative = reply.authoritative;
        message.metadata.recursion_desired = self.recursion_desired;
        message.metadata.recursion_available = true;
        message.metadata.checking_disabled = self.checking_disabled;
        message.metadata.response_code = reply.code;
        message.queries = vec![self.query.clone()];
        message.answers = reply.answers;
        message.authorities = reply.authorities;
        message.additionals = reply.additionals;
        message.edns = self.edns.map(|_| {
            let mut edns = Edns::new();
            edns.set_max_payload(UDP_LIMIT);
            edns
        });
        let bytes = encoded(&message);
        if bytes.len() <= self.limit() { bytes } else { encoded(&message.truncate()) }
    }

    fn limit(&self) -> usize {
        let limit = match (self.transport, self.edns) {
            (Transport::Tcp, _) => u16::MAX,
            (Transport::Udp, None) => UDP_DEFAULT,
            (Transport::Udp, Some(size)) => size.clamp(UDP_DEFAULT, UDP_LIMIT),
        };
        limit.into()
    }
}

/// A question of our own to another server.
pub fn ask(id: u16, query: &Query) -> Vec<u8> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.queries = vec![query.clone()];
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_LIMIT);
    message.edns = Some(edns);
    encoded(&message)
}

/// Reads the answer to [`ask`]; none if it is not the answer to that question.
pub fn answer_to(bytes: &[u8], id: u16, query: &Query) -> Option<Message> {
    let message = Message::from_vec(bytes).ok()?;
    let same = matches!(message.queries.as_slice(), [q] if q.name() == query.name()
        && q.query_type() == query.query_type() && q.query_class() == query.query_class());
    let header = message.metadata;
    (same && header.id == id && header.message_type == MessageType::Response).then_some(message)
}

/// A message after its length, as streams carry it.
pub fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend_from_slice(&message[..usize::from(length)]);
    bytes
}

fn encoded(message: &Message) -> Vec<u8> {
    message.to_vec().unwrap_or_else(|_| {
        let failure = Message::error_msg(message.metadata.id, OpCode::Query, ResponseCode::ServFail);
        failure.to_vec().expect("a header can be written")
    })
}

/// The record that says who is responsible for `zone`, and how long nothing stays nothing.
pub fn soa(zone: &Name, primary: &Name, serial: u32, ttl: u32) -> Record {
    let mailbox = Name::from_ascii("hostmaster").and_then(|n| n.append_domain(zone)).unwrap_or_else(|_| zone.clone());
    let soa = rdata::SOA::new(primary.clone(), mailbox, serial, 7200, 1800, 86400, ttl);
    Record::from_rdata(zone.clone(), ttl, RData::SOA(soa))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::net::Ipv4Addr;

    fn query() -> Query {
        Query::query(Name::from_ascii("Cnn.com.").unwrap(), RecordType::A)
    }

    fn question(bytes: &[u8], transport: Transport) -> Question {
        match read(bytes, transport) {
            Request::Question(question) => *question,
            other => panic!("{other:?}"),
        }
    }

    fn refusal_of(bytes: &[u8]) -> ResponseCode {
        match read(bytes, Transport::Udp) {
            Request::Refused(bytes) => Message::from_vec(&bytes).unwrap().metadata.response_code,
            other => panic!("{other:?}"),
        }
    }

    fn addresses(n: u8) -> Reply {
        let record =
            |i| Record::from_rdata(query().name().clone(), 30, RData::A(rdata::A(Ipv4Addr::new(192, 0, 2, i))));
        Reply::answers((0..n).map(record).collect())
    }

    /// A question without EDNS.
    fn plain() -> Vec<u8> {
        let mut message = Message::from_vec(&ask(7, &query())).unwrap();
        message.edns = None;
        message.to_vec().unwrap()
    }

    #[test]
    fn an_answer_repeats_number_and_question() {
        let bytes = question(&ask(513, &query()), Transport::Udp).answer(addresses(2));
        assert_eq!(bytes[..2], [2, 1]);
        let answer = answer_to(&bytes, 513, &query()).unwrap();
        assert_eq!(answer.answers.len(), 2);
        assert!(answer.metadata.authoritative && answer.metadata.recursion_desired && answer.edns.is_some());
        assert_eq!(answer.queries[0].name().to_ascii(), "Cnn.com.");
        assert!(question(&plain(), Transport::Udp).answer(addresses(1)).len() < bytes.len());
    }

    #[test]
    fn answers_to_something_else_are_not_taken() {
        let bytes = question(&ask(513, &query()), Transport::Udp).answer(addresses(1));
        let other = Query::query(Name::from_ascii("cnn.org.").unwrap(), RecordType::A);
        let other_type = Query::query(query().name().clone(), RecordType::AAAA);
        assert!(answer_to(&bytes, 512, &query()).is_none());
        assert!(answer_to(&bytes, 513, &other).is_none());
        assert!(answer_to(&bytes, 513, &other_type).is_none());
        assert!(answer_to(&ask(513, &query()), 513, &query()).is_none(), "a question is no answer");
        assert!(answer_to(&bytes[..20], 513, &query()).is_none());
    }

    #[test]
    fn what_does_not_fit_is_truncated_and_comes_whole_by_stream() {
        for (bytes, limit, records) in [(plain(), 512, 60), (ask(7, &query()), 1232, 100)] {
            let long = question(&bytes, Transport::Udp).answer(addresses(records));
            assert!(long.len() <= limit);
            let message = Message::from_vec(&long).unwrap();
            assert!(message.metadata.truncation && message.answers.is_empty());
            let whole = Message::from_vec(&question(&bytes, Transport::Tcp).answer(addresses(records))).unwrap();
            assert!(!whole.metadata.truncation && whole.answers.len() == usize::from(records));
        }
    }

    #[test]
    fn what_is_no_question_is_refused_by_code() {
        let mut update = plain();
        update[2] = 5 << 3;
        assert_eq!(refusal_of(&update), ResponseCode::NotImp);
        let mut two = Message::from_vec(&plain()).unwrap();
        two.queries.push(query());
        assert_eq!(refusal_of(&two.to_vec().unwrap()), ResponseCode::FormErr);
        assert_eq!(refusal_of(&plain()[..HEADER]), ResponseCode::FormErr, "a count without questions");
        let mut loops = plain();
        loops.truncate(HEADER);
        loops.extend_from_slice(&[0xc0, 0x0c, 0, 1, 0, 1]);
        assert_eq!(refusal_of(&loops), ResponseCode::FormErr, "a name that points at itself");
        let transfer = Query::query(query().name().clone(), RecordType::AXFR);
        assert_eq!(refusal_of(&ask(1, &transfer)), ResponseCode::Refused);
        let mut chaos = query();
        chaos.set_query_class(DNSClass::CH);
        assert_eq!(refusal_of(&ask(1, &chaos)), ResponseCode::Refused);
        let mut version = Message::from_vec(&ask(1, &query())).unwrap();
        version.edns.as_mut().unwrap().set_version(1);
        assert_eq!(u16::from(refusal_of(&version.to_vec().unwrap())), u16::from(ResponseCode::BADVERS));
    }

    #[test]
    fn answers_and_scraps_are_ignored() {
        let mut answer = plain();
        answer[2] |= 0x80;
        for bytes in [&answer[..], &plain()[..11], &[]] {
            assert!(matches!(read(bytes, Transport::Udp), Request::Ignored));
        }
    }

    #[test]
    fn every_cut_and_every_changed_byte_is_survived() {
        let whole = ask(7, &query());
        for length in 0..whole.len() {
            let _ = read(&whole[..length], Transport::Udp);
        }
        for at in 0..whole.len() {
            for value in [0, 1, 0x3f, 0x7f, 0xc0, 0xff] {
                let mut changed = whole.clone();
                changed[at] = value;
                if let Request::Question(question) = read(&changed, Transport::Tcp) {
                    assert!(!question.answer(addresses(1)).is_empty());
                }
            }
        }
    }

    #[test]
    fn frames_carry_their_length() {
        assert_eq!(framed(b"abc"), b"\0\x03abc");
    }
}
