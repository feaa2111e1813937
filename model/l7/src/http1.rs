//! Is this a request or an answer of HTTP/1 that everybody reads in the same way, and where does it end?
//!
//! What two readers may understand differently is refused, not repaired: that is how requests are smuggled
//! (RFC 9112, 11.2). What passes is passed on as it came, byte for byte, so that rules judged what the server gets.

mod answer;
mod body;
mod lines;
mod request;

pub use answer::Answer;
pub use body::Framing;
pub use lines::{Head, Limits, Room, Scan};
pub use request::{Length, Request, Target, Upgrade};

/// Why a message is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The first bytes are no method.
    #[error("not HTTP")]
    NotHttp,
    /// LF without CR before it.
    #[error("a line ends in LF without CR")]
    BareLineFeed,
    /// CR without LF after it.
    #[error("CR without LF")]
    BareReturn,
    /// The head is longer than may be.
    #[error("the head is too long")]
    TooLong,
    /// More header lines than may be.
    #[error("too many headers")]
    TooManyHeaders,
    /// The first line is none.
    #[error("malformed first line")]
    FirstLine,
    /// Another version.
    #[error("unsupported HTTP version")]
    Version,
    /// A header line is none: a bad name, a control character, a line that continues the one before.
    #[error("malformed header line")]
    Header,
    /// What is asked for is no path, URL or authority, or has characters that none may have.
    #[error("malformed request target")]
    Target,
    /// No host, several of them, a bad one, or one that contradicts the URL.
    #[error("missing, malformed or contradicting host")]
    Host,
    /// Several lengths, a bad one, or one beside a transfer coding.
    #[error("ambiguous length")]
    Length,
    /// A transfer coding other than chunked.
    #[error("unsupported transfer coding")]
    TransferCoding,
    /// Connection names a header that frames or routes the message.
    #[error("a header that must stay is named by Connection")]
    Connection,
    /// A chunk is none.
    #[error("malformed chunk")]
    Chunk,
    /// An answer that the request did not ask for.
    #[error("an answer out of place")]
    OutOfPlace,
}

#[cfg(test)]
mod tests;
