//! Which settings have an effect, and what do they say?

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use bpf::Attachment;
use ipnet::{Ipv4Net, Ipv6Net};

use super::{ConfigError, Values, proxy};

/// When is policy enforced?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Enforcement {
    /// For endpoints that a policy selects.
    #[default]
    Default,
    /// For every endpoint.
    Always,
    /// For none.
    Never,
}

impl Enforcement {
    /// As users write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Enforcement::Default => "default",
            Enforcement::Always => "always",
            Enforcement::Never => "never",
        }
    }
}

/// How many traces does the datapath send? The number goes to the programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aggregation(pub u16);

/// The settings that have an effect.
pub(super) const USED: &[&str] = &[
    "agent-health-port",
    "allow-localhost",
    "bpf-ct-global-any-max",
    "bpf-ct-global-tcp-max",
    "bpf-events-drop-enabled",
    "bpf-events-policy-verdict-enabled",
    "bpf-events-trace-enabled",
    "bpf-lb-map-max",
    "bpf-nat-global-max",
    "bpf-policy-map-max",
    "bpf-root",
    "cgroup-root",
    "cluster-id",
    "cluster-name",
    "cluster-pool-ipv4-cidr",
    "cluster-pool-ipv4-mask-size",
    "cluster-pool-ipv6-cidr",
    "cluster-pool-ipv6-mask-size",
    "cni-exclusive",
    "config-dir",
    "debug",
    "devices",
    "enable-bpf-masquerade",
    "enable-endpoint-health-checking",
    "enable-health-checking",
    "enable-hubble",
    "enable-ipv4",
    "enable-ipv4-masquerade",
    "enable-ipv6",
    "enable-ipv6-masquerade",
    "enable-k8s-cluster-network-policy",
    "enable-k8s-networkpolicy",
    "enable-policy",
    "enable-tcx",
    "hubble-disable-tls",
    "hubble-event-buffer-capacity",
    "hubble-listen-address",
    "hubble-socket-path",
    "identity-allocation-mode",
    "ipam",
    "ipv4-native-routing-cidr",
    "ipv6-native-routing-cidr",
    "k8s-kubeconfig-path",
    "k8s-namespace",
    "k8s-require-ipv4-pod-cidr",
    "k8s-require-ipv6-pod-cidr",
    "kube-proxy-replacement",
    "labels",
    "monitor-aggregation",
    "mtu",
    "policy-audit-mode",
    "proxy-portrange-max",
    "proxy-portrange-min",
    "routing-mode",
    "socket-path",
    "state-dir",
    "tofqdns-endpoint-max-ip-per-hostname",
    "tofqdns-idle-connection-grace-period",
    "tofqdns-max-deferred-connection-deletes",
    "tofqdns-min-ttl",
    "tunnel-port",
    "tunnel-protocol",
    "write-cni-conf-when-ready",
    "enable-l7-proxy",
    "enable-xt-socket-fallback",
    "version",
    "bpf-lb-sock",
    "datapath-mode",
    "operator-api-serve-addr",
    "identity-gc-interval",
    "identity-heartbeat-timeout",
    "cilium-endpoint-gc-interval",
    "nodes-gc-interval",
    "operator-prometheus-serve-addr",
    "remove-cilium-node-taints",
    "set-cilium-is-up-condition",
    "set-cilium-node-taints",
    "hubble-tls-cert-file",
    "hubble-tls-client-ca-files",
    "hubble-tls-key-file",
    "cni-log-file",
    "lib-dir",
    "monitor-aggregation-flags",
    "monitor-aggregation-interval",
    "agent-not-ready-taint-key",
    "unmanaged-pod-watcher-interval",
    "bpf-map-dynamic-size-ratio",
    "custom-cni-conf",
];

