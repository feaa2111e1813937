//! Where on the network is somebody of a generated world?

use abi::V4;
use bpf::Hook;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A place from where, or to where, packets go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seat {
    /// A pod of this node, with this identity.
    Pod(u32),
    /// A pod of another node, reached without a tunnel.
    Flat(u32),
    /// A pod of another node, behind the tunnel.
    Tunnelled(u32),
    /// The node itself.
    Host,
    /// Somebody with a reserved identity, or another node.
    Reserved(u32),
    /// An address outside of the cluster.
    Outside(IpAddr),
    /// An address that no policy and no table knows.
    Nobody,
}

impl Seat {
    /// Where somebody with this identity is.
    pub fn of(identity: u32) -> Vec<Seat> {
        match identity {
            abi::identity::HOST => vec![Seat::Host],
            // Nodes with identities of their own are where those without are.
            other if !(256..abi::identity::LOCAL_REMOTE_NODE).contains(&other) => vec![Seat::Reserved(other)],
            workload => vec![Seat::Pod(workload), Seat::Flat(workload), Seat::Tunnelled(workload)],
        }
    }

    /// The address. None is in a prefix that policies name, but for those outside.
    pub fn ip(self, version: u8) -> IpAddr {
        let (net, host) = match self {
            Seat::Outside(ip) => return ip,
            Seat::Host => (0, 1),
            Seat::Pod(identity) => (1, number(identity)),
            Seat::Flat(identity) => (2, number(identity)),
            Seat::Tunnelled(identity) => (3, number(identity)),
            Seat::Reserved(identity) => (4, identity as u8),
            Seat::Nobody => (5, 1),
        };
        match version {
            4 => Ipv4Addr::new(172, 20, net, host).into(),
            _ => Ipv6Addr::new(0x2a00, 20, 0, 0, 0, 0, u16::from(net), u16::from(host)).into(),
        }
    }

    /// The node behind which it lies in the tunnel.
    pub fn node(self) -> Option<V4> {
        matches!(self, Seat::Tunnelled(_)).then(|| V4::from(Ipv4Addr::new(192, 168, 0, 2)))
    }

    /// Where its packets enter the node; nowhere, if they come by the tunnel, whose key no test run can have.
    pub fn hook(self) -> Option<Hook> {
        match self {
            Seat::Pod(_) => Some(Hook::FromContainer),
            Seat::Host => Some(Hook::FromHost),
            Seat::Flat(_) | Seat::Reserved(_) | Seat::Outside(_) | Seat::Nobody => Some(Hook::FromNetdev),
            Seat::Tunnelled(_) => None,
        }
    }
}

/// A small number for each workload of a generated world.
pub fn number(identity: u32) -> u8 {
    let elsewhere = if identity > 0xffff { 40 } else { 0 };
    2 + (identity % 32) as u8 + elsewhere
}
