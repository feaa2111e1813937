//! Does what `axoneme policy` says of a running cluster happen to its packets?

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::process::ExitCode;
use std::time::Duration;
use testbed::{Lab, Plan, eventually, trials};

const PLAN: Plan<'static> = Plan { name: "live", nodes: 2, options: &[] };
const WORKLOADS: &str = include_str!("../workloads/commands.yaml");
const WITHIN: Duration = Duration::from_secs(30);

/// Who asks whom on which port, and whether that passes.
const FLOWS: [(&str, &str, u16, bool); 4] = [
    ("friend", "server", 8080, true),
    ("foe", "server", 8080, false),
    ("friend", "server", 81, false),
    ("server", "friend", 82, true),
];

fn main() -> ExitCode {
    trials::run(
        &PLAN,
        prepare,
        &[
            ("explain_says_of_a_live_cluster_what_the_datapath_does", explain),
            ("explain_says_the_same_as_an_agent_knows_it", explain_by_agent),
            ("diff_tells_what_a_file_would_change_of_a_live_cluster", diff),
            ("graph_and_lint_read_a_live_cluster", graph_and_lint),
            ("hits_count_what_rules_decided_and_when", hits),
        ],
    )
}

fn prepare(lab: &Lab) -> Result<()> {
    lab.apply(WORKLOADS)?;
    for pod in ["server", "friend", "foe"] {
        lab.kubectl(&["wait", "--for=condition=Ready", &format!("pod/{pod}"), "--timeout=60s"])?.ok()?;
    }
    let server = lab.pod_ip("default", "server")?;
    eventually(WITHIN, "the policy holds", || {
        ensure!(lab.connects("default", "friend", &server, 8080)?, "friend does not reach the server");
        ensure!(!lab.connects("default", "foe", &server, 8080)?, "foe reaches the server");
        Ok(())
    })
}

/// What the command says, as JSON.
fn policy(lab: &Lab, words: &[&str]) -> Result<Value> {
    let words: Vec<&str> = ["policy"].iter().chain(words).chain(&["-o", "json"]).copied().collect();
    let run = lab.run("axoneme", &words)?;
    serde_json::from_str(&run.stdout).with_context(|| format!("{words:?} printed {}{}", run.stdout, run.stderr))
}

fn explain(lab: &Lab) -> Result<()> {
    for (from, to, port, passes) in FLOWS {
        let value = policy(lab, &["explain", from, &format!("{to}:{port}"), "--live"])?;
        let said = value["verdict"] == "ALLOWED";
        ensure!(said == passes, "{from} -> {to}:{port}: {value:#}");
        // Where nobody listens, what passes is refused by the host; only what is dropped is seen by no one.
        if port == 8080 {
            let found = lab.connects("default", from, &lab.pod_ip("default", to)?, port)?;
            ensure!(found == said, "{from} -> {to}:{port}: explain says {said}, the datapath {found}");
        }
        let identity = lab.identity("default", from)?;
        ensure!(value["source"]["identity"] == identity, "identity of {from} is {identity}: {value:#}");
    }
    Ok(())
}

fn explain_by_agent(lab: &Lab) -> Result<()> {
    let agent = lab.agent_with("default", "server")?;
    for (from, to, port, passes) in FLOWS.into_iter().filter(|(_, to, ..)| *to == "server") {
        let words = ["axoneme", "policy", "explain", from, &format!("{to}:{port}"), "-o", "json"];
        let words = [&words[..], &["--agent", "/var/run/cilium/cilium.sock"]].concat();
        let run = lab.exec("kube-system", &agent, &words)?;
        let value: Value =
            serde_json::from_str(&run.stdout).with_context(|| format!("{}{}", run.stdout, run.stderr))?;
        ensure!((value["verdict"] == "ALLOWED") == passes, "{from} -> {to}:{port}: {value:#}");
    }
    Ok(())
}

