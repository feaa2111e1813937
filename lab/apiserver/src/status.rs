//! How does the API say that a request failed?

use serde_json::{Map, Value, json};

/// A failed request as clients see it: HTTP code, machine-readable reason, text and details.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Status {
    /// HTTP status code.
    pub code: u16,
    /// Reason in CamelCase, for example `NotFound`.
    pub reason: &'static str,
    /// Text for people.
    pub message: String,
    /// Which object, and which of its fields.
    pub details: Map<String, Value>,
}

/// What is wrong with one field.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    /// Path such as `spec.template.metadata.labels`.
    pub field: String,
    /// Reason such as `FieldValueInvalid`.
    pub reason: &'static str,
    /// Text such as `Invalid value: "x": must be lower case`.
    pub message: String,
}

fn with_detail(head: String, detail: &str) -> String {
    if detail.is_empty() { head } else { format!("{head}: {detail}") }
}

/// A value as field errors quote it.
fn quoted(value: &Value) -> String {
    value.to_string()
}

impl FieldError {
    fn new(field: impl Into<String>, reason: &'static str, message: String) -> Self {
        Self { field: field.into(), reason, message }
    }

    /// A field that must be there is not.
    pub fn required(field: impl Into<String>, detail: &str) -> Self {
        Self::new(field, "FieldValueRequired", with_detail("Required value".into(), detail))
    }

    /// A value breaks a rule.
    pub fn invalid(field: impl Into<String>, value: &Value, detail: &str) -> Self {
        Self::new(field, "FieldValueInvalid", with_detail(format!("Invalid value: {}", quoted(value)), detail))
    }

    /// A value is of the wrong type.
    pub fn type_invalid(field: impl Into<String>, value: &str, detail: &str) -> Self {
        Self::new(field, "FieldValueTypeInvalid", with_detail(format!("Invalid value: {value:?}"), detail))
    }

    /// A value is none of those allowed.
    pub fn unsupported(field: impl Into<String>, value: &Value, allowed: &[String]) -> Self {
        let allowed = allowed.iter().map(|one| format!("{one:?}")).collect::<Vec<_>>().join(", ");
        let message = format!("Unsupported value: {}: supported values: {allowed}", quoted(value));
        Self::new(field, "FieldValueNotSupported", message)
    }

    /// A value occurs twice.
    pub fn duplicate(field: impl Into<String>, value: &Value) -> Self {
        Self::new(field, "FieldValueDuplicate", format!("Duplicate value: {}", quoted(value)))
    }

    /// Something may not be done to this field.
    pub fn forbidden(field: impl Into<String>, detail: &str) -> Self {
        Self::new(field, "FieldValueForbidden", with_detail("Forbidden".into(), detail))
    }

    /// A reference leads nowhere.
    pub fn not_found(field: impl Into<String>, value: &Value) -> Self {
        Self::new(field, "FieldValueNotFound", format!("Not found: {}", quoted(value)))
    }
}

/// `deployments` and `apps` as errors name them: `deployments.apps`.
pub fn qualified(plural: &str, group: &str) -> String {
    if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") }
}

/// Conflicts by owner, one line for each field.
fn conflicts_text(causes: &[(String, String)]) -> String {
    let mut text = format!("Apply failed with {} conflicts:", causes.len());
    let mut last = "";
    let single = causes.iter().all(|(_, message)| *message == causes[0].1);
    for (field, message) in causes {
        if message != last {
            let plural = message.replacen("conflict with", "conflicts with", 1);
            text.push_str(&format!("{}{plural}:", if single { ' ' } else { '\n' }));
        }
        text.push_str(&format!("\n- {field}"));
        last = message;
    }
    text
}

