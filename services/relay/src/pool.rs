//! Which nodes are there, and which can be asked? Connections to all observers that the peer service names.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use flow::proto::{
    observer::ServerStatusRequest,
    peer::{ChangeNotification, ChangeNotificationType, NotifyRequest},
};
use futures::StreamExt;
use hubble::{
    client::{self, Address, Options, Tls},
    rpc::{observer::observer_client::ObserverClient, peer::peer_client::PeerClient},
};
use tokio::{
    task::AbortHandle,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tracing::{debug, info, warn};

/// How the pool works.
#[derive(Clone, Debug)]
pub struct PoolSettings {
    /// Who names the observers.
    pub peer_service: Address,
    /// Longest pause between two attempts.
    pub retry: Duration,
    /// For peers that want TLS.
    pub tls: Option<Tls>,
}

/// A node's observer as it is now.
#[derive(Clone, Debug)]
pub struct Node {
    /// `cluster/node`.
    pub name: String,
    /// `host:port`.
    pub address: String,
    /// Name in its certificate, if it is asked by TLS.
    pub tls_server_name: Option<String>,
    /// None while it cannot be reached.
    pub channel: Option<Channel>,
}

struct Member {
    node: Node,
    keeper: AbortHandle,
}

/// See the module. Clones are the same pool.
#[derive(Clone)]
pub struct Pool {
    inner: Arc<Inner>,
}

struct Inner {
    settings: PoolSettings,
    members: RwLock<BTreeMap<String, Member>>,
}

/// First pause after a failure; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// A node's observer listens here if its address has no port.
const OBSERVER_PORT: u16 = 4244;
/// An idle connection is tried this often, so that a dead node is known before it is asked.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// After the peer service was away: members that it does not name again within this time are gone.
const ANNOUNCEMENT: Duration = Duration::from_secs(10);

impl Pool {
    /// Begins to follow the peer service, until stopped.
    pub fn start(settings: PoolSettings, stop: CancellationToken) -> Self {
        let pool = Self { inner: Arc::new(Inner { settings, members: RwLock::default() }) };
        let inner = pool.inner.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = follow(&inner) => {}
            }
            inner.write().values().for_each(|member| member.keeper.abort());
        });
        pool
    }

    /// All nodes, by name.
    pub fn nodes(&self) -> Vec<Node> {
        self.inner.read().values().map(|member| member.node.clone()).collect()
    }
}

impl Inner {
    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<String, Member>> {
        self.members.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<String, Member>> {
        self.members.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_channel(&self, name: &str, channel: Option<Channel>) {
        if let Some(member) = self.write().get_mut(name) {
            member.node.channel = channel;
        }
    }
}

/// Pauses that grow from failure to failure.
struct Pause {
    next: Duration,
    longest: Duration,
}

impl Pause {
    fn new(longest: Duration) -> Self {
        Self { next: FIRST_PAUSE.min(longest), longest }
    }

    async fn take(&mut self) {
        sleep(self.next).await;
        self.next = (self.next * 2).min(self.longest);
    }
}

/// Follows the peer service for ever.
async fn follow(inner: &Arc<Inner>) {
    let mut pause = Pause::new(inner.settings.retry);
    loop {
        let options = Options { timeout: Duration::from_secs(5), tls: None };
        match client::connect(&inner.settings.peer_service, &options).await {
            Ok(channel) => {
                if notifications(inner, channel).await {
                    pause = Pause::new(inner.settings.retry);
                }
            }
            Err(error) => warn!(%error, "no connection to the peer service"),
        }
        pause.take().await;
    }
}

/// True if the service answered.
async fn notifications(inner: &Arc<Inner>, channel: Channel) -> bool {
    let mut stream = match PeerClient::new(channel).notify(NotifyRequest {}).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => {
            warn!(%status, "the peer service does not answer");
            return false;
        }
    };
    let mut announced = BTreeSet::new();
    let deadline = Instant::now() + ANNOUNCEMENT;
    let mut settled = false;
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(deadline), if !settled => {
                settled = true;
                forget_others(inner, &announced);
            }
            notification = stream.next() => match notification {
                Some(Ok(change)) => {
                    announced.insert(change.name.clone());
                    apply(inner, change);
                }
                Some(Err(status)) => {
                    warn!(%status, "the peer service ended");
                    return true;
                }
                None => {
                    info!("the peer service ended");
                    return true;
                }
            }
        }
    }
}

fn forget_others(inner: &Inner, announced: &BTreeSet<String>) {
    inner.write().retain(|name, member| {
        let known = announced.contains(name);
        if !known {
            member.keeper.abort();
        }
        known
    });
}

fn apply(inner: &Arc<Inner>, change: ChangeNotification) {
    debug!(name = change.name, address = change.address, kind = change.r#type().as_str_name(), "peer");
    let mut members = inner.write();
    let wanted = Node {
        name: change.name.clone(),
        address: change.address.clone(),
        tls_server_name: change.tls.clone().map(|tls| tls.server_name),
        channel: None,
    };
    let unchanged = members.get(&change.name).is_some_and(|member| {
        member.node.address == wanted.address && member.node.tls_server_name == wanted.tls_server_name
    });
    let gone = change.r#type() == ChangeNotificationType::PeerDeleted;
    if unchanged && !gone {
        return;
    }
    if let Some(old) = members.remove(&change.name) {
        old.keeper.abort();
    }
    if !gone {
        let keeper = tokio::spawn(keep(inner.clone(), wanted.clone())).abort_handle();
        members.insert(change.name, Member { node: wanted, keeper });
    }
}

/// Connects to a node for ever, and says so in the list.
async fn keep(inner: Arc<Inner>, node: Node) {
    let mut pause = Pause::new(inner.settings.retry);
    let Some(address) = address(&node) else {
        warn!(name = node.name, address = node.address, "no usable address");
        return;
    };
    loop {
        match client::connect(&address, &options(&inner.settings, &node)).await {
            Ok(channel) => {
                info!(name = node.name, %address, "connected");
                inner.set_channel(&node.name, Some(channel.clone()));
                watch(channel).await;
                inner.set_channel(&node.name, None);
                pause = Pause::new(inner.settings.retry);
                warn!(name = node.name, %address, "connection lost");
            }
            Err(error) => debug!(name = node.name, %error, "not connected"),
        }
        pause.take().await;
    }
}

fn options(settings: &PoolSettings, node: &Node) -> Options {
    let tls = node
        .tls_server_name
        .as_ref()
        .map(|name| Tls { server_name: Some(name.clone()), ..settings.tls.clone().unwrap_or_default() });
    Options { timeout: Duration::from_secs(5), tls: tls.filter(|_| settings.tls.is_some()) }
}

/// Returns when the node does not answer any more.
async fn watch(channel: Channel) {
    let mut client = ObserverClient::new(channel);
    loop {
        sleep(CHECK_INTERVAL).await;
        match timeout(CHECK_INTERVAL, client.server_status(ServerStatusRequest {})).await {
            Ok(Ok(_)) => {}
            // It answered, if only to refuse.
            Ok(Err(status)) if status.code() != tonic::Code::Unavailable => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

/// `host:port`, `unix://...`, or an address without port.
fn address(node: &Node) -> Option<Address> {
    let text = node.address.as_str();
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let host = if text.contains(':') { format!("[{text}]") } else { text.to_owned() };
    format!("{host}:{OBSERVER_PORT}").parse().ok()
}
