//! Which settings of the agent change what policies mean?

use identity::Families;

/// When are endpoints closed?
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    /// In the directions in which a policy selects them.
    #[default]
    Default,
    /// Always, in both directions.
    Always,
    /// Never, whatever policies say.
    Never,
}

/// Whether the own node may reach its pods whatever policies say.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum AllowLocalhost {
    /// It may, unless a policy denies it; but in mode always not where no ingress rule selects the pod. That is what
    /// Cilium 1.20's engine computes.
    #[default]
    Always,
    /// It may, unless a policy denies it, in mode always too: kubelet's probes reach pods that have egress rules alone.
    /// What agents do.
    EvenWithoutRules,
    /// As policies say.
    Policy,
}

/// What becomes of an object that does not fit the schema of its kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SchemaMode {
    /// It is refused, as by an API server.
    #[default]
    Reject,
    /// It is read as far as its fields are known; the rest is a warning.
    Warn,
    /// It is read as far as its fields are known, and nothing is said.
    Off,
}

/// Settings that change what policies mean.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// When endpoints are closed.
    pub mode: Mode,
    /// Name of the own cluster.
    pub cluster_name: String,
    /// Selectors that name no cluster select pods of all clusters.
    pub any_cluster: bool,
    /// Address families in use.
    pub families: Families,
    /// Whether the own node may reach its pods.
    pub allow_localhost: AllowLocalhost,
    /// Number of the own cluster: bits 16 to 23 of its workloads' identities.
    pub cluster_id: u32,
    /// Prefixes in policies select nodes too.
    pub cidr_matches_nodes: bool,
    /// Prefixes in policies select workloads too that have labels of prefixes.
    pub cidr_matches_pods: bool,
    /// Policies for nodes are enforced.
    pub host_firewall: bool,
    /// Nodes can be selected by labels.
    pub node_selector_labels: bool,
    /// Protocols without ports can be named.
    pub extended_ip_protocols: bool,
    /// There is a proxy for rules at the application's level.
    pub l7_proxy: bool,
    /// Messages of ICMP can be named.
    pub icmp_rules: bool,
    /// How closely objects must fit the schema of their kind.
    pub schema: SchemaMode,
    /// Number of the first rule set. Whoever begins anew while something remembers numbers of before begins with one that
    /// was never given.
    pub first_rule_set: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            mode: Mode::Default,
            cluster_name: "default".to_owned(),
            cluster_id: 0,
            any_cluster: false,
            families: Families { ipv4: true, ipv6: false },
            allow_localhost: AllowLocalhost::Always,
            cidr_matches_nodes: false,
            cidr_matches_pods: false,
            host_firewall: false,
            node_selector_labels: false,
            extended_ip_protocols: false,
            l7_proxy: true,
            icmp_rules: true,
            schema: SchemaMode::Reject,
            first_rule_set: 1,
        }
    }
}
