//! The agent's one task that owns its state: messages in, core asked, operations done.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use agent_api::{ApiError, EndpointChangeRequest};
use arc_swap::ArcSwap;
use bpf::Datapath;
use ipnet::IpNet;
use netlink::Netlink;
use tokio::sync::{mpsc, watch};

use crate::allocation;
use crate::cluster::Cluster;
use crate::config::Settings;
use crate::core::{Core, EndpointRecord, Event, Kind, View};
use crate::ipam::{IpamError, Pool, Waiting};
use crate::kernel;
use crate::network::{self, Devices};
use crate::ops::Op;
use crate::pressure::Pressure;
use crate::proxy::{Numbers, Proxy, Tally};
use crate::state::{LocalNumbers, StateDir};
use crate::watch::Told;

/// Work that somebody wants done by the owner of the state.
pub type Call = Box<dyn FnOnce(&mut Daemon) + Send>;

/// What reaches the daemon.
pub enum Message {
    /// The cluster.
    Told(Told),
    /// Something else happened.
    Event(Box<Event>),
    /// A question or an order of the API.
    Call(Call),
}

/// Where messages go.
pub type Sender = mpsc::Sender<Message>;

/// The agent.
pub struct Daemon {
    /// What it was told to do.
    pub settings: Settings,
    /// What follows from what.
    pub core: Core,
    /// The kernel's side.
    pub datapath: Datapath,
    /// The node's devices.
    pub devices: Devices,
    /// Free addresses of both families.
    pub pools: Vec<Pool>,
    /// Addresses without an endpoint.
    pub(crate) waiting: Waiting,
    /// The node's pod networks.
    pub pod_networks: Vec<IpNet>,
    /// Where others look.
    pub view: Arc<ArcSwap<View>>,
    /// The API answers.
    pub reachable: bool,
    /// Version of the API server.
    pub api_version: String,
    /// Events that were read.
    pub events_read: Arc<AtomicU64>,
    /// Hubble, if it is on.
    pub hubble: Option<hubble::Hubble>,
    /// The health endpoint, if it is on.
    pub health: Option<crate::health::Health>,
    /// The proxy, if rules at the application's level are on.
    pub proxy: Option<Proxy>,
    /// What was said through the proxy.
    pub tally: Tally,
    pub(crate) numbers: Numbers,
    /// Which state of the redirects the proxy was told of.
    pub(crate) offered: Option<u64>,
    /// Identities of this node as they are to be remembered, with their version.
    pub(crate) local_numbers: watch::Sender<(u64, LocalNumbers)>,
    /// Who waits for the datapath's tables to hold what DNS answers taught, and the numbers of these.
    pub(crate) learning: Vec<(mpsc::UnboundedSender<u64>, u64)>,
    /// Names whose time is over may go: this run has had the time to learn them again.
    pub(crate) names_may_go: bool,
    /// How full the datapath's tables are.
    pub pressure: Pressure,
    /// Lost events that Hubble was told of.
    pub(crate) losses_told: u64,
    /// What time it is for names.
    pub(crate) clock: crate::clock::Clock,
    /// Whether the runtime's configuration was written.
    pub cni_written: bool,
    pub(crate) state: StateDir,
    pub(crate) cluster: Cluster,
    pub(crate) netlink: Netlink,
    pub(crate) writer: mpsc::UnboundedSender<Op>,
    pub(crate) sender: Sender,
    pub(crate) flushed: watch::Sender<u64>,
    pub(crate) routes: Vec<netlink::Route>,
    pub(crate) next_id: u32,
}

const MOST_AT_ONCE: usize = 4096;

impl Daemon {
    /// Runs until nobody can send messages any more, or `stop` says so.
    pub async fn run(mut self, mut messages: mpsc::Receiver<Message>, mut stop: watch::Receiver<bool>) {
        loop {
            let first = tokio::select! {
                message = messages.recv() => message,
                _ = stop.changed() => return,
            };
            let Some(first) = first else { return };
            self.take(first);
            for _ in 0..MOST_AT_ONCE {
                let Ok(message) = messages.try_recv() else { break };
                self.take(message);
            }
            self.flush().await;
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Event(event) => self.core.handle(*event),
            Message::Call(call) => call(self),
            Message::Told(Told::Events(events)) => {
                self.reachable = true;
                events.into_iter().for_each(|event| self.core.handle(event));
            }
            Message::Told(Told::EndpointGone(key)) => self.core.republish(&key),
            Message::Told(Told::Reachable(reachable)) => self.reachable = reachable,
            Message::Told(Told::Synced) => {
                self.reachable = true;
                tracing::info!("all objects of the cluster are known");
                self.core.handle(Event::Synced);
            }
        }
    }