impl Status {
    fn plain(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: Map::new() }
    }

    fn about(mut self, group: &str, plural: &str, name: &str) -> Self {
        if !name.is_empty() {
            self.details.insert("name".into(), name.into());
        }
        if !group.is_empty() {
            self.details.insert("group".into(), group.into());
        }
        self.details.insert("kind".into(), plural.into());
        self
    }

    pub fn not_found(group: &str, plural: &str, name: &str) -> Self {
        let message = format!("{} {name:?} not found", qualified(plural, group));
        Self::plain(404, "NotFound", message).about(group, plural, name)
    }

    pub fn no_such_path() -> Self {
        Self::plain(404, "NotFound", "the server could not find the requested resource")
    }

    pub fn already_exists(group: &str, plural: &str, name: &str) -> Self {
        let message = format!("{} {name:?} already exists", qualified(plural, group));
        Self::plain(409, "AlreadyExists", message).about(group, plural, name)
    }

    pub fn conflict(group: &str, plural: &str, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} {name:?}: {why}", qualified(plural, group));
        Self::plain(409, "Conflict", message).about(group, plural, name)
    }

    pub fn modified(group: &str, plural: &str, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(group, plural, name, why)
    }

    /// Conflicts of field owners: each cause is (field, message).
    pub fn owned_by_others(causes: &[(String, String)]) -> Self {
        let text = match causes {
            [(field, message)] => format!("Apply failed with 1 conflict: {message}: {field}"),
            _ => conflicts_text(causes),
        };
        let causes: Vec<Value> = causes
            .iter()
            .map(|(field, message)| json!({"reason": "FieldManagerConflict", "message": message, "field": field}))
            .collect();
        let mut status = Self::plain(409, "Conflict", text);
        status.details.insert("causes".into(), causes.into());
        status
    }

    pub fn invalid(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Self {
        let mut texts: Vec<String> =
            errors.iter().map(|error| with_detail(error.field.clone(), &error.message)).collect();
        texts.dedup();
        let text = if texts.len() == 1 { texts.concat() } else { format!("[{}]", texts.join(", ")) };
        let message = format!("{} {name:?} is invalid: {text}", qualified(kind, group));
        let causes: Vec<Value> = errors
            .iter()
            .map(|error| json!({"reason": error.reason, "message": error.message, "field": error.field}))
            .collect();
        let mut status = Self::plain(422, "Invalid", message).about(group, kind, name);
        status.details.insert("causes".into(), causes.into());
        status
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::plain(400, "BadRequest", message)
    }

    pub fn unauthorized() -> Self {
        Self::plain(401, "Unauthorized", "Unauthorized")
    }

    pub fn forbidden(group: &str, plural: &str, name: &str, why: &str) -> Self {
        let object = if name.is_empty() { String::new() } else { format!(" {name:?}") };
        let message = format!("{}{object} is forbidden: {why}", qualified(plural, group));
        Self::plain(403, "Forbidden", message).about(group, plural, name)
    }

    pub fn method_not_allowed() -> Self {
        Self::plain(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
    }

    pub fn not_acceptable(only: &str) -> Self {
        let message = format!("only the following media types are accepted: {only}");
        Self::plain(406, "NotAcceptable", message)
    }

    pub fn unsupported_media(message: impl Into<String>) -> Self {
        Self::plain(415, "UnsupportedMediaType", message)
    }

    pub fn expired(message: impl Into<String>) -> Self {
        Self::plain(410, "Expired", message)
    }

    pub fn too_large(limit: usize) -> Self {
        let message = format!("Request entity too large: limit is {limit}");
        Self::plain(413, "RequestEntityTooLarge", message)
    }

    pub fn too_many(message: impl Into<String>) -> Self {
        Self::plain(429, "TooManyRequests", message)
    }

    pub fn internal(message: impl std::fmt::Display) -> Self {
        Self::plain(500, "InternalError", format!("Internal error occurred: {message}"))
    }

    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::plain(503, "ServiceUnavailable", message)
    }

    /// The `Status` object of `v1`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut object = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason,
        });
        if !self.details.is_empty() {
            object["details"] = Value::Object(self.details.clone());
        }
        object["code"] = self.code.into();
        object
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_invalid_object_names_fields_and_reasons() {
        let status = Status::invalid("apps", "Deployment", "web", &[FieldError::required("spec.selector", "")]);
        assert_eq!(status.message, "Deployment.apps \"web\" is invalid: spec.selector: Required value");
        let object = status.to_json();
        assert_eq!(object["details"]["causes"][0]["field"], "spec.selector");
        assert_eq!(object["code"], 422);
    }

    #[test]
    fn a_missing_object_is_named_with_its_group() {
        assert_eq!(Status::not_found("apps", "deployments", "x").message, "deployments.apps \"x\" not found");
        assert_eq!(Status::not_found("", "pods", "x").message, "pods \"x\" not found");
    }
}
