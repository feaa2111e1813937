//! How does the agent come up: settings, addresses, devices, programs, what was there before, and then the tasks?

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use abi::config as node_config;
use agent_api::MonitorEvent;
use agent_api::queue::Queue;
use anyhow::{Context, Result, bail};
use arc_swap::ArcSwap;
use bpf::{Datapath, Options};
use flow::proto::flow::LostEventSource;
use hubble::Hubble;
use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use netlink::Netlink;
use tokio::sync::{broadcast, mpsc, watch};

use crate::answers::Answers;
use crate::cluster::{self, Cluster};
use crate::config::{self, Settings};
use crate::core::{Core, EndpointRecord, Facts, Kind, View};
use crate::daemon::{Daemon, Message, Sender};
use crate::directory::Snapshot;
use crate::ipam::Pool;
use crate::network::{self, Devices};
use crate::objects::Node;
use crate::state::StateDir;
use crate::{engine, health, kernel};

/// The command `cilium-agent`.
pub fn main_with<I: IntoIterator<Item = String>>(arguments: I) -> ExitCode {
    let arguments: Vec<String> = arguments.into_iter().collect();
    if arguments.iter().any(|a| a == "--version") {
        println!("Axoneme {}", crate::answers::version());
        return ExitCode::SUCCESS;
    }
    let environment = std::env::vars().collect();
    let result = settings(&arguments, &environment).and_then(|settings| {
        let engine = engine::repository(&settings).map_err(anyhow::Error::msg)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(run(settings, engine))
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            eprintln!("cilium-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn settings(arguments: &[String], environment: &config::Values) -> Result<Settings> {
    let values = config::gather(arguments, environment)?;
    for warning in config::unsupported(&values)? {
        tracing::warn!("{warning}");
        eprintln!("warning: {warning}");
    }
    let host_name = || nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    let node = environment.get("K8S_NODE_NAME").filter(|name| !name.is_empty()).cloned().or_else(host_name);
    let node = node.context("the node's name is not known: set K8S_NODE_NAME")?;
    let mut settings = Settings::new(&values, &node)?;
    if let Some(namespace) = environment.get("CILIUM_K8S_NAMESPACE") {
        settings.namespace.clone_from(namespace);
    }
    if !settings.ipv4 && !settings.ipv6 {
        bail!("enable-ipv4 and enable-ipv6 are both false: no pod could have an address");
    }
    Ok(settings)
}

/// Runs the agent until it is told to stop. Programs, maps, links and devices stay in place.
pub async fn run(settings: Settings, engine: Box<dyn engine::Engine>) -> Result<()> {
    let mut stop = Stop::new()?;
    tokio::select! {
        result = serve(settings, engine, stop.receiver.clone()) => result,
        () = stop.wait() => Ok(()),
    }
}

struct Stop {
    sender: watch::Sender<bool>,
    receiver: watch::Receiver<bool>,
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Stop {
    fn new() -> Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let (sender, receiver) = watch::channel(false);
        Ok(Stop {
            sender,
            receiver,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
        tracing::info!("stopping; the datapath goes on");
        self.sender.send_replace(true);
    }
}

async fn serve(settings: Settings, engine: Box<dyn engine::Engine>, stop: watch::Receiver<bool>) -> Result<()> {
    let cluster = Cluster::new(cluster::client(&settings).await.map_err(anyhow::Error::msg)?);
    let node = own_node(&cluster, &settings).await;
    let netlink = Netlink::open()?;
    let (pools, routers) = pools(&netlink, &settings, &node).await?;
    let devices = network::set_up(&netlink, &settings, &routers).await?;
    let datapath = datapath(&settings, &devices, &pools, &routers)?;
    let facts = facts(&settings, &devices, &node, &routers);
    let api_version = cluster.version().await.unwrap_or_default();

    let (sender, messages) = mpsc::channel(16_384);
    let (writer, to_write) = mpsc::unbounded_channel();
    let (flushed, seen) = watch::channel(0);
    let view = Arc::new(ArcSwap::from_pointee(View::default()));
    let events_read = Arc::new(AtomicU64::new(0));
    let hubble = hubble(&settings, &devices, &node, &view)?;
    let core = Core::new(facts, engine, kernel::found(datapath.maps())?);
    let reader = datapath.events()?;
    let mut daemon = Daemon {
        core,
        datapath,
        devices,
        pools,
        pod_networks: node.pod_networks.clone(),
        view,
        reachable: true,
        api_version,
        events_read: events_read.clone(),
        hubble: hubble.clone(),
        cni_written: false,
        state: StateDir::new(&settings.state_dir),
        cluster: cluster.clone(),
        netlink: netlink.clone(),
        writer,
        sender: sender.clone(),
        flushed,
        routes: Vec::new(),
        next_id: rand::random::<u16>().into(),
        settings: settings.clone(),
    };
    restore(&mut daemon, &netlink).await?;
    let (_health, health_addresses) = own_endpoints(&mut daemon, &netlink).await?;
    attach(&daemon)?;

    tokio::spawn(cluster::writer(cluster.clone(), to_write));
    let (monitors, _) = broadcast::channel(4096);
    tokio::spawn(read_events(reader, hubble.clone(), monitors.clone(), events_read));
    serve_hubble(&settings, hubble).await?;
    let answers = Arc::new(Answers::new(sender.clone(), seen, monitors));
    let socket = settings.socket.clone();
    tokio::spawn(async move {
        if let Err(error) = agent_api::serve(&socket, answers).await {
            tracing::error!(socket = %socket.display(), %error, "the API cannot be served");
        }
    });
    tokio::spawn(readiness(settings.health_port, sender.clone()));
    tokio::spawn(sweeps(sender.clone()));
    tokio::spawn(replay_deletions(settings.state_dir.join("deleteQueue"), sender.clone()));
    let object = own_object(&daemon, &node, &health_addresses);
    tokio::spawn(publish_node(cluster.clone(), settings.node.clone(), object));
    let (told, mut news) = mpsc::channel(4096);
    crate::watch::start(cluster.client(), &settings.node, settings.network_policy, &told);
    drop(told);
    let forward = sender;
    tokio::spawn(async move {
        while let Some(told) = news.recv().await {
            if forward.send(Message::Told(told)).await.is_err() {
                return;
            }
        }
    });
    daemon.run(messages, stop).await;
    Ok(())
}

/// The own node with its pod networks; waits until somebody has given it some.
async fn own_node(cluster: &Cluster, settings: &Settings) -> Node {
    loop {
        match cluster.node(&settings.node).await {
            Ok(Some(node)) => {
                let node = Node::read(&node);
                let has = |v4: bool| node.pod_networks.iter().any(|net| net.addr().is_ipv4() == v4);
                if (!settings.ipv4 || has(true)) && (!settings.ipv6 || has(false)) && !node.addresses.is_empty() {
                    return node;
                }
                tracing::info!(node = settings.node, "waiting for the node's addresses and pod networks");
            }
            Ok(None) => tracing::info!(node = settings.node, "waiting for the node's object"),
            Err(error) => tracing::warn!(error = cluster::brief(&error), "the Kubernetes API does not answer yet"),
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// The pools, and the gateway's address in each: the one that an earlier run had, if there was one.
async fn pools(netlink: &Netlink, settings: &Settings, node: &Node) -> Result<(Vec<Pool>, Vec<IpAddr>)> {
    let earlier = network::routers(netlink).await?;
    let (mut pools, mut routers) = (Vec::new(), Vec::new());
    for v4 in [true, false].into_iter().filter(|v4| if *v4 { settings.ipv4 } else { settings.ipv6 }) {
        let network = node.pod_networks.iter().find(|net| net.addr().is_ipv4() == v4);
        let mut pool = Pool::new(*network.context("the node has no pod network of a family that is on")?);
        let known = earlier.iter().copied().find(|address| pool.network().contains(address));
        let router = match known {
            Some(address) => pool.claim(address, "router").map(|()| address)?,
            None => pool.allocate("router")?,
        };
        pools.push(pool);
        routers.push(router);
    }
    Ok((pools, routers))
}

fn datapath(settings: &Settings, devices: &Devices, pools: &[Pool], routers: &[IpAddr]) -> Result<Datapath> {
    let mut options = Options::new(settings.bpf_root.join("tc/globals"));
    options.attachment = settings.attachment;
    let sizes = &mut options.sizes;
    sizes.conntrack = settings.conntrack_entries.unwrap_or(sizes.conntrack);
    sizes.nat = settings.nat_entries.unwrap_or(sizes.nat);
    sizes.policy_entries = settings.policy_entries.unwrap_or(sizes.policy_entries);
    sizes.services = settings.service_entries.unwrap_or(sizes.services);
    let datapath = Datapath::open(&options).context("load the datapath")?;
    datapath.set_config(&configuration(settings, devices, pools, routers))?;
    Ok(datapath)
}

fn first_v4(addresses: &[IpAddr]) -> Ipv4Addr {
    addresses.iter().find_map(|a| if let IpAddr::V4(a) = a { Some(*a) } else { None }).unwrap_or(Ipv4Addr::UNSPECIFIED)
}

fn first_v6(addresses: &[IpAddr]) -> Ipv6Addr {
    addresses.iter().find_map(|a| if let IpAddr::V6(a) = a { Some(*a) } else { None }).unwrap_or(Ipv6Addr::UNSPECIFIED)
}

fn configuration(
    settings: &Settings,
    devices: &Devices,
    pools: &[Pool],
    routers: &[IpAddr],
) -> node_config::NodeConfig {
    let flags = [
        (settings.ipv4, node_config::FLAG_IPV4),
        (settings.ipv6, node_config::FLAG_IPV6),
        (
            (settings.ipv4 && settings.masquerade4) || (settings.ipv6 && settings.masquerade6),
            node_config::FLAG_MASQUERADE,
        ),
        (settings.verdict_events, node_config::FLAG_POLICY_VERDICT_EVENTS),
        (settings.audit, node_config::FLAG_POLICY_AUDIT),
        (settings.drop_events, node_config::FLAG_DROP_EVENTS),
        (settings.trace_events, node_config::FLAG_TRACE_EVENTS),
    ];
    let pool = |v4: bool| {
        let named = settings.cluster_pools.iter().copied().find(|net| net.addr().is_ipv4() == v4);
        named.or_else(|| pools.iter().map(Pool::network).find(|net| net.addr().is_ipv4() == v4))
    };
    let native4 = settings.native4.map(IpNet::V4).or_else(|| pool(true));
    let native6 = settings.native6.map(IpNet::V6).or_else(|| pool(false));
    let address4 = |net: Option<IpNet>| net.map_or(Ipv4Addr::UNSPECIFIED, |net| first_v4(&[net.network()]));
    let address6 = |net: Option<IpNet>| net.map_or(Ipv6Addr::UNSPECIFIED, |net| first_v6(&[net.network()]));
    // Without a network everything is masqueraded: a prefix of full length that nobody has.
    let length = |net: Option<IpNet>, full: u32| net.map_or(full, |net| net.prefix_len().into());
    node_config::NodeConfig {
        ipcache_generation: 0,
        flags: flags.iter().filter(|(on, _)| *on).fold(0, |all, (_, flag)| all | flag),
        router4: first_v4(routers).into(),
        node4: first_v4(&devices.addresses).into(),
        router6: first_v6(routers).into(),
        node6: first_v6(&devices.addresses).into(),
        tunnel_ifindex: devices.tunnel.index,
        host_ifindex: devices.host.index,
        net_ifindex: devices.net.index,
        uplink_ifindex: devices.uplink.index,
        router_mac: abi::Mac(devices.host.mac.unwrap_or_default()),
        nat_min_port: 32768,
        nat_max_port: 65535,
        monitor_aggregation: settings.aggregation.0,
        native_cidr4: address4(native4).into(),
        native_cidr4_len: length(native4, 32),
        native_cidr6: address6(native6).into(),
        native_cidr6_len: length(native6, 128),
    }
}

fn facts(settings: &Settings, devices: &Devices, node: &Node, routers: &[IpAddr]) -> Facts {
    let mut addresses: Vec<IpAddr> = node.addresses.iter().copied().collect();
    addresses.extend(devices.addresses.iter().copied().filter(|a| !node.addresses.contains(a)));
    Facts {
        cluster: settings.cluster.clone(),
        node: settings.node.clone(),
        ipv4: settings.ipv4,
        ipv6: settings.ipv6,
        enforcement: settings.enforcement,
        routers: routers.to_vec(),
        node_addresses: addresses,
        filter: labels::LabelFilter::default(),
    }
}

fn hubble(settings: &Settings, devices: &Devices, node: &Node, view: &Arc<ArcSwap<View>>) -> Result<Option<Hubble>> {
    if !settings.hubble {
        return Ok(None);
    }
    let known = [&devices.host, &devices.net, &devices.tunnel, &devices.uplink];
    let names: HashMap<u32, Arc<str>> = known.iter().map(|link| (link.index, link.name.as_str().into())).collect();
    let labels = node.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let own = flow::Node { cluster: settings.cluster.clone(), name: settings.node.clone(), labels };
    let capacity = hubble::Capacity::new(settings.hubble_capacity as u64)?;
    let config = hubble::Config { capacity, ..hubble::Config::default() };
    Ok(Some(Hubble::new(config, Arc::new(Snapshot::new(own, names, view.clone())))))
}

async fn restore(daemon: &mut Daemon, netlink: &Netlink) -> Result<()> {
    let links: BTreeMap<u32, String> = netlink.links().await?.into_iter().map(|l| (l.index, l.name)).collect();
    let (records, unreadable) = daemon.state.load().context("read the endpoints of the earlier run")?;
    for path in unreadable {
        tracing::error!(path, "remembered endpoint cannot be read; it keeps its policy until its pod is gone");
    }
    let addresses = records.iter().flat_map(|r| crate::core::both(r.ipv4, r.ipv6)).collect();
    let devices = records.iter().map(|r| r.ifindex).collect();
    kernel::forget_strangers(daemon.datapath.maps(), &addresses, &devices)?;
    daemon.restore(records, &links);
    Ok(())
}

/// The node itself and its health endpoint.
async fn own_endpoints(daemon: &mut Daemon, netlink: &Netlink) -> Result<(Option<health::Health>, Vec<IpAddr>)> {
    let host = daemon.devices.host.clone();
    let mut record = EndpointRecord {
        kind: Kind::Host,
        ifindex: host.index,
        device: host.name.clone(),
        mac: host.mac.unwrap_or_default(),
        node_mac: host.mac.unwrap_or_default(),
        ..EndpointRecord::default()
    };
    record.id = daemon.core.free_endpoint_id(daemon.next_id).context("no endpoint number is free")?;
    daemon.core.add_endpoint(record);
    if !daemon.settings.health_endpoint {
        return Ok((None, Vec::new()));
    }
    let addresses = daemon.allocate("health")?;
    let mtu = daemon.devices.mtu.saturating_sub(network::TUNNEL_OVERHEAD);
    let routers = daemon.core.facts().routers.clone();
    let (namespace, mut record) = health::devices(netlink, &addresses, &routers, mtu).await?;
    daemon.next_id = daemon.next_id.wrapping_add(1);
    record.id = daemon.core.free_endpoint_id(daemon.next_id).context("no endpoint number is free")?;
    daemon.datapath.attach_container(record.ifindex)?;
    daemon.core.add_endpoint(record);
    let health = health::open(netlink, namespace).await.context("start the health responder")?;
    Ok((Some(health), addresses))
}

fn attach(daemon: &Daemon) -> Result<()> {
    let (datapath, devices) = (&daemon.datapath, &daemon.devices);
    datapath.remove_dead_links()?;
    datapath.attach_host(devices.host.index)?;
    datapath.attach_overlay(devices.tunnel.index)?;
    datapath.attach_netdev(devices.uplink.index)?;
    if daemon.settings.kube_proxy_replacement {
        datapath.attach_sockets(&daemon.settings.cgroup_root).context("attach to the node's cgroup")?;
    }
    Ok(())
}

async fn read_events(
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

async fn serve_hubble(settings: &Settings, hubble: Option<Hubble>) -> Result<()> {
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

/// Answers `GET /healthz` on the loopback device: 200 when the cluster is known, else 503.
async fn readiness(port: u16, sender: Sender) {
    let listener = match tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(port, %error, "readiness cannot be served"),
    };
    while let Ok((stream, _)) = listener.accept().await {
        let sender = sender.clone();
        tokio::spawn(async move {
            let (reply, answer) = tokio::sync::oneshot::channel();
            let call = Box::new(move |daemon: &mut Daemon| {
                // Whoever asked may be gone by now.
                let _ = reply.send(daemon.core.is_synced());
            });
            let asked = sender.send(Message::Call(call)).await.is_ok();
            let ready = asked && answer.await.unwrap_or(false);
            health::answer_with(stream, if ready { "200 OK" } else { "503 Service Unavailable" }).await;
        });
    }
}

/// Removes connections and translations that are over.
async fn sweeps(sender: Sender) {
    let mut interval = tokio::time::interval(Duration::from_secs(30));
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut lost_before = 0;
    loop {
        interval.tick().await;
        let call = Box::new(move |daemon: &mut Daemon| {
            let uptime = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).map(Duration::from);
            let Ok(uptime) = uptime else { return };
            let maps = daemon.datapath.maps();
            let swept = maps.sweep_conntrack(uptime).and_then(|_| maps.sweep_nat(uptime, Duration::from_secs(8000)));
            if let Err(error) = swept {
                tracing::warn!(%error, "sweep of connections failed");
            }
            let (_, lost, _) = daemon.event_counts();
            if let Some(hubble) = &daemon.hubble {
                hubble.push_lost(LostEventSource::PerfEventRingBuffer, lost.saturating_sub(lost_before));
            }
            lost_before = lost;
        });
        if sender.send(Message::Call(call)).await.is_err() {
            return;
        }
    }
}

/// Deletions that the plugin queued while the agent was away; once more for those that came while it was starting.
async fn replay_deletions(folder: std::path::PathBuf, sender: Sender) {
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

fn own_object(daemon: &Daemon, node: &Node, health: &[IpAddr]) -> crds::CiliumNode {
    let facts = daemon.core.facts();
    let of = |kind: &str, address: &IpAddr| crds::NodeAddress {
        address_type: Some(kind.into()),
        ip: Some(address.to_string()),
    };
    let internal = node.addresses.iter().map(|a| of("InternalIP", a));
    let first = |v4: bool| health.iter().find(|a| a.is_ipv4() == v4).map(IpAddr::to_string);
    crds::CiliumNode {
        api_version: crds::CiliumNode::default_api_version(),
        kind: crds::CiliumNode::default_kind(),
        metadata: ObjectMeta {
            name: Some(facts.node.clone()),
            labels: Some(node.labels.clone()),
            ..ObjectMeta::default()
        },
        spec: crds::CiliumNodeSpec {
            addresses: internal.chain(facts.routers.iter().map(|a| of("CiliumInternalIP", a))).collect(),
            health: (!health.is_empty()).then(|| crds::HealthAddressing { ipv4: first(true), ipv6: first(false) }),
            ipam: Some(crds::IpamSpec { pod_cidrs: node.pod_networks.iter().map(ToString::to_string).collect() }),
            ..crds::CiliumNodeSpec::default()
        },
        status: None,
    }
}

async fn publish_node(cluster: Cluster, name: String, mut object: crds::CiliumNode) {
    loop {
        // The object goes when its node goes.
        if let Ok(Some(node)) = cluster.node(&name).await {
            let owner = OwnerReference {
                api_version: "v1".into(),
                kind: "Node".into(),
                name: name.clone(),
                uid: node.metadata.uid.unwrap_or_default(),
                ..OwnerReference::default()
            };
            object.metadata.owner_references = Some(vec![owner]);
        }
        match cluster.publish_node(&object).await {
            Ok(()) => return,
            Err(error) => {
                tracing::warn!(error = cluster::brief(&error), "the own CiliumNode cannot be written, trying again")
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
