//! Does an object match a label selector or a field selector?

use serde_json::{Map, Value};

use crate::meta;
use crate::status::Status;

/// One requirement on labels.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    NotExists(String),
    Greater(String, i64),
    Less(String, i64),
}

/// All requirements on labels must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(Vec<Requirement>);

/// All requirements on fields must hold: field, equal or not, value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(Vec<(String, bool, String)>);

impl Requirement {
    fn holds(&self, labels: Option<&Map<String, Value>>) -> bool {
        let value = |key: &str| labels.and_then(|labels| labels.get(key)).and_then(Value::as_str);
        let number = |key: &str| value(key).and_then(|text| text.parse::<i64>().ok());
        match self {
            Self::In(key, allowed) => value(key).is_some_and(|value| allowed.iter().any(|one| one == value)),
            Self::NotIn(key, refused) => value(key).is_none_or(|value| refused.iter().all(|one| one != value)),
            Self::Exists(key) => value(key).is_some(),
            Self::NotExists(key) => value(key).is_none(),
            Self::Greater(key, least) => number(key).is_some_and(|number| number > *least),
            Self::Less(key, most) => number(key).is_some_and(|number| number < *most),
        }
    }
}

impl Labels {
    /// Reads the form of query parameters: `a=b,c!=d,e in (f,g),h notin (i),j,!k`.
    ///
    /// # Errors
    /// If the text is not of that form.
    pub fn parse(text: &str) -> Result<Self, Status> {
        let parts = split_outside_parentheses(text);
        parts
            .into_iter()
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(requirement)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Reads a `LabelSelector` object.
    pub fn from_object(selector: &Value) -> Self {
        let mut all = Vec::new();
        for (key, value) in selector["matchLabels"].as_object().into_iter().flatten() {
            all.push(Requirement::In(key.clone(), vec![value.as_str().unwrap_or_default().to_owned()]));
        }
        for one in meta::list(selector, "/matchExpressions") {
            let key = one["key"].as_str().unwrap_or_default().to_owned();
            let values = one["values"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
            all.push(match one["operator"].as_str().unwrap_or_default() {
                "NotIn" => Requirement::NotIn(key, values.collect()),
                "Exists" => Requirement::Exists(key),
                "DoesNotExist" => Requirement::NotExists(key),
                _ => Requirement::In(key, values.collect()),
            });
        }
        Self(all)
    }

    pub fn matches(&self, object: &Value) -> bool {
        self.matches_labels(meta::labels(object))
    }

    pub fn matches_labels(&self, labels: Option<&Map<String, Value>>) -> bool {
        self.0.iter().all(|requirement| requirement.holds(labels))
    }
}

/// The text form of a `LabelSelector` object, as `scale` shows it.
pub fn to_text(selector: &Value) -> String {
    let mut parts = Vec::new();
    for (key, value) in selector["matchLabels"].as_object().into_iter().flatten() {
        parts.push(format!("{key}={}", value.as_str().unwrap_or_default()));
    }
    for one in meta::list(selector, "/matchExpressions") {
        let key = one["key"].as_str().unwrap_or_default();
        let values: Vec<&str> = one["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let values = values.join(",");
        parts.push(match one["operator"].as_str().unwrap_or_default() {
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            _ => format!("{key} in ({values})"),
        });
    }
    parts.join(",")
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let mut depth = 0;
    text.split(|char| {
        match char {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        char == ',' && depth == 0
    })
    .collect()
}

fn requirement(text: &str) -> Result<Requirement, Status> {
    let fault = || Status::bad_request(format!("unable to parse requirement: {text:?} is not a label requirement"));
    let set = |rest: &str| -> Option<Vec<String>> {
        let inner = rest.trim().strip_prefix('(')?.strip_suffix(')')?;
        Some(inner.split(',').map(|value| value.trim().to_owned()).collect())
    };
    for (word, negative) in [(" notin ", true), (" in ", false), (" notin(", true), (" in(", false)] {
        if let Some(at) = text.find(word) {
            let open = word.trim_end_matches('(').len();
            let values = set(&text[at + open..]).ok_or_else(fault)?;
            let key = text[..at].trim().to_owned();
            return Ok(if negative { Requirement::NotIn(key, values) } else { Requirement::In(key, values) });
        }
    }
    let pair = |(key, value): (&str, &str)| (key.trim().to_owned(), vec![value.trim().to_owned()]);
    let parsed = if let Some(both) = text.split_once("!=") {
        let (key, values) = pair(both);
        Requirement::NotIn(key, values)
    } else if let Some(both) = text.split_once("==").or_else(|| text.split_once('=')) {
        let (key, values) = pair(both);
        Requirement::In(key, values)
    } else if let Some((key, number)) = text.split_once('>') {
        Requirement::Greater(key.trim().to_owned(), number.trim().parse().map_err(|_| fault())?)
    } else if let Some((key, number)) = text.split_once('<') {
        Requirement::Less(key.trim().to_owned(), number.trim().parse().map_err(|_| fault())?)
    } else if let Some(key) = text.strip_prefix('!') {
        Requirement::NotExists(key.trim().to_owned())
    } else {
        Requirement::Exists(text.to_owned())
    };
    let key = match &parsed {
        Requirement::In(key, _) | Requirement::NotIn(key, _) | Requirement::Exists(key) => key,
        Requirement::NotExists(key) | Requirement::Greater(key, _) | Requirement::Less(key, _) => key,
    };
    if key.is_empty() || key.contains(char::is_whitespace) { Err(fault()) } else { Ok(parsed) }
}

impl Fields {
    /// Reads `a.b=c,d!=e` for the given collection.
    ///
    /// # Errors
    /// If the form is wrong, or the collection cannot be selected by such a field.
    pub fn parse(text: &str, collection: &str) -> Result<Self, Status> {
        let mut all = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (field, equal, value) = if let Some((field, value)) = part.split_once("!=") {
                (field, false, value)
            } else if let Some((field, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
                (field, true, value)
            } else {
                return Err(Status::bad_request(format!("invalid field selector: {part:?}; can't understand it")));
            };
            if !selectable(collection, field) {
                return Err(Status::bad_request(format!("field label not supported: {field}")));
            }
            all.push((field.to_owned(), equal, value.to_owned()));
        }
        Ok(Self(all))
    }

    pub fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|(field, equal, value)| (field_text(object, field) == *value) == *equal)
    }

    /// The name that is asked for, if one is.
    pub fn exact_name(&self) -> Option<&str> {
        self.0.iter().find(|(field, equal, _)| field == "metadata.name" && *equal).map(|(_, _, value)| value.as_str())
    }
}

fn field_text(object: &Value, field: &str) -> String {
    // Events are kept in their core form; their other group has other names for the same fields.
    let field = match field {
        "regarding.kind" => "involvedObject.kind",
        "regarding.name" => "involvedObject.name",
        "regarding.namespace" => "involvedObject.namespace",
        "regarding.uid" => "involvedObject.uid",
        "source" => "source.component",
        other => other,
    };
    match object.pointer(&format!("/{}", field.replace('.', "/"))) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None if matches!(field, "spec.hostNetwork" | "spec.unschedulable") => "false".to_owned(),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    }
}

fn selectable(collection: &str, field: &str) -> bool {
    let more: &[&str] = match collection {
        "pods" => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
        "events" => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
            "regarding.kind",
            "regarding.name",
            "regarding.namespace",
            "regarding.uid",
        ],
        "secrets" => &["type"],
        "nodes" => &["spec.unschedulable"],
        "namespaces" => &["status.phase"],
        "services" => &["spec.clusterIP", "spec.type"],
        "replicasets.apps" => &["status.replicas"],
        _ => &[],
    };
    matches!(field, "metadata.name" | "metadata.namespace") || more.contains(&field)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn check(selector: &str, expected: bool) {
        let object = json!({"metadata": {"labels": {"app": "web", "tier": "front", "size": "7"}}});
        assert_eq!(Labels::parse(selector).unwrap().matches(&object), expected, "{selector}");
    }

    #[test]
    fn label_selectors_by_equality_set_and_existence() {
        check("app=web", true);
        check("app==web,tier!=back", true);
        check("app in (web,db), tier notin (back)", true);
        check("app in (db)", false);
        check("missing notin (x)", true);
        check("missing", false);
        check("!missing,app", true);
        check("size>6,size<8", true);
        check("", true);
        assert!(Labels::parse("app in web").is_err());
        assert!(Labels::parse("=x").is_err());
    }

    #[test]
    fn field_selectors_only_where_the_kind_has_them() {
        let pod = json!({"metadata": {"name": "a"}, "spec": {"nodeName": "n1"}, "status": {"phase": "Running"}});
        let fields = Fields::parse("spec.nodeName=n1,status.phase!=Failed", "pods").unwrap();
        assert!(fields.matches(&pod));
        assert!(Fields::parse("spec.nodeName=n1", "configmaps").is_err());
    }

    #[test]
    fn a_selector_object_is_shown_as_text() {
        let selector = json!({"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "c", "operator": "Exists"}]});
        assert_eq!(to_text(&selector), "a=b,c");
        assert!(Labels::from_object(&selector).matches(&json!({"metadata": {"labels": {"a": "b", "c": ""}}})));
    }
}
