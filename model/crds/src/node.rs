//! What does CiliumNode look like?

mod clouds;

use std::collections::BTreeMap;

pub use clouds::{AlibabaCloudSpec, AzureSpec, EniSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::resource::{metadata_schema, resource};

/// What agents tell each other of their nodes.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CiliumNode {
    /// Version of the API that the object is written for.
    #[serde(default = "CiliumNode::default_api_version")]
    pub api_version: String,
    /// Kind of the object.
    #[serde(default = "CiliumNode::default_kind")]
    pub kind: String,
    /// The name is the node's.
    #[schemars(schema_with = "metadata_schema")]
    pub metadata: ObjectMeta,
    /// Addresses and address pools.
    pub spec: CiliumNodeSpec,
    /// What the operator answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::open_object")]
    pub status: Option<serde_json::Value>,
}

resource!(CiliumNode, "ciliumnodes", ClusterResourceScope);

/// Addresses and address pools of a node.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct CiliumNodeSpec {
    /// Addresses of the node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<NodeAddress>,
    /// Where the node gets addresses in Alibaba's cloud.
    #[serde(default, rename = "alibaba-cloud", skip_serializing_if = "Option::is_none")]
    pub alibaba_cloud: Option<AlibabaCloudSpec>,
    /// Where it gets them in Azure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub azure: Option<AzureSpec>,
    /// Tells one boot of the node from another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bootid: Option<String>,
    /// Encryption between nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<NodeEncryption>,
    /// Where the node gets addresses in Amazon's cloud.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eni: Option<EniSpec>,
    /// Addresses of the node's health endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthAddressing>,
    /// Addresses of the node's ingress proxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<IngressAddressing>,
    /// Name of the machine, as its provider calls it.
    #[serde(default, rename = "instance-id", skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<String>,
    /// Addresses for the node's pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipam: Option<IpamSpec>,
}

/// An address of a node.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct NodeAddress {
    /// InternalIP, ExternalIP or CiliumInternalIP.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub address_type: Option<String>,
    /// The address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
}

/// Encryption between nodes.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct NodeEncryption {
    /// Number of the key; 0 if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<i64>,
}

/// Addresses of a node's health endpoint.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct HealthAddressing {
    /// The IPv4 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<String>,
    /// The IPv6 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<String>,
}

/// Addresses of a node's ingress proxy.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct IngressAddressing {
    /// The IPv4 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<String>,
    /// The IPv6 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<String>,
}

/// Addresses for a node's pods.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct IpamSpec {
    /// Prefixes that the node's pods get addresses of.
    #[serde(default, rename = "podCIDRs", skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("items" = { "type": "string", "format": "cidr" }))]
    pub pod_cidrs: Vec<String>,
    /// Addresses that the operator gave the node, of IPv4.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pool: BTreeMap<String, AllocationIp>,
    /// Addresses that the operator gave the node, of IPv6.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ipv6_pool: BTreeMap<String, AllocationIp>,
    /// Pools that the node wants addresses of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pools: Option<IpamPools>,
    /// How many addresses may be free above what is wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 0))]
    pub max_above_watermark: Option<i64>,
    /// How many addresses the node may have; 0: any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 0))]
    pub max_allocate: Option<i64>,
    /// How many addresses the node has at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 0))]
    pub min_allocate: Option<i64>,
    /// How many addresses are kept free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 0))]
    pub pre_allocate: Option<i64>,
    /// Tags of addresses that the node is to have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub static_ip_tags: BTreeMap<String, String>,
}

/// An address that the operator gave a node.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct AllocationIp {
    /// Who uses it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// What it is attached to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
}

/// Pools that a node has and wants addresses of.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct IpamPools {
    /// What it has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allocated: Vec<PoolAllocation>,
    /// What it wants.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requested: Vec<PoolRequest>,
}

/// Prefixes of a pool that a node has.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct PoolAllocation {
    /// True if the first address of a prefix may be used.
    #[serde(default, rename = "allowFirstIP", skip_serializing_if = "Option::is_none")]
    pub allow_first_ip: Option<bool>,
    /// True if the last address of a prefix may be used.
    #[serde(default, rename = "allowLastIP", skip_serializing_if = "Option::is_none")]
    pub allow_last_ip: Option<bool>,
    /// The prefixes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("items" = { "type": "string", "format": "cidr" }))]
    pub cidrs: Vec<String>,
    /// Name of the pool.
    #[schemars(extend("minLength" = 1))]
    pub pool: String,
}

/// How many addresses of a pool a node wants.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct PoolRequest {
    /// How many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needed: Option<PoolDemand>,
    /// Name of the pool.
    #[schemars(extend("minLength" = 1))]
    pub pool: String,
}

/// How many addresses of each family are wanted.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct PoolDemand {
    /// Of IPv4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4_addrs: Option<i64>,
    /// Of IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6_addrs: Option<i64>,
}
