//! One lab, from up to down, and the commands that a user types at it.

use crate::run::{Run, eventually};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// What kind of lab a scenario wants.
#[derive(Debug, Clone)]
pub struct Plan<'a> {
    /// Name of the lab; nodes are `NAME-control-plane`, `NAME-worker`, ...
    pub name: &'a str,
    /// Number of nodes.
    pub nodes: u32,
    /// Further words for `lab up`.
    pub options: &'a [&'a str],
}

/// A running lab; goes down when dropped.
#[derive(Debug)]
pub struct Lab {
    name: String,
    binary: PathBuf,
    environment: Vec<(String, String)>,
}

impl Lab {
    /// Brings a lab up; one of the same name that an earlier run left is taken down first.
    pub fn up(plan: &Plan) -> Result<Lab> {
        let binary = binary()?;
        Run::of(Command::new(&binary).args(["lab", "down", "--name", plan.name]))?;
        let nodes = plan.nodes.to_string();
        let mut up = Command::new(&binary);
        up.args(["lab", "up", "--name", plan.name, "--nodes", &nodes]).args(plan.options);
        Run::of(&mut up)?.ok()?;
        let env = Run::of(Command::new(&binary).args(["lab", "env", "--name", plan.name]))?.ok()?;
        Ok(Lab { name: plan.name.to_string(), binary, environment: exports(&env) })
    }

    /// Name of the lab.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command with the environment that `lab env` names.
    pub fn command(&self, program: &str) -> Command {
        let path = self.environment.iter().find(|(k, _)| k == "PATH").map(|(_, v)| v.as_str()).unwrap_or_default();
        let found = path.split(':').map(|d| Path::new(d).join(program)).find(|p| p.is_file());
        let mut command = Command::new(found.unwrap_or_else(|| PathBuf::from(program)));
        command.envs(self.environment.iter().map(|(k, v)| (k, v))).env("NO_COLOR", "1").stdin(Stdio::null());
        command
    }

    /// Runs one of our commands or a stock one: `run("hubble", &["observe"])`.
    pub fn run(&self, program: &str, args: &[&str]) -> Result<Run> {
        Run::of(self.command(program).args(args))
    }

    /// `kubectl ARGS`.
    pub fn kubectl(&self, args: &[&str]) -> Result<Run> {
        self.run("kubectl", args)
    }

    /// `kubectl ARGS -o json`, parsed.
    pub fn get(&self, args: &[&str]) -> Result<Value> {
        let args: Vec<&str> = ["get"].iter().chain(args).chain(&["-o", "json"]).copied().collect();
        serde_json::from_str(&self.kubectl(&args)?.ok()?).context("kubectl printed JSON")
    }

    /// `hubble ARGS`.
    pub fn hubble(&self, args: &[&str]) -> Result<Run> {
        self.run("hubble", args)
    }

    /// `axoneme lab ARGS --name NAME`.
    pub fn lab(&self, args: &[&str]) -> Result<Run> {
        Run::of(Command::new(&self.binary).arg("lab").args(args).args(["--name", &self.name]))
    }

    /// `kubectl apply -f -`.
    pub fn apply(&self, yaml: &str) -> Result<String> {
        self.pipe(&["apply", "-f", "-"], yaml)?.ok()
    }

