//! What does the agent say of itself and of what it serves?

use agent_api::StatusResponse;

use crate::core::State;
use crate::daemon::Daemon;
use crate::pressure::Fill;

fn ok(msg: impl Into<String>) -> agent_api::Status {
    agent_api::Status { state: "Ok".into(), msg: msg.into() }
}

/// Everything that `cilium-dbg status` shows.
pub fn of(daemon: &mut Daemon) -> StatusResponse {
    let health = health(daemon);
    let facts = daemon.core.facts();
    let (sent, lost, read) = daemon.event_counts();
    let endpoints = daemon.core.endpoints().values();
    let ready = endpoints.clone().filter(|e| e.state == State::Ready).count();
    let flows = daemon.hubble.as_ref().map(hubble::Hubble::status).unwrap_or_default();
    let pool = |v4: bool| daemon.pools.iter().find(|p| p.network().addr().is_ipv4() == v4);
    let used = |pool: &crate::ipam::Pool, name: &str| {
        format!("{name}: {}/{} allocated from {}", pool.owners().len(), pool.size(), pool.network())
    };
    let parts = [pool(true).map(|p| used(p, "IPv4")), pool(false).map(|p| used(p, "IPv6"))];
    let owners = daemon.pools.iter().flat_map(|p| p.owners());
    StatusResponse {
        cilium: own(daemon),
        kubernetes: agent_api::KubernetesStatus {
            state: if daemon.reachable { "Ok" } else { "Failure" }.into(),
            msg: if daemon.reachable {
                daemon.api_version.clone()
            } else {
                "the API does not answer; the last known state holds".into()
            },
        },
        cni_file: match &daemon.settings.cni_conf {
            Some(path) if daemon.cni_written => {
                ok(format!("successfully wrote CNI configuration file to {}", path.display()))
            }
            Some(_) => agent_api::Status { state: "Warning".into(), msg: "not written yet".into() },
            None => agent_api::Status { state: "Disabled".into(), msg: String::new() },
        },
        cilium_health: health,
        hubble: agent_api::HubbleStatus {
            state: if daemon.hubble.is_some() { "Ok" } else { "Disabled" }.into(),
            current_flows: flows.num_flows,
            max_flows: flows.max_flows,
            seen_flows: flows.seen_flows,
            flows_per_second: flows.flows_rate,
        },
        ipam: agent_api::IpamStatus {
            status: parts.into_iter().flatten().collect::<Vec<_>>().join(", ") + ", ",
            allocations: owners.map(|(address, owner)| (address.to_string(), owner.clone())).collect(),
        },
        routing: "Network: Tunnel [vxlan]   Host: BPF".into(),
        kube_proxy_replacement: daemon.settings.kube_proxy_replacement.to_string(),
        devices: vec![format!(
            "{}  {}",
            daemon.devices.uplink.name,
            facts.node_addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        )],
        masquerading: agent_api::MasqueradeStatus {
            ipv4: daemon.settings.ipv4 && daemon.settings.masquerade4,
            ipv6: daemon.settings.ipv6 && daemon.settings.masquerade6,
            exclusion_cidr: pool(true).map(|p| p.network().to_string()).unwrap_or_default(),
        },
        monitor: agent_api::MonitorStatus {
            cpus: std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1)),
            npages: u64::from(bpf::Sizes::default().event_bytes) / 4096,
            pagesize: 4096,
            sent,
            lost,
            read,
        },
        endpoints: [u32::try_from(endpoints.count()).unwrap_or(u32::MAX), u32::try_from(ready).unwrap_or(u32::MAX)],
        nodes: daemon.core.describe_nodes(),
        attach_mode: daemon.datapath.attachment().name().into(),
        version: version(),
        k8s_api_versions: vec![
            "EndpointSliceOrEndpoint".into(),
            "cilium/v2::CiliumClusterwideNetworkPolicy".into(),
            "cilium/v2::CiliumEndpoint".into(),
            "cilium/v2::CiliumNetworkPolicy".into(),
            "cilium/v2::CiliumNode".into(),
            "cilium/v2alpha1::CiliumCIDRGroup".into(),
            "core/v1::Namespace".into(),
            "core/v1::Pods".into(),
            "core/v1::Service".into(),
            "networking.k8s.io/v1::NetworkPolicy".into(),
        ],
        policy_revision: daemon.core.engine().revision(),
        policies: policies(daemon),
        proxy: proxy(daemon),
        tables: daemon.pressure.tables().map(|(name, fill)| table(daemon, name, fill)).collect(),
    }
}

/// The agent as a whole.
fn own(daemon: &Daemon) -> agent_api::Status {
    let warning = |msg: String| agent_api::Status { state: "Warning".into(), msg };
    let locked = daemon.core.locked();
    if !daemon.core.is_synced() {
        warning("the cluster is not known yet".into())
    } else if let Some((identity, why)) = locked.first_key_value() {
        let more = if locked.len() == 1 { String::new() } else { format!(" and {} more", locked.len() - 1) };
        warning(format!("endpoints of identity {identity}{more} are locked down: {why}"))
    } else {
        ok(version())
    }
}

fn health(daemon: &mut Daemon) -> agent_api::Status {
    match daemon.health.as_mut().map(crate::health::Health::is_alive) {
        Some(true) => ok(""),
        Some(false) => agent_api::Status { state: "Failure".into(), msg: "the responder has ended".into() },
        None => agent_api::Status { state: "Disabled".into(), msg: String::new() },
    }
}

fn proxy(daemon: &Daemon) -> agent_api::ProxyStatus {
    let Some(proxy) = &daemon.proxy else {
        return agent_api::ProxyStatus { state: "Disabled".into(), ..Default::default() };
    };
    let range = &daemon.settings.proxy_ports;
    let router = daemon.core.facts().routers.first();
    let redirects = crate::redirects::all(daemon);
    agent_api::ProxyStatus {
        state: if proxy.is_there() { "Ok" } else { "Warning" }.into(),
        ip: router.map(ToString::to_string).unwrap_or_default(),
        port_range: format!("{}-{}", range.start(), range.end()),
        total_redirects: u32::try_from(redirects.len()).unwrap_or(u32::MAX),
        redirects,
        missing: proxy.missing().into_iter().map(str::to_owned).collect(),
    }
}

fn policies(daemon: &Daemon) -> agent_api::PolicyTables {
    let (used, most) = daemon.core.policy_slots();
    agent_api::PolicyTables { used, most, locked: daemon.core.locked().clone() }
}

fn table(daemon: &Daemon, name: &str, fill: Fill) -> agent_api::TableFill {
    let nearly_full = daemon.pressure.nearly_full().any(|(full, _)| full == name);
    agent_api::TableFill { name: name.into(), entries: fill.entries, most: fill.most, nearly_full }
}

/// The version of this agent.
pub fn version() -> String {
    format!("{} (axoneme)", env!("CARGO_PKG_VERSION"))
}
