//! What does CiliumIdentity look like?

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::resource::{metadata_schema, resource};

/// A security identity: the name is a number, which stands for the set of labels.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CiliumIdentity {
    /// Version of the API that the object is written for.
    #[serde(default = "CiliumIdentity::default_api_version")]
    pub api_version: String,
    /// Kind of the object.
    #[serde(default = "CiliumIdentity::default_kind")]
    pub kind: String,
    /// The name is the identity's number; the labels are for people.
    #[schemars(schema_with = "metadata_schema")]
    pub metadata: ObjectMeta,
    /// The labels that the number stands for, with their source in the key: k8s:app.
    #[serde(rename = "security-labels")]
    pub security_labels: BTreeMap<String, String>,
}

resource!(CiliumIdentity, "ciliumidentities", ClusterResourceScope);

impl CiliumIdentity {
    /// The object for a number and its labels.
    pub fn new(number: u32, labels: &labels::Labels) -> Self {
        let metadata = ObjectMeta {
            name: Some(number.to_string()),
            labels: labels
                .namespace()
                .map(|namespace| BTreeMap::from([(labels::POD_NAMESPACE.to_owned(), namespace.to_owned())])),
            ..ObjectMeta::default()
        };
        let entry = |label: &labels::Label| (format!("{}:{}", label.source, label.key), label.value.clone());
        CiliumIdentity {
            api_version: Self::default_api_version(),
            kind: Self::default_kind(),
            metadata,
            security_labels: labels.iter().map(entry).collect(),
        }
    }

    /// The number, if the name is one.
    pub fn number(&self) -> Option<u32> {
        self.metadata.name.as_deref()?.parse().ok()
    }

    /// The labels that the number stands for.
    pub fn labels(&self) -> labels::Labels {
        let label = |(name, value): (&String, &String)| {
            let (source, key) = name.split_once(':').unwrap_or((labels::source::UNSPEC, name));
            labels::Label::new(source, key, value)
        };
        self.security_labels.iter().map(label).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn number_and_labels_survive_the_object() {
        let labels = labels::Labels::parse(["k8s:app=x", "k8s:io.kubernetes.pod.namespace=a"]).unwrap();
        let object = CiliumIdentity::new(4711, &labels);
        let text = serde_json::to_string(&object).unwrap();
        let read: CiliumIdentity = serde_json::from_str(&text).unwrap();
        assert_eq!((read.number(), read.labels()), (Some(4711), labels));
        assert!(text.contains(r#""security-labels":{"k8s:app":"x""#), "{text}");
    }
}
