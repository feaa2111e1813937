//! What does an agent tell the datapath of a node with two pods? The same is told here.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

use abi::config::{self, NodeConfig};
use abi::endpoint::{Endpoint, EndpointPolicy, MODE_EGRESS, MODE_INGRESS};
use abi::identity::Identity;
use abi::ipcache::{IpcacheKey, RemoteEndpoint};
use abi::{Mac, V4, V6};
use anyhow::{Context, Result};
use bpf::{Datapath, Options, Sizes};

use crate::policies;
use crate::supervisor::BPFFS;
use crate::topology::{Pod, ROUTER4, ROUTER6, Topology};

/// Identity of the pod that connects, which is also its endpoint number.
pub const CLIENT: Identity = 1001;
/// The same of the pod that answers.
pub const SERVER: Identity = 1002;

/// Identity of a pod of another node.
pub const REMOTE: Identity = 1003;
/// A tunnel that no packet is sent into.
const TUNNEL: u32 = 1;

/// The datapath of one node.
pub struct Node {
    /// The programs and their maps.
    pub datapath: Datapath,
    revision: u32,
}

impl Node {
    /// Loads the programs, with maps of their own under this name. Slot `i + 1` gets a policy of `policies[i]` entries.
    pub fn open(name: &str, sizes: Sizes, events: bool, policies: &[usize]) -> Result<Node> {
        let options = Options { sizes, ..Options::new(Path::new(BPFFS).join(name)) };
        let datapath = Datapath::open(&options).with_context(|| format!("load the datapath {name}"))?;
        datapath.set_config(&configuration(events))?;
        for (slot, entries) in (1..).zip(policies) {
            let tables = policies::tables(*entries, &[CLIENT, SERVER, REMOTE]);
            datapath.maps().policy.create(slot, &tables.classes, &tables.verdicts)?;
        }
        Ok(Node { datapath, revision: 0 })
    }

    /// Makes the pods endpoints and lets the policy in this slot rule both.
    pub fn add_pods(&mut self, topology: &Topology, slot: u32) -> Result<()> {
        self.rule(slot)?;
        self.add_endpoint(&topology.client, CLIENT)?;
        self.add_endpoint(&topology.server, SERVER)
    }

    /// Lets the policy in this slot rule both pods from now on.
    pub fn rule(&mut self, slot: u32) -> Result<()> {
        self.revision += 1;
        let policy = EndpointPolicy { slot, revision_and_modes: self.revision | MODE_INGRESS | MODE_EGRESS };
        for endpoint in [CLIENT, SERVER] {
            self.datapath.maps().ep_policy.insert(&endpoint, &policy)?;
        }
        Ok(())
    }

    /// Everything about an endpoint but its policy.
    pub fn add_endpoint(&self, pod: &Pod, identity: Identity) -> Result<()> {
        let endpoint = Endpoint {
            ifindex: pod.ifindex,
            id: identity,
            identity,
            flags: 0,
            mac: Mac(pod.mac),
            node_mac: Mac(pod.node_mac),
            pad: 0,
        };
        let maps = self.datapath.maps();
        self.set_address(pod.v4, pod.v6, RemoteEndpoint { identity, ..RemoteEndpoint::default() })?;
        maps.lxc4.insert(&pod.v4.into(), &endpoint)?;
        maps.lxc6.insert(&pod.v6.into(), &endpoint)?;
        Ok(maps.devices.insert(&pod.ifindex, &endpoint)?)
    }

    /// Tells whose an address is.
    pub fn set_address(&self, v4: Ipv4Addr, v6: Ipv6Addr, remote: RemoteEndpoint) -> Result<()> {
        let maps = self.datapath.maps();
        maps.ipcache4.insert(&IpcacheKey { prefix_len: 32, addr: v4.into() }, &remote)?;
        Ok(maps.ipcache6.insert(&IpcacheKey { prefix_len: 128, addr: v6.into() }, &remote)?)
    }

