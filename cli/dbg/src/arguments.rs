//! What may be typed after `cilium-dbg`?

use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::output::Format;

/// CLI for interacting with the local agent.
#[derive(Parser, Debug)]
#[command(name = "cilium-dbg", version, disable_help_subcommand = true)]
pub struct Cli {
    /// URI to server-side API
    #[arg(short = 'H', long, global = true)]
    pub host: Option<String>,
    /// Enable debug messages
    #[arg(short = 'D', long, global = true)]
    pub debug: bool,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Args, Debug, Clone)]
pub struct Output {
    /// json | yaml | jsonpath='{}'
    #[arg(short, long)]
    pub output: Option<Format>,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Direct access to local BPF maps
    #[command(subcommand)]
    Bpf(BpfCommand),
    /// Cilium configuration options
    Config {
        #[command(flatten)]
        output: Output,
        /// Print all configuration options
        #[arg(short, long)]
        all: bool,
    },
    /// Manage endpoints
    #[command(subcommand)]
    Endpoint(EndpointCommand),
    /// Manage fqdn proxy
    #[command(subcommand)]
    Fqdn(FqdnCommand),
    /// Manage security identities
    #[command(subcommand)]
    Identity(IdentityCommand),
    /// Manage IP addresses and associated information
    #[command(subcommand)]
    Ip(IpCommand),
    /// Access userspace cached content of BPF maps
    #[command(subcommand)]
    Map(ListCommand),
    /// Access metric status
    #[command(subcommand)]
    Metrics(MetricsCommand),
    /// Display BPF program events
    Monitor(MonitorArgs),
    /// Manage cluster nodes
    #[command(subcommand)]
    Node(ListCommand),
    /// Manage security policies
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Manage services & loadbalancers
    #[command(subcommand)]
    Service(ListCommand),
    /// Display status of daemon
    Status(StatusArgs),
    /// Print version information
    Version,
}

#[derive(Args, Debug)]
pub struct StatusArgs {
    #[command(flatten)]
    pub output: Output,
    /// Only print a one-line status message
    #[arg(long)]
    pub brief: bool,
    /// Show all allocated addresses, not just count
    #[arg(long)]
    pub all_addresses: bool,
    /// Show all nodes, not just localhost
    #[arg(long)]
    pub all_nodes: bool,
    /// Show all controllers, not just failing
    #[arg(long)]
    pub all_controllers: bool,
    /// Show all redirects
    #[arg(long)]
    pub all_redirects: bool,
    /// Show all clusters
    #[arg(long)]
    pub all_clusters: bool,
    /// Show all health status, not just failing
    #[arg(long)]
    pub all_health: bool,
    /// Whether an agent that does not reach the Kubernetes control plane makes this command fail
    #[arg(
        long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true",
        require_equals = true
    )]
    pub require_k8s_connectivity: bool,
    /// How long to wait for the agent, such as 30s
    #[arg(long, default_value = "30s", value_parser = duration)]
    pub timeout: Duration,
    /// Equivalent to --all-addresses --all-controllers --all-nodes --all-redirects --all-clusters --all-health
    #[arg(long)]
    pub verbose: bool,
}

#[derive(Subcommand, Debug)]
pub enum ListCommand {
    /// List all entries
    #[command(visible_alias = "ls")]
    List(Output),
}

#[derive(Subcommand, Debug)]
pub enum FqdnCommand {
    /// Manage fqdn proxy cache
    #[command(subcommand)]
    Cache(FqdnCacheCommand),
    /// Show internal state Cilium has for DNS names / regexes
    Names,
    /// Show by which names an endpoint may reach an address: answer, time and rules
    Why {
        /// The address
        address: String,
        /// Pod of this node, as NAMESPACE/NAME or as NAME in the namespace default
        #[arg(long, conflicts_with = "endpoint", required_unless_present = "endpoint")]
        pod: Option<String>,
        /// Endpoint of this node, by number
        #[arg(short, long)]
        endpoint: Option<String>,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Subcommand, Debug)]
