//! What does the agent tell of the proxy, and does the proxy find its way on a node whose ports and tables change?

use super::{asked, asks, expect, hosts, no_policies};
use anyhow::{Context, Result, ensure};
use std::process::Stdio;
use std::time::Duration;
use testbed::{Lab, eventually, processes};

const NODE: &str = "proxy-worker";

fn on_agent(lab: &Lab, command: &[&str]) -> Result<String> {
    lab.exec("kube-system", &lab.agent_on(NODE)?, command)?.ok()
}

pub fn told(lab: &Lab) -> Result<()> {
    lab.apply(&asked(&["/clientip"]))?;
    let host = hosts(lab, "server")?.remove(0);
    expect(lab, "near", &format!("http://{host}:8080/hostname"), 403)?;
    let agent = lab.agent_on(NODE)?;
    let mut command = lab.command("kubectl");
    command.args(["-n", "kube-system", "exec", &agent, "--", "timeout", "4", "cilium-dbg", "monitor", "-t", "l7"]);
    let watching = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("start kubectl")?;
    std::thread::sleep(Duration::from_secs(1));
    for (path, code) in [("hostname", 403), ("clientip", 200)] {
        expect(lab, "near", &format!("http://{host}:8080/{path}"), code)?;
    }
    let output = watching.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    for wanted in [
        format!("verdict Denied GET http://{host}:8080/hostname => 0"),
        format!("verdict Forwarded GET http://{host}:8080/clientip => 0"),
        format!("verdict Forwarded GET http://{host}:8080/clientip => 200"),
    ] {
        let line = text.lines().find(|line| line.contains(&wanted)).with_context(|| format!("{wanted} in {text}"))?;
        let response = wanted.ends_with("200");
        let begins = if response { "<- Response http to " } else { "<- Request http from " };
        ensure!(line.starts_with(begins) && line.contains("k8s:app=near"), "{line}");
    }
    let id = on_agent(lab, &["cilium-dbg", "endpoint", "get", "-l", "k8s:app=server", "-o", "json"])?;
    let endpoint: serde_json::Value = serde_json::from_str(&id)?;
    let statistics = &endpoint[0]["status"]["policy"]["proxy-statistics"][0];
    let requests = &statistics["statistics"]["requests"];
    let numbers = ["received", "forwarded", "denied"].map(|name| requests[name].as_u64().unwrap_or(0));
    ensure!(numbers[0] >= 3 && numbers[1] >= 1 && numbers[2] >= 2, "{endpoint}");
    ensure!(statistics["location"] == "ingress" && statistics["port"] == 8080, "{statistics}");
    let status = on_agent(lab, &["cilium-dbg", "status", "--all-redirects"])?;
    ensure!(status.contains(":ingress:TCP:8080:"), "{status}");
    let metrics = on_agent(lab, &["cilium-dbg", "metrics", "list"])?;
    for wanted in ["cilium_policy_l7_total", "cilium_proxy_redirects", "cilium_proxy_upstream_reply_seconds_bucket"] {
        ensure!(metrics.contains(wanted), "{wanted} in {metrics}");
    }
    let revision: serde_json::Value =
        serde_json::from_str(&on_agent(lab, &["cilium-dbg", "policy", "get", "-o", "json"])?)?;
    on_agent(lab, &["cilium-dbg", "policy", "wait", &revision["revision"].to_string(), "--max-wait-time", "10"])?;
    no_policies(lab)
}

/// A client whose ports are those that the node's kernel gives, and so few that they would meet.
pub fn ports(lab: &Lab) -> Result<()> {
    lab.apply(&asked(&["/clientip"]))?;
    lab.apply(&asks("near", &["/clientip", "/hostname"]))?;
    let host = hosts(lab, "server")?.remove(0);
    let url = format!("http://{host}:8080/clientip");
    expect(lab, "near", &format!("http://{host}:8080/hostname"), 403)?;
    const RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
    let before = on_agent(lab, &["cat", RANGE])?;
    let set = |range: &str| on_agent(lab, &["sh", "-c", &format!("echo {range} > {RANGE}")]);
    set("62000 62023")?;
    // six at a time; at ports that nobody had before, so that none is still waited for
    let script = format!(
        "for round in 0 1 2 3; do for n in 0 1 2 3 4 5; do (curl -s --max-time 6 --local-port $((62000 + 6 * round + n)) -o /dev/null \
         -w '%{{http_code}} %{{local_port}} %{{time_total}} %{{errormsg}}\\n' '{url}') & done; wait; done; true"
    );
    let run = lab.exec("default", "near", &["bash", "-c", &script]);
    set(before.trim())?;
    let text = run?.ok()?;
    let right = text.lines().filter(|line| line.starts_with("200 ")).count();
    ensure!(right == 24, "{right} of 24 requests are answered: {text}");
    no_policies(lab)
}

/// An agent whose tables are to have another size makes them anew; the proxy goes on with these.
pub fn anew(lab: &Lab) -> Result<()> {
    lab.apply(&asked(&["/clientip"]))?;
    let host = hosts(lab, "server")?.remove(0);
    let (good, bad) = (format!("http://{host}:8080/clientip"), format!("http://{host}:8080/hostname"));
    expect(lab, "far", &bad, 403)?;
    let proxies = || -> Result<Vec<u32>> {
        let all = processes::all()?.into_iter();
        let mut all: Vec<u32> = all
            .filter(|p| p.words.windows(2).any(|w| w[0].ends_with("axoneme") && w[1] == "proxy"))
            .map(|p| p.pid)
            .collect();
        all.sort_unstable();
        Ok(all)
    };
    let before = proxies()?;
    ensure!(!before.is_empty(), "no proxy runs");
    let size = r#"{"data":{"bpf-ct-global-tcp-max":"70000","bpf-ct-global-any-max":"30000"}}"#;
    lab.kubectl(&["-n", "kube-system", "patch", "configmap", "cilium-config", "--type=merge", "-p", size])?.ok()?;
    let old = lab.agent_on(NODE)?;
    lab.kubectl(&["-n", "kube-system", "delete", "pod", &old])?.ok()?;
    eventually(Duration::from_secs(60), "another agent is ready", || {
        let new = lab.agent_on(NODE)?;
        ensure!(new != old, "none yet");
        lab.kubectl(&["-n", "kube-system", "wait", "--for=condition=Ready", &format!("pod/{new}"), "--timeout=5s"])?
            .ok()
            .map(drop)
    })?;
    for from in ["near", "far"] {
        expect(lab, from, &good, 200)?;
        expect(lab, from, &bad, 403)?;
    }
    ensure!(proxies()? == before, "the proxy was started anew");
    no_policies(lab)
}
