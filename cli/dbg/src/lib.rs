//! The cilium-dbg command: what does the agent of this node know, and what is in its datapath?

pub mod lists;
pub mod monitor;
pub mod output;
pub mod status;
pub mod tables;
pub mod tabwriter;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use agent_api::{Client, DaemonConfig, Endpoint, Identity, IpEntry, Policy, StatusResponse};
use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};

use output::Format;

/// CLI for interacting with the local agent.
#[derive(Parser, Debug)]
#[command(name = "cilium-dbg", version, disable_help_subcommand = true)]
struct Cli {
    /// URI to server-side API
    #[arg(short = 'H', long, global = true)]
    host: Option<String>,
    /// Enable debug messages
    #[arg(short = 'D', long, global = true)]
    debug: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args, Debug, Clone)]
struct Output {
    /// json | yaml | jsonpath='{}'
    #[arg(short, long)]
    output: Option<Format>,
}

#[derive(Subcommand, Debug)]
enum Command {
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
    /// Manage security identities
    #[command(subcommand)]
    Identity(IdentityCommand),
    /// Manage IP addresses and associated information
    #[command(subcommand)]
    Ip(IpCommand),
    /// Access userspace cached content of BPF maps
    #[command(subcommand)]
    Map(ListCommand),
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
    Status {
        #[command(flatten)]
        output: Output,
        /// Only print a one-line status message
        #[arg(long)]
        brief: bool,
        /// Equivalent to --all-addresses --all-controllers --all-nodes --all-redirects --all-clusters --all-health
        #[arg(long)]
        verbose: bool,
    },
    /// Print version information
    Version,
}

#[derive(Subcommand, Debug)]
enum ListCommand {
    /// List all entries
    #[command(visible_alias = "ls")]
    List(Output),
}

#[derive(Subcommand, Debug)]
enum EndpointCommand {
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
    Get {
        /// Number or PREFIX:VALUE
        endpoint: String,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Subcommand, Debug)]