pub enum FqdnCacheCommand {
    /// List fqdn cache contents
    List {
        /// List cache entries for a specific endpoint id
        #[arg(short, long)]
        endpoint: Option<String>,
        /// List cache entries with FQDN that match matchpattern
        #[arg(short = 'p', long)]
        matchpattern: Option<String>,
        /// List cache entries from a specific source (lookup, connection)
        #[arg(short, long)]
        source: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Clean fqdn cache
    Clean {
        /// Skip confirmation
        #[arg(short, long)]
        force: bool,
        /// Delete cache entries with FQDNs that match matchpattern
        #[arg(short = 'p', long)]
        matchpattern: Option<String>,
    },
}

#[derive(Subcommand, Debug)]
pub enum MetricsCommand {
    /// List all metrics
    #[command(visible_alias = "ls")]
    List {
        /// Show only metrics whose names match this regular expression
        #[arg(short = 'p', long)]
        match_pattern: Option<String>,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Subcommand, Debug)]
pub enum EndpointCommand {
    /// List all endpoints
    #[command(visible_alias = "ls")]
    List {
        #[command(flatten)]
        output: Output,
        /// Do not print headers
        #[arg(long)]
        no_headers: bool,
    },
    /// Display endpoint information
    #[command(visible_aliases = ["inspect", "show"])]
    Get {
        /// Number or PREFIX:VALUE
        #[arg(required_unless_present = "labels", conflicts_with = "labels")]
        endpoint: Option<String>,
        /// Labels that an endpoint must have
        #[arg(short, long, value_delimiter = ',')]
        labels: Vec<String>,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Subcommand, Debug)]
pub enum IdentityCommand {
    /// List identities
    #[command(visible_alias = "ls")]
    List {
        /// Labels that an identity must have
        labels: Vec<String>,
        /// List identities of locally managed endpoints
        #[arg(long, conflicts_with = "labels")]
        endpoints: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Retrieve information about an identity
    Get {
        /// Number
        #[arg(required_unless_present = "label", conflicts_with = "label")]
        identity: Option<u32>,
        /// Label to look up
        #[arg(long, value_delimiter = ',')]
        label: Vec<String>,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Subcommand, Debug)]
pub enum IpCommand {
    /// List IP addresses in the userspace IPcache
    #[command(visible_alias = "ls")]
    List {
        #[command(flatten)]
        output: Output,
        /// Print numeric identities
        #[arg(short, long)]
        numeric: bool,
        /// Print all fields of the ipcache
        #[arg(short, long)]
        verbose: bool,
    },
    /// Display IP Cache information
    Get {
        /// Address or prefix
        #[arg(required_unless_present = "labels", conflicts_with = "labels")]
        address: Option<String>,
        /// Labels that the identity of an entry must have
        #[arg(short, long, value_delimiter = ',')]
        labels: Vec<String>,
        /// Print all fields of the ipcache
        #[arg(short, long)]
        verbose: bool,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Subcommand, Debug)]
pub enum PolicyCommand {
    /// Display policy node information
    Get(Output),
    /// Display cached information about selectors
    Selectors {
        #[command(flatten)]
        output: Output,
        /// Show the full labels
        #[arg(short, long)]
        verbose: bool,
    },
    /// Wait for all endpoints to have updated to a given policy revision
    Wait {
        /// The revision
        revision: u64,
        /// Wait time between retries, in seconds
        #[arg(long, default_value_t = 1)]
        sleep_time: u64,
        /// Fail after so many seconds if an endpoint cannot have its policy
        #[arg(long, default_value_t = 60)]
        fail_wait_time: u64,
        /// Wait at most this many seconds
        #[arg(long, default_value_t = 360)]
        max_wait_time: u64,
    },
}

#[derive(Subcommand, Debug)]
pub enum BpfCommand {
    /// Connection tracking tables
    #[command(subcommand)]
    Ct(CtCommand),
    /// Local endpoint map
    #[command(subcommand)]
    Endpoint(ListCommand),
    /// Manage the IPCache mappings for IP/CIDR <-> Identity
    #[command(subcommand)]
    Ipcache(IpcacheCommand),
    /// Load-balancing configuration
    #[command(subcommand)]
    Lb(ListCommand),
    /// BPF datapath traffic metrics
    #[command(subcommand)]
    Metrics(ListCommand),
    /// Manage policy related BPF maps
    #[command(subcommand)]
    Policy(BpfPolicyCommand),
}

#[derive(Subcommand, Debug)]
pub enum CtCommand {
    /// List connection tracking entries
    #[command(visible_alias = "ls")]
    List {
        /// There is one table for all endpoints: global
        #[arg(default_value = "global")]
        which: Vec<String>,
        /// Print time difference for entries
        #[arg(short = 'd', long)]
        time_diff: bool,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Subcommand, Debug)]
pub enum IpcacheCommand {
    /// List endpoint IPs (local and remote) and their corresponding security identities
    #[command(visible_alias = "ls")]
    List(Output),
    /// Retrieve identity for an ip
    Get {
        /// Address
        address: std::net::IpAddr,
    },
}

#[derive(Subcommand, Debug)]
pub enum BpfPolicyCommand {
    /// Get contents of a policy BPF map
    Get {
        /// Endpoint
        endpoint: Option<String>,
        /// Do not resolve IDs
        #[arg(short, long)]
        numeric: bool,
        /// Dump all policy maps
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Dump all policy maps
    #[command(visible_alias = "ls")]
    List {
        /// Do not resolve IDs
        #[arg(short, long)]
        numeric: bool,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Args, Debug)]
pub struct MonitorArgs {
    /// Filter by event types: drop, l7, policy-verdict, trace
    #[arg(short = 't', long = "type", value_delimiter = ',')]
    pub types: Vec<EventType>,
    /// Filter by either source or destination endpoint id
    #[arg(long, value_delimiter = ',')]
    pub related_to: Vec<u32>,
    /// Filter by source endpoint id
    #[arg(long, value_delimiter = ',')]
    pub from: Vec<u32>,
    /// Filter by destination endpoint id
    #[arg(long, value_delimiter = ',')]
    pub to: Vec<u32>,
    /// Do not dissect, print the event in HEX
    #[arg(long)]
    pub hex: bool,
    /// Display all security identities as numeric values
    #[arg(short, long)]
    pub numeric: bool,
    /// Enable verbose output
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Enable JSON output
    #[arg(short, long)]
    pub json: bool,
}

/// A type of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum EventType {
    /// From the agent; there are none yet.
    Agent,
    /// Captured packets; there are none yet.
    Capture,
    /// For debugging; there are none yet.
    Debug,
    /// Drops.
    Drop,
    /// Requests and answers that the proxy saw.
    L7,
    /// Verdicts.
    PolicyVerdict,
    /// Forwarded packets.
    Trace,
    /// Of socket programs; there are none yet.
    TraceSock,
}

/// `30s`, `2m`, `1h`, `500ms`.
fn duration(text: &str) -> Result<Duration, String> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let wrong = || format!("{text:?} is no duration: want such as 30s, 2m or 500ms");
    let number: u64 = text[..end].parse().map_err(|_| wrong())?;
    match &text[end..] {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number.saturating_mul(60))),
        "h" => Ok(Duration::from_secs(number.saturating_mul(3600))),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_users_type_is_understood() {
        for line in [
            "status --all-health --timeout 5s",
            "status --require-k8s-connectivity=false --brief",
            "endpoint get -l k8s:app=web -o jsonpath={[0].id}",
            "endpoint inspect 5",
            "identity get --label k8s:app=web",
            "identity list --endpoints",
            "ip list -n -v",
            "ip get -l reserved:host",
            "bpf policy get --all -n",
            "bpf policy list",
            "bpf ct list global -d",
            "bpf ct list",
            "monitor -t drop -t policy-verdict,trace --to 5 -vv -n",
            "metrics list -p cilium_drop.* -o json",
            "policy selectors -v",
            "policy get -o json",
            "fqdn cache list -e 5 -p *.cilium.io -s lookup -o json",
            "fqdn cache clean -f -p *.cilium.io",
            "fqdn names",
            "fqdn why 1.1.1.1 --pod default/web",
            "fqdn why 1.1.1.1 -e 5",
        ] {
            let words = std::iter::once("cilium-dbg").chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_ok(), "{line}");
        }
        for line in ["endpoint get", "ip get", "identity get", "monitor -t drops", "status --timeout never"] {
            let words = std::iter::once("cilium-dbg").chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_err(), "{line}");
        }
    }
}
