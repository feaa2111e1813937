//! How does the agent come up: settings, addresses, devices, programs, what was there before, and then the tasks?

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::process::ExitCode;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, RwLock};

use anyhow::{Context, Result, bail};
use arc_swap::ArcSwap;
use netlink::Netlink;
use tokio::sync::{broadcast, mpsc, watch};

use crate::answers::Answers;
use crate::cluster::{self, Cluster};
use crate::config::{self, Settings};
use crate::core::{Core, EndpointRecord, Event, Facts, Found, Kind, SharedNames, View};
use crate::daemon::{Daemon, Message};
use crate::ipam::{Pool, Waiting};
use crate::network::{self, Devices};
use crate::objects::Node;
use crate::pressure::Pressure;
use crate::proxy::{Numbers, Observer, Ports, Proxy, Tally};
use crate::secrets::Secrets;
use crate::state::{LocalNumbers, StateDir};
use crate::{chores, engine, flows, health, kernel, own_node, programs, readiness};

/// The command `cilium-agent`.
pub fn main_with<I: IntoIterator<Item = String>>(arguments: I) -> ExitCode {
    let arguments: Vec<String> = arguments.into_iter().collect();
    if arguments.iter().any(|a| a == "--version") {
        println!("Axoneme {}", crate::status::version());
        return ExitCode::SUCCESS;
    }
    let environment = std::env::vars().collect();
    let result = settings(&arguments, &environment).and_then(|settings| {
        let parts = Parts::new(&settings)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(run(settings, parts))
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

/// What is made of settings and of what earlier runs left in the agent's folder.
pub struct Parts {
    engine: Box<dyn engine::Engine>,
    proxy: Option<Proxy>,
    numbers: Numbers,
}

impl Parts {
    /// As the settings say.
    pub fn new(settings: &Settings) -> Result<Parts> {
        let folder = &settings.state_dir;
        let numbers = Numbers::after_earlier_runs(folder, rand::random());
        let numbers = numbers.with_context(|| format!("reserve numbers of rule sets in {}", folder.display()))?;
        let ports = match settings.l7_proxy {
            true => Some(Ports::choose(folder, settings.proxy_ports.clone(), settings.dns_port)),
            false => None,
        };
        let ports = ports.transpose().map_err(anyhow::Error::msg)?;
        let engine = engine::repository(settings, ports, numbers.first()).map_err(anyhow::Error::msg)?;
        let secrets = Secrets::new(settings.secrets.clone(), settings.full_tls_context);
        let proxy = ports.map(|ports| Proxy::new(ports, settings.proxy.clone(), secrets, rand::random()));
        Ok(Parts { engine, proxy, numbers })
    }
}

/// Runs the agent until it is told to stop. Programs, maps, links and devices stay in place.
pub async fn run(settings: Settings, parts: Parts) -> Result<()> {
    let mut stop = Stop::new()?;
    tokio::select! {
        result = serve(settings, parts, stop.receiver.clone()) => result,
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

async fn serve(settings: Settings, parts: Parts, stop: watch::Receiver<bool>) -> Result<()> {
    let Parts { engine, mut proxy, numbers } = parts;
    let cluster = Cluster::new(cluster::client(&settings).await.map_err(anyhow::Error::msg)?);
    let node = own_node::own_node(&cluster, &settings).await;
    let netlink = Netlink::open()?;
    let (pools, routers) = pools(&netlink, &settings, &node).await?;
    let devices = network::set_up(&netlink, &settings, &routers).await?;
    let datapath = programs::datapath(&settings, &devices, &pools, &routers)?;
    let names: SharedNames = Arc::new(RwLock::new(fqdn::Cache::new(settings.names)));
    let facts = facts(&settings, &devices, &node, &routers, &names);
    let api_version = cluster.version().await.unwrap_or_default();

    let (sender, messages) = mpsc::channel(16_384);
    let (writer, to_write) = mpsc::unbounded_channel();
    let (flushed, seen) = watch::channel(0);
    let view = Arc::new(ArcSwap::from_pointee(View::default()));
    let events_read = Arc::new(AtomicU64::new(0));
    let hubble = flows::hubble(&settings, &devices, &node, &view, &names)?;
    let tally = Tally::default();
    let (monitors, _) = broadcast::channel(4096);
    if let Some(proxy) = &mut proxy {
        if datapath.maps().config()?.flags & abi::config::FLAG_PROXY != 0 {
            proxy.expect();
        }
        let directory = Box::new(flows::directory(&settings, &devices, &node, &view, &names));
        let observer = Observer::new(hubble.clone(), directory, tally.clone(), monitors.clone());
        let socket = settings.state_dir.join("proxy.sock");
        proxy
            .serve(&socket, settings.proxy_group, observer, learner(sender.clone()))
            .context("listen for the proxy")?;
        tokio::spawn(proxy.secrets().clone().follow(cluster.client().clone()));
        tokio::spawn(tell_of_secrets(proxy.secrets().clone(), sender.clone()));
    }
    let found = Found { numbers: state_numbers(&settings), ..kernel::found(datapath.maps())? };
    let core = Core::new(facts, engine, found);
    let reader = datapath.events()?;
    let mut daemon = Daemon {
        core,
        datapath,
        devices,
        pools,
        waiting: Waiting::default(),
        pod_networks: node.pod_networks.clone(),
        view,
        reachable: true,
        api_version,
        events_read: events_read.clone(),
        hubble: hubble.clone(),
        health: None,
        proxy,
        tally,
        numbers,
        offered: None,
        local_numbers: chores::save_numbers(settings.state_dir.clone()),
        learning: Vec::new(),
        names_may_go: false,
        pressure: Pressure::default(),
        losses_told: 0,
        clock: crate::clock::Clock::start(),
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
    let health_addresses = own_endpoints(&mut daemon, &netlink).await?;
    attach(&daemon)?;

    tokio::spawn(cluster::writer(cluster.clone(), to_write));
    tokio::spawn(flows::read_events(reader, hubble.clone(), monitors.clone(), events_read));
    flows::serve_hubble(&settings, hubble).await?;
    let answers = Arc::new(Answers::new(sender.clone(), seen, monitors));
    let socket = settings.socket.clone();
    tokio::spawn(async move {
        if let Err(error) = agent_api::serve(&socket, answers).await {
            tracing::error!(socket = %socket.display(), %error, "the API cannot be served");
        }
    });
    tokio::spawn(readiness::serve(settings.health_port, sender.clone()));
    tokio::spawn(chores::sweeps(sender.clone()));
    tokio::spawn(chores::save_names(names, settings.state_dir.clone()));
    tokio::spawn(chores::replay_deletions(settings.state_dir.join("deleteQueue"), sender.clone()));
    let object = own_node::own_object(&daemon, &node, &health_addresses);
    tokio::spawn(own_node::publish_node(cluster.clone(), settings.node.clone(), object));
    let (told, mut news) = mpsc::channel(4096);
    crate::watch::start(cluster.client(), &settings, &told);
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

/// The labels that an earlier run's identities of this node had.
fn state_numbers(settings: &Settings) -> LocalNumbers {
    StateDir::new(&settings.state_dir).load_numbers().unwrap_or_else(|error| {
        tracing::error!(%error, "remembered identities of this node cannot be read: they get other numbers");
        LocalNumbers::new()
    })
}

/// After each change of a Secret the daemon tells the proxy what rules ask now.
async fn tell_of_secrets(secrets: Secrets, sender: crate::daemon::Sender) {
    let mut changes = secrets.changes();
    while changes.changed().await.is_ok() {
        if sender.send(Message::Call(Box::new(|_| {}))).await.is_err() {
            return;
        }
    }
}

/// Answers of DNS go to the daemon with all else that happens; who waits is told when it has been done.
fn learner(sender: crate::daemon::Sender) -> crate::proxy::Learner {
    Arc::new(move |learned, held| {
        let proxy_api::Learned { number, endpoint, name, addresses, since_boot } = learned;
        let ttl = addresses.iter().map(|(_, ttl)| *ttl).min().unwrap_or(0);
        let addresses = addresses.into_iter().map(|(address, _)| address).collect();
        let answer = fqdn::Answer { name: policy::canonical_name(&name), addresses, ttl };
        let call = Box::new(move |daemon: &mut Daemon| {
            let now = daemon.clock.at(std::time::Duration::from_nanos(since_boot));
            daemon.core.handle(Event::Answered(endpoint, answer, now));
            daemon.learning.push((held, number));
        });
        if sender.try_send(Message::Call(call)).is_err() {
            tracing::warn!("an answer of DNS is not learned: the agent has too much to do");
        }
    })
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

fn facts(settings: &Settings, devices: &Devices, node: &Node, routers: &[IpAddr], names: &SharedNames) -> Facts {
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
        policy_slots: programs::sizes(settings).policy_slots,
        names: names.clone(),
    }
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
    match daemon.state.load_names() {
        Ok(names) => daemon.core.restore_names(names),
        Err(error) => tracing::error!(%error, "remembered names cannot be read: they must be asked for again"),
    }
    Ok(())
}

/// The node itself and its health endpoint.
async fn own_endpoints(daemon: &mut Daemon, netlink: &Netlink) -> Result<Vec<IpAddr>> {
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
        return Ok(Vec::new());
    }
    let addresses = daemon.allocate("health")?;
    let mtu = daemon.devices.mtu.saturating_sub(network::TUNNEL_OVERHEAD);
    let routers = daemon.core.facts().routers.clone();
    let (namespace, mut record) = health::devices(netlink, &addresses, &routers, mtu).await?;
    daemon.next_id = daemon.next_id.wrapping_add(1);
    record.id = daemon.core.free_endpoint_id(daemon.next_id).context("no endpoint number is free")?;
    daemon.datapath.attach_container(record.ifindex)?;
    daemon.core.add_endpoint(record);
    daemon.health = Some(health::open(netlink, namespace).await.context("start the health responder")?);
    Ok(addresses)
}

fn attach(daemon: &Daemon) -> Result<()> {
    let (datapath, devices) = (&daemon.datapath, &daemon.devices);
    datapath.remove_dead_links()?;
    datapath.attach_host(devices.host.index, devices.net.index)?;
    datapath.attach_overlay(devices.tunnel.index)?;
    datapath.attach_netdev(devices.uplink.index)?;
    if daemon.settings.kube_proxy_replacement {
        datapath.attach_sockets(&daemon.settings.cgroup_root).context("attach to the node's cgroup")?;
    }
    Ok(())
}
