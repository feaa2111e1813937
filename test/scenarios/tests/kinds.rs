//! Do policies of kinds and peers that ask more of the cluster hold while it runs: tiers of administrators, services?

use anyhow::{Result, ensure};
use std::process::ExitCode;
use std::time::Duration;
use testbed::{Lab, Plan, eventually, trials};

const PLAN: Plan<'static> = Plan { name: "kinds", nodes: 2, options: &[] };
const WITHIN: Duration = Duration::from_secs(30);

const PODS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: client, labels: {app: client}}
spec: {nodeName: kinds-worker, containers: [{name: main, image: client, command: [sleep, infinity]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: near, labels: {app: near}}
spec: {nodeName: kinds-worker, containers: [{name: main, image: echo, env: [{name: PORTS, value: \"8080\"}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: far, labels: {app: far}}
spec: {nodeName: kinds-control-plane, containers: [{name: main, image: echo, env: [{name: PORTS, value: \"8080\"}]}]}
";

fn main() -> ExitCode {
    trials::run(
        &PLAN,
        prepare,
        &[
            ("a_denial_of_the_administrators_stands_above_allowances", denial_above),
            ("what_they_pass_is_left_to_others", passed_over),
            ("a_baseline_holds_where_nothing_else_is_said", baseline),
            ("a_rule_for_a_service_follows_the_labels_of_its_pods", service_with_selector),
            ("a_rule_for_services_by_label_follows_backends_outside_of_the_cluster", service_without_selector),
        ],
    )
}

fn prepare(lab: &Lab) -> Result<()> {
    lab.apply(PODS)?;
    lab.kubectl(&["wait", "--for=condition=Ready", "pod", "--all", "--timeout=90s"])?.ok()?;
    reaches(lab, "near", true)?;
    reaches(lab, "far", true)
}

/// Does the client reach this pod?
fn reaches(lab: &Lab, pod: &str, wanted: bool) -> Result<()> {
    let address = lab.pod_ip("default", pod)?;
    eventually(WITHIN, &format!("client reaches {pod}: {wanted}"), || {
        ensure!(lab.connects("default", "client", &address, 8080)? == wanted, "it is not so");
        Ok(())
    })
}

/// A policy of the administrators for all that comes to pods of the default namespace.
fn administrators(tier: &str, action: &str) -> String {
    format!(
        "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {{name: {}}}\nspec:\n  tier: {tier}\n  \
         priority: 10\n  subject: {{namespaces: {{matchLabels: {{kubernetes.io/metadata.name: default}}}}}}\n  ingress:\n  - action: \
         {action}\n    from: [{{pods: {{namespaceSelector: {{}}, podSelector: {{matchLabels: {{app: client}}}}}}}}]\n",
        tier.to_lowercase()
    )
}

/// A policy of the namespace that lets the client in to the pod `near`, or nobody.
fn of_the_namespace(lets_in: bool) -> String {
    let from = if lets_in { "[{from: [{podSelector: {matchLabels: {app: client}}}]}]" } else { "[]" };
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: near}}\nspec:\n  podSelector: {{matchLabels: {{app: \
         near}}}}\n  policyTypes: [Ingress]\n  ingress: {from}\n"
    )
}

fn remove(lab: &Lab, kind: &str, name: &str) -> Result<()> {
    lab.kubectl(&["delete", kind, name])?.ok()?;
    Ok(())
}

fn denial_above(lab: &Lab) -> Result<()> {
    lab.apply(&of_the_namespace(true))?;
    lab.apply(&administrators("Admin", "Deny"))?;
    reaches(lab, "near", false)?;
    reaches(lab, "far", false)?;
    let table = lab.kubectl(&["get", "clusternetworkpolicies"])?.ok()?;
    let words: Vec<&str> = table.split_whitespace().collect();
    ensure!(words[..7] == ["NAME", "TIER", "PRIORITY", "AGE", "admin", "Admin", "10"], "{table}");
    let address = lab.pod_ip("default", "near")?;
    let seen =
        lab.hubble(&["observe", "--to-ip", &address, "--verdict", "DROPPED", "--last", "5", "-o", "json"])?.ok()?;
    ensure!(seen.contains("\"kind\":\"ClusterNetworkPolicy\"") && seen.contains("\"name\":\"admin\""), "{seen}");
    Ok(())
}

fn passed_over(lab: &Lab) -> Result<()> {
    lab.apply(&administrators("Admin", "Pass"))?;
    reaches(lab, "near", true)?;
    reaches(lab, "far", true)?;
    lab.apply(&of_the_namespace(false))?;
    reaches(lab, "near", false)?;
    reaches(lab, "far", true)?;
    remove(lab, "clusternetworkpolicy", "admin")
}

fn baseline(lab: &Lab) -> Result<()> {
    lab.apply(&administrators("Baseline", "Deny"))?;
    reaches(lab, "far", false)?;
    lab.apply(&of_the_namespace(true))?;
    reaches(lab, "near", true)?;
    remove(lab, "networkpolicy", "near")?;
    reaches(lab, "near", false)?;
    remove(lab, "clusternetworkpolicy", "baseline")?;
    reaches(lab, "near", true)?;
    reaches(lab, "far", true)
}

fn to_services(which: &str) -> String {
    format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: to-services}}\nspec:\n  endpointSelector: {{matchLabels: \
         {{app: client}}}}\n  egress: [{{toServices: [{which}]}}]\n"
    )
}

fn service_with_selector(lab: &Lab) -> Result<()> {
    lab.apply(&to_services("{k8sService: {serviceName: web, namespace: default}}"))?;
    reaches(lab, "near", false)?;
    let service = |app: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec: {{selector: {{app: {app}}}, ports: [{{port: 8080}}]}}\n"
        )
    };
    lab.apply(&service("near"))?;
    reaches(lab, "near", true)?;
    reaches(lab, "far", false)?;
    lab.apply(&service("far"))?;
    reaches(lab, "near", false)?;
    reaches(lab, "far", true)?;
    remove(lab, "service", "web")?;
    reaches(lab, "far", false)
}

/// The world of a lab answers at every address that is not the cluster's.
fn service_without_selector(lab: &Lab) -> Result<()> {
    lab.apply(&to_services("{k8sServiceSelector: {selector: {matchLabels: {team: blue}}, namespace: default}}"))?;
    let slice = |address: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: outside, labels: {{team: blue}}}}\nspec: {{clusterIP: None, ports: [{{port: \
             80}}]}}\n---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: outside-1, labels: \
             {{kubernetes.io/service-name: outside}}}}\naddressType: IPv4\nports: [{{port: 80}}]\nendpoints: [{{addresses: [{address}]}}]\n"
        )
    };
    let reaches = |address: &str, wanted: bool| {
        eventually(WITHIN, &format!("client reaches {address}: {wanted}"), || {
            ensure!(lab.connects("default", "client", address, 80)? == wanted, "it is not so");
            Ok(())
        })
    };
    lab.apply(&slice("1.1.1.1"))?;
    reaches("1.1.1.1", true)?;
    reaches("34.117.118.44", false)?;
    lab.apply(&slice("34.117.118.44"))?;
    reaches("34.117.118.44", true)?;
    reaches("1.1.1.1", false)?;
    lab.kubectl(&["label", "service", "outside", "team=green", "--overwrite"])?.ok()?;
    reaches("34.117.118.44", false)?;
    remove(lab, "cnp", "to-services")?;
    reaches("1.1.1.1", true)
}
