//! What do the cilium.io and networking.k8s.io objects look like?
#![forbid(unsafe_code)]

mod cidr_group;
mod cluster_network_policy;
mod definitions;
mod endpoint;
mod form;
mod identity;
mod keys;
mod lines;
mod load;
mod network_policy;
mod node;
mod objects;
mod ports;
mod problem;
mod resource;
mod rule;
pub mod schema;
pub mod secret_sync;
mod selector;

pub use cidr_group::{CiliumCIDRGroup, CiliumCIDRGroupSpec};
pub use cluster_network_policy::{
    ClusterNetworkPolicy, ClusterNetworkPolicyEgressPeer, ClusterNetworkPolicyEgressRule,
    ClusterNetworkPolicyIngressPeer, ClusterNetworkPolicyIngressRule, ClusterNetworkPolicyProtocol,
    ClusterNetworkPolicySpec, ClusterNetworkPolicySubject, DestinationPort, NamespacedPod, Port, PortRange,
};
pub use definitions::{
    CustomResource, PrinterColumn, Version, cluster_network_policy_definition, custom_resource_definitions,
    custom_resources,
};
pub use endpoint::{
    AddressPair, CiliumEndpoint, ControllerConfiguration, ControllerOutcome, ControllerStatus, EncryptionSpec,
    EndpointHealth, EndpointIdentity, EndpointPolicyDirection, EndpointPolicyStatus, EndpointStatus,
    ExternalIdentifiers, IdentityTuple, NamedPort, Networking, StatusLogEntry,
};
pub use identity::CiliumIdentity;
pub use lines::Lines;
pub use load::{Document, LIMITS, Limits, load_documents};
pub use network_policy::{
    IpBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
    NetworkPolicySpec,
};
pub use node::{
    AlibabaCloudSpec, AllocationIp, AzureSpec, CiliumNode, CiliumNodeSpec, EniSpec, HealthAddressing,
    IngressAddressing, IpamPools, IpamSpec, NodeAddress, NodeEncryption, PoolAllocation, PoolDemand, PoolRequest,
};
pub use objects::{
    CiliumClusterwideNetworkPolicy, CiliumNetworkPolicy, Condition, DerivativePolicyStatus, NetworkPolicyStatus,
};
pub use ports::{
    DnsRule, EnvoyConfigRef, HeaderMatch, HttpRule, IcmpField, IcmpRule, IntOrString, KafkaRule, L7Rules, Listener,
    PortDenyRule, PortProtocol, PortRule, SecretRef, TlsContext,
};
pub use problem::{Problem, Source};
pub use rule::{
    Authentication, AwsGroup, CidrRule, DefaultDeny, EgressDenyRule, EgressPeers, EgressRule, FqdnSelector, Group,
    IngressDenyRule, IngressPeers, IngressRule, K8sService, K8sServiceSelector, LogConfig, Rule, RuleLabel, Service,
};
pub use selector::{LabelSelector, MatchExpression};

/// The API group of all our kinds.
pub const GROUP: &str = "cilium.io";
/// Group and version of most of our kinds.
pub const V2: &str = "cilium.io/v2";
