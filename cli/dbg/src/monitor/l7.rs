//! How does a record of a proxy look as a line, and as JSON? As Cilium's monitor writes it.

use std::fmt::Write;

use agent_api::{LogParty, LogRecord, Said};
use serde_json::{Map, Value, json};

/// The name of the protocol.
fn protocol(said: &Said) -> &str {
    match said {
        Said::Http { .. } => "http",
        Said::Dns { .. } => "dns",
        Said::Other { proto, .. } => proto,
    }
}

/// One line, without its end.
pub fn line(record: &LogRecord) -> String {
    let direction = match record.observation_point.as_str() {
        "Ingress" => "<-",
        "Egress" => "->",
        _ => "??",
    };
    let party = |party: &LogParty| format!("{} ([{}])", party.endpoint, party.labels.join(" "));
    let (source, destination) = (party(&record.source), party(&record.destination));
    let (kind, protocol) = (record.flow_type.as_str(), protocol(&record.said));
    let who = match kind {
        "Response" => format!("to {destination} from {source}"),
        _ => format!("from {source} to {destination}"),
    };
    let identities = format!("{}->{}", record.source.identity, record.destination.identity);
    let verdict = &record.verdict;
    let what = what(&record.said, kind);
    flow::print::clean(&format!("{direction} {kind} {protocol} {who}, identity {identities}, verdict {verdict}{what}"))
        .into_owned()
}

fn what(said: &Said, kind: &str) -> String {
    match said {
        Said::Http { method, url, code, .. } => format!(" {method} {url} => {code}"),
        Said::Dns { query, types, ips, ttl, cnames, .. } => {
            let mut text = format!(" DNS proxy: {query} {}", types.join(","));
            if kind == "Response" {
                let _ = write!(text, " TTL: {ttl} Answer: '{}'", ips.join(","));
                if !cnames.is_empty() {
                    let _ = write!(text, " CNAMEs: {}", cnames.join(","));
                }
            }
            text
        }
        Said::Other { fields, .. } => {
            let status = fields.iter().find(|(name, _)| name == "status");
            let others = fields.iter().filter(|(name, _)| name != "status");
            let mut text: String = others.map(|(name, value)| format!(" {name}:{value}")).collect();
            if let Some((_, status)) = status {
                let _ = write!(text, " => status:{status}");
            }
            text
        }
    }
}

/// The same as JSON.
pub fn json(record: &LogRecord) -> Value {
    let mut value = json!({
        "type": "logRecord",
        "observationPoint": record.observation_point,
        "flowType": record.flow_type,
        "l7Proto": protocol(&record.said),
        "srcEpID": record.source.endpoint,
        "srcEpLabels": record.source.labels,
        "srcIdentity": record.source.identity,
        "dstEpID": record.destination.endpoint,
        "dstEpLabels": record.destination.labels,
        "dstIdentity": record.destination.identity,
        "verdict": record.verdict,
    });
    let (name, said) = match &record.said {
        Said::Http { code, method, url: text, protocol, headers } => {
            let mut all = Map::new();
            for (name, value) in headers {
                let values = all.entry(name.clone()).or_insert_with(|| json!([]));
                values.as_array_mut().into_iter().for_each(|values| values.push(json!(value)));
            }
            let said = json!({"Code": code, "Method": method, "URL": url(text), "Protocol": protocol, "Headers": all});
            ("http", said)
        }
        Said::Dns { query, ips, ttl, cnames, rcode, types } => {
            let mut said = json!({"Query": query, "ObservationSource": "proxy", "QTypes": types});
            let given = [
                ("IPs", json!(ips), ips.is_empty()),
                ("TTL", json!(ttl), *ttl == 0),
                ("CNAMEs", json!(cnames), cnames.is_empty()),
                ("RCode", json!(rcode), *rcode == 0),
            ];
            for (name, value, absent) in given {
                if !absent {
                    said[name] = value;
                }
            }
            ("dns", said)
        }
        Said::Other { proto, fields } => {
            let fields: Map<String, Value> = fields.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
            ("l7", json!({"Proto": proto, "Fields": fields}))
        }
    };
    value[name] = said;
    value
}

/// The parts of a URL by the names that they have in Go.
fn url(text: &str) -> Value {
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (host, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    json!({"Scheme": scheme, "Host": host, "Path": path, "RawQuery": query, "Fragment": fragment})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: &str, said: Said) -> LogRecord {
        let party = |endpoint, identity, label: &str| LogParty { endpoint, identity, labels: vec![label.into()] };
        LogRecord {
            observation_point: "Egress".into(),
            flow_type: kind.into(),
            verdict: "Forwarded".into(),
            source: party(7, 1001, "k8s:app=a"),
            destination: party(0, 2, "reserved:world"),
            said,
        }
    }

    #[test]
    fn http_dns_and_others_look_as_cilium_s_monitor_has_them() {
        let http = Said::Http {
            code: 200,
            method: "GET".into(),
            url: "http://a:80/x?y=1".into(),
            protocol: "HTTP/1.1".into(),
            headers: vec![("Accept".into(), "1".into()), ("Accept".into(), "2".into())],
        };
        let answer = record("Response", http);
        assert_eq!(
            line(&answer),
            "-> Response http to 0 ([reserved:world]) from 7 ([k8s:app=a]), identity 1001->2, verdict Forwarded GET \
             http://a:80/x?y=1 => 200"
        );
        let value = json(&answer);
        assert_eq!((&value["http"]["URL"]["Path"], &value["http"]["URL"]["RawQuery"]), (&json!("/x"), &json!("y=1")));
        assert_eq!(value["http"]["Headers"]["Accept"], json!(["1", "2"]));
        let dns = |ips: &[&str]| Said::Dns {
            query: "a.example.".into(),
            types: vec!["A".into()],
            ips: ips.iter().map(|ip| (*ip).to_owned()).collect(),
            ttl: 30,
            cnames: vec!["b.".into()],
            rcode: 0,
        };
        assert!(line(&record("Request", dns(&[]))).ends_with("verdict Forwarded DNS proxy: a.example. A"));
        let text = line(&record("Response", dns(&["1.2.3.4", "1.2.3.5"])));
        assert!(text.ends_with(" DNS proxy: a.example. A TTL: 30 Answer: '1.2.3.4,1.2.3.5' CNAMEs: b."), "{text}");
        let fields = vec![("status".into(), "0".into()), ("topic".into(), "t".into())];
        let other = record("Request", Said::Other { proto: "kafka".into(), fields });
        assert!(line(&other).ends_with(" topic:t => status:0"), "{}", line(&other));
        assert_eq!(json(&other)["l7"]["Fields"]["topic"], "t");
    }

    #[test]
    fn what_a_client_says_does_not_move_the_cursor() {
        let said = Said::Other { proto: "x".into(), fields: vec![("a".into(), "b\n\x1b[2J".into())] };
        assert!(!line(&record("Request", said)).contains(['\n', '\x1b']));
    }
}
