//! What do the settings say of the proxy, of names and of Secrets? And which of them have no effect here, and why?

use proxy_api::{DnsSettings, Limits, Redaction, Settings, Timeouts};

use super::ConfigError;
use super::settings::{Reader, wrong};
use crate::secrets::{Reading, Sources};

/// The settings that have an effect.
pub(super) const USED: &[&str] = &[
    "certificates-directory",
    "dnsproxy-concurrency-limit",
    "enable-policy-secrets-sync",
    "http-idle-timeout",
    "http-max-grpc-timeout",
    "http-normalize-path",
    "http-request-timeout",
    "http-stream-idle-timeout",
    "hubble-redact-enabled",
    "hubble-redact-http-headers-allow",
    "hubble-redact-http-headers-deny",
    "hubble-redact-http-urlquery",
    "hubble-redact-http-userinfo",
    "policy-secrets-namespace",
    "policy-secrets-only-from-secrets-namespace",
    "proxy-connect-timeout",
    "proxy-gid",
    "proxy-idle-timeout-seconds",
    "proxy-max-active-downstream-connections",
    "proxy-max-connection-duration-seconds",
    "proxy-max-requests-per-connection",
    "tofqdns-dns-reject-response-code",
    "tofqdns-proxy-port",
    "tofqdns-proxy-response-max-delay",
    "use-full-tls-context",
];

/// Why settings have no effect that another proxy has.
const REASONS: &[(&str, &str)] = &[
    ("dnsproxy-concurrency-processing-grace-period", "a question beyond the limit is dropped at once"),
    ("dnsproxy-enable-transparent-mode", "questions always go on with the client's address"),
    ("dnsproxy-socket-linger-timeout", "connections to name servers are closed without waiting"),
    ("envoy-http-upstream-linger-timeout", "connections to servers are closed without waiting"),
    ("http-retry-count", "requests stream through and are never sent twice"),
    ("http-retry-timeout", "requests stream through and are never sent twice"),
    ("proxy-admin-port", "the proxy has no interface of its own; see cilium-dbg metrics list"),
    ("proxy-cluster-max-connections", "each client's connection has one to the server"),
    ("proxy-cluster-max-pending-requests", "each client's connection has one to the server"),
    ("proxy-cluster-max-requests", "each client's connection has one to the server"),
    ("proxy-initial-fetch-timeout", "what the proxy does not know it refuses"),
    ("proxy-max-concurrent-retries", "requests stream through and are never sent twice"),
    ("proxy-prometheus-port", "the proxy's counters are among the agent's metrics, as axoneme_proxy"),
    ("proxy-use-original-source-address", "servers always see the client's address"),
    ("proxy-xff-num-trusted-hops-egress", "headers go on as the client sent them"),
    ("proxy-xff-num-trusted-hops-ingress", "headers go on as the client sent them"),
    ("restored-proxy-ports-age-limit", "ports are the same for as long as the node is up"),
    ("tofqdns-enable-dns-compression", "answers go on as the name server wrote them"),
    ("tofqdns-pre-cache", "names of earlier runs are kept in the state folder"),
];

/// Why a setting has no effect here, if more is to be said than that it has none.
pub(super) fn reason(name: &str) -> Option<&'static str> {
    REASONS.iter().find(|(known, _)| *known == name).map(|(_, reason)| *reason)
}

/// What the proxy is told.
pub(super) fn settings(read: &Reader<'_>) -> Result<Settings, ConfigError> {
    let default = Settings::default();
    Ok(Settings {
        timeouts: timeouts(read)?,
        limits: Limits {
            connections: read.number("proxy-max-active-downstream-connections")?.unwrap_or(default.limits.connections),
            upstream_requests: read.number("proxy-max-requests-per-connection")?.unwrap_or(0),
            ..default.limits
        },
        redaction: redaction(read)?,
        judge_all_meanings: read.switch("http-normalize-path", true)?,
        dns_reject_code: match read.text("tofqdns-dns-reject-response-code") {
            None | Some("refused") => 5,
            Some("nameError") => 3,
            Some(value) => return Err(wrong("tofqdns-dns-reject-response-code", value, "refused or nameError")),
        },
        dns: DnsSettings {
            response_max_delay: match read.duration("tofqdns-proxy-response-max-delay")? {
                None => default.dns.response_max_delay,
                // Here 0 is "for ever"; there it is "not at all".
                Some(delay) => u64::try_from(delay.as_millis()).unwrap_or(u64::MAX).max(1),
            },
            questions: read.number("dnsproxy-concurrency-limit")?.unwrap_or(0),
            ..default.dns
        },
        ..default
    })
}

