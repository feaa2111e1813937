//! What is known of an identity that rules are asked for?

use ::identity::{NumericIdentity, labelled_prefixes};
use abi::identity as id;
use ipnet::IpNet;
use labels::{CLUSTER, Label, Labels, source};

use super::{Context, Entity};

/// Names of the sums: remote nodes, addresses of the world, workloads of the own cluster, workloads of others.
pub(super) const SUMS: [&str; 4] =
    ["aggregate-remote-node", "aggregate-world", "aggregate-cluster", "aggregate-cluster-mesh"];

/// What is known of an identity that selectors ask for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerIdentity {
    /// Its number.
    pub identity: NumericIdentity,
    /// Its labels.
    pub labels: Labels,
    /// Those that selectors of peers ask.
    pub(super) as_peer: Labels,
    /// Those that selectors of subjects ask.
    as_subject: Labels,
    /// The prefixes that its addresses lie in, as far as its labels name them.
    pub prefixes: Vec<IpNet>,
}

impl PeerIdentity {
    /// What is known from the labels.
    pub fn new(identity: NumericIdentity, labels: Labels) -> Self {
        let prefixes = labelled_prefixes(&labels);
        if identity != id::HOST {
            let (as_peer, as_subject) = (labels.clone(), labels.clone());
            return PeerIdentity { identity, labels, as_peer, as_subject, prefixes };
        }
        // Policies for the own node ask for what Kubernetes knows of it, policies that name it as a peer for the labels
        // of nodes.
        let of_kubernetes = |label: &&Label| label.source == source::K8S && label.key != CLUSTER;
        let as_peer = labels.iter().filter(|label| !of_kubernetes(label)).cloned().collect();
        let as_subject = labels.iter().filter(|label| label.is_reserved("host") || of_kubernetes(label));
        let as_subject = as_subject.cloned().collect();
        PeerIdentity { identity, labels, as_peer, as_subject, prefixes }
    }

    /// The labels that selectors of peers ask.
    pub fn peer_labels(&self) -> &Labels {
        &self.as_peer
    }

    /// The labels that selectors of subjects ask.
    pub fn subject_labels(&self) -> &Labels {
        &self.as_subject
    }

    /// The namespace that it is in; empty if in none.
    pub(crate) fn namespace(&self) -> &str {
        self.as_peer.namespace().unwrap_or_default()
    }

    fn is_workload(&self) -> bool {
        (id::MINIMAL_ALLOCATED..id::LOCAL_CIDR).contains(&self.identity)
    }

    fn cluster_id(&self) -> u32 {
        (self.identity >> 16) & 0xff
    }

    fn is_cidr(&self) -> bool {
        (id::LOCAL_CIDR..id::LOCAL_REMOTE_NODE).contains(&self.identity)
    }

    fn is_local_node(&self) -> bool {
        self.identity >= id::LOCAL_REMOTE_NODE
    }

    /// True if it is part of the sum that the entity stands for.
    pub(super) fn in_sum(&self, entity: Entity, context: &Context<'_>) -> bool {
        match entity {
            Entity::World => self.is_cidr(),
            Entity::RemoteNode => self.is_local_node(),
            Entity::Cluster => self.is_workload() && self.cluster_id() == context.cluster_id,
            Entity::ClusterMesh => self.is_workload(),
            _ => false,
        }
    }

    /// The label of the sum that it is part of, if it is part of one.
    pub(super) fn sum_label(&self, context: &Context<'_>) -> Option<&'static str> {
        match self {
            one if one.is_local_node() => Some(SUMS[0]),
            one if one.is_cidr() => Some(SUMS[1]),
            one if one.is_workload() && one.cluster_id() == context.cluster_id => Some(SUMS[2]),
            one if one.is_workload() => Some(SUMS[3]),
            _ => None,
        }
    }

    /// True if it has labels of the groups of prefixes that it lies in, which then are all of them.
    pub(super) fn has_group_labels(&self) -> bool {
        self.as_peer.iter().any(|label| label.source == source::CIDR_GROUP)
    }

    pub(super) fn is_node(&self) -> bool {
        ["host", "remote-node"].iter().any(|name| self.as_peer.has_reserved(name))
    }

    pub(super) fn is_world(&self) -> bool {
        ["world", "world-ipv4", "world-ipv6"].iter().any(|name| self.as_peer.has_reserved(name))
    }

    /// True if it is the entity by its labels.
    pub(super) fn is_entity(&self, entity: Entity, context: &Context<'_>) -> bool {
        let reserved = |name: &str| self.as_peer.has_reserved(name);
        let in_cluster = ["host", "remote-node", "init", "ingress", "health", "unmanaged", "kube-apiserver"];
        let cluster = self.as_peer.get(source::K8S, CLUSTER);
        match entity {
            Entity::All => true,
            Entity::World => self.is_world(),
            Entity::Cluster => in_cluster.iter().any(|name| reserved(name)) || cluster == Some(context.cluster_name),
            Entity::ClusterMesh => in_cluster.iter().any(|name| reserved(name)) || cluster.is_some(),
            Entity::WorldIpv4
            | Entity::WorldIpv6
            | Entity::Host
            | Entity::Init
            | Entity::Ingress
            | Entity::Unmanaged
            | Entity::RemoteNode
            | Entity::Health
            | Entity::None
            | Entity::KubeApiserver => reserved(entity.name()),
        }
    }
}
