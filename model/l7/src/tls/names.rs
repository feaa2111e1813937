//! Is a server name one of those that rules list?
//!
//! `*` stands for any characters of one label, `**` for one label or several, `*` alone for any name.

/// Server names of a rule set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerNames {
    patterns: Vec<Vec<String>>,
    any: bool,
}

impl ServerNames {
    /// From patterns; those that are none match nothing.
    pub fn new(patterns: &[String]) -> ServerNames {
        let any = patterns.iter().any(|pattern| pattern == "*");
        let labels = |pattern: &String| pattern.to_ascii_lowercase().split('.').map(str::to_owned).collect();
        let valid = |labels: &Vec<String>| labels.iter().all(|label| is_pattern(label));
        ServerNames { patterns: patterns.iter().map(labels).filter(valid).collect(), any }
    }

    /// True if a pattern matches. A client that names no server matches nothing.
    pub fn allows(&self, name: Option<&str>) -> bool {
        let Some(name) = name.filter(|name| !name.is_empty()) else { return false };
        let name = name.to_ascii_lowercase();
        let labels: Vec<&str> = name.split('.').collect();
        let sound = labels.iter().all(|label| !label.is_empty() && label.bytes().all(is_label_byte));
        sound && (self.any || self.patterns.iter().any(|pattern| labels_match(pattern, &labels)))
    }
}

fn is_label_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_".contains(&byte)
}

/// Several stars in a row say nothing, but for the two that are a label.
fn is_pattern(label: &str) -> bool {
    let sound = label.bytes().all(|byte| is_label_byte(byte) || byte == b'*');
    !label.is_empty() && sound && (label == "**" || !label.contains("**"))
}

fn labels_match(pattern: &[String], labels: &[&str]) -> bool {
    match pattern.split_first() {
        None => labels.is_empty(),
        Some((first, rest)) if first == "**" => (1..=labels.len()).any(|taken| labels_match(rest, &labels[taken..])),
        Some((first, rest)) => labels
            .split_first()
            .is_some_and(|(label, others)| label_matches(first, label) && labels_match(rest, others)),
    }
}

fn label_matches(pattern: &str, label: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == label };
    let Some(mut text) = label.strip_prefix(start) else { return false };
    let parts: Vec<&str> = rest.split('*').collect();
    let Some((end, middle)) = parts.split_last() else { return text.is_empty() };
    for part in middle {
        let Some(at) = text.find(part) else { return false };
        text = &text[at + part.len()..];
    }
    text.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, pass: &[&str], stop: &[&str]) {
        let names = ServerNames::new(&[pattern.to_owned()]);
        for name in pass {
            assert!(names.allows(Some(name)), "{pattern} {name}");
        }
        for name in stop {
            assert!(!names.allows(Some(name)), "{pattern} {name}");
        }
    }

    #[test]
    fn server_names_match_as_in_cilium() {
        check("cilium.io", &["cilium.io", "CILIUM.io"], &["www.cilium.io", "ciliumxio", "cilium.io.", ""]);
        check("Cilium.IO", &["cilium.io"], &[]);
        check(
            "*.cilium.io",
            &["www.cilium.io", "blog.cilium.io"],
            &["cilium.io", "foo.bar.cilium.io", "kubernetes.io"],
        );
        check("*cilium.io", &["cilium.io", "sub-cilium.io"], &["www.cilium.io"]);
        check("sub*.cilium.io", &["sub.cilium.io", "subdomain.cilium.io"], &["www.cilium.io", "blog-sub.cilium.io"]);
        check("**.cilium.io", &["www.cilium.io", "test.app.cilium.io"], &["cilium.io"]);
        check("a.**.b", &["a.x.b", "a.x.y.b"], &["a.b", "x.a.x.b"]);
        check("a*b*c.x", &["abc.x", "a1b2c.x", "abbc.x"], &["acb.x", "ab.x"]);
        check("*", &["a", "a.b.c"], &["", "a..b", "a b"]);
        check("**", &["a", "a.b.c"], &[""]);
    }

    #[test]
    fn a17_a63_patterns_that_are_none_and_clients_without_name_match_nothing() {
        for pattern in ["***.a", "a**.b", "", "a..b", "a b", "[a].b", "."] {
            check(pattern, &[], &["a.b", "a", "ab.b", "xx.a"]);
        }
        assert!(!ServerNames::new(&["*".into()]).allows(None));
    }
}
