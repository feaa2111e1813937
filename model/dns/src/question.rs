//! What does a DNS message ask?

use std::sync::Arc;

use hickory_proto::op::{Header, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::RecordType;
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

use crate::code;
use crate::names::canonical;

/// One question.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// The number by which the asker recognises the answer.
    pub id: u16,
    /// What is asked of it.
    pub record_type: RecordType,
    /// As it was asked: also in which letters.
    pub query: Query,
    /// The name in canonical form, and a dot.
    dotted: Arc<str>,
    recursion_desired: bool,
}

/// Why a message is no question that may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Too short, or itself an answer. Nothing may be said to it, or two servers would talk for ever.
    #[error("no question")]
    NoQuestion,
    /// It cannot be read.
    #[error("cannot be read")]
    Unreadable(u16),
    /// None or several questions: whatever is judged, a server may answer another one.
    #[error("{1} questions in one message")]
    NotOne(u16, u16),
    /// An update, a notification, ...
    #[error("a request that is no query")]
    OtherRequest(u16, OpCode),
}

impl Unfit {
    /// What its sender is told, if anything.
    pub fn answer(self) -> Option<Vec<u8>> {
        let message = match self {
            Unfit::NoQuestion => return None,
            Unfit::Unreadable(id) | Unfit::NotOne(id, _) => header(id, false, code::FORMAT_ERROR),
            Unfit::OtherRequest(id, kind) => {
                // Who asked compares it (RFC 1035, 4.1.1: copied into the response).
                let mut message = header(id, false, code::NOT_IMPLEMENTED);
                message.metadata.op_code = kind;
                message
            }
        };
        Some(message.to_vec().unwrap_or_default())
    }
}

impl Question {
    /// The name in canonical form: lower case, no dot at its end.
    pub fn name(&self) -> &str {
        &self.dotted[..self.dotted.len() - 1]
    }

    /// The name as flows show it: with a dot at its end.
    pub fn dotted(&self) -> &Arc<str> {
        &self.dotted
    }
}

/// Reads a question. Extra bytes behind the message are refused: other readers might take them for something.
pub fn read_question(bytes: &[u8]) -> Result<Question, Unfit> {
    let header = Header::read(&mut BinDecoder::new(bytes)).map_err(|_| Unfit::NoQuestion)?;
    let id = header.metadata.id;
    if header.metadata.message_type != MessageType::Query {
        return Err(Unfit::NoQuestion);
    }
    if header.metadata.op_code != OpCode::Query {
        return Err(Unfit::OtherRequest(id, header.metadata.op_code));
    }
    if header.counts.queries != 1 {
        return Err(Unfit::NotOne(id, header.counts.queries));
    }
    let mut decoder = BinDecoder::new(bytes);
    let message = Message::read(&mut decoder).map_err(|_| Unfit::Unreadable(id))?;
    let Some(query) = message.queries.into_iter().next().filter(|_| decoder.is_empty()) else {
        return Err(Unfit::Unreadable(id));
    };
    if !message.answers.is_empty() || !message.authorities.is_empty() {
        // A question brings no answers along.
        return Err(Unfit::Unreadable(id));
    }
    let mut dotted = canonical(&query.name);
    dotted.push('.');
    let (record_type, recursion_desired) = (query.query_type, header.metadata.recursion_desired);
    Ok(Question { id, record_type, query, dotted: dotted.into(), recursion_desired })
}

/// The answer that there is none, for this reason.
pub fn failure(question: &Question, code: u8) -> Vec<u8> {
    let mut message = header(question.id, question.recursion_desired, code);
    message.add_query(question.query.clone());
    message.to_vec().unwrap_or_default()
}

fn header(id: u16, recursion_desired: bool, code: u8) -> Message {
    let mut message = Message::response(id, OpCode::Query);
    message.metadata.response_code = ResponseCode::from(0, code);
    message.metadata.recursion_desired = recursion_desired;
    message.metadata.recursion_available = true;
    message
}
