//! How does the agent speak with one proxy? Rules go down as they change, records and counters come up.

use std::collections::BTreeMap;
use std::sync::Arc;

use proxy_api::{FromAgent, FromProxy, Learned, NamesHeld, RuleSet, RulesUpdate, Server, Session};

use tokio::sync::mpsc;

use super::{Observer, Shared};

/// Takes what an answer of DNS taught; its number is sent once the datapath's tables hold it.
pub type Learner = Arc<dyn Fn(Learned, mpsc::UnboundedSender<u64>) + Send + Sync>;

/// Takes in proxies for ever. Two are there at a time while one takes over from the other.
pub async fn serve(server: Server, shared: Arc<Shared>, observer: Arc<Observer>, learner: Learner) {
    for number in 0u64.. {
        match server.accept().await {
            Ok(greeting) => {
                let (shared, observer, learner) = (shared.clone(), observer.clone(), learner.clone());
                tokio::spawn(async move {
                    let over = match greeting.greet(shared.hello.clone()).await {
                        Ok(session) => speak(session, number, &shared, &observer, &learner).await,
                        Err(error) => Err(error),
                    };
                    let mut told = shared.told();
                    told.realised.remove(&number);
                    told.counters.remove(&number);
                    drop(told);
                    shared.change();
                    match over {
                        Ok(()) => tracing::info!(number, "a proxy is gone"),
                        Err(error) => tracing::warn!(number, %error, "a proxy is gone"),
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a proxy could not connect");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

/// What one proxy was told.
#[derive(Default)]
struct Sent {
    revision: Option<u64>,
    sets: BTreeMap<u32, Arc<RuleSet>>,
    whole: bool,
    names_taken_away: u64,
}

impl Sent {
    /// True if what the proxy remembers of names may not be so any more.
    fn forgets_names(&mut self, shared: &Shared) -> bool {
        let count = shared.told().names_taken_away;
        std::mem::replace(&mut self.names_taken_away, count) != count
    }

    /// What has changed since.
    fn update(&mut self, shared: &Shared) -> Option<RulesUpdate> {
        let told = shared.told();
        if self.revision == Some(told.revision) {
            return None;
        }
        let whole = told.whole && !self.whole;
        let fresh = told.sets.iter().filter(|(id, set)| whole || self.sets.get(*id) != Some(*set));
        let update = RulesUpdate {
            revision: told.revision,
            whole,
            last: true,
            set: fresh.map(|(_, set)| RuleSet::clone(set)).collect(),
            removed: self.sets.keys().filter(|id| !told.sets.contains_key(id)).copied().collect(),
        };
        self.whole |= whole;
        self.sets.clone_from(&told.sets);
        self.revision = Some(told.revision);
        Some(update)
    }
}

async fn speak(
    session: Session,
    number: u64,
    shared: &Shared,
    observer: &Observer,
    learner: &Learner,
) -> Result<(), proxy_api::Error> {
    let Session { hello, mut reader, mut writer } = session;
    tracing::info!(number, pid = hello.pid, version = hello.program, "a proxy is there");
    let mut changes = shared.changed.subscribe();
    let mut sent = Sent::default();
    let (held, mut held_now) = mpsc::unbounded_channel();
    // until its first answer nobody waits for it: what it does not know it refuses
    loop {
        if sent.forgets_names(shared) {
            writer.send(&FromAgent::NamesForgotten).await?;
        }
        if let Some(update) = sent.update(shared) {
            writer.send_rules(update).await?;
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return Ok(()) },
            Some(number) = held_now.recv() => {
                let mut numbers = vec![number];
                while let Ok(number) = held_now.try_recv() {
                    numbers.push(number);
                }
                writer.send(&FromAgent::NamesHeld(NamesHeld { numbers })).await?;
            }
            message = reader.next() => match message? {
                None => return Ok(()),
                Some(FromProxy::Realised(realised)) if realised.epoch == shared.hello.epoch => {
                    if !realised.listening {
                        tracing::warn!(number, "a proxy could not bind all of its listeners");
                    }
                    shared.told().realised.insert(number, realised.revision);
                    shared.change();
                }
                Some(FromProxy::Records(records)) => observer.observe(&records),
                Some(FromProxy::Counters(counters)) => {
                    shared.told().counters.insert(number, counters.0);
                }
                Some(FromProxy::Learned(learned)) => learner(learned, held.clone()),
                Some(FromProxy::Realised(_) | FromProxy::Hello(_)) => {}
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::{Ports, Proxy};

    #[test]
    fn a_proxy_hears_once_that_names_were_taken_away() {
        let secrets = crate::secrets::Secrets::new(Default::default(), false);
        let proxy = Proxy::new(Ports::default(), proxy_api::Settings::default(), secrets, 1);
        let mut changes = proxy.shared.changed.subscribe();
        let mut sent = Sent::default();
        for (count, news) in [(0, false), (2, true), (2, false), (3, true)] {
            proxy.names_taken_away(count);
            assert_eq!(changes.has_changed().ok(), Some(news), "{count}: sessions are woken for news only");
            changes.borrow_and_update();
            assert_eq!(sent.forgets_names(&proxy.shared), news, "{count}");
        }
    }
}