    /// `kubectl ARGS` with this standard input.
    pub fn pipe(&self, args: &[&str], input: &str) -> Result<Run> {
        let mut child = self
            .command("kubectl")
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("start kubectl")?;
        child.stdin.take().context("a pipe was asked for")?.write_all(input.as_bytes())?;
        let output = child.wait_with_output()?;
        Ok(Run {
            command: format!("kubectl {}", args.join(" ")),
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// `kubectl -n NAMESPACE exec POD -- COMMAND`.
    pub fn exec(&self, namespace: &str, pod: &str, command: &[&str]) -> Result<Run> {
        let args: Vec<&str> = ["-n", namespace, "exec", pod, "--"].iter().chain(command).copied().collect();
        self.kubectl(&args)
    }

    /// Can this pod open a TCP connection to there? Answered within two seconds.
    pub fn connects(&self, namespace: &str, pod: &str, host: &str, port: u16) -> Result<bool> {
        let script = format!(
            "curl -s -o /dev/null -w '%{{time_connect}}' --connect-timeout 2 --max-time 2 'telnet://{host}:{port}' </dev/null; true"
        );
        let printed = self.exec(namespace, pod, &["sh", "-c", &script])?.ok()?;
        let seconds: f64 = printed.trim().parse().with_context(|| format!("seconds, found {printed:?}"))?;
        Ok(seconds > 0.0)
    }

    /// Waits until every deployment of a namespace has rolled out.
    pub fn rolled_out(&self, namespace: &str) -> Result<()> {
        let names = self.kubectl(&["-n", namespace, "get", "deployments", "-o", "name"])?.ok()?;
        for name in names.lines() {
            self.kubectl(&["-n", namespace, "rollout", "status", name, "--timeout=60s"])?.ok()?;
        }
        Ok(())
    }

    /// The names of the pods with these labels.
    pub fn pods(&self, namespace: &str, selector: &str) -> Result<Vec<String>> {
        let list = self.get(&["-n", namespace, "pods", "-l", selector])?;
        let items = list["items"].as_array().context("a list has items")?;
        Ok(items.iter().filter_map(|p| p["metadata"]["name"].as_str().map(String::from)).collect())
    }

    /// The one pod with these labels.
    pub fn pod(&self, namespace: &str, selector: &str) -> Result<String> {
        let mut pods = self.pods(namespace, selector)?;
        match (pods.pop(), pods.is_empty()) {
            (Some(pod), true) => Ok(pod),
            (found, _) => bail!("one pod with {selector} in {namespace}, found {pods:?} {found:?}"),
        }
    }

    /// The agent's pod on a node.
    pub fn agent_on(&self, node: &str) -> Result<String> {
        let field = format!("spec.nodeName={node}");
        let list = self.get(&["-n", "kube-system", "pods", "-l", "k8s-app=cilium", "--field-selector", &field])?;
        let name = list["items"][0]["metadata"]["name"].as_str();
        Ok(name.with_context(|| format!("an agent on {node}"))?.to_owned())
    }

    /// The agent's pod on the node of another pod.
    pub fn agent_with(&self, namespace: &str, pod: &str) -> Result<String> {
        let pod = self.get(&["-n", namespace, "pod", pod])?;
        self.agent_on(pod["spec"]["nodeName"].as_str().context("spec.nodeName")?)
    }

    /// The security identity of a pod, from its CiliumEndpoint.
    pub fn identity(&self, namespace: &str, pod: &str) -> Result<u64> {
        eventually(Duration::from_secs(10), "an identity", || {
            let endpoint = self.get(&["-n", namespace, "ciliumendpoint", pod])?;
            endpoint["status"]["identity"]["id"].as_u64().context("status.identity.id")
        })
    }

    /// The address of a pod.
    pub fn pod_ip(&self, namespace: &str, pod: &str) -> Result<String> {
        let pod = self.get(&["-n", namespace, "pod", pod])?;
        Ok(pod["status"]["podIP"].as_str().context("status.podIP")?.to_string())
    }

    /// Takes the lab down.
    pub fn down(&self) -> Result<String> {
        self.lab(&["down"])?.ok()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Err(e) = self.down() {
            eprintln!("lab {} did not go down: {e:#}", self.name);
        }
    }
}

/// The binary under test: `$AXONEME`, or the one that was built beside this test.
fn binary() -> Result<PathBuf> {
    if let Some(given) = std::env::var_os("AXONEME") {
        return Ok(given.into());
    }
    let own = std::env::current_exe()?;
    let found = own.ancestors().skip(1).map(|d| d.join("axoneme")).find(|p| p.is_file());
    found.with_context(|| format!("no `axoneme` beside {}: build it first or set AXONEME", own.display()))
}

/// `export KEY=VALUE` lines, quotes removed and `$PATH` filled in.
fn exports(text: &str) -> Vec<(String, String)> {
    let path = std::env::var("PATH").unwrap_or_default();
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("export ")?.split_once('='))
        .map(|(key, value)| (key.to_string(), value.trim_matches(['"', '\'']).replace("$PATH", &path)))
        .collect()
}
