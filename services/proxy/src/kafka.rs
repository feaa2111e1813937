//! How do requests to a Kafka broker go on, and answers come back?
//!
//! A client may send many requests before their answers come; answers come in the order of the requests. Each request
//! is judged when it is whole, by what holds then. One that no rule allows is answered here, when its turn comes among
//! the answers of the broker, which never sees it. Answers pass as they are, but for the list of versions (`l7::kafka::offer`).

mod denial;
mod judge;

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use l7::kafka::Malformed;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tokio_util::sync::{PollSemaphore, WaitForCancellationFutureOwned};

use crate::clock::Clock;
use crate::shared::{Connection, millis};
use crate::wire::{Buffer, CHUNK, Wire};
use judge::{Asked, Decision};

/// Room for all long requests together, in KiB.
pub const LONG_REQUESTS: usize = 256 << 10;

/// Requests up to this length need no room.
const SHORT: usize = 64 << 10;
/// Requests whose answers may be waited for at a time.
const MOST_WAITING: usize = 256;
/// Bytes of our own answers that may wait.
const MOST_OWN: usize = 1 << 20;
/// The longest list of versions.
const MOST_VERSIONS: usize = 64 << 10;
/// What of a request is enough to know its kind, its client and, of a Produce request, the acknowledgements asked for.
const BEGINNING: usize = 100 << 10;
/// The least that a request has.
const LEAST: i32 = 8;

/// A client's connection and its one to the broker.
struct Session {
    connection: Connection,
    client: Wire,
    server: Option<Wire>,
    /// Read from the client, not yet passed on.
    up: Buffer,
    /// So many bytes of it, and maybe of what is still to come, may pass.
    pass: u64,
    client_ended: bool,
    /// Since when the beginning of a request waits for its end.
    partial: Option<Instant>,
    room: PollSemaphore,
    held: Option<OwnedSemaphorePermit>,
    /// Answers to come, in order.
    waiting: VecDeque<Turn>,
    /// Bytes of our own answers among them.
    own: usize,
    /// Read from the broker, not yet passed on.
    down: Buffer,
    server_ended: bool,
    /// So many bytes of it, and of what is still to come, are the rest of an answer.
    answer: u64,
    /// Our own answer that is being sent.
    out: Vec<u8>,
    sent: usize,
    flushed: (bool, bool),
    moved: Instant,
    clock: Clock,
    /// Until it has come.
    drain: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

/// Whose answer comes next.
enum Turn {
    Broker(Asked),
    Own(Vec<u8>),
    /// Nobody's: the connection ends.
    End,
}

/// What is to be done once nothing more moves by itself.
enum Next {
    /// Bytes moved: look again.
    Again,
    /// The broker is needed.
    Connect,
    /// All was said.
    Close,
    /// The other side must know that something is missing.
    Reset,
}

/// A connection that comes in as it is.
pub async fn serve(connection: Connection, client: TcpStream) {
    if connection.now().is_ok_and(|(_, rules)| rules.terminate.is_some() || rules.server_names.is_some()) {
        return Box::pin(crate::tls::serve(connection, client)).await;
    }
    run(connection, Wire::Tcp(client), None).await;
}

/// A connection inside TLS or not; the broker's side of it, if it is there already.
pub async fn run(connection: Connection, client: Wire, server: Option<Wire>) {
    let room = PollSemaphore::new(connection.shared.kafka.clone());
    let drain = Some(Box::pin(connection.shared.drain.clone().cancelled_owned()));
    let session = Session {
        connection,
        client,
        server,
        up: Buffer::default(),
        pass: 0,
        client_ended: false,
        partial: None,
        room,
        held: None,
        waiting: VecDeque::new(),
        own: 0,
        down: Buffer::default(),
        server_ended: false,
        answer: 0,
        out: Vec::new(),
        sent: 0,
        flushed: (true, true),
        moved: Instant::now(),
        clock: Clock::default(),
        drain,
    };
    session.run().await;
}

impl Session {
    async fn run(mut self) {
        loop {
            let next = match self.look() {
                Next::Again => poll_fn(|cx| self.poll(cx)).await,
                next => next,
            };
            match next {
                Next::Again => self.moved = Instant::now(),
                Next::Connect => match self.connect().await {
                    Ok(server) => self.server = Some(server),
                    Err(error) => {
                        self.unanswered(&format!("the broker cannot be reached: {error}"));
                        return self.client.reset();
                    }
                },
                Next::Close => return self.close().await,
                Next::Reset => {
                    self.unanswered("the connection ended before the answer");
                    if let Some(server) = self.server.take() {
                        server.reset();
                    }
                    return self.client.reset();
                }
            }
        }
    }

