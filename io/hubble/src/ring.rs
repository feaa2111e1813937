//! Which events happened last? A ring that one writer fills and many readers follow, each at its own pace.
//!
//! Every entry has a sequence number. A reader that is too slow is told exactly how many entries it missed.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use flow::{
    Record,
    proto::flow::{AgentEvent, DebugEvent, Flow, LostEvent},
};
use tokio::sync::Notify;

/// What the ring holds.
#[derive(Clone, Debug)]
pub enum Entry {
    /// An event of the datapath.
    Packet(Record),
    /// A flow that somebody else decoded (requests, names). The number is its time, nanoseconds since 1970.
    Flow(i64, Arc<Flow>),
    /// Events that never came here.
    Lost(i64, LostEvent),
    /// An event of the agent.
    Agent(i64, Arc<AgentEvent>),
    /// A message for debugging the datapath.
    Debug(i64, Arc<DebugEvent>),
}

impl Entry {
    /// Nanoseconds since 1970.
    pub fn time(&self) -> i64 {
        match self {
            Entry::Packet(record) => record.time,
            Entry::Flow(time, _) | Entry::Lost(time, _) | Entry::Agent(time, _) | Entry::Debug(time, _) => *time,
        }
    }

    /// True for what becomes a flow.
    pub fn is_flow(&self) -> bool {
        matches!(self, Entry::Packet(_) | Entry::Flow(..))
    }
}

/// How many entries a ring holds: one less than a power of two, at most 65,535.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity(u64);

/// Not a possible capacity.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("invalid event buffer capacity {0}: want one less than a power of two from 1 to 65535, e.g. 4095")]
pub struct InvalidCapacity(pub u64);

impl Capacity {
    /// Checks a number.
    pub fn new(entries: u64) -> Result<Self, InvalidCapacity> {
        let valid = (1..=65_535).contains(&entries) && (entries + 1).is_power_of_two();
        if valid { Ok(Self(entries)) } else { Err(InvalidCapacity(entries)) }
    }
}

impl Default for Capacity {
    /// As Hubble's.
    fn default() -> Self {
        Self(4095)
    }
}

/// What a reader finds at a sequence number.
#[derive(Debug)]
pub enum Read {
    /// The entry.
    Entry(Entry),
    /// It was overwritten; this is the oldest that is left.
    Overwritten {
        /// Sequence number to go on with.
        oldest: u64,
    },
    /// It has not happened yet.
    NotYet,
}

/// A place for an entry, and the sequence number of the one that is there.
type Slot = Mutex<Option<(u64, Entry)>>;

/// See the module.
pub struct Ring {
    slots: Box<[Slot]>,
    capacity: u64,
    /// Sequence number of the next entry.
    next: AtomicU64,
    writer: Mutex<()>,
    written: Notify,
}

impl Ring {
    /// An empty ring.
    pub fn new(capacity: Capacity) -> Self {
        let slots = (0..=capacity.0).map(|_| Mutex::new(None)).collect();
        Self { slots, capacity: capacity.0, next: AtomicU64::new(0), writer: Mutex::new(()), written: Notify::new() }
    }

    /// How many entries fit.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// How many entries there are.
    pub fn len(&self) -> u64 {
        self.next().min(self.capacity)
    }

    /// True if nothing happened yet.
    pub fn is_empty(&self) -> bool {
        self.next() == 0
    }

    /// Sequence number of the next entry, which is the number of entries ever written.
    pub fn next(&self) -> u64 {
        self.next.load(Ordering::Acquire)
    }

    /// Sequence number of the oldest entry that is left.
    pub fn oldest(&self) -> u64 {
        self.next().saturating_sub(self.capacity)
    }

    /// Appends an entry for each item, made of its sequence number and the item.
    pub fn write<T>(&self, items: impl IntoIterator<Item = T>, mut make: impl FnMut(u64, T) -> Entry) {
        let guard = lock(&self.writer);
        for item in items {
            let sequence = self.next.load(Ordering::Relaxed);
            let entry = make(sequence, item);
            *lock(self.slot(sequence)) = Some((sequence, entry));
            self.next.store(sequence + 1, Ordering::Release);
        }
        drop(guard);
        self.written.notify_waiters();
    }

