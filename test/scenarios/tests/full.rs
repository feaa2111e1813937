//! What happens when a table of the datapath is full? Never more than policy allows, and it is said everywhere.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::process::{ExitCode, Stdio};
use std::time::Duration;
use testbed::{Lab, Plan, eventually, trials};

const PLAN: Plan<'static> = Plan {
    name: "full",
    nodes: 1,
    options: &[
        "--config",
        "bpf-ct-global-tcp-max=1024",
        "--config",
        "bpf-ct-global-any-max=1024",
        "--config",
        "bpf-policy-map-max=24",
    ],
};
const WORKLOADS: &str = include_str!("../workloads/full.yaml");
/// Tables are looked at every half minute.
const WITHIN: Duration = Duration::from_secs(75);

fn main() -> ExitCode {
    trials::run(
        &PLAN,
        prepare,
        &[
            ("a_policy_that_does_not_fit_locks_its_endpoints_down_and_says_so", policy_too_large),
            ("a_smaller_policy_opens_them_again", policy_smaller),
            ("full_connection_tracking_never_opens_and_is_told_of", connections),
        ],
    )
}

fn prepare(lab: &Lab) -> Result<()> {
    lab.apply(WORKLOADS)?;
    for pod in ["server", "friend", "foe"] {
        lab.kubectl(&["wait", "--for=condition=Ready", &format!("pod/{pod}"), "--timeout=60s"])?.ok()?;
    }
    Ok(())
}

/// A policy that lets `friend` reach the server at these ports.
fn policy(ports: &[u16]) -> String {
    let ports: Vec<String> = ports.iter().map(|port| format!("{{port: \"{port}\", protocol: TCP}}")).collect();
    format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: server}}\nspec:\n  endpointSelector: {{matchLabels: {{app: \
         server}}}}\n  ingress:\n  - fromEndpoints: [{{matchLabels: {{app: friend}}}}]\n    toPorts: [{{ports: [{}]}}]\n",
        ports.join(", ")
    )
}

fn expect(lab: &Lab, from: &str, port: u16, wanted: bool) -> Result<()> {
    eventually(WITHIN, &format!("{from} reaches port {port}: {wanted}"), || {
        ensure!(lab.connects("default", from, &lab.pod_ip("default", "server")?, port)? == wanted, "it is not so");
        Ok(())
    })
}

fn agent(lab: &Lab) -> Result<String> {
    lab.pod("kube-system", "k8s-app=cilium")
}

fn dbg(lab: &Lab, words: &[&str]) -> Result<testbed::Run> {
    lab.exec("kube-system", &agent(lab)?, &[&["cilium-dbg"], words].concat())
}

fn logs(lab: &Lab) -> Result<String> {
    lab.kubectl(&["-n", "kube-system", "logs", &agent(lab)?, "-c", "cilium-agent"])?.ok()
}

/// The value of a metric with this label.
fn metric(lab: &Lab, name: &str, label: &str) -> Result<f64> {
    let text = dbg(lab, &["metrics", "list", "-p", name, "-o", "json"])?.ok()?;
    let all: Vec<Value> = serde_json::from_str(&text)?;
    let found = all.iter().find(|m| label.is_empty() || m["labels"].to_string().contains(label));
    found.and_then(|m| m["value"].as_f64()).with_context(|| format!("{name} {label} in {text}"))
}

fn policy_too_large(lab: &Lab) -> Result<()> {
    lab.apply(&policy(&[8080]))?;
    expect(lab, "foe", 8080, false)?;
    expect(lab, "friend", 8080, true)?;
    let running = stream(lab, 20)?;
    std::thread::sleep(Duration::from_secs(1));
    let many: Vec<u16> = (0..40).map(|n| 8080 + 2 * n).collect();
    lab.apply(&policy(&many))?;
    // neither by the policy that did not fit nor by the one before it
    expect(lab, "friend", 8080, false)?;
    expect(lab, "foe", 8080, false)?;
    let output = running.wait_with_output()?;
    ensure!(!output.status.success(), "a running connection went on");
    let status = dbg(lab, &["status"])?;
    let said = status.failed()?;
    ensure!(said.contains("Locked down:") && said.contains("policy larger than allowed"), "{said}");
    let list = dbg(lab, &["endpoint", "list"])?.ok()?;
    let row = list.lines().find(|l| l.contains("k8s:app=server")).with_context(|| list.clone())?;
    ensure!(row.contains("not-ready"), "{list}");
    ensure!(metric(lab, "axoneme_policy_locked_identities", "")? == 1.0, "not counted");
    ensure!(metric(lab, "cilium_endpoint_state", "not-ready")? == 1.0, "not counted");
    ensure!(logs(lab)?.contains("endpoints of the identity are locked down"), "not logged");
    let flows = lab.hubble(&["observe", "--verdict", "DROPPED", "--to-pod", "default/server", "--last", "5"])?.ok()?;
    ensure!(flows.contains("DROPPED (TCP Flags: SYN)"), "{flows}");
    Ok(())
}

fn policy_smaller(lab: &Lab) -> Result<()> {
    lab.apply(&policy(&[8080]))?;
    expect(lab, "friend", 8080, true)?;
    expect(lab, "friend", 8081, false)?;
    expect(lab, "foe", 8080, false)?;
    dbg(lab, &["status", "--brief"])?.ok()?;
    ensure!(metric(lab, "axoneme_policy_locked_identities", "")? == 0.0, "still counted");
    Ok(())
}

/// A connection that gets a line every 100 ms.
fn stream(lab: &Lab, seconds: u32) -> Result<std::process::Child> {
    let url = format!("http://{}:8080/stream?seconds={seconds}&interval_ms=100", lab.pod_ip("default", "server")?);
    let mut command = lab.command("kubectl");
    command.args(["exec", "friend", "--", "curl", "-sN", "--max-time", &(seconds + 5).to_string(), &url]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("start kubectl")
}

fn connections(lab: &Lab) -> Result<()> {
    let server = lab.pod_ip("default", "server")?;
    let running = stream(lab, 60)?;
    // towards somebody whom no policy protects: each datagram is a connection that lasts for a minute
    let dns = lab.pod_ip("kube-system", &lab.pods("kube-system", "k8s-app=kube-dns")?[0])?;
    let flood = format!("for i in $(seq 6000); do echo x > /dev/udp/{dns}/9; done");
    lab.exec("default", "friend", &["bash", "-c", &flood])?;
    expect(lab, "friend", 8080, true)?;
    ensure!(!lab.connects("default", "foe", &server, 8080)?, "full tables open");
    let status = eventually(WITHIN, "the status says so", || {
        lab.exec("default", "friend", &["bash", "-c", &flood])?;
        ensure!(!lab.connects("default", "foe", &server, 8080)?, "full tables open");
        let status = dbg(lab, &["status"])?.ok()?;
        ensure!(status.contains("Nearly full:") && status.contains("cilium_ct4: "), "{status}");
        Ok(status)
    })?;
    ensure!(status.contains(" of 2048 entries"), "{status}");
    ensure!(metric(lab, "cilium_bpf_map_pressure", "cilium_ct4")? >= 0.9, "not measured");
    ensure!(logs(lab)?.contains("table is nearly full"), "not logged");
    let output = running.wait_with_output()?;
    let got = output.stdout.iter().filter(|b| **b == b'\n').count();
    ensure!(output.status.success() && got >= 500, "the running connection got {got} lines of 600");
    expect(lab, "friend", 8080, true)?;
    expect(lab, "foe", 8080, false)
}
