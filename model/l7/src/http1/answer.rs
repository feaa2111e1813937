//! What does a server answer, and how long is it?

use super::request::{check_connection, keep_alive, length};
use super::{Head, Length, Limits, Malformed, Room};

/// An answer's head, read.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'h, 'b> {
    /// The code.
    pub code: u16,
    /// True if the version is 1.0.
    pub old: bool,
    /// The headers.
    pub head: Head<'h, 'b>,
    /// What follows.
    pub length: Length,
    /// Another request may follow on the connection.
    pub keep_alive: bool,
}

impl<'h, 'b> Answer<'h, 'b> {
    /// Reads a whole head of an answer to a request of this method.
    pub fn read(bytes: &'b [u8], room: &'h mut Room<'b>, limits: &Limits, method: &str) -> Result<Self, Malformed> {
        let mut parsed = httparse::Response::new(&mut []);
        match httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, bytes, &mut room.0) {
            Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
            Ok(_) => return Err(Malformed::Header),
            Err(error) => return Err(error.into()),
        }
        let (Some(code), Some(version)) = (parsed.code, parsed.version) else { return Err(Malformed::FirstLine) };
        let head = Head { bytes, headers: parsed.headers };
        if head.headers.len() > limits.headers {
            return Err(Malformed::TooManyHeaders);
        }
        let old = version == 0;
        let said = length(&head, old)?;
        check_connection(&head)?;
        let (length, keep_alive) = match said {
            _ if !has_body(code, method) => (Length::Bytes(0), keep_alive(&head, old)),
            Some(length) => (length, keep_alive(&head, old)),
            None => (Length::UntilClose, false),
        };
        Ok(Answer { code, old, head, length, keep_alive })
    }

    /// An answer before the answer.
    pub fn is_interim(&self) -> bool {
        (100..200).contains(&self.code) && self.code != 101
    }
}

/// RFC 9112, 6.3.
fn has_body(code: u16, method: &str) -> bool {
    !(method == "HEAD" || code < 200 || code == 204 || code == 304 || (method == "CONNECT" && code < 300))
}
