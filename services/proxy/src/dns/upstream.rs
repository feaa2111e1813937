//! How is a server asked by UDP, in a client's name?
//!
//! Questions of one client to one server share a socket for a while; each has a random number of its own there. An
//! answer that does not fit its question is dropped, and the right one may still come.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use dns::{Said, read_answer};
use proxy_api::{Direction, Facts};

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

/// A socket, and what was asked there and is not answered.
pub struct Asking {
    /// Not blocking, connected to the server.
    pub socket: UdpSocket,
    /// Whose it is.
    pub key: Key,
    waiting: HashMap<u16, Box<Asked>>,
    asked: u32,
    last: Instant,
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
        Ok(Asking { socket, key, waiting: HashMap::new(), asked: 0, last: now })
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

    /// Asks the server. A question that could not be sent is given back.
    pub fn ask(&mut self, asked: Box<Asked>, message: &mut [u8], now: Instant) -> Result<(), (Box<Asked>, io::Error)> {
        self.asked += 1;
        self.last = now;
        let place = loop {
            if let Entry::Vacant(place) = self.waiting.entry(rand::random()) {
                break place;
            }
        };
        message[..2].copy_from_slice(&place.key().to_be_bytes());
        match self.socket.send(message) {
            Ok(_) => {
                place.insert(asked);
                Ok(())
            }
            Err(error) => Err((asked, error)),
        }
    }

    /// The question that this message answers, and what it says; `None`: no question that waits.
    pub fn take(&mut self, message: &[u8]) -> Option<(Box<Asked>, Said)> {
        let number = u16::from_be_bytes(*message.first_chunk()?);
        let Entry::Occupied(waiting) = self.waiting.entry(number) else { return None };
        let said = read_answer(&waiting.get().question, number, message).ok()?;
        Some((waiting.remove(), said))
    }

    /// All that wait: the server is not there.
    pub fn fail(&mut self) -> impl Iterator<Item = Box<Asked>> {
        self.waiting.drain().map(|(_, asked)| asked)
    }

    /// Those that have waited for so long.
    pub fn late(&mut self, now: Instant, patience: Duration) -> impl Iterator<Item = Box<Asked>> {
        let late = move |_: &u16, asked: &mut Box<Asked>| now.duration_since(asked.began) >= patience;
        self.waiting.extract_if(late).map(|(_, asked)| asked)
    }
}
