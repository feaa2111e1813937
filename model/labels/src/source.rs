//! Where may a label come from?

/// Kubernetes: labels of pods, namespaces, nodes.
pub const K8S: &str = "k8s";
/// The agent's own: `reserved:host` and the like.
pub const RESERVED: &str = "reserved";
/// In selectors only: whatever the source.
pub const ANY: &str = "any";
/// A prefix of addresses: `cidr:10.0.0.0/8`.
pub const CIDR: &str = "cidr";
/// A CiliumCIDRGroup and its labels.
pub const CIDR_GROUP: &str = "cidrgroup";
/// A name that a DNS answer gave to an address.
pub const FQDN: &str = "fqdn";
/// A label of a node.
pub const NODE: &str = "node";
/// What the agent makes of a pod's other fields.
pub const GENERATED: &str = "gen";
/// No source was given.
pub const UNSPEC: &str = "unspec";
