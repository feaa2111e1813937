//! Do cilium-dbg and hubble on a running lab answer what users of them ask?

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::process::{ExitCode, Stdio};
use std::time::Duration;
use testbed::{Lab, Plan, Run, eventually, trials};

const PLAN: Plan<'static> = Plan { name: "commands", nodes: 2, options: &[] };
const WORKLOADS: &str = include_str!("../workloads/commands.yaml");
const WITHIN: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    trials::run(
        &PLAN,
        prepare,
        &[
            ("policy_get_prints_rules_with_their_origin", policy_get),
            ("policy_selectors_name_their_users", selectors),
            ("endpoint_get_by_label_and_path", endpoint_get),
            ("bpf_policy_get_all_shows_every_endpoint", bpf_policy),
            ("bpf_ct_list_shows_connections", connections),
            ("ip_and_identity_are_found_by_name", lookups),
            ("monitor_shows_the_types_that_are_asked_for", monitor),
            ("metrics_count_what_happens", metrics),
            ("status_is_looked_up", status),
            ("hubble_forwards_relay_by_itself", port_forward),
            ("hubble_lists_and_watches", lists),
            ("hubble_refuses_cel_before_it_asks", cel),
            ("a48_labels_do_not_move_the_terminal", escapes),
        ],
    )
}

fn prepare(lab: &Lab) -> Result<()> {
    lab.apply(WORKLOADS)?;
    for pod in ["server", "friend", "foe"] {
        lab.kubectl(&["wait", "--for=condition=Ready", &format!("pod/{pod}"), "--timeout=60s"])?.ok()?;
    }
    knock(lab, "foe", false)?;
    knock(lab, "friend", true)
}

fn knock(lab: &Lab, from: &str, wanted: bool) -> Result<()> {
    eventually(WITHIN, &format!("{from} reaches the server: {wanted}"), || {
        ensure!(lab.connects("default", from, &lab.pod_ip("default", "server")?, 8080)? == wanted, "it is not so");
        Ok(())
    })
}

fn agent(lab: &Lab) -> Result<String> {
    lab.agent_on("commands-worker")
}

fn dbg(lab: &Lab, words: &[&str]) -> Result<Run> {
    lab.exec("kube-system", &agent(lab)?, &[&["cilium-dbg"], words].concat())
}

fn endpoint_id(lab: &Lab, app: &str) -> Result<String> {
    let path = "jsonpath={[0].id}";
    Ok(dbg(lab, &["endpoint", "get", "-l", &format!("k8s:app={app}"), "-o", path])?.ok()?.trim().to_string())
}

fn policy_get(lab: &Lab) -> Result<()> {
    let text = dbg(lab, &["policy", "get"])?.ok()?;
    let (rules, revision) = text.rsplit_once("\nRevision: ").with_context(|| text.clone())?;
    ensure!(revision.trim().parse::<u64>()? > 1, "{revision}");
    let rules: Vec<Value> = serde_json::from_str(rules).with_context(|| rules.to_string())?;
    let selector = &rules[0]["endpointSelector"]["matchLabels"];
    ensure!(selector["any:app"] == "server" && selector["k8s:io.kubernetes.pod.namespace"] == "default", "{text}");
    let origin = rules[0]["labels"].to_string();
    ensure!(origin.contains("io.cilium.k8s.policy.derived-from") && origin.contains("CiliumNetworkPolicy"), "{text}");
    ensure!(rules[0]["ingress"][0]["toPorts"][0]["ports"][0]["port"] == "8080", "{text}");
    Ok(())
}

fn selectors(lab: &Lab) -> Result<()> {
    let friend = lab.identity("default", "friend")?.to_string();
    let text = dbg(lab, &["policy", "selectors"])?.ok()?;
    let line = text.lines().find(|l| l.contains("default/server")).with_context(|| text.clone())?;
    ensure!(line.split_whitespace().any(|word| word == friend) && line.contains("friend"), "{text}");
    let all = dbg(lab, &["policy", "selectors", "-v"])?.ok()?;
    ensure!(all.contains("CiliumNetworkPolicy default/server"), "{all}");
    Ok(())
}