enum IdentityCommand {
    /// List identities
    #[command(visible_alias = "ls")]
    List {
        /// Labels that an identity must have
        labels: Vec<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Retrieve information about an identity
    Get {
        /// Number
        identity: u32,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Subcommand, Debug)]
enum IpCommand {
    /// List IP addresses in the userspace IPcache
    #[command(visible_alias = "ls")]
    List {
        #[command(flatten)]
        output: Output,
        /// Print numeric identities
        #[arg(short, long)]
        numeric: bool,
    },
    /// Display IP address information
    Get {
        /// Address or prefix
        address: String,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Subcommand, Debug)]
enum PolicyCommand {
    /// Display policy node information
    Get(Output),
    /// Display cached information about selectors
    Selectors(Output),
    /// Wait for all endpoints to have updated to a given policy revision
    Wait {
        /// The revision
        revision: u64,
        /// Wait time between retries, in seconds
        #[arg(long, default_value_t = 1)]
        sleep_time: u64,
        /// Wait at most this many seconds
        #[arg(long, default_value_t = 360)]
        max_wait_time: u64,
    },
}

#[derive(Subcommand, Debug)]
enum BpfCommand {
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
enum CtCommand {
    /// List connection tracking entries
    #[command(visible_alias = "ls")]
    List {
        /// global
        #[arg(default_value = "global")]
        which: String,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Subcommand, Debug)]
enum IpcacheCommand {
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
enum BpfPolicyCommand {
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
    /// List contents of a policy BPF map
    #[command(visible_alias = "ls")]
    List {
        /// Endpoint
        endpoint: String,
        /// Do not resolve IDs
        #[arg(short, long)]
        numeric: bool,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Args, Debug)]
struct MonitorArgs {
    /// Filter by event types: drop, trace, policy-verdict
    #[arg(short = 't', long = "type")]
    types: Vec<String>,
    /// Filter by either source or destination endpoint id
    #[arg(long)]
    related_to: Vec<u32>,
    /// Filter by source endpoint id
    #[arg(long)]
    from: Vec<u32>,
    /// Enable verbose output
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Enable JSON output
    #[arg(short, long)]
    json: bool,
}

/// The command; the first argument is the program's name.
pub fn main_with<I: IntoIterator<Item = String>>(arguments: I) -> ExitCode {
    let cli = match Cli::try_parse_from(std::iter::once("cilium-dbg".to_owned()).chain(arguments)) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no failures.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("Error: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn client(host: Option<&str>) -> Client {
    match host {
        Some(host) => Client::new(host.strip_prefix("unix://").unwrap_or(host)),
        None => Client::new(agent_api::socket_path()),
    }
}

/// Prints a value in the format that was asked for, else as text.
fn show(value: &impl serde::Serialize, output: &Output, text: impl FnOnce() -> String) -> Result<()> {
    match &output.output {
        Some(format) => print!("{}", output::render(value, format)?),
        None => print!("{}", text()),
    }
    Ok(())
}

async fn run(cli: Cli) -> Result<()> {
    let client = client(cli.host.as_deref());
    match cli.command {
        Command::Bpf(command) => bpf_command(&client, command).await,
        Command::Config { output, all } => {
            let config: DaemonConfig = client.get("/v1/config").await?;
            show(&config, &output, || configuration(&config, all))
        }
        Command::Endpoint(EndpointCommand::List { output, no_headers }) => {
            let all: Vec<Endpoint> = client.get("/v1/endpoint").await.context("cannot get endpoint list")?;
            show(&all, &output, || lists::endpoints(all.clone(), !no_headers))
        }
        Command::Endpoint(EndpointCommand::Get { endpoint, output }) => {
            let found: Endpoint = client.get(&format!("/v1/endpoint/{endpoint}")).await?;
            let output = Output { output: Some(output.output.unwrap_or(Format::Json)) };
            show(&[found], &output, String::new)
        }
        Command::Identity(IdentityCommand::List { labels, output }) => {
            let mut all: Vec<Identity> = client.get("/v1/identity").await?;
            all.retain(|identity| labels.iter().all(|label| identity.labels.contains(label)));
            show(&all, &output, || lists::identities(&all))
        }
        Command::Identity(IdentityCommand::Get { identity, output }) => {
            let found: Identity = client.get(&format!("/v1/identity/{identity}")).await?;
            show(&[&found], &output, || lists::identities(std::slice::from_ref(&found)))
        }
        Command::Ip(IpCommand::List { output, numeric }) => {
            let all: Vec<IpEntry> = client.get("/v1/ip").await?;
            let known = if numeric { None } else { Some(labels(&client).await?) };
            show(&all, &output, || lists::ips(&all, known.as_ref()))
        }
        Command::Ip(IpCommand::Get { address, output }) => {
            let mut all: Vec<IpEntry> = client.get("/v1/ip").await?;
            all.retain(|entry| entry.cidr == address || entry.cidr.split('/').next() == Some(&address));
            if all.is_empty() {
                bail!("no IP cache entry for {address}");
            }
            let known = labels(&client).await?;
            show(&all, &output, || lists::ips(&all, Some(&known)))
        }
        Command::Map(ListCommand::List(output)) => {
            let all: Vec<agent_api::Map> = client.get("/v1/map").await?;
            show(&all, &output, || lists::maps(&all))
        }
        Command::Monitor(arguments) => watch(&client, &arguments).await,
        Command::Node(ListCommand::List(output)) => {
            let all: Vec<agent_api::Node> = client.get("/v1/cluster/nodes").await?;
            show(&all, &output, || lists::nodes(&all))
        }
        Command::Policy(command) => policy_command(&client, command).await,
        Command::Service(ListCommand::List(output)) => {
            let all: Vec<agent_api::Service> = client.get("/v1/service").await?;
            show(&all, &output, || lists::services(&all))
        }
        Command::Status { output, brief, verbose } => {
            let status: StatusResponse = client.get("/v1/healthz").await?;
            show(&status, &output, || if brief { status::brief(&status) } else { status::full(&status, verbose) })
        }
        Command::Version => {
            let status = client.get::<StatusResponse>("/v1/healthz").await;
            println!("Client: {}", env!("CARGO_PKG_VERSION"));
            match status {
                Ok(status) => println!("Daemon: {}", status.version),
                Err(error) => println!("Daemon: <unknown: {error}>"),
            }
            Ok(())
        }
    }
}

fn configuration(config: &DaemonConfig, all: bool) -> String {
    let mut text = String::new();
    let mut section = |title: &str, values: &BTreeMap<String, String>| {
        text.push_str(&format!("#### {title} ####\n"));
        values.iter().for_each(|(name, value)| text.push_str(&format!("{name:<40}: {value}\n")));
    };
    if all {
        section("Read-only configurations", &config.daemon_configuration_map);
    }
    section("Read-write configurations", &config.immutable);
    text.push_str(&format!("{:<40}: {}\n", "PolicyEnforcement", config.policy_enforcement));
    text
}

async fn labels(client: &Client) -> Result<BTreeMap<u32, Vec<String>>> {
    let all: Vec<Identity> = client.get("/v1/identity").await?;
    Ok(all.into_iter().map(|identity| (identity.id, identity.labels)).collect())
}

async fn policy_command(client: &Client, command: PolicyCommand) -> Result<()> {
    match command {
        PolicyCommand::Get(output) => {
            let policy: Policy = client.get("/v1/policy").await?;
            show(&policy, &output, || format!("{}\nRevision: {}\n", policy.policy, policy.revision))
        }
        PolicyCommand::Selectors(output) => {
            let all: Vec<agent_api::Selector> = client.get("/v1/policy/selectors").await?;
            show(&all, &output, || lists::selectors(&all))
        }
        PolicyCommand::Wait { revision, sleep_time, max_wait_time } => {
            wait(client, revision, Duration::from_secs(sleep_time), Duration::from_secs(max_wait_time)).await
        }
    }
}

/// An endpoint without policy (the node itself) does not count.
async fn wait(client: &Client, revision: u64, pause: Duration, most: Duration) -> Result<()> {
    let started = Instant::now();
    loop {
        let all: Vec<Endpoint> = client.get("/v1/endpoint").await?;
        let with_policy = all.iter().filter(|e| e.status.identity.as_ref().is_none_or(|i| i.id != abi::identity::HOST));
        let late: Vec<u32> =
            with_policy.filter(|e| e.status.policy.realized.policy_revision < revision).map(|e| e.id).collect();
        if late.is_empty() {
            return Ok(());
        }
        if started.elapsed() >= most {
            bail!("timeout waiting for revision {revision}: endpoints {late:?} are not there yet");
        }
        tokio::time::sleep(pause).await;
    }
}

async fn watch(client: &Client, arguments: &MonitorArgs) -> Result<()> {
    let filter = monitor::Filter {
        types: arguments.types.iter().flat_map(|t| t.split(',')).map(str::to_owned).collect(),
        related: arguments.related_to.clone(),
        from: arguments.from.clone(),
        verbose: arguments.verbose > 0,
    };
    if !arguments.json {
        println!("Listening for events on one ring buffer for all processors");
        println!("Press Ctrl-C to quit");
    }
    client
        .monitor(|record| {
            let Some(event) = monitor::parse(&record.record) else { return true };
            if !filter.shows(&event) {
                return true;
            }
            let interface =
                if record.interface.is_empty() { event.ifindex.to_string() } else { record.interface.clone() };
            let line = monitor::line(&event, &interface, filter.verbose);
            let text = if arguments.json { serde_json::json!({ "message": line }).to_string() } else { line };
            // Nobody reads any more: the end.
            use std::io::Write;
            writeln!(std::io::stdout(), "{text}").is_ok()
        })
        .await?;
    Ok(())
}

async fn bpf_command(client: &Client, command: BpfCommand) -> Result<()> {
    let maps = tables::open()?;
    let rows = |output: &Output, rows: BTreeMap<String, Vec<String>>, titles| {
        show(&rows, output, || tables::two_columns(titles, &rows))
    };
    match command {
        BpfCommand::Ct(CtCommand::List { which, output }) => {
            if which != "global" {
                bail!("there is one table for all endpoints: want \"global\"");
            }
            let all = tables::connections(&maps)?;
            show(&all, &output, || all.iter().map(|line| format!("{line}\n")).collect())
        }
        BpfCommand::Endpoint(ListCommand::List(output)) => {
            rows(&output, tables::endpoints(&maps)?, ("IP ADDRESS", "LOCAL ENDPOINT INFO"))
        }
        BpfCommand::Ipcache(IpcacheCommand::List(output)) => {
            rows(&output, tables::ipcache(&maps)?, ("IP PREFIX/ADDRESS", "IDENTITY"))
        }
        BpfCommand::Ipcache(IpcacheCommand::Get { address }) => {
            let all = tables::ipcache(&maps)?;
            let containing = all.iter().filter_map(|(prefix, value)| {
                let net: ipnet::IpNet = prefix.parse().ok()?;
                net.contains(&address).then(|| (net.prefix_len(), prefix, value))
            });
            match containing.max_by_key(|(length, ..)| *length) {
                Some((_, prefix, value)) => println!("{address} maps to {prefix} {}", value.join(" ")),
                None => bail!("{address} maps to no identity"),
            }
            Ok(())
        }
        BpfCommand::Lb(ListCommand::List(output)) => {
            rows(&output, tables::services(&maps)?, ("SERVICE ADDRESS", "BACKEND ADDRESS (REVNAT_ID) (SLOT)"))
        }
        BpfCommand::Metrics(ListCommand::List(output)) => {
            let text = tables::metrics(&maps)?;
            show(&text, &output, || text.clone())
        }
        BpfCommand::Policy(command) => bpf_policy(client, &maps, command).await,
    }
}

async fn bpf_policy(client: &Client, maps: &bpf::Maps, command: BpfPolicyCommand) -> Result<()> {
    let (endpoint, numeric, all, output) = match command {
        BpfPolicyCommand::Get { endpoint, numeric, all, output } => (endpoint, numeric, all, output),
        BpfPolicyCommand::List { endpoint, numeric, output } => (Some(endpoint), numeric, false, output),
    };
    let known = if numeric { None } else { labels(client).await.ok() };
    if all {
        for (id, _) in maps.ep_policy.entries()?.into_iter().filter(|(_, p)| p.slot != 0) {
            println!("Endpoint ID: {id}\n");
            println!("{}\n", tables::policy(&rows_of(maps, id)?, known.as_ref()));
        }
        return Ok(());
    }
    let Some(endpoint) = endpoint else { bail!("want an endpoint, or --all") };
    let id: u32 = match endpoint.parse() {
        Ok(id) => id,
        Err(_) => client.get::<Endpoint>(&format!("/v1/endpoint/{endpoint}")).await?.id,
    };
    let rows = rows_of(maps, id)?;
    show(&rows, &output, || tables::policy(&rows, known.as_ref()))
}

fn rows_of(maps: &bpf::Maps, endpoint: u32) -> Result<Vec<tables::PolicyRow>> {
    let policy = maps.ep_policy.get(&endpoint)?.unwrap_or_default();
    let slot = maps.policy.dump(policy.slot)?;
    Ok(tables::policy_rows(&slot.unwrap_or_default()))
}
