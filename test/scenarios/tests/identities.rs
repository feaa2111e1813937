//! Do numbers of identities stay true: when nodes ask at once, when one is deleted in use, when one is given to others?

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;
use testbed::{Lab, Plan, eventually, trials};

const PLAN: Plan<'static> = Plan { name: "identities", nodes: 3, options: &[] };
const WITHIN: Duration = Duration::from_secs(30);
/// Pods on each of the two workers.
const PODS: usize = 8;

fn main() -> ExitCode {
    trials::run(
        &PLAN,
        prepare,
        &[
            ("a27_nodes_that_ask_at_once_agree_on_numbers", at_once),
            ("a26_an_identity_that_is_deleted_in_use_comes_back", deleted),
            ("a27_an_endpoint_leaves_a_number_that_was_given_to_others", given_away),
            ("identities_that_nobody_uses_are_not_asked_for_again", unused),
        ],
    )
}

/// All at once: on each worker a pod for each of the labels.
fn prepare(lab: &Lab) -> Result<()> {
    let pod = |(node, number): (&str, usize)| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {node}-{number}, labels: {{number: \"{number}\"}}}}\nspec:\n  nodeName: \
             identities-{node}\n  containers: [{{name: main, image: echo, env: [{{name: PORTS, value: \"8080\"}}]}}]\n---\n"
        )
    };
    let all = (0..PODS).flat_map(|number| [("worker", number), ("worker2", number)]);
    lab.apply(&all.map(pod).collect::<String>())?;
    lab.kubectl(&["wait", "--for=condition=Ready", "pod", "--all", "--timeout=90s"])?.ok()?;
    lab.apply(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: one}\nspec:\n  endpointSelector: {matchLabels: {number: \
         \"1\"}}\n  ingress:\n  - fromEndpoints: [{matchLabels: {number: \"0\"}}]\n",
    )?;
    expect(lab, "worker-2", false)?;
    expect(lab, "worker-0", true)
}

/// Does this pod reach the one that only those with the label 0 may reach?
fn expect(lab: &Lab, from: &str, wanted: bool) -> Result<()> {
    eventually(WITHIN, &format!("{from} reaches worker2-1: {wanted}"), || {
        ensure!(lab.connects("default", from, &lab.pod_ip("default", "worker2-1")?, 8080)? == wanted, "it is not so");
        Ok(())
    })
}

/// Numbers that stand for pods of the default namespace with this label, by the API.
fn numbers(lab: &Lab, label: &str) -> Result<Vec<String>> {
    let list = lab.get(&["ciliumidentities"])?;
    let has = |identity: &&Value| {
        let labels = &identity["security-labels"];
        labels["k8s:number"] == label && labels["k8s:io.kubernetes.pod.namespace"] == "default"
    };
    let items = list["items"].as_array().context("items")?;
    Ok(items.iter().filter(has).filter_map(|i| i["metadata"]["name"].as_str().map(String::from)).collect())
}

fn at_once(lab: &Lab) -> Result<()> {
    let mut all = BTreeSet::new();
    for number in 0..PODS {
        let (a, b) = (format!("worker-{number}"), format!("worker2-{number}"));
        let (a, b) = (lab.identity("default", &a)?, lab.identity("default", &b)?);
        ensure!(a == b, "label {number}: {a} on one node and {b} on the other");
        ensure!(all.insert(a), "{a} stands for two sets of labels");
        ensure!(numbers(lab, &number.to_string())? == [a.to_string()], "{:?}", numbers(lab, &number.to_string())?);
    }
    Ok(())
}

fn deleted(lab: &Lab) -> Result<()> {
    let before = lab.identity("default", "worker-0")?.to_string();
    lab.kubectl(&["delete", "ciliumidentity", &before])?.ok()?;
    eventually(WITHIN, "the identity is there again", || {
        ensure!(numbers(lab, "0")? == [before.clone()], "{:?}", numbers(lab, "0")?);
        Ok(())
    })?;
    expect(lab, "worker-0", true)?;
    expect(lab, "worker2-0", true)?;
    expect(lab, "worker-2", false)
}

fn given_away(lab: &Lab) -> Result<()> {
    let before = lab.identity("default", "worker-0")?;
    let labels = r#"{"security-labels": {"k8s:number": "stolen", "k8s:io.kubernetes.pod.namespace": "default"}}"#;
    lab.kubectl(&["patch", "ciliumidentity", &before.to_string(), "--type", "merge", "-p", labels])?.ok()?;
    for pod in ["worker-0", "worker2-0"] {
        eventually(WITHIN, &format!("{pod} has another number"), || {
            let now = lab.identity("default", pod)?;
            ensure!(now != before && numbers(lab, "0")? == [now.to_string()], "{now} {:?}", numbers(lab, "0")?);
            Ok(())
        })?;
        expect(lab, pod, true)?;
    }
    ensure!(lab.identity("default", "worker-0")? == lab.identity("default", "worker2-0")?, "two numbers for one");
    expect(lab, "worker-2", false)
}

fn unused(lab: &Lab) -> Result<()> {
    let number = lab.identity("default", "worker-7")?.to_string();
    lab.kubectl(&["delete", "pod", "worker-7", "worker2-7", "--now"])?.ok()?;
    eventually(WITHIN, "its endpoints are gone", || {
        let list = lab.kubectl(&["get", "ciliumendpoints", "-o", "name"])?.ok()?;
        ensure!(!list.contains("-7"), "{list}");
        Ok(())
    })?;
    lab.kubectl(&["delete", "ciliumidentity", &number])?.ok()?;
    std::thread::sleep(Duration::from_secs(3));
    ensure!(numbers(lab, "7")?.is_empty(), "made again for nobody");
    Ok(())
}
