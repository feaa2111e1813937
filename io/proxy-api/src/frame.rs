//! How do messages become frames?

use std::marker::PhantomData;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio_util::codec::{FramedRead, FramedWrite, LengthDelimitedCodec};

use crate::error::Error;
use crate::message::{FromAgent, FromProxy};
use crate::record::Records;
use crate::rules::RulesUpdate;

/// The longest frame, in bytes without the length itself.
pub const MAX_FRAME: usize = 4 << 20;

/// Bytes of rule sets that go into one frame together.
const MAX_PART: usize = 256 << 10;

/// The first byte of a frame with access records; no JSON begins with it.
const RECORDS: u8 = 1;

/// What goes into a frame.
pub trait Message: Sized {
    /// As it goes over the socket.
    fn write(&self) -> Result<Vec<u8>, std::io::Error>;
    /// What a frame holds, or what is wrong with it, without any of its words.
    fn read(frame: &[u8]) -> Result<Self, String>;
}

impl Message for FromAgent {
    fn write(&self) -> Result<Vec<u8>, std::io::Error> {
        to_json(self)
    }

    fn read(frame: &[u8]) -> Result<Self, String> {
        from_json(frame)
    }
}

impl Message for FromProxy {
    fn write(&self) -> Result<Vec<u8>, std::io::Error> {
        match self {
            FromProxy::Records(records) => postcard::to_extend(records, vec![RECORDS]).map_err(std::io::Error::other),
            other => to_json(other),
        }
    }

    fn read(frame: &[u8]) -> Result<Self, String> {
        match frame.split_first() {
            Some((&RECORDS, records)) => match postcard::take_from_bytes::<Records>(records) {
                Ok((records, [])) => Ok(FromProxy::Records(records)),
                Ok((_, rest)) => Err(format!("{} bytes behind the access records", rest.len())),
                Err(error) => Err(format!("access records: {error}")),
            },
            _ => from_json(frame),
        }
    }
}

fn to_json(message: &impl Serialize) -> Result<Vec<u8>, std::io::Error> {
    serde_json::to_vec(message).map_err(std::io::Error::other)
}

fn from_json<T: DeserializeOwned>(frame: &[u8]) -> Result<T, String> {
    // The error's own words quote what was found.
    let reason = |error: serde_json::Error| {
        format!("{:?} error in line {}, column {}", error.classify(), error.line(), error.column())
    };
    serde_json::from_slice(frame).map_err(reason)
}

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
pub(crate) fn halves<In: Message, Out: Message>(stream: UnixStream) -> (Reader<In>, Writer<Out>) {
    let (read, write) = stream.into_split();
    let reader = Reader { frames: FramedRead::new(read, codec()), messages: PhantomData };
    let writer = Writer { frames: FramedWrite::new(write, codec()), messages: PhantomData };
    (reader, writer)
}

impl<In: Message> Reader<In> {
    /// The next message; `None` once the other side has closed. Safe to cancel: no half message is lost.
    pub async fn next(&mut self) -> Result<Option<In>, Error> {
        let Some(frame) = self.frames.next().await else { return Ok(None) };
        let frame = frame?;
        In::read(&frame).map(Some).map_err(|reason| Error::Garbage { length: frame.len(), reason })
    }
}

impl<Out: Message> Writer<Out> {
    /// Sends a message. Cancelled, it may leave half of it: the connection is of no use then.
    pub async fn send(&mut self, message: &Out) -> Result<(), Error> {
        let bytes = fitting("the message", message.write()?)?;
        Ok(self.frames.send(Bytes::from(bytes)).await?)
    }
}

impl Writer<FromAgent> {
    /// Sends a change of rules in as many parts as it takes.
    pub async fn send_rules(&mut self, update: RulesUpdate) -> Result<(), Error> {
        for set in &update.set {
            fitting(&format!("rule set {}", set.id), to_json(set)?)?;
        }
        let size = |set: &_| serde_json::to_vec(set).map_or(usize::MAX, |bytes| bytes.len());
        for part in update.split(MAX_PART, size) {
            self.send(&FromAgent::Rules(part)).await?;
        }
        Ok(())
    }
}

fn fitting(what: &str, bytes: Vec<u8>) -> Result<Vec<u8>, Error> {
    if bytes.len() > MAX_FRAME {
        return Err(Error::TooLong { what: what.to_owned(), length: bytes.len(), limit: MAX_FRAME });
    }
    Ok(bytes)
}
