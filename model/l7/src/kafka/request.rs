//! What stands before the body of a request?

use super::apis::{Api, by_key};
use super::walk::{Facts, Reader, Said, Walk};

/// Why bytes are no request that is read here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A length is negative, or less than a header takes.
    #[error("a frame's length is {0}")]
    Length(i32),
    /// A length is over the limit.
    #[error("a frame of {0} bytes is longer than the limit")]
    TooLong(i32),
    /// The message ends before its fields do.
    #[error("the request ends in the middle of a field")]
    Short,
    /// Bytes are left when its fields are over.
    #[error("bytes follow the request's last field")]
    Trailing,
    /// A number of no use as a length.
    #[error("a length within the request is none")]
    Within,
    /// No such kind of request is known.
    #[error("requests with the key {0} are not known")]
    Key(i16),
    /// No such version is read.
    #[error("version {1} of {0} requests is not read")]
    Version(&'static str, i16),
}

/// The header of a request, and its body, unread.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Number of its kind.
    pub key: i16,
    /// Version of its layout.
    pub version: i16,
    /// What its answer begins with.
    pub correlation: i32,
    /// How the client calls itself; empty if it does not, or if it could not be read.
    pub client: &'a [u8],
    /// The kind, if it is known in this version.
    api: Result<&'static Api, Malformed>,
    body: &'a [u8],
    body_at: usize,
}

impl<'a> Request<'a> {
    /// Reads a frame behind its length, or the beginning of one. What is not known is told when the body is asked for.
    pub fn read(frame: &'a [u8]) -> Result<Request<'a>, Malformed> {
        let mut reader = Reader::new(frame);
        let (key, version, correlation) = (reader.i16()?, reader.i16()?, reader.i32()?);
        let unread = |why| Request { key, version, correlation, client: b"", api: Err(why), body: b"", body_at: 0 };
        let Some(api) = by_key(key) else { return Ok(unread(Malformed::Key(key))) };
        if !(api.first..=api.last).contains(&version) {
            return Ok(unread(Malformed::Version(api.name, version)));
        }
        let client = reader.text(false)?.unwrap_or_default();
        if api.is_flexible(version) {
            reader.tags()?;
        }
        Ok(Request { key, version, correlation, client, api: Ok(api), body: reader.rest(), body_at: reader.at() })
    }

    /// The header of a request that nobody has sent, to ask what rules say of it.
    pub fn of(api: &'static Api, version: i16, client: &'a str) -> Request<'a> {
        let (key, client) = (api.key, client.as_bytes());
        Request { key, version, correlation: 0, client, api: Ok(api), body: b"", body_at: 0 }
    }

    /// Its kind, if it is known in this version.
    pub fn api(&self) -> Result<&'static Api, Malformed> {
        self.api
    }

    /// Its body.
    pub fn body(&self) -> &'a [u8] {
        self.body
    }

    /// Where in the frame its body begins.
    pub fn body_at(&self) -> usize {
        self.body_at
    }

    /// Walks through the body and calls back with each topic. What was learned on the way holds even if the walk ends
    /// early, because the frame is not whole.
    pub fn walk(&self, heard: impl FnMut(Said<'a>)) -> (Facts, Result<(), Malformed>) {
        match self.api {
            Ok(api) => Walk::through(self.body, api, self.version, heard),
            Err(why) => (Facts::default(), Err(why)),
        }
    }
}
