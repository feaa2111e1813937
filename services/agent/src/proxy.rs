//! How does the agent give the proxy its rules, before the datapath's tables name them, and keep them as long as anything does?
//!
//! Rule sets are told additively: a connection that was judged under an earlier one, also of an earlier run of the agent,
//! goes on until its next packet, so the proxy knows both for a while. Only then are those that nobody names taken away.

mod flows;
mod log_records;
mod numbers;
mod ports;
mod rules;
pub mod secrets;
mod session;
mod tally;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use proxy_api::{AgentHello, RuleSet, Server, Settings};
use tokio::sync::watch;

pub use flows::Observer;
pub use numbers::Numbers;
pub use ports::Ports;
pub use rules::{Asked, name};
pub use session::Learner;
pub use tally::Tally;

use crate::engine::Redirects;
use crate::secrets::Secrets;

/// How long tables wait for the proxy to know their rules. After that they are switched: what the proxy does not know it
/// refuses.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long the first tables of a run wait for a proxy that served in an earlier one. It looks for the agent several times
/// a second, and has to compile all rules.
const RETURN: Duration = Duration::from_secs(4);
/// How long rules are kept that no table names any more.
const KEPT: Duration = Duration::from_secs(30);

/// Rules by number. Shared, because sessions send them without waiting for the daemon.
#[derive(Debug, Default)]
struct Told {
    revision: u64,
    sets: BTreeMap<u32, Arc<RuleSet>>,
    /// Everything that a table names is in `sets`, and has been long enough for older ones to be over.
    whole: bool,
    /// What each proxy that is connected has in force.
    realised: BTreeMap<u64, u64>,
    /// Counters of each proxy that is connected.
    counters: BTreeMap<u64, BTreeMap<String, u64>>,
    /// How many addresses of names were taken away before their time.
    names_taken_away: u64,
}

/// What daemon and sessions share.
#[derive(Debug)]
struct Shared {
    told: Mutex<Told>,
    changed: watch::Sender<u64>,
    hello: AgentHello,
}

impl Shared {
    fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self) {
        self.changed.send_modify(|count| *count += 1);
    }
}

/// The daemon's side.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    secrets: Secrets,
    /// What was known of them when rules were last put together.
    version: u64,
    /// By what each rule set that was told was put together, and what it misses.
    made_of: BTreeMap<u32, MadeOf>,
    /// Since when no table names a rule set.
    leaving: BTreeMap<u32, Instant>,
    /// When the tables of this run were first in place.
    settled: Option<Instant>,
    /// A proxy served in an earlier run, and has not come back yet.
    expected: bool,
}

#[derive(Debug)]
struct MadeOf {
    asked: Arc<Asked>,
    /// Of what is known of secrets.
    version: u64,
    missing: BTreeSet<String>,
}

impl MadeOf {
    fn is(&self, asked: &Arc<Asked>, version: u64) -> bool {
        let same = Arc::ptr_eq(&self.asked, asked) || self.asked == *asked;
        same && (asked.secrets().is_empty() || self.version == version)
    }
}

impl Proxy {
    /// For listeners at these ports. `epoch` differs for each run.
    pub fn new(ports: Ports, settings: Settings, secrets: Secrets, epoch: u64) -> Proxy {
        let hello = AgentHello { version: proxy_api::VERSION, epoch, listeners: ports.listeners(), settings };
        let (changed, _) = watch::channel(0);
        let shared = Arc::new(Shared { told: Mutex::default(), changed, hello });
        Proxy {
            shared,
            secrets,
            version: 0,
            made_of: BTreeMap::new(),
            leaving: BTreeMap::new(),
            settled: None,
            expected: false,
        }
    }

    /// A proxy served in an earlier run: its connections are judged by rules of this one as soon as tables are switched.
    pub fn expect(&mut self) {
        self.expected = true;
    }

    /// Listens for proxies of root's or this group. What they tell goes to the observer.
    pub fn serve(
        &self,
        socket: &Path,
        group: Option<u32>,
        observer: Observer,
        learner: Learner,
    ) -> Result<(), proxy_api::Error> {
        let server = Server::bind(socket, group)?;
        tokio::spawn(session::serve(server, self.shared.clone(), Arc::new(observer), learner));
        Ok(())
    }

    /// The Secrets that rules name.
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// More is known of Secrets than when rules were last told.
    pub fn is_behind(&self) -> bool {
        self.secrets.version() != self.version
    }

    /// What rules miss of Secrets, so that they allow nothing.
    pub fn missing(&self) -> BTreeSet<&str> {
        self.made_of.values().flat_map(|made| &made.missing).map(String::as_str).collect()
    }

    /// So many addresses of names were taken away before their time so far: proxies do not rely on them any more.
    pub fn names_taken_away(&self, count: u64) {
        let mut told = self.shared.told();
        if std::mem::replace(&mut told.names_taken_away, count) != count {
            drop(told);
            self.shared.change();
        }
    }

    /// Tells rule sets that tables are about to name, and waits, with a bound, until each proxy has them in force.
    pub async fn offer(&mut self, sets: &Redirects) {
        let others = self.secrets.want(sets.values().flat_map(|asked| asked.secrets()).cloned().collect());
        if sets.is_empty() {
            return;
        }
        if others {
            self.secrets.settle(PATIENCE).await;
        }
        let fresh = self.put_together(sets);
        let wanted = {
            let mut told = self.shared.told();
            let before = told.sets.len();
            let fresh: Vec<_> = fresh.into_iter().filter(|(id, set)| told.sets.get(id) != Some(set)).collect();
            if fresh.is_empty() {
                return;
            }
            told.sets.extend(fresh);
            told.revision += 1;
            tracing::debug!(before, now = told.sets.len(), "rule sets for the proxy");
            told.revision
        };
        self.wait_for(wanted).await;
    }