    /// Connects to the broker, by TLS if the rules say so.
    async fn connect(&self) -> io::Result<Wire> {
        let (_, rules) = self.connection.now().map_err(|_| io::ErrorKind::PermissionDenied)?;
        let stream = self.connection.connect().await?;
        match &rules.originate {
            Some(connector) => {
                Box::pin(crate::tls::originate(&self.connection, connector, stream, None, Vec::new())).await
            }
            None => Ok(Wire::Tcp(stream)),
        }
    }

    /// No answer comes any more to what went on.
    fn unanswered(&self, why: &str) {
        for turn in &self.waiting {
            if let Turn::Broker(asked) = turn {
                self.connection.record_kafka_failure(asked, why);
            }
        }
    }

    async fn close(mut self) {
        crate::http1::linger(&mut self.client).await;
    }

    /// Judges and matches what there is.
    fn look(&mut self) -> Next {
        if let Err(next) = self.requests().and_then(|()| self.answers()) {
            return next;
        }
        if self.pass > 0 && self.server.is_none() {
            return Next::Connect;
        }
        if self.server_ended && self.out.is_empty() && (self.answer == 0 || self.down.is_empty()) && self.flushed.0 {
            // A broker ends connections that were idle for long. If somebody waits for it, something is missing.
            let waits = self.waiting.iter().any(|turn| matches!(turn, Turn::Broker(_)));
            return if waits || self.answer > 0 || self.pass > 0 { Next::Reset } else { Next::Close };
        }
        let said = self.waiting.is_empty() && self.out.is_empty() && self.answer == 0 && self.pass == 0;
        let last = self.client_ended || self.connection.shared.is_draining();
        if said && last && self.flushed == (true, true) { Next::Close } else { Next::Again }
    }

    /// Judges requests that are whole.
    fn requests(&mut self) -> Result<(), Next> {
        let limit = u64::from(self.connection.shared.settings.load().limits.kafka_request_bytes);
        self.partial = if self.pass == 0 { self.partial } else { None };
        loop {
            let Some(at) = usize::try_from(self.pass).ok().filter(|at| *at <= self.up.len()) else { return Ok(()) };
            let data = &self.up.data()[at..];
            let draining = self.connection.shared.is_draining();
            if data.is_empty() || draining || self.is_full() {
                self.partial = None;
                return Ok(());
            }
            let Some((length, frame)) = data.split_first_chunk() else { return self.wait(at) };
            let length = i32::from_be_bytes(*length);
            if length < LEAST {
                self.connection.kafka_malformed(Malformed::Length(length));
                return Err(Next::Reset);
            }
            let bytes = u64::from(length.unsigned_abs());
            let long = bytes > limit;
            let needed = if long { (bytes as usize).min(BEGINNING) } else { bytes as usize };
            if frame.len() < needed {
                return self.wait(at);
            }
            let whole = frame.len() as u64 >= bytes;
            let frame = &frame[..frame.len().min(bytes as usize)];
            let missing = (long || !whole).then_some(Malformed::TooLong(length));
            match self.connection.judge_kafka(frame, missing) {
                Err(_) => return Err(Next::Reset),
                Ok(Decision::Forward { answer, sessionless }) => {
                    if let Some(place) = sessionless {
                        let place = at + 4 + place;
                        self.up.data_mut()[place..place + 4].copy_from_slice(&(-1i32).to_be_bytes());
                    }
                    self.pass += 4 + bytes;
                    self.waiting.extend(answer.map(Turn::Broker));
                }
                Ok(Decision::Answer(answer)) => {
                    self.own += answer.len();
                    self.waiting.push_back(Turn::Own(answer));
                    self.up.cut(at, 4 + needed);
                }
                Ok(Decision::End) => {
                    // What follows is not heard any more.
                    self.waiting.push_back(Turn::End);
                    self.up.truncate(at);
                }
            }
            self.partial = None;
        }
    }

