//! How is a server asked by UDP, in a client's name?
//!
//! Questions of one client to one server share a socket for a while; each has a random number of its own there. An
//! answer that does not fit its question is dropped, and the right one may still come.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::ops::Range;
use std::time::{Duration, Instant};

use dns::{Said, read_answer};
use foldhash::fast::RandomState;
use proxy_api::{Direction, Facts};
use rustix::io::Errno;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg};

use super::names::{Asked, Ends};
use crate::shared::Shared;
use crate::sockets::{self, Upstream};

/// A socket that nobody asked by for so long is closed; a port that is used for long is easier to guess.
const IDLE: Duration = Duration::from_secs(10);
/// Questions after which a socket takes no more.
const MOST: u32 = 4_096;
/// Questions that wait at one socket at a time: of 65,536 numbers most stay free.
const WAITING: usize = 16_384;

/// Whose questions share a socket.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    client: IpAddr,
    server: SocketAddr,
    identity: u32,
    direction: Direction,
}

impl Key {
    /// Of a question between these.
    pub fn new(facts: &Facts, ends: Ends) -> Key {
        let Facts { source_identity: identity, direction, .. } = *facts;
        Key { client: ends.client.ip(), server: ends.server, identity, direction }
    }
}

/// Questions by the number that they have at a socket.
type Waiting = HashMap<u16, Box<Asked>, RandomState>;

/// A socket, and what was asked there and is not answered.
pub struct Asking {
    /// Not blocking, connected to the server.
    pub socket: UdpSocket,
    /// Whose it is.
    pub key: Key,
    waiting: Waiting,
    outgoing: Vec<Outgoing>,
    /// What goes out, one message behind the other.
    messages: Vec<u8>,
    asked: u32,
    last: Instant,
}

/// A question that is not sent yet.
struct Outgoing {
    number: u16,
    message: Range<usize>,
}

impl Asking {
    /// Opens a socket in the client's name.
    pub fn open(shared: &Shared, key: Key, asked: &Asked, now: Instant) -> io::Result<Asking> {
        let (facts, ends) = (asked.facts(), asked.ends());
        let socket = match shared.upstream {
            Upstream::Transparent => sockets::datagrams(&*shared.redirected, facts, ends.client, ends.server)?,
            Upstream::Fixed(address) => {
                let any: SocketAddr = if address.is_ipv4() { ([0; 4], 0).into() } else { ([0; 16], 0).into() };
                let socket = UdpSocket::bind(any)?;
                socket.set_nonblocking(true)?;
                socket.connect(address)?;
                socket
            }
        };
        let (waiting, outgoing, messages) = Default::default();
        Ok(Asking { socket, key, waiting, outgoing, messages, asked: 0, last: now })
    }

    /// True if more may be asked.
    pub fn is_open(&self) -> bool {
        self.asked < MOST && self.waiting.len() < WAITING
    }

    /// True if nobody waits, and nobody asked for a while or may ask again.
    pub fn is_over(&self, now: Instant) -> bool {
        self.waiting.is_empty() && (!self.is_open() || now.duration_since(self.last) >= IDLE)
    }

    /// How many questions wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Takes a question on, which [`send`](Self::send) sends; true if it is the first of those.
    pub fn ask(&mut self, asked: Box<Asked>, message: &[u8], now: Instant) -> bool {
        self.asked += 1;
        self.last = now;
        let number = loop {
            if let Entry::Vacant(place) = self.waiting.entry(rand::random()) {
                let number = *place.key();
                place.insert(asked);
                break number;
            }
        };
        let begin = self.messages.len();
        self.messages.extend_from_slice(&number.to_be_bytes());
        self.messages.extend_from_slice(message.get(2..).unwrap_or_default());
        self.outgoing.push(Outgoing { number, message: begin..self.messages.len() });
        self.outgoing.len() == 1
    }

    /// Sends what is not sent yet. Questions for which the server is not there are given back.
    pub fn send(&mut self) -> Vec<(Box<Asked>, Errno)> {
        let mut failed = Vec::new();
        let mut rest = &self.outgoing[..];
        // The kernel says once, at whatever call comes next, that something which was sent before did not arrive.
        let mut said = false;
        while let Some(first) = rest.first() {
            match send(&self.socket, rest, &self.messages) {
                Ok(sent) => (rest, said) = (&rest[sent..], false),
                Err(error) if said || error == Errno::AGAIN => {
                    failed.extend(self.waiting.remove(&first.number).map(|asked| (asked, error)));
                    (rest, said) = (&rest[1..], false);
                }
                Err(error) => {
                    failed.extend(sent(&mut self.waiting, rest).map(|asked| (asked, error)));
                    said = true;
                }
            }
        }
        self.outgoing.clear();
        self.messages.clear();
        failed
    }

    /// The question that this message answers, and what it says; `None`: no question that waits.
    pub fn take(&mut self, message: &[u8]) -> Option<(Box<Asked>, Said)> {
        let number = u16::from_be_bytes(*message.first_chunk()?);
        let Entry::Occupied(waiting) = self.waiting.entry(number) else { return None };
        let said = read_answer(&waiting.get().question, number, message).ok()?;
        Some((waiting.remove(), said))
    }

    /// All that were sent and wait: the server is not there.
    pub fn fail(&mut self) -> impl Iterator<Item = Box<Asked>> {
        sent(&mut self.waiting, &self.outgoing)
    }

    /// Those that have waited for so long.
    pub fn late(&mut self, now: Instant, patience: Duration) -> impl Iterator<Item = Box<Asked>> {
        let late = move |_: &u16, asked: &mut Box<Asked>| now.duration_since(asked.began) >= patience;
        self.waiting.extract_if(late).map(|(_, asked)| asked)
    }
}

/// Takes out those that wait and are not among these, which are still to be sent.
fn sent<'a>(waiting: &'a mut Waiting, unsent: &'a [Outgoing]) -> impl Iterator<Item = Box<Asked>> + 'a {
    let is_sent = |number: &u16, _: &mut _| unsent.iter().all(|outgoing| outgoing.number != *number);
    waiting.extract_if(is_sent).map(|(_, asked)| asked)
}

/// How many of these messages were sent, from the first.
fn send(socket: &UdpSocket, outgoing: &[Outgoing], messages: &[u8]) -> Result<usize, Errno> {
    if let [only] = outgoing {
        return rustix::net::send(socket, &messages[only.message.clone()], SendFlags::empty()).map(|_| 1);
    }
    let slices: Vec<_> = outgoing.iter().map(|one| [IoSlice::new(&messages[one.message.clone()])]).collect();
    let mut nothing: Vec<_> = outgoing.iter().map(|_| SendAncillaryBuffer::default()).collect();
    let mut all: Vec<_> =
        slices.iter().zip(&mut nothing).map(|(slice, nothing)| MMsgHdr::new(slice, nothing)).collect();
    sendmmsg(socket, &mut all, SendFlags::empty())
}
