//! Which custom resources do we define?

mod kinds;

use serde_json::{Map, Value, json};

pub use self::kinds::custom_resources;
use self::kinds::{AGE, column};
use crate::schema::{open_kind, structural};

/// A column that `kubectl get` prints.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PrinterColumn {
    /// Heading; kubectl prints it in capitals.
    pub name: &'static str,
    /// string, integer, boolean or date.
    pub column_type: &'static str,
    /// Where the value is.
    pub json_path: &'static str,
    /// 0: always; 1: with `-o wide`.
    pub priority: i32,
}

/// A version of a custom resource.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Version {
    /// As in v2.
    pub name: &'static str,
    /// Objects are stored in this version.
    pub storage: bool,
    /// Users should go on to another one.
    pub deprecated: bool,
}

/// A custom resource: what is needed to serve it.
#[derive(Clone, PartialEq, Debug)]
pub struct CustomResource {
    /// As in CiliumNetworkPolicy.
    pub kind: &'static str,
    /// As in ciliumnetworkpolicies.
    pub plural: &'static str,
    /// As in cnp.
    pub short_names: &'static [&'static str],
    /// As in cilium.
    pub categories: &'static [&'static str],
    /// True if objects are in namespaces.
    pub namespaced: bool,
    /// The storage version first.
    pub versions: &'static [Version],
    /// `status` is written by itself.
    pub status_subresource: bool,
    /// What `kubectl get` prints besides the name.
    pub columns: &'static [PrinterColumn],
    /// What it is for.
    pub description: &'static str,
}

/// The CustomResourceDefinition objects of all kinds, as one applies them to a cluster.
pub fn custom_resource_definitions() -> Vec<Value> {
    custom_resources().iter().map(CustomResource::definition).collect()
}

/// The API server knows the schema of metadata and takes no word about it.
fn without_word_of_metadata(mut schema: Value) -> Value {
    schema["properties"]["metadata"] = json!({ "type": "object" });
    schema
}

/// The definition of ClusterNetworkPolicy, for clusters in which nobody has installed the one of its authors (whose short
/// name, cnp, is CiliumNetworkPolicy's here). Kinds below k8s.io say by an annotation whether Kubernetes' reviewers
/// approved of them.
pub fn cluster_network_policy_definition() -> Value {
    let columns = [column("Tier", "string", ".spec.tier"), column("Priority", "string", ".spec.priority"), AGE];
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": "clusternetworkpolicies.policy.networking.k8s.io",
            "annotations": { "api-approved.kubernetes.io": "unapproved, a definition of the same kind by another author" },
        },
        "spec": {
            "group": "policy.networking.k8s.io",
            "names": {
                "kind": "ClusterNetworkPolicy",
                "listKind": "ClusterNetworkPolicyList",
                "plural": "clusternetworkpolicies",
                "singular": "clusternetworkpolicy",
            },
            "scope": "Cluster",
            "versions": [{
                "name": "v1alpha2",
                "served": true,
                "storage": true,
                "schema": { "openAPIV3Schema": without_word_of_metadata(structural::<crate::ClusterNetworkPolicy>()) },
                "subresources": { "status": {} },
                "additionalPrinterColumns": columns.iter().map(PrinterColumn::definition).collect::<Vec<_>>(),
            }],
        },
    })
}

impl CustomResource {
    /// Name in the singular, as in ciliumnetworkpolicy.
    pub fn singular(&self) -> String {
        self.kind.to_lowercase()
    }

    /// Schema of an object of this kind.
    pub fn schema(&self) -> Value {
        let mut schema = match self.kind {
            "CiliumNetworkPolicy" => structural::<crate::CiliumNetworkPolicy>(),
            "CiliumClusterwideNetworkPolicy" => structural::<crate::CiliumClusterwideNetworkPolicy>(),
            "CiliumCIDRGroup" => structural::<crate::CiliumCIDRGroup>(),
            "CiliumEndpoint" => structural::<crate::CiliumEndpoint>(),
            "CiliumIdentity" => structural::<crate::CiliumIdentity>(),
            "CiliumNode" => structural::<crate::CiliumNode>(),
            _ => open_kind(self.description),
        };
        schema["description"] = json!(self.description);
        without_word_of_metadata(schema)
    }

    /// The CustomResourceDefinition object.
    pub fn definition(&self) -> Value {
        let mut names = Map::new();
        names.insert("kind".into(), json!(self.kind));
        names.insert("listKind".into(), json!(format!("{}List", self.kind)));
        names.insert("plural".into(), json!(self.plural));
        names.insert("singular".into(), json!(self.singular()));
        for (name, values) in [("shortNames", self.short_names), ("categories", self.categories)] {
            if !values.is_empty() {
                names.insert(name.into(), json!(values));
            }
        }
        json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": { "name": format!("{}.{}", self.plural, crate::GROUP) },
            "spec": {
                "group": crate::GROUP,
                "names": names,
                "scope": if self.namespaced { "Namespaced" } else { "Cluster" },
                "versions": self.versions.iter().map(|version| self.version(version)).collect::<Vec<_>>(),
            },
        })
    }

    fn version(&self, version: &Version) -> Value {
        let mut fields = Map::new();
        fields.insert("name".into(), json!(version.name));
        fields.insert("served".into(), json!(true));
        fields.insert("storage".into(), json!(version.storage));
        if version.deprecated {
            fields.insert("deprecated".into(), json!(true));
        }
        fields.insert("schema".into(), json!({ "openAPIV3Schema": self.schema() }));
        if self.status_subresource {
            fields.insert("subresources".into(), json!({ "status": {} }));
        }
        if !self.columns.is_empty() {
            let columns: Vec<Value> = self.columns.iter().map(PrinterColumn::definition).collect();
            fields.insert("additionalPrinterColumns".into(), json!(columns));
        }
        Value::Object(fields)
    }
}

