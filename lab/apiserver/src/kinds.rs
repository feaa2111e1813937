//! Which kinds are built in, and what are they called?

use crate::registry::{Resource, ScalePaths, builtin_schema, meta_collection};

const ALL: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
/// A namespace's content is deleted with it, so namespaces are not deleted by the dozen.
const NAMESPACE: &[&str] = &["create", "delete", "get", "list", "patch", "update", "watch"];
const CREATE: &[&str] = &["create"];
const GET: &[&str] = &["get"];
const CONNECT: &[&str] = &["create", "get"];

struct Kind {
    group: &'static str,
    version: &'static str,
    /// Name of its schema.
    schema: &'static str,
    plural: &'static str,
    short: &'static [&'static str],
    namespaced: bool,
    status: bool,
}

const fn kind(
    group: &'static str,
    schema: &'static str,
    plural: &'static str,
    short: &'static [&'static str],
    scope: (bool, bool),
) -> Kind {
    Kind { group, version: "v1", schema, plural, short, namespaced: scope.0, status: scope.1 }
}

const IN_NAMESPACE: (bool, bool) = (true, false);
const IN_NAMESPACE_WITH_STATUS: (bool, bool) = (true, true);
const CLUSTER: (bool, bool) = (false, false);
const CLUSTER_WITH_STATUS: (bool, bool) = (false, true);

const STORED: &[Kind] = &[
    kind("", "api.core.v1.ConfigMap", "configmaps", &["cm"], IN_NAMESPACE),
    kind("", "api.core.v1.Endpoints", "endpoints", &["ep"], IN_NAMESPACE),
    kind("", "api.core.v1.Event", "events", &["ev"], IN_NAMESPACE),
    kind("", "api.core.v1.Namespace", "namespaces", &["ns"], CLUSTER_WITH_STATUS),
    kind("", "api.core.v1.Node", "nodes", &["no"], CLUSTER_WITH_STATUS),
    kind("", "api.core.v1.Pod", "pods", &["po"], IN_NAMESPACE_WITH_STATUS),
    kind("", "api.core.v1.Secret", "secrets", &[], IN_NAMESPACE),
    kind("", "api.core.v1.ServiceAccount", "serviceaccounts", &["sa"], IN_NAMESPACE),
    kind("", "api.core.v1.Service", "services", &["svc"], IN_NAMESPACE_WITH_STATUS),
    kind(
        "apiextensions.k8s.io",
        "apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition",
        "customresourcedefinitions",
        &["crd", "crds"],
        CLUSTER_WITH_STATUS,
    ),
    kind("apps", "api.apps.v1.ControllerRevision", "controllerrevisions", &[], IN_NAMESPACE),
    kind("apps", "api.apps.v1.DaemonSet", "daemonsets", &["ds"], IN_NAMESPACE_WITH_STATUS),
    kind("apps", "api.apps.v1.Deployment", "deployments", &["deploy"], IN_NAMESPACE_WITH_STATUS),
    kind("apps", "api.apps.v1.ReplicaSet", "replicasets", &["rs"], IN_NAMESPACE_WITH_STATUS),
    kind("apps", "api.apps.v1.StatefulSet", "statefulsets", &["sts"], IN_NAMESPACE_WITH_STATUS),
    kind("batch", "api.batch.v1.Job", "jobs", &[], IN_NAMESPACE_WITH_STATUS),
    kind("coordination.k8s.io", "api.coordination.v1.Lease", "leases", &[], IN_NAMESPACE),
    kind("discovery.k8s.io", "api.discovery.v1.EndpointSlice", "endpointslices", &[], IN_NAMESPACE),
    kind("events.k8s.io", "api.events.v1.Event", "events", &["ev"], IN_NAMESPACE),
    kind("networking.k8s.io", "api.networking.v1.IngressClass", "ingressclasses", &[], CLUSTER),
    kind("networking.k8s.io", "api.networking.v1.Ingress", "ingresses", &["ing"], IN_NAMESPACE_WITH_STATUS),
    kind("networking.k8s.io", "api.networking.v1.NetworkPolicy", "networkpolicies", &["netpol"], IN_NAMESPACE),
    kind("policy", "api.policy.v1.PodDisruptionBudget", "poddisruptionbudgets", &["pdb"], IN_NAMESPACE_WITH_STATUS),
    kind("rbac.authorization.k8s.io", "api.rbac.v1.ClusterRoleBinding", "clusterrolebindings", &[], CLUSTER),
    kind("rbac.authorization.k8s.io", "api.rbac.v1.ClusterRole", "clusterroles", &[], CLUSTER),
    kind("rbac.authorization.k8s.io", "api.rbac.v1.RoleBinding", "rolebindings", &[], IN_NAMESPACE),
    kind("rbac.authorization.k8s.io", "api.rbac.v1.Role", "roles", &[], IN_NAMESPACE),
    kind("scheduling.k8s.io", "api.scheduling.v1.PriorityClass", "priorityclasses", &["pc"], CLUSTER),
];

