//! When does the datapath know the addresses of an answer?

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use proxy_api::{FromProxy, Learned};
use tokio::sync::{mpsc, oneshot};

/// What the agent was told and has not answered yet.
pub struct Learnings {
    agent: mpsc::Sender<FromProxy>,
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, oneshot::Sender<()>>>,
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
        Learnings { agent, next: AtomicU64::new(1), waiting: Mutex::default() }
    }

    /// Tells the agent; true if it answers within this time.
    pub async fn tell(
        &self,
        endpoint: u32,
        name: String,
        addresses: Vec<(IpAddr, u32)>,
        time: u64,
        patience: Duration,
    ) -> bool {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (held, waits) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(number, held);
        let _waiting = Waiting { learnings: self, number };
        let learned = Learned { number, endpoint, name, addresses, time };
        let told = async {
            // While the agent is away the way to it is full.
            self.agent.send(FromProxy::Learned(learned)).await.is_ok() && waits.await.is_ok()
        };
        tokio::time::timeout(patience, told).await.unwrap_or(false)
    }

    /// The agent has answered.
    pub fn held(&self, numbers: &[u64]) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        for number in numbers {
            if let Some(held) = waiting.remove(number) {
                let _ = held.send(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn an_answer_waits_for_the_agent_and_not_for_ever() {
        let (agent, mut told) = mpsc::channel(1);
        let learnings = Learnings::new(agent);
        let tell = |patience| learnings.tell(1, "a.example.".into(), vec![], 0, Duration::from_millis(patience));
        let answer = async {
            let Some(FromProxy::Learned(learned)) = told.recv().await else { panic!() };
            learnings.held(&[learned.number, 99]);
        };
        let (held, ()) = tokio::join!(tell(60_000), answer);
        assert!(held);
        assert!(!tell(10).await, "nobody answers");
        assert!(!tell(10).await, "the way to the agent is full");
        assert!(learnings.waiting.lock().unwrap().is_empty());
    }
}
