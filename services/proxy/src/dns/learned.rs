//! When does the datapath know the addresses of an answer?
//!
//! The agent is told, and says when. What it has said within the last seconds holds for the same answer again: it counts the
//! time of an answer from the end of those on, so that it ends no sooner than any of those that are not told. If it takes
//! something away before its time, it says so.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use foldhash::quality::RandomState;
use proxy_api::{FromProxy, Learned};
use tokio::sync::{mpsc, oneshot};

use crate::recorder::since_boot;

/// For so long the same answer need not be told again.
const SAME: Duration = Duration::from_secs(5);
/// Answers that are remembered for that.
const REMEMBERED: usize = 16_384;

/// What the agent was told and has not answered yet, and what it has just answered.
pub struct Learnings {
    agent: mpsc::Sender<FromProxy>,
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, oneshot::Sender<()>>>,
    held: Mutex<Remembered>,
}

/// What the agent holds.
#[derive(Default)]
struct Remembered {
    answers: HashMap<(u32, Arc<str>), Held, RandomState>,
    /// What it was told before then it may not hold any more.
    forgotten: Option<Instant>,
}

/// An answer that the agent holds.
struct Held {
    /// When it was told.
    since: Instant,
    /// In order.
    addresses: Vec<IpAddr>,
    /// For so many seconds.
    ttl: u32,
}

impl Held {
    fn new(since: Instant, mut addresses: Vec<IpAddr>, ttl: u32) -> Held {
        addresses.sort_unstable();
        Held { since, addresses, ttl }
    }

    /// True if nothing that the answer says goes beyond it.
    fn covers(&self, addresses: &[IpAddr], ttl: u32, now: Instant) -> bool {
        let known = |address| self.addresses.binary_search(address).is_ok();
        now.duration_since(self.since) < SAME && ttl <= self.ttl && addresses.iter().all(known)
    }
}

/// What the agent is told of an answer.
pub struct Telling {
    /// By which the agent answers.
    pub number: u64,
    key: (u32, Arc<str>),
    addresses: Vec<IpAddr>,
    ttl: u32,
    since: Instant,
    since_boot: u64,
}

impl Telling {
    /// As the agent reads it.
    pub fn message(&self) -> FromProxy {
        let (endpoint, name) = self.key.clone();
        let Telling { number, ttl, since_boot, .. } = *self;
        let addresses = self.addresses.iter().map(|address| (*address, ttl)).collect();
        FromProxy::Learned(Learned { number, endpoint, name, addresses, since_boot })
    }
}

/// Takes its number off the list, however its waiting ends.
struct Waiting<'a> {
    learnings: &'a Learnings,
    number: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.learnings.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
    }
}

impl Learnings {
    /// Told to this agent.
    pub fn new(agent: mpsc::Sender<FromProxy>) -> Learnings {
        Learnings { agent, next: AtomicU64::new(1), waiting: Mutex::default(), held: Mutex::default() }
    }

    /// What the agent is to be told; `None`: it has just answered the same.
    pub fn telling(
        &self,
        endpoint: u32,
        name: &Arc<str>,
        (addresses, ttl): (&[IpAddr], u32),
        since: Instant,
    ) -> Option<Telling> {
        let key = (endpoint, Arc::clone(name));
        if self.remembered().answers.get(&key).is_some_and(|held| held.covers(addresses, ttl, since)) {
            return None;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let since_boot = since_boot().saturating_add(u64::try_from(SAME.as_nanos()).unwrap_or(0));
        Some(Telling { number, key, addresses: addresses.to_vec(), ttl, since, since_boot })
    }

    /// Tells the agent; true if it answers within this time.
    pub async fn tell(&self, telling: Telling, patience: Duration) -> bool {
        let number = telling.number;
        let (answer, waits) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(number, answer);
        let _waiting = Waiting { learnings: self, number };
        let told = async {
            // While the agent is away the way to it is full.
            self.agent.send(telling.message()).await.is_ok() && waits.await.is_ok()
        };
        let held = tokio::time::timeout(patience, told).await.unwrap_or(false);
        if held {
            self.remember(telling);
        }
        held
    }

    /// Tells the agent without waiting; false if the way to it is full.
    pub fn try_tell(&self, telling: &Telling) -> bool {
        self.agent.try_send(telling.message()).is_ok()
    }

    /// The agent holds it.
    pub fn remember(&self, Telling { key, addresses, ttl, since, .. }: Telling) {
        let mut remembered = self.remembered();
        if remembered.forgotten.is_some_and(|forgotten| since <= forgotten) {
            return;
        }
        let answers = &mut remembered.answers;
        if answers.len() >= REMEMBERED {
            answers.retain(|_, held| held.since.elapsed() < SAME);
        }
        if answers.len() < REMEMBERED {
            answers.insert(key, Held::new(since, addresses, ttl));
        }
    }

    /// The agent, or another run of it, may not hold what it was told before.
    pub fn forget(&self) {
        *self.remembered() = Remembered { answers: HashMap::default(), forgotten: Some(Instant::now()) };
    }

    fn remembered(&self) -> MutexGuard<'_, Remembered> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The agent has answered. What nobody waits for here is given back.
    pub fn held(&self, numbers: &[u64]) -> Vec<u64> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = |number: &u64| match waiting.remove(number) {
            Some(held) => {
                let _ = held.send(());
                false
            }
            None => true,
        };
        numbers.iter().copied().filter(waits).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn ip(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    #[test]
    fn an_answer_that_says_no_more_needs_not_be_told_for_a_while() {
        let now = Instant::now();
        let held = Held::new(now, vec![ip(2), ip(1)], 30);
        for (addresses, ttl, after, covered) in [
            (vec![ip(2), ip(1)], 30, 4_999, true),
            (vec![ip(1)], 30, 0, true),
            (vec![ip(1)], 29, 500, true),
            (vec![ip(1)], 31, 0, false),
            (vec![ip(3)], 1, 0, false),
            (vec![ip(1)], 30, 5_000, false),
        ] {
            let found = held.covers(&addresses, ttl, now + Duration::from_millis(after));
            assert_eq!(found, covered, "{addresses:?} {ttl} {after}");
        }
    }

    #[tokio::test]
    async fn an_answer_waits_for_the_agent_and_not_for_ever() {
        let (agent, mut told) = mpsc::channel(1);
        let learnings = Learnings::new(agent);
        let telling = || learnings.telling(1, &"a.example.".into(), (&[ip(1)], 30), Instant::now());
        let tell = |patience| learnings.tell(telling().unwrap(), Duration::from_millis(patience));
        let answer = async {
            let Some(FromProxy::Learned(learned)) = told.recv().await else { panic!() };
            assert_eq!(learnings.held(&[learned.number, 99]), [99]);
        };
        let (held, ()) = tokio::join!(tell(60_000), answer);
        assert!(held);
        assert!(telling().is_none(), "it was just told");
        let before = learnings.telling(1, &"b.example.".into(), (&[ip(1)], 30), Instant::now()).unwrap();
        learnings.forget();
        learnings.remember(before);
        assert!(
            learnings.telling(1, &"b.example.".into(), (&[ip(1)], 30), Instant::now()).is_some(),
            "told before all was forgotten"
        );
        assert!(!tell(10).await, "nobody answers");
        assert!(!tell(10).await, "the way to the agent is full");
        assert!(!learnings.try_tell(&telling().unwrap()));
        assert!(learnings.waiting.lock().unwrap().is_empty());
    }
}
