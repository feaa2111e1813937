//! How are servers asked by UDP, in a client's name?
//!
//! Questions of one client to one server share a socket for a while; each has a random number of its own there. An
//! answer that does not fit its question is dropped, and the right one may still come.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use dns::{Question, Said, read_answer};
use proxy_api::Facts;
use tokio::net::UdpSocket;
use tokio::sync::oneshot;

use crate::counters::Counters;
use crate::shared::Shared;
use crate::sockets;

/// A socket that nobody asked by for so long is closed; a port that is used for long is easier to guess.
const IDLE: Duration = Duration::from_secs(10);
/// Questions after which a socket takes no more.
const MOST: u32 = 4_096;
/// Questions that wait at one socket at a time: of 65,536 numbers most stay free.
const WAITING: usize = 16_384;
/// The longest answer by UDP.
const LONGEST: usize = 65_535;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    client: std::net::IpAddr,
    server: SocketAddr,
    identity: u32,
    direction: proxy_api::Direction,
}

/// The sockets in use.
pub struct Pool {
    shared: Arc<Shared>,
    open: Arc<Mutex<HashMap<Key, Arc<Asking>>>>,
}

type Answer = (Vec<u8>, Said);

struct Waiting {
    /// Tells it from an earlier one of the same number.
    turn: u32,
    question: Question,
    answer: oneshot::Sender<Answer>,
}

/// A socket, and who waits for what there.
struct Asking {
    socket: UdpSocket,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiting: HashMap<u16, Waiting>,
    asked: u32,
    /// No more questions.
    over: bool,
}

impl Pool {
    /// Without sockets.
    pub fn new(shared: Arc<Shared>) -> Pool {
        Pool { shared, open: Arc::default() }
    }

    /// Asks the server. Whoever gives up waiting is forgotten.
    pub async fn ask(
        &self,
        facts: &Facts,
        (client, server): (SocketAddr, SocketAddr),
        question: Question,
        mut message: Vec<u8>,
    ) -> io::Result<Answer> {
        let asking = self.asking(facts, client, server)?;
        let (answer, waits) = oneshot::channel();
        let (number, turn) = asking.enter(question, answer)?;
        let _place = Place { asking: &asking, number, turn };
        message[..2].copy_from_slice(&number.to_be_bytes());
        asking.socket.send(&message).await?;
        waits.await.map_err(|_| io::ErrorKind::ConnectionReset.into())
    }

    fn asking(&self, facts: &Facts, client: SocketAddr, server: SocketAddr) -> io::Result<Arc<Asking>> {
        let Facts { source_identity: identity, direction, .. } = *facts;
        let key = Key { client: client.ip(), server, identity, direction };
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(asking) = open.get(&key).filter(|asking| asking.is_open()) {
            return Ok(Arc::clone(asking));
        }
        let socket = self.shared.upstream.datagrams(&*self.shared.redirected, facts, client, server)?;
        let asking = Arc::new(Asking { socket: UdpSocket::from_std(socket)?, state: Mutex::default() });
        open.insert(key, Arc::clone(&asking));
        tokio::spawn(receive(Arc::clone(&self.shared), Arc::clone(&asking), Arc::downgrade(&self.open), key));
        Ok(asking)
    }
}

/// Takes answers until nobody has asked for a while.
async fn receive(shared: Arc<Shared>, asking: Arc<Asking>, open: Weak<Mutex<HashMap<Key, Arc<Asking>>>>, key: Key) {
    let mut room = vec![0; LONGEST];
    let mut asked = 0;
    loop {
        match tokio::time::timeout(IDLE, asking.socket.recv(&mut room)).await {
            Ok(Ok(length)) => asking.take(&room[..length], &shared.counters),
            // An ICMP error: the server is not there, and who waits hears it at once.
            Ok(Err(_)) => asking.fail(),
            Err(_) => {
                if asking.is_idle(&mut asked) {
                    break;
                }
            }
        }
    }
    if let Some(open) = open.upgrade()
        && let Entry::Occupied(entry) = open.lock().unwrap_or_else(PoisonError::into_inner).entry(key)
        && Arc::ptr_eq(entry.get(), &asking)
    {
        entry.remove();
    }
}

