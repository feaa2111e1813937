//! The cilium-dbg command: what does the agent of this node know, and what is in its datapath?

mod arguments;
mod datapath;
mod fqdn;
pub mod lists;
pub mod monitor;
pub mod output;
mod policies;
pub mod status;
pub mod tables;
pub mod tabwriter;

use std::collections::BTreeMap;
use std::process::ExitCode;

use agent_api::{Client, DaemonConfig, Endpoint, Identity, IpEntry, Metric, StatusResponse};
use anyhow::{Context, Result, bail};
use clap::Parser;

use arguments::{
    Cli, Command, EndpointCommand, IdentityCommand, IpCommand, ListCommand, MetricsCommand, Output, StatusArgs,
};
use output::{Format, emit, show};

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
            eprintln!("Error: {}", flow::print::clean(&format!("{error:#}")));
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

async fn run(cli: Cli) -> Result<()> {
    let client = client(cli.host.as_deref());
    match cli.command {
        Command::Bpf(command) => datapath::run(&client, command).await,
        Command::Config { output, all } => {
            let config: DaemonConfig = client.get("/v1/config").await?;
            show(&config, &output, |config| configuration(config, all))
        }
        Command::Endpoint(command) => endpoint(&client, command).await,
        Command::Fqdn(command) => fqdn::run(&client, command).await,
        Command::Identity(command) => identity(&client, command).await,
        Command::Ip(command) => ip(&client, command).await,
        Command::Map(ListCommand::List(output)) => {
            let all: Vec<agent_api::Map> = client.get("/v1/map").await?;
            show(&all, &output, |all| lists::maps(all))
        }
        Command::Metrics(MetricsCommand::List { match_pattern, output }) => {
            let all = metrics(client.get("/v1/metrics").await?, match_pattern.as_deref())?;
            show(&all, &output, |all| lists::metrics(all))
        }
        Command::Monitor(arguments) => monitor::watch(&client, &arguments).await,
        Command::Node(ListCommand::List(output)) => {
            let all: Vec<agent_api::Node> = client.get("/v1/cluster/nodes").await?;
            show(&all, &output, |all| lists::nodes(all))
        }
        Command::Policy(command) => policies::run(&client, command).await,
        Command::Service(ListCommand::List(output)) => {
            let all: Vec<agent_api::Service> = client.get("/v1/service").await?;
            show(&all, &output, |all| lists::services(all))
        }
        Command::Status(arguments) => show_status(client, &arguments).await,
        Command::Version => {
            let status = client.get::<StatusResponse>("/v1/healthz").await;
            let daemon = match status {
                Ok(status) => status.version,
                Err(error) => format!("<unknown: {error}>"),
            };
            emit(&format!("Client: {}\nDaemon: {daemon}\n", env!("CARGO_PKG_VERSION")))
        }
    }
}

async fn endpoint(client: &Client, command: EndpointCommand) -> Result<()> {
    let all = async || client.get::<Vec<Endpoint>>("/v1/endpoint").await.context("cannot get endpoint list");
    match command {
        EndpointCommand::List { output, no_headers } => {
            show(&all().await?, &output, |all| lists::endpoints(all.to_vec(), !no_headers))
        }
        EndpointCommand::Get { endpoint, labels, output } => {
            let found = match endpoint {
                Some(endpoint) => vec![client.get(&format!("/v1/endpoint/{endpoint}")).await?],
                None => with_labels(all().await?, &labels, |e| e.status.labels.security_relevant.clone())?,
            };
            let output = Output { output: Some(output.output.unwrap_or(Format::Json)) };
            show(&found, &output, |_| String::new())
        }
    }
}

/// Those that have all of these labels; it is an error if there are none.
fn with_labels<T>(mut all: Vec<T>, labels: &[String], of: impl Fn(&T) -> Vec<String>) -> Result<Vec<T>> {
    all.retain(|one| labels.iter().all(|label| of(one).iter().any(|own| is_label(own, label))));
    if all.is_empty() {
        bail!("nothing has the labels {}", labels.join(","));
    }
    Ok(all)
}

/// A label may be given without its source.
fn is_label(own: &str, given: &str) -> bool {
    own == given || own.split_once(':').is_some_and(|(_, rest)| rest == given)
}

