//! What does the agent answer on its socket?

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use agent_api::server::{Answer, EndpointSelector};
use agent_api::{
    AddressPair, ApiError, CacheQuery, DaemonConfig, DnsLookup, Endpoint, EndpointChangeRequest, Identity, IpEntry,
    IpamResponse, Map, MonitorEvent, NameManager, NameReason, Node, Policy, RuleSetHits, Selector, Service,
    StatusResponse,
};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::core::{self, State};
use crate::daemon::{Daemon, Message, Sender};
use crate::network::TUNNEL_OVERHEAD;
use crate::{metrics, redirects, status};

/// The socket's side of the agent.
pub struct Answers {
    sender: Sender,
    flushed: watch::Receiver<u64>,
    events: broadcast::Sender<Arc<MonitorEvent>>,
}

/// How long an endpoint may wait for its identity before it goes on without one.
const IDENTITY_PATIENCE: Duration = Duration::from_secs(15);
/// How long an endpoint may take at all.
const READY_PATIENCE: Duration = Duration::from_secs(60);

impl Answers {
    /// Asks the daemon behind `sender`.
    pub fn new(sender: Sender, flushed: watch::Receiver<u64>, events: broadcast::Sender<Arc<MonitorEvent>>) -> Self {
        Answers { sender, flushed, events }
    }

    async fn ask<T: Send + 'static>(&self, question: impl FnOnce(&mut Daemon) -> T + Send + 'static) -> Answer<T> {
        let (reply, answer) = oneshot::channel();
        // Whoever asked may be gone by the time of the answer.
        let call = Box::new(move |daemon: &mut Daemon| drop(reply.send(question(daemon))));
        self.sender.send(Message::Call(call)).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())
    }

    /// Waits until an endpoint has its policy, and its identity if that comes in time.
    async fn wait_ready(&self, id: u32) -> Answer<Endpoint> {
        let started = tokio::time::Instant::now();
        let mut flushed = self.flushed.clone();
        loop {
            flushed.mark_unchanged();
            let found = self
                .ask(move |d| d.core.endpoints().get(&id).map(|e| (e.state, e.applied.slot, e.written.is_some())))
                .await?;
            let Some((state, slot, written)) = found else {
                return Err(ApiError::Conflict(format!("endpoint {id} was removed meanwhile")));
            };
            let usable = slot != 0 && written;
            if usable && (state == State::Ready || started.elapsed() > IDENTITY_PATIENCE) {
                let all = self.ask(|d| d.core.describe_endpoints()).await?;
                return all
                    .into_iter()
                    .find(|e| e.id == id)
                    .ok_or_else(|| ApiError::Conflict(format!("endpoint {id} was removed meanwhile")));
            }
            if started.elapsed() > READY_PATIENCE {
                return Err(ApiError::Unavailable(format!(
                    "endpoint {id} is {} after {} seconds",
                    state.as_str(),
                    READY_PATIENCE.as_secs()
                )));
            }
            // A flush is news; the time is looked at now and then.
            let _ = tokio::time::timeout(Duration::from_millis(500), flushed.changed()).await;
        }
    }
}

impl agent_api::Agent for Answers {
    async fn status(&self) -> Answer<StatusResponse> {
        self.ask(status::of).await
    }

    async fn endpoints(&self) -> Answer<Vec<Endpoint>> {
        self.ask(|d| redirects::endpoints(d)).await
    }

    async fn create_endpoint(&self, request: EndpointChangeRequest) -> Answer<Endpoint> {
        let id = self.ask(move |d| d.begin_endpoint(&request)).await??;
        self.wait_ready(id).await
    }