    /// Rule sets that are new, or whose Secrets may have changed, with what these hold.
    fn put_together(&mut self, sets: &Redirects) -> Vec<(u32, Arc<RuleSet>)> {
        let version = self.secrets.version();
        self.version = version;
        let mut fresh = Vec::new();
        for (id, asked) in sets {
            let made = self.made_of.get(id);
            if made.is_some_and(|made| made.is(asked, version)) {
                continue;
            }
            let (set, missing) = self.secrets.look(|secrets| asked.with(secrets));
            if made.map_or(!missing.is_empty(), |made| made.missing != missing) {
                tracing::warn!(rule_set = id, ?missing, "Secrets of rules");
            }
            self.made_of.insert(*id, MadeOf { asked: asked.clone(), version, missing });
            fresh.push((*id, Arc::new(set)));
        }
        fresh
    }

    async fn wait_for(&mut self, wanted: u64) {
        let mut changes = self.shared.changed.subscribe();
        self.shared.change();
        let expected = std::mem::take(&mut self.expected);
        let shared = &self.shared;
        let in_force = move || {
            let told = shared.told();
            !(expected && told.realised.is_empty()) && told.realised.values().all(|revision| *revision >= wanted)
        };
        let known = async {
            while !in_force() {
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        let patience = if expected { RETURN } else { PATIENCE };
        if tokio::time::timeout(patience, known).await.is_err() {
            tracing::warn!("the proxy does not know new rules yet: it refuses what they are for");
        }
    }

    /// Takes away what no table has named for a while. `in_use`: what the tables name now.
    pub fn retain(&mut self, in_use: &Redirects, now: Instant) {
        let settled = *self.settled.get_or_insert(now);
        let mut told = self.shared.told();
        self.leaving.retain(|id, _| !in_use.contains_key(id));
        for id in told.sets.keys().filter(|id| !in_use.contains_key(id)) {
            self.leaving.entry(*id).or_insert(now);
        }
        let over: Vec<u32> =
            self.leaving.iter().filter(|(_, since)| now - **since >= KEPT).map(|(id, _)| *id).collect();
        let whole = !told.whole && now - settled >= KEPT;
        if over.is_empty() && !whole {
            return;
        }
        told.whole |= whole;
        for id in over {
            told.sets.remove(&id);
            self.leaving.remove(&id);
            self.made_of.remove(&id);
        }
        told.revision += 1;
        drop(told);
        self.shared.change();
    }

    /// True if it knows what the tables name and nothing else.
    pub fn is_settled(&self) -> bool {
        self.leaving.is_empty() && self.shared.told().whole
    }

    /// True while a proxy is connected.
    pub fn is_there(&self) -> bool {
        !self.shared.told().realised.is_empty()
    }

    /// What all proxies that are connected counted.
    pub fn counters(&self) -> BTreeMap<String, u64> {
        let mut all = BTreeMap::new();
        for (name, value) in self.shared.told().counters.values().flatten() {
            *all.entry(name.clone()).or_default() += value;
        }
        all
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proxy_api::Parser;

    fn sets(ids: &[u32]) -> Redirects {
        ids.iter().map(|id| (*id, Arc::new(Asked::from(RuleSet::open(*id, Parser::Http))))).collect()
    }

    fn new() -> Proxy {
        Proxy::new(Ports::default(), Settings::default(), Secrets::new(Default::default(), false), 1)
    }

    fn known(proxy: &Proxy) -> Vec<u32> {
        proxy.shared.told().sets.keys().copied().collect()
    }

    #[tokio::test]
    async fn what_no_table_names_is_kept_for_a_while() {
        let mut proxy = new();
        let start = Instant::now();
        proxy.offer(&sets(&[1, 2])).await;
        proxy.retain(&sets(&[1, 2]), start);
        proxy.offer(&sets(&[2, 3])).await;
        proxy.retain(&sets(&[2, 3]), start + Duration::from_secs(1));
        assert_eq!(known(&proxy), [1, 2, 3]);
        assert!(!proxy.shared.told().whole, "what an earlier run told may be in use");
        proxy.retain(&sets(&[2, 3]), start + Duration::from_secs(32));
        assert_eq!(known(&proxy), [2, 3]);
        assert!(proxy.shared.told().whole);
    }

    #[tokio::test]
    async fn tables_wait_for_a_proxy_that_is_there_but_not_for_ever() {
        let mut proxy = new();
        proxy.offer(&sets(&[1])).await;
        proxy.shared.told().realised.insert(7, 0);
        let started = Instant::now();
        proxy.offer(&sets(&[2])).await;
        assert!(started.elapsed() >= PATIENCE);
        proxy.shared.told().realised.insert(7, 3);
        let started = Instant::now();
        proxy.offer(&sets(&[3])).await;
        assert!(started.elapsed() < PATIENCE, "it has them in force");
    }

    #[tokio::test]
    async fn the_first_tables_of_a_run_wait_for_the_proxy_of_the_last_one() {
        let mut proxy = new();
        proxy.expect();
        let shared = proxy.shared.clone();
        let back = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(1200)).await;
            shared.told().realised.insert(0, 1);
            shared.change();
        });
        let started = Instant::now();
        proxy.offer(&sets(&[1])).await;
        assert!((Duration::from_millis(1100)..RETURN).contains(&started.elapsed()));
        back.await.unwrap();
    }
}
