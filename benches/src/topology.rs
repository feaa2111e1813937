//! Between what do packets go? Two pods and their node, each a network namespace without a name, which ends with the
//! process that made it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use ipnet::IpNet;
use netlink::{Mac, Namespace, Netlink, Route, Veth, write_sysctl};

/// The pods' gateway; no device has the address, the pods know the Ethernet address to send to.
pub const ROUTER4: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 254);
/// As [`ROUTER4`].
pub const ROUTER6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, 0xfe);

/// A pod.
pub struct Pod {
    /// Its network namespace.
    pub namespace: Namespace,
    /// Its addresses.
    pub v4: Ipv4Addr,
    /// See `v4`.
    pub v6: Ipv6Addr,
    /// Its end of the veth.
    pub mac: Mac,
    /// The node's end of the veth.
    pub node_mac: Mac,
    /// Name of the node's end.
    pub device: String,
    /// Number of the node's end, in the node's namespace.
    pub ifindex: u32,
}

/// A node with two pods.
pub struct Topology {
    /// The node's network namespace.
    pub node: Namespace,
    /// The pod that connects.
    pub client: Pod,
    /// The pod that answers.
    pub server: Pod,
}

impl Topology {
    /// Makes namespaces, devices, addresses and routes; the node forwards between the pods.
    pub fn create() -> Result<Topology> {
        let node = Namespace::anonymous()?;
        node.run(prepare_node)??;
        let (client, server) = (add_pod(&node, 1)?, add_pod(&node, 2)?);
        Ok(Topology { node, client, server })
    }
}

fn prepare_node() -> netlink::Result<()> {
    write_sysctl(&["net", "ipv4", "ip_forward"], "1")?;
    write_sysctl(&["net", "ipv6", "conf", "all", "forwarding"], "1")?;
    for which in ["all", "default"] {
        write_sysctl(&["net", "ipv4", "conf", which, "rp_filter"], "0")?;
        write_sysctl(&["net", "ipv6", "conf", which, "accept_dad"], "0")?;
    }
    Ok(())
}

fn prepare_pod() -> netlink::Result<()> {
    write_sysctl(&["net", "ipv6", "conf", "all", "accept_dad"], "0")?;
    write_sysctl(&["net", "ipv6", "conf", "default", "accept_dad"], "0")?;
    // Tens of thousands of connections are closed: none may wait for its port or learn from an earlier one.
    write_sysctl(&["net", "ipv4", "tcp_max_tw_buckets"], "0")?;
    write_sysctl(&["net", "ipv4", "tcp_no_metrics_save"], "1")
}

/// Makes pod `n` (1 to 253) of the node.
pub fn add_pod(node: &Namespace, n: u8) -> Result<Pod> {
    let namespace = Namespace::anonymous()?;
    namespace.run(prepare_pod)??;
    let mut pod = Pod {
        v4: Ipv4Addr::new(10, 244, 0, n),
        v6: Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, n.into()),
        mac: [0x02, 0, 0, 0, 1, n],
        node_mac: [0x02, 0, 0, 0, 2, n],
        device: format!("axbench{n}"),
        ifindex: 0,
        namespace,
    };
    pod.ifindex = node.run_async(|| node_side(&pod))??;
    pod.namespace.run_async(|| pod_side(&pod))??;
    Ok(pod)
}

async fn node_side(pod: &Pod) -> netlink::Result<u32> {
    let net = Netlink::open()?;
    let veth = Veth {
        name: pod.device.clone(),
        peer_name: "eth0".into(),
        peer_namespace: Some(pod.namespace.clone()),
        mac: Some(pod.node_mac),
        peer_mac: Some(pod.mac),
        mtu: None,
    };
    net.add_veth(&veth).await?;
    net.set_up(&pod.device).await?;
    let ifindex = net.link(&pod.device).await?.index;
    for address in [IpAddr::V4(pod.v4), IpAddr::V6(pod.v6)] {
        net.replace_route(&Route::new(IpNet::from(address), ifindex)).await?;
        net.replace_neighbour(&pod.device, address, pod.mac).await?;
    }
    Ok(ifindex)
}

async fn pod_side(pod: &Pod) -> netlink::Result<()> {
    let net = Netlink::open()?;
    net.set_up("lo").await?;
    net.set_up("eth0").await?;
    let ifindex = net.link("eth0").await?.index;
    let everywhere = [IpNet::from(IpAddr::from([0; 4])), IpNet::from(IpAddr::from([0; 16]))];
    let own = [IpAddr::V4(pod.v4), IpAddr::V6(pod.v6)];
    let routers = [IpAddr::V4(ROUTER4), IpAddr::V6(ROUTER6)];
    for ((everywhere, own), router) in everywhere.into_iter().zip(own).zip(routers) {
        net.add_address("eth0", IpNet::from(own)).await?;
        net.replace_route(&Route::new(IpNet::from(router), ifindex)).await?;
        let everywhere = IpNet::new_assert(everywhere.addr(), 0);
        net.replace_route(&Route::new(everywhere, ifindex).via(router)).await?;
        net.replace_neighbour("eth0", router, pod.node_mac).await?;
    }
    Ok(())
}
