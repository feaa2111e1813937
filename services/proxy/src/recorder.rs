//! How do access records reach the agent?

use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proxy_api::{Application, Facts, FromProxy, Kind, Party, Protocol, Record, Records, Verdict};
use tokio::sync::{Notify, mpsc};

/// Records that wait at most.
const MOST: usize = 16_384;
/// Records in one message.
const BATCH: usize = 256;
/// How long records wait for others.
const PAUSE: Duration = Duration::from_millis(10);

/// Takes records without ever waiting; what does not fit is counted.
#[derive(Debug, Default)]
pub struct Recorder {
    waiting: Mutex<Records>,
    first: Notify,
}

impl Recorder {
    /// Takes one.
    pub fn push(&self, record: Record) {
        let mut waiting = self.waiting.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if waiting.records.len() < MOST {
            waiting.records.push(record);
            if waiting.records.len() == 1 {
                self.first.notify_one();
            }
        } else {
            waiting.lost += 1;
        }
    }

    /// All that wait. There is room for as many again.
    pub fn take(&self) -> Records {
        let mut waiting = self.waiting.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let records = Vec::with_capacity(waiting.records.len());
        std::mem::replace(&mut *waiting, Records { lost: 0, records })
    }

    /// Sends what waits, for ever. While nobody takes it, what comes is lost once [`MOST`] wait.
    pub async fn run(&self, agent: mpsc::Sender<FromProxy>, lost: &crate::counters::Count) {
        loop {
            self.first.notified().await;
            tokio::time::sleep(PAUSE).await;
            // Room first, so that records wait here, where they are counted.
            let Ok(room) = agent.reserve().await else { return };
            let Records { lost: missing, records } = self.take();
            lost.add_many(missing);
            let mut records = records.into_iter();
            room.send(FromProxy::Records(Records { lost: missing, records: records.by_ref().take(BATCH).collect() }));
            while records.len() > 0 {
                let records = records.by_ref().take(BATCH).collect();
                if agent.send(FromProxy::Records(Records { lost: 0, records })).await.is_err() {
                    return;
                }
                // Turning them into text takes time, which requests must not wait for.
                tokio::task::yield_now().await;
            }
        }
    }
}

/// A request of now that went on, on a connection of which this is known, from client to server.
pub fn record(
    facts: &Facts,
    protocol: Protocol,
    (client, server): (SocketAddr, SocketAddr),
    what: Application,
) -> Record {
    Record {
        time: now(),
        verdict: Verdict::Forwarded,
        kind: Kind::Request,
        endpoint: facts.endpoint,
        direction: facts.direction,
        rule_set: facts.rule_set,
        protocol,
        source: Party { identity: facts.source_identity, address: client },
        destination: Party { identity: facts.destination_identity, address: server },
        info: String::new(),
        application: what,
    }
}

/// Nanoseconds since the node started, as the agent counts the time of names.
pub fn since_boot() -> u64 {
    let since = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME);
    since.map_or(0, |since| u64::try_from(Duration::from(since).as_nanos()).unwrap_or(u64::MAX))
}

/// Nanoseconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proxy_api::*;

    fn record(time: u64) -> Record {
        let party = Party { identity: 1, address: "127.0.0.1:1".parse().unwrap() };
        Record {
            time,
            verdict: Verdict::Forwarded,
            kind: Kind::Request,
            endpoint: 1,
            direction: Direction::Ingress,
            rule_set: 1,
            protocol: Protocol::Tcp,
            source: party,
            destination: party,
            info: String::new(),
            application: Application::Http(Http::default()),
        }
    }

    #[tokio::test]
    async fn what_is_sent_and_what_is_lost_is_all() {
        let recorder = Recorder::default();
        for time in 0..20_000 {
            recorder.push(record(time));
        }
        let (agent, mut messages) = mpsc::channel(2);
        let lost = crate::counters::Count::default();
        let receive = async {
            let (mut sent, mut missing) = (Vec::new(), 0);
            while sent.len() < MOST {
                let Some(FromProxy::Records(records)) = messages.recv().await else { panic!() };
                assert!(records.records.len() <= BATCH);
                sent.extend(records.records.iter().map(|record| record.time));
                missing += records.lost;
            }
            (sent, missing)
        };
        let (sent, missing) = tokio::select! {
            found = receive => found,
            () = recorder.run(agent, &lost) => panic!(),
        };
        assert_eq!(sent, (0..MOST as u64).collect::<Vec<_>>());
        assert_eq!((missing, lost.get()), (20_000 - MOST as u64, 20_000 - MOST as u64));
    }
}