    /// Does what follows from what was taken.
    pub async fn flush(&mut self) {
        let mut ops = self.core.flush();
        self.tell_proxy().await;
        let failed = self.apply(&ops);
        for (slot, why) in failed {
            let lock_down = self.core.policy_failed(slot, &why);
            self.apply(&lock_down);
            ops.extend(lock_down);
        }
        self.retain_in_proxy();
        // Before everything is known nothing of it is in the tables.
        if self.core.is_synced() {
            for (held, number) in self.learning.drain(..) {
                // A proxy that has gone waits for nothing.
                let _ = held.send(number);
            }
        }
        let changed = !ops.is_empty();
        ops.into_iter().for_each(|op| self.dispatch(op));
        self.write_routes().await;
        if changed {
            self.view.store(Arc::new(self.core.view()));
            self.remember_numbers();
            self.tell_hubble();
        }
        if self.core.is_synced() && !self.cni_written {
            self.write_cni();
        }
        self.flushed.send_modify(|count| *count += 1);
    }

    /// The identities of this node are saved soon: the next run gives the same numbers.
    fn remember_numbers(&self) {
        let numbers = self.core.local_numbers();
        self.local_numbers.send_if_modified(|(version, known)| {
            let changed = *version != numbers.version();
            if changed {
                (*version, *known) = (numbers.version(), numbers.numbers());
            }
            changed
        });
    }

    /// What no table names any more goes, in time.
    fn retain_in_proxy(&mut self) {
        let version = self.core.redirects_version();
        if self.core.is_synced()
            && let Some(proxy) = &mut self.proxy
            && (self.offered != Some(version) || !proxy.is_settled())
        {
            proxy.retain(self.core.redirects(), Instant::now());
            self.offered = Some(version);
        }
    }

    /// Rules first, then the tables that name them.
    async fn tell_proxy(&mut self) {
        if let Err(error) = self.numbers.reserve(self.core.engine().next_rule_set()) {
            tracing::error!(%error, "numbers of rule sets cannot be reserved: the next run may give them again");
        }
        let Some(proxy) = &mut self.proxy else { return };
        proxy.names_taken_away(crate::core::read_names(self.core.names()).taken_away());
        let redirects = self.core.redirects();
        if self.offered == Some(self.core.redirects_version()) && !proxy.is_behind() {
            return;
        }
        proxy.offer(redirects).await;
        if redirects.is_empty() {
            return;
        }
        if let Err(error) = self.datapath.maps().look_for_proxy() {
            tracing::error!(%error, "the datapath cannot be told of the proxy: what is redirected will be dropped");
        }
    }

    /// Does operations; slots whose policy could not be written, and why.
    fn apply(&mut self, ops: &[Op]) -> BTreeMap<u32, String> {
        let outcome = kernel::apply(&self.datapath, ops);
        outcome.refused.into_iter().for_each(|op| self.core.refused(op));
        outcome.freed.iter().for_each(|(slot, counted)| self.core.slot_freed(*slot, counted));
        outcome.slots
    }

    /// The observers of the cluster: one on each node.
    fn tell_hubble(&self) {
        let (Some(hubble), Some(listen)) = (&self.hubble, &self.settings.hubble_listen) else { return };
        let port = listen.rsplit(':').next().unwrap_or("4244");
        let peer = |node: agent_api::Node| {
            let address =
                if node.ipv4.is_empty() { format!("[{}]:{port}", node.ipv6) } else { format!("{}:{port}", node.ipv4) };
            hubble::PeerAddress { name: node.name, address, tls_server_name: None }
        };
        hubble.peers().set(self.core.describe_nodes().into_iter().map(peer));
    }

    fn dispatch(&mut self, op: Op) {
        match op {
            Op::AllocateIdentity(labels) => self.allocate_identity(labels),
            Op::Persist(record) if record.kind == Kind::Pod => {
                if let Err(error) = self.state.save(&record) {
                    tracing::error!(endpoint = record.id, %error, "endpoint cannot be remembered");
                }
            }
            Op::Forget(id) => {
                if let Err(error) = self.state.remove(id) {
                    tracing::error!(endpoint = id, %error, "endpoint cannot be forgotten");
                }
            }
            Op::Publish(..) | Op::Unpublish(..) | Op::PolicyStatus(..) => {
                // The writer ends with the process only.
                let _ = self.writer.send(op);
            }
            _ => {}
        }
    }

