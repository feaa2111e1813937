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

/// Says what is wrong with an object's name, if anything is: most kinds take a subdomain of RFC 1123.
pub fn object_name_problem(name: &str) -> Option<String> {
    let good = name.len() <= PREFIX_MAX && name.split('.').all(is_dns_label);
    (!good).then(|| {
        format!(
            "{name:?} is not a name of an object: it must consist of lower case letters, digits, '-' and '.', each part between \
             dots must start and end with a letter or digit, and it must have at most {PREFIX_MAX} characters; found {}",
            name.len()
        )
    })
}

/// Says what is wrong with a namespace's name, if anything is: it must be a label of RFC 1123.
pub fn namespace_problem(name: &str) -> Option<String> {
    let good = name.len() <= NAME_MAX && is_dns_label(name);
    (!good).then(|| {
        format!(
            "{name:?} is not a name of a namespace: it must consist of lower case letters, digits and '-', start and end with \
             a letter or digit, and have at most {NAME_MAX} characters; found {}",
            name.len()
        )
    })
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
    (!is_dns_label(label)).then_some("the prefix part must be a DNS name of lower case letters, digits, '-' and '.'")
}

fn is_dns_label(label: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let ends = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    !label.is_empty()
        && label.bytes().all(inner)
        && ends(label.as_bytes()[0])
        && ends(label.as_bytes()[label.len() - 1])
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
    fn names_as_kubernetes_takes_them() {
        let longest = vec!["a".repeat(63); 4].join(".")[..253].to_owned();
        for name in ["a", "a.b-c.0", "10.0.0.1", longest.as_str()] {
            assert_eq!(object_name_problem(name), None);
        }
        let longer = format!("{longest}a");
        for name in ["", "A", "a_b", "a b", "-a", "a-", "a..b", ".a", "a.", "a.-b", "ä", "a/b", longer.as_str()] {
            assert!(object_name_problem(name).is_some(), "{name}");
        }
        assert_eq!(namespace_problem(&"a".repeat(63)), None);
        for name in ["", "a.b", "A", "-a", &"a".repeat(64)] {
            assert!(namespace_problem(name).is_some(), "{name}");
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