fn endpoint_get(lab: &Lab) -> Result<()> {
    let id = endpoint_id(lab, "server")?;
    let text = dbg(lab, &["endpoint", "get", &id])?.ok()?;
    let found: Vec<Value> = serde_json::from_str(&text)?;
    let status = &found[0]["status"];
    ensure!(status["external-identifiers"]["k8s-pod-name"] == "server" && status["state"] == "ready", "{text}");
    ensure!(status["namedPorts"][0]["name"] == "http" && status["namedPorts"][0]["port"] == 8080, "{text}");
    for name in ["pod-name:default/server".to_string(), format!("ipv4:{}", lab.pod_ip("default", "server")?)] {
        let path = "jsonpath={[0].status.identity.id}";
        let identity = dbg(lab, &["endpoint", "get", &name, "-o", path])?.ok()?;
        ensure!(identity.trim() == lab.identity("default", "server")?.to_string(), "{name}: {identity}");
    }
    dbg(lab, &["endpoint", "get", "-l", "k8s:app=nobody"])?.failed()?;
    Ok(())
}

fn bpf_policy(lab: &Lab) -> Result<()> {
    let (server, friend) = (endpoint_id(lab, "server")?, lab.identity("default", "friend")?);
    for words in [&["bpf", "policy", "get", "--all", "-n"][..], &["bpf", "policy", "list", "-n"]] {
        let text = dbg(lab, words)?.ok()?;
        let own = text.split("Endpoint ID: ").find(|part| part.lines().next() == Some(&server));
        let own = own.with_context(|| text.clone())?;
        let allowed = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words.get(..4) == Some(&["Allow", "Ingress", &friend.to_string(), "8080/TCP"])
        };
        ensure!(own.lines().any(allowed), "{text}");
        ensure!(text.matches("Endpoint ID: ").count() >= 4, "{text}");
    }
    let named = dbg(lab, &["bpf", "policy", "get", &server])?.ok()?;
    ensure!(named.contains("k8s:app=friend") && named.contains("LABELS (source:key[=value])"), "{named}");
    let json = dbg(lab, &["bpf", "policy", "get", &server, "-o", "json"])?.ok()?;
    ensure!(serde_json::from_str::<Vec<Value>>(&json)?.iter().any(|row| row["Port"] == "8080/TCP"), "{json}");
    Ok(())
}

fn connections(lab: &Lab) -> Result<()> {
    knock(lab, "friend", true)?;
    let server = format!("{}:8080", lab.pod_ip("default", "server")?);
    for words in [&["bpf", "ct", "list", "global", "-d"][..], &["bpf", "ct", "list", "--time-diff"]] {
        let text = dbg(lab, words)?.ok()?;
        let line = text.lines().find(|l| l.starts_with("TCP OUT ") && l.contains(&format!("-> {server} ")));
        let line = line.with_context(|| text.clone())?;
        ensure!(line.contains(" (remaining: ") && line.contains("SourceSecurityID="), "{line}");
    }
    let refused = dbg(lab, &["bpf", "ct", "list", "5"])?.failed()?;
    ensure!(refused.contains("global"), "{refused}");
    Ok(())
}

fn lookups(lab: &Lab) -> Result<()> {
    let (address, identity) = (lab.pod_ip("default", "friend")?, lab.identity("default", "friend")?.to_string());
    let listed = dbg(lab, &["ip", "list", "-n"])?.ok()?;
    let row = listed.lines().find(|l| l.starts_with(&format!("{address}/32 "))).with_context(|| listed.clone())?;
    ensure!(row.split_whitespace().nth(1) == Some(&identity), "{row}");
    let got = dbg(lab, &["ip", "get", &address, "-v"])?.ok()?;
    ensure!(got.contains("k8s:app=friend") && got.contains("default") && got.contains("POD"), "{got}");
    dbg(lab, &["ip", "get", "192.0.2.1"])?.failed()?;
    let by_number = dbg(lab, &["identity", "get", &identity])?.ok()?;
    let by_label = dbg(lab, &["identity", "get", "--label", "k8s:app=friend"])?.ok()?;
    ensure!(by_number == by_label && by_number.contains("k8s:app=friend"), "{by_number}{by_label}");
    let own = dbg(lab, &["identity", "list", "--endpoints"])?.ok()?;
    ensure!(own.contains("reserved:health") && own.contains("k8s:app=foe") && !own.contains("reserved:world"), "{own}");
    Ok(())
}

