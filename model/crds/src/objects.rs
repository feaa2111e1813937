//! What do CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy look like?

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::resource::{metadata_schema, resource};
use crate::rule::Rule;

/// Rules for pods of one namespace: who may talk to them, whom they may talk to.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    { "rule": "has(self.spec) || has(self.specs)", "message": "a policy has spec or specs" },
]))]
pub struct CiliumNetworkPolicy {
    /// Version of the API that the object is written for.
    #[serde(default = "CiliumNetworkPolicy::default_api_version")]
    pub api_version: String,
    /// Kind of the object.
    #[serde(default = "CiliumNetworkPolicy::default_kind")]
    pub kind: String,
    /// Name, namespace, labels.
    #[schemars(schema_with = "metadata_schema")]
    pub metadata: ObjectMeta,
    /// A rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<Rule>,
    /// Several rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub specs: Option<Vec<Rule>>,
    /// Whether the policy is valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<NetworkPolicyStatus>,
}

resource!(CiliumNetworkPolicy, "ciliumnetworkpolicies", NamespaceResourceScope);

/// Rules for pods of all namespaces, or for nodes: who may talk to them, whom they may talk to.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    { "rule": "has(self.spec) || has(self.specs)", "message": "a policy has spec or specs" },
]))]
pub struct CiliumClusterwideNetworkPolicy {
    /// Version of the API that the object is written for.
    #[serde(default = "CiliumClusterwideNetworkPolicy::default_api_version")]
    pub api_version: String,
    /// Kind of the object.
    #[serde(default = "CiliumClusterwideNetworkPolicy::default_kind")]
    pub kind: String,
    /// Name and labels.
    #[schemars(schema_with = "metadata_schema")]
    pub metadata: ObjectMeta,
    /// A rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<Rule>,
    /// Several rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub specs: Option<Vec<Rule>>,
    /// Whether the policy is valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<NetworkPolicyStatus>,
}

resource!(CiliumClusterwideNetworkPolicy, "ciliumclusterwidenetworkpolicies", ClusterResourceScope);

/// Whether a policy is valid.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkPolicyStatus {
    /// Conditions; the one of type Valid says whether the policy can be used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Status of policies that were made from this one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub derivative_policies: BTreeMap<String, DerivativePolicyStatus>,
}

/// One thing that is known of an object.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What it is about, as in Valid.
    #[serde(rename = "type")]
    pub condition_type: String,
    /// True, False or Unknown.
    pub status: String,
    /// When that last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub last_transition_time: Option<String>,
    /// Why, as one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Status of a policy that was made from another one.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DerivativePolicyStatus {
    /// True if it is in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ok: Option<bool>,
    /// Why it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// When that was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub last_updated: Option<String>,
    /// Revision of the policy on the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_policy_revision: Option<i64>,
    /// True if it is enforced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enforcing: Option<bool>,
    /// Annotations of the policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
}
