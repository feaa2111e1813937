//! How do one request and its answer pass?

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use l7::http1::{Answer, Framing, Length, Limits, Malformed, Request, Room, Scan, Upgrade};
use tokio::io::AsyncWrite;
use tokio::time::Instant;

use super::{Session, Told, answers};
use crate::shared::millis;
use crate::wire::{Buffer, CHUNK, Wire};

/// One request and its answer.
pub struct Exchange {
    /// For the answer's record.
    pub judged: Told,
    /// True if the connection to the server is new.
    pub fresh: bool,
    /// True once the client has got a part of an answer.
    pub answered: bool,
    /// The answer's code.
    pub code: u16,
    /// The request is one of gRPC.
    pub grpc: bool,
    /// Whom the request is for, as it says.
    pub authority: String,
    method: Method,
    upgrade: bool,
    keep: bool,
    request: Way,
    answer: Way,
    scan: Scan,
    head_done: bool,
    tunnel: bool,
}

/// As far as it changes what an answer is.
#[derive(Clone, Copy)]
enum Method {
    Head,
    Connect,
    Other,
}

/// One direction: bytes at the front of its buffer that may pass, and where its message ends.
struct Way {
    framing: Framing,
    /// A head in place of the one that came.
    head: Vec<u8>,
    sent: usize,
    ready: usize,
    /// Nothing that was written is kept back.
    flushed: bool,
    /// The writer's side is told of the end. (With a plain answer the connection ends as a whole then.)
    tells_end: bool,
    /// The reader's side has ended.
    end_seen: bool,
    /// The writer's side was told.
    end_told: bool,
}

/// How it ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// Both are whole.
    Done {
        /// Another request may follow.
        keep: bool,
    },
    /// The client broke off.
    ClientGone,
    /// The request's body is none.
    BadRequest(Malformed),
    /// The server ended before it had answered.
    NoAnswer,
    /// The server's answer is none.
    BadAnswer(Malformed),
    /// The answer is not whole.
    Cut,
    /// The answer did not come in time.
    Late,
}

impl Exchange {
    /// For a request whose head of this length is the first in the client's buffer.
    pub fn new(request: &Request, length: usize, judged: Told) -> Exchange {
        let method = match request.method {
            "HEAD" => Method::Head,
            "CONNECT" => Method::Connect,
            _ => Method::Other,
        };
        Exchange {
            judged,
            fresh: false,
            answered: false,
            code: 0,
            grpc: false,
            authority: request.target.authority.to_owned(),
            method,
            upgrade: request.upgrade == Some(Upgrade::WebSocket),
            keep: request.keep_alive,
            request: Way { ready: length, tells_end: true, ..Way::new(request.length) },
            answer: Way::new(Length::Bytes(0)),
            scan: Scan::default(),
            head_done: false,
            tunnel: false,
        }
    }

    /// True if another request can follow when this one is not passed on: it is all there.
    pub fn can_follow(&self) -> bool {
        self.keep && self.request.framing.is_done() && !matches!(self.method, Method::Connect)
    }

    /// An answer has no body.
    pub fn is_head(&self) -> bool {
        matches!(self.method, Method::Head)
    }

    /// No other request follows.
    pub fn is_last(&mut self) {
        self.keep = false;
    }

    /// Another head goes on than the one that came.
    pub fn replace_head(&mut self, head: Vec<u8>) {
        self.request.head = head;
    }

    /// Passes both. The server is there.
    pub async fn run(&mut self, session: &mut Session) -> End {
        if !self.request.head.is_empty() {
            session.up.consume(std::mem::take(&mut self.request.ready));
        }
        let settings = session.connection.shared.settings.load_full();
        let (answer, idle) = (millis(settings.timeouts.request), millis(settings.timeouts.stream_idle));
        let started = Instant::now();
        let limits = session.limits();
        let mut moved = started;
        poll_fn(|cx| {
            if let Poll::Ready(end) = self.poll(session, &limits, &mut moved, cx) {
                return Poll::Ready(end);
            }
            let until = if self.head_done { moved + idle } else { (started + answer).min(moved + idle) };
            if self.tunnel || session.clock.poll(until, cx).is_pending() {
                return Poll::Pending;
            }
            Poll::Ready(if self.answered { End::Cut } else { End::Late })
        })
        .await
    }

    fn poll(&mut self, session: &mut Session, limits: &Limits, last: &mut Instant, cx: &mut Context<'_>) -> Poll<End> {
        loop {
            let moved = match self.step(session, limits, cx) {
                Ok(moved) => moved,
                Err(end) => return Poll::Ready(end),
            };
            if self.is_done() {
                let clean = session.down.is_empty() && !session.client_ended && !self.answer.end_seen;
                return Poll::Ready(End::Done { keep: self.keep && clean });
            }
            if !moved {
                return Poll::Pending;
            }
            *last = Instant::now();
        }
    }

    fn is_done(&self) -> bool {
        let whole = |way: &Way| way.framing.is_done() && way.is_sent();
        if self.tunnel {
            return self.request.end_told && self.answer.end_told;
        }
        let ended = self.answer.end_seen && self.answer.framing.may_end() && self.answer.is_sent();
        // What still comes of a request whose server has ended is of no use.
        self.head_done && (ended || (whole(&self.answer) && (whole(&self.request) || self.request.end_told)))
    }

