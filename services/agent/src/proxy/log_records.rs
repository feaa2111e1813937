//! How does a proxy's record look to `cilium-dbg monitor`?

use agent_api::{LogParty, LogRecord, Said};
use flow::Directory;
use proxy_api::{Application, Direction, Kind, Party, Record, Verdict};

/// The record, with what the agent knows of both sides.
pub fn log_record(record: &Record, directory: &dyn Directory) -> LogRecord {
    let party = |party: &Party| LogParty {
        endpoint: directory.peer(party.address.ip()).map_or(0, |peer| peer.endpoint),
        identity: party.identity,
        labels: directory.labels(party.identity).map(|labels| labels.to_vec()).unwrap_or_default(),
    };
    LogRecord {
        observation_point: match record.direction {
            Direction::Ingress => "Ingress",
            Direction::Egress => "Egress",
        }
        .into(),
        flow_type: match record.kind {
            Kind::Request => "Request",
            Kind::Response => "Response",
        }
        .into(),
        verdict: match record.verdict {
            Verdict::Forwarded => "Forwarded",
            Verdict::Denied => "Denied",
            Verdict::Error => "Error",
        }
        .into(),
        source: party(&record.source),
        destination: party(&record.destination),
        said: said(&record.application, record.kind),
    }
}

fn said(application: &Application, kind: Kind) -> Said {
    match application {
        Application::Http(http) => Said::Http {
            code: http.code.unwrap_or(0),
            method: http.method.clone(),
            url: http.url.clone(),
            protocol: http.protocol.clone(),
            headers: canonical(&http.headers),
        },
        Application::Dns(dns) => Said::Dns {
            query: dns.query.to_string(),
            types: vec![dns::type_name(dns.query_type)],
            ips: dns.addresses.iter().map(ToString::to_string).collect(),
            ttl: dns.ttl.unwrap_or(if kind == Kind::Response { u32::MAX } else { 0 }),
            cnames: dns.cnames.clone(),
            rcode: dns.code.unwrap_or(0),
        },
        Application::Kafka(kafka) => {
            let fields = [
                ("apiKey", kafka.api_key.clone()),
                ("apiVersion", kafka.api_version.to_string()),
                ("correlationID", kafka.correlation_id.to_string()),
                ("topic", kafka.topic.clone()),
            ];
            let fields = fields.map(|(name, value)| (name.to_owned(), value));
            Said::Other { proto: "kafka".into(), fields: fields.into() }
        }
        Application::Tls(tls) => {
            let name = tls.server_name.iter().map(|name| ("sni".to_owned(), name.clone()));
            Said::Other { proto: "tls".into(), fields: name.collect() }
        }
    }
}

/// Headers as Hubble shows them: their names as Go writes them, sorted; several of one name in their order.
pub fn canonical(headers: &[(String, String)]) -> Vec<(String, String)> {
    let mut all: Vec<_> = headers.iter().map(|(name, value)| (canonical_name(name), value.clone())).collect();
    all.sort_by(|one, two| one.0.cmp(&two.0));
    all
}

/// Letters that begin a part between hyphens are upper case, all others lower. What is no name stays as it is.
fn canonical_name(name: &str) -> String {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if !name.bytes().all(token) {
        return name.to_owned();
    }
    let mut first = true;
    let letters = name.chars().map(|letter| {
        let cased = if first { letter.to_ascii_uppercase() } else { letter.to_ascii_lowercase() };
        first = letter == '-';
        cased
    });
    letters.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_headers_are_go_s() {
        for (name, wanted) in [
            ("x-request-id", "X-Request-Id"),
            ("HOST", "Host"),
            ("x-B3-traceid", "X-B3-Traceid"),
            (":authority", ":authority"),
            ("a b", "a b"),
            ("", ""),
        ] {
            assert_eq!(canonical_name(name), wanted);
        }
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let sorted = canonical(&[pair("via", "2"), pair("accept", "x"), pair("Via", "1")]);
        assert_eq!(sorted, [pair("Accept", "x"), pair("Via", "2"), pair("Via", "1")]);
    }
}
