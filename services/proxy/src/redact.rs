//! What of a request may be told?

use proxy_api::Redaction;

/// What stands for values that are left out.
pub const REDACTED: &str = "HUBBLE_REDACTED";

/// The value of a header, or what stands for it.
pub fn header(settings: &Redaction, name: &str, value: &[u8]) -> String {
    let listed = |list: &[String]| list.iter().any(|known| known.eq_ignore_ascii_case(name));
    let (allow, deny) = (&settings.headers_allow, &settings.headers_deny);
    let hide = settings.enabled
        && match () {
            () if listed(allow) => false,
            () if listed(deny) => true,
            () => !allow.is_empty() || deny.is_empty(),
        };
    if hide { REDACTED.to_owned() } else { String::from_utf8_lossy(value).into_owned() }
}

/// A URL without what may not be told of it.
pub fn url(settings: &Redaction, authority: &str, path: &str) -> String {
    let scheme = if path.is_empty() { "" } else { "http://" };
    let mut url = String::with_capacity(scheme.len() + authority.len() + path.len());
    url.push_str(scheme);
    match authority.rsplit_once('@').and_then(|(user, host)| Some((user.split_once(':')?.0, host))) {
        Some((user, host)) if settings.enabled && settings.user_info => {
            for part in [user, ":", REDACTED, "@", host] {
                url.push_str(part);
            }
        }
        _ => url.push_str(authority),
    }
    let query = path.find(['?', '#']).filter(|_| settings.enabled && settings.url_query);
    url.push_str(&path[..query.unwrap_or(path.len())]);
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(allow: &[&str], deny: &[&str]) -> Redaction {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Redaction {
            enabled: true,
            url_query: true,
            user_info: true,
            headers_allow: list(allow),
            headers_deny: list(deny),
        }
    }

    #[test]
    fn a49_headers_are_redacted_as_in_cilium() {
        let shown = |settings: &Redaction, name| header(settings, name, b"v") == "v";
        assert!(shown(&Redaction::default(), "Authorization"));
        assert!(!shown(&settings(&[], &[]), "traceparent"));
        let allow = settings(&["traceparent"], &[]);
        assert!(shown(&allow, "TraceParent") && !shown(&allow, "Cookie"));
        let deny = settings(&[], &["authorization", "cookie"]);
        assert!(shown(&deny, "Accept") && !shown(&deny, "Authorization") && !shown(&deny, "Cookie"));
    }

    #[test]
    fn a49_urls_lose_query_and_password() {
        let redacted = settings(&[], &[]);
        assert_eq!(url(&redacted, "a", "/x?token=1"), "http://a/x");
        assert_eq!(url(&redacted, "u:p@a", "/"), "http://u:HUBBLE_REDACTED@a/");
        assert_eq!(url(&redacted, "u@a", "/"), "http://u@a/");
        assert_eq!(url(&Redaction::default(), "u:p@a", "/x?y"), "http://u:p@a/x?y");
        assert_eq!(url(&redacted, "a:443", ""), "a:443");
    }
}
