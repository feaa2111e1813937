//! What happens when something dies? Agents killed under traffic, an API server that is gone, plugins without an agent.

use anyhow::{Context, Result, ensure};
use std::process::{Child, ExitCode, Stdio};
use std::time::{Duration, Instant};
use testbed::{Lab, Plan, eventually, processes, trials};

const PLAN: Plan<'static> = Plan { name: "faulty", nodes: 3, options: &[] };
const WORKLOADS: &str = include_str!("../workloads/faults.yaml");
const WITHIN: Duration = Duration::from_secs(30);

const ONLY_NEAR: &str = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: server}\nspec:\n  endpointSelector: \
                         {matchLabels: {app: server}}\n  ingress:\n  - fromEndpoints:\n    - matchLabels: {app: near}\n";
const NEAR_AND_FAR: &str = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: server}\nspec:\n  \
                            endpointSelector: {matchLabels: {app: server}}\n  ingress:\n  - fromEndpoints:\n    - matchLabels: {app: \
                            near}\n    - matchLabels: {app: far}\n";

fn main() -> ExitCode {
    trials::run(
        &PLAN,
        prepare,
        &[
            ("agents_killed_under_traffic_cost_no_connection", killed_under_traffic),
            ("a19_a20_a_restart_opens_no_window", restart_opens_no_window),
            ("a_policy_changed_while_the_agent_is_down_applies_after_the_restart", changed_meanwhile),
            ("a_pod_created_while_the_agent_is_down_waits_and_says_why", plugin_without_agent),
            ("a_live_connection_ends_when_its_policy_goes", live_connection),
            ("without_api_server_traffic_goes_on_and_then_all_catches_up", api_lost),
            ("a48_escapes_in_names_do_not_reach_the_terminal", escapes),
            ("a_killed_up_leaves_nothing_behind", killed_up),
            ("z_down_leaves_nothing_behind", down),
        ],
    )
}

fn prepare(lab: &Lab) -> Result<()> {
    lab.apply(WORKLOADS)?;
    for pod in ["server", "near", "far"] {
        lab.kubectl(&["wait", "--for=condition=Ready", &format!("pod/{pod}"), "--timeout=60s"])?.ok()?;
    }
    Ok(())
}

fn server(lab: &Lab) -> Result<String> {
    lab.pod_ip("default", "server")
}