fn timeouts(read: &Reader<'_>) -> Result<Timeouts, ConfigError> {
    let default = Timeouts::default();
    let milliseconds = |name: &str, default: u64| -> Result<u64, ConfigError> {
        Ok(read.number::<u32>(name)?.map_or(default, |seconds| u64::from(seconds) * 1_000))
    };
    let stream_idle = milliseconds("http-stream-idle-timeout", default.stream_idle)?;
    // Where both are given, the one of routes counts, as in Envoy.
    let stream_idle = match milliseconds("http-idle-timeout", 0)? {
        0 => stream_idle,
        idle => idle,
    };
    Ok(Timeouts {
        connect: milliseconds("proxy-connect-timeout", default.connect)?,
        upstream_idle: milliseconds("proxy-idle-timeout-seconds", default.upstream_idle)?,
        request: milliseconds("http-request-timeout", default.request)?,
        grpc_most: milliseconds("http-max-grpc-timeout", default.grpc_most)?,
        stream_idle,
        upstream_duration: milliseconds("proxy-max-connection-duration-seconds", default.upstream_duration)?,
        ..default
    })
}

fn redaction(read: &Reader<'_>) -> Result<Redaction, ConfigError> {
    let list = |name: &str| -> Vec<String> {
        let words = read.text(name).unwrap_or_default().split([',', ' ']).filter(|word| !word.is_empty());
        words.map(str::to_lowercase).collect()
    };
    let redaction = Redaction {
        enabled: read.switch("hubble-redact-enabled", false)?,
        url_query: read.switch("hubble-redact-http-urlquery", false)?,
        user_info: read.switch("hubble-redact-http-userinfo", true)?,
        headers_allow: list("hubble-redact-http-headers-allow"),
        headers_deny: list("hubble-redact-http-headers-deny"),
    };
    if !redaction.headers_allow.is_empty() && !redaction.headers_deny.is_empty() {
        let value = redaction.headers_deny.join(",");
        return Err(wrong(
            "hubble-redact-http-headers-deny",
            &value,
            "absent, as it has to be where hubble-redact-http-headers-allow is given",
        ));
    }
    Ok(redaction)
}

/// Where Secrets are read.
pub(super) fn sources(read: &Reader<'_>) -> Result<Sources, ConfigError> {
    Ok(Sources { files: read.path("certificates-directory", "/var/run/cilium/certs"), reading: reading(read)? })
}

