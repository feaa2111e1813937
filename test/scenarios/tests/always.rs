//! Do the expectations of the scenario with enforcement "always" (E3) hold: nothing passes that no policy allows?

use anyhow::{Context, Result, ensure};
use std::process::ExitCode;
use std::time::Duration;
use testbed::{Lab, Plan, eventually, trials};

const PLAN: Plan<'static> = Plan { name: "always", nodes: 6, options: &["--policy-enforcement", "always"] };

const WORKLOADS: &str = include_str!("../workloads/always.yaml");
const CORE_DNS: &str = include_str!("../../../examples/kind-always/01-core-dns.yaml");
const PROVISIONER: &str = include_str!("../../../examples/kind-always/02-local-path-provisioner.yaml");
const RELAY: &str = include_str!("../../../examples/kind-always/03-hubble-relay.yaml");
const UI_AND_RELAY: &str = include_str!("../../../examples/kind-always/05-hubble-ui-and-hubble-relay.yaml");
const UI_AND_DNS: &str = include_str!("../../../examples/kind-always/06-hubble-ui-and-core-dns.yaml");
const DNS_WORLD: &str = include_str!("../../../examples/kind-always/07-core-dns-world.yaml");

const WITHIN: Duration = Duration::from_secs(40);

fn main() -> ExitCode {
    trials::run(
        &PLAN,
        prepare,
        &[
            ("e3_01_all_six_nodes_become_ready", e3_01),
            ("e3_02_coredns_and_the_provisioner_do_not_reach_the_api_server", e3_02),
            ("e3_03_host_network_works_and_other_pods_are_cut_off", e3_03),
            ("e3_04_every_endpoint_is_enforced_both_ways", e3_04),
            ("e3_05_coredns_becomes_ready_with_its_policy", e3_05),
            ("e3_06_the_provisioner_runs_with_its_policy", e3_06),
            ("e3_07_relay_reaches_the_agents_of_all_nodes", e3_07),
            ("e3_11_client_and_server_must_both_allow", e3_11),
            ("e3_15_the_same_name_replaces", e3_15),
            ("e3_16_service_accounts_hold_whatever_the_labels", e3_16),
        ],
    )
}

fn prepare(lab: &Lab) -> Result<()> {
    // a namespace has its service account a moment after it was made
    eventually(WITHIN, "workloads applied", || lab.apply(WORKLOADS))?;
    Ok(())
}

fn e3_01(lab: &Lab) -> Result<()> {
    let table = eventually(WITHIN, "six nodes ready", || {
        let table = lab.kubectl(&["get", "nodes"])?.ok()?;
        let ready = table.lines().skip(1).filter(|l| l.split_whitespace().nth(1) == Some("Ready")).count();
        ensure!(ready == 6, "{table}");
        Ok(table)
    })?;
    let header: Vec<&str> = table.lines().next().context("a header")?.split_whitespace().collect();
    ensure!(header == ["NAME", "STATUS", "ROLES", "AGE", "VERSION"], "{table}");
    ensure!(table.lines().any(|l| l.starts_with("always-control-plane ") && l.contains(" control-plane ")), "{table}");
    ensure!(table.lines().any(|l| l.starts_with("always-worker5 ") && l.contains(" <none> ")), "{table}");
    Ok(())
}

/// `kubectl get pods` of a namespace: name, ready, status, restarts.
fn pods(lab: &Lab, namespace: &str, prefix: &str) -> Result<Vec<[String; 4]>> {
    let table = lab.kubectl(&["-n", namespace, "get", "pods", "--no-headers"])?.ok()?;
    let rows = table.lines().filter(|l| l.starts_with(prefix)).map(|l| {
        let words: Vec<&str> = l.split_whitespace().collect();
        [0, 1, 2, 3].map(|i| words.get(i).copied().unwrap_or_default().to_string())
    });
    Ok(rows.collect())
}

