//! Which of a workload's labels make up its identity?

use crate::{Label, source};

/// One pattern, always anchored at the start of the key.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Pattern {
    /// The key starts with this.
    Prefix(&'static str),
    /// The key has this somewhere; the match reaches from the start to its last end.
    Containing(&'static str),
}

impl Pattern {
    /// How much of the key the pattern covers; `None` if it does not match.
    fn matched_len(&self, key: &str) -> Option<usize> {
        match self {
            Pattern::Prefix(prefix) => key.starts_with(prefix).then_some(prefix.len()),
            Pattern::Containing(part) => key.rfind(part).map(|at| at + part.len()),
        }
    }
}

/// Chooses the labels that matter for identity: what names a workload does, what numbers its instances does not.
///
/// A label that no pattern matches is in. If patterns of both sorts match, it is in if the longest including match is
/// longer than the shortest excluding one. `reserved:` labels are always in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LabelFilter {
    include: Vec<Pattern>,
    exclude: Vec<Pattern>,
}

impl Default for LabelFilter {
    fn default() -> Self {
        use Pattern::{Containing, Prefix};
        LabelFilter {
            include: vec![
                Prefix(crate::POD_NAMESPACE),
                Prefix(crate::NAMESPACE_LABELS),
                Prefix("app.kubernetes.io"),
                Prefix(crate::CLUSTER),
                Prefix(crate::SERVICE_ACCOUNT),
            ],
            exclude: vec![
                Prefix("io.kubernetes"),
                Prefix("kubernetes.io"),
                Prefix("statefulset.kubernetes.io/pod-name"),
                Prefix("apps.kubernetes.io/pod-index"),
                Prefix("batch.kubernetes.io/job-completion-index"),
                Prefix("batch.kubernetes.io/controller-uid"),
                Containing("beta.kubernetes.io"),
                Prefix("k8s.io"),
                Prefix("pod-template-generation"),
                Prefix("pod-template-hash"),
                Prefix("controller-revision-hash"),
                Prefix("controller-uid"),
                Prefix("annotation"),
                Prefix("etcd_node"),
                Prefix("topology.kubernetes.io"),
            ],
        }
    }
}

impl LabelFilter {
    /// True if the label is part of the identity.
    pub fn keeps(&self, label: &Label) -> bool {
        if label.source == source::RESERVED {
            return true;
        }
        let lengths = |patterns: &[Pattern]| -> Vec<usize> {
            patterns.iter().filter_map(|pattern| pattern.matched_len(&label.key)).collect()
        };
        let Some(excluded) = lengths(&self.exclude).into_iter().min() else { return true };
        lengths(&self.include).into_iter().max().is_some_and(|included| included > excluded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(key: &str, kept: bool) {
        assert_eq!(LabelFilter::default().keeps(&Label::k8s(key, "x")), kept, "{key}");
    }

    #[test]
    fn names_of_workloads_stay_and_numbers_of_instances_go() {
        for key in ["app", "version", "app.kubernetes.io/name", crate::POD_NAMESPACE, crate::CLUSTER, "run"] {
            check(key, true);
        }
        check("io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name", true);
        for key in [
            "pod-template-hash",
            "pod-template-generation",
            "controller-revision-hash",
            "controller-uid",
            "statefulset.kubernetes.io/pod-name",
            "apps.kubernetes.io/pod-index",
            "batch.kubernetes.io/job-completion-index",
            "io.kubernetes.pod.name",
            "kubernetes.io/hostname",
            "k8s.io/x",
            "annotation.foo",
            "annotations",
            "failure-domain.beta.kubernetes.io/zone",
            "topology.kubernetes.io/zone",
            "etcd_node",
        ] {
            check(key, false);
        }
    }

    #[test]
    fn patterns_hold_at_the_start_of_a_key_only() {
        check("my.k8s.io/x", true);
        check("foo.kubernetes.io/x", true);
        check("x-pod-template-hash", true);
    }

    #[test]
    fn reserved_labels_always_stay() {
        assert!(LabelFilter::default().keeps(&Label::reserved("k8s.io")));
    }
}