async fn identity(client: &Client, command: IdentityCommand) -> Result<()> {
    let all = async || client.get::<Vec<Identity>>("/v1/identity").await;
    match command {
        IdentityCommand::List { endpoints: true, output, .. } => {
            let endpoints: Vec<Endpoint> = client.get("/v1/endpoint").await?;
            let mut own: Vec<Identity> = endpoints.into_iter().filter_map(|e| e.status.identity).collect();
            own.sort_by_key(|identity| identity.id);
            own.dedup_by_key(|identity| identity.id);
            show(&own, &output, |own| lists::identities(own))
        }
        IdentityCommand::List { labels, output, .. } => {
            let mut all = all().await?;
            all.retain(|identity| labels.iter().all(|label| identity.labels.iter().any(|own| is_label(own, label))));
            show(&all, &output, |all| lists::identities(all))
        }
        IdentityCommand::Get { identity, label, output } => {
            let found = match identity {
                Some(number) => vec![client.get(&format!("/v1/identity/{number}")).await?],
                None => with_labels(all().await?, &label, |identity| identity.labels.clone())?,
            };
            show(&found, &output, |found| lists::identities(found))
        }
    }
}

async fn ip(client: &Client, command: IpCommand) -> Result<()> {
    let all: Vec<IpEntry> = client.get("/v1/ip").await?;
    let known = labels(client).await?;
    match command {
        IpCommand::List { output, numeric, verbose } => {
            let known = (!numeric).then_some(&known);
            show(&all, &output, |all| lists::ips(all, known, verbose))
        }
        IpCommand::Get { address, labels, verbose, output } => {
            let found = match address {
                Some(address) => all.into_iter().filter(|entry| is_at(entry, &address)).collect(),
                None => with_labels(all, &labels, |entry| known.get(&entry.identity).cloned().unwrap_or_default())?,
            };
            if found.is_empty() {
                bail!("no IP cache entry has this address");
            }
            show(&found, &output, |found| lists::ips(found, Some(&known), verbose))
        }
    }
}

fn is_at(entry: &IpEntry, address: &str) -> bool {
    entry.cidr == address || entry.cidr.split('/').next() == Some(address)
}

fn metrics(mut all: Vec<Metric>, pattern: Option<&str>) -> Result<Vec<Metric>> {
    if let Some(pattern) = pattern {
        let pattern = regex::Regex::new(pattern).with_context(|| format!("--match-pattern {pattern:?}"))?;
        all.retain(|metric| pattern.is_match(&metric.name));
    }
    Ok(all)
}

async fn show_status(client: Client, arguments: &StatusArgs) -> Result<()> {
    let client = client.with_patience(arguments.timeout);
    let status: StatusResponse = client.get("/v1/healthz").await.context("cannot get the agent's status")?;
    let more = status::More {
        addresses: arguments.verbose || arguments.all_addresses,
        nodes: arguments.verbose || arguments.all_nodes,
        tables: arguments.verbose,
        redirects: arguments.verbose || arguments.all_redirects,
    };
    show(
        &status,
        &arguments.output,
        |status| {
            if arguments.brief { status::brief(status) } else { status::full(status, more) }
        },
    )?;
    match status::trouble(&status, arguments.require_k8s_connectivity) {
        Some(trouble) => bail!(trouble),
        None => Ok(()),
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

/// Labels of identities.
async fn labels(client: &Client) -> Result<BTreeMap<u32, Vec<String>>> {
    let all: Vec<Identity> = client.get("/v1/identity").await?;
    let clean = |label: &String| flow::print::clean(label).into_owned();
    Ok(all.into_iter().map(|identity| (identity.id, identity.labels.iter().map(clean).collect())).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_found_with_and_without_their_source() {
        let identity = |id, label: &str| Identity { id, labels: vec![label.to_owned()], ..Identity::default() };
        let all = vec![identity(1, "k8s:app=web"), identity(2, "k8s:app=db")];
        let find = |label: &str| with_labels(all.clone(), &[label.to_owned()], |i| i.labels.clone());
        assert_eq!(find("app=web").unwrap()[0].id, 1);
        assert_eq!(find("k8s:app=db").unwrap()[0].id, 2);
        assert_eq!(find("app=w").unwrap_err().to_string(), "nothing has the labels app=w");
    }

    #[test]
    fn metrics_are_chosen_by_pattern() {
        let metric = |name: &str| Metric { name: name.into(), ..Metric::default() };
        let all = vec![metric("cilium_drop_count_total"), metric("cilium_endpoint")];
        assert_eq!(metrics(all.clone(), Some("drop")).unwrap().len(), 1);
        assert_eq!(metrics(all.clone(), None).unwrap().len(), 2);
        assert!(metrics(all, Some("(")).unwrap_err().to_string().contains("--match-pattern"));
    }
}