    /// What is at a sequence number?
    pub fn read(&self, sequence: u64) -> Read {
        if sequence >= self.next() {
            return Read::NotYet;
        }
        if sequence >= self.oldest()
            && let Some((found, entry)) = &*lock(self.slot(sequence))
            && *found == sequence
        {
            return Read::Entry(entry.clone());
        }
        Read::Overwritten { oldest: self.oldest().max(sequence + 1) }
    }

    /// Waits until the entry with this sequence number is there (or was).
    pub async fn wait(&self, sequence: u64) {
        loop {
            let written = self.written.notified();
            if self.next() > sequence {
                return;
            }
            written.await;
        }
    }

    fn slot(&self, sequence: u64) -> &Slot {
        &self.slots[(sequence & self.capacity) as usize]
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring").field("capacity", &self.capacity).field("next", &self.next()).finish_non_exhaustive()
    }
}

/// A slot is whole whenever its lock is free, also after a panic of its holder.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{sync::atomic::AtomicBool, thread};

    use super::*;

    fn write(ring: &Ring, count: i64) {
        ring.write(0..count, |sequence, time| {
            Entry::Lost(time, LostEvent { num_events_lost: sequence, ..LostEvent::default() })
        });
    }

    #[test]
    fn capacities_are_powers_of_two_less_one() {
        for valid in [1, 3, 4095, 65_535] {
            assert!(Capacity::new(valid).is_ok());
        }
        for invalid in [0, 2, 4096, 131_071] {
            assert_eq!(Capacity::new(invalid), Err(InvalidCapacity(invalid)));
        }
    }

    #[test]
    fn the_oldest_entries_are_overwritten() {
        let ring = Ring::new(Capacity::new(3).unwrap());
        assert!(ring.is_empty());
        assert!(matches!(ring.read(0), Read::NotYet));
        write(&ring, 5);
        assert_eq!((ring.len(), ring.oldest(), ring.next()), (3, 2, 5));
        assert!(matches!(ring.read(1), Read::Overwritten { oldest: 2 }));
        assert!(matches!(ring.read(2), Read::Entry(Entry::Lost(2, _))));
        assert!(matches!(ring.read(4), Read::Entry(Entry::Lost(4, _))));
        assert!(matches!(ring.read(5), Read::NotYet));
    }

    /// Readers of every pace together see or miss each entry exactly once, in order and unmixed.
    #[test]
    fn seen_and_lost_are_all() {
        const TOTAL: u64 = 200_000;
        let ring = Arc::new(Ring::new(Capacity::new(63).unwrap()));
        let done = Arc::new(AtomicBool::new(false));
        let reader = |pause: bool| {
            let (ring, done) = (ring.clone(), done.clone());
            thread::spawn(move || {
                let (mut position, mut seen, mut missed) = (0, 0, 0);
                loop {
                    match ring.read(position) {
                        Read::Entry(Entry::Lost(_, event)) => {
                            assert_eq!(event.num_events_lost, position);
                            position += 1;
                            seen += 1;
                        }
                        Read::Entry(other) => panic!("{other:?}"),
                        Read::Overwritten { oldest } => {
                            assert!(oldest > position);
                            missed += oldest - position;
                            position = oldest;
                        }
                        Read::NotYet if done.load(Ordering::Acquire) && position == ring.next() => {
                            return (seen, missed);
                        }
                        Read::NotYet => thread::yield_now(),
                    }
                    if pause && position % 1000 == 0 {
                        thread::yield_now();
                    }
                }
            })
        };
        let readers = [reader(false), reader(true), reader(true)];
        let writers: Vec<_> = (0..2)
            .map(|_| {
                let ring = ring.clone();
                thread::spawn(move || (0..TOTAL / 200).for_each(|_| write(&ring, 100)))
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        done.store(true, Ordering::Release);
        for reader in readers {
            let (seen, missed) = reader.join().unwrap();
            assert_eq!(seen + missed, TOTAL);
            assert!(seen > 0);
        }
    }

    #[tokio::test]
    async fn waiting_ends_when_something_is_written() {
        let ring = Arc::new(Ring::new(Capacity::default()));
        let waiter = tokio::spawn({
            let ring = ring.clone();
            async move { ring.wait(0).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        write(&ring, 1);
        waiter.await.unwrap();
        ring.wait(0).await;
    }
}
