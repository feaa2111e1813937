//! Which topics does a body name? It is walked through by its schema, without a copy.

use super::apis::{Api, Body};
use super::request::Malformed;
use super::schema::{Field, Kind};

/// What a body says of topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said<'a> {
    /// It names this one.
    Topic(&'a [u8]),
    /// It is about topics that it does not name: all of them, some by number or pattern, or other things of the cluster.
    Unnamed,
}

/// What else a body says that matters here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Facts {
    /// Of a Produce request: from how many replicas it wants to hear.
    pub acks: Option<i16>,
    /// Of a Fetch request: the number of its session; 0: none.
    pub session: Option<i32>,
    /// Of a Fetch request: the epoch of its session, and where in the body it stands.
    pub epoch: Option<(i32, usize)>,
    /// Elements of all lists.
    pub elements: usize,
}

/// The kind of a resource that is a topic.
const RESOURCE_TOPIC: u8 = 2;

/// Reads numbers and texts one after the other.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub fn new(data: &'a [u8]) -> Self {
        Reader { data, at: 0 }
    }

    pub fn rest(&self) -> &'a [u8] {
        &self.data[self.at..]
    }

    pub fn at(&self) -> usize {
        self.at
    }

    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let taken = self.rest().get(..count).ok_or(Malformed::Short)?;
        self.at += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, _) = self.rest().split_first_chunk().ok_or(Malformed::Short)?;
        self.at += N;
        Ok(*taken)
    }

    pub fn i16(&mut self) -> Result<i16, Malformed> {
        self.array().map(i16::from_be_bytes)
    }

    pub fn i32(&mut self) -> Result<i32, Malformed> {
        self.array().map(i32::from_be_bytes)
    }

    /// Seven bits a byte, the lowest first.
    pub fn varint(&mut self) -> Result<u32, Malformed> {
        let mut value = 0;
        for place in 0..5 {
            let [byte] = self.array()?;
            if place == 4 && byte > 0x0f {
                return Err(Malformed::Within);
            }
            value |= u32::from(byte & 0x7f) << (7 * place);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed::Within)
    }

    /// A length that is one more than it is, or 0 for null.
    fn compact(&mut self) -> Result<Option<usize>, Malformed> {
        let length = self.varint()?;
        length.checked_sub(1).map(|length| usize::try_from(length).map_err(|_| Malformed::Within)).transpose()
    }

    fn signed(length: i32) -> Result<Option<usize>, Malformed> {
        match length {
            -1 => Ok(None),
            length => usize::try_from(length).map(Some).map_err(|_| Malformed::Within),
        }
    }

    /// How many elements a list has; `None`: it is null.
    pub fn count(&mut self, compact: bool) -> Result<Option<usize>, Malformed> {
        if compact { self.compact() } else { Self::signed(self.i32()?) }
    }

    /// A text; `None`: it is null.
    pub fn text(&mut self, compact: bool) -> Result<Option<&'a [u8]>, Malformed> {
        let length = if compact { self.compact()? } else { Self::signed(self.i16()?.into())? };
        length.map(|length| self.take(length)).transpose()
    }

    fn blob(&mut self, compact: bool) -> Result<(), Malformed> {
        let length = self.count(compact)?;
        self.take(length.unwrap_or(0)).map(drop)
    }

    /// Tagged fields, which are stepped over.
    pub fn tags(&mut self) -> Result<(), Malformed> {
        for _ in 0..self.varint()? {
            self.varint()?;
            let length = self.varint()?;
            self.take(usize::try_from(length).map_err(|_| Malformed::Within)?)?;
        }
        Ok(())
    }
}

/// A walk through one body.
pub(super) struct Walk<'a, F> {
    reader: Reader<'a>,
    version: i16,
    compact: bool,
    facts: Facts,
    heard: F,
}

