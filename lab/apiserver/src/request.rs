//! What does a request ask for: which resource, which object, with which parameters?

use crate::status::Status;

/// A request's target after `/api/v1` or `/apis/GROUP/VERSION`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// Empty for the core group.
    pub group: String,
    pub version: String,
    pub namespace: Option<String>,
    /// Plural name of the resource; empty if only the group's version was asked for.
    pub resource: String,
    pub name: Option<String>,
    pub subresource: Option<String>,
    /// What follows the subresource, for proxies.
    pub rest: String,
    /// The old path form `/watch/...`.
    pub watch: bool,
}

/// A decoded query string.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn parse(text: Option<&str>) -> Self {
        let pairs = text.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| {
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decode(key, true), decode(value, true))
                })
                .collect(),
        )
    }

    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// The query again, without one parameter; with `?` if it is not empty.
    pub fn without(&self, skipped: &str) -> String {
        let pairs = self.0.iter().filter(|(name, _)| name != skipped);
        let text =
            pairs.map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect::<Vec<_>>().join("&");
        if text.is_empty() { text } else { format!("?{text}") }
    }

    /// A flag: given without value or with a true one.
    pub fn is(&self, key: &str) -> bool {
        self.0
            .iter()
            .any(|(name, value)| name == key && matches!(value.as_str(), "" | "true" | "1" | "True" | "TRUE" | "t"))
    }

    /// # Errors
    /// If the value is not a number.
    pub fn number(&self, key: &str) -> Result<Option<u64>, Status> {
        let Some(text) = self.get(key) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| Status::bad_request(format!("parameter {key} is {text:?}, not a number")))
    }
}

fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// Percent-decoding; bytes that are not UTF-8 become replacement characters, a broken escape stays as it is.
pub fn decode(text: &str, plus_is_space: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escaped = (byte == b'%').then(|| bytes.get(at + 1..at + 3)).flatten();
        let value =
            escaped.and_then(|hex| std::str::from_utf8(hex).ok()).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match value {
            Some(value) => {
                out.push(value);
                at += 3;
            }
            None => {
                out.push(if byte == b'+' && plus_is_space { b' ' } else { byte });
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The target of a path, or None if it is not one of resources.
pub fn target(path: &str) -> Option<Target> {
    let mut parts = path.split('/').filter(|part| !part.is_empty()).map(|part| decode(part, false));
    let mut target = Target::default();
    match parts.next()?.as_str() {
        "api" => target.version = parts.next()?,
        "apis" => {
            target.group = parts.next()?;
            target.version = parts.next()?;
        }
        _ => return None,
    }
    let mut parts: Vec<String> = parts.collect();
    if parts.first().is_some_and(|part| part == "watch") {
        target.watch = true;
        parts.remove(0);
    }
    place(&mut target, &parts);
    Some(target)
}

fn place(target: &mut Target, parts: &[String]) {
    // `/namespaces/NAME/status` and `/finalize` are subresources of the namespace, anything else is inside of it.
    let inside = parts.first().is_some_and(|part| part == "namespaces")
        && parts.get(2).is_some_and(|part| part != "status" && part != "finalize");
    let rest = if inside {
        target.namespace = parts.get(1).cloned();
        &parts[2..]
    } else {
        parts
    };
    target.resource = rest.first().cloned().unwrap_or_default();
    target.name = rest.get(1).cloned();
    target.subresource = rest.get(2).cloned();
    target.rest = rest.get(3..).map(|parts| parts.join("/")).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check(path: &str, expected: (&str, &str, Option<&str>, &str, Option<&str>, Option<&str>)) {
        let found = target(path).unwrap();
        let seen = (
            found.group.as_str(),
            found.version.as_str(),
            found.namespace.as_deref(),
            found.resource.as_str(),
            found.name.as_deref(),
            found.subresource.as_deref(),
        );
        assert_eq!(seen, expected, "{path}");
    }

    #[test]
    fn paths_name_group_version_namespace_resource_and_object() {
        check("/api/v1/namespaces/a/pods/b/log", ("", "v1", Some("a"), "pods", Some("b"), Some("log")));
        check("/api/v1/namespaces/a", ("", "v1", None, "namespaces", Some("a"), None));
        check("/api/v1/namespaces/a/finalize", ("", "v1", None, "namespaces", Some("a"), Some("finalize")));
        check("/apis/apps/v1/deployments", ("apps", "v1", None, "deployments", None, None));
        check("/apis/apps/v1", ("apps", "v1", None, "", None, None));
        check("/api/v1/nodes/n%2F1", ("", "v1", None, "nodes", Some("n/1"), None));
    }

    #[test]
    fn a_query_is_decoded_and_broken_escapes_stay() {
        let query = Query::parse(Some("labelSelector=a%3Db%2Cc&command=ls&command=-l&watch=1&x=%zz+y"));
        assert_eq!(query.get("labelSelector"), Some("a=b,c"));
        assert_eq!(query.all("command").collect::<Vec<_>>(), ["ls", "-l"]);
        assert!(query.is("watch"));
        assert_eq!(query.get("x"), Some("%zz y"));
        assert!(query.number("x").is_err());
    }
}
