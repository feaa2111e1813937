//! Which labels does something have?

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Label, LabelError, source};

/// A sorted set of labels with at most one value for each source and key; cloning copies a pointer. Sets can have
/// labels in common.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Labels(Arc<[Arc<Label>]>);

/// Of so many, all are looked at: most keys differ in their lengths, and texts that differ so are not read.
const FEW: usize = 16;

/// The labels of a set in order.
pub type Iter<'a> = std::iter::Map<std::slice::Iter<'a, Arc<Label>>, fn(&'a Arc<Label>) -> &'a Label>;

impl Labels {
    /// No labels.
    pub fn empty() -> Self {
        Labels(Arc::from([]))
    }

    /// The set of these labels; of several with one source and key the last one counts.
    pub fn new(labels: impl IntoIterator<Item = Label>) -> Self {
        let mut sorted: Vec<Label> = labels.into_iter().collect();
        // Stable, and reversed, so that the last one is the first of its kind and survives.
        sorted.reverse();
        sorted.sort_by(|a, b| (&a.source, &a.key).cmp(&(&b.source, &b.key)));
        sorted.dedup_by(|a, b| a.source == b.source && a.key == b.key);
        Labels(sorted.into_iter().map(Arc::new).collect())
    }

    /// One label `reserved:key`.
    pub fn reserved(key: &str) -> Self {
        Labels::new([Label::reserved(key)])
    }

    /// Reads `source:key=value` texts.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, LabelError> {
        Ok(Labels::new(texts.into_iter().map(str::parse).collect::<Result<Vec<_>, _>>()?))
    }

    /// The labels in order.
    pub fn iter(&self) -> Iter<'_> {
        self.0.iter().map(Arc::as_ref)
    }

    /// The same set, of labels that it can have in common with other sets: what `share` yields must be equal.
    pub fn shared(&self, share: impl FnMut(&Arc<Label>) -> Arc<Label>) -> Self {
        Labels(self.0.iter().map(share).collect())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of a label, if it is there.
    pub fn get(&self, source: &str, key: &str) -> Option<&str> {
        if self.0.len() > FEW {
            let wanted = (source, key);
            let found = self.0.binary_search_by(|label| (label.source.as_str(), label.key.as_str()).cmp(&wanted));
            return found.ok().map(|at| self.0[at].value.as_str());
        }
        let found = self.0.iter().find(|label| label.key == key && label.source == source);
        found.map(|label| label.value.as_str())
    }

    /// The values of all labels with this key, whatever their source.
    pub fn get_any<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.iter().filter(move |label| label.key == key).map(|label| label.value.as_str())
    }

    /// True if `reserved:key` is there.
    pub fn has_reserved(&self, key: &str) -> bool {
        self.get(source::RESERVED, key).is_some()
    }

    /// The namespace of a pod.
    pub fn namespace(&self) -> Option<&str> {
        self.get(source::K8S, crate::POD_NAMESPACE)
    }

    /// These and others; the others win.
    pub fn with(&self, others: impl IntoIterator<Item = Label>) -> Self {
        Labels::new(self.iter().cloned().chain(others))
    }

    /// The labels as texts, in order.
    pub fn to_strings(&self) -> Vec<String> {
        self.iter().map(Label::to_string).collect()
    }
}

impl Default for Labels {
    fn default() -> Self {
        Labels::empty()
    }
}

impl FromIterator<Label> for Labels {
    fn from_iter<I: IntoIterator<Item = Label>>(labels: I) -> Self {
        Labels::new(labels)
    }
}

impl<'a> IntoIterator for &'a Labels {
    type Item = &'a Label;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// `k8s:a=b,k8s:c=d`
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, label) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            label.fmt(f)?;
        }
        Ok(())
    }
}

impl Serialize for Labels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Labels::new(Vec::<Label>::deserialize(deserializer)?))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn labels_are_sorted_and_the_last_of_a_key_counts() {
        let labels = Labels::parse(["k8s:b=1", "reserved:host", "k8s:a=1", "k8s:a=2"]).unwrap();
        assert_eq!(labels.to_string(), "k8s:a=2,k8s:b=1,reserved:host");
        assert_eq!(labels.get("k8s", "a"), Some("2"));
        assert_eq!(labels.get("any", "a"), None);
        assert!(labels.has_reserved("host"));
    }

    #[test]
    fn order_of_input_does_not_matter() {
        let one = Labels::parse(["k8s:b=1", "k8s:a=1"]).unwrap();
        assert_eq!(one, Labels::parse(["k8s:a=1", "k8s:b=1"]).unwrap());
    }
}