fn diff(lab: &Lab) -> Result<()> {
    let file = std::env::temp_dir().join(format!("axoneme-live-{}.yaml", std::process::id()));
    let text = WORKLOADS.rsplit("---").next().context("the policy")?.replace("app: friend", "app: foe");
    std::fs::write(&file, text.replace("name: server}", "name: server, namespace: default}"))?;
    let value = policy(lab, &["diff", &file.display().to_string(), "--live"]);
    std::fs::remove_file(&file)?;
    let value = value?;
    let has = |change: &str, from: &str| {
        let regions = value["regions"].as_array().into_iter().flatten();
        regions.into_iter().any(|one| one["change"] == change && one["witness"]["source"] == from)
    };
    ensure!(has("gained", "default/foe") && has("lost", "default/friend"), "{value:#}");
    Ok(())
}

fn graph_and_lint(lab: &Lab) -> Result<()> {
    let graph = policy(lab, &["graph", "--live", "-n", "default"])?;
    let edges: Vec<&Value> = graph["edges"].as_array().into_iter().flatten().collect();
    let has = |from: &str| edges.iter().any(|one| one["source"] == from && one["destination"] == "default/server");
    ensure!(has("default/friend") && !has("default/foe"), "{graph:#}");
    let lint = policy(lab, &["lint", "--dead", "--live"])?;
    ensure!(lint["rules"] == 1 && lint["dead"].as_array().is_some_and(Vec::is_empty), "{lint:#}");
    Ok(())
}

/// Rows of `axoneme policy hits` on the server's node.
fn rows(lab: &Lab, agent: &str) -> Result<Vec<Value>> {
    let run = lab.exec("kube-system", agent, &["axoneme", "policy", "hits", "-o", "json"])?;
    serde_json::from_str(&run.stdout).with_context(|| format!("{}{}", run.stdout, run.stderr))
}

/// How many packets a rule decided, and when the last one came.
fn counted(rows: &[Value], rule: &str) -> Result<(u64, String)> {
    let found = rows.iter().find(|row| row["rule"] == rule && row["direction"] == "ingress");
    let found = found.with_context(|| format!("no row of {rule}: {rows:#?}"))?;
    let last = found["last_hit"].as_str().unwrap_or_default().to_owned();
    Ok((found["packets"].as_u64().context("packets")?, last))
}

fn hits(lab: &Lab) -> Result<()> {
    const RULE: &str = "CiliumNetworkPolicy default/server ingress[0]";
    const DENIAL: &str = "default-deny of CiliumNetworkPolicy default/server";
    let agent = lab.agent_with("default", "server")?;
    let server = lab.pod_ip("default", "server")?;
    let policy = WORKLOADS.rsplit("---").next().context("the policy")?;
    let now = rows(lab, &agent)?;
    let (allowed, denied) = (counted(&now, RULE)?, counted(&now, DENIAL)?);
    for round in 1..=2 {
        for _ in 0..3 {
            ensure!(lab.connects("default", "friend", &server, 8080)?, "friend does not reach the server");
        }
        ensure!(!lab.connects("default", "foe", &server, 8080)?, "foe reaches the server");
        let now = rows(lab, &agent)?;
        let (allowed_now, denied_now) = (counted(&now, RULE)?, counted(&now, DENIAL)?);
        ensure!(allowed_now.0 == allowed.0 + 3 * round, "{RULE}: {allowed:?}, then {allowed_now:?}");
        ensure!(denied_now.0 >= denied.0 + round, "{DENIAL}: {denied:?}, then {denied_now:?}");
        ensure!(allowed_now.1 > allowed.1 && denied_now.1 > denied.1, "{now:#?}");
        // A policy that changes gets new tables: what the old ones had counted is not lost.
        lab.apply(&format!("{policy}  - fromEndpoints: [{{}}]\n    toPorts: [{{ports: [{{port: \"9{round}\"}}]}}]\n"))?;
        eventually(WITHIN, "the policy has another rule", || {
            let now = rows(lab, &agent)?;
            let other = counted(&now, "CiliumNetworkPolicy default/server ingress[1]")?;
            ensure!(other == (0, String::new()), "{other:?}");
            Ok(())
        })?;
    }
    lab.apply(policy)?;
    Ok(())
}
