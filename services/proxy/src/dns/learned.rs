//! When does the datapath know the addresses of an answer?
//!
//! The agent is told, and says when. What it has said within the last second holds for the same answer again: it counts the
//! time of an answer from the end of that second on, so that it ends no sooner than any of those that are not told.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use proxy_api::{FromProxy, Learned};
use tokio::sync::{mpsc, oneshot};

/// For so long the same answer need not be told again.
const SAME: Duration = Duration::from_secs(1);
/// Answers that are remembered for that.
const REMEMBERED: usize = 16_384;

/// What the agent was told and has not answered yet, and what it has just answered.
pub struct Learnings {
    agent: mpsc::Sender<FromProxy>,
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, oneshot::Sender<()>>>,
    held: Mutex<HashMap<(u32, String), Held>>,
}

/// An answer that the agent holds.
struct Held {
    /// When it was told.
    since: Instant,
    /// In order.
    addresses: Vec<(IpAddr, u32)>,
}

impl Held {
    fn new(since: Instant, mut addresses: Vec<(IpAddr, u32)>) -> Held {
        addresses.sort_unstable();
        Held { since, addresses }
    }

    /// True if nothing that the answer says goes beyond it.
    fn covers(&self, addresses: &[(IpAddr, u32)], now: Instant) -> bool {
        let known = |(address, ttl): &(IpAddr, u32)| {
            let found = self.addresses.binary_search_by_key(address, |(known, _)| *known);
            found.is_ok_and(|place| self.addresses[place].1 >= *ttl)
        };
        now.duration_since(self.since) < SAME && addresses.iter().all(known)
    }
}

/// What the agent is told of an answer.
pub struct Telling {
    /// By which the agent answers.
    pub number: u64,
    key: (u32, String),
    addresses: Vec<(IpAddr, u32)>,
    since: Instant,
    since_boot: u64,
}

impl Telling {
    /// As the agent reads it.
    pub fn message(&self) -> FromProxy {
        let (endpoint, name) = self.key.clone();
        let Telling { number, since_boot, .. } = *self;
        FromProxy::Learned(Learned { number, endpoint, name, addresses: self.addresses.clone(), since_boot })
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
        name: String,
        addresses: Vec<(IpAddr, u32)>,
        since_boot: u64,
    ) -> Option<Telling> {
        let (since, key) = (Instant::now(), (endpoint, name));
        if self.remembered().get(&key).is_some_and(|held| held.covers(&addresses, since)) {
            return None;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let since_boot = since_boot.saturating_add(u64::try_from(SAME.as_nanos()).unwrap_or(0));
        Some(Telling { number, key, addresses, since, since_boot })
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
    pub fn remember(&self, Telling { key, addresses, since, .. }: Telling) {
        let mut remembered = self.remembered();
        if remembered.len() >= REMEMBERED {
            remembered.retain(|_, held| held.since.elapsed() < SAME);
        }
        if remembered.len() < REMEMBERED {
            remembered.insert(key, Held::new(since, addresses));
        }
    }

    /// Another run of the agent may hold other names.
    pub fn forget(&self) {
        self.remembered().clear();
    }

    fn remembered(&self) -> MutexGuard<'_, HashMap<(u32, String), Held>> {
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

    fn one(ttl: u32) -> Vec<(IpAddr, u32)> {
        vec![([192, 0, 2, 1].into(), ttl)]
    }

    #[test]
    fn an_answer_that_says_no_more_needs_not_be_told_for_a_second() {
        let now = Instant::now();
        let two = |first, second| vec![([192, 0, 2, 2].into(), first), ([192, 0, 2, 1].into(), second)];
        let held = Held::new(now, two(30, 30));
        for (addresses, after, covered) in [
            (two(30, 30), 999, true),
            (one(30), 0, true),
            (one(29), 500, true),
            (one(31), 0, false),
            (vec![([192, 0, 2, 3].into(), 1)], 0, false),
            (one(30), 1_000, false),
        ] {
            assert_eq!(held.covers(&addresses, now + Duration::from_millis(after)), covered, "{addresses:?} {after}");
        }
    }

    #[tokio::test]
    async fn an_answer_waits_for_the_agent_and_not_for_ever() {
        let (agent, mut told) = mpsc::channel(1);
        let learnings = Learnings::new(agent);
        let telling = || learnings.telling(1, "a.example.".into(), one(30), 0);
        let tell = |patience| learnings.tell(telling().unwrap(), Duration::from_millis(patience));
        let answer = async {
            let Some(FromProxy::Learned(learned)) = told.recv().await else { panic!() };
            assert_eq!(learnings.held(&[learned.number, 99]), [99]);
        };
        let (held, ()) = tokio::join!(tell(60_000), answer);
        assert!(held);
        assert!(telling().is_none(), "it was just told");
        learnings.forget();
        assert!(!tell(10).await, "nobody answers");
        assert!(!tell(10).await, "the way to the agent is full");
        assert!(!learnings.try_tell(&telling().unwrap()));
        assert!(learnings.waiting.lock().unwrap().is_empty());
    }
}