impl Asking {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_open(&self) -> bool {
        let state = self.state();
        !state.over && state.asked < MOST && state.waiting.len() < WAITING
    }

    fn enter(&self, question: Question, answer: oneshot::Sender<Answer>) -> io::Result<(u16, u32)> {
        let mut state = self.state();
        if state.over || state.waiting.len() >= WAITING {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        state.asked += 1;
        let turn = state.asked;
        loop {
            let number = rand::random();
            if let Entry::Vacant(place) = state.waiting.entry(number) {
                place.insert(Waiting { turn, question, answer });
                return Ok((number, turn));
            }
        }
    }

    fn take(&self, bytes: &[u8], counters: &Counters) {
        let Some(number) = bytes.first_chunk().map(|number| u16::from_be_bytes(*number)) else {
            return counters.dns_mismatched.add();
        };
        let mut state = self.state();
        let Entry::Occupied(waiting) = state.waiting.entry(number) else { return counters.dns_mismatched.add() };
        match read_answer(&waiting.get().question, number, bytes) {
            Ok(said) => {
                let _ = waiting.remove().answer.send((bytes.to_vec(), said));
            }
            Err(_) => counters.dns_mismatched.add(),
        }
    }

    fn fail(&self) {
        self.state().waiting.clear();
    }

    /// Nobody waits and nobody has asked since this was last asked; from then on nobody may.
    fn is_idle(&self, asked: &mut u32) -> bool {
        let mut state = self.state();
        let idle = state.waiting.is_empty() && *asked == state.asked;
        *asked = state.asked;
        state.over |= idle;
        idle
    }
}

/// A number that somebody waits under, until it is answered: then it may be another's at once.
struct Place<'a> {
    asking: &'a Asking,
    number: u16,
    turn: u32,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.asking.state();
        if let Entry::Occupied(waiting) = state.waiting.entry(self.number)
            && waiting.get().turn == self.turn
        {
            waiting.remove();
        }
    }
}

impl sockets::Upstream {
    /// A socket to a server in a client's name.
    fn datagrams(
        self,
        redirected: &dyn proxy_api::Redirected,
        facts: &Facts,
        client: SocketAddr,
        server: SocketAddr,
    ) -> io::Result<std::net::UdpSocket> {
        match self {
            sockets::Upstream::Fixed(address) => {
                let any: SocketAddr = if address.is_ipv4() { ([0; 4], 0).into() } else { ([0; 16], 0).into() };
                let socket = std::net::UdpSocket::bind(any)?;
                socket.set_nonblocking(true)?;
                socket.connect(address)?;
                Ok(socket)
            }
            sockets::Upstream::Transparent => sockets::datagrams(redirected, facts, client, server),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn who_has_its_answer_does_not_take_the_next_one_s_number_away() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let asking = Asking { socket, state: Mutex::default() };
        let bytes = [0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, b'a', 0, 0, 1, 0, 1];
        let question = dns::read_question(&bytes).unwrap();
        let (number, turn) = asking.enter(question.clone(), oneshot::channel().0).unwrap();
        let first = Place { asking: &asking, number, turn };
        // The first is answered, and the second gets the same number before the first is gone.
        let (answer, mut waits) = oneshot::channel();
        let second = Waiting { turn: turn + 1, question, answer };
        asking.state().waiting.insert(number, second);
        drop(first);
        assert!(waits.try_recv() == Err(oneshot::error::TryRecvError::Empty), "the second still waits");
        drop(Place { asking: &asking, number, turn: turn + 1 });
        assert!(asking.state().waiting.is_empty());
    }
}
