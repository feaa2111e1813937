//! Does the datapath take every packet, whatever it holds?

use abi::config::NodeConfig;
use abi::endpoint::Endpoint;
use abi::{V4, V6};
use pipeline::native::{Hook, Input, Node, run as pass};
use std::net::{Ipv4Addr, Ipv6Addr};
use wire::View;

/// A pod's interface and addresses; the corpus has packets from and to it.
const POD: u32 = 11;
const POD4: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 11);
const POD6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 1, 11);

/// A packet, through the views that tests use and through every hook of a node.
pub fn run(data: &[u8]) {
    if let Some(view) = View::new(data) {
        let _ = (view.macs(), view.ether_type(), view.ip(), view.layer4(), view.checksums_hold());
    }
    let node = node();
    let hooks = [
        Hook::Container,
        Hook::Overlay(256, V4::from(POD4)),
        Hook::Host,
        Hook::Forwarded(2),
        Hook::Netdev,
        Hook::ToNetdev,
    ];
    for (now, hook) in (1..).zip(hooks) {
        let ifindex = if hook == Hook::Container { POD } else { 2 };
        let outcome = pass(&node, &Input { hook, ifindex, packet: data, now, seed: 7 });
        assert!(outcome.packet.len() <= data.len() + 64, "a packet of {} bytes grew", data.len());
    }
}

fn node() -> Node {
    let mut node = Node::with_places(16);
    let own =
        NodeConfig { tunnel_ifindex: 5, host_ifindex: 3, net_ifindex: 4, uplink_ifindex: 2, ..NodeConfig::default() };
    node.config = Some(own);
    let endpoint = Endpoint { ifindex: POD, id: 101, identity: 256, ..Endpoint::default() };
    node.devices.insert(POD, endpoint);
    node.v4.endpoints.insert(V4::from(POD4), endpoint);
    node.v6.endpoints.insert(V6::from(POD6), endpoint);
    node
}
