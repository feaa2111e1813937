//! What does it cost that every flow event is read and stored? A reader as the agent has one, on the measured processor.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use bpf::EventReader;
use flow::directory::{Directory, Node, Peer};
use flow::record::{Clock, Record, unique};

use crate::node::{CLIENT, SERVER};
use crate::supervisor::pin;
use crate::topology::Topology;

/// How often it looks.
const PACE: Duration = Duration::from_millis(5);
/// Records that it keeps.
const KEPT: usize = 1 << 16;

/// Starts a reader that lives as long as the process; returns the count of what it stored.
pub fn start(mut reader: EventReader, topology: &Topology) -> Result<Arc<AtomicU64>> {
    let stored = Arc::new(AtomicU64::new(0));
    let (count, directory) = (stored.clone(), Pods::of(topology));
    std::thread::Builder::new().name("observer".into()).spawn(move || {
        if let Err(e) = pin() {
            eprintln!("benches: the reader of events is not bound to the processor: {e}");
        }
        let (clock, mut ring, mut sequence) = (Clock::new(0, 0), Vec::with_capacity(KEPT), 0);
        loop {
            reader.drain(usize::MAX, |event| {
                let record = Record::new(event, clock.wall(event.time), unique(1, sequence), &directory);
                let place = sequence as usize % KEPT;
                if place < ring.len() {
                    ring[place] = record
                } else {
                    ring.push(record)
                }
                sequence += 1;
            });
            count.store(sequence, Ordering::Relaxed);
            std::thread::sleep(PACE);
        }
    })?;
    Ok(stored)
}

/// Who is behind the addresses.
struct Pods(HashMap<IpAddr, Arc<Peer>>);

impl Pods {
    fn of(topology: &Topology) -> Pods {
        let peer = |pod: &str, identity| {
            let labels = vec![format!("k8s:app={pod}"), "k8s:io.kubernetes.pod.namespace=default".into()];
            let (namespace, pod) = ("default".into(), pod.into());
            Arc::new(Peer { endpoint: identity, identity, namespace, pod, labels, workloads: vec![] })
        };
        Pods(HashMap::from([
            (topology.client.v4.into(), peer("client", CLIENT)),
            (topology.server.v4.into(), peer("server", SERVER)),
        ]))
    }
}

impl Directory for Pods {
    fn node(&self) -> Arc<Node> {
        Arc::default()
    }
    fn peer(&self, address: IpAddr) -> Option<Arc<Peer>> {
        self.0.get(&address).cloned()
    }
}
