//! What does the cluster say of the own node, and what does the node's agent say of it?

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::cluster::{self, Cluster};
use crate::config::Settings;
use crate::daemon::Daemon;
use crate::objects::Node;

/// The own node with its pod networks; waits until somebody has given it some.
pub async fn own_node(cluster: &Cluster, settings: &Settings) -> Node {
    loop {
        match cluster.node(&settings.node).await {
            Ok(Some(node)) => {
                let node = Node::read(&node);
                let has = |v4: bool| node.pod_networks.iter().any(|net| net.addr().is_ipv4() == v4);
                if (!settings.ipv4 || has(true)) && (!settings.ipv6 || has(false)) && !node.addresses.is_empty() {
                    return node;
                }
                tracing::info!(node = settings.node, "waiting for the node's addresses and pod networks");
            }
            Ok(None) => tracing::info!(node = settings.node, "waiting for the node's object"),
            Err(error) => tracing::warn!(error = cluster::brief(&error), "the Kubernetes API does not answer yet"),
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// The node as its agent tells it.
pub fn own_object(daemon: &Daemon, node: &Node, health: &[IpAddr]) -> crds::CiliumNode {
    let facts = daemon.core.facts();
    let of = |kind: &str, address: &IpAddr| crds::NodeAddress {
        address_type: Some(kind.into()),
        ip: Some(address.to_string()),
    };
    let internal = node.addresses.iter().map(|a| of("InternalIP", a));
    let first = |v4: bool| health.iter().find(|a| a.is_ipv4() == v4).map(IpAddr::to_string);
    crds::CiliumNode {
        api_version: crds::CiliumNode::default_api_version(),
        kind: crds::CiliumNode::default_kind(),
        metadata: ObjectMeta {
            name: Some(facts.node.clone()),
            labels: Some(node.labels.clone()),
            ..ObjectMeta::default()
        },
        spec: crds::CiliumNodeSpec {
            addresses: internal.chain(facts.routers.iter().map(|a| of("CiliumInternalIP", a))).collect(),
            health: (!health.is_empty()).then(|| crds::HealthAddressing { ipv4: first(true), ipv6: first(false) }),
            ipam: Some(crds::IpamSpec {
                pod_cidrs: node.pod_networks.iter().map(ToString::to_string).collect(),
                ..Default::default()
            }),
            ..crds::CiliumNodeSpec::default()
        },
        status: None,
    }
}

/// Tells it, until it is told.
pub async fn publish_node(cluster: Cluster, name: String, mut object: crds::CiliumNode) {
    loop {
        // The object goes when its node goes.
        if let Ok(Some(node)) = cluster.node(&name).await {
            let owner = OwnerReference {
                api_version: "v1".into(),
                kind: "Node".into(),
                name: name.clone(),
                uid: node.metadata.uid.unwrap_or_default(),
                ..OwnerReference::default()
            };
            object.metadata.owner_references = Some(vec![owner]);
        }
        match cluster.publish_node(&object).await {
            Ok(()) => return,
            Err(error) => {
                tracing::warn!(error = cluster::brief(&error), "the own CiliumNode cannot be written, trying again")
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
