//! What is to be done outside of the core, in this order?

use std::net::IpAddr;

use abi::endpoint::{Endpoint, EndpointPolicy};
use abi::identity::Identity;
use abi::policy::{Class, VerdictEntry, VerdictKey};
use labels::Labels;

use crate::core::EndpointRecord;
use crate::ipcache::Change;
use crate::objects::Key;
use crate::services::Table;

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// Build a policy's tables aside, in a slot that no endpoint names.
    InstallPolicy {
        /// Where.
        slot: u32,
        /// Identity to class.
        classes: Vec<(Identity, Class)>,
        /// Class, direction, protocol and port to verdict.
        verdicts: Vec<(VerdictKey, VerdictEntry)>,
    },
    /// Let an identity belong to a class in a slot that is in use.
    SetClass(u32, Identity, Class),
    /// Let an identity fall back to "all others".
    RemoveClass(u32, Identity),
    /// Switch an endpoint to a slot.
    UsePolicy(u32, EndpointPolicy),
    /// Nobody names the slot any more.
    FreeSlot(u32),
    /// The endpoint as programs know it, by its addresses and its device.
    SetEndpoint(Vec<IpAddr>, Endpoint),
    /// The endpoint is gone: addresses, device.
    RemoveEndpoint(Vec<IpAddr>, u32),
    /// Forget connections of an address.
    ForgetConnections(IpAddr),
    /// Write the IP cache.
    Ipcache(Change),
    /// Earlier answers of the IP cache are no longer true.
    BumpGeneration,
    /// Services: from one table to the other.
    Services {
        /// What the datapath has.
        old: Box<Table>,
        /// What it is to have.
        new: Box<Table>,
    },
    /// Find or make the identity of these labels; the answer comes as an event.
    AllocateIdentity(Labels),
    /// Remember an endpoint across restarts.
    Persist(Box<EndpointRecord>),
    /// Forget a remembered endpoint.
    Forget(u32),
    /// Tell the cluster of an endpoint.
    Publish(Key, Box<crds::CiliumEndpoint>),
    /// Its pod is gone from this node; the addresses tell its CiliumEndpoint from that of a later pod of the same name.
    Unpublish(Key, Vec<IpAddr>),
    /// Say what became of a policy object: kind, key, problems.
    PolicyStatus(PolicyKey, Vec<String>),
}

/// Kind, namespace (may be empty) and name of a policy object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyKey {
    /// Its kind.
    pub kind: PolicyKind,
    /// Its namespace; empty for cluster-wide ones.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Kinds of policy objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyKind {
    /// CiliumNetworkPolicy
    Cilium,
    /// CiliumClusterwideNetworkPolicy
    CiliumClusterwide,
    /// NetworkPolicy
    Kubernetes,
    /// ClusterNetworkPolicy
    KubernetesCluster,
}
