//! What labels does a pod's identity have, whatever the pod claims of itself?

use std::collections::BTreeMap;

use crate::{CLUSTER, Label, LabelFilter, Labels, NAMESPACE_LABELS, OWN_PREFIX, POD_NAMESPACE, SERVICE_ACCOUNT};

/// What is known of a pod, by who knows it.
#[derive(Clone, Copy, Debug)]
pub struct Workload<'a> {
    /// `metadata.labels` of the pod: its author chose them.
    pub labels: &'a BTreeMap<String, String>,
    /// Name of the namespace that the pod is in.
    pub namespace: &'a str,
    /// Labels of that namespace.
    pub namespace_labels: &'a BTreeMap<String, String>,
    /// Service account; empty if it has none.
    pub service_account: &'a str,
    /// Name of the cluster.
    pub cluster: &'a str,
}

/// True for keys that the agent sets itself and that a pod's own labels may not set.
pub fn is_owned_key(key: &str) -> bool {
    key.starts_with(OWN_PREFIX) || key == POD_NAMESPACE
}

/// The labels that make up the identity of a pod.
pub fn workload_labels(workload: &Workload<'_>, filter: &LabelFilter) -> Labels {
    let claimed = workload.labels.iter().filter(|(key, _)| !is_owned_key(key));
    let claimed = claimed.map(|(key, value)| Label::k8s(key, value));
    let namespace = workload.namespace_labels.iter();
    let namespace = namespace.map(|(key, value)| Label::k8s(format!("{NAMESPACE_LABELS}.{key}"), value));
    let account = Some(workload.service_account).filter(|account| !account.is_empty());
    let known = [Label::k8s(POD_NAMESPACE, workload.namespace), Label::k8s(CLUSTER, workload.cluster)];
    let account = account.map(|account| Label::k8s(SERVICE_ACCOUNT, account));
    claimed.chain(namespace).chain(known).chain(account).filter(|label| filter.keeps(label)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn labels_of(pod: &[(&str, &str)], account: &str) -> Labels {
        let workload = Workload {
            labels: &map(pod),
            namespace: "default",
            namespace_labels: &map(&[("kubernetes.io/metadata.name", "default"), ("team", "a")]),
            service_account: account,
            cluster: "kind-kind",
        };
        workload_labels(&workload, &LabelFilter::default())
    }

    #[test]
    fn a_pod_has_its_labels_and_what_the_cluster_knows_of_it() {
        let labels =
            labels_of(&[("app", "reviews"), ("version", "v1"), ("pod-template-hash", "77f")], "bookinfo-reviews");
        let expected = [
            "k8s:app=reviews",
            "k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=default",
            "k8s:io.cilium.k8s.namespace.labels.team=a",
            "k8s:io.cilium.k8s.policy.cluster=kind-kind",
            "k8s:io.cilium.k8s.policy.serviceaccount=bookinfo-reviews",
            "k8s:io.kubernetes.pod.namespace=default",
            "k8s:version=v1",
        ];
        assert_eq!(labels.to_strings(), expected);
    }

    #[test]
    fn a08_a_pod_cannot_claim_another_namespace() {
        let labels =
            labels_of(&[(POD_NAMESPACE, "kube-system"), (CLUSTER, "other"), (SERVICE_ACCOUNT, "admin")], "plain");
        assert_eq!(labels.namespace(), Some("default"));
        assert_eq!(labels.get("k8s", CLUSTER), Some("kind-kind"));
        assert_eq!(labels.get("k8s", SERVICE_ACCOUNT), Some("plain"));
        let without_account = labels_of(&[(SERVICE_ACCOUNT, "admin")], "");
        assert_eq!(without_account.get("k8s", SERVICE_ACCOUNT), None);
    }

    #[test]
    fn a09_a_pod_cannot_claim_labels_of_its_namespace() {
        let forged = [("io.cilium.k8s.namespace.labels.team", "b"), ("io.cilium.k8s.namespace.labels.admin", "true")];
        let labels = labels_of(&forged, "x");
        assert_eq!(labels.get("k8s", "io.cilium.k8s.namespace.labels.team"), Some("a"));
        assert_eq!(labels.get("k8s", "io.cilium.k8s.namespace.labels.admin"), None);
    }
}
