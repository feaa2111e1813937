//! Is this a key or a value that Kubernetes takes as a label?

/// Longest name part of a key, and longest value.
pub const NAME_MAX: usize = 63;
/// Longest prefix part of a key.
pub const PREFIX_MAX: usize = 253;

/// Says what is wrong with a label's key (`prefix/name`), if anything is.
pub fn key_problem(key: &str) -> Option<String> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    let problem = prefix.and_then(prefix_problem).or_else(|| name_problem(name));
    problem.map(|why| format!("{key:?} is not a label key: {why}"))
}

/// Says what is wrong with a label's value, if anything is.
pub fn value_problem(value: &str) -> Option<String> {
    if value.is_empty() {
        return None;
    }
    name_problem(value).map(|why| format!("{value:?} is not a label value: {why}"))
}

fn name_problem(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        return Some("the name part must not be empty");
    }
    if name.len() > NAME_MAX {
        return Some("it must have at most 63 characters");
    }
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if !name.bytes().all(inner) {
        return Some("it must consist of letters, digits, '-', '_' and '.'");
    }
    let ends = [name.as_bytes()[0], name.as_bytes()[name.len() - 1]];
    if !ends.iter().all(u8::is_ascii_alphanumeric) {
        return Some("it must start and end with a letter or digit");
    }
    None
}

fn prefix_problem(prefix: &str) -> Option<&'static str> {
    if prefix.is_empty() {
        return Some("the prefix part must not be empty");
    }
    if prefix.len() > PREFIX_MAX {
        return Some("the prefix part must have at most 253 characters");
    }
    prefix.split('.').find_map(dns_label_problem)
}

fn dns_label_problem(label: &str) -> Option<&'static str> {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let ends = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let good = !label.is_empty()
        && label.bytes().all(inner)
        && ends(label.as_bytes()[0])
        && ends(label.as_bytes()[label.len() - 1]);
    (!good).then_some("the prefix part must be a DNS name of lower case letters, digits, '-' and '.'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_as_kubernetes_takes_them() {
        for key in ["app", "app.kubernetes.io/name", "A_b-c.d", "node-role.kubernetes.io/infra", "10.0.0.0/8"] {
            assert_eq!(key_problem(key), None);
        }
        for key in ["", "/", "a/", "/a", "a/b/c", "-a", "a-", "a b", "Up.Case/x", "ä", &"x".repeat(64)] {
            assert!(key_problem(key).is_some(), "{key}");
        }
    }

    #[test]
    fn values_as_kubernetes_takes_them() {
        for value in ["", "a", "v1.2_3-x"] {
            assert_eq!(value_problem(value), None);
        }
        for value in ["-", "a/b", "a b", &"x".repeat(64)] {
            assert!(value_problem(value).is_some(), "{value}");
        }
    }
}