    /// Waits for the end of a request.
    fn wait(&mut self, at: usize) -> Result<(), Next> {
        if self.client_ended {
            self.connection.kafka_malformed(Malformed::Short);
            self.up.truncate(at);
        } else if at == 0 {
            self.partial.get_or_insert_with(Instant::now);
        }
        Ok(())
    }

    /// True if nothing more is asked for now.
    fn is_full(&self) -> bool {
        self.waiting.len() >= MOST_WAITING || self.own > MOST_OWN || matches!(self.waiting.back(), Some(Turn::End))
    }

    /// Matches answers with the requests that wait for them.
    fn answers(&mut self) -> Result<(), Next> {
        if !self.out.is_empty() || self.answer > 0 {
            return Ok(());
        }
        match self.waiting.front() {
            Some(Turn::Own(_)) => {
                if let Some(Turn::Own(answer)) = self.waiting.pop_front() {
                    self.own -= answer.len();
                    (self.out, self.sent) = (answer, 0);
                }
                return Ok(());
            }
            Some(Turn::End) if self.pass == 0 && self.flushed == (true, true) => return Err(Next::Close),
            Some(Turn::End) => return Ok(()),
            Some(Turn::Broker(_)) => {}
            // An answer that nobody asked for.
            None if !self.down.is_empty() => return Err(Next::Reset),
            None => return Ok(()),
        }
        let Some((head, _)) = self.down.data().split_first_chunk::<8>() else { return Ok(()) };
        let [l0, l1, l2, l3, c0, c1, c2, c3] = *head;
        let length = i32::from_be_bytes([l0, l1, l2, l3]);
        let Some(Turn::Broker(asked)) = self.waiting.front() else { return Ok(()) };
        if length < 4 || i32::from_be_bytes([c0, c1, c2, c3]) != asked.correlation {
            tracing::debug!(server = %self.connection.local, length, "a broker's answer is to another request");
            return Err(Next::Reset);
        }
        let length = length.unsigned_abs() as usize;
        if let Some((version, unknown)) = asked.versions {
            if length > MOST_VERSIONS {
                return Err(Next::Reset);
            }
            let Some(body) = self.down.data().get(8..4 + length) else { return Ok(()) };
            let told = l7::kafka::offer(body, version, unknown).map_err(|_| Next::Reset)?;
            let told_length = i32::try_from(4 + told.len()).map_err(|_| Next::Reset)?;
            self.out = [&told_length.to_be_bytes()[..], &asked.correlation.to_be_bytes(), &told].concat();
            self.sent = 0;
            self.down.consume(4 + length);
        } else {
            self.answer = 4 + length as u64;
        }
        if let Some(Turn::Broker(asked)) = self.waiting.pop_front() {
            self.connection.record_kafka_answer(&asked);
        }
        Ok(())
    }

    /// Moves bytes. Pending: none could be moved.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        let mut moved = false;
        for step in [Session::write_client, Session::write_server, Session::read_client, Session::read_server] {
            match step(self, cx) {
                Poll::Ready(Ok(())) => moved = true,
                Poll::Ready(Err(next)) => return Poll::Ready(next),
                Poll::Pending => {}
            }
        }
        if self.drain.as_mut().is_some_and(|drain| drain.as_mut().poll(cx).is_ready()) {
            self.drain = None;
            moved = true;
        }
        if moved {
            return Poll::Ready(Next::Again);
        }
        let until = self.deadline();
        self.clock.poll(until, cx).map(|()| Next::Reset)
    }

