//! Where does the agent put its events? Into the ring, with time, names and counters.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use abi::event::Event;
use flow::{
    Clock, Directory, Peer, Record, decode_record,
    proto::{
        flow::{AgentEvent, DebugEvent, Flow, LostEvent, LostEventSource},
        observer::{Namespace, ServerStatusResponse},
    },
    record::unique,
    wkt::Timestamp,
};
use nix::time::{ClockId, clock_gettime};

use crate::{
    peers::Peers,
    ring::{Capacity, Entry, Read, Ring},
};

/// What an observer is told when it starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// How many events are kept.
    pub capacity: Capacity,
    /// Name and version as `hubble list nodes -o wide` shows it.
    pub version: String,
    /// A reader that misses events is told so at most this often.
    pub lost_interval: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            capacity: Capacity::default(),
            version: concat!("axoneme v", env!("CARGO_PKG_VERSION")).to_owned(),
            lost_interval: Duration::from_secs(1),
        }
    }
}

/// An observer: takes events in, answers questions. Clones are the same observer.
#[derive(Clone)]
pub struct Hubble {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub config: Config,
    pub directory: Arc<dyn Directory>,
    pub ring: Ring,
    pub peers: Peers,
    seed: u128,
    started: Instant,
    seen: AtomicU64,
    clock: Mutex<(Instant, Clock)>,
    namespaces: Mutex<Namespaces>,
}

/// The clocks drift against each other where time is adjusted, so the offset is taken anew this often.
const CLOCK_INTERVAL: Duration = Duration::from_secs(1);
/// A namespace is listed for so long after its last flow.
const NAMESPACE_TTL: Duration = Duration::from_secs(3600);