/// What the agent was told to do.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of the cluster.
    pub cluster: String,
    /// Name of this node.
    pub node: String,
    /// Namespace in which the agent runs.
    pub namespace: String,
    /// Kubeconfig, if not by the pod's service account.
    pub kubeconfig: Option<PathBuf>,
    /// IPv4 is on.
    pub ipv4: bool,
    /// IPv6 is on.
    pub ipv6: bool,
    /// When policy is enforced.
    pub enforcement: Enforcement,
    /// Denials are reported but do not drop.
    pub audit: bool,
    /// UDP port of the tunnels.
    pub tunnel_port: u16,
    /// Largest packet of the node's device, if it is not to be asked.
    pub mtu: Option<u32>,
    /// The device that leads out of the node, if it is not the default route's.
    pub device: Option<String>,
    /// Pods are masqueraded towards the world, IPv4.
    pub masquerade4: bool,
    /// The same, IPv6.
    pub masquerade6: bool,
    /// Not masqueraded towards this network, besides the cluster's pods.
    pub native4: Option<Ipv4Net>,
    /// The same, IPv6.
    pub native6: Option<Ipv6Net>,
    /// Traces.
    pub aggregation: Aggregation,
    /// Events of drops.
    pub drop_events: bool,
    /// Events of traces.
    pub trace_events: bool,
    /// Events of policy verdicts.
    pub verdict_events: bool,
    /// Flows are served.
    pub hubble: bool,
    /// Where they are served besides the socket; the address is all there is.
    pub hubble_listen: Option<String>,
    /// Where they are served on the node.
    pub hubble_socket: PathBuf,
    /// How many are kept.
    pub hubble_capacity: usize,
    /// A health endpoint is kept.
    pub health_endpoint: bool,
    /// Services are served.
    pub kube_proxy_replacement: bool,
    /// How much of what DNS answers say is kept, and for how long.
    pub names: fqdn::Limits,
    /// Rules at the application's level are enforced, by a proxy.
    pub l7_proxy: bool,
    /// Where its ports are.
    pub proxy_ports: std::ops::RangeInclusive<u16>,
    /// Its port for DNS, if one is given.
    pub dns_port: Option<u16>,
    /// What it is told.
    pub proxy: proxy_api::Settings,
    /// A group that it may be of, where it is not root's.
    pub proxy_group: Option<u32>,
    /// Where Secrets are read for it.
    pub secrets: crate::secrets::Sources,
    /// Items of Secrets that the other side of TLS would use count too.
    pub full_tls_context: bool,
    /// NetworkPolicy objects count.
    pub network_policy: bool,
    /// ClusterNetworkPolicy objects count.
    pub cluster_network_policy: bool,
    /// The API's socket.
    pub socket: PathBuf,
    /// What must survive a restart.
    pub state_dir: PathBuf,
    /// BPF file system.
    pub bpf_root: PathBuf,
    /// How programs come to devices.
    pub attachment: Attachment,
    /// Root of the node's cgroups.
    pub cgroup_root: PathBuf,
    /// Where the runtime finds the CNI configuration; written when all is ready.
    pub cni_conf: Option<PathBuf>,
    /// Which labels make up identities, as a filter's text.
    pub label_filter: String,
    /// Connections, both kinds together.
    pub conntrack_entries: Option<u32>,
    /// Masqueraded connections.
    pub nat_entries: Option<u32>,
    /// Entries of one policy.
    pub policy_entries: Option<u32>,
    /// Services and backends.
    pub service_entries: Option<u32>,
    /// TCP port on 127.0.0.1 that says whether the agent is ready.
    pub health_port: u16,
    /// Networks that the cluster's pods are of.
    pub cluster_pools: Vec<ipnet::IpNet>,
    /// Everything that was given, for `GET /v1/config`.
    pub given: Values,
}

/// `proxy-portrange-min` to `proxy-portrange-max`.
fn proxy_ports(read: &Reader<'_>) -> Result<std::ops::RangeInclusive<u16>, ConfigError> {
    let low = read.parsed("proxy-portrange-min", "a port number")?.unwrap_or(10_000u16);
    let high = read.parsed("proxy-portrange-max", "a port number")?.unwrap_or(20_000u16);
    if low == 0 || high < low {
        return Err(wrong("proxy-portrange-max", &high.to_string(), "a port that is not below proxy-portrange-min"));
    }
    Ok(low..=high)
}

/// Reads values by their names.
pub(super) struct Reader<'a>(&'a Values);

