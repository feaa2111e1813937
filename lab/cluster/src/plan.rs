//! Which nodes has a cluster, and which addresses have they?

use crate::options::Options;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The outside world, as the nodes' router and name server.
pub const WORLD: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 1);
/// The same in IPv6.
pub const WORLD6: Ipv6Addr = Ipv6Addr::new(0xfc00, 0xf853, 0xccd, 0xe793, 0, 0, 0, 1);
/// Cluster DNS.
pub const DNS: &str = "10.96.0.10";
/// Cluster DNS in IPv6.
pub const DNS6: &str = "fd00:10:96::a";
/// Domain of the cluster.
pub const DOMAIN: &str = "cluster.local";
/// Port of the API server on the control plane.
pub const API_PORT: u16 = 6443;

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its addresses, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// Its pods' ranges, IPv4 first.
    pub pod_cidrs: Vec<String>,
    /// Labels beside the usual.
    pub labels: BTreeMap<String, String>,
    /// Taints: key and effect.
    pub taints: Vec<(String, String)>,
}

/// The nodes of a cluster, the control plane first.
pub fn nodes(options: &Options) -> Vec<Node> {
    (0..options.nodes).map(|index| node(options, index)).collect()
}

fn node(options: &Options, index: u32) -> Node {
    let name = match index {
        0 => format!("{}-control-plane", options.name),
        1 => format!("{}-worker", options.name),
        n => format!("{}-worker{n}", options.name),
    };
    let host = index as u16 + 2;
    let mut addresses = vec![IpAddr::V4(Ipv4Addr::from(u32::from(WORLD) + index + 1))];
    let mut pod_cidrs = vec![format!("10.244.{index}.0/24")];
    if options.ipv6 {
        let [a, b, c, d, ..] = WORLD6.segments();
        addresses.push(IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, host)));
        pod_cidrs.push(format!("fd00:10:244:{index:x}::/64"));
    }
    let mut labels = BTreeMap::new();
    let mut taints = Vec::new();
    if index == 0 {
        let role = "node-role.kubernetes.io/control-plane";
        labels.insert(role.to_string(), String::new());
        labels.insert("node.kubernetes.io/exclude-from-external-load-balancers".into(), String::new());
        if options.nodes > 1 {
            taints.push((role.to_string(), "NoSchedule".to_string()));
        }
    }
    Node { name, addresses, pod_cidrs, labels, taints }
}

/// Names and addresses that the API server's certificate is good for.
pub fn server_names(control_plane: &Node) -> Vec<String> {
    let mut names: Vec<String> = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "localhost",
        "127.0.0.1",
        "::1",
        "10.96.0.1",
        "fd00:10:96::1",
    ]
    .map(String::from)
    .to_vec();
    names.push(control_plane.name.clone());
    names.extend(control_plane.addresses.iter().map(ToString::to_string));
    names
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::options::Enforcement;

    fn options(nodes: u32, ipv6: bool) -> Options {
        Options {
            name: "lab".into(),
            nodes,
            ipv6,
            enforcement: Enforcement::Default,
            cluster_name: "default".into(),
            config: Vec::new(),
            files: Vec::new(),
            world: None,
            wait: true,
            program: "/x".into(),
            log: "info".into(),
        }
    }

    #[test]
    fn nodes_are_named_and_numbered_as_in_kind() {
        let nodes = nodes(&options(3, true));
        let names: Vec<&str> = nodes.iter().map(|n| n.name.as_str()).collect();
        assert_eq!(names, ["lab-control-plane", "lab-worker", "lab-worker2"]);
        let addresses: Vec<String> = nodes.iter().flat_map(|n| &n.addresses).map(ToString::to_string).collect();
        assert_eq!(
            addresses,
            [
                "172.18.0.2",
                "fc00:f853:ccd:e793::2",
                "172.18.0.3",
                "fc00:f853:ccd:e793::3",
                "172.18.0.4",
                "fc00:f853:ccd:e793::4"
            ]
        );
        assert_eq!(nodes[2].pod_cidrs, ["10.244.2.0/24", "fd00:10:244:2::/64"]);
        assert_eq!(nodes[0].taints.len(), 1);
        assert!(nodes[1].taints.is_empty());
    }

    #[test]
    fn a_single_node_takes_pods() {
        let nodes = nodes(&options(1, false));
        assert!(nodes[0].taints.is_empty());
        assert!(nodes[0].labels.contains_key("node-role.kubernetes.io/control-plane"));
    }

    #[test]
    fn every_node_of_the_largest_lab_has_addresses_of_its_own() {
        let nodes = nodes(&options(64, true));
        let mut all: Vec<String> = nodes.iter().flat_map(|n| n.addresses.iter().map(ToString::to_string)).collect();
        all.extend(nodes.iter().flat_map(|n| n.pod_cidrs.clone()));
        let before = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), before);
        assert_eq!(nodes[63].addresses[0].to_string(), "172.18.0.65");
    }
}