impl Hubble {
    /// An observer without events.
    pub fn new(config: Config, directory: Arc<dyn Directory>) -> Self {
        let inner = Inner {
            ring: Ring::new(config.capacity),
            config,
            directory,
            peers: Peers::default(),
            seed: uuid::Uuid::new_v4().as_u128(),
            started: Instant::now(),
            seen: AtomicU64::new(0),
            clock: Mutex::new((Instant::now(), read_clock())),
            namespaces: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Takes an event of the datapath in. Several at once are cheaper, see [`Self::push_batch`].
    pub fn push(&self, event: Event) {
        self.push_batch(&[event]);
    }

    /// Takes events of the datapath in, in their order.
    pub fn push_batch(&self, events: &[Event]) {
        if events.is_empty() {
            return;
        }
        let inner = &*self.inner;
        let clock = inner.clock();
        let mut namespaces = lock(&inner.namespaces);
        namespaces.refresh();
        inner.ring.write(events, |sequence, event| {
            let uuid = unique(inner.seed, sequence);
            let record = Record::new(*event, clock.wall(event.time), uuid, &*inner.directory);
            namespaces.saw(&record.source);
            namespaces.saw(&record.destination);
            Entry::Packet(record)
        });
        inner.seen.fetch_add(events.len() as u64, Ordering::Relaxed);
    }

    /// Takes a flow in that was decoded elsewhere, e.g. of a request. Time, node and identifier are added where they
    /// are missing.
    pub fn push_flow(&self, mut flow: Flow) {
        let inner = &*self.inner;
        let time = flow.time.get_or_insert_with(now).as_nanos();
        let node = inner.directory.node();
        if flow.node_name.is_empty() {
            flow.node_name = node.full_name();
        }
        let mut namespaces = lock(&inner.namespaces);
        for endpoint in [&flow.source, &flow.destination].into_iter().flatten() {
            namespaces.add(&endpoint.namespace);
        }
        drop(namespaces);
        inner.ring.write([flow], |sequence, mut flow| {
            if flow.uuid.is_empty() {
                flow.uuid = uuid::Uuid::from_u128(unique(inner.seed, sequence)).to_string();
            }
            Entry::Flow(time, Arc::new(flow))
        });
        inner.seen.fetch_add(1, Ordering::Relaxed);
    }

    /// Says that events were lost on their way here.
    pub fn push_lost(&self, source: LostEventSource, count: u64) {
        if count == 0 {
            return;
        }
        let lost = LostEvent { source: source.into(), num_events_lost: count, ..LostEvent::default() };
        self.inner.ring.write([lost], |_, lost| Entry::Lost(now().as_nanos(), lost));
    }

    /// Takes an event of the agent in.
    pub fn push_agent_event(&self, event: AgentEvent) {
        self.inner.ring.write([event], |_, event| Entry::Agent(now().as_nanos(), Arc::new(event)));
    }

    /// Takes a debug message of the datapath in.
    pub fn push_debug_event(&self, event: DebugEvent) {
        self.inner.ring.write([event], |_, event| Entry::Debug(now().as_nanos(), Arc::new(event)));
    }

    /// The observers of the cluster, which relay asks for.
    pub fn peers(&self) -> &Peers {
        &self.inner.peers
    }

    /// How it is.
    pub fn status(&self) -> ServerStatusResponse {
        self.inner.status()
    }

    /// Namespaces with recent flows, sorted.
    pub fn namespaces(&self) -> Vec<Namespace> {
        let cluster = self.inner.directory.node().cluster.clone();
        let names = lock(&self.inner.namespaces).names();
        names.into_iter().map(|namespace| Namespace { cluster: cluster.clone(), namespace }).collect()
    }
}

impl Inner {
    /// The flow of an entry, if it is one.
    pub(crate) fn flow(&self, entry: &Entry) -> Option<Flow> {
        match entry {
            Entry::Packet(record) => Some(decode_record(record, &*self.directory)),
            Entry::Flow(_, flow) => Some(Flow::clone(flow)),
            Entry::Lost(..) | Entry::Agent(..) | Entry::Debug(..) => None,
        }
    }

    fn clock(&self) -> Clock {
        let mut clock = lock(&self.clock);
        if clock.0.elapsed() > CLOCK_INTERVAL {
            *clock = (Instant::now(), read_clock());
        }
        clock.1
    }

    fn status(&self) -> ServerStatusResponse {
        ServerStatusResponse {
            num_flows: self.ring.len(),
            max_flows: self.ring.capacity(),
            seen_flows: self.seen.load(Ordering::Relaxed),
            uptime_ns: u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX),
            version: self.config.version.clone(),
            flows_rate: self.rate(now().as_nanos()),
            ..ServerStatusResponse::default()
        }
    }

    /// Flows per second during the last minute, or since the oldest flow that is left.
    fn rate(&self, at: i64) -> f64 {
        let mut since = at.saturating_sub(60_000_000_000);
        let (mut count, mut oldest) = (0_u64, None);
        let mut position = self.ring.next();
        loop {
            let read = position.checked_sub(1).map(|previous| self.ring.read(previous));
            let Some(Read::Entry(entry)) = read else {
                // Overwritten, so the minute is not complete; or there never was more.
                if position > 0 {
                    since = oldest.unwrap_or(since);
                }
                break;
            };
            position -= 1;
            if !entry.is_flow() {
                continue;
            }
            if entry.time() < since {
                break;
            }
            oldest = Some(entry.time());
            count += 1;
        }
        let seconds = (at - since) as f64 / 1e9;
        if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
    }
}

/// Which namespaces had flows, and when. Peers seen lately are remembered, so that most packets cost a comparison.
struct Namespaces {
    seen: BTreeMap<String, Instant>,
    lately: [Option<Arc<Peer>>; 64],
    since: Instant,
}

impl Default for Namespaces {
    fn default() -> Self {
        Self { seen: BTreeMap::new(), lately: [const { None }; 64], since: Instant::now() }
    }
}

impl Namespaces {
    fn refresh(&mut self) {
        if self.since.elapsed() > Duration::from_secs(60) {
            self.lately = [const { None }; 64];
            self.since = Instant::now();
        }
    }

    fn saw(&mut self, peer: &Option<Arc<Peer>>) {
        let Some(peer) = peer else { return };
        let slot = (Arc::as_ptr(peer) as usize >> 6) % self.lately.len();
        if self.lately[slot].as_ref().is_some_and(|known| Arc::ptr_eq(known, peer)) {
            return;
        }
        self.add(&peer.namespace);
        self.lately[slot] = Some(peer.clone());
    }

    fn add(&mut self, namespace: &str) {
        if namespace.is_empty() {
            return;
        }
        match self.seen.get_mut(namespace) {
            Some(last) => *last = Instant::now(),
            None => {
                self.seen.insert(namespace.to_owned(), Instant::now());
            }
        }
    }

    fn names(&mut self) -> Vec<String> {
        self.seen.retain(|_, last| last.elapsed() < NAMESPACE_TTL);
        self.seen.keys().cloned().collect()
    }
}

/// The wall clock.
pub(crate) fn now() -> Timestamp {
    clock_gettime(ClockId::CLOCK_REALTIME)
        .map(|time| Timestamp { seconds: time.tv_sec(), nanos: time.tv_nsec() as i32 })
        .unwrap_or_default()
}

/// Turns times since boot, as the datapath tells them, into wall time as it is now.
pub fn read_clock() -> Clock {
    let monotonic = clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map(|time| Timestamp { seconds: time.tv_sec(), nanos: time.tv_nsec() as i32 })
        .unwrap_or_default();
    Clock::new(now().as_nanos(), u64::try_from(monotonic.as_nanos()).unwrap_or(0))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
