//! How does HTTP/1 go from client to server, request by request?
//!
//! Requests are judged one after the other, each by what holds when it is whole. What passes goes on as it came, byte
//! for byte, head and body, unless a rule changes headers. Each connection of a client has one of its own to the server.

mod answers;
mod exchange;

use std::future::poll_fn;
use std::task::Poll;

use l7::http1::{Limits, Malformed, Request, Room, Scan, Upgrade};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::http2;
use crate::judge::{Asked, Decision, Judged, is_grpc};
use crate::shared::{Connection, Used, millis};
use crate::wire::{Buffer, Wire};
use answers::Local;
pub(crate) use answers::linger;
use exchange::{End, Exchange};

/// How a client of HTTP/2 begins.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A client's connection and its one to the server.
pub struct Session {
    connection: Connection,
    client: Wire,
    /// Read from the client, not yet passed on.
    up: Buffer,
    client_ended: bool,
    server: Option<Wire>,
    /// Since when it is there, and what it has carried.
    used: Used,
    /// Read from the server, not yet passed on.
    down: Buffer,
    clock: Clock,
}

/// A connection that comes in as it is.
pub async fn serve(connection: Connection, client: TcpStream) {
    if connection.now().is_ok_and(|(_, rules)| rules.terminate.is_some() || rules.server_names.is_some()) {
        return Box::pin(crate::tls::serve(connection, client)).await;
    }
    run(connection, Wire::Tcp(client), None).await;
}

/// A connection inside TLS or not; the server's side of it, if it is there already.
pub async fn run(connection: Connection, client: Wire, server: Option<Wire>) {
    let (up, down) = (Buffer::default(), Buffer::default());
    let (used, clock) = (Used::default(), Clock::default());
    let mut session = Session { connection, client, up, client_ended: false, server, used, down, clock };
    match session.begins_with_preface().await {
        Ok(true) => Box::pin(http2::run(session.connection, session.client, session.up, session.server)).await,
        Ok(false) => session.run().await,
        Err(Wait::Late | Wait::Over) => {}
        Err(Wait::Broken) => session.client.reset(),
    }
}

/// What follows.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// Another request may.
    Request,
    /// Nothing; the client may know.
    Close,
    /// Nothing; the client must know that something is missing.
    Reset,
}

/// Why no more bytes of the client came.
#[derive(Debug, PartialEq, Eq)]
enum Wait {
    /// They did not come in time.
    Late,
    /// Client or server has ended.
    Over,
    /// The client broke off.
    Broken,
}

/// What a head says, as far as it matters once it has been judged.
struct Plan {
    exchange: Exchange,
    answer: Option<Local>,
}

impl Session {
    async fn run(mut self) {
        loop {
            let next = match self.head().await {
                Ok(length) => self.request(length).await,
                Err(next) => next,
            };
            match next {
                Next::Request => {}
                Next::Close => return,
                Next::Reset => {
                    if let Some(server) = self.server.take() {
                        server.reset();
                    }
                    return self.client.reset();
                }
            }
        }
    }

    fn limits(&self) -> Limits {
        let limits = self.connection.shared.settings.load().limits;
        Limits { bytes: limits.head_bytes as usize, headers: limits.headers as usize }
    }

    /// Waits until it is known whether HTTP/2 is spoken.
    async fn begins_with_preface(&mut self) -> Result<bool, Wait> {
        self.first_byte().await?;
        let until = Instant::now() + millis(self.connection.shared.settings.load().timeouts.head);
        loop {
            let data = self.up.data();
            let common = data.iter().zip(PREFACE).take_while(|(one, two)| one == two).count();
            if common == PREFACE.len() || common < data.len() {
                return Ok(common == PREFACE.len());
            }
            self.fill(until).await?;
        }
    }

