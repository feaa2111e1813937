//! Which commands are there, and which function is each?

use anyhow::Context;
use std::ffi::OsString;
use std::process::ExitCode;

type Main = fn(&[OsString]) -> ExitCode;

/// A command of the binary.
pub struct Command {
    name: &'static str,
    /// None: only other parts of the lab call it.
    about: Option<&'static str>,
    main: Main,
}

const fn shown(name: &'static str, about: &'static str, main: Main) -> Command {
    Command { name, about: Some(about), main }
}

const fn inner(name: &'static str, main: Main) -> Command {
    Command { name, about: None, main }
}

const COMMANDS: &[Command] = &[
    shown("lab", "clusters on this machine: up, down, status", |args| cli_lab::main_with(args.iter().cloned())),
    shown("policy", "what policies mean: judge flows offline", |args| cli_policy::main_with(args.iter().cloned())),
    shown("hubble", "flows of the cluster", |args| cli_hubble::main_with(args.iter().cloned())),
    #[cfg(feature = "datapath")]
    shown("cilium-agent", "the agent of a node", |args| {
        logged_at("info");
        agent::main_with(words(args))
    }),
    #[cfg(feature = "datapath")]
    shown("proxy", "the proxy of a node, for rules about HTTP, TLS and names", |args| {
        logged_at("info");
        proxy::main(words(args))
    }),
    shown("cilium-operator", "cluster-wide chores", |args| {
        logged_at("info");
        operator::main_with(words(args))
    }),
    shown("cilium", "state and settings of the cluster's network", |args| cli_cilium::main_with(words(args))),
    #[cfg(feature = "datapath")]
    shown("cilium-dbg", "state of the agent and of the kernel's maps", |args| cli_dbg::main_with(words(args))),
    #[cfg(feature = "datapath")]
    shown("fqdn", "by which names pods of a node reach addresses, and why", |args| {
        cli_dbg::main_with(std::iter::once("fqdn".to_owned()).chain(words(args)))
    }),
    shown("hubble-relay", "one observer over those of all nodes", |args| relay::run(args.iter().cloned())),
    shown("cilium-cni", "the network plugin that container runtimes call", |args| {
        logged();
        cni::main_with(words(args))
    }),
    #[cfg(feature = "datapath")]
    inner("cilium-health-responder", |args| agent::health::responder_main(words(args))),
    inner("lab-reaper", |args| done(cluster::reaper::main(&words(args)))),
    inner("lab-supervisor", |args| done(cluster::supervisor::main(&words(args)))),
    inner("lab-node", |args| done(cluster::node::main(&words(args)))),
    inner("lab-bootstrap", |args| done(cluster::bootstrap::main(&words(args)))),
    inner("lab-apiserver", |args| done(cluster::apiserver_process::main(&words(args)))),
    inner("lab-controllers", |args| done(cluster::apiserver_process::controllers(&words(args)))),
    inner("lab-forward", |args| done(cluster::forward::main(&words(args)))),
    inner("lab-step", |args| done(cluster::steps::main(&words(args)))),
    inner("lab-kubelet", |args| done(kubelet_main(&words(args)))),
    inner("lab-init", |args| kubelet::init::main(&words(args))),
    inner("lab-world", |args| world::main_with(words(args))),
    inner("lab-app", |args| app_main(&words(args))),
    inner("emojivoto-vote-bot", |args| apps::main_with("emojivoto-vote-bot", words(args))),
];

/// Finds a command by name.
pub fn find(name: &str) -> Option<&'static Command> {
    COMMANDS.iter().find(|c| c.name == name)
}

/// Runs a command; the first argument is its name.
pub fn run(name: &str, args: &[OsString]) -> ExitCode {
    match find(name) {
        Some(command) => (command.main)(args),
        None => ExitCode::from(2),
    }
}

/// What the commands are.
pub fn help() -> String {
    let mut text = String::from("axoneme COMMAND ...\n\n");
    for command in COMMANDS {
        if let Some(about) = command.about {
            text.push_str(&format!("  {:<16} {about}\n", command.name));
        }
    }
    text.push_str("\nA link to this binary that has a command's name is that command.\n");
    text
}

/// The arguments after the name, as text.
fn words(args: &[OsString]) -> Vec<String> {
    args.iter().skip(1).map(|a| a.to_string_lossy().into_owned()).collect()
}

/// Logs to standard error what `RUST_LOG` asks for.
fn logged() {
    logged_at("warn");
}

/// As [`logged`]; without `RUST_LOG` from this level on.
fn logged_at(level: &str) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    let _ = tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter).with_ansi(false).try_init();
}

fn done(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn kubelet_main(args: &[String]) -> anyhow::Result<()> {
    logged();
    let [file] = args else { anyhow::bail!("one file name is expected") };
    let text = std::fs::read(file).with_context(|| format!("read the kubelet's settings, {file}"))?;
    let settings: kubelet::Settings =
        serde_json::from_slice(&text).with_context(|| format!("{file} is not what the lab's supervisor writes"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(kubelet::run(settings))?;
    Ok(())
}

fn app_main(args: &[String]) -> ExitCode {
    match args.split_first() {
        Some((name, rest)) => apps::main_with(name, rest.to_vec()),
        None => done(Err(anyhow::anyhow!("the name of a program is expected: {}", apps::NAMES.join(", ")))),
    }
}