/// A connection from a pod to the server that gets a line every 100 ms for so many seconds.
fn stream(lab: &Lab, from: &str, seconds: u32) -> Result<Child> {
    let url = format!("http://{}:8080/stream?seconds={seconds}&interval_ms=100", server(lab)?);
    let limit = (seconds + 10).to_string();
    let mut command = lab.command("kubectl");
    command.args(["exec", from, "--", "curl", "-sN", "--max-time", &limit, &url]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("start kubectl")
}

/// How many lines it got, if curl ended well.
fn lines(child: Child) -> Result<usize> {
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "the connection broke: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout.iter().filter(|b| **b == b'\n').count())
}

/// New connections one after the other for so many seconds: a line `failed` for each that is not made.
fn knock(lab: &Lab, from: &str, seconds: u32) -> Result<Child> {
    let url = format!("http://{}:8080/", server(lab)?);
    let script = format!(
        "end=$(($(date +%s)+{seconds})); while [ $(date +%s) -lt $end ]; do curl -s -o /dev/null --max-time 1 {url} && echo ok || echo \
         failed; sleep 0.05; done"
    );
    let mut command = lab.command("kubectl");
    command.args(["exec", from, "--", "sh", "-c", &script]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("start kubectl")
}

/// How many of the connections were made, and how many not.
fn knocked(child: Child) -> Result<(usize, usize)> {
    let output = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let count = |word| text.lines().filter(|l| *l == word).count();
    Ok((count("ok"), count("failed")))
}

fn reaches(lab: &Lab, from: &str) -> Result<bool> {
    lab.connects("default", from, &server(lab)?, 8080)
}

fn expect(lab: &Lab, from: &str, wanted: bool) -> Result<()> {
    eventually(WITHIN, &format!("{from} reaches the server: {wanted}"), || {
        ensure!(reaches(lab, from)? == wanted, "no");
        Ok(())
    })
}

/// Kills the agents of both workers and waits for those that follow.
fn kill_agents() -> Result<()> {
    for node in ["faulty-worker", "faulty-worker2"] {
        let agent = processes::agent(node)?;
        processes::signal(&agent, "KILL")?;
        eventually(WITHIN, "another agent", || {
            let next = processes::agent(node)?;
            ensure!(next.pid != agent.pid, "none yet");
            Ok(())
        })?;
    }
    Ok(())
}

/// All agents say that they are ready.
fn agents_ready(lab: &Lab) -> Result<()> {
    eventually(WITHIN, "agents ready", || {
        let list = lab.get(&["-n", "kube-system", "daemonset", "cilium"])?;
        ensure!(list["status"]["numberReady"] == 3, "{}", list["status"]);
        Ok(())
    })
}

fn killed_under_traffic(lab: &Lab) -> Result<()> {
    lab.apply(NEAR_AND_FAR)?;
    expect(lab, "far", true)?;
    let (a, b) = (stream(lab, "near", 12)?, stream(lab, "far", 12)?);
    let (c, d) = (knock(lab, "near", 12)?, knock(lab, "far", 12)?);
    std::thread::sleep(Duration::from_secs(2));
    kill_agents()?;
    for connection in [a, b] {
        let got = lines(connection)?;
        ensure!(got >= 100, "{got} lines of 120");
    }
    for loop_ in [c, d] {
        let (made, failed) = knocked(loop_)?;
        ensure!(made > 20 && failed == 0, "{made} made, {failed} failed");
    }
    agents_ready(lab)
}

fn restart_opens_no_window(lab: &Lab) -> Result<()> {
    lab.apply(ONLY_NEAR)?;
    expect(lab, "far", false)?;
    let knocking = knock(lab, "far", 14)?;
    std::thread::sleep(Duration::from_secs(1));
    kill_agents()?;
    let (made, failed) = knocked(knocking)?;
    ensure!(made == 0 && failed > 3, "{made} denied connections were made, {failed} were not");
    agents_ready(lab)
}

fn changed_meanwhile(lab: &Lab) -> Result<()> {
    lab.apply(NEAR_AND_FAR)?;
    expect(lab, "far", true)?;
    let agent = processes::agent("faulty-worker")?;
    processes::signal(&agent, "STOP")?;
    lab.apply(ONLY_NEAR)?;
    ensure!(reaches(lab, "far")?, "a stopped agent must leave the datapath as it is");
    processes::signal(&agent, "KILL")?;
    expect(lab, "far", false)?;
    expect(lab, "near", true)?;
    agents_ready(lab)
}

fn plugin_without_agent(lab: &Lab) -> Result<()> {
    let agent = processes::agent("faulty-worker2")?;
    processes::signal(&agent, "STOP")?;
    lab.apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: late, labels: {app: near}}\nspec:\n  nodeName: faulty-worker2\n  containers: \
         [{name: main, image: client, command: [sleep, infinity]}]\n",
    )?;
    let event = eventually(Duration::from_secs(90), "an event that says why", || {
        let text = lab.kubectl(&["get", "events", "--field-selector", "involvedObject.name=late"])?.ok()?;
        let line = text.lines().find(|l| l.contains("FailedCreatePodSandBox")).with_context(|| text.clone())?;
        Ok(line.to_string())
    });
    processes::signal(&agent, "CONT")?;
    let event = event?;
    ensure!(event.to_lowercase().contains("agent"), "{event}");
    lab.kubectl(&["wait", "--for=condition=Ready", "pod/late", "--timeout=60s"])?.ok()?;
    expect(lab, "late", true)?;
    lab.kubectl(&["delete", "pod", "late", "--now"])?.ok()?;
    Ok(())
}

