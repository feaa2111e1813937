//! Who answers for names that are not the cluster's, and how long are the answers kept?

use crate::message::{self, Reply, framed};
use crate::name_server::frame;
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{LowerName, RecordType};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;
use tracing::{debug, warn};

/// How long one server has; then the next is asked.
const PATIENCE: Duration = Duration::from_millis(1900);
/// So often every server is asked. Two servers' worth ends before a client's own five seconds do.
const ROUNDS: usize = 2;
/// How long all of it may take.
const TOTAL: Duration = Duration::from_millis(4500);
/// Answers are kept no longer, in seconds, and no more of them.
const LONGEST: u32 = 30;
const MOST: usize = 1024;
const PORT: u16 = 53;

/// Asks other name servers.
#[derive(Debug)]
pub struct Forwarder {
    servers: Vec<SocketAddr>,
    kept: Mutex<Kept>,
}

impl Forwarder {
    /// Asks these, in this order.
    pub fn new(servers: Vec<SocketAddr>) -> Forwarder {
        Forwarder { servers, kept: Mutex::default() }
    }

    /// Whom it asks.
    pub fn servers(&self) -> &[SocketAddr] {
        &self.servers
    }

    /// The first answer that a server gives; `ServFail` if none does in time.
    pub async fn ask(&self, query: &Query) -> Reply {
        if let Some(reply) = self.kept().get(query, Instant::now()) {
            return reply;
        }
        let reply = match timeout(TOTAL, self.ask_all(query)).await {
            Ok(Some(message)) => reply(message),
            Ok(None) | Err(_) => {
                warn!(name = %query.name(), kind = %query.query_type(), servers = ?self.servers, "no server answers");
                Reply::of(ResponseCode::ServFail)
            }
        };
        self.kept().put(query, &reply, Instant::now());
        reply
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask_all(&self, query: &Query) -> Option<Message> {
        for server in self.servers.iter().cycle().take(ROUNDS * self.servers.len()) {
            match timeout(PATIENCE, exchange(*server, query)).await {
                Ok(Ok(message)) => return Some(message),
                Ok(Err(error)) => debug!(%server, %error, "no answer"),
                Err(_) => debug!(%server, "no answer in time"),
            }
        }
        None
    }
}

/// Asks by datagram, and again by stream if the answer does not fit.
async fn exchange(server: SocketAddr, query: &Query) -> io::Result<Message> {
    let id = rand::random();
    let question = message::ask(id, query);
    let answer = by_datagram(server, &question, id, query).await?;
    if answer.metadata.truncation { by_stream(server, &question, id, query).await } else { Ok(answer) }
}

async fn by_datagram(server: SocketAddr, question: &[u8], id: u16, query: &Query) -> io::Result<Message> {
    let any: IpAddr = if server.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // what does not fit the question is not for us, whoever sent it
        if let Some(message) = message::answer_to(&buffer[..length], id, query) {
            return Ok(message);
        }
    }
}

async fn by_stream(server: SocketAddr, question: &[u8], id: u16, query: &Query) -> io::Result<Message> {
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(&framed(question)).await?;
    let bytes = frame(&mut stream).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    message::answer_to(&bytes, id, query).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not our answer"))
}

fn reply(message: Message) -> Reply {
    Reply {
        code: message.metadata.response_code,
        authoritative: false,
        answers: message.answers,
        authorities: message.authorities,
        additionals: message.additionals,
    }
}

/// Answers that still hold.
#[derive(Debug, Default)]
struct Kept {
    entries: HashMap<(LowerName, RecordType), Entry>,
}

#[derive(Debug)]
struct Entry {
    reply: Reply,
    since: Instant,
    ttl: u32,
}

impl Entry {
    fn age(&self, now: Instant) -> u32 {
        u32::try_from(now.saturating_duration_since(self.since).as_secs()).unwrap_or(u32::MAX)
    }
}

