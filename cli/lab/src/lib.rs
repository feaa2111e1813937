//! The lab command: clusters on one machine.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod report;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use cluster::layout::{self, Layout, Ports};
use cluster::up::Audience;
use cluster::{Enforcement, Options};
use std::ffi::OsString;
use std::io::IsTerminal;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// Clusters on one machine: nodes, pods and the outside world as network namespaces
#[derive(Debug, Parser)]
#[command(name = "lab", bin_name = "axoneme lab")]
struct Lab {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Bring a cluster up; if this fails or is interrupted, nothing is left
    Up(Up),
    /// Print what a shell needs to use a cluster: eval "$(axoneme lab env)"
    Env(Named),
    /// Show nodes and pods of a cluster
    Status {
        #[command(flatten)]
        named: Named,
        /// Form of the output
        #[arg(short, long, value_parser = ["text", "json"], default_value = "text")]
        output: String,
    },
    /// Run a command in a pod, found by name in all namespaces
    Exec {
        #[command(flatten)]
        named: Named,
        /// Namespace of the pod
        #[arg(short, long)]
        namespace: Option<String>,
        /// Container of the pod
        #[arg(short, long)]
        container: Option<String>,
        /// Name of the pod, or the beginning of it
        pod: String,
        /// Command and arguments
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Print what a pod has written, found by name in all namespaces
    Logs {
        #[command(flatten)]
        named: Named,
        /// Namespace of the pod
        #[arg(short, long)]
        namespace: Option<String>,
        /// Container of the pod
        #[arg(short, long)]
        container: Option<String>,
        /// Print what comes as well
        #[arg(short, long)]
        follow: bool,
        /// Name of the pod, or the beginning of it
        pod: String,
    },
    /// End a cluster and remove all of it
    Down(Named),
    /// Names of the clusters of this machine
    List,
}

#[derive(Debug, Args)]
struct Named {
    /// Name of the lab
    #[arg(long, default_value = "lab", env = "AXONEME_LAB")]
    name: String,
}

#[derive(Debug, Args)]
struct Up {
    #[command(flatten)]
    named: Named,
    /// Number of nodes; the first is the control plane, which takes pods only if it is alone
    #[arg(long, default_value_t = 3)]
    nodes: u32,
    /// Give nodes, pods and services IPv6 addresses as well
    #[arg(long)]
    ipv6: bool,
    /// When pods need a policy to communicate: default, always or never
    #[arg(long, default_value = "default")]
    policy_enforcement: Enforcement,
    /// Name of the cluster, as the label io.cilium.k8s.policy.cluster shows it
    #[arg(long, default_value = "default")]
    cluster_name: String,
    /// Manifest to apply when the cluster is up (may be repeated)
    #[arg(short, long = "file", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Setting of the agent, as in the ConfigMap cilium-config (may be repeated)
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    config: Vec<(String, String)>,
    /// Zone and servers of the outside world
    #[arg(long, value_name = "FILE")]
    world: Option<PathBuf>,
    /// Return as soon as the API server has the cluster's objects
    #[arg(long)]
    no_wait: bool,
    /// Let servers and agents log everything
    #[arg(long)]
    debug: bool,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("{text:?} is not KEY=VALUE"))?;
    Ok((key.to_string(), value.to_string()))
}

/// Runs `lab`; the first argument is the command's name.
pub fn main_with(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let lab = match Lab::try_parse_from(args) {
        Ok(lab) => lab,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match act(lab.action) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn act(action: Action) -> Result<()> {
    match action {
        Action::Up(up) => bring_up(up),
        Action::Env(named) => env(&Layout::of(&named.name)),
        Action::Status { named, output } => report::status(&Layout::of(&named.name), output == "json"),
        Action::Exec { named, namespace, container, pod, command } => {
            let layout = Layout::of(&named.name);
            let (namespace, pod) = report::find_pod(&layout, namespace.as_deref(), &pod)?;
            let mut kubectl = kubectl(&layout)?;
            kubectl.args(["--namespace", &namespace, "exec", "--stdin"]);
            if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
                kubectl.arg("--tty");
            }
            in_container(&mut kubectl, container);
            kubectl.arg(&pod).arg("--").args(command);
            become_command(kubectl)
        }
        Action::Logs { named, namespace, container, follow, pod } => {
            let layout = Layout::of(&named.name);
            let (namespace, pod) = report::find_pod(&layout, namespace.as_deref(), &pod)?;
            let mut kubectl = kubectl(&layout)?;
            kubectl.args(["--namespace", &namespace, "logs", &pod]);
            if follow {
                kubectl.arg("--follow");
            }
            in_container(&mut kubectl, container);
            become_command(kubectl)
        }
        Action::Down(named) => {
            if cluster::down::down(&named.name)? {
                eprintln!("lab {} is down", named.name);
            }
            Ok(())
        }
        Action::List => {
            layout::names().iter().for_each(|name| println!("{name}"));
            Ok(())
        }
    }
}

fn in_container(kubectl: &mut Command, container: Option<String>) {
    if let Some(container) = container {
        kubectl.args(["--container", &container]);
    }
}

fn kubectl(layout: &Layout) -> Result<Command> {
    layout.expect_up()?;
    let mut command = Command::new("kubectl");
    command.arg("--kubeconfig").arg(layout.kubeconfig());
    Ok(command)
}

fn become_command(mut command: Command) -> Result<()> {
    let error = command.exec();
    if error.kind() == std::io::ErrorKind::NotFound {
        bail!("kubectl is not installed; on Debian and Ubuntu: apt-get install kubernetes-client");
    }
    Err(error).context("run kubectl")
}

fn bring_up(up: Up) -> Result<()> {
    let absolute =
        |path: PathBuf| -> Result<PathBuf> { path.canonicalize().with_context(|| format!("find {}", path.display())) };
    let options = Options {
        name: up.named.name,
        nodes: up.nodes,
        ipv6: up.ipv6,
        enforcement: up.policy_enforcement,
        cluster_name: up.cluster_name,
        config: up.config,
        files: up.files.into_iter().map(absolute).collect::<Result<_>>()?,
        world: up.world.map(absolute).transpose()?,
        wait: !up.no_wait,
        program: std::env::current_exe().context("find this program")?,
        log: if up.debug { "debug".into() } else { std::env::var("RUST_LOG").unwrap_or_else(|_| "info".into()) },
    };
    cluster::up::up(&options, &mut Screen)?;
    let suffix = if options.name == "lab" { String::new() } else { format!(" --name {}", options.name) };
    eprintln!("use it:   eval \"$(axoneme lab env{suffix})\"; kubectl get pods -A; hubble observe");
    eprintln!("end it:   axoneme lab down{suffix}");
    Ok(())
}

/// Progress on standard error.
struct Screen;

impl Audience for Screen {
    fn done(&mut self, step: &str, milliseconds: u64) {
        eprintln!("{:>7.2} s  {step}", milliseconds as f64 / 1000.0);
    }

    fn note(&mut self, text: &str) {
        eprintln!("           {text}");
    }
}

fn env(layout: &Layout) -> Result<()> {
    layout.expect_up()?;
    let ports: Ports = layout.read("ports.json")?;
    println!("export KUBECONFIG=\"{}\"", layout.kubeconfig().display());
    println!("export HUBBLE_SERVER=\"127.0.0.1:{}\"", ports.hubble);
    println!("export AXONEME_LAB=\"{}\"", layout.name);
    println!("export PATH=\"{}:$PATH\"", layout.commands().display());
    Ok(())
}
