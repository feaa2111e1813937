//! Which flags are there? One table from which parser, help and completions come.

/// A flag.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flag {
    pub name: &'static str,
    pub short: Option<char>,
    pub kind: Kind,
    /// What `config view` and help show where it is not given.
    pub default: &'static str,
    pub help: &'static str,
}

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Bool,
    Text,
    Number,
    Port,
    Duration,
    /// Comma-separated, repeatable.
    List,
    /// Repeatable, not split.
    Array,
    /// A filter with a value.
    Filter,
    /// A filter that needs no value.
    Switch(&'static str),
}

impl Kind {
    /// The value of a flag that is given without one; None: one must follow.
    pub(crate) fn implied(self) -> Option<&'static str> {
        match self {
            Kind::Bool => Some("true"),
            Kind::Switch(value) => Some(value),
            _ => None,
        }
    }

    /// How help names the value.
    pub(crate) fn label(self) -> String {
        match self {
            Kind::Bool => String::new(),
            Kind::Text => "string".into(),
            Kind::Number => "uint".into(),
            Kind::Port => "uint16".into(),
            Kind::Duration => "duration".into(),
            Kind::List => "strings".into(),
            Kind::Array => "stringArray".into(),
            Kind::Filter => "filter".into(),
            Kind::Switch(value) => format!("filter[={value}]"),
        }
    }
}

/// Flags under a title.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Section {
    pub title: &'static str,
    pub flags: &'static [Flag],
}

const fn flag(name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Flag {
    Flag { name, short: None, kind, default, help }
}

const fn short(name: &'static str, letter: char, kind: Kind, default: &'static str, help: &'static str) -> Flag {
    Flag { name, short: Some(letter), kind, default, help }
}

const fn filter(name: &'static str, help: &'static str) -> Flag {
    flag(name, Kind::Filter, "", help)
}

pub(crate) const GLOBAL: Section = Section {
    title: "Global",
    flags: &[
        flag("config", Kind::Text, "", "Configuration file, if any"),
        short("debug", 'D', Kind::Bool, "false", "Tell more on standard error"),
    ],
};

pub(crate) const SERVER: Section = Section {
    title: "Server",
    flags: &[
        flag("basic-auth-password", Kind::Text, "", "Password for basic authentication"),
        flag("basic-auth-username", Kind::Text, "", "User for basic authentication"),
        flag("kube-context", Kind::Text, "", "Context of the kubeconfig (with --port-forward)"),
        flag("kube-namespace", Kind::Text, "kube-system", "Namespace of the agents (with --port-forward)"),
        flag("kubeconfig", Kind::Text, "", "Path of the kubeconfig (with --port-forward)"),
        short("port-forward", 'P', Kind::Bool, "false", "Forward relay's port to this machine by itself"),
        flag("port-forward-port", Kind::Port, "4245", "Local port of --port-forward; 0 picks one"),
        flag("request-timeout", Kind::Duration, "12s", "How long an answer may take; not for streams"),
        flag("server", Kind::Text, "localhost:4245", "Server: host:port, tls://host:port or unix:///path"),
        flag("timeout", Kind::Duration, "5s", "How long connecting may take"),
        flag("tls", Kind::Bool, "false", "Use TLS, also where the address does not begin with tls://"),
        flag("tls-allow-insecure", Kind::Bool, "false", "Accept any certificate of the server"),
        flag("tls-ca-cert-files", Kind::List, "[]", "Certificates of authorities (PEM files)"),
        flag("tls-client-cert-file", Kind::Text, "", "Own certificate (PEM file)"),
        flag("tls-client-key-file", Kind::Text, "", "Own key (PEM file)"),
        flag("tls-server-name", Kind::Text, "", "Name that the server's certificate must have"),
    ],
};

const TIMES: &str = "\n  3s, 4m, 1h43m:          so long ago\n  YearMonthDay:           2006-01-02\n  YearMonthDayHour:       2006-01-02T15-07:00\n  YearMonthDayHourMinute: 2006-01-02T15:04-07:00\n  RFC3339:                2006-01-02T15:04:05.999999999-07:00\n  RFC1123Z:               Mon, 02 Jan 2006 15:04:05 -0700";

/// Joins literals, because help texts share the list of time layouts.
macro_rules! with_times {
    ($name:ident, $text:literal) => {
        const $name: &str = {
            const LENGTH: usize = $text.len() + TIMES.len();
            const BYTES: [u8; LENGTH] = joined::<LENGTH>($text.as_bytes(), TIMES.as_bytes());
            match std::str::from_utf8(&BYTES) {
                Ok(text) => text,
                Err(_) => panic!("both parts are text"),
            }
        };
    };
}

const fn joined<const LENGTH: usize>(first: &[u8], second: &[u8]) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    let mut index = 0;
    while index < LENGTH {
        bytes[index] = if index < first.len() { first[index] } else { second[index - first.len()] };
        index += 1;
    }
    bytes
}

