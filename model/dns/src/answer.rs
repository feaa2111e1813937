//! What does a DNS answer say of the name that was asked for?

use std::collections::HashSet;
use std::net::IpAddr;

use hickory_proto::op::{Message, MessageType};
use hickory_proto::rr::rdata::svcb::{SVCB, SvcParamValue};
use hickory_proto::rr::{Name, RData};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

use crate::names::canonical;
use crate::question::Question;

/// What an answer says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// Its code, with the upper bits of EDNS.
    pub code: u16,
    /// The addresses of the name, by way of the names that it stands for: of A, AAAA, and hints of HTTPS and SVCB.
    pub addresses: Vec<IpAddr>,
    /// The smallest time to live of the records that answer, in seconds.
    pub ttl: Option<u32>,
    /// The names that it stands for, each with a dot at its end.
    pub cnames: Vec<String>,
    /// Types of the records that answer, by number.
    pub types: Vec<u16>,
    /// It did not fit: the asker is to come again by TCP.
    pub truncated: bool,
}

/// Why a message is not the answer to a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// It cannot be read.
    #[error("cannot be read")]
    Unreadable,
    /// It is a question.
    #[error("no answer")]
    NoAnswer,
    /// It is to another question's number.
    #[error("answers another number")]
    OtherNumber,
    /// It is to another question.
    #[error("answers another question")]
    OtherQuestion,
}

/// The most names that a chain goes through.
const LONGEST_CHAIN: usize = 32;
/// So many addresses are compared one by one.
const FEW: usize = 8;

/// Reads the answer to a question that was asked under the number `id`.
pub fn read_answer(question: &Question, id: u16, bytes: &[u8]) -> Result<Said, Mismatch> {
    let mut decoder = BinDecoder::new(bytes);
    let message = Message::read(&mut decoder).map_err(|_| Mismatch::Unreadable)?;
    if !decoder.is_empty() {
        return Err(Mismatch::Unreadable);
    }
    if message.metadata.message_type != MessageType::Response {
        return Err(Mismatch::NoAnswer);
    }
    if message.metadata.id != id {
        return Err(Mismatch::OtherNumber);
    }
    let code = u16::from(message.metadata.response_code);
    match message.queries.as_slice() {
        // Some servers that fail do not repeat the question; they say nothing of the name then.
        [] if code != 0 && message.answers.is_empty() => {}
        [asked] if same_question(asked, question) => {}
        _ => return Err(Mismatch::OtherQuestion),
    }
    let chain = chain(question, &message);
    let mut said = Said { code, truncated: message.metadata.truncation, ..Said::default() };
    let mut many = HashSet::new();
    for record in &message.answers {
        let kind = u16::from(record.record_type());
        if !said.types.contains(&kind) {
            said.types.push(kind);
        }
        said.ttl = Some(said.ttl.map_or(record.ttl, |ttl| ttl.min(record.ttl)));
        if let RData::CNAME(target) = &record.data {
            said.cnames.push(format!("{}.", canonical(&target.0)));
        }
        // What is said of other names is not asked for, and may be a lie.
        if chain.contains(&&record.name) {
            for address in addresses_of(&record.data, &chain) {
                let is_new = if said.addresses.len() < FEW {
                    !said.addresses.contains(&address)
                } else {
                    many.extend(said.addresses.iter().copied().filter(|_| many.is_empty()).collect::<Vec<_>>());
                    many.insert(address)
                };
                if is_new {
                    said.addresses.push(address);
                }
            }
        }
    }
    Ok(said)
}

fn same_question(asked: &hickory_proto::op::Query, question: &Question) -> bool {
    // Names are equal in any letters.
    asked.name == question.query.name
        && asked.query_type == question.query.query_type
        && asked.query_class == question.query.query_class
}

/// The name and those that it stands for.
fn chain<'a>(question: &'a Question, message: &'a Message) -> Vec<&'a Name> {
    let mut chain = vec![&question.query.name];
    // Records come in any order.
    for _ in 0..LONGEST_CHAIN {
        let before = chain.len();
        for record in &message.answers {
            if let RData::CNAME(target) = &record.data
                && chain.contains(&&record.name)
                && !chain.contains(&&target.0)
            {
                chain.push(&target.0);
            }
        }
        if chain.len() == before || chain.len() > LONGEST_CHAIN {
            break;
        }
    }
    chain
}

fn addresses_of(data: &RData, chain: &[&Name]) -> Vec<IpAddr> {
    match data {
        RData::A(address) => vec![IpAddr::V4(address.0)],
        RData::AAAA(address) => vec![IpAddr::V6(address.0)],
        RData::HTTPS(service) => hints(&service.0, chain),
        RData::SVCB(service) => hints(service, chain),
        _ => Vec::new(),
    }
}

/// Hints are addresses of the target, which for `.` is the owner (RFC 9460, sections 2.5 and 7.3).
fn hints(service: &SVCB, chain: &[&Name]) -> Vec<IpAddr> {
    if !service.target_name.is_root() && !chain.contains(&&service.target_name) {
        return Vec::new();
    }
    let hints = service.svc_params.iter().flat_map(|(_, value)| match value {
        SvcParamValue::Ipv4Hint(hint) => hint.0.iter().map(|address| IpAddr::V4(address.0)).collect(),
        SvcParamValue::Ipv6Hint(hint) => hint.0.iter().map(|address| IpAddr::V6(address.0)).collect(),
        _ => Vec::new(),
    });
    hints.collect()
}
