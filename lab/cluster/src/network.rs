//! How are the outside world and the nodes wired?

use crate::plan::{Node, WORLD, WORLD6};
use anyhow::{Context, Result};
use ipnet::IpNet;
use netlink::{Namespace, Netlink, Route, Veth};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};
use std::net::IpAddr;
use std::os::fd::AsRawFd;

/// The network of a lab.
#[derive(Debug)]
pub struct Network {
    /// The outside world's namespace.
    pub world: Namespace,
    /// The nodes' namespaces, in the order of the plan.
    pub nodes: Vec<Namespace>,
}

/// The bridge between nodes and world.
const BRIDGE: &str = "world";

/// Makes all namespaces and links. Must run inside a tokio runtime.
pub async fn build(nodes: &[Node], ipv6: bool) -> Result<Network> {
    let world = Namespace::anonymous()?;
    world.run(|| settings(&WORLD_SETTINGS))??;
    let link = Netlink::open_in(&world)?;
    link.set_up("lo").await?;
    link.add_bridge(BRIDGE).await?;
    link.add_address(BRIDGE, IpNet::new(IpAddr::V4(WORLD), 16)?).await?;
    if ipv6 {
        link.add_address(BRIDGE, IpNet::new(IpAddr::V6(WORLD6), 64)?).await?;
    }
    link.set_up(BRIDGE).await?;
    world.run(|| answer_for_everything(ipv6))??;
    let mut made = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        made.push(attach(&link, index, node).await.with_context(|| format!("network of {}", node.name))?);
    }
    Ok(Network { world, nodes: made })
}

async fn attach(world: &Netlink, index: usize, node: &Node) -> Result<Namespace> {
    let namespace = Namespace::anonymous()?;
    namespace.run(|| settings(&NODE_SETTINGS))??;
    let port = format!("node{index}");
    let veth = Veth {
        name: port.clone(),
        peer_name: "eth0".into(),
        peer_namespace: Some(namespace.clone()),
        ..Veth::default()
    };
    world.add_veth(&veth).await?;
    world.set_master(&port, BRIDGE).await?;
    world.set_up(&port).await?;
    let own = Netlink::open_in(&namespace)?;
    own.set_up("lo").await?;
    for address in &node.addresses {
        let length = if address.is_ipv4() { 16 } else { 64 };
        own.add_address("eth0", IpNet::new(*address, length)?).await?;
    }
    own.set_up("eth0").await?;
    let device = own.link("eth0").await?.index;
    for address in &node.addresses {
        let (anywhere, gateway) = match address {
            IpAddr::V4(_) => ("0.0.0.0/0".parse()?, IpAddr::V4(WORLD)),
            IpAddr::V6(_) => ("::/0".parse()?, IpAddr::V6(WORLD6)),
        };
        own.replace_route(&Route::new(anywhere, device).via(gateway)).await?;
    }
    Ok(namespace)
}

/// Settings of a namespace: names below `/proc/sys/net`.
type Settings = [(&'static str, &'static str)];

const WORLD_SETTINGS: [(&str, &str); 4] = [
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv6/conf/all/accept_dad", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
];

const NODE_SETTINGS: [(&str, &str); 8] = [
    ("ipv4/ip_forward", "1"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv6/conf/all/forwarding", "1"),
    ("ipv6/conf/all/accept_dad", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/all/accept_ra", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
];

/// Writes settings of the calling thread's network namespace; a kernel without IPv6 has no such files.
fn settings(all: &Settings) -> Result<()> {
    for (name, value) in all {
        let path = format!("/proc/sys/net/{name}");
        match std::fs::write(&path, value) {
            Err(e) if name.starts_with("ipv6") && e.kind() == std::io::ErrorKind::NotFound => {}
            other => other.with_context(|| format!("write {value} to {path}"))?,
        }
    }
    Ok(())
}

/// Every address that no more specific route knows is the world's own: its servers answer for all of them.
fn answer_for_everything(ipv6: bool) -> Result<()> {
    local_default(libc::AF_INET as u8).context("make every IPv4 address the world's")?;
    if ipv6 {
        local_default(libc::AF_INET6 as u8).context("make every IPv6 address the world's")?;
    }
    Ok(())
}

fn local_default(family: u8) -> Result<()> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
    send(socket.as_raw_fd(), &local_route(family), MsgFlags::empty())?;
    let mut answer = [0u8; 256];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    let code = answer
        .get(16..20)
        .filter(|_| length >= 20)
        .map_or(-libc::EPROTO, |b| i32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
    if code == 0 { Ok(()) } else { Err(std::io::Error::from_raw_os_error(-code).into()) }
}

/// `RTM_NEWROUTE`: local, length 0, main table (below what is on the link), by `lo`.
fn local_route(family: u8) -> Vec<u8> {
    const LO: u32 = 1;
    const LENGTH: u32 = 16 + 12 + 8;
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_REPLACE) as u16;
    let mut message = Vec::with_capacity(LENGTH as usize);
    message.extend_from_slice(&LENGTH.to_ne_bytes());
    message.extend_from_slice(&libc::RTM_NEWROUTE.to_ne_bytes());
    message.extend_from_slice(&flags.to_ne_bytes());
    message.extend_from_slice(&1u32.to_ne_bytes());
    message.extend_from_slice(&0u32.to_ne_bytes());
    message.extend_from_slice(&[family, 0, 0, 0, libc::RT_TABLE_MAIN, libc::RTPROT_STATIC, libc::RT_SCOPE_HOST]);
    message.push(libc::RTN_LOCAL);
    message.extend_from_slice(&0u32.to_ne_bytes());
    message.extend_from_slice(&8u16.to_ne_bytes());
    message.extend_from_slice(&libc::RTA_OIF.to_ne_bytes());
    message.extend_from_slice(&LO.to_ne_bytes());
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_route_message_has_the_length_that_it_says() {
        let message = local_route(libc::AF_INET as u8);
        assert_eq!(message.len(), 36);
        assert_eq!(&message[..4], 36u32.to_ne_bytes());
    }
}