with_times!(SINCE, "Only what happened since this time:");
with_times!(UNTIL, "Only what happened until this time:");

pub(crate) const SELECTORS: Section = Section {
    title: "Selectors",
    flags: &[
        flag("all", Kind::Bool, "false", "All that the server has; best together with filters"),
        flag("first", Kind::Number, "", "The first N; of each node, when relay is asked"),
        short("follow", 'f', Kind::Bool, "false", "Go on as things happen"),
        flag("last", Kind::Number, "", "The last N (20 unless told); of each node, when relay is asked"),
        flag("since", Kind::Text, "", SINCE),
        flag("until", Kind::Text, "", UNTIL),
    ],
};

pub(crate) const FORMATTING: Section = Section {
    title: "Formatting",
    flags: &[
        short(
            "output",
            'o',
            Kind::Text,
            "compact",
            "Form of the output:\n  compact:  one line each\n  dict:     one key and value per line\n  jsonpb:   JSON of the server's answers\n  json:     the same\n  table:    aligned columns",
        ),
        flag("print-node-name", Kind::Bool, "false", "Print the node's name"),
        flag("print-policy-names", Kind::Bool, "false", "Print the names of the policies that decided"),
        flag(
            "time-format",
            Kind::Text,
            "StampMilli",
            "Layout of times (not in JSON):\n  StampMilli:             Jan _2 15:04:05.000\n  YearMonthDay:           2006-01-02\n  YearMonthDayHour:       2006-01-02T15Z07:00\n  YearMonthDayHourMinute: 2006-01-02T15:04Z07:00\n  RFC3339:                2006-01-02T15:04:05Z07:00\n  RFC3339Milli:           2006-01-02T15:04:05.999Z07:00\n  RFC3339Micro:           2006-01-02T15:04:05.999999Z07:00\n  RFC3339Nano:            2006-01-02T15:04:05.999999999Z07:00\n  RFC1123Z:               Mon, 02 Jan 2006 15:04:05 -0700",
        ),
    ],
};

pub(crate) const FLOW_FORMAT: Section = Section {
    title: "Flow Format",
    flags: &[
        flag("color", Kind::Text, "auto", "Colours of compact and dict output: auto, always or never"),
        flag("ip-translation", Kind::Bool, "true", "Print names of pods, services and DNS instead of addresses"),
        flag("numeric", Kind::Bool, "false", "Print numbers instead of names"),
    ],
};

pub(crate) const RAW_FILTERS: Section = Section {
    title: "Raw-Filters",
    flags: &[
        flag("allowlist", Kind::Array, "", "Filters to allow, as JSON of FlowFilter"),
        flag("denylist", Kind::Array, "", "Filters to deny, as JSON of FlowFilter"),
    ],
};

pub(crate) const OTHER: Section = Section {
    title: "Other",
    flags: &[
        flag("field-mask", Kind::List, "", "Ask only for these fields (with JSON output)"),
        flag("input-file", Kind::Text, "", "Read flows from this file, - for standard input, instead of a server"),
        flag(
            "print-raw-filters",
            Kind::Bool,
            "false",
            "Print the filters as YAML for --allowlist and --denylist, and end",
        ),
        short("silent-errors", 's', Kind::Bool, "false", "Say nothing of errors and warnings of nodes"),
        flag("use-default-field-masks", Kind::Bool, "true", "Ask only for what compact, dict and table output show"),
    ],
};

pub(crate) const EVENT_OTHER: Section = Section {
    title: "Other",
    flags: &[short("silent-errors", 's', Kind::Bool, "false", "Say nothing of errors and warnings of nodes")],
};

pub(crate) const LIST_FORMAT: Section = Section {
    title: "Formatting",
    flags: &[short("output", 'o', Kind::Text, "table", "Form of the output: json, table or wide")],
};

pub(crate) const STATUS_FORMAT: Section = Section {
    title: "Formatting",
    flags: &[short("output", 'o', Kind::Text, "compact", "Form of the output: compact, dict, json or table")],
};

