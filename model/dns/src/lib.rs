//! What does a DNS message ask, and what does the answer to it say?
#![forbid(unsafe_code)]

mod answer;
mod names;
mod question;
#[cfg(test)]
mod tests;

pub use answer::{Mismatch, Said, read_answer};
pub use question::{Question, Unfit, failure, read_question};

/// Codes of answers (RFC 1035, section 4.1.1).
pub mod code {
    /// The question cannot be read.
    pub const FORMAT_ERROR: u8 = 1;
    /// The server failed.
    pub const SERVER_FAILURE: u8 = 2;
    /// There is no such name.
    pub const NAME_ERROR: u8 = 3;
    /// The kind of question is not known.
    pub const NOT_IMPLEMENTED: u8 = 4;
    /// The server does not want to answer.
    pub const REFUSED: u8 = 5;
}

/// The name of a record type by its number.
pub fn type_name(number: u16) -> String {
    hickory_proto::rr::RecordType::from(number).to_string()
}