    /// Whatever can be done now; whether that was anything.
    fn step(&mut self, session: &mut Session, limits: &Limits, cx: &mut Context<'_>) -> Result<bool, End> {
        let Session { connection, client, up, client_ended, server, down, .. } = session;
        let Some(server) = server.as_mut() else { return Err(End::NoAnswer) };
        let mut moved = false;

        // Client to server. What follows the request is read as far as one buffer, or its end would not be seen.
        let wanted = !self.request.framing.is_done() || up.is_empty();
        if wanted && !*client_ended && up.len() < CHUNK {
            match up.poll_fill(client, cx) {
                Poll::Ready(Ok(count)) => {
                    *client_ended |= count == 0;
                    moved = true;
                }
                Poll::Ready(Err(_)) => return Err(End::ClientGone),
                Poll::Pending => {}
            }
        }
        self.request.accept(up).map_err(End::BadRequest)?;
        self.request.end_seen = *client_ended;
        match self.request.poll_send(up, server, cx) {
            Poll::Ready(Ok(())) => moved = true,
            // The server may have answered already, and not want the rest.
            Poll::Ready(Err(_)) => {
                self.request.give_up(up);
                self.keep = false;
                moved = true;
            }
            Poll::Pending => {}
        }

        // Server to client.
        let whole = self.head_done && self.answer.framing.is_done();
        if !self.answer.end_seen && !whole && down.len() < CHUNK + limits.bytes {
            match down.poll_fill(server, cx) {
                Poll::Ready(Ok(count)) => {
                    self.answer.end_seen = count == 0;
                    moved = true;
                }
                Poll::Ready(Err(_)) => return Err(if self.head_done { End::Cut } else { End::NoAnswer }),
                Poll::Pending => {}
            }
        }
        while !self.head_done && self.answer.is_sent() {
            match self.scan.find(down.data(), limits).map_err(End::BadAnswer)? {
                Some(length) => self.read_answer(connection, down, length, limits)?,
                None => break,
            }
        }
        if self.head_done {
            self.answer.accept(down).map_err(|_| End::Cut)?;
        } else if self.answer.end_seen {
            return Err(End::NoAnswer);
        }
        match self.answer.poll_send(down, client, cx) {
            Poll::Ready(Ok(())) => {
                self.answered = true;
                moved = true;
            }
            Poll::Ready(Err(_)) => return Err(End::ClientGone),
            Poll::Pending => {}
        }
        if self.answer.end_seen && self.answer.is_sent() && !self.answer.framing.may_end() {
            return Err(End::Cut);
        }
        Ok(moved)
    }

    /// Reads the head of an answer, which is the first in the server's buffer.
    fn read_answer(
        &mut self,
        connection: &crate::shared::Connection,
        down: &mut Buffer,
        length: usize,
        limits: &Limits,
    ) -> Result<(), End> {
        let method = match self.method {
            Method::Head => "HEAD",
            Method::Connect => "CONNECT",
            Method::Other => "GET",
        };
        let mut room = Room::default();
        let answer = Answer::read(&down.data()[..length], &mut room, limits, method).map_err(End::BadAnswer)?;
        self.scan = Scan::default();
        if answer.is_interim() {
            self.answer.ready = length;
            return Ok(());
        }
        let tunnel = match (answer.code, self.method) {
            (101, _) if self.upgrade => true,
            (101, _) => return Err(End::BadAnswer(Malformed::OutOfPlace)),
            (200..300, Method::Connect) => true,
            _ => false,
        };
        self.code = answer.code;
        if let Some(judged) = &self.judged {
            connection.record_answer(judged, answer.code, Some(&answer.head), "");
        }
        self.head_done = true;
        self.keep &= answer.keep_alive && !tunnel;
        self.answer.framing = Framing::new(answer.length);
        self.answer.ready = length;
        if tunnel {
            self.tunnel = true;
            self.request.framing = Framing::new(Length::UntilClose);
            self.answer.framing = Framing::new(Length::UntilClose);
            self.answer.tells_end = true;
        } else if self.keep && connection.shared.is_draining() {
            self.keep = false;
            self.answer.head = answers::last(&answer.head);
            self.answer.ready = 0;
            down.consume(length);
        }
        Ok(())
    }
}

impl Way {
    fn new(length: Length) -> Way {
        Way {
            framing: Framing::new(length),
            head: Vec::new(),
            sent: 0,
            ready: 0,
            flushed: true,
            tells_end: false,
            end_seen: false,
            end_told: false,
        }
    }

    /// Lets those bytes pass that belong to the message.
    fn accept(&mut self, buffer: &Buffer) -> Result<(), Malformed> {
        if !self.framing.is_done() && !self.end_told {
            self.ready += self.framing.advance(&buffer.data()[self.ready..])?;
        }
        Ok(())
    }

    /// True if nothing that may pass is left.
    fn is_sent(&self) -> bool {
        self.sent == self.head.len() && self.ready == 0 && self.flushed
    }

    /// Writes what may pass, and tells the end once all has passed. Pending: nothing could be done.
    fn poll_send(&mut self, buffer: &mut Buffer, to: &mut Wire, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.sent < self.head.len() {
            let count = ready!(Pin::new(&mut *to).poll_write(cx, &self.head[self.sent..]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += count;
            self.flushed = false;
        } else if self.ready > 0 {
            self.ready -= ready!(buffer.poll_drain(self.ready, to, cx))?;
            self.flushed = false;
        } else if !self.flushed {
            // TLS keeps what the socket did not take.
            ready!(Pin::new(&mut *to).poll_flush(cx))?;
            self.flushed = true;
        } else if self.end_seen && !self.end_told && self.tells_end {
            ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
            self.end_told = true;
        } else {
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    /// Nothing more is wanted.
    fn give_up(&mut self, buffer: &mut Buffer) {
        buffer.consume(self.ready);
        self.ready = 0;
        self.flushed = true;
        self.sent = self.head.len();
        self.end_told = true;
        self.framing = Framing::new(Length::Bytes(0));
    }
}
