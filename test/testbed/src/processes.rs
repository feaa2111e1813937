//! Which processes of the machine belong to a lab, and what does it do to one to be stopped or killed?

use anyhow::{Context, Result, bail};
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

/// A running process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its id in the machine's own pid namespace.
    pub pid: u32,
    /// Its command line.
    pub words: Vec<String>,
    /// Its environment, `KEY=VALUE`.
    pub environment: Vec<String>,
}

/// Every process whose command line can be read.
pub fn all() -> Result<Vec<Process>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|n| n.parse().ok()) else { continue };
        // a process may end while we look
        let (Ok(words), Ok(environment)) = (strings(pid, "cmdline"), strings(pid, "environ")) else { continue };
        if !words.is_empty() {
            found.push(Process { pid, words, environment });
        }
    }
    Ok(found)
}

fn strings(pid: u32, file: &str) -> Result<Vec<String>> {
    let bytes = fs::read(format!("/proc/{pid}/{file}"))?;
    let parts = bytes.split(|b| *b == 0).filter(|p| !p.is_empty());
    Ok(parts.map(|p| String::from_utf8_lossy(p).into_owned()).collect())
}

/// The agent of a node.
pub fn agent(node: &str) -> Result<Process> {
    let variable = format!("K8S_NODE_NAME={node}");
    let runs_agent =
        |p: &Process| p.words.iter().take(2).any(|w| w.ends_with("cilium-agent")) && p.environment.contains(&variable);
    let agents: Vec<Process> = all()?.into_iter().filter(runs_agent).collect();
    // a container's init may have the same words; the agent is the youngest
    agents.into_iter().max_by_key(|p| p.pid).with_context(|| format!("no agent runs on {node}"))
}

/// The proxy of a node: it runs in the same network namespace as the agent.
pub fn proxy(node: &str) -> Result<Process> {
    let network = |process: &Process| fs::read_link(format!("/proc/{}/ns/net", process.pid));
    let wanted = network(&agent(node)?)?;
    let runs_proxy = |p: &Process| p.words.len() >= 2 && p.words[0].ends_with("axoneme") && p.words[1] == "proxy";
    let proxies = all()?.into_iter().filter(runs_proxy).filter(|p| network(p).is_ok_and(|found| found == wanted));
    // as above, the youngest
    proxies.max_by_key(|p| p.pid).with_context(|| format!("no proxy runs on {node}"))
}

/// Processes whose command line has this word.
pub fn with_word(word: &str) -> Result<Vec<Process>> {
    Ok(all()?.into_iter().filter(|p| p.words.iter().any(|w| w == word)).collect())
}

/// Sends a signal, by name: `KILL`, `STOP`, `CONT`, `TERM`.
pub fn signal(process: &Process, name: &str) -> Result<()> {
    let status = Command::new("kill").args([&format!("-{name}"), &process.pid.to_string()]).status()?;
    if !status.success() {
        bail!("kill -{name} {} ({}): {status}", process.pid, process.words.join(" "));
    }
    Ok(())
}

/// Waits until no process has these ids any more.
pub fn gone(pids: &[u32], within: Duration) -> Result<()> {
    let end = Instant::now() + within;
    loop {
        let left: Vec<Process> = all()?.into_iter().filter(|p| pids.contains(&p.pid)).collect();
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() > end {
            bail!("still running: {:?}", left.iter().map(|p| p.words.join(" ")).collect::<Vec<_>>());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