    /// Waits for a request to begin. Meanwhile a connection to the server that is idle for too long ends; the client's
    /// stays for longer.
    async fn first_byte(&mut self) -> Result<(), Wait> {
        if !self.up.is_empty() {
            return Ok(());
        }
        let times = self.connection.shared.settings.load().timeouts;
        let (now, idle) = (Instant::now(), millis(times.idle));
        let upstream = millis(times.upstream_idle);
        if self.server.is_some() && upstream < idle {
            match self.fill(now + upstream).await {
                Err(Wait::Late) => self.server = None,
                other => return other,
            }
        }
        self.fill(now + idle).await
    }

    /// More bytes of the client. The end of them, or of the server, is the end.
    async fn fill(&mut self, until: Instant) -> Result<(), Wait> {
        if self.client_ended {
            return Err(Wait::Over);
        }
        let Session { client, server, up, down, clock, .. } = self;
        poll_fn(|cx| {
            match up.poll_fill(client, cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(Wait::Over)),
                Poll::Ready(Ok(_)) => return Poll::Ready(Ok(())),
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Wait::Broken)),
                Poll::Pending => {}
            }
            // A server that ends, or speaks without being asked, ends the connection.
            if server.as_mut().is_some_and(|server| down.poll_fill(server, cx).is_ready()) {
                return Poll::Ready(Err(Wait::Over));
            }
            clock.poll(until, cx).map(|()| Err(Wait::Late))
        })
        .await
    }

    /// The length of the next request's head.
    async fn head(&mut self) -> Result<usize, Next> {
        match self.first_byte().await {
            Ok(()) => {}
            Err(Wait::Broken) => return Err(Next::Reset),
            Err(Wait::Late | Wait::Over) => return Err(Next::Close),
        }
        let until = Instant::now() + millis(self.connection.shared.settings.load().timeouts.head);
        let limits = self.limits();
        let mut scan = Scan::default();
        loop {
            // One empty line between requests is what old clients leave.
            if self.up.data().starts_with(b"\r\n") {
                self.up.consume(2);
                scan = Scan::default();
            }
            let data = self.up.data();
            let found = match data {
                b"\r" => Ok(None),
                data => Request::check_start(data).and_then(|()| scan.find(data, &limits)),
            };
            match found {
                Ok(Some(length)) => return Ok(length),
                Ok(None) => {}
                Err(malformed) => return Err(self.malformed(malformed).await),
            }
            match self.fill(until).await {
                Ok(()) => {}
                Err(Wait::Broken) => return Err(Next::Reset),
                Err(Wait::Over) => {
                    self.connection.record_malformed("the connection ended within the head of a request");
                    return Err(Next::Close);
                }
                Err(Wait::Late) => {
                    self.connection.record_malformed("the head of a request did not come in time");
                    return Err(self.answer(Local::plain(408, "request timeout")).await);
                }
            }
        }
    }

    async fn malformed(&mut self, malformed: Malformed) -> Next {
        self.connection.record_malformed(&malformed.to_string());
        self.answer(Local::malformed(malformed)).await
    }

    /// Answers for the server, and ends.
    async fn answer(&mut self, local: Local) -> Next {
        answers::send(&mut self.client, &local.closing()).await;
        answers::linger(&mut self.client).await;
        Next::Close
    }

    /// Judges a request whose head is there, and carries it and its answer.
    async fn request(&mut self, length: usize) -> Next {
        let plan = match self.plan(length) {
            Ok(plan) => plan,
            Err(malformed) => return self.malformed(malformed).await,
        };
        let Plan { mut exchange, answer } = plan;
        if let Some(local) = answer {
            let keep = exchange.can_follow() && !self.connection.shared.is_draining();
            if let Some(judged) = &exchange.judged {
                self.connection.record_answer(judged, local.recorded(), None, "");
            }
            if !keep {
                return self.answer(local).await;
            }
            self.up.consume(length);
            return if answers::send(&mut self.client, &local).await { Next::Request } else { Next::Close };
        }
        if self.server.is_none() {
            match Box::pin(self.connect(&exchange.authority)).await {
                Ok(server) => {
                    self.server = Some(server);
                    self.used = Used::default();
                    exchange.fresh = true;
                }
                Err(_) => return self.failed(&exchange, 503, "the server cannot be reached").await,
            }
        }
        let end = exchange.run(self).await;
        self.after(exchange, end).await
    }

    /// Connects to the server, by TLS if the rules say so.
    async fn connect(&self, authority: &str) -> std::io::Result<Wire> {
        let Ok((_, rules)) = self.connection.now() else { return Err(std::io::ErrorKind::PermissionDenied.into()) };
        let stream = self.connection.connect().await?;
        match &rules.originate {
            Some(connector) => {
                let name = crate::tls::host_of(authority);
                Box::pin(crate::tls::originate(&self.connection, connector, stream, name, Vec::new())).await
            }
            None => Ok(Wire::Tcp(stream)),
        }
    }

    /// What comes after an exchange.
    async fn after(&mut self, exchange: Exchange, end: End) -> Next {
        match end {
            End::Done { keep: true } => {
                if self.used.is_over(&self.connection.shared.settings.load()) {
                    self.server = None;
                }
                Next::Request
            }
            End::Done { keep: false } => {
                answers::linger(&mut self.client).await;
                Next::Close
            }
            End::ClientGone => Next::Reset,
            End::BadRequest(malformed) => {
                self.connection.record_malformed(&malformed.to_string());
                if exchange.answered { Next::Reset } else { self.answer(Local::malformed(malformed)).await }
            }
            End::Cut => {
                if let Some(judged) = exchange.judged.as_ref().filter(|_| exchange.answered) {
                    self.connection.record_answer(judged, exchange.code, None, "the answer was cut off");
                }
                Next::Reset
            }
            // A server may end a connection that was idle just when a request comes. Clients know what to do then.
            End::NoAnswer if !exchange.fresh => Next::Close,
            End::NoAnswer => self.failed(&exchange, 502, "the server ended without an answer").await,
            End::BadAnswer(malformed) => {
                self.failed(&exchange, 502, &format!("the server's answer: {malformed}")).await
            }
            End::Late => self.failed(&exchange, 504, "the server did not answer in time").await,
        }
    }

    async fn failed(&mut self, exchange: &Exchange, code: u16, why: &str) -> Next {
        self.connection.shared.counters.requests_error.add();
        if let Some(judged) = &exchange.judged {
            self.connection.record_answer(judged, code, None, why);
        }
        if let Some(server) = self.server.take() {
            server.reset();
        }
        if exchange.answered {
            return Next::Reset;
        }
        let head = exchange.is_head();
        self.answer(Local::plain(code, why).to(exchange.grpc, head)).await
    }

    /// Reads and judges the head. Nothing of this lives on but the plan.
    fn plan(&mut self, length: usize) -> Result<Plan, Malformed> {
        let limits = self.limits();
        let bytes = &self.up.data()[..length];
        let mut room = Room::default();
        let request = Request::read(bytes, &mut room, &limits)?;
        let protocol = if request.old { "HTTP/1.0" } else { "HTTP/1.1" };
        let judged = l7::http::Request {
            method: request.method,
            path: request.target.path,
            authority: request.target.authority,
            headers: &request.head,
        };
        let (decision, judged) = self.connection.judge(&Asked { request: judged, protocol, lines: &request.head });
        let mut exchange = Exchange::new(&request, length, judged);
        exchange.grpc = is_grpc(&request.head);
        let edits = match decision {
            Decision::Forward(edits) => edits,
            Decision::Deny { last } => {
                if last {
                    exchange.is_last();
                }
                let message = self.connection.shared.settings.load().denied_message.clone();
                let local = Local::denied(&message).to(exchange.grpc, request.method == "HEAD");
                return Ok(Plan { exchange, answer: Some(local) });
            }
        };
        if request.upgrade == Some(Upgrade::Other) {
            let local = Local::plain(403, "upgrade to this protocol is not supported");
            return Ok(Plan { exchange, answer: Some(local) });
        }
        if let Some(head) = answers::rewritten(&request, edits) {
            exchange.replace_head(head);
        }
        Ok(Plan { exchange, answer: None })
    }
}

/// For the record of an answer.
type Told = Option<Judged>;
