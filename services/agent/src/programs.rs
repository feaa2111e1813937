//! What are the kernel's programs told of this node?

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use abi::config as node_config;
use anyhow::{Context, Result};
use bpf::{Datapath, Options, Sizes};
use ipnet::IpNet;

use crate::config::Settings;
use crate::ipam::Pool;
use crate::network::Devices;

/// How many entries the tables take.
pub fn sizes(settings: &Settings) -> Sizes {
    let usual = Sizes::default();
    Sizes {
        conntrack: settings.conntrack_entries.unwrap_or(usual.conntrack),
        nat: settings.nat_entries.unwrap_or(usual.nat),
        policy_entries: settings.policy_entries.unwrap_or(usual.policy_entries),
        services: settings.service_entries.unwrap_or(usual.services),
        ..usual
    }
}

/// Loads the programs, or takes over those that run, and gives them their settings.
pub fn datapath(settings: &Settings, devices: &Devices, pools: &[Pool], routers: &[IpAddr]) -> Result<Datapath> {
    let options = Options {
        sizes: sizes(settings),
        attachment: settings.attachment,
        ..Options::new(settings.bpf_root.join("tc/globals"))
    };
    let datapath = Datapath::open(&options).context("load the datapath")?;
    if let Some(group) = settings.proxy_group {
        bpf::let_group_in(datapath.pin_dir(), group)?;
    }
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