fn e3_02(lab: &Lab) -> Result<()> {
    eventually(WITHIN, "coredns runs without being ready", || {
        let rows = pods(lab, "kube-system", "coredns-")?;
        ensure!(rows.len() == 2 && rows.iter().all(|r| r[1] == "0/1" && r[2] == "Running"), "{rows:?}");
        Ok(())
    })?;
    eventually(WITHIN, "the provisioner fails again and again", || {
        let rows = pods(lab, "local-path-storage", "local-path-provisioner-")?;
        let failing = |r: &[String; 4]| r[1] == "0/1" && r[3].parse::<u32>().is_ok_and(|n| n >= 1);
        ensure!(rows.len() == 1 && rows.iter().all(failing), "{rows:?}");
        ensure!(["Error", "CrashLoopBackOff"].contains(&rows[0][2].as_str()), "{rows:?}");
        Ok(())
    })
}

fn e3_03(lab: &Lab) -> Result<()> {
    let api = |pod: &str| lab.connects("default", pod, "10.96.0.1", 443);
    let ready = |pod: &str| {
        lab.kubectl(&["wait", "--for=condition=Ready", &format!("pod/{pod}"), "--timeout=40s"]).and_then(|r| r.ok())
    };
    ready("with-host-network")?;
    ready("without-host-network")?;
    ensure!(api("with-host-network")?, "a pod with the host's network is cut off");
    ensure!(!api("without-host-network")?, "a pod reaches the API server although nothing allows it");
    let other = lab.pod_ip("default", "server")?;
    ensure!(!lab.connects("default", "without-host-network", &other, 8080)?, "pods reach each other");
    Ok(())
}

fn e3_04(lab: &Lab) -> Result<()> {
    for agent in lab.pods("kube-system", "k8s-app=cilium")? {
        let text = lab.exec("kube-system", &agent, &["cilium-dbg", "endpoint", "list", "-o", "json"])?.ok()?;
        let list: serde_json::Value = serde_json::from_str(&text).context("endpoint list -o json")?;
        for endpoint in list.as_array().context("an array")? {
            let labels = endpoint["status"]["labels"]["security-relevant"].to_string();
            if labels.contains("reserved:host") {
                continue;
            }
            let enabled = &endpoint["status"]["policy"]["realized"]["policy-enabled"];
            ensure!(enabled == "both", "{labels}: {enabled}");
        }
    }
    Ok(())
}

fn e3_05(lab: &Lab) -> Result<()> {
    lab.apply(CORE_DNS)?;
    eventually(WITHIN, "coredns ready", || {
        let rows = pods(lab, "kube-system", "coredns-")?;
        ensure!(rows.len() == 2 && rows.iter().all(|r| r[1] == "1/1"), "{rows:?}");
        Ok(())
    })
}

fn e3_06(lab: &Lab) -> Result<()> {
    lab.apply(PROVISIONER)?;
    eventually(Duration::from_secs(90), "the provisioner runs", || {
        let rows = pods(lab, "local-path-storage", "local-path-provisioner-")?;
        ensure!(rows.len() == 1 && rows[0][1] == "1/1" && rows[0][2] == "Running", "{rows:?}");
        Ok(())
    })
}

/// `Connected Nodes: n/m` as the relay's pod says it.
fn connected_nodes(lab: &Lab) -> Result<String> {
    let status = ["hubble", "status", "--server", "localhost:4245"];
    let text = lab.exec("kube-system", &lab.pod("kube-system", "k8s-app=hubble-relay")?, &status)?.ok()?;
    let line = text.lines().find(|l| l.starts_with("Connected Nodes:")).context(text.clone())?;
    Ok(line["Connected Nodes:".len()..].trim().to_string())
}

fn e3_07(lab: &Lab) -> Result<()> {
    let only =
        |entity: &str| RELAY.lines().filter(|l| l.trim() != format!("- {entity}")).collect::<Vec<_>>().join("\n");
    lab.apply(RELAY)?;
    eventually(WITHIN, "relay sees all nodes", || {
        let nodes = connected_nodes(lab)?;
        ensure!(nodes == "6/6", "{nodes}");
        Ok(())
    })?;
    lab.apply(&only("remote-node"))?;
    eventually(WITHIN, "relay loses the other nodes", || {
        let nodes = connected_nodes(lab)?;
        ensure!(nodes != "6/6", "{nodes}");
        Ok(())
    })?;
    lab.apply(RELAY)?;
    Ok(())
}