impl PrinterColumn {
    fn definition(&self) -> Value {
        let mut column = json!({ "name": self.name, "type": self.column_type, "jsonPath": self.json_path });
        if self.priority != 0 {
            column["priority"] = json!(self.priority);
        }
        column
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kind, storage version and others, scope, plural, short names: what clients of the API know.
    const KNOWN: &str = "
CiliumBGPAdvertisement v2,v2alpha1 Cluster ciliumbgpadvertisements cbgpadvert
CiliumBGPClusterConfig v2,v2alpha1 Cluster ciliumbgpclusterconfigs cbgpcluster
CiliumBGPNodeConfig v2,v2alpha1 Cluster ciliumbgpnodeconfigs cbgpnode
CiliumBGPNodeConfigOverride v2,v2alpha1 Cluster ciliumbgpnodeconfigoverrides cbgpnodeoverride
CiliumBGPPeerConfig v2,v2alpha1 Cluster ciliumbgppeerconfigs cbgppeer
CiliumCIDRGroup v2,v2alpha1 Cluster ciliumcidrgroups ccg
CiliumClusterwideEnvoyConfig v2 Cluster ciliumclusterwideenvoyconfigs ccec
CiliumClusterwideNetworkPolicy v2 Cluster ciliumclusterwidenetworkpolicies ccnp
CiliumDatapathPlugin v2alpha1 Cluster ciliumdatapathplugins cddp
CiliumEgressGatewayPolicy v2 Cluster ciliumegressgatewaypolicies cegp
CiliumEndpoint v2 Namespaced ciliumendpoints cep,ciliumep
CiliumEndpointSlice v2alpha1 Cluster ciliumendpointslices ces
CiliumEnvoyConfig v2 Namespaced ciliumenvoyconfigs cec
CiliumGatewayClassConfig v2alpha1 Namespaced ciliumgatewayclassconfigs cgcc
CiliumIdentity v2 Cluster ciliumidentities ciliumid
CiliumL2AnnouncementPolicy v2alpha1 Cluster ciliuml2announcementpolicies l2announcement
CiliumLoadBalancerIPPool v2,v2alpha1 Cluster ciliumloadbalancerippools ippools,ippool,lbippool,lbippools
CiliumLocalRedirectPolicy v2 Namespaced ciliumlocalredirectpolicies clrp
CiliumNetworkPolicy v2 Namespaced ciliumnetworkpolicies cnp,ciliumnp
CiliumNode v2 Cluster ciliumnodes cn,ciliumn
CiliumNodeConfig v2,v2alpha1 Namespaced ciliumnodeconfigs 
CiliumPodIPPool v2alpha1 Cluster ciliumpodippools cpip";

    #[test]
    fn every_kind_has_its_names_scope_and_versions() {
        let mut lines: Vec<String> = custom_resources()
            .iter()
            .map(|one| {
                let versions: Vec<&str> = one.versions.iter().map(|version| version.name).collect();
                let scope = if one.namespaced { "Namespaced" } else { "Cluster" };
                let names = one.short_names.join(",");
                format!("{} {} {scope} {} {names}", one.kind, versions.join(","), one.plural)
            })
            .collect();
        lines.sort();
        assert_eq!(lines.join("\n"), KNOWN.trim_start());
    }

    fn walk(schema: &Value, path: &str, see: &mut impl FnMut(&str, &Map<String, Value>)) {
        let Value::Object(fields) = schema else { return };
        see(path, fields);
        for (name, inner) in fields.get("properties").and_then(Value::as_object).into_iter().flatten() {
            walk(inner, &format!("{path}.{name}"), see);
        }
        for name in ["items", "additionalProperties"] {
            if let Some(inner) = fields.get(name) {
                walk(inner, &format!("{path}[]"), see);
            }
        }
    }

    #[test]
    fn schemas_are_structural_and_explain_every_field() {
        for one in custom_resources() {
            walk(&one.schema(), one.kind, &mut |path, fields| {
                for wrong in ["$ref", "nullable", "$schema", "allOf", "title", "definitions"] {
                    assert!(!fields.contains_key(wrong), "{path} has {wrong}");
                }
                let typed = fields.contains_key("type") || fields.contains_key("x-kubernetes-int-or-string");
                assert!(typed, "{path} has no type: {fields:?}");
                let plain = path.ends_with("[]") || path.ends_with(".metadata");
                assert!(plain || fields.contains_key("description"), "{path} has no description");
            });
        }
    }

    #[test]
    fn columns_are_those_that_kubectl_prints() {
        let columns = |kind: &str, wide: bool| -> Vec<&str> {
            let all = custom_resources();
            let one = all.iter().find(|one| one.kind == kind).expect("a known kind");
            one.columns.iter().filter(|column| wide || column.priority == 0).map(|column| column.name).collect()
        };
        assert_eq!(columns("CiliumNetworkPolicy", false), ["Age", "Valid"]);
        assert_eq!(columns("CiliumClusterwideNetworkPolicy", false), ["Valid"]);
        assert_eq!(columns("CiliumEndpoint", false), ["Security Identity", "Endpoint State", "IPv4", "IPv6"]);
        assert_eq!(columns("CiliumEndpoint", true).len(), 6);
        assert_eq!(columns("CiliumNode", false), ["CiliumInternalIP", "InternalIP", "Age"]);
        assert_eq!(columns("CiliumIdentity", false), ["Namespace", "Age"]);
    }
}