/// Kinds that are answered and not kept.
const REVIEWS: &[Kind] = &[
    kind("authentication.k8s.io", "api.authentication.v1.SelfSubjectReview", "selfsubjectreviews", &[], CLUSTER),
    kind("authentication.k8s.io", "api.authentication.v1.TokenReview", "tokenreviews", &[], CLUSTER),
    kind(
        "authorization.k8s.io",
        "api.authorization.v1.LocalSubjectAccessReview",
        "localsubjectaccessreviews",
        &[],
        IN_NAMESPACE,
    ),
    kind(
        "authorization.k8s.io",
        "api.authorization.v1.SelfSubjectAccessReview",
        "selfsubjectaccessreviews",
        &[],
        CLUSTER,
    ),
    kind(
        "authorization.k8s.io",
        "api.authorization.v1.SelfSubjectRulesReview",
        "selfsubjectrulesreviews",
        &[],
        CLUSTER,
    ),
    kind("authorization.k8s.io", "api.authorization.v1.SubjectAccessReview", "subjectaccessreviews", &[], CLUSTER),
];

/// Every built-in resource.
pub fn builtin() -> Vec<Resource> {
    let stored = STORED.iter().map(|kind| resource(kind, if kind.plural == "namespaces" { NAMESPACE } else { ALL }));
    stored.chain(REVIEWS.iter().map(|kind| resource(kind, CREATE))).collect()
}

fn resource(from: &Kind, verbs: &'static [&'static str]) -> Resource {
    let kind = from.schema.rsplit('.').next().unwrap_or_default().to_owned();
    let events = from.plural == "events";
    let singular = kind.to_lowercase();
    Resource {
        group: from.group.to_owned(),
        version: from.version.to_owned(),
        list_kind: format!("{kind}List"),
        plural: from.plural.to_owned(),
        singular,
        short: from.short.iter().map(|&name| name.to_owned()).collect(),
        categories: categories(from.plural),
        namespaced: from.namespaced,
        verbs,
        status: from.status,
        scale: scale(from.plural),
        others: others(from.plural),
        schema: builtin_schema(from.schema),
        columns: None,
        custom: false,
        declared: None,
        collection: if events { "events".to_owned() } else { meta_collection(from.plural, from.group) },
        stored_as: if events { "v1".to_owned() } else { crate::meta::api_version(from.group, from.version) },
        kind,
    }
}

fn categories(plural: &str) -> Vec<String> {
    let names: &[&str] = match plural {
        "pods" | "services" | "deployments" | "replicasets" | "daemonsets" | "statefulsets" | "jobs" => &["all"],
        "customresourcedefinitions" => &["api-extensions"],
        _ => &[],
    };
    names.iter().map(|&name| name.to_owned()).collect()
}

fn scale(plural: &str) -> Option<ScalePaths> {
    matches!(plural, "deployments" | "replicasets" | "statefulsets").then(|| ScalePaths {
        replicas: ".spec.replicas".into(),
        status: ".status.replicas".into(),
        selector: Some(".spec.selector".into()),
    })
}

type Subresource = (&'static str, &'static str, &'static str, &'static [&'static str]);

/// Subresources that are neither `status` nor `scale`: name, apiVersion of its kind, kind, verbs.
fn others(plural: &str) -> Vec<Subresource> {
    match plural {
        "pods" => vec![
            ("attach", "v1", "PodAttachOptions", CONNECT),
            ("binding", "v1", "Binding", CREATE),
            ("eviction", "policy/v1", "Eviction", CREATE),
            ("exec", "v1", "PodExecOptions", CONNECT),
            ("log", "v1", "Pod", GET),
            ("portforward", "v1", "PodPortForwardOptions", CONNECT),
        ],
        "namespaces" => vec![("finalize", "v1", "Namespace", &["update"])],
        "serviceaccounts" => vec![("token", "authentication.k8s.io/v1", "TokenRequest", CREATE)],
        _ => Vec::new(),
    }
}
