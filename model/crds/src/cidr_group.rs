//! What does CiliumCIDRGroup look like?

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::resource::{metadata_schema, resource};

/// Prefixes outside of the cluster that policies can name together.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CiliumCIDRGroup {
    /// Version of the API that the object is written for.
    #[serde(default = "CiliumCIDRGroup::default_api_version")]
    pub api_version: String,
    /// Kind of the object.
    #[serde(default = "CiliumCIDRGroup::default_kind")]
    pub kind: String,
    /// Name, and labels that cidrGroupSelector selects by.
    #[serde(default)]
    #[schemars(schema_with = "metadata_schema")]
    pub metadata: ObjectMeta,
    /// The prefixes.
    pub spec: CiliumCIDRGroupSpec,
}

resource!(CiliumCIDRGroup, "ciliumcidrgroups", ClusterResourceScope);

/// Prefixes.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct CiliumCIDRGroupSpec {
    /// Prefixes outside of the cluster.
    #[serde(rename = "externalCIDRs")]
    #[schemars(extend("minItems" = 0, "items" = { "type": "string", "format": "cidr" }))]
    pub external_cidrs: Vec<String>,
}