    async fn delete_endpoint(&self, selector: String) -> Answer<()> {
        let wanted = EndpointSelector::parse(&selector)?;
        let removed = self.ask(move |d| {
            let found = d
                .core
                .describe_endpoints()
                .into_iter()
                .filter(|e| wanted.matches(e) && !e.status.external_identifiers.cni_attachment_id.is_empty());
            let ids: Vec<u32> = found.map(|e| e.id).collect();
            ids.into_iter().filter(|id| d.end_endpoint(*id)).count()
        });
        if removed.await? == 0 { Err(ApiError::NotFound(format!("endpoint {selector} not found"))) } else { Ok(()) }
    }

    async fn identities(&self) -> Answer<Vec<Identity>> {
        self.ask(|d| d.core.describe_identities()).await
    }

    async fn ips(&self) -> Answer<Vec<IpEntry>> {
        self.ask(|d| d.core.describe_ips()).await
    }

    async fn policy(&self) -> Answer<Policy> {
        self.ask(|d| Policy { policy: d.core.engine().describe(), revision: d.core.engine().revision() }).await
    }

    async fn name_cache(&self, query: CacheQuery) -> Answer<Vec<DnsLookup>> {
        self.ask(move |d| d.core.describe_names(&query)).await?
    }

    async fn clean_names(&self, query: CacheQuery) -> Answer<()> {
        let pattern = query.matchpattern;
        self.ask(move |d| {
            d.core.clean_names(|name| pattern.as_deref().is_none_or(|pattern| core::is_meant(pattern, name)));
        })
        .await
    }

    async fn names(&self) -> Answer<NameManager> {
        self.ask(|d| NameManager { selectors: d.core.engine().names() }).await
    }

    async fn why_name(&self, query: CacheQuery) -> Answer<Vec<NameReason>> {
        self.ask(move |d| d.core.why_name(&query)).await?
    }

    async fn policy_hits(&self) -> Answer<Vec<RuleSetHits>> {
        self.ask(|d| policy_hits(d)).await?
    }

    async fn selectors(&self) -> Answer<Vec<Selector>> {
        self.ask(|d| d.core.engine().selectors()).await
    }

    async fn configuration(&self) -> Answer<DaemonConfig> {
        self.ask(|d| DaemonConfig {
            daemon_configuration_map: d.settings.given.clone(),
            immutable: [("EnableIPv4", d.settings.ipv4), ("EnableIPv6", d.settings.ipv6)]
                .map(|(name, on)| (name.to_owned(), if on { "Enabled" } else { "Disabled" }.to_owned()))
                .into(),
            policy_enforcement: d.settings.enforcement.as_str().into(),
        })
        .await
    }

    async fn services(&self) -> Answer<Vec<Service>> {
        self.ask(|d| d.core.describe_services()).await
    }

    async fn nodes(&self) -> Answer<Vec<Node>> {
        self.ask(|d| d.core.describe_nodes()).await
    }

    async fn maps(&self) -> Answer<Vec<Map>> {
        self.ask(|d| {
            let table = d.core.service_table();
            let counts = [
                (abi::pins::IPCACHE4, d.core.ipcache().iter().filter(|(p, ..)| p.addr().is_ipv4()).count()),
                (abi::pins::IPCACHE6, d.core.ipcache().iter().filter(|(p, ..)| p.addr().is_ipv6()).count()),
                (abi::pins::LXC4, d.core.endpoints().values().filter(|e| e.record.ipv4.is_some()).count()),
                (abi::pins::LXC6, d.core.endpoints().values().filter(|e| e.record.ipv6.is_some()).count()),
                (
                    abi::pins::LB4_SERVICES,
                    table.frontends.values().filter(|f| f.address.ip.is_ipv4()).map(|f| 1 + f.backends.len()).sum(),
                ),
                (
                    abi::pins::LB6_SERVICES,
                    table.frontends.values().filter(|f| f.address.ip.is_ipv6()).map(|f| 1 + f.backends.len()).sum(),
                ),
                (abi::pins::LB4_BACKENDS, table.backends.values().filter(|b| b.ip.is_ipv4()).count()),
                (abi::pins::LB6_BACKENDS, table.backends.values().filter(|b| b.ip.is_ipv6()).count()),
            ];
            let map = |(name, count): (&str, usize)| Map {
                name: name.into(),
                num_entries: count as u64,
                num_errors: 0,
                cache_enabled: true,
            };
            counts.into_iter().map(map).collect()
        })
        .await
    }