impl Kept {
    /// An answer with what is left of its time, under the name as it is asked for now.
    fn get(&self, query: &Query, now: Instant) -> Option<Reply> {
        let entry = self.entries.get(&key(query))?;
        let age = entry.age(now);
        if age >= entry.ttl {
            return None;
        }
        let mut reply = entry.reply.clone();
        for record in reply.answers.iter_mut().chain(&mut reply.authorities).chain(&mut reply.additionals) {
            record.ttl = record.ttl.saturating_sub(age);
            if record.name == *query.name() {
                record.name = query.name().clone();
            }
        }
        Some(reply)
    }

    fn put(&mut self, query: &Query, reply: &Reply, now: Instant) {
        let lowest = reply.answers.iter().map(|r| r.ttl).min();
        let Some(ttl) = lowest.filter(|ttl| *ttl > 0 && reply.code == ResponseCode::NoError) else { return };
        if self.entries.len() >= MOST {
            self.entries.retain(|_, e| e.age(now) < e.ttl);
        }
        if self.entries.len() < MOST {
            self.entries.insert(key(query), Entry { reply: reply.clone(), since: now, ttl: ttl.min(LONGEST) });
        }
    }
}

fn key(query: &Query) -> (LowerName, RecordType) {
    (LowerName::new(query.name()), query.query_type())
}

/// The name servers of a file like `/etc/resolv.conf`. A loopback address would be ourselves.
pub fn name_servers(text: &str) -> Vec<SocketAddr> {
    let words = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let addresses = words.filter_map(|words| match words.as_slice() {
        ["nameserver", address, ..] => address.split('%').next()?.parse::<IpAddr>().ok(),
        _ => None,
    });
    addresses.filter(|a| !a.is_loopback() && !a.is_unspecified()).map(|a| (a, PORT).into()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use hickory_proto::rr::{Name, RData, Record, rdata};

    fn query(name: &str) -> Query {
        Query::query(Name::from_ascii(name).unwrap(), RecordType::A)
    }

    fn answered(ttl: u32) -> Reply {
        let data = RData::A(rdata::A(Ipv4Addr::LOCALHOST));
        Reply::answers(vec![Record::from_rdata(Name::from_ascii("a.b.").unwrap(), ttl, data)])
    }

    #[test]
    fn answers_are_kept_as_long_as_they_hold() {
        let (start, mut kept) = (Instant::now(), Kept::default());
        let after = |s| start + Duration::from_secs(s);
        kept.put(&query("a.b."), &answered(20), start);
        let reply = kept.get(&query("A.b."), after(5)).unwrap();
        assert_eq!((reply.answers[0].ttl, reply.answers[0].name.to_ascii().as_str()), (15, "A.b."));
        assert!(kept.get(&query("a.b."), after(20)).is_none());
        kept.put(&query("a.b."), &answered(3600), start);
        assert!(kept.get(&query("a.b."), after(29)).is_some() && kept.get(&query("a.b."), after(30)).is_none());
    }

    #[test]
    fn what_is_nothing_or_too_much_is_not_kept() {
        let (now, mut kept) = (Instant::now(), Kept::default());
        kept.put(&query("a.b."), &answered(0), now);
        kept.put(&query("a.b."), &Reply::of(ResponseCode::NXDomain), now);
        assert!(kept.entries.is_empty());
        for n in 0..2 * MOST {
            kept.put(&query(&format!("n{n}.b.")), &answered(10), now);
        }
        assert_eq!(kept.entries.len(), MOST);
        kept.put(&query("later.b."), &answered(10), now + Duration::from_secs(11));
        assert_eq!(kept.entries.len(), 1);
    }

    #[test]
    fn servers_are_those_of_the_file_but_not_ourselves() {
        let text = "# nameserver 9.9.9.9\nsearch x\nnameserver 172.18.0.1\nnameserver fe80::1%eth0\nnameserver 127.0.0.53\nnameserver x\n";
        let servers: Vec<String> = name_servers(text).iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["172.18.0.1:53", "[fe80::1]:53"]);
    }
}
