//! Which devices, addresses and routes does a node need, and how do they come to be?

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use netlink::{Link, Netlink, Route, Rule, Veth, Vxlan, write_sysctl};

use crate::config::Settings;
use crate::objects::Node;

/// Bytes that a tunnel adds to each packet.
pub const TUNNEL_OVERHEAD: u32 = 50;

const HOST: &str = "cilium_host";
const NET: &str = "cilium_net";
const TUNNEL: &str = "cilium_vxlan";

/// The node's devices.
#[derive(Clone, Debug)]
pub struct Devices {
    /// `cilium_host`: the way from the node to its pods.
    pub host: Link,
    /// Its other end.
    pub net: Link,
    /// The tunnels.
    pub tunnel: Link,
    /// The way out of the node.
    pub uplink: Link,
    /// The uplink's largest packet.
    pub mtu: u32,
    /// Addresses of the node itself.
    pub addresses: Vec<IpAddr>,
}

/// Addresses of `cilium_host` that an earlier run left.
pub async fn routers(netlink: &Netlink) -> netlink::Result<Vec<IpAddr>> {
    match netlink.find_link(HOST).await? {
        None => Ok(Vec::new()),
        Some(_) => Ok(netlink.addresses(HOST).await?.iter().map(IpNet::addr).filter(is_global).collect()),
    }
}

fn is_global(address: &IpAddr) -> bool {
    !matches!(address, IpAddr::V6(a) if a.is_unicast_link_local())
}

/// Makes what is missing; what is there already stays.
pub async fn set_up(netlink: &Netlink, settings: &Settings, routers: &[IpAddr]) -> netlink::Result<Devices> {
    let uplink = uplink(netlink, settings).await?;
    let mtu = settings.mtu.unwrap_or(uplink.mtu);
    if netlink.find_link(HOST).await?.is_none() {
        netlink.delete_link(NET).await?;
        netlink.add_veth(&Veth { name: HOST.into(), peer_name: NET.into(), mtu: Some(mtu), ..Veth::default() }).await?;
    }
    if netlink.find_link(TUNNEL).await?.is_none() {
        let vxlan = Vxlan { name: TUNNEL.into(), port: settings.tunnel_port, mac: None, mtu: Some(mtu) };
        netlink.add_vxlan(&vxlan).await?;
    }
    prepare_kernel(settings, &uplink.name)?;
    for ipv6 in [false, true].into_iter().filter(|ipv6| if *ipv6 { settings.ipv6 } else { settings.ipv4 }) {
        redirected(netlink, ipv6, settings.l7_proxy).await?;
    }
    // Neighbours are not asked for: the programs know where every pod is.
    for device in [HOST, NET] {
        netlink.set_no_arp(device).await?;
    }
    for device in [HOST, NET, TUNNEL] {
        netlink.set_up(device).await?;
    }
    for router in routers {
        netlink.add_address(HOST, IpNet::from(*router)).await?;
    }
    let addresses = node_addresses(netlink, &uplink).await?;
    Ok(Devices {
        host: netlink.link(HOST).await?,
        net: netlink.link(NET).await?,
        tunnel: netlink.link(TUNNEL).await?,
        uplink,
        mtu,
        addresses,
    })
}

/// The table in which all is the node's, and the rule for whom it counts. The numbers are Cilium's.
const TO_PROXY_TABLE: u32 = 2004;
const TO_PROXY_PRIORITY: u32 = 9;

/// What the programs mark for the proxy is the node's, whatever its address.
async fn redirected(netlink: &Netlink, ipv6: bool, on: bool) -> netlink::Result<()> {
    let mark = Some((abi::proxy::MARK_TO_PROXY, abi::proxy::MARK_MASK));
    let rule = Rule { ipv6, priority: TO_PROXY_PRIORITY, table: TO_PROXY_TABLE, mark, source: None };
    if !on {
        return netlink.delete_rule(&rule).await;
    }
    netlink.take_everything(ipv6, TO_PROXY_TABLE).await?;
    netlink.add_rule(&rule).await
}

