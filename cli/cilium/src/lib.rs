//! The cilium command: is the installation well, how is it set, and how does one get at Hubble?

pub mod status;

use std::collections::BTreeMap;
use std::process::{Command as Process, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, ListParams};
use kube::config::KubeConfigOptions;
use kube::{Client, Config};

use flow::print::clean;
use status::{Component, Report};

/// CLI to install, manage, & troubleshoot Cilium clusters running Kubernetes.
#[derive(Parser, Debug)]
#[command(name = "cilium", version, disable_help_subcommand = true)]
struct Cli {
    /// Kubernetes configuration context
    #[arg(long, global = true)]
    context: Option<String>,
    /// Namespace Cilium is running in
    #[arg(short, long, global = true, default_value = "kube-system")]
    namespace: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Display status
    Status(StatusArgs),
    /// Manage Configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Hubble observability
    #[command(subcommand)]
    Hubble(HubbleCommand),
    /// Display detailed version information
    Version,
}

#[derive(Args, Debug)]
struct StatusArgs {
    /// Wait for status to report success (no errors and warnings)
    #[arg(long)]
    wait: bool,
    /// Maximum time to wait for status, in seconds
    #[arg(long, default_value_t = 300)]
    wait_duration: u64,
}

#[derive(Subcommand, Debug)]
enum ConfigCommand {
    /// View current configuration
    View,
}

#[derive(Subcommand, Debug)]
enum HubbleCommand {
    /// Forward the relay port to the local machine
    PortForward {
        /// Local port to forward to
        #[arg(long, default_value_t = 4245)]
        port_forward: u16,
    },
}

/// The command; arguments without the program's name.
pub fn main_with<I: IntoIterator<Item = String>>(arguments: I) -> ExitCode {
    let cli = match Cli::try_parse_from(std::iter::once("cilium".to_owned()).chain(arguments)) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no failures.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = runtime.context("start a runtime").and_then(|runtime| runtime.block_on(run(cli)));
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("\nError: {}", clean(&format!("{error:#}")));
            ExitCode::FAILURE
        }
    }
}

async fn client(context: Option<String>) -> Result<Client> {
    let config = match context {
        Some(context) => {
            let options = KubeConfigOptions { context: Some(context), ..KubeConfigOptions::default() };
            Config::from_kubeconfig(&options).await?
        }
        None => Config::infer().await.context("find the cluster (is KUBECONFIG set?)")?,
    };
    Ok(Client::try_from(config)?)
}

async fn run(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        Command::Status(arguments) => show_status(cli.context, &cli.namespace, &arguments).await,
        Command::Config(ConfigCommand::View) => {
            print!("{}", configuration(&settings(&client(cli.context).await?, &cli.namespace).await?));
            Ok(ExitCode::SUCCESS)
        }
        Command::Hubble(HubbleCommand::PortForward { port_forward }) => {
            forward(cli.context, &cli.namespace, port_forward)
        }
        Command::Version => {
            println!("cilium-cli: v{} compiled as part of axoneme", env!("CARGO_PKG_VERSION"));
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn settings(client: &Client, namespace: &str) -> Result<BTreeMap<String, String>> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let map = api.get("cilium-config").await.context("get configmap cilium-config")?;
    Ok(map.data.unwrap_or_default())
}

/// One setting in a line, the value from column 51 on.
fn configuration(settings: &BTreeMap<String, String>) -> String {
    settings.iter().map(|(name, value)| format!("{:<50}{}\n", clean(name), clean(value))).collect()
}

async fn show_status(context: Option<String>, namespace: &str, arguments: &StatusArgs) -> Result<ExitCode> {
    let client = client(context).await?;
    let started = Instant::now();
    loop {
        let report = collect(&client, namespace).await;
        let done = report.as_ref().is_ok_and(Report::is_well) || !arguments.wait;
        if done || started.elapsed() >= Duration::from_secs(arguments.wait_duration) {
            let report = report?;
            print!("{}", status::render(&report));
            return Ok(if report.is_well() || !arguments.wait { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

const DEPLOYMENTS: [&str; 3] = ["cilium-operator", "hubble-relay", "hubble-ui"];

async fn collect(client: &Client, namespace: &str) -> Result<Report> {
    let mut components = Vec::new();
    let sets: Api<DaemonSet> = Api::namespaced(client.clone(), namespace);
    if let Some(set) = sets.get_opt("cilium").await? {
        let status = set.status.unwrap_or_default();
        let (desired, ready, available) =
            (status.desired_number_scheduled, status.number_ready, status.number_available);
        components.push(Component::new("DaemonSet", "cilium", [desired, ready, available.unwrap_or(0)]));
    }
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    for name in DEPLOYMENTS {
        let Some(deployment) = deployments.get_opt(name).await? else { continue };
        let status = deployment.status.unwrap_or_default();
        let desired = deployment.spec.and_then(|spec| spec.replicas).unwrap_or(1);
        let counts = [desired, status.ready_replicas.unwrap_or(0), status.available_replicas.unwrap_or(0)];
        components.push(Component::new("Deployment", name, counts));
    }
    let pods = Api::<Pod>::all(client.clone()).list(&ListParams::default()).await?;
    let endpoints: Api<kube::api::DynamicObject> = Api::all_with(client.clone(), &endpoint_resource());
    let managed = endpoints.list(&ListParams::default()).await.map(|list| list.items.len()).unwrap_or(0);
    let pool = pods.items.iter().filter(|pod| status::counts(pod)).count();
    let own = pods.items.into_iter().filter(|pod| pod.metadata.namespace.as_deref() == Some(namespace)).collect();
    Ok(Report { components, pods: own, managed, pool })
}

fn endpoint_resource() -> kube::api::ApiResource {
    kube::api::ApiResource {
        group: "cilium.io".into(),
        version: "v2".into(),
        api_version: "cilium.io/v2".into(),
        kind: "CiliumEndpoint".into(),
        plural: "ciliumendpoints".into(),
    }
}

/// kubectl forwards; this process becomes it.
fn forward(context: Option<String>, namespace: &str, port: u16) -> Result<ExitCode> {
    let mut command = Process::new("kubectl");
    if let Some(context) = context {
        command.arg("--context").arg(context);
    }
    command.args([
        "-n",
        namespace,
        "port-forward",
        "svc/hubble-relay",
        "--address",
        "127.0.0.1",
        &format!("{port}:80"),
    ]);
    println!("ℹ️  Hubble Relay is available at 127.0.0.1:{port}");
    let status = command.status();
    match status {
        Ok(status) if status.success() => Ok(ExitCode::SUCCESS),
        Ok(status) => bail!("kubectl port-forward ended with {status}"),
        Err(error) => bail!("run kubectl port-forward: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a48_settings_do_not_move_the_terminal() {
        let settings = [("odd\u{1b}[2J".to_owned(), "a\rb\nc".to_owned())].into();
        assert_eq!(configuration(&settings), format!("{:<50}a\\rb\\nc\n", "odd^[[2J"));
    }

    #[test]
    fn e4_28_settings_print_as_users_know_them() {
        let settings = [("tunnel-protocol", "vxlan"), ("routing-mode", "tunnel")];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let expected = "routing-mode                                      tunnel\ntunnel-protocol                                   vxlan\n";
        assert_eq!(configuration(&settings), expected);
    }
}