/// What the monitor shows while a denied and an allowed client knock.
fn watched(lab: &Lab, words: &[&str]) -> Result<String> {
    let agent = agent(lab)?;
    let mut command = lab.command("kubectl");
    command.args([
        "-n",
        "kube-system",
        "exec",
        &agent,
        "-c",
        "cilium-agent",
        "--",
        "timeout",
        "6",
        "cilium-dbg",
        "monitor",
    ]);
    let child = command.args(words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    std::thread::sleep(Duration::from_secs(1));
    let server = lab.pod_ip("default", "server")?;
    lab.connects("default", "foe", &server, 8080)?;
    lab.connects("default", "friend", &server, 8080)?;
    Ok(String::from_utf8(child.wait_with_output()?.stdout)?)
}

fn monitor(lab: &Lab) -> Result<()> {
    let drops = watched(lab, &["-t", "drop"])?;
    ensure!(drops.contains("xx drop (Policy denied)") && drops.contains("tcp SYN"), "{drops}");
    ensure!(!drops.contains("Policy verdict log") && !drops.contains("-> endpoint"), "{drops}");
    let server = endpoint_id(lab, "server")?;
    let verdicts = watched(lab, &["-t", "policy-verdict", "--to", &server])?;
    for action in ["action deny", "action allow"] {
        ensure!(verdicts.contains(&format!("local EP ID {server}")) && verdicts.contains(action), "{verdicts}");
    }
    let traces = watched(lab, &["-t", "trace", "--json"])?;
    let shown = |line: &str| {
        let message = serde_json::from_str::<Value>(line).map(|v| v["message"].to_string());
        message.is_ok_and(|message| message.contains(&format!("-> endpoint {server} ")))
    };
    ensure!(traces.lines().any(shown), "{traces}");
    dbg(lab, &["monitor", "-t", "drops"])?.failed()?;
    Ok(())
}

fn metrics(lab: &Lab) -> Result<()> {
    let count = || -> Result<f64> {
        let text = dbg(lab, &["metrics", "list", "-p", "^cilium_drop_count_total$", "-o", "json"])?.ok()?;
        let all: Vec<Value> = serde_json::from_str(&text)?;
        let denied = all.iter().find(|m| m["labels"]["reason"] == "Policy denied");
        denied.and_then(|m| m["value"].as_f64()).with_context(|| text.clone())
    };
    let before = count()?;
    knock(lab, "foe", false)?;
    let after = count()?;
    ensure!(after > before, "{before} drops and then {after}");
    let text = dbg(lab, &["metrics", "list"])?.ok()?;
    for name in ["cilium_endpoint_state", "cilium_identity", "cilium_forward_count_total", "cilium_policy_max_revision"]
    {
        ensure!(text.contains(name), "{name} not in {text}");
    }
    Ok(())
}

fn status(lab: &Lab) -> Result<()> {
    let text = dbg(lab, &["status", "--all-health"])?.ok()?;
    let line = |name: &str| text.lines().find(|l| l.starts_with(name)).with_context(|| text.clone());
    let attached = line("Attach Mode:")?;
    ensure!(attached.ends_with("TCX") || attached.ends_with("Legacy TC"), "{attached}");
    ensure!(line("Cilium health daemon:")?.contains("Ok"), "{text}");
    ensure!(line("Policies:")?.contains(" slots in use"), "{text}");
    ensure!(dbg(lab, &["status", "--brief"])?.ok()?.trim() == "OK", "not brief");
    let verbose = dbg(lab, &["status", "--verbose"])?.ok()?;
    ensure!(verbose.contains("Allocated addresses:") && verbose.contains("(localhost)"), "{verbose}");
    Ok(())
}

/// `hubble` without the server that the lab's environment names.
fn forwarded(lab: &Lab, words: &[&str]) -> Result<Run> {
    let mut command = lab.command("hubble");
    command.env_remove("HUBBLE_SERVER").args(words).args(["-P", "--port-forward-port", "0"]);
    Run::of(&mut command)
}

fn port_forward(lab: &Lab) -> Result<()> {
    let status = forwarded(lab, &["status"])?.ok()?;
    ensure!(status.contains("Healthcheck (via 127.0.0.1:") && status.contains("Connected Nodes: 2/2"), "{status}");
    let flows = forwarded(lab, &["observe", "--to-pod", "default/server", "--last", "3"])?.ok()?;
    ensure!(flows.contains("default/server"), "{flows}");
    let nodes = forwarded(lab, &["list", "nodes"])?.ok()?;
    ensure!(nodes.contains("commands-worker") && nodes.contains("Connected"), "{nodes}");
    let refused = forwarded(lab, &["status", "--kube-namespace", "nowhere"])?.failed()?;
    ensure!(refused.contains("--port-forward: ") && refused.contains("nowhere"), "{refused}");
    Ok(())
}

fn lists(lab: &Lab) -> Result<()> {
    let nodes = lab.hubble(&["list", "nodes", "-o", "wide"])?.ok()?;
    ensure!(nodes.lines().next().is_some_and(|l| l.contains("VERSION") && l.contains("ADDRESS")), "{nodes}");
    let json: Vec<Value> = serde_json::from_str(&lab.hubble(&["list", "nodes", "-o", "json"])?.ok()?)?;
    ensure!(json.len() == 2, "{json:?}");
    let namespaces = lab.hubble(&["list", "namespaces"])?.ok()?;
    ensure!(namespaces.lines().any(|l| l.trim() == "default"), "{namespaces}");
    let status = lab.hubble(&["status"])?.ok()?;
    ensure!(status.contains("): Ok") && status.contains("Current/Max Flows: "), "{status}");
    // relay has no peers of its own; an agent tells its peers
    let agent = agent(lab)?;
    let server = "unix:///var/run/cilium/hubble.sock";
    let peers = lab.exec("kube-system", &agent, &["timeout", "3", "hubble", "watch", "peers", "--server", server])?;
    ensure!(peers.stdout.contains("PEER_ADDED") && peers.stdout.contains("commands-control-plane"), "{peers:?}");
    Ok(())
}

fn cel(lab: &Lab) -> Result<()> {
    let refused = lab.hubble(&["observe", "--cel-expression", "_flow.verdict == Verdict.DROPPED"])?.failed()?;
    ensure!(refused.to_lowercase().contains("cel"), "{refused}");
    Ok(())
}

fn escapes(lab: &Lab) -> Result<()> {
    lab.apply(
        "apiVersion: cilium.io/v2\nkind: CiliumIdentity\nmetadata: {name: \"61234\"}\nsecurity-labels: {\"k8s:app\": \"odd\\u001b[2J\\rOK\"}\n",
    )?;
    let text = eventually(WITHIN, "the identity is known", || dbg(lab, &["identity", "get", "61234"])?.ok())?;
    ensure!(text.contains("k8s:app=odd^[[2J\\rOK") && !text.contains('\u{1b}'), "{text:?}");
    for words in
        [&["identity", "list"][..], &["identity", "list", "-o", "json"], &["identity", "get", "61234", "-o", "yaml"]]
    {
        let text = dbg(lab, words)?.ok()?;
        ensure!(text.contains("61234") && !text.contains(['\u{1b}', '\r']), "{text:?}");
    }
    lab.kubectl(&["delete", "ciliumidentity", "61234"])?.ok()?;
    Ok(())
}
