//! Who is at one side of a flow?

use abi::identity::{self, Identity};

use crate::{
    directory::{Directory, Peer, reserved_name},
    proto::flow::Endpoint,
};

/// Only an endpoint of this node has a number and workloads. The identity that the datapath saw has precedence over
/// what is known now: it is the one by which policy was decided.
pub(super) fn resolve(peer: Option<&Peer>, seen: Identity, directory: &(impl Directory + ?Sized)) -> Endpoint {
    let Some(peer) = peer else { return of_identity(seen, directory) };
    let identity = if seen == identity::UNKNOWN { peer.identity } else { seen };
    let of_peer = !peer.labels.is_empty() && (peer.endpoint != 0 || identity == peer.identity);
    let labels = if of_peer { tidy(peer.labels.clone(), identity) } else { labels(identity, directory) };
    Endpoint {
        id: peer.endpoint,
        identity,
        cluster_name: cluster(&labels),
        namespace: peer.namespace.clone(),
        labels,
        pod_name: peer.pod.clone(),
        workloads: if peer.endpoint == 0 { Vec::new() } else { peer.workloads.clone() },
    }
}

fn of_identity(identity: Identity, directory: &(impl Directory + ?Sized)) -> Endpoint {
    let labels = labels(identity, directory);
    Endpoint { identity, cluster_name: cluster(&labels), labels, ..Endpoint::default() }
}

fn labels(identity: Identity, directory: &(impl Directory + ?Sized)) -> Vec<String> {
    if let Some(labels) = directory.labels(identity) {
        return tidy(labels.to_vec(), identity);
    }
    match reserved_name(identity) {
        Some(name) if identity != identity::UNKNOWN => vec![format!("reserved:{name}")],
        _ => Vec::new(),
    }
}

fn cluster(labels: &[String]) -> String {
    const KEY: &str = "k8s:io.cilium.k8s.policy.cluster=";
    labels.iter().find_map(|label| label.strip_prefix(KEY)).unwrap_or_default().to_owned()
}

/// Sorted, and of the nested prefixes of a node-local identity only the longest.
fn tidy(mut labels: Vec<String>, identity: Identity) -> Vec<String> {
    if identity::is_node_local(identity) {
        let longest = labels.iter().filter_map(|label| prefix_length(label)).max();
        labels.retain(|label| !label.starts_with("cidr:") || prefix_length(label) == longest);
    }
    labels.sort_unstable();
    labels
}

fn prefix_length(label: &str) -> Option<u8> {
    let (_, bits) = label.strip_prefix("cidr:")?.rsplit_once('/')?;
    bits.trim_end_matches('=').parse().ok()
}