impl<'a, F: FnMut(Said<'a>)> Walk<'a, F> {
    /// To its end, or to where it cannot be read.
    pub fn through(body: &'a [u8], api: &Api, version: i16, mut heard: F) -> (Facts, Result<(), Malformed>) {
        let fields = match api.body {
            Body::Read(fields) | Body::Checked(fields) => fields,
            Body::Unread => {
                heard(Said::Unnamed);
                return (Facts::default(), Ok(()));
            }
            Body::Plain => return (Facts::default(), Ok(())),
        };
        let compact = api.is_flexible(version);
        let mut walk = Walk { reader: Reader::new(body), version, compact, facts: Facts::default(), heard };
        let walked = walk.structure(fields);
        let result = match walk.reader.rest() {
            [] => walked,
            _ => walked.and(Err(Malformed::Trailing)),
        };
        (walk.facts, result)
    }

    fn structure(&mut self, fields: &'static [Field]) -> Result<(), Malformed> {
        for field in fields {
            if (field.from..=field.to).contains(&self.version) {
                self.field(&field.kind)?;
            }
        }
        if self.compact { self.reader.tags() } else { Ok(()) }
    }

    fn field(&mut self, kind: &'static Kind) -> Result<(), Malformed> {
        match kind {
            Kind::Fixed(bytes) => self.reader.take(*bytes).map(drop),
            Kind::Text => self.text().map(drop),
            Kind::Blob => self.reader.blob(self.compact),
            Kind::Numbers(bytes) => self.numbers(*bytes),
            Kind::Texts => self.texts(false),
            Kind::Topics => self.texts(true),
            Kind::Topic => self.topic(),
            Kind::TopicId => {
                if self.reader.take(16)?.iter().any(|byte| *byte != 0) {
                    (self.heard)(Said::Unnamed);
                }
                Ok(())
            }
            Kind::Resource => self.resource(),
            Kind::Pattern => {
                if self.text()?.is_some_and(|text| !text.is_empty()) {
                    (self.heard)(Said::Unnamed);
                }
                Ok(())
            }
            Kind::List(fields) => {
                let count = self.count()?.ok_or(Malformed::Within)?;
                self.structures(count, fields)
            }
            Kind::NullIsAll(fields) => {
                let count = self.count()?;
                if count.is_none() {
                    (self.heard)(Said::Unnamed);
                }
                self.structures(count.unwrap_or(0), fields)
            }
            Kind::EmptyIsAll(fields) => {
                let count = self.count()?.unwrap_or(0);
                if count == 0 {
                    (self.heard)(Said::Unnamed);
                }
                self.structures(count, fields)
            }
            Kind::NullIsNone(fields) => {
                let count = self.count()?.unwrap_or(0);
                self.structures(count, fields)
            }
            Kind::Maybe(fields) => match self.reader.take(1)? {
                [0xff] => Ok(()),
                [1] => self.structure(fields),
                _ => Err(Malformed::Within),
            },
            Kind::Cluster => {
                (self.heard)(Said::Unnamed);
                Ok(())
            }
            Kind::Acks => self.reader.i16().map(|acks| self.facts.acks = Some(acks)),
            Kind::Session => self.reader.i32().map(|session| self.facts.session = Some(session)),
            Kind::SessionEpoch => {
                let at = self.reader.at();
                self.reader.i32().map(|epoch| self.facts.epoch = Some((epoch, at)))
            }
        }
    }

    fn count(&mut self) -> Result<Option<usize>, Malformed> {
        self.reader.count(self.compact)
    }

    fn text(&mut self) -> Result<Option<&'a [u8]>, Malformed> {
        self.reader.text(self.compact)
    }

    /// Each has a byte at least, so that a number without the elements ends soon.
    fn structures(&mut self, count: usize, fields: &'static [Field]) -> Result<(), Malformed> {
        for _ in 0..count {
            self.structure(fields)?;
            self.facts.elements += 1;
        }
        Ok(())
    }

    fn numbers(&mut self, bytes: usize) -> Result<(), Malformed> {
        let count = self.count()?.unwrap_or(0);
        self.facts.elements += count;
        self.reader.take(count.checked_mul(bytes).ok_or(Malformed::Within)?).map(drop)
    }

    fn texts(&mut self, topics: bool) -> Result<(), Malformed> {
        for _ in 0..self.count()?.unwrap_or(0) {
            self.facts.elements += 1;
            if topics {
                self.topic()?;
            } else {
                self.text()?;
            }
        }
        Ok(())
    }

    fn topic(&mut self) -> Result<(), Malformed> {
        let said = self.text()?.map_or(Said::Unnamed, Said::Topic);
        (self.heard)(said);
        Ok(())
    }

    fn resource(&mut self) -> Result<(), Malformed> {
        let kind = self.reader.take(1)?;
        let name = self.text()?;
        match (kind, name) {
            ([RESOURCE_TOPIC], Some(name)) => (self.heard)(Said::Topic(name)),
            _ => (self.heard)(Said::Unnamed),
        }
        Ok(())
    }
}
