//! Which flows do the filter flags mean? `--pod a` means either side, `--from-pod a --to-port 80` means both.

use flow::{
    directory::{RESERVED, reserved_identity, reserved_name},
    print::TRACE_POINTS,
    proto::flow::{
        DropReason, EventTypeFilter, FlowFilter, HttpHeader, IpVersion, NetworkInterface, TcpFlags, TrafficDirection,
        Verdict, Workload, flow_filter::Experimental,
    },
};

use crate::{error::Error, flags::Flag};

/// Filters to allow and to deny.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Lists {
    pub allow: Vec<FlowFilter>,
    pub deny: Vec<FlowFilter>,
}

/// Flags that say the same of one side cannot stand together.
const CONFLICTS: &[&[&str]] = &[
    &["from-fqdn", "from-ip", "ip", "fqdn", "from-namespace", "namespace", "from-all-namespaces", "all-namespaces"],
    &["from-fqdn", "from-ip", "ip", "fqdn", "from-pod", "pod"],
    &["to-fqdn", "to-ip", "ip", "fqdn", "to-namespace", "namespace", "to-all-namespaces", "all-namespaces"],
    &["to-fqdn", "to-ip", "ip", "fqdn", "to-pod", "pod"],
    &["to-pod", "namespace", "all-namespaces"],
    &["from-pod", "namespace", "all-namespaces"],
    &["to-service", "namespace", "all-namespaces"],
    &["from-service", "namespace", "all-namespaces"],
    &["label", "from-label"],
    &["label", "to-label"],
    &["service", "from-service"],
    &["service", "to-service"],
    &["port", "to-port"],
    &["port", "from-port"],
    &["identity", "to-identity"],
    &["identity", "from-identity"],
    &["workload", "to-workload"],
    &["workload", "from-workload"],
    &["encrypted", "unencrypted"],
    &["reply", "not-reply"],
];

/// Filters of flags in their order.
pub(crate) fn lists<'a>(options: impl IntoIterator<Item = (&'a Flag, &'a str)>) -> Result<Lists, Error> {
    let (mut allow, mut deny) = (Builder::default(), Builder::default());
    let mut negated = false;
    for (flag, value) in options {
        if flag.name == "not" {
            if negated {
                return Err(Error::Usage("consecutive --not statements: each turns one filter around".to_owned()));
            }
            negated = true;
            continue;
        }
        let builder = if std::mem::take(&mut negated) { &mut deny } else { &mut allow };
        builder.set(flag.name, value)?;
    }
    if negated {
        return Err(Error::Usage(
            "trailing --not found in the arguments: it turns the filter after it around".to_owned(),
        ));
    }
    Ok(Lists { allow: allow.filters(), deny: deny.filters() })
}

/// Two filters, of which one must match: `left` looks at the source and `right` at the destination, where a flag means
/// either side; other flags are in both.
#[derive(Default)]
struct Builder {
    given: Vec<String>,
    left: FlowFilter,
    right: FlowFilter,
    namespaces: Vec<String>,
    source_namespaces: Vec<String>,
    destination_namespaces: Vec<String>,
}

impl Builder {
    fn set(&mut self, name: &str, value: &str) -> Result<(), Error> {
        if !self.given.iter().any(|given| given == name) {
            self.given.push(name.to_owned());
        }
        self.check_conflicts()?;
        if !self.either_side(name, value)? && !self.one_side(name, value)? {
            self.general(name, value)?;
        }
        self.check_namespaces()
    }

    fn both(&mut self, update: impl Fn(&mut FlowFilter)) {
        update(&mut self.left);
        update(&mut self.right);
    }