    async fn metrics(&self) -> Answer<Vec<agent_api::Metric>> {
        self.ask(|daemon| metrics::of(daemon)).await?.map_err(|error| ApiError::Failed(error.to_string()))
    }

    async fn allocate(&self, owner: String) -> Answer<IpamResponse> {
        let (reply, answer) = oneshot::channel();
        let call = Box::new(move |daemon: &mut Daemon| {
            // The plugin has a limited patience: what it does not take any more goes back at once.
            if let Err(Ok((addresses, _))) = reply.send(allocate(daemon, &owner)) {
                addresses.into_iter().for_each(|address| daemon.give_up(address));
            }
        });
        self.sender.send(Message::Call(call)).await.map_err(|_| stopping())?;
        let (_, answer) = answer.await.map_err(|_| stopping())??;
        Ok(answer)
    }

    async fn release(&self, address: IpAddr) -> Answer<()> {
        self.ask(move |d| d.give_up(address)).await
    }

    async fn monitor(&self) -> Answer<mpsc::Receiver<MonitorEvent>> {
        let (sender, receiver) = mpsc::channel(1024);
        let mut events = self.events.subscribe();
        tokio::spawn(async move {
            loop {
                match events.recv().await {
                    Ok(event) => {
                        if sender.send(MonitorEvent::clone(&event)).await.is_err() {
                            return;
                        }
                    }
                    Err(broadcast::error::RecvError::Lagged(count)) => {
                        tracing::debug!(count, "a monitor is too slow and missed events");
                    }
                    Err(broadcast::error::RecvError::Closed) => return,
                }
            }
        });
        Ok(receiver)
    }
}

/// How often rules decided, until now.
fn policy_hits(daemon: &Daemon) -> Answer<Vec<RuleSetHits>> {
    let slots = &daemon.datapath.maps().policy;
    let in_use = daemon.core.decisions().map(|(slot, decisions)| Ok((decisions, slots.counted(slot)?)));
    let in_use: Vec<_> = in_use.collect::<bpf::Result<_>>().map_err(|error| ApiError::Failed(error.to_string()))?;
    let engine = daemon.core.engine();
    Ok(daemon.core.hits().report(in_use, |policy| engine.has_policy(policy), &hubble::read_clock()))
}

fn stopping() -> ApiError {
    ApiError::Unavailable("the agent is stopping".into())
}

/// Addresses for a container, and what the plugin is told of them.
fn allocate(daemon: &mut Daemon, owner: &str) -> Answer<(Vec<IpAddr>, IpamResponse)> {
    if !daemon.core.is_synced() {
        return Err(ApiError::Unavailable("the agent does not know the cluster yet".into()));
    }
    let allocated = daemon.allocate_for_container(owner, std::time::Instant::now());
    let addresses = allocated.map_err(|error| ApiError::Unavailable(error.to_string()))?;
    let mtu = daemon.devices.mtu.saturating_sub(TUNNEL_OVERHEAD);
    let answer = IpamResponse {
        address: pair(&addresses),
        host_addressing: pair(&daemon.core.facts().routers),
        gateway_mac: daemon.devices.host.mac.map(|mac| abi::Mac(mac).to_string()).unwrap_or_default(),
        device_mtu: mtu,
        route_mtu: mtu,
    };
    Ok((addresses, answer))
}

fn pair(addresses: &[IpAddr]) -> AddressPair {
    let first = |v4: bool| addresses.iter().find(|a| a.is_ipv4() == v4).map(IpAddr::to_string).unwrap_or_default();
    AddressPair { ipv4: first(true), ipv6: first(false) }
}