fn live_connection(lab: &Lab) -> Result<()> {
    lab.apply(NEAR_AND_FAR)?;
    expect(lab, "far", true)?;
    let running = stream(lab, "far", 12)?;
    std::thread::sleep(Duration::from_secs(2));
    lab.apply(ONLY_NEAR)?;
    let output = running.wait_with_output()?;
    let got = output.stdout.iter().filter(|b| **b == b'\n').count();
    ensure!(!output.status.success() && got < 110, "the connection went on to its end: {got} lines");
    Ok(())
}

fn api_lost(lab: &Lab) -> Result<()> {
    lab.apply(NEAR_AND_FAR)?;
    expect(lab, "far", true)?;
    let servers = processes::with_word("lab-apiserver")?;
    let ours: Vec<_> = servers.into_iter().filter(|p| p.words.iter().any(|w| w.contains("faulty"))).collect();
    ensure!(!ours.is_empty(), "no API server of this lab is running");
    let (a, b) = (stream(lab, "far", 60)?, knock(lab, "far", 60)?);
    std::thread::sleep(Duration::from_secs(1));
    for server in &ours {
        processes::signal(server, "STOP")?;
    }
    std::thread::sleep(Duration::from_secs(58));
    for server in &ours {
        processes::signal(server, "CONT")?;
    }
    let got = lines(a)?;
    let (made, failed) = knocked(b)?;
    ensure!(got > 500 && made > 100 && failed == 0, "{got} lines, {made} made, {failed} failed");
    lab.apply(ONLY_NEAR)?;
    expect(lab, "far", false)?;
    expect(lab, "near", true)
}

fn escapes(lab: &Lab) -> Result<()> {
    let flow = r#"{"flow":{"verdict":"FORWARDED","IP":{"source":"10.0.0.1","destination":"10.0.0.2","ipVersion":"IPv4"},"l4":{"TCP":{"source_port":1,"destination_port":2}},"source":{"namespace":"default","pod_name":"a\u001b[31mb\rc"},"destination":{},"Type":"L3_L4","event_type":{"type":4}}}"#;
    let file = std::env::temp_dir().join(format!("axoneme-escapes-{}", std::process::id()));
    std::fs::write(&file, flow)?;
    let path = file.to_string_lossy().into_owned();
    let printed = lab.hubble(&["observe", "--input-file", &path]).and_then(|r| r.ok());
    std::fs::remove_file(&file)?;
    let printed = printed?;
    ensure!(printed.contains("a^[[31mb\\rc") && !printed.contains('\u{1b}'), "{printed:?}");
    Ok(())
}

/// Folders of a lab's cgroups, its state, and mounts that name it.
fn traces(name: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for root in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"] {
        let folder = format!("{root}/axoneme/{name}");
        if std::path::Path::new(&folder).exists() {
            found.push(folder);
        }
    }
    let state = format!("/run/axoneme/lab/{name}");
    if std::path::Path::new(&state).exists() {
        found.push(state.clone());
    }
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    found.extend(mounts.lines().filter(|l| l.contains(&state)).map(String::from));
    let named = |p: &processes::Process| {
        p.words.iter().any(|w| w == name || w.contains(&state) || w.starts_with(&format!("{name}-")))
    };
    found.extend(
        processes::all()?.into_iter().filter(named).filter(|p| p.pid != std::process::id()).map(|p| p.words.join(" ")),
    );
    Ok(found)
}

fn leaves_nothing(name: &str) -> Result<()> {
    eventually(Duration::from_secs(15), &format!("nothing is left of {name}"), || {
        let found = traces(name)?;
        ensure!(found.is_empty(), "{found:#?}");
        Ok(())
    })
}

fn killed_up(lab: &Lab) -> Result<()> {
    let mut up = lab
        .command("axoneme")
        .args(["lab", "up", "--name", "faulty-killed", "--nodes", "2"])
        .stderr(Stdio::null())
        .spawn()?;
    let start = Instant::now();
    while traces("faulty-killed")?.len() < 4 && start.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(50));
    }
    up.kill()?;
    up.wait()?;
    leaves_nothing("faulty-killed")
}

fn down(lab: &Lab) -> Result<()> {
    lab.down()?;
    leaves_nothing(lab.name())
}