    fn write_client(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Next>> {
        if self.sent < self.out.len() {
            let count = ready!(Pin::new(&mut self.client).poll_write(cx, &self.out[self.sent..]));
            self.sent += count.ok().filter(|count| *count > 0).ok_or(Next::Reset)?;
            if self.sent == self.out.len() {
                (self.out, self.sent) = (Vec::new(), 0);
            }
            self.flushed.0 = false;
        } else if self.answer > 0 && !self.down.is_empty() {
            let count = self.down.len().min(usize::try_from(self.answer).unwrap_or(usize::MAX));
            let count = ready!(self.down.poll_drain(count, &mut self.client, cx)).map_err(|_| Next::Reset)?;
            self.answer -= count as u64;
            self.flushed.0 = false;
        } else if !self.flushed.0 {
            ready!(Pin::new(&mut self.client).poll_flush(cx)).map_err(|_| Next::Reset)?;
            self.flushed.0 = true;
        } else {
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn write_server(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Next>> {
        let Some(server) = &mut self.server else { return Poll::Pending };
        if self.pass > 0 && !self.up.is_empty() {
            let count = self.up.len().min(usize::try_from(self.pass).unwrap_or(usize::MAX));
            let count = ready!(self.up.poll_drain(count, server, cx)).map_err(|_| Next::Reset)?;
            self.pass -= count as u64;
            if self.up.len() <= SHORT {
                self.held = None;
            }
            self.flushed.1 = false;
        } else if !self.flushed.1 {
            ready!(Pin::new(server).poll_flush(cx)).map_err(|_| Next::Reset)?;
            self.flushed.1 = true;
        } else {
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn read_client(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Next>> {
        let more = self.partial.is_some() || self.up.len() < CHUNK;
        let draining = self.connection.shared.is_draining();
        if self.client_ended || !more || draining || self.is_full() {
            return Poll::Pending;
        }
        ready!(self.poll_room(cx))?;
        match ready!(self.up.poll_fill(&mut self.client, cx)) {
            Ok(0) => self.client_ended = true,
            Ok(_) => {}
            Err(_) => return Poll::Ready(Err(Next::Reset)),
        }
        Poll::Ready(Ok(()))
    }

    /// A long request waits for room before it is read on.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Next>> {
        if self.partial.is_none() || self.held.is_some() || self.up.len() < CHUNK {
            return Poll::Ready(Ok(()));
        }
        let Some((length, _)) = self.up.data().split_first_chunk() else { return Poll::Ready(Ok(())) };
        let length = usize::try_from(i32::from_be_bytes(*length)).unwrap_or(0);
        let limit = self.connection.shared.settings.load().limits.kafka_request_bytes as usize;
        let length = if length > limit { BEGINNING } else { length };
        if length <= SHORT {
            return Poll::Ready(Ok(()));
        }
        let permits = u32::try_from((length >> 10).min(LONG_REQUESTS)).unwrap_or(u32::MAX);
        self.held = ready!(self.room.poll_acquire_many(cx, permits));
        Poll::Ready(if self.held.is_some() { Ok(()) } else { Err(Next::Reset) })
    }

    fn read_server(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Next>> {
        let versions = matches!(self.waiting.front(), Some(Turn::Broker(asked)) if asked.versions.is_some());
        let limit = if versions && self.answer == 0 { MOST_VERSIONS + CHUNK } else { CHUNK };
        let wanted = !self.server_ended && self.down.len() < limit;
        let Some(server) = self.server.as_mut().filter(|_| wanted) else { return Poll::Pending };
        match ready!(self.down.poll_fill(server, cx)) {
            Ok(count) => {
                self.server_ended = count == 0;
                Poll::Ready(Ok(()))
            }
            Err(_) => Poll::Ready(Err(Next::Reset)),
        }
    }

    /// When this has taken too long.
    fn deadline(&self) -> Instant {
        let timeouts = self.connection.shared.settings.load().timeouts;
        let stuck = self.pass > 0 || self.answer > 0 || !self.out.is_empty() || self.flushed != (true, true);
        let quiet = if stuck { timeouts.stream_idle } else { timeouts.idle };
        let asked = self.waiting.iter().find_map(|turn| match turn {
            Turn::Broker(asked) => Some(Instant::from_std(asked.since) + millis(timeouts.request)),
            Turn::Own(_) | Turn::End => None,
        });
        let quiet = match asked {
            Some(_) if !stuck => None,
            _ => Some(self.moved + millis(quiet)),
        };
        let partial = self.partial.map(|since| since + millis(timeouts.head));
        let far = self.moved + Duration::from_secs(3_155_760_000);
        [asked, quiet, partial].into_iter().flatten().min().unwrap_or(far)
    }
}
