//! How is a label selector written in an object?

use std::collections::BTreeMap;

use labels::{Operator, Requirement, Selector, SelectorError, SelectorKey};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Selects by labels. All of matchLabels and matchExpressions must hold; an empty selector selects everything that its
/// place allows. Keys may name a source, as in k8s:app, reserved:host or any:app; without one, all sources count.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct LabelSelector {
    /// Keys and the values that their labels must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("additionalProperties" = {
        "type": "string", "maxLength": 63, "pattern": "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$",
        "description": "The value that the label must have."
    }))]
    pub match_labels: Option<BTreeMap<String, String>>,
    /// Conditions on labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub match_expressions: Option<Vec<MatchExpression>>,
}

/// A condition on the label of one key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct MatchExpression {
    /// Key of the label.
    pub key: String,
    /// In: the label is there with one of the values. NotIn: it is not there, or with another value. Exists: it is
    /// there. DoesNotExist: it is not.
    #[schemars(extend("enum" = ["In", "NotIn", "Exists", "DoesNotExist"]))]
    pub operator: String,
    /// Values for In and NotIn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub values: Option<Vec<String>>,
}

impl LabelSelector {
    /// The selector that it means; every problem with its place below the selector if it means none.
    pub fn parse(&self) -> Result<Selector, Vec<(String, SelectorError)>> {
        self.parse_with(|key| key.parse())
    }

    /// The same with another reading of keys.
    pub fn parse_with(
        &self,
        read_key: impl Fn(&str) -> Result<SelectorKey, SelectorError>,
    ) -> Result<Selector, Vec<(String, SelectorError)>> {
        let labels = self.match_labels.iter().flatten().map(|(key, value)| {
            let requirement = requirement(&read_key, key, "In", std::slice::from_ref(value));
            requirement.map_err(|error| (format!("matchLabels.{key}"), error))
        });
        let expressions = self.match_expressions.iter().flatten().enumerate().map(|(at, one)| {
            let values = one.values.as_deref().unwrap_or_default();
            let requirement = requirement(&read_key, &one.key, &one.operator, values);
            requirement.map_err(|error| (format!("matchExpressions[{at}]"), error))
        });
        let (good, wrong): (Vec<_>, Vec<_>) = labels.chain(expressions).partition(Result::is_ok);
        if wrong.is_empty() {
            return Ok(Selector::new(good.into_iter().flatten()));
        }
        Err(wrong.into_iter().filter_map(Result::err).collect())
    }
}

fn requirement(
    read_key: impl Fn(&str) -> Result<SelectorKey, SelectorError>,
    key: &str,
    operator: &str,
    values: &[String],
) -> Result<Requirement, SelectorError> {
    Ok(Requirement { key: read_key(key)?, operator: Operator::parse(key, operator, values)? })
}
