//! Is this a name, a label, a port's name?

use serde_json::{Value, json};

use crate::status::FieldError;

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

fn is_label(text: &str) -> bool {
    let inner = |char: char| char.is_ascii_lowercase() || char.is_ascii_digit();
    !text.is_empty()
        && text.chars().all(|char| inner(char) || char == '-')
        && text.starts_with(inner)
        && text.ends_with(inner)
}

fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_label)
}

fn too_long(most: usize) -> String {
    format!("must be no more than {most} characters")
}

/// What is wrong with an object's name.
pub fn rule(collection: &str, name: &str) -> Option<String> {
    // Roles are named by paths' segments, so that `system:node` is possible.
    if collection.ends_with("rbac.authorization.k8s.io") {
        let wrong = name == "." || name == ".." || name.contains('/') || name.contains('%');
        return wrong.then(|| "may not be '.' or '..', nor contain '/' or '%'".to_owned());
    }
    match collection {
        "namespaces" => label_rule(name),
        "services" => {
            if name.len() > 63 {
                return Some(too_long(63));
            }
            (!is_label(name) || !name.starts_with(|char: char| char.is_ascii_lowercase()))
                .then(|| LABEL_1035.to_owned())
        }
        _ if name.len() > 253 => Some(too_long(253)),
        _ => (!is_subdomain(name)).then(|| SUBDOMAIN.to_owned()),
    }
}

/// What is wrong with a label of DNS.
pub fn label_rule(name: &str) -> Option<String> {
    if name.len() > 63 {
        return Some(too_long(63));
    }
    (!is_label(name)).then(|| LABEL.to_owned())
}

/// What is wrong with a port's name.
pub fn port_name_rule(name: &str) -> Option<String> {
    if name.len() > 15 {
        return Some("must be no more than 15 characters".to_owned());
    }
    if !is_label(name) || name.contains("--") {
        return Some("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    let letter = name.chars().any(|char| char.is_ascii_lowercase());
    (!letter).then(|| "must contain at least one letter (a-z)".to_owned())
}

fn is_qualified(text: &str, empty: bool) -> bool {
    if text.is_empty() {
        return empty;
    }
    text.chars().all(|char| char.is_ascii_alphanumeric() || "-_.".contains(char))
        && text.starts_with(|char: char| char.is_ascii_alphanumeric())
        && text.ends_with(|char: char| char.is_ascii_alphanumeric())
}

/// Checks a label's or annotation's key.
pub fn key(key: &str, path: &str, errors: &mut Vec<FieldError>) {
    let (prefix, name) = key.rsplit_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    if prefix.is_some_and(|prefix| !is_subdomain(prefix) || prefix.len() > 253) {
        errors.push(FieldError::invalid(path, &json!(key), &format!("prefix part {SUBDOMAIN}")));
    }
    if name.len() > 63 {
        errors.push(FieldError::invalid(path, &json!(key), &format!("name part {}", too_long(63))));
    } else if !is_qualified(name, false) {
        errors.push(FieldError::invalid(path, &json!(key), QUALIFIED));
    }
}

/// Checks a map of labels.
pub fn labels(labels: Option<&Value>, path: &str, errors: &mut Vec<FieldError>) {
    for (name, value) in labels.and_then(Value::as_object).into_iter().flatten() {
        key(name, path, errors);
        let text = value.as_str().unwrap_or_default();
        if text.len() > 63 {
            errors.push(FieldError::invalid(path, value, &too_long(63)));
        } else if !is_qualified(text, true) {
            errors.push(FieldError::invalid(path, value, LABEL_VALUE));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_their_kinds_rules() {
        assert!(rule("pods", "a.b-c").is_none());
        assert!(rule("pods", "Foo").is_some());
        assert!(rule("pods", "-a").is_some());
        assert!(rule("services", "1a").is_some());
        assert!(rule("namespaces", "a.b").is_some());
        assert!(rule("clusterroles.rbac.authorization.k8s.io", "system:node").is_none());
        assert!(port_name_rule("http").is_none());
        assert!(port_name_rule("80").is_some());
    }
}
