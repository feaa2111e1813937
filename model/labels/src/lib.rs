//! Which labels does a workload carry, and does a selector match them?
#![forbid(unsafe_code)]

mod filter;
mod label;
mod named_ports;
mod selector;
mod set;
pub mod source;
pub mod validate;
mod workload;

pub use filter::LabelFilter;
pub use label::{Label, LabelError};
pub use named_ports::{is_named_ports_label, named_port_labels};
pub use selector::{Operator, Requirement, Selector, SelectorError, SelectorKey};
pub use set::{Iter, Labels};
pub use workload::{Workload, is_owned_key, workload_labels};

/// Key of the namespace that a pod is in.
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// Key of a pod's name; never part of an identity.
pub const POD_NAME: &str = "io.kubernetes.pod.name";
/// Prefix of all keys that are the agent's own.
pub const OWN_PREFIX: &str = "io.cilium.k8s";
/// Key of the cluster that a pod is in.
pub const CLUSTER: &str = "io.cilium.k8s.policy.cluster";
/// Key of a pod's service account.
pub const SERVICE_ACCOUNT: &str = "io.cilium.k8s.policy.serviceaccount";
/// Prefix of the keys that carry the labels of a pod's namespace; a dot and the label's key follow.
pub const NAMESPACE_LABELS: &str = "io.cilium.k8s.namespace.labels";
/// Key of a rule's label that names the policy.
pub const POLICY_NAME: &str = "io.cilium.k8s.policy.name";
/// Key of a rule's label that tells the policy's uid.
pub const POLICY_UID: &str = "io.cilium.k8s.policy.uid";
/// Key of a rule's label that tells the policy's namespace.
pub const POLICY_NAMESPACE: &str = "io.cilium.k8s.policy.namespace";
/// Key of a rule's label that tells the policy's kind.
pub const POLICY_DERIVED_FROM: &str = "io.cilium.k8s.policy.derived-from";