impl Reader<'_> {
    /// The value, unless it is empty.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn parsed<T: FromStr>(&self, name: &str, expected: &str) -> Result<Option<T>, ConfigError> {
        self.text(name).map(|value| value.parse().map_err(|_| wrong(name, value, expected))).transpose()
    }

    pub(super) fn number<T: FromStr>(&self, name: &str) -> Result<Option<T>, ConfigError> {
        self.parsed(name, "a whole number")
    }

    /// As Go writes durations; `0` is one too.
    pub(super) fn duration(&self, name: &str) -> Result<Option<Duration>, ConfigError> {
        let read = |text: &str| match text {
            "0" => Some(Duration::ZERO),
            text => text.parse().ok().and_then(|span: jiff::SignedDuration| Duration::try_from(span).ok()),
        };
        let expected = "a duration such as 30s, 5m or 100ms";
        self.text(name).map(|text| read(text).ok_or_else(|| wrong(name, text, expected))).transpose()
    }

    pub(super) fn switch(&self, name: &str, default: bool) -> Result<bool, ConfigError> {
        match self.text(name) {
            None => Ok(default),
            Some("true") => Ok(true),
            Some("false") => Ok(false),
            Some(value) => Err(wrong(name, value, "true or false")),
        }
    }

    pub(super) fn path(&self, name: &str, default: &str) -> PathBuf {
        self.text(name).unwrap_or(default).into()
    }

    /// Features with one value for now.
    fn only(&self, name: &str, supported: &[&str]) -> Result<(), ConfigError> {
        match self.text(name) {
            Some(value) if !supported.contains(&value) => Err(ConfigError::Unsupported {
                name: name.into(),
                value: value.into(),
                supported: supported.join(", "),
            }),
            _ => Ok(()),
        }
    }
}

/// Two sizes of what is one table here.
fn together(tcp: Option<u32>, any: Option<u32>) -> Option<u32> {
    tcp.or(any).map(|_| tcp.unwrap_or_default().saturating_add(any.unwrap_or_default()))
}

pub(super) fn wrong(name: &str, value: &str, expected: &str) -> ConfigError {
    ConfigError::Value { name: name.into(), value: value.into(), expected: expected.into() }
}

/// How much is kept of what DNS answers say.
fn names(read: &Reader<'_>) -> Result<fqdn::Limits, ConfigError> {
    let default = fqdn::Limits::default();
    let addresses_per_name = read.number("tofqdns-endpoint-max-ip-per-hostname")?;
    let grace = read.duration("tofqdns-idle-connection-grace-period")?;
    Ok(fqdn::Limits {
        min_ttl: read.number("tofqdns-min-ttl")?.unwrap_or(default.min_ttl),
        addresses_per_name: addresses_per_name.unwrap_or(default.addresses_per_name),
        held: read.number("tofqdns-max-deferred-connection-deletes")?.unwrap_or(default.held),
        grace: grace.map_or(default.grace, |grace| grace.as_secs()),
        ..default
    })
}