fn reading(read: &Reader<'_>) -> Result<Reading, ConfigError> {
    let copies = read.switch("enable-policy-secrets-sync", false)?;
    if !read.switch("policy-secrets-only-from-secrets-namespace", false)? {
        return Ok(Reading::Anywhere);
    }
    let name = "policy-secrets-namespace";
    let namespace = read.text(name).ok_or_else(|| wrong(name, "", "the name of a namespace"))?.to_owned();
    Ok(if copies { Reading::Copies(namespace) } else { Reading::Only(namespace) })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use super::super::{Settings, Values, unsupported};
    use super::*;

    fn values(pairs: &[(&str, &str)]) -> Values {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn read(pairs: &[(&str, &str)]) -> Result<Settings, String> {
        Settings::new(&values(pairs), "n1").map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_given_is_the_proxy_s_default() {
        let settings = read(&[]).unwrap();
        let redaction = Redaction { user_info: true, ..Redaction::default() };
        assert_eq!(settings.proxy, proxy_api::Settings { redaction, ..Default::default() });
        assert_eq!((settings.secrets.reading, settings.full_tls_context), (Reading::Anywhere, false));
    }

    #[test]
    fn what_is_given_reaches_the_proxy() {
        let proxy = read(&[
            ("http-request-timeout", "7"),
            ("http-max-grpc-timeout", "6"),
            ("http-stream-idle-timeout", "8"),
            ("http-normalize-path", "false"),
            ("proxy-connect-timeout", "3"),
            ("proxy-idle-timeout-seconds", "9"),
            ("proxy-max-active-downstream-connections", "10"),
            ("proxy-max-connection-duration-seconds", "11"),
            ("proxy-max-requests-per-connection", "12"),
            ("tofqdns-dns-reject-response-code", "nameError"),
            ("tofqdns-proxy-response-max-delay", "250ms"),
            ("dnsproxy-concurrency-limit", "13"),
            ("hubble-redact-enabled", "true"),
            ("hubble-redact-http-urlquery", "true"),
            ("hubble-redact-http-userinfo", "false"),
            ("hubble-redact-http-headers-allow", "TraceParent, tracestate"),
        ])
        .unwrap()
        .proxy;
        let times = proxy.timeouts;
        assert_eq!(
            [times.request, times.stream_idle, times.connect, times.upstream_idle],
            [7_000, 8_000, 3_000, 9_000]
        );
        assert_eq!(times.grpc_most, 6_000);
        assert_eq!((times.upstream_duration, proxy.judge_all_meanings, proxy.dns_reject_code), (11_000, false, 3));
        assert_eq!((proxy.limits.connections, proxy.limits.upstream_requests), (10, 12));
        assert_eq!((proxy.dns.response_max_delay, proxy.dns.questions), (250, 13));
        let redaction = proxy.redaction;
        assert_eq!((redaction.enabled, redaction.url_query, redaction.user_info), (true, true, false));
        assert_eq!(redaction.headers_allow, ["traceparent", "tracestate"]);
        assert_eq!((read(&[]).unwrap().proxy_group, read(&[("proxy-gid", "9")]).unwrap().proxy_group), (None, Some(9)));
        let both = read(&[("http-stream-idle-timeout", "8"), ("http-idle-timeout", "5")]).unwrap();
        assert_eq!(both.proxy.timeouts.stream_idle, 5_000);
        let zero = read(&[("tofqdns-proxy-response-max-delay", "0s")]).unwrap();
        assert_eq!(zero.proxy.dns.response_max_delay, 1, "not for ever");
    }

    #[test]
    fn secrets_are_read_where_the_settings_say() {
        let only = [("policy-secrets-only-from-secrets-namespace", "true"), ("policy-secrets-namespace", "s")];
        assert_eq!(read(&only).unwrap().secrets.reading, Reading::Only("s".into()));
        let copies = [&only[..], &[("enable-policy-secrets-sync", "true")]].concat();
        assert_eq!(read(&copies).unwrap().secrets.reading, Reading::Copies("s".into()));
        assert_eq!(read(&copies[1..]).unwrap().secrets.reading, Reading::Anywhere, "as in Cilium");
        assert_eq!(read(&[]).unwrap().secrets.files, Path::new("/var/run/cilium/certs"));
        assert_eq!(read(&[("certificates-directory", "/c")]).unwrap().secrets.files, Path::new("/c"));
        assert!(read(&only[..1]).unwrap_err().contains("policy-secrets-namespace"));
    }

    #[test]
    fn wrong_values_are_refused_and_what_has_no_effect_says_why() {
        for (pairs, part) in [
            (&[("tofqdns-dns-reject-response-code", "servfail")][..], "refused or nameError"),
            (&[("http-request-timeout", "soon")], "a whole number"),
            (&[("hubble-redact-http-headers-allow", "a"), ("hubble-redact-http-headers-deny", "b")], "absent"),
        ] {
            let error = read(pairs).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        let warnings = unsupported(&values(&[("http-retry-count", "5"), ("proxy-connect-timeout", "9")])).unwrap();
        assert_eq!(
            warnings,
            ["setting http-retry-count=5 has no effect: requests stream through and are never sent twice"]
        );
        for (name, _) in REASONS {
            assert!(super::super::options::find(name).is_some() && !USED.contains(name), "{name}");
        }
    }
}