    /// True if it was one of these.
    fn either_side(&mut self, name: &str, value: &str) -> Result<bool, Error> {
        let text = value.to_owned();
        let (left, right) = (&mut self.left, &mut self.right);
        match name {
            "fqdn" => pair(&mut left.source_fqdn, &mut right.destination_fqdn, text),
            "pod" => pair(&mut left.source_pod, &mut right.destination_pod, text),
            "ip" => pair(&mut left.source_ip, &mut right.destination_ip, text),
            "label" => pair(&mut left.source_label, &mut right.destination_label, text),
            "service" => pair(&mut left.source_service, &mut right.destination_service, text),
            "port" => pair(&mut left.source_port, &mut right.destination_port, text),
            "cluster" => pair(&mut left.source_cluster_name, &mut right.destination_cluster_name, text),
            "workload" => pair(&mut left.source_workload, &mut right.destination_workload, workload(value)),
            "identity" => {
                pair(&mut left.source_identity, &mut right.destination_identity, identity(name, value)?);
            }
            "namespace" => self.namespaces.push(text),
            "all-namespaces" => self.namespaces.push(String::new()),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// True if it was one of these.
    fn one_side(&mut self, name: &str, value: &str) -> Result<bool, Error> {
        let text = || value.to_owned();
        match name {
            "from-fqdn" => self.both(|f| f.source_fqdn.push(text())),
            "to-fqdn" => self.both(|f| f.destination_fqdn.push(text())),
            "from-pod" => self.both(|f| f.source_pod.push(text())),
            "to-pod" => self.both(|f| f.destination_pod.push(text())),
            "from-ip" => self.both(|f| f.source_ip.push(text())),
            "to-ip" => self.both(|f| f.destination_ip.push(text())),
            "snat-ip" => self.both(|f| f.source_ip_xlated.push(text())),
            "from-label" => self.both(|f| f.source_label.push(text())),
            "to-label" => self.both(|f| f.destination_label.push(text())),
            "from-service" => self.both(|f| f.source_service.push(text())),
            "to-service" => self.both(|f| f.destination_service.push(text())),
            "from-port" => self.both(|f| f.source_port.push(text())),
            "to-port" => self.both(|f| f.destination_port.push(text())),
            "from-cluster" => self.both(|f| f.source_cluster_name.push(text())),
            "to-cluster" => self.both(|f| f.destination_cluster_name.push(text())),
            "from-workload" => self.both(|f| f.source_workload.push(workload(value))),
            "to-workload" => self.both(|f| f.destination_workload.push(workload(value))),
            "from-identity" => {
                let id = identity(name, value)?;
                self.both(|f| f.source_identity.push(id));
            }
            "to-identity" => {
                let id = identity(name, value)?;
                self.both(|f| f.destination_identity.push(id));
            }
            "from-namespace" => self.source_namespaces.push(text()),
            "to-namespace" => self.destination_namespaces.push(text()),
            "from-all-namespaces" => self.source_namespaces.push(String::new()),
            "to-all-namespaces" => self.destination_namespaces.push(String::new()),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn general(&mut self, name: &str, value: &str) -> Result<(), Error> {
        let text = || value.to_owned();
        let wrong = |why: &str| Error::value(name, value, why);
        match name {
            "uuid" => self.both(|f| f.uuid.push(text())),
            "ipv4" => self.both(|f| f.ip_version.push(IpVersion::IPv4.into())),
            "ipv6" => self.both(|f| f.ip_version.push(IpVersion::IPv6.into())),
            "ip-version" => self.both(|f| f.ip_version.push(ip_version(value).into())),
            "trace-id" => self.both(|f| f.trace_id.push(text())),
            "ip-trace-id" => {
                let id =
                    value.parse().ok().filter(|id| *id > 0).ok_or_else(|| wrong("want a number greater than 0"))?;
                self.both(|f| f.ip_trace_id.push(id));
            }
            "verdict" => {
                let verdict = Verdict::from_str_name(value).ok_or_else(|| wrong(VERDICTS))?;
                self.both(|f| f.verdict.push(verdict.into()));
            }
            "drop-reason-desc" => {
                let reason = DropReason::from_str_name(value).ok_or_else(|| wrong("want a name as POLICY_DENIED"))?;
                self.both(|f| f.drop_reason_desc.push(reason.into()));
            }
            "http-status" => self.both(|f| f.http_status_code.push(text())),
            "http-method" => self.both(|f| f.http_method.push(text())),
            "http-path" => self.both(|f| f.http_path.push(text())),
            "http-url" => self.both(|f| f.http_url.push(text())),
            "http-header" => {
                let (key, value) = value.split_once(':').ok_or_else(|| wrong("want name:value"))?;
                let header = HttpHeader { key: key.to_owned(), value: value.to_owned() };
                self.both(|f| f.http_header.push(header.clone()));
            }
            "type" => {
                let kind = event_type(value)?;
                self.both(|f| f.event_type.push(kind));
            }
            "protocol" => self.both(|f| f.protocol.push(text())),
            "node-name" => self.both(|f| f.node_name.push(text())),
            "node-label" => self.both(|f| f.node_labels.push(text())),
            "tcp-flags" => {
                let flags = tcp_flags(value)?;
                self.both(|f| f.tcp_flags.push(flags));
            }
            "traffic-direction" => {
                let direction = match value.to_lowercase().as_str() {
                    "ingress" => TrafficDirection::Ingress,
                    "egress" => TrafficDirection::Egress,
                    _ => return Err(wrong("invalid traffic direction, expected ingress or egress")),
                };
                self.both(|f| f.traffic_direction.push(direction.into()));
            }
            "cel-expression" => self.both(|f| {
                f.experimental.get_or_insert_with(Experimental::default).cel_expression.push(text());
            }),
            "interface" => self.both(|f| f.interface.push(NetworkInterface { name: text(), index: 0 })),
            "encrypted" => self.both(|f| f.encrypted.push(true)),
            "unencrypted" => self.both(|f| f.encrypted.push(false)),
            "reply" => self.both(|f| f.reply.push(true)),
            "not-reply" => self.both(|f| f.reply.push(false)),
            other => return Err(Error::Usage(format!("--{other} is no filter"))),
        }
        Ok(())
    }

    fn check_conflicts(&self) -> Result<(), Error> {
        for group in CONFLICTS {
            let mut given = group.iter().filter(|name| self.given.iter().any(|given| given == **name));
            if let (Some(first), Some(second)) = (given.next(), given.next()) {
                return Err(Error::Usage(format!("filters --{first} and --{second} cannot be combined")));
            }
        }
        Ok(())
    }

    /// A pod that is named with its namespace must be in a namespace that is asked for, and so must services.
    fn check_namespaces(&self) -> Result<(), Error> {
        for filter in [&self.left, &self.right] {
            let source = filter.source_pod.iter().chain(&filter.source_service);
            let destination = filter.destination_pod.iter().chain(&filter.destination_service);
            contained(&self.namespaces, source.clone().chain(destination.clone()))?;
            contained(&self.source_namespaces, source)?;
            contained(&self.destination_namespaces, destination)?;
            consistent(&filter.source_pod, &filter.source_service)?;
            consistent(&filter.destination_pod, &filter.destination_service)?;
        }
        Ok(())
    }

    fn filters(mut self) -> Vec<FlowFilter> {
        if self.given.is_empty() {
            return Vec::new();
        }
        for filter in [&mut self.left, &mut self.right] {
            in_namespaces(&self.destination_namespaces, &mut filter.destination_pod, &mut filter.destination_service);
            in_namespaces(&self.source_namespaces, &mut filter.source_pod, &mut filter.source_service);
        }
        in_namespaces(&self.namespaces, &mut self.left.source_pod, &mut self.left.source_service);
        in_namespaces(&self.namespaces, &mut self.right.destination_pod, &mut self.right.destination_service);
        if self.left == self.right { vec![self.left] } else { vec![self.left, self.right] }
    }
}

fn pair<T: Clone>(left: &mut Vec<T>, right: &mut Vec<T>, value: T) {
    left.push(value.clone());
    right.push(value);
}

fn namespace_of(name: &str) -> Option<&str> {
    name.split_once('/').map(|(namespace, _)| namespace).filter(|namespace| !namespace.is_empty())
}

fn contained<'a>(namespaces: &[String], names: impl Iterator<Item = &'a String> + Clone) -> Result<(), Error> {
    for namespace in namespaces {
        let mut strangers = names.clone().filter(|name| namespace_of(name).is_some_and(|other| other != namespace));
        if let Some(stranger) = strangers.next() {
            return Err(Error::Usage(format!("namespace conflict: {namespace:?} does not contain {stranger:?}")));
        }
    }
    Ok(())
}

fn consistent(pods: &[String], services: &[String]) -> Result<(), Error> {
    for namespace in pods.iter().filter_map(|pod| namespace_of(pod)) {
        if let Some(service) = services.iter().find(|service| namespace_of(service) != Some(namespace)) {
            return Err(Error::Usage(format!("namespace of service {service:?} conflict with pod {namespace:?}")));
        }
    }
    Ok(())
}

/// Names get the namespaces; if there are none, all pods of the namespaces are meant.
fn in_namespaces(namespaces: &[String], pods: &mut Vec<String>, services: &mut Vec<String>) {
    if namespaces.is_empty() {
        return;
    }
    if pods.is_empty() && services.is_empty() {
        pods.push(String::new());
    }
    for names in [pods, services] {
        *names = names.iter().flat_map(|name| qualified(namespaces, name)).collect();
    }
}

fn qualified(namespaces: &[String], name: &str) -> Vec<String> {
    match name.contains('/') {
        true => vec![name.to_owned()],
        false => namespaces.iter().map(|namespace| format!("{namespace}/{name}")).collect(),
    }
}

const VERDICTS: &str = "want FORWARDED, DROPPED, AUDIT, REDIRECTED, ERROR, TRACED or TRANSLATED";

fn workload(text: &str) -> Workload {
    let (kind, name) = text.split_once('/').unwrap_or(("", text));
    Workload { kind: kind.to_owned(), name: name.to_owned() }
}

fn identity(flag: &str, text: &str) -> Result<u32, Error> {
    reserved_identity(text).or_else(|| text.parse().ok()).ok_or_else(|| {
        let names: Vec<_> = RESERVED.iter().filter_map(|id| reserved_name(*id)).collect();
        let why = format!("invalid security identity, expected one of [{}] or a numeric value", names.join(" "));
        Error::value(flag, text, why)
    })
}

fn ip_version(text: &str) -> IpVersion {
    match text.to_lowercase().as_str() {
        "4" | "v4" | "ipv4" | "ip4" => IpVersion::IPv4,
        "6" | "v6" | "ipv6" | "ip6" => IpVersion::IPv6,
        _ => IpVersion::IpNotUsed,
    }
}

fn tcp_flags(text: &str) -> Result<TcpFlags, Error> {
    let mut flags = TcpFlags::default();
    for name in text.split(',') {
        let flag = match name.to_uppercase().as_str() {
            "FIN" => &mut flags.fin,
            "SYN" => &mut flags.syn,
            "RST" => &mut flags.rst,
            "PSH" => &mut flags.psh,
            "ACK" => &mut flags.ack,
            "URG" => &mut flags.urg,
            "ECE" => &mut flags.ece,
            "CWR" => &mut flags.cwr,
            "NS" => &mut flags.ns,
            _ => return Err(Error::value("tcp-flags", text, format!("unknown tcp flag: {name}"))),
        };
        *flag = true;
    }
    Ok(flags)
}

/// Types of events by name.
const TYPES: &[(&str, i32)] = &[
    ("drop", 1),
    ("debug", 2),
    ("capture", 3),
    ("trace", 4),
    ("policy-verdict", 5),
    ("trace-sock", 7),
    ("l7", 129),
    ("agent", 130),
];

/// `TYPE[:SUBTYPE]`, both by name or number.
fn event_type(text: &str) -> Result<EventTypeFilter, Error> {
    let wrong = |why: String| Error::value("type", text, why);
    let (name, sub_name) = match text.split_once(':') {
        Some((name, sub_name)) => (name, Some(sub_name)),
        None => (text, None),
    };
    let by_name = TYPES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
    let kind = by_name.or_else(|| number(name)).ok_or_else(|| {
        let names: Vec<_> = TYPES.iter().map(|(name, _)| *name).collect();
        wrong(format!("{name:?} is no event type: want one of {} or a number", names.join(", ")))
    })?;
    let Some(sub_name) = sub_name else {
        return Ok(EventTypeFilter { r#type: kind, ..EventTypeFilter::default() });
    };
    let point = TRACE_POINTS.iter().position(|point| *point == sub_name).filter(|_| name == "trace");
    let sub_type = point.and_then(|point| i32::try_from(point).ok()).or_else(|| number(sub_name));
    let sub_type = sub_type.ok_or_else(|| {
        wrong(format!(
            "{sub_name:?} is no sub-type of {name}: want a number or, for trace, one of {}",
            TRACE_POINTS.join(", ")
        ))
    })?;
    Ok(EventTypeFilter { r#type: kind, match_sub_type: true, sub_type })
}

fn number(text: &str) -> Option<i32> {
    text.parse::<u32>().ok().and_then(|number| i32::try_from(number).ok())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::parse::parse;

    fn of(text: &str) -> Result<Lists, Error> {
        let words = format!("observe {text}");
        let line = parse(&words.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).unwrap();
        lists(line.options.iter().map(|(flag, value)| (*flag, value.as_str())))
    }

    /// Both lists as JSON.
    #[track_caller]
    fn check(text: &str, allow: &str, deny: &str) {
        let lists = of(text).unwrap();
        assert_eq!(serde_json::to_string(&lists.allow).unwrap(), allow, "{text}");
        assert_eq!(serde_json::to_string(&lists.deny).unwrap(), deny, "{text}");
    }

    #[test]
    fn one_side_both_sides_either_side() {
        check("", "[]", "[]");
        check("--from-pod a --to-port 80", r#"[{"source_pod":["a"],"destination_port":["80"]}]"#, "[]");
        check("--pod a", r#"[{"source_pod":["a"]},{"destination_pod":["a"]}]"#, "[]");
        check(
            "--to-identity 9889 --from-identity host",
            r#"[{"source_identity":[1],"destination_identity":[9889]}]"#,
            "[]",
        );
        check(
            "--identity 5 --verdict DROPPED --verdict AUDIT",
            r#"[{"verdict":["DROPPED","AUDIT"],"source_identity":[5]},{"verdict":["DROPPED","AUDIT"],"destination_identity":[5]}]"#,
            "[]",
        );
    }

    #[test]
    fn namespaces_complete_names() {
        check("-n kube", r#"[{"source_pod":["kube/"]},{"destination_pod":["kube/"]}]"#, "[]");
        check("--from-namespace a --from-pod x", r#"[{"source_pod":["a/x"]}]"#, "[]");
        check("--to-namespace a --to-namespace b", r#"[{"destination_pod":["a/","b/"]}]"#, "[]");
        check("-A --pod x", r#"[{"source_pod":["/x"]},{"destination_pod":["/x"]}]"#, "[]");
        check("-n a --service s", r#"[{"source_service":["a/s"]},{"destination_service":["a/s"]}]"#, "[]");
    }

    #[test]
    fn not_turns_one_filter_around() {
        check(
            "--not --pod a --ip 1.1.1.1",
            r#"[{"source_ip":["1.1.1.1"]},{"destination_ip":["1.1.1.1"]}]"#,
            r#"[{"source_pod":["a"]},{"destination_pod":["a"]}]"#,
        );
        check("--not -t drop --not -4", "[]", r#"[{"event_type":[{"type":1}],"ip_version":["IPv4"]}]"#);
    }

    #[test]
    fn types_and_flags() {
        check("-t policy-verdict", r#"[{"event_type":[{"type":5}]}]"#, "[]");
        check("-t trace:to-endpoint", r#"[{"event_type":[{"type":4,"match_sub_type":true}]}]"#, "[]");
        check(
            "-t trace:to-stack -t 1:133",
            r#"[{"event_type":[{"type":4,"match_sub_type":true,"sub_type":3},{"type":1,"match_sub_type":true,"sub_type":133}]}]"#,
            "[]",
        );
        check("--tcp-flags syn,ACK", r#"[{"tcp_flags":[{"SYN":true,"ACK":true}]}]"#, "[]");
        check(
            "--workload Deployment/x",
            r#"[{"source_workload":[{"name":"x","kind":"Deployment"}]},{"destination_workload":[{"name":"x","kind":"Deployment"}]}]"#,
            "[]",
        );
        check("--http-header a:b --reply", r#"[{"reply":[true],"http_header":[{"key":"a","value":"b"}]}]"#, "[]");
    }

    #[test]
    fn contradictions_are_named() {
        for (text, words) in [
            ("--pod a --from-pod b", "--from-pod and --pod cannot be combined"),
            ("--identity 1 --to-identity 2", "cannot be combined"),
            ("--reply --not-reply", "cannot be combined"),
            ("--not --not --pod a", "consecutive"),
            ("--pod a --not", "trailing"),
            ("--verdict NOPE", "NOPE"),
            ("--identity nope", "reserved"),
            ("-t nope", "nope"),
            ("-t trace:nope", "to-endpoint"),
            ("--tcp-flags nope", "nope"),
            ("--traffic-direction up", "ingress or egress"),
            ("--ip-trace-id 0", "greater"),
            ("--from-namespace a --from-pod b/x", "does not contain"),
            ("--to-pod a/x --to-service b/y", "conflict"),
        ] {
            let error = of(text).unwrap_err().to_string();
            assert!(error.contains(words) || words == "reserved" && error.contains("host"), "{text}: {error}");
        }
    }
}