impl Settings {
    /// Reads the values; `node` is the node's name from the environment.
    pub fn new(values: &Values, node: &str) -> Result<Self, ConfigError> {
        let read = Reader(values);
        read.only("routing-mode", &["tunnel"])?;
        read.only("tunnel-protocol", &["vxlan"])?;
        read.only("ipam", &["kubernetes", "cluster-pool"])?;
        read.only("identity-allocation-mode", &["crd"])?;
        read.only("datapath-mode", &["veth"])?;
        let state_dir = read.path("state-dir", "/var/run/cilium");
        let number = "a whole number";
        Ok(Settings {
            cluster: read.text("cluster-name").unwrap_or("default").into(),
            node: node.into(),
            namespace: read.text("k8s-namespace").unwrap_or("kube-system").into(),
            kubeconfig: read.text("k8s-kubeconfig-path").map(Into::into),
            ipv4: read.switch("enable-ipv4", true)?,
            ipv6: read.switch("enable-ipv6", false)?,
            enforcement: enforcement(&read)?,
            audit: read.switch("policy-audit-mode", false)?,
            tunnel_port: read.parsed("tunnel-port", "a port number")?.filter(|port| *port != 0).unwrap_or(8472),
            mtu: read.parsed("mtu", number)?.filter(|mtu| *mtu != 0),
            device: read.text("devices").and_then(|d| d.split([',', ' ']).next()).map(str::to_owned),
            masquerade4: read.switch("enable-ipv4-masquerade", true)?,
            masquerade6: read.switch("enable-ipv6-masquerade", true)?,
            native4: read.parsed("ipv4-native-routing-cidr", "a network such as 10.0.0.0/8")?,
            native6: read.parsed("ipv6-native-routing-cidr", "a network such as fd00::/8")?,
            aggregation: aggregation(&read)?,
            drop_events: read.switch("bpf-events-drop-enabled", true)?,
            trace_events: read.switch("bpf-events-trace-enabled", true)?,
            verdict_events: read.switch("bpf-events-policy-verdict-enabled", true)?,
            hubble: read.switch("enable-hubble", true)?,
            hubble_listen: read.text("hubble-listen-address").map(str::to_owned),
            hubble_socket: read.path("hubble-socket-path", "/var/run/cilium/hubble.sock"),
            hubble_capacity: read.parsed("hubble-event-buffer-capacity", number)?.unwrap_or(4095),
            health_endpoint: read.switch("enable-endpoint-health-checking", true)?
                && read.switch("enable-health-checking", true)?,
            kube_proxy_replacement: read.switch("kube-proxy-replacement", true)?,
            names: names(&read)?,
            l7_proxy: read.switch("enable-l7-proxy", true)?,
            proxy_ports: proxy_ports(&read)?,
            dns_port: read.parsed("tofqdns-proxy-port", "a port number")?.filter(|port| *port != 0),
            proxy: proxy::settings(&read)?,
            proxy_group: read.number("proxy-gid")?,
            secrets: proxy::sources(&read)?,
            full_tls_context: read.switch("use-full-tls-context", false)?,
            network_policy: read.switch("enable-k8s-networkpolicy", true)?,
            cluster_network_policy: read.switch("enable-k8s-cluster-network-policy", false)?,
            socket: read.path("socket-path", agent_api::DEFAULT_SOCKET),
            state_dir,
            bpf_root: read.path("bpf-root", "/sys/fs/bpf"),
            attachment: if read.switch("enable-tcx", true)? { Attachment::Probe } else { Attachment::Clsact },
            cgroup_root: read.path("cgroup-root", "/run/cilium/cgroupv2"),
            cni_conf: read.text("write-cni-conf-when-ready").map(Into::into),
            label_filter: read.text("labels").unwrap_or("").into(),
            conntrack_entries: together(
                read.parsed("bpf-ct-global-tcp-max", number)?,
                read.parsed("bpf-ct-global-any-max", number)?,
            ),
            nat_entries: read.parsed("bpf-nat-global-max", number)?,
            policy_entries: read.parsed("bpf-policy-map-max", number)?,
            service_entries: read.parsed("bpf-lb-map-max", number)?,
            health_port: read.parsed("agent-health-port", "a port number")?.unwrap_or(9879),
            cluster_pools: networks(&read)?,
            given: values.clone(),
        })
    }

    /// True if addresses of this family are on.
    pub fn has_family(&self, address: IpAddr) -> bool {
        if address.is_ipv4() { self.ipv4 } else { self.ipv6 }
    }
}

/// Each of the two settings may name several networks.
fn networks(read: &Reader<'_>) -> Result<Vec<ipnet::IpNet>, ConfigError> {
    let mut all = Vec::new();
    for name in ["cluster-pool-ipv4-cidr", "cluster-pool-ipv6-cidr"] {
        let parts = read.text(name).unwrap_or("").split([',', ' ']).filter(|part| !part.is_empty());
        for part in parts {
            all.push(part.parse().map_err(|_| wrong(name, part, "a network such as 10.244.0.0/16"))?);
        }
    }
    Ok(all)
}

fn enforcement(read: &Reader<'_>) -> Result<Enforcement, ConfigError> {
    Ok(match read.text("enable-policy") {
        None | Some("default") => Enforcement::Default,
        Some("always") => Enforcement::Always,
        Some("never") => Enforcement::Never,
        Some(value) => return Err(wrong("enable-policy", value, "default, always or never")),
    })
}

fn aggregation(read: &Reader<'_>) -> Result<Aggregation, ConfigError> {
    let value = read.text("monitor-aggregation").unwrap_or("medium").to_lowercase();
    Ok(Aggregation(match value.as_str() {
        "none" | "disabled" => 0,
        "lowest" => 1,
        "low" => 2,
        "medium" => 3,
        "max" | "maximum" => 4,
        other => return Err(wrong("monitor-aggregation", other, "none, lowest, low, medium or maximum")),
    }))
}