pub(crate) const FILTERS: Section = Section {
    title: "Filters",
    flags: &[
        short("all-namespaces", 'A', Kind::Switch("true"), "", "Of pods in any namespace"),
        filter("cel-expression", "By an expression in CEL"),
        filter("cluster", "From or to endpoints of this cluster"),
        filter("drop-reason-desc", "Dropped for this reason, e.g. POLICY_DENIED"),
        flag("encrypted", Kind::Switch("true"), "", "Encrypted only"),
        filter("fqdn", "From or to this DNS name, e.g. *.cilium.io"),
        flag("from-all-namespaces", Kind::Switch("true"), "", "From pods in any namespace"),
        filter("from-cluster", "From endpoints of this cluster"),
        filter("from-fqdn", "From this DNS name, e.g. *.cilium.io"),
        filter("from-identity", "From this identity, a number or a reserved name"),
        filter("from-ip", "From this address or prefix"),
        filter("from-label", "From endpoints with these labels, e.g. key1=value1 or reserved:world"),
        filter("from-namespace", "From pods in this namespace"),
        filter("from-pod", "From pods whose name begins so: [namespace/]name; without namespace in default"),
        filter("from-port", "From this port"),
        filter("from-service", "From services whose name begins so: [namespace/]name"),
        filter("from-workload", "From this workload: [kind/]name"),
        filter("http-header", "With this HTTP header, name:value"),
        filter("http-method", "With this HTTP method"),
        filter("http-path", "With an HTTP path that matches this regular expression"),
        filter("http-status", "With this HTTP status or prefix, e.g. 404 or 5+"),
        filter("http-url", "With an HTTP URL that matches this regular expression"),
        filter("identity", "From or to this identity, a number or a reserved name"),
        filter("interface", "Seen at this interface"),
        filter("ip", "From or to this address or prefix"),
        filter("ip-trace-id", "With this IP trace ID"),
        filter("ip-version", "Of this IP version: none, v4 or v6"),
        short("ipv4", '4', Kind::Switch("v4"), "", "IPv4 only"),
        short("ipv6", '6', Kind::Switch("v6"), "", "IPv6 only"),
        short(
            "label",
            'l',
            Kind::Filter,
            "",
            "From or to endpoints with these labels, e.g. key1=value1 or reserved:world",
        ),
        short("namespace", 'n', Kind::Filter, "", "From or to pods in this namespace"),
        filter("node-label", "Seen on nodes with these labels"),
        filter("node-name", "Seen on nodes with such a name, e.g. k8s* or test-cluster/*.company.com"),
        flag("not", Kind::Switch("true"), "", "Turns the next filter around, e.g. --not --from-ip 2.2.2.2"),
        flag("not-reply", Kind::Switch("true"), "", "No replies"),
        filter("pod", "From or to pods whose name begins so: [namespace/]name; without namespace in default"),
        filter("port", "From or to this port"),
        filter("protocol", "Of this protocol, e.g. udp or http"),
        flag("reply", Kind::Switch("true"), "", "Replies only"),
        filter("service", "From or to services whose name begins so: [namespace/]name"),
        filter("snat-ip", "Whose source was translated to this address or prefix"),
        filter("tcp-flags", "With these TCP flags, e.g. syn,ack"),
        flag("to-all-namespaces", Kind::Switch("true"), "", "To pods in any namespace"),
        filter("to-cluster", "To endpoints of this cluster"),
        filter("to-fqdn", "To this DNS name, e.g. *.cilium.io"),
        filter("to-identity", "To this identity, a number or a reserved name"),
        filter("to-ip", "To this address or prefix"),
        filter("to-label", "To endpoints with these labels, e.g. key1=value1 or reserved:world"),
        filter("to-namespace", "To pods in this namespace"),
        filter("to-pod", "To pods whose name begins so: [namespace/]name; without namespace in default"),
        filter("to-port", "To this port"),
        filter("to-service", "To services whose name begins so: [namespace/]name"),
        filter("to-workload", "To this workload: [kind/]name"),
        filter("trace-id", "With this trace ID"),
        filter("traffic-direction", "ingress or egress"),
        short(
            "type",
            't',
            Kind::Filter,
            "",
            "Of this type, TYPE[:SUBTYPE]: capture, drop, l7, policy-verdict, trace-sock, or trace with\nfrom-endpoint, from-host, from-network, from-overlay, from-proxy, from-stack, from-crypto,\nto-endpoint, to-host, to-network, to-overlay, to-proxy, to-stack, to-crypto",
        ),
        flag("unencrypted", Kind::Switch("true"), "", "Not encrypted"),
        filter("uuid", "The one with this identifier"),
        filter("verdict", "With this verdict: FORWARDED, DROPPED, AUDIT, REDIRECTED, ERROR, TRACED or TRANSLATED"),
        filter("workload", "From or to this workload: [kind/]name"),
    ],
};
