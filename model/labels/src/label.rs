//! What is one label, and how is it written?

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::source;

/// `source:key=value`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Label {
    /// Who vouches for it: one of [`crate::source`].
    pub source: String,
    /// Unique within a source for one set of labels.
    pub key: String,
    /// May be empty.
    pub value: String,
}

/// Why a text is not a label.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text:?} is not a label: {why}; labels look like k8s:app=web or reserved:host")]
pub struct LabelError {
    /// What was found.
    pub text: String,
    why: &'static str,
}

impl Label {
    /// A label from its parts.
    pub fn new(source: impl Into<String>, key: impl Into<String>, value: impl Into<String>) -> Self {
        Label { source: source.into(), key: key.into(), value: value.into() }
    }

    /// A label that Kubernetes vouches for.
    pub fn k8s(key: impl Into<String>, value: impl Into<String>) -> Self {
        Label::new(source::K8S, key, value)
    }

    /// One of the agent's own labels.
    pub fn reserved(key: impl Into<String>) -> Self {
        Label::new(source::RESERVED, key, "")
    }

    /// True for `reserved:` and this key.
    pub fn is_reserved(&self, key: &str) -> bool {
        self.source == source::RESERVED && self.key == key
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.source, self.key)?;
        if !self.value.is_empty() {
            write!(f, "={}", self.value)?;
        }
        Ok(())
    }
}

impl FromStr for Label {
    type Err = LabelError;

    fn from_str(text: &str) -> Result<Self, LabelError> {
        let refuse = |why| LabelError { text: text.to_owned(), why };
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        let (source, key) = name.split_once(':').unwrap_or((source::UNSPEC, name));
        if source.is_empty() {
            return Err(refuse("nothing stands before the colon"));
        }
        if key.is_empty() {
            return Err(refuse("it has no key"));
        }
        Ok(Label::new(source, key, value))
    }
}

impl Serialize for Label {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Label {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_label_prints_as_it_was_read() {
        for text in ["k8s:app=web", "reserved:host", "cidr:10.0.0.0/8", "k8s:a/b=", "k8s:x=a=b"] {
            let label: Label = text.parse().unwrap();
            assert_eq!(label.to_string(), text.trim_end_matches('='));
        }
    }

    #[test]
    fn without_a_source_it_is_unspecified() {
        assert_eq!("app=web".parse::<Label>().unwrap(), Label::new("unspec", "app", "web"));
    }

    #[test]
    fn what_is_not_a_label_says_why() {
        assert!("".parse::<Label>().unwrap_err().to_string().contains("no key"));
        assert!(":app=web".parse::<Label>().unwrap_err().to_string().contains("before the colon"));
    }
}
