//! How do messages become frames?

use std::marker::PhantomData;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio_util::codec::{FramedRead, FramedWrite, LengthDelimitedCodec};

use crate::error::Error;
use crate::message::FromAgent;
use crate::rules::RulesUpdate;

/// The longest frame, in bytes without the length itself.
pub const MAX_FRAME: usize = 4 << 20;

/// Bytes of rule sets that go into one frame together.
const MAX_PART: usize = 256 << 10;

fn codec() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().max_frame_length(MAX_FRAME).new_codec()
}

/// Receives messages.
#[derive(Debug)]
pub struct Reader<In> {
    frames: FramedRead<OwnedReadHalf, LengthDelimitedCodec>,
    messages: PhantomData<fn() -> In>,
}

/// Sends messages.
#[derive(Debug)]
pub struct Writer<Out> {
    frames: FramedWrite<OwnedWriteHalf, LengthDelimitedCodec>,
    messages: PhantomData<fn(Out)>,
}

/// Both halves of a connection.
pub(crate) fn halves<In: DeserializeOwned, Out: Serialize>(stream: UnixStream) -> (Reader<In>, Writer<Out>) {
    let (read, write) = stream.into_split();
    let reader = Reader { frames: FramedRead::new(read, codec()), messages: PhantomData };
    let writer = Writer { frames: FramedWrite::new(write, codec()), messages: PhantomData };
    (reader, writer)
}

impl<In: DeserializeOwned> Reader<In> {
    /// The next message; `None` once the other side has closed. Safe to cancel: no half message is lost.
    pub async fn next(&mut self) -> Result<Option<In>, Error> {
        let Some(frame) = self.frames.next().await else { return Ok(None) };
        let frame = frame?;
        let garbage = |error: serde_json::Error| Error::Garbage {
            length: frame.len(),
            // The error's own words quote what was found.
            reason: format!("{:?} error in line {}, column {}", error.classify(), error.line(), error.column()),
        };
        serde_json::from_slice(&frame).map(Some).map_err(garbage)
    }
}

impl<Out: Serialize> Writer<Out> {
    /// Sends a message. Cancelled, it may leave half of it: the connection is of no use then.
    pub async fn send(&mut self, message: &Out) -> Result<(), Error> {
        let bytes = encode("the message", message)?;
        Ok(self.frames.send(bytes).await?)
    }
}

impl Writer<FromAgent> {
    /// Sends a change of rules in as many parts as it takes.
    pub async fn send_rules(&mut self, update: RulesUpdate) -> Result<(), Error> {
        for set in &update.set {
            encode(&format!("rule set {}", set.id), set)?;
        }
        let size = |set: &_| serde_json::to_vec(set).map_or(usize::MAX, |bytes| bytes.len());
        for part in update.split(MAX_PART, size) {
            self.send(&FromAgent::Rules(part)).await?;
        }
        Ok(())
    }
}

fn encode(what: &str, message: &impl Serialize) -> Result<Bytes, Error> {
    let bytes = serde_json::to_vec(message).map_err(std::io::Error::other)?;
    if bytes.len() > MAX_FRAME {
        return Err(Error::TooLong { what: what.to_owned(), length: bytes.len(), limit: MAX_FRAME });
    }
    Ok(bytes.into())
}
