//! What do all connections of a proxy have in common?

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use proxy_api::{Direction, Facts, Parser, Protocol, Redirected, Settings};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::counters::Counters;
use crate::recorder::Recorder;
use crate::rules::{Rules, Table};
use crate::sockets::Upstream;

/// Files of a connection: the client's and the server's.
const FILES_EACH: u64 = 2;
/// Files for all else: listeners, the agent, tables of the datapath, sockets that ask for names.
const SPARE_FILES: u64 = 64;

/// What all connections have in common.
pub struct Shared {
    /// The rules in force.
    pub rules: ArcSwap<Table>,
    /// The settings in force.
    pub settings: ArcSwap<Settings>,
    /// Who knows whose a connection is.
    pub redirected: Box<dyn Redirected>,
    /// How servers are reached.
    pub upstream: Upstream,
    /// Room for long requests to Kafka brokers, in KiB.
    pub kafka: Arc<Semaphore>,
    /// Where records go.
    pub recorder: Recorder,
    /// What is counted.
    pub counters: Counters,
    /// Set once no new requests are wanted: connections end after the one that they are at.
    pub draining: AtomicBool,
    /// Told at the same time.
    pub drain: CancellationToken,
    open: Mutex<HashMap<u32, u32>>,
    connections: AtomicU32,
    /// Connections that the process may have files for.
    files_for: AtomicU32,
}

/// A connection's place among those that the proxy takes on.
pub struct Place {
    shared: Arc<Shared>,
    endpoint: u32,
}

impl Shared {
    /// Without rules: everything is refused.
    pub fn new(redirected: Box<dyn Redirected>, upstream: Upstream) -> Arc<Shared> {
        Arc::new(Shared {
            rules: ArcSwap::default(),
            settings: ArcSwap::default(),
            redirected,
            upstream,
            kafka: Arc::new(Semaphore::new(crate::kafka::LONG_REQUESTS)),
            recorder: Recorder::default(),
            counters: Counters::default(),
            draining: AtomicBool::new(false),
            drain: CancellationToken::new(),
            open: Mutex::default(),
            connections: AtomicU32::new(0),
            files_for: AtomicU32::new(u32::MAX),
        })
    }

    /// The process may have so many files: what they do not suffice for is refused, and not found out by failing calls.
    pub fn bound_by_files(&self, files: u64) {
        let connections = files.saturating_sub(SPARE_FILES) / FILES_EACH;
        self.files_for.store(u32::try_from(connections).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    /// Asks connections to end after the request that they are at.
    pub fn begin_drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.drain.cancel();
    }

    /// True after [`begin_drain`](Self::begin_drain).
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Room that is left for long requests to Kafka brokers, in KiB.
    pub fn kafka_room(&self) -> usize {
        self.kafka.available_permits()
    }

    /// How many connections there are.
    pub fn open(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }

    /// A place for a connection of this endpoint, if there is one left.
    pub fn enter(self: &Arc<Self>, endpoint: u32) -> Option<Place> {
        let limits = self.settings.load().limits;
        let most = limits.connections.min(self.files_for.load(Ordering::Relaxed));
        if self.connections.fetch_add(1, Ordering::Relaxed) >= most {
            self.connections.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let own = open.entry(endpoint).or_default();
        if *own >= limits.connections_per_endpoint {
            self.connections.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        *own += 1;
        Some(Place { shared: Arc::clone(self), endpoint })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.connections.fetch_sub(1, Ordering::Relaxed);
        let mut open = self.shared.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = open.get_mut(&self.endpoint) {
            *own -= 1;
            if *own == 0 {
                open.remove(&self.endpoint);
            }
        }
    }
}

/// A connection that was redirected here.
pub struct Connection {
    /// What all have in common.
    pub shared: Arc<Shared>,
    /// The client.
    pub peer: SocketAddr,
    /// The server that it meant.
    pub local: SocketAddr,
    /// What the datapath said when it came.
    pub first: Facts,
    /// Which sides of it are TLS to this process, by the rules when it came: the client's, the server's.
    pub tls: (bool, bool),
    /// The name that a TLS client asked for.
    pub server_name: Option<String>,
    /// Its place.
    pub _place: Place,
}

/// Why a connection has no rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// The datapath does not know it any more.
    Facts,
    /// It is another's now, or its sender has another identity.
    Changed,
    /// The agent has not said the rules.
    Rules,
    /// Its rules ask for another kind of connection now.
    Kind,
}

impl Unknown {
    /// For records.
    pub fn reason(self) -> &'static str {
        match self {
            Unknown::Facts => "the datapath does not know the connection",
            Unknown::Changed => "the connection has another owner or identity",
            Unknown::Rules => "the rules of the connection are not known",
            Unknown::Kind => "the rules are for another kind of connection now",
        }
    }
}

impl Connection {
    /// What holds for the next request.
    pub fn now(&self) -> Result<(Facts, Arc<Rules>), Unknown> {
        let facts = self.shared.redirected.facts(Protocol::Tcp, self.peer, self.local).ok_or(Unknown::Facts)?;
        let same = |one: &Facts| (one.endpoint, one.direction, one.source_identity);
        if same(&facts) != same(&self.first) {
            return Err(Unknown::Changed);
        }
        let rules = self.shared.rules.load().get(facts.rule_set).cloned().ok_or(Unknown::Rules)?;
        Ok((facts, rules))
    }

    /// What holds for the next HTTP request. Rules that began with another handshake are not for this connection.
    pub fn now_http(&self) -> Result<(Facts, Arc<Rules>), Unknown> {
        self.now_as(Parser::Http)
    }

    /// The same for the next request of this kind.
    pub fn now_as(&self, parser: Parser) -> Result<(Facts, Arc<Rules>), Unknown> {
        let (facts, rules) = self.now()?;
        let parser = rules.parser == parser || rules.parser == Parser::Tcp;
        let tls = self.tls == (rules.terminate.is_some(), rules.originate.is_some());
        let named = rules.server_names.as_ref().is_none_or(|names| names.allows(self.server_name.as_deref()));
        if parser && tls && named && rules.broken.is_none() { Ok((facts, rules)) } else { Err(Unknown::Kind) }
    }

    /// Connects to the server.
    pub async fn connect(&self) -> std::io::Result<tokio::net::TcpStream> {
        let patience = millis(self.shared.settings.load().timeouts.connect);
        let (shared, ends) = (&self.shared, (self.peer, self.local));
        let stream = shared.upstream.connect(&*shared.redirected, &self.first, ends, patience).await;
        if stream.is_err() {
            self.shared.counters.upstream_failed.add();
        }
        stream
    }
}

/// How a connection to a server was used so far.
#[derive(Debug, Clone, Copy)]
pub struct Used {
    since: std::time::Instant,
    requests: u32,
}

impl Default for Used {
    fn default() -> Self {
        Used { since: std::time::Instant::now(), requests: 0 }
    }
}

impl Used {
    /// One request more; true if there may be no other.
    pub fn is_over(&mut self, settings: &Settings) -> bool {
        self.requests = self.requests.saturating_add(1);
        let most = settings.limits.upstream_requests;
        (most > 0 && self.requests >= most) || self.since.elapsed() >= millis(settings.timeouts.upstream_duration)
    }
}

/// A setting in milliseconds; 0 is a hundred years.
pub fn millis(value: u64) -> Duration {
    if value == 0 { Duration::from_secs(3_155_760_000) } else { Duration::from_millis(value) }
}

/// True if a listener's connections have this direction.
pub fn fits(facts: &Facts, direction: Direction) -> bool {
    facts.direction == direction
}
