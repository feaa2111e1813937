//! How do the datapath's events reach those who watch flows?

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use agent_api::MonitorEvent;
use anyhow::{Context, Result};
use arc_swap::ArcSwap;
use hubble::Hubble;
use tokio::sync::broadcast;

use crate::config::Settings;
use crate::core::{SharedNames, View};
use crate::directory::Snapshot;
use crate::network::Devices;
use crate::objects::Node;

/// Hubble, if it is on.
pub fn hubble(
    settings: &Settings,
    devices: &Devices,
    node: &Node,
    view: &Arc<ArcSwap<View>>,
    names: &SharedNames,
) -> Result<Option<Hubble>> {
    if !settings.hubble {
        return Ok(None);
    }
    let capacity = hubble::Capacity::new(settings.hubble_capacity as u64)?;
    let config = hubble::Config { capacity, ..hubble::Config::default() };
    Ok(Some(Hubble::new(config, Arc::new(directory(settings, devices, node, view, names)))))
}

/// What the agent knows of addresses, for whoever tells of flows.
pub fn directory(
    settings: &Settings,
    devices: &Devices,
    node: &Node,
    view: &Arc<ArcSwap<View>>,
    names: &SharedNames,
) -> Snapshot {
    let known = [&devices.host, &devices.net, &devices.tunnel, &devices.uplink];
    let devices: HashMap<u32, Arc<str>> = known.iter().map(|link| (link.index, link.name.as_str().into())).collect();
    let labels = node.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let own = flow::Node { cluster: settings.cluster.clone(), name: settings.node.clone(), labels };
    Snapshot::new(own, devices, view.clone(), names.clone())
}

/// Reads events for ever; counts them.
pub async fn read_events(
    mut reader: bpf::EventReader,
    hubble: Option<Hubble>,
    monitors: broadcast::Sender<Arc<MonitorEvent>>,
    count: Arc<AtomicU64>,
) {
    let mut events = Vec::new();
    loop {
        events.clear();
        let read = reader.read(Duration::from_millis(5), 4096, &mut events).await;
        count.fetch_add(read as u64, Ordering::Relaxed);
        if let Some(hubble) = &hubble {
            hubble.push_batch(&events);
        }
        if monitors.receiver_count() > 0 {
            for event in &events {
                let record = abi::bytes_of(event).iter().map(|byte| format!("{byte:02x}")).collect();
                // Nobody listens any more.
                let _ = monitors.send(Arc::new(MonitorEvent { record, ..MonitorEvent::default() }));
            }
        }
    }
}

/// Serves flows at the socket and the address of the settings.
pub async fn serve_hubble(settings: &Settings, hubble: Option<Hubble>) -> Result<()> {
    let Some(hubble) = hubble else { return Ok(()) };
    let mut listeners = hubble::Listeners::new().with_unix(&settings.hubble_socket)?;
    if let Some(text) = &settings.hubble_listen {
        let text = if text.starts_with(':') {
            format!("{}{text}", if settings.ipv6 { "[::]" } else { "0.0.0.0" })
        } else {
            text.clone()
        };
        let address = text.parse().with_context(|| format!("hubble-listen-address {text:?} is not ADDRESS:PORT"))?;
        listeners = listeners.with_tcp(address).await?;
    }
    tokio::spawn(async move {
        if let Err(error) = hubble.serve(listeners, tokio_util::sync::CancellationToken::new()).await {
            tracing::error!(%error, "Hubble cannot be served");
        }
    });
    Ok(())
}