    /// Makes the pod of another node known.
    pub fn add_remote(&self) -> Result<()> {
        let tunnel_endpoint = Ipv4Addr::new(172, 18, 0, 3).into();
        let (v4, v6) = remote_addresses();
        self.set_address(v4, v6, RemoteEndpoint { identity: REMOTE, tunnel_endpoint, flags: 0 })
    }

    /// Fills the IP cache with pods of other nodes, for each family.
    pub fn fill_ipcache(&self, count: u32) -> Result<()> {
        let remote = |i: u32| RemoteEndpoint {
            identity: policies::FIRST_PEER + i % 60_000,
            tunnel_endpoint: Ipv4Addr::new(172, 18, 1, (i % 200) as u8 + 1).into(),
            flags: 0,
        };
        let v4: Vec<_> = (0..count).map(|i| (IpcacheKey { prefix_len: 32, addr: address4(i) }, remote(i))).collect();
        let v6: Vec<_> = (0..count).map(|i| (IpcacheKey { prefix_len: 128, addr: address6(i) }, remote(i))).collect();
        self.datapath.maps().ipcache4.insert_all(&v4)?;
        Ok(self.datapath.maps().ipcache6.insert_all(&v6)?)
    }

    /// Attaches to the pods' devices.
    pub fn attach(&self, topology: &Topology) -> Result<()> {
        topology.node.run(|| {
            self.datapath.attach_container(topology.client.ifindex)?;
            self.datapath.attach_container(topology.server.ifindex)
        })??;
        Ok(())
    }
}

/// Maps for a node on which nothing is connected and nobody asks for services.
pub fn small() -> Sizes {
    Sizes { conntrack: 1024, nat: 1024, services: 1024, event_bytes: 1 << 16, ..Sizes::default() }
}

/// Address of pod `i` of another node: one of 2^22 in 10.64.0.0/10, scattered as a cluster's blocks are.
pub fn address4(i: u32) -> V4 {
    Ipv4Addr::from_bits(0x0a40_0000 | scattered(i)).into()
}

/// As [`address4`], in fd00:10:245::/48.
pub fn address6(i: u32) -> V6 {
    let bits = scattered(i);
    let (node, pod) = ((bits >> 8) as u16, (bits & 0xff) as u16);
    Ipv6Addr::new(0xfd00, 0x10, 0x245, node, 0, 0, 0, pod).into()
}

/// Addresses of the pod [`REMOTE`], amid the others.
pub fn remote_addresses() -> (Ipv4Addr, Ipv6Addr) {
    let unused = 3_000_000;
    (address4(unused).into(), address6(unused).into())
}

/// A bijection of 22 bits.
fn scattered(i: u32) -> u32 {
    i.wrapping_mul(0x9e37_79b1) & 0x003f_ffff
}

fn configuration(events: bool) -> NodeConfig {
    let told = config::FLAG_POLICY_VERDICT_EVENTS | config::FLAG_DROP_EVENTS | config::FLAG_TRACE_EVENTS;
    NodeConfig {
        flags: config::FLAG_IPV4 | config::FLAG_IPV6 | if events { told } else { 0 },
        router4: ROUTER4.into(),
        router6: ROUTER6.into(),
        node4: Ipv4Addr::new(172, 18, 0, 2).into(),
        node6: Ipv6Addr::new(0xfc00, 0xf853, 0xccd, 0xe793, 0, 0, 0, 2).into(),
        tunnel_ifindex: TUNNEL,
        nat_min_port: 32768,
        nat_max_port: 65535,
        monitor_aggregation: 3,
        native_cidr4: Ipv4Addr::new(10, 244, 0, 0).into(),
        native_cidr4_len: 16,
        native_cidr6: Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, 0).into(),
        native_cidr6_len: 56,
        ..NodeConfig::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_two_addresses_are_the_same_and_none_is_a_pods() {
        let all: HashSet<_> = (0..200_000).map(|i| (address4(i), address6(i))).collect();
        assert_eq!(all.len(), 200_000);
        assert!(all.iter().all(|(v4, _)| (64..128).contains(&v4.octets()[1])));
        let narrow: HashSet<_> = all.iter().map(|(_, v6)| v6.octets()).collect();
        assert_eq!(narrow.len(), 200_000);
    }
}