/// Can the pod with the UI's service account open relay's port?
fn ui_reaches_relay(lab: &Lab) -> Result<bool> {
    let relay = lab.pod_ip("kube-system", &lab.pod("kube-system", "k8s-app=hubble-relay")?)?;
    lab.connects("kube-system", "hubble-ui", &relay, 4245)
}

fn e3_11(lab: &Lab) -> Result<()> {
    lab.kubectl(&["-n", "kube-system", "wait", "--for=condition=Ready", "pod/hubble-ui", "--timeout=40s"])?.ok()?;
    let (ui, relay) = UI_AND_RELAY.split_once("---").context("two documents")?;
    let denied = |what: &str, verdict: &str| {
        eventually(WITHIN, what, || {
            ensure!(!ui_reaches_relay(lab)?, "the connection is made");
            let text = lab.hubble(&["observe", "--from-pod", "kube-system/hubble-ui", "--last", "50"])?.ok()?;
            ensure!(text.lines().any(|l| l.contains(verdict) && l.contains(":4245")), "no {verdict} in\n{text}");
            Ok(())
        })
    };
    lab.apply(ui)?;
    denied("with egress of the client alone, ingress denies", "policy-verdict:none INGRESS DENIED")?;
    lab.kubectl(&["-n", "kube-system", "delete", "cnp", "hubble-ui"])?.ok()?;
    lab.apply(relay)?;
    denied("with ingress of the server alone, egress denies", "policy-verdict:none EGRESS DENIED")?;
    lab.apply(UI_AND_RELAY)?;
    eventually(WITHIN, "with both it is made", || {
        ensure!(ui_reaches_relay(lab)?, "not yet");
        Ok(())
    })
}

fn e3_15(lab: &Lab) -> Result<()> {
    let dns = lab.pod_ip("kube-system", &lab.pods("kube-system", "k8s-app=kube-dns")?[0])?;
    lab.apply(UI_AND_DNS)?;
    eventually(WITHIN, "the UI reaches DNS with the second policy", || {
        ensure!(lab.connects("kube-system", "hubble-ui", &dns, 53)?, "not yet");
        Ok(())
    })?;
    let lookup = ["sh", "-c", "timeout 3 getent hosts ifconfig.me; echo code $?"];
    let outside = |wanted: bool| {
        eventually(WITHIN, "names of the world", || {
            let text = lab.exec("kube-system", "hubble-ui", &lookup)?.ok()?;
            ensure!(text.contains("code 0") == wanted, "{text}");
            Ok(())
        })
    };
    outside(false)?;
    lab.apply(DNS_WORLD)?;
    outside(true)?;
    lab.apply(CORE_DNS)?;
    eventually(WITHIN, "the first policy again: no ingress to DNS", || {
        ensure!(!lab.connects("kube-system", "hubble-ui", &dns, 53)?, "still reached");
        Ok(())
    })?;
    let names = lab.kubectl(&["-n", "kube-system", "get", "cnp", "-o", "name"])?.ok()?;
    ensure!(names.lines().filter(|n| n.ends_with("/core-dns")).count() == 1, "{names}");
    Ok(())
}

fn e3_16(lab: &Lab) -> Result<()> {
    for pod in ["provisioner-twin", "stranger"] {
        let pod = format!("pod/{pod}");
        lab.kubectl(&["-n", "local-path-storage", "wait", "--for=condition=Ready", &pod, "--timeout=40s"])?.ok()?;
    }
    let reaches = |pod: &str| lab.connects("local-path-storage", pod, "10.96.0.1", 443);
    ensure!(reaches("provisioner-twin")?, "the same service account with other labels is cut off");
    ensure!(!reaches("stranger")?, "another service account with the same labels gets through");
    Ok(())
}