    fn allocate_identity(&self, labels: labels::Labels) {
        let (cluster, sender) = (self.cluster.clone(), self.sender.clone());
        let known: BTreeMap<_, _> = self.core.identities().clone();
        tokio::spawn(async move {
            let answer = allocation::allocate(&cluster, |number| known.get(&number).cloned(), &labels).await;
            if let Err(error) = &answer {
                tracing::warn!(%labels, %error, "no identity yet, trying again");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            let event = Event::Allocated(labels, answer.map_err(|error| error.to_string()));
            // At the end of the process nobody waits for it.
            let _ = sender.send(Message::Event(Box::new(event))).await;
        });
    }

    async fn write_routes(&mut self) {
        let facts = self.core.facts();
        let wanted =
            network::pod_routes(&self.devices, &self.pod_networks, &facts.routers, self.core.nodes(), &facts.node);
        if wanted == self.routes {
            return;
        }
        match network::write_routes(&self.netlink, &self.devices, &wanted).await {
            Ok(()) => self.routes = wanted,
            Err(error) => tracing::error!(%error, "routes to pods cannot be written"),
        }
    }

    fn write_cni(&mut self) {
        self.cni_written = true;
        let Some(path) = &self.settings.cni_conf else { return };
        let conflist = serde_json::json!({
            "cniVersion": "1.1.0",
            "name": "cilium",
            "plugins": [{ "type": "cilium-cni", "agent-socket": self.settings.socket, "delete-queue": self.settings.state_dir.join("deleteQueue") }],
        });
        let text = format!("{conflist:#}\n");
        match crate::state::write_atomically(path, text.as_bytes()) {
            Ok(()) => tracing::info!(path = %path.display(), "ready: the runtime may add containers"),
            Err(error) => {
                self.cni_written = false;
                tracing::error!(path = %path.display(), %error, "CNI configuration cannot be written");
            }
        }
    }

    /// Hands out an address of each family.
    pub fn allocate(&mut self, owner: &str) -> Result<Vec<IpAddr>, IpamError> {
        let mut taken = Vec::new();
        for pool in &mut self.pools {
            match pool.allocate(owner) {
                Ok(address) => taken.push(address),
                Err(error) => {
                    taken.into_iter().for_each(|address| self.release(address));
                    return Err(error);
                }
            }
        }
        Ok(taken)
    }

    /// The same for a container: its endpoint is to come.
    pub fn allocate_for_container(&mut self, owner: &str, now: Instant) -> Result<Vec<IpAddr>, IpamError> {
        let taken = self.allocate(owner)?;
        taken.iter().for_each(|address| self.waiting.begin(*address, now));
        Ok(taken)
    }

    /// Takes an address back.
    pub fn release(&mut self, address: IpAddr) {
        self.waiting.end(address);
        self.pools.iter_mut().for_each(|pool| {
            pool.release(address);
        });
    }

    /// Takes an address back unless an endpoint has it: that gives it back when it ends.
    pub fn give_up(&mut self, address: IpAddr) {
        if !self.core.endpoints().values().any(|e| e.addresses().contains(&address)) {
            self.release(address);
        }
    }

    /// Takes back the addresses of containers that never came.
    pub fn release_overdue(&mut self, now: Instant) {
        for address in self.waiting.overdue(now) {
            tracing::warn!(%address, "handed out and never used: released");
            self.give_up(address);
        }
    }

    /// Takes a new endpoint in: programs first, then everything else; its number.
    pub fn begin_endpoint(&mut self, request: &EndpointChangeRequest) -> Result<u32, ApiError> {
        let mut record = record(request)?;
        let addresses = crate::core::both(record.ipv4, record.ipv6);
        for address in &addresses {
            let other = self.core.endpoints().values().find(|e| e.addresses().contains(address));
            if let Some(other) = other.filter(|other| other.record.attachment != record.attachment) {
                let id = other.record.id;
                return Err(ApiError::Conflict(format!("{address} belongs to endpoint {id}")));
            }
        }
        let of_attachment = |e: &&crate::core::Endpoint| e.record.attachment == record.attachment;
        let earlier: Vec<u32> = self.core.endpoints().values().filter(of_attachment).map(|e| e.record.id).collect();
        earlier.into_iter().for_each(|id| {
            self.end_endpoint(id);
        });
        self.next_id = self.next_id.wrapping_add(1);
        record.id = self
            .core
            .free_endpoint_id(self.next_id)
            .ok_or_else(|| ApiError::Unavailable("all endpoint numbers are in use".into()))?;
        self.claim(&addresses, &format!("{}/{}", record.namespace, record.pod))?;
        if let Err(error) = self.datapath.attach_container(record.ifindex) {
            addresses.into_iter().for_each(|address| self.release(address));
            return Err(ApiError::Failed(error.to_string()));
        }
        let id = record.id;
        self.look_for_pod(&record);
        self.core.add_endpoint(record);
        Ok(id)
    }

    /// Marks addresses as an endpoint's: all or none.
    fn claim(&mut self, addresses: &[IpAddr], owner: &str) -> Result<(), ApiError> {
        for (at, address) in addresses.iter().enumerate() {
            let pool = self.pools.iter_mut().find(|pool| pool.network().contains(address));
            if let Some(Err(error)) = pool.map(|pool| pool.claim(*address, owner)) {
                addresses[..at].iter().for_each(|address| self.release(*address));
                return Err(ApiError::Conflict(error.to_string()));
            }
        }
        addresses.iter().for_each(|address| self.waiting.end(*address));
        Ok(())
    }

    /// The watch may be late: the pod is asked for once.
    fn look_for_pod(&self, record: &EndpointRecord) {
        let key = (record.namespace.clone(), record.pod.clone());
        if key.1.is_empty() {
            return;
        }
        let (cluster, sender) = (self.cluster.clone(), self.sender.clone());
        tokio::spawn(async move {
            if let Ok(Some(namespace)) = cluster.namespace(&key.0).await {
                let event = Event::Namespace(key.0.clone(), namespace.metadata.labels.unwrap_or_default());
                let _ = sender.send(Message::Event(Box::new(event))).await;
            }
            if let Ok(Some(pod)) = cluster.pod(&key).await {
                let event = Event::Pod(key, crate::objects::Pod::read(&pod));
                let _ = sender.send(Message::Event(Box::new(event))).await;
            }
        });
    }

    /// Removes an endpoint and gives its addresses back; false: there was none.
    pub fn end_endpoint(&mut self, id: u32) -> bool {
        let addresses = self.core.endpoints().get(&id).map(|e| e.addresses()).unwrap_or_default();
        let removed = self.core.remove_endpoint(id);
        addresses.into_iter().for_each(|address| self.release(address));
        removed
    }

    /// Endpoints of an earlier run: those whose device is still there go on as they are.
    pub fn restore(&mut self, records: Vec<EndpointRecord>, links: &BTreeMap<u32, String>) {
        let mut kept = BTreeSet::new();
        for record in records {
            let alive = links.get(&record.ifindex) == Some(&record.device) && record.kind == Kind::Pod;
            let owner = format!("{}/{}", record.namespace, record.pod);
            let id = record.id;
            let addresses = crate::core::both(record.ipv4, record.ipv6);
            self.core.restore_endpoint(record.clone());
            if !alive {
                tracing::info!(endpoint = id, device = record.device, "endpoint ended while the agent was away");
                self.core.remove_endpoint(id);
                continue;
            }
            for address in addresses {
                for pool in self.pools.iter_mut().filter(|pool| pool.network().contains(&address)) {
                    if let Err(error) = pool.claim(address, &owner) {
                        tracing::error!(endpoint = id, %error, "address of a restored endpoint");
                    }
                }
            }
            if let Err(error) = self.datapath.attach_container(record.ifindex) {
                tracing::error!(endpoint = id, %error, "programs of a restored endpoint stay those of the earlier run");
            }
            kept.insert(id);
        }
        tracing::info!(count = kept.len(), "endpoints restored");
    }

    /// Counts of the datapath's events: sent, lost, read.
    pub fn event_counts(&self) -> (u64, u64, u64) {
        let (sent, lost) = self.datapath.maps().event_counters().unwrap_or_default();
        (sent, lost, self.events_read.load(Ordering::Relaxed))
    }
}

fn record(request: &EndpointChangeRequest) -> Result<EndpointRecord, ApiError> {
    let invalid = |what: &str, text: &str| ApiError::Invalid(format!("{what} {text:?} cannot be read"));
    let address = |text: &str| -> Result<Option<IpAddr>, ApiError> {
        if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(|_| invalid("address", text)) }
    };
    let mac = |text: &str| parse_mac(text).ok_or_else(|| invalid("Ethernet address", text));
    if request.interface_index == 0 || request.cni_attachment_id.is_empty() {
        return Err(ApiError::Invalid("an endpoint needs interface-index and cni-attachment-id".into()));
    }
    let (v4, v6) = (address(&request.addressing.ipv4)?, address(&request.addressing.ipv6)?);
    if v4.is_none() && v6.is_none() {
        return Err(ApiError::Invalid("an endpoint needs an address".into()));
    }
    Ok(EndpointRecord {
        attachment: request.cni_attachment_id.clone(),
        container_id: request.container_id.clone(),
        container_device: request.container_interface_name.clone(),
        namespace: request.k8s_namespace.clone(),
        pod: request.k8s_pod_name.clone(),
        uid: request.k8s_uid.clone(),
        ifindex: request.interface_index,
        device: request.interface_name.clone(),
        mac: mac(&request.mac)?,
        node_mac: mac(&request.host_mac)?,
        ipv4: v4.and_then(|a| if let IpAddr::V4(a) = a { Some(a) } else { None }),
        ipv6: v6.and_then(|a| if let IpAddr::V6(a) = a { Some(a) } else { None }),
        netns_cookie: request.netns_cookie.clone(),
        ..EndpointRecord::default()
    })
}

fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let bytes: Option<Vec<u8>> = text.split(':').map(|part| u8::from_str_radix(part, 16).ok()).collect();
    bytes?.try_into().ok()
}
