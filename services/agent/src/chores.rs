//! What is done now and then?

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use abi::pins;
use agent_api::queue::Queue;
use flow::proto::flow::LostEventSource;
use tokio::sync::watch;

use crate::core::{Event, SharedNames, read_names};
use crate::daemon::{Daemon, Message, Sender};
use crate::pressure::{Fill, News};
use crate::state::{LocalNumbers, StateDir};

const INTERVAL: Duration = Duration::from_secs(30);
/// Translations that nobody used for so long are over; running connections send something more often.
const IDLE_TRANSLATION: Duration = Duration::from_secs(8000);

/// Removes what is over and tries again what failed.
pub async fn sweeps(sender: Sender) {
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        if sender.send(Message::Call(Box::new(sweep))).await.is_err() {
            return;
        }
    }
}

fn sweep(daemon: &mut Daemon) {
    daemon.core.retry();
    daemon.release_overdue(Instant::now());
    let endpoints = daemon.core.endpoints();
    daemon.tally.counts().keep(|id| endpoints.contains_key(&id));
    tell_losses(daemon);
    if let Err(error) = sweep_tables(daemon) {
        tracing::warn!(%error, "sweep of connections failed");
    }
}

/// Remembers names soon after they changed, so that the next run knows what connections were allowed by.
pub async fn save_names(names: SharedNames, folder: PathBuf) {
    let (state, mut saved) = (StateDir::new(&folder), None);
    let mut interval = tokio::time::interval(Duration::from_secs(1));
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let (version, all) = {
            let names = read_names(&names);
            let version = names.version();
            if saved == Some(version) {
                continue;
            }
            (version, names.save())
        };
        let state = state.clone();
        match tokio::task::spawn_blocking(move || state.save_names(&all)).await {
            Ok(Ok(())) => saved = Some(version),
            Ok(Err(error)) => tracing::error!(%error, "names cannot be remembered"),
            Err(_) => return,
        }
    }
}

/// Remembers the identities of this node, a second at most after the last that is sent. A number that is not there or not
/// any more is given to nobody while the IP cache holds it.
pub fn save_numbers(folder: PathBuf) -> watch::Sender<(u64, LocalNumbers)> {
    let (sender, mut numbers) = watch::channel((0, LocalNumbers::new()));
    let state = StateDir::new(&folder);
    tokio::spawn(async move {
        while numbers.changed().await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let (_, now) = numbers.borrow_and_update().clone();
            let state = state.clone();
            match tokio::task::spawn_blocking(move || state.save_numbers(&now)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "identities of this node cannot be remembered"),
                Err(_) => return,
            }
        }
    });
    sender
}

/// Names whose time is over go, unless a connection uses their addresses.
fn expire_names(daemon: &mut Daemon, now: u64, in_use: &HashSet<(IpAddr, IpAddr)>) {
    let endpoints = daemon.core.endpoints().values();
    let owners = endpoints.flat_map(|endpoint| endpoint.addresses().into_iter().map(|own| (own, endpoint.record.id)));
    let owners: HashMap<IpAddr, u32> = owners.collect();
    let pairs = in_use.iter().filter_map(|(one, other)| Some((*owners.get(one)?, *other)));
    let pairs = pairs.collect();
    daemon.core.handle(Event::Elapsed(now, pairs));
}

fn tell_losses(daemon: &mut Daemon) {
    let (_, lost, _) = daemon.event_counts();
    let before = std::mem::replace(&mut daemon.losses_told, lost);
    if let Some(hubble) = &daemon.hubble {
        hubble.push_lost(LostEventSource::PerfEventRingBuffer, lost.saturating_sub(before));
    }
}

fn sweep_tables(daemon: &mut Daemon) -> Result<(), Box<dyn std::error::Error>> {
    let uptime = Duration::from(nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)?);
    let maps = daemon.datapath.maps();
    let now = daemon.clock.now();
    let over: HashSet<IpAddr> = read_names(daemon.core.names())
        .iter()
        .filter(|found| found.expires <= now)
        .map(|found| found.address)
        .collect();
    let mut in_use = HashSet::new();
    let connections = maps.sweep_conntrack(uptime, &mut |one, other| {
        in_use.extend([(one, other), (other, one)].into_iter().filter(|(_, other)| over.contains(other)));
    })?;
    let connections = connections.map(|swept| swept.alive);
    let translations = maps.sweep_nat(uptime, IDLE_TRANSLATION)?.map(|swept| swept.alive);
    let sizes = crate::programs::sizes(&daemon.settings);
    let entries = [
        (pins::CT4, connections[0], sizes.conntrack),
        (pins::CT6, connections[1], sizes.conntrack),
        (pins::SNAT4, translations[0], sizes.nat),
        (pins::SNAT6, translations[1], sizes.nat),
    ];
    for (table, entries, most) in entries {
        note(daemon, table, Fill { entries: entries as u64, most: most.into() });
    }
    // While no agent ran nobody could learn what names stand for: what was open then stays until clients have asked again.
    if daemon.names_may_go {
        expire_names(daemon, now, &in_use);
    }
    daemon.names_may_go = daemon.core.is_synced();
    let (used, most) = daemon.core.policy_slots();
    note(daemon, pins::POLICY_VERDICTS, Fill { entries: used.into(), most: most.into() });
    Ok(())
}

fn note(daemon: &mut Daemon, table: &'static str, fill: Fill) {
    let Fill { entries, most } = fill;
    match daemon.pressure.note(table, fill) {
        Some(News::NearlyFull) => tracing::warn!(table, entries, most, "table is nearly full"),
        Some(News::Relaxed) => tracing::info!(table, entries, most, "table has room again"),
        None => {}
    }
}

/// Deletions that the plugin queued while the agent was away; once more for those that came while it was starting.
pub async fn replay_deletions(folder: PathBuf, sender: Sender) {
    let queue = Queue::new(folder);
    for pause in [0, 5] {
        tokio::time::sleep(Duration::from_secs(pause)).await;
        let (deletes, unreadable) = match queue.drain() {
            Ok(drained) => drained,
            Err(error) => return tracing::error!(%error, "queued deletions cannot be read"),
        };
        for path in unreadable {
            tracing::error!(path, "queued deletion cannot be read");
        }
        for delete in deletes {
            let call = Box::new(move |daemon: &mut Daemon| {
                let all = daemon.core.endpoints().values();
                let found = all
                    .filter(|e| e.record.attachment == delete.cni_attachment_id)
                    .map(|e| e.record.id)
                    .collect::<Vec<_>>();
                for id in found {
                    daemon.end_endpoint(id);
                }
            });
            if sender.send(Message::Call(call)).await.is_err() {
                return;
            }
        }
    }
}