async fn uplink(netlink: &Netlink, settings: &Settings) -> netlink::Result<Link> {
    if let Some(name) = settings.device.as_deref().filter(|name| !name.contains('+')) {
        return netlink.link(name).await;
    }
    let routes = netlink.routes().await?;
    let default = routes.iter().find(|route| route.destination.prefix_len() == 0 && route.gateway.is_some());
    let default = default.or_else(|| routes.iter().find(|route| route.destination.prefix_len() == 0));
    let index = default.map(|route| route.device).unwrap_or_default();
    let found = netlink.find_link_by_index(index).await?;
    found.ok_or_else(|| netlink::Error::NoDevice("of a default route; name one with --devices".into()))
}

async fn node_addresses(netlink: &Netlink, uplink: &Link) -> netlink::Result<Vec<IpAddr>> {
    Ok(netlink.addresses(&uplink.name).await?.iter().map(IpNet::addr).filter(is_global).collect())
}

fn prepare_kernel(settings: &Settings, uplink: &str) -> netlink::Result<()> {
    write_sysctl(&["net", "ipv4", "ip_forward"], "1")?;
    for device in ["all", HOST, NET, TUNNEL] {
        write_sysctl(&["net", "ipv4", "conf", device, "rp_filter"], "0")?;
    }
    // what the node itself sends to the proxy in a pod's place comes in again there
    write_sysctl(&["net", "ipv4", "conf", NET, "accept_local"], "1")?;
    for device in [HOST, NET, TUNNEL] {
        write_sysctl(&["net", "ipv4", "conf", device, "forwarding"], "1")?;
        write_sysctl(&["net", "ipv4", "conf", device, "send_redirects"], "0")?;
    }
    if !std::path::Path::new("/proc/sys/net/ipv6").exists() {
        return Ok(());
    }
    let off = if settings.ipv6 { "0" } else { "1" };
    for device in [HOST, NET, TUNNEL] {
        write_sysctl(&["net", "ipv6", "conf", device, "disable_ipv6"], off)?;
    }
    if settings.ipv6 {
        // A node that forwards still learns its own routes from its router.
        let _ = write_sysctl(&["net", "ipv6", "conf", uplink, "accept_ra"], "2");
        write_sysctl(&["net", "ipv6", "conf", "all", "forwarding"], "1")?;
    }
    Ok(())
}

/// The routes to pods: of this node and, smaller, of others.
pub fn pod_routes(
    devices: &Devices,
    own: &[IpNet],
    routers: &[IpAddr],
    nodes: &BTreeMap<String, Node>,
    own_name: &str,
) -> Vec<Route> {
    let source = |net: &IpNet| routers.iter().copied().find(|r| r.is_ipv4() == net.addr().is_ipv4());
    let route = |net: &IpNet, mtu| Route { source: source(net), mtu, ..Route::new(*net, devices.host.index) };
    let on = |net: &&IpNet| source(net).is_some();
    let local = own.iter().filter(on).map(|net| route(net, None));
    let others = nodes.iter().filter(|(name, _)| *name != own_name).flat_map(|(_, node)| &node.pod_networks);
    let tunnel_mtu = Some(devices.mtu.saturating_sub(TUNNEL_OVERHEAD));
    local.chain(others.filter(on).map(|net| route(net, tunnel_mtu))).collect()
}

/// Makes the routes of `cilium_host` these.
pub async fn write_routes(netlink: &Netlink, devices: &Devices, wanted: &[Route]) -> netlink::Result<()> {
    let present = netlink.routes().await?;
    let main = |route: &&Route| route.device == devices.host.index && route.table == 254;
    let wanted_nets: BTreeSet<IpNet> = wanted.iter().map(|route| route.destination).collect();
    for route in present.iter().filter(main) {
        let own = route.destination.prefix_len() == route.destination.max_prefix_len();
        let link_local = !is_global(&route.destination.addr());
        if !own && !link_local && !wanted_nets.contains(&route.destination) {
            netlink.delete_route(route).await?;
        }
    }
    for route in wanted {
        netlink.replace_route(route).await?;
    }
    Ok(())
}
