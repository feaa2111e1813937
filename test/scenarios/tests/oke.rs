//! Do the expectations of the scenario with three namespaces (E0) hold: every rule, listings, drops in Hubble?

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::process::ExitCode;
use std::time::Duration;
use testbed::transcript::normalise;
use testbed::{Lab, Plan, eventually, trials};

#[path = "oke/requests.rs"]
mod requests;

const PLAN: Plan<'static> = Plan { name: "oke", nodes: 2, options: &["--world", WORLD] };

const WORLD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/workloads/oke-world.yaml");
const WORKLOADS: &str = include_str!("../workloads/oke.yaml");
const HR_RULE: &str = include_str!("../../../examples/oke/01-l3-ep-hr-rule1.yaml");
const TO_APISERVER: &str = include_str!("../../../examples/oke/02-frontend-to-kube-apiserver.yaml");
const TO_CLUSTER: &str = include_str!("../../../examples/oke/03-fron-to-cluster.yaml");
const CIDR_RULE: &str = include_str!("../../../examples/oke/04-fin-frontend-cidr-rule.yaml");
const PORT_RANGE: &str = include_str!("../../../examples/oke/06-port-range.yaml");
const CIDR_L4_RULE: &str = include_str!("../../../examples/oke/07-cidr-l4-rule.yaml");
const ICMP_RULE: &str = include_str!("../../../examples/oke/08-icmp-rule.yaml");

const WITHIN: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    trials::run(
        &PLAN,
        prepare,
        &[
            ("e0_01_without_policy_everything_is_allowed_and_disabled", e0_01),
            ("e0_02_without_policy_nothing_is_isolated", e0_02),
            ("e0_36_the_health_endpoint_is_listed", e0_36),
            ("e0_40_router_solicitations_are_unsupported_with_ipv6_off", e0_40),
            ("e0_41_the_nodes_probes_are_seen_both_ways", e0_41),
            ("e0_03_the_first_policy_enforces_for_its_pods_alone", e0_03),
            ("e0_07_own_namespace_and_e0_08_the_named_one_are_allowed", e0_07_08),
            ("e0_09_another_namespace_is_denied_with_verdict_and_drop", e0_09),
            ("e0_10_ingress_is_enforced_and_egress_is_not", e0_10),
            ("e0_39_verdict_dropped_shows_denials_alone", e0_39),
            ("e0_04_denial_wins_over_allowance", e0_04),
            ("e0_05_the_three_kinds_add_up", e0_05),
            ("e0_06_a_pod_reaches_itself_and_its_node", e0_06),
            ("e0_11_only_the_api_server", e0_11),
            ("e0_12_cluster_but_not_world_and_e0_13_others_stay_open", e0_12_13),
            ("e0_15_only_the_prefixes_e0_17_replies_pass", e0_15_17),
            ("e0_16_a_prefix_has_a_node_local_identity", e0_16),
            ("e0_18_except_is_denied", e0_18),
            ("e0_21_a_rule_without_ports_allows_icmp_too", e0_21),
            ("e0_24_port_ranges", e0_24),
            ("e0_25_a_prefix_with_a_port", e0_25),
            ("e0_26_echo_requests_alone_and_e0_27_types_by_name", e0_26_27),
            ("e0_32_policies_are_listed", e0_32),
            ("e0_33_endpoint_list_by_kubectl_exec", e0_33),
            ("e0_34_a_pod_of_namespace_default_e0_37_and_one_of_cilium_hr", e0_34_37),
            ("e0_35_a_pod_carries_the_labels_of_its_namespace", e0_35),
            ("e0_20_names_and_services_can_be_peers_and_a53_pods_stay_pods", requests::e0_20),
            ("e0_22_any_name_may_be_asked_for_by_udp_and_nothing_else_passes", requests::e0_22),
            ("e0_23_without_an_ingress_section_ingress_stays_open", requests::e0_23),
            ("e0_28_two_requests_pass_from_anywhere", requests::e0_28),
            ("e0_29_all_others_get_403_and_egress_is_not_touched", requests::e0_29),
            ("e0_30_the_same_ports_without_rules_let_all_requests_pass", requests::e0_30),
            ("e0_31_paths_methods_hosts_and_headers_are_asked_for", requests::e0_31),
        ],
    )
}

fn prepare(lab: &Lab) -> Result<()> {
    // a namespace has its service account a moment after it was made
    eventually(WITHIN, "workloads applied", || lab.apply(WORKLOADS))?;
    for namespace in ["cilium-hr", "cilium-fin", "cilium-mfg", "cilium-test"] {
        lab.rolled_out(namespace)?;
    }
    lab.kubectl(&["wait", "-n", "cilium-test", "--for=condition=Ready", "pod/test-21491", "--timeout=60s"])?.ok()?;
    for namespace in ["default", "cilium-web"] {
        lab.kubectl(&["wait", "-n", namespace, "--for=condition=Ready", "pod/web", "--timeout=60s"])?.ok()?;
    }
    Ok(())
}

/// The one pod of this app in this namespace.
fn pod(lab: &Lab, namespace: &str, app: &str) -> Result<String> {
    lab.pod(namespace, &format!("app={app}"))
}

/// Does this app's pod there reach that app's pod here on this port?
fn reaches(lab: &Lab, from: (&str, &str), to: (&str, &str), port: u16) -> Result<bool> {
    let address = lab.pod_ip(to.0, &pod(lab, to.0, to.1)?)?;
    lab.connects(from.0, &pod(lab, from.0, from.1)?, &address, port)
}

fn expect(lab: &Lab, from: (&str, &str), to: (&str, &str), port: u16, wanted: bool) -> Result<()> {
    eventually(WITHIN, &format!("{from:?} to {to:?}:{port} is {wanted}"), || {
        ensure!(reaches(lab, from, to, port)? == wanted, "it is not");
        Ok(())
    })
}

/// Does it reach this address of the world?
fn expect_world(lab: &Lab, from: (&str, &str), address: &str, port: u16, wanted: bool) -> Result<()> {
    let name = pod(lab, from.0, from.1)?;
    eventually(WITHIN, &format!("{from:?} to {address}:{port} is {wanted}"), || {
        ensure!(lab.connects(from.0, &name, address, port)? == wanted, "it is not");
        Ok(())
    })
}

/// Every endpoint of the cluster as `cilium-dbg endpoint list -o json` tells it.
fn endpoints(lab: &Lab) -> Result<Vec<Value>> {
    let mut all = Vec::new();
    for agent in lab.pods("kube-system", "k8s-app=cilium")? {
        let text = lab.exec("kube-system", &agent, &["cilium-dbg", "endpoint", "list", "-o", "json"])?.ok()?;
        let list: Vec<Value> = serde_json::from_str(&text).with_context(|| text.clone())?;
        all.extend(list);
    }
    Ok(all)
}

/// `none`, `ingress`, `egress` or `both`, for the endpoint with all of these labels.
fn enforced(lab: &Lab, labels: &[&str]) -> Result<String> {
    let all = endpoints(lab)?;
    let found = all.iter().find(|e| {
        let own = e["status"]["labels"]["security-relevant"].as_array().cloned().unwrap_or_default();
        labels.iter().all(|l| own.iter().any(|o| o == l))
    });
    let endpoint = found.with_context(|| format!("no endpoint with {labels:?}"))?;
    let enabled = &endpoint["status"]["policy"]["realized"]["policy-enabled"];
    Ok(enabled.as_str().context("policy-enabled")?.to_string())
}

fn in_namespace(namespace: &str, app: &str) -> [String; 2] {
    [format!("k8s:io.kubernetes.pod.namespace={namespace}"), format!("k8s:app={app}")]
}

fn expect_enforced(lab: &Lab, namespace: &str, app: &str, wanted: &str) -> Result<()> {
    let labels = in_namespace(namespace, app);
    let labels = [labels[0].as_str(), labels[1].as_str()];
    eventually(WITHIN, &format!("{namespace}/{app}: {wanted}"), || {
        let seen = enforced(lab, &labels)?;
        ensure!(seen == wanted, "{seen}");
        Ok(())
    })
}

fn e0_01(lab: &Lab) -> Result<()> {
    expect(lab, ("cilium-mfg", "frontend"), ("cilium-hr", "backend"), 80, true)?;
    expect_world(lab, ("cilium-mfg", "frontend"), "134.70.24.1", 80, true)?;
    expect_enforced(lab, "cilium-hr", "backend", "none")
}

fn e0_02(lab: &Lab) -> Result<()> {
    for namespace in ["cilium-hr", "cilium-fin", "cilium-mfg"] {
        for app in ["frontend", "backend", "pmo"] {
            expect_enforced(lab, namespace, app, "none")?;
        }
    }
    Ok(())
}

fn e0_36(lab: &Lab) -> Result<()> {
    let all = endpoints(lab)?;
    let health =
        all.iter().find(|e| e["status"]["labels"]["security-relevant"] == serde_json::json!(["reserved:health"]));
    let health = health.context("no health endpoint")?;
    ensure!(health["status"]["identity"]["id"] == 4 && health["status"]["state"] == "ready", "{health:#}");
    let address = health["status"]["networking"]["addressing"][0]["ipv4"].as_str().unwrap_or_default();
    ensure!(address.starts_with("10.244."), "{health:#}");
    Ok(())
}

fn e0_40(lab: &Lab) -> Result<()> {
    eventually(WITHIN, "a router solicitation", || {
        let text = lab.hubble(&["observe", "--verdict", "DROPPED", "--last", "1000"])?.ok()?;
        let of_a_pod = |l: &String| l.contains("RouterSolicitation") && l.contains(" (ID:N) ");
        let line = text.lines().map(normalise).find(of_a_pod).context("none yet")?;
        let (from, rest) = line.split_once(" (ID:N) ").with_context(|| line.clone())?;
        ensure!(from.starts_with("fe80::"), "{line}");
        ensure!(rest == "<> ff02::2 (unknown) Unsupported L3 protocol DROPPED (ICMPv6 RouterSolicitation)", "{line}");
        Ok(())
    })
}

fn e0_41(lab: &Lab) -> Result<()> {
    let text = eventually(WITHIN, "probes in hubble observe -f", || {
        let run = lab.run("timeout", &["8", "hubble", "observe", "-f", "--namespace", "cilium-test"])?;
        let there = ["to-endpoint FORWARDED (TCP Flags: SYN)", "to-stack FORWARDED (TCP Flags: SYN, ACK)"];
        ensure!(there.iter().all(|t| run.stdout.lines().any(|l| l.ends_with(t))), "{}", run.stdout);
        Ok(run.stdout)
    })?;
    let lines: Vec<String> = text.lines().map(normalise).collect();
    let there = lines.iter().any(|l| {
        l.starts_with("10.244.")
            && l.ends_with("(host) -> cilium-test/echo-same-node:8080 (ID:N) to-endpoint FORWARDED (TCP Flags: SYN)")
    });
    let back = lines.iter().any(|l| {
        l.starts_with("10.244.")
            && l.ends_with("(host) <- cilium-test/echo-same-node:8080 (ID:N) to-stack FORWARDED (TCP Flags: SYN, ACK)")
    });
    ensure!(there && back, "{lines:#?}");
    Ok(())
}

fn e0_03(lab: &Lab) -> Result<()> {
    lab.apply(HR_RULE)?;
    expect_enforced(lab, "cilium-hr", "backend", "ingress")?;
    expect_enforced(lab, "cilium-fin", "backend", "none")?;
    expect(lab, ("cilium-mfg", "frontend"), ("cilium-hr", "backend"), 80, false)
}

fn e0_07_08(lab: &Lab) -> Result<()> {
    for port in [80, 443] {
        expect(lab, ("cilium-hr", "frontend"), ("cilium-hr", "backend"), port, true)?;
        expect(lab, ("cilium-fin", "pmo"), ("cilium-hr", "backend"), port, true)?;
    }
    Ok(())
}

fn e0_09(lab: &Lab) -> Result<()> {
    ensure!(!reaches(lab, ("cilium-mfg", "frontend"), ("cilium-hr", "backend"), 80)?, "not denied");
    let text =
        lab.hubble(&["observe", "--verdict", "DROPPED", "--from-namespace", "cilium-mfg", "--last", "20"])?.ok()?;
    let lines: Vec<&str> = text.lines().collect();
    let head = "cilium-mfg/frontend:PORT (ID:N) <> cilium-hr/backend:80 (ID:N) ";
    let verdict = lines
        .iter()
        .position(|l| normalise(l) == format!("{head}policy-verdict:none INGRESS DENIED (TCP Flags: SYN)"))
        .with_context(|| text.clone())?;
    let drop = lines.get(verdict + 1).with_context(|| text.clone())?;
    ensure!(normalise(drop) == format!("{head}Policy denied DROPPED (TCP Flags: SYN)"), "{text}");
    ensure!(drop[..20] == lines[verdict][..20], "the two have different times: {text}");
    let client = lab.identity("cilium-mfg", &pod(lab, "cilium-mfg", "frontend")?)?;
    let server = lab.identity("cilium-hr", &pod(lab, "cilium-hr", "backend")?)?;
    ensure!(drop.contains(&format!("(ID:{client})")) && drop.contains(&format!("(ID:{server})")), "{drop}");
    Ok(())
}

fn e0_10(lab: &Lab) -> Result<()> {
    expect_enforced(lab, "cilium-hr", "frontend", "ingress")?;
    expect(lab, ("cilium-hr", "frontend"), ("cilium-mfg", "backend"), 80, true)?;
    expect_world(lab, ("cilium-hr", "frontend"), "134.70.28.1", 80, true)
}

fn e0_39(lab: &Lab) -> Result<()> {
    let text = lab.hubble(&["observe", "--verdict", "DROPPED", "--last", "200"])?.ok()?;
    ensure!(!text.is_empty(), "no drops");
    for line in text.lines() {
        ensure!(line.contains(" DROPPED (") || line.contains(" DENIED ("), "{line}");
    }
    Ok(())
}

fn e0_04(lab: &Lab) -> Result<()> {
    lab.apply(
        "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {name: no-pmo}\nspec:\n  endpointSelector: \
         {matchLabels: {app: backend}}\n  ingressDeny:\n  - fromEndpoints:\n    - matchLabels: {app: pmo}\n",
    )?;
    expect(lab, ("cilium-hr", "pmo"), ("cilium-hr", "backend"), 80, false)?;
    expect(lab, ("cilium-hr", "frontend"), ("cilium-hr", "backend"), 80, true)?;
    let text = lab.hubble(&["observe", "--verdict", "DROPPED", "--from-pod", "cilium-hr/pmo", "--last", "5"])?.ok()?;
    ensure!(text.contains("Policy denied by denylist DROPPED"), "{text}");
    lab.kubectl(&["delete", "ccnp", "no-pmo"])?.ok()?;
    expect(lab, ("cilium-hr", "pmo"), ("cilium-hr", "backend"), 80, true)
}

fn e0_05(lab: &Lab) -> Result<()> {
    let allow = |kind: &str, app: &str| match kind {
        "NetworkPolicy" => format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: three, namespace: cilium-hr}}\nspec:\n  \
             podSelector: {{matchLabels: {{app: backend}}}}\n  policyTypes: [Ingress]\n  ingress:\n  - from:\n    - namespaceSelector: \
             {{matchLabels: {{kubernetes.io/metadata.name: cilium-mfg}}}}\n      podSelector: {{matchLabels: {{app: {app}}}}}\n"
        ),
        _ => format!(
            "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {{name: three}}\nspec:\n  endpointSelector: \
             {{matchLabels: {{app: backend, \"k8s:io.kubernetes.pod.namespace\": cilium-hr}}}}\n  ingress:\n  - fromEndpoints:\n    - \
             matchLabels: {{app: {app}, \"k8s:io.kubernetes.pod.namespace\": cilium-mfg}}\n"
        ),
    };
    expect(lab, ("cilium-mfg", "backend"), ("cilium-hr", "backend"), 80, false)?;
    lab.apply(&allow("NetworkPolicy", "backend"))?;
    lab.apply(&allow("CiliumClusterwideNetworkPolicy", "pmo"))?;
    expect(lab, ("cilium-mfg", "backend"), ("cilium-hr", "backend"), 80, true)?;
    expect(lab, ("cilium-mfg", "pmo"), ("cilium-hr", "backend"), 80, true)?;
    expect(lab, ("cilium-fin", "frontend"), ("cilium-hr", "backend"), 80, true)?;
    expect(lab, ("cilium-mfg", "frontend"), ("cilium-hr", "backend"), 80, false)?;
    lab.kubectl(&["delete", "ccnp", "three"])?.ok()?;
    lab.kubectl(&["-n", "cilium-hr", "delete", "netpol", "three"])?.ok()?;
    Ok(())
}

fn e0_06(lab: &Lab) -> Result<()> {
    lab.apply(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: nothing, namespace: cilium-mfg}\nspec: \
         {podSelector: {}, policyTypes: [Ingress, Egress]}\n",
    )?;
    expect_enforced(lab, "cilium-mfg", "backend", "both")?;
    expect(lab, ("cilium-mfg", "backend"), ("cilium-mfg", "backend"), 80, true)?;
    let name = pod(lab, "cilium-mfg", "backend")?;
    // the agent has its node's network: what it sends is the node's
    let agent = lab.agent_with("cilium-mfg", &name)?;
    let reached = lab.connects("kube-system", &agent, &lab.pod_ip("cilium-mfg", &name)?, 80);
    expect(lab, ("cilium-mfg", "frontend"), ("cilium-mfg", "backend"), 80, false)?;
    lab.kubectl(&["-n", "cilium-mfg", "delete", "netpol", "nothing"])?.ok()?;
    ensure!(reached?, "the node does not reach its pod");
    Ok(())
}

fn e0_11(lab: &Lab) -> Result<()> {
    lab.apply(TO_APISERVER)?;
    expect(lab, ("cilium-fin", "frontend"), ("cilium-hr", "backend"), 80, false)?;
    let name = pod(lab, "cilium-fin", "frontend")?;
    expect_world(lab, ("cilium-fin", "frontend"), "10.96.0.1", 443, true)?;
    ensure!(!lab.connects("cilium-fin", &name, "134.70.24.1", 80)?, "world");
    let dns = lab.pod_ip("kube-system", &lab.pods("kube-system", "k8s-app=kube-dns")?[0])?;
    ensure!(!lab.connects("cilium-fin", &name, &dns, 53)?, "DNS");
    expect(lab, ("cilium-mfg", "frontend"), ("cilium-fin", "frontend"), 80, true)?;
    expect(lab, ("cilium-fin", "backend"), ("cilium-hr", "backend"), 80, true)?;
    lab.kubectl(&["-n", "cilium-fin", "delete", "cnp", "frontend-to-kube-apiserver"])?.ok()?;
    Ok(())
}

fn e0_12_13(lab: &Lab) -> Result<()> {
    lab.apply(TO_CLUSTER)?;
    expect_enforced(lab, "cilium-hr", "frontend", "both")?;
    expect(lab, ("cilium-hr", "frontend"), ("cilium-mfg", "backend"), 80, true)?;
    expect_world(lab, ("cilium-hr", "frontend"), "10.96.0.1", 443, true)?;
    expect_world(lab, ("cilium-hr", "frontend"), "134.70.24.1", 80, false)?;
    expect_world(lab, ("cilium-hr", "backend"), "134.70.24.1", 80, true)
}

fn e0_15_17(lab: &Lab) -> Result<()> {
    lab.apply(CIDR_RULE)?;
    let fin = ("cilium-fin", "frontend");
    expect_world(lab, fin, "134.70.24.2", 80, false)?;
    for (address, port) in
        [("134.70.24.1", 80), ("134.70.28.1", 80), ("134.70.32.1", 80), ("10.20.0.5", 22), ("10.20.0.5", 80)]
    {
        expect_world(lab, fin, address, port, true)?;
    }
    expect(lab, fin, ("cilium-hr", "backend"), 80, false)
}

fn e0_16(lab: &Lab) -> Result<()> {
    ensure!(lab.connects("cilium-fin", &pod(lab, "cilium-fin", "frontend")?, "10.20.0.5", 22)?, "denied");
    let text =
        lab.hubble(&["observe", "--from-namespace", "cilium-fin", "--to-ip", "10.20.0.5", "--last", "20"])?.ok()?;
    let line =
        text.lines().find(|l| l.contains(" to-stack FORWARDED (TCP Flags: SYN)")).with_context(|| text.clone())?;
    let number =
        line.split("10.20.0.5:22 (ID:").nth(1).and_then(|r| r.split(')').next()).with_context(|| line.to_string())?;
    let number: u32 = number.parse()?;
    ensure!((1 << 24..2 << 24).contains(&number), "{line}");
    Ok(())
}

fn e0_18(lab: &Lab) -> Result<()> {
    lab.apply(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: fin-frontend-cidr-rule, namespace: cilium-fin}\n\
         spec:\n  endpointSelector: {matchLabels: {app: frontend}}\n  egress:\n  - toCIDRSet:\n    - cidr: 134.70.0.0/16\n      except: \
         [134.70.28.0/24]\n",
    )?;
    let fin = ("cilium-fin", "frontend");
    expect_world(lab, fin, "134.70.28.1", 80, false)?;
    expect_world(lab, fin, "134.70.24.1", 80, true)?;
    expect_world(lab, fin, "134.70.32.1", 80, true)?;
    expect_world(lab, fin, "10.20.0.5", 80, false)
}

fn e0_21(lab: &Lab) -> Result<()> {
    let address = lab.pod_ip("cilium-hr", &pod(lab, "cilium-hr", "backend")?)?;
    let ping = ["ping", "-c", "1", "-W", "2", &address];
    lab.exec("cilium-fin", &pod(lab, "cilium-fin", "pmo")?, &ping)?.ok()?;
    let denied = lab.exec("cilium-mfg", &pod(lab, "cilium-mfg", "pmo")?, &ping)?;
    ensure!(denied.code != 0, "{}", denied.stdout);
    Ok(())
}

fn e0_24(lab: &Lab) -> Result<()> {
    lab.kubectl(&["-n", "cilium-hr", "delete", "cnp", "--all"])?.ok()?;
    lab.apply(PORT_RANGE)?;
    for (port, wanted) in [(79, false), (80, true), (443, true), (6443, true), (6444, false)] {
        expect(lab, ("cilium-hr", "frontend"), ("cilium-hr", "backend"), port, wanted)?;
    }
    let name = lab.exec(
        "cilium-hr",
        &pod(lab, "cilium-hr", "frontend")?,
        &["sh", "-c", "timeout 3 getent hosts kubernetes.default; echo code $?"],
    )?;
    ensure!(!name.ok()?.contains("code 0"), "UDP passes");
    Ok(())
}

fn e0_25(lab: &Lab) -> Result<()> {
    lab.apply(CIDR_L4_RULE)?;
    let pmo = ("cilium-hr", "pmo");
    expect_world(lab, pmo, "10.20.0.5", 80, false)?;
    expect_world(lab, pmo, "10.20.0.5", 22, true)?;
    expect_world(lab, pmo, "134.70.24.1", 22, false)
}

fn e0_26_27(lab: &Lab) -> Result<()> {
    lab.apply(ICMP_RULE)?;
    let name = pod(lab, "cilium-hr", "backend")?;
    expect(lab, ("cilium-hr", "backend"), ("cilium-mfg", "backend"), 80, false)?;
    let address = lab.pod_ip("cilium-mfg", &pod(lab, "cilium-mfg", "backend")?)?;
    lab.exec("cilium-hr", &name, &["ping", "-c", "1", "-W", "2", &address])?.ok()?;
    let rule = lab.get(&["-n", "cilium-hr", "cnp", "icmp-rule"])?;
    let fields = &rule["spec"]["egress"][0]["icmps"][0]["fields"];
    ensure!(fields[0]["type"] == 8 && fields[1]["type"] == "EchoRequest", "{fields:#}");
    Ok(())
}

fn e0_32(lab: &Lab) -> Result<()> {
    for kind in ["ciliumnetworkpolicies", "cnp"] {
        let table = lab.kubectl(&["get", kind, "-A"])?.ok()?;
        let header: Vec<&str> = table.lines().next().context("a header")?.split_whitespace().collect();
        ensure!(header[..3] == ["NAMESPACE", "NAME", "AGE"], "{table}");
        for (namespace, name) in
            [("cilium-fin", "fin-frontend-cidr-rule"), ("cilium-hr", "icmp-rule"), ("cilium-hr", "port-range")]
        {
            let found = table.lines().any(|l| l.split_whitespace().take(2).eq([namespace, name]));
            ensure!(found, "{namespace}/{name} in\n{table}");
        }
    }
    Ok(())
}

fn e0_33(lab: &Lab) -> Result<()> {
    let agent = lab.agent_with("default", "web")?;
    let run = lab.exec("kube-system", &agent, &["cilium-dbg", "endpoint", "list"])?;
    let first = "Defaulted container \"cilium-agent\" out of: cilium-agent, config (init), mount-cgroup (init), \
                 apply-sysctl-overwrites (init), mount-bpf-fs (init), clean-cilium-state (init), install-cni-binaries (init)";
    ensure!(run.stderr.lines().next() == Some(first), "{}", run.stderr);
    let table = run.ok()?;
    let mut lines = table.lines();
    let (one, two) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let words = |l: &str| l.split("  ").map(str::trim).filter(|w| !w.is_empty()).map(String::from).collect::<Vec<_>>();
    let columns = [
        "ENDPOINT",
        "POLICY (ingress)",
        "POLICY (egress)",
        "IDENTITY",
        "LABELS (source:key[=value])",
        "IPv6",
        "IPv4",
        "STATUS",
    ];
    ensure!(words(one) == columns && words(two) == ["ENFORCEMENT", "ENFORCEMENT"], "{table}");
    Ok(())
}

/// The lines of an endpoint in `cilium-dbg endpoint list`: the first with all columns, then its other labels.
fn listed(table: &str, label: &str) -> Result<Vec<String>> {
    let lines: Vec<&str> = table.lines().collect();
    let at = lines.iter().position(|l| l.contains(label)).with_context(|| format!("no {label} in\n{table}"))?;
    let begins = |l: &str| l.starts_with(|c: char| c.is_ascii_digit());
    let start = (0..=at).rev().find(|i| begins(lines[*i])).context("a first line")?;
    let end = (start + 1..lines.len()).find(|i| begins(lines[*i]) || lines[*i].is_empty()).unwrap_or(lines.len());
    Ok(lines[start..end].iter().map(|l| l.trim_end().to_string()).collect())
}

fn e0_34_37(lab: &Lab) -> Result<()> {
    let agent = lab.agent_with("default", "web")?;
    let table = lab.exec("kube-system", &agent, &["cilium-dbg", "endpoint", "list"])?.ok()?;
    let web = listed(&table, "k8s:app=web")?;
    let first: Vec<&str> = web[0].split_whitespace().collect();
    ensure!(first[1..3] == ["Disabled", "Disabled"] && first[4] == "k8s:app=web" && first[6] == "ready", "{web:#?}");
    ensure!(first[5] == lab.pod_ip("default", "web")?, "{web:#?}");
    let labels: Vec<&str> = web[1..].iter().map(|l| l.trim()).collect();
    ensure!(
        labels
            == [
                "k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=default",
                "k8s:io.cilium.k8s.policy.cluster=default",
                "k8s:io.cilium.k8s.policy.serviceaccount=default",
                "k8s:io.kubernetes.pod.namespace=default",
            ],
        "{web:#?}"
    );
    lab.apply(HR_RULE)?;
    expect_enforced(lab, "cilium-hr", "frontend", "both")
}

fn e0_35(lab: &Lab) -> Result<()> {
    let agent = lab.agent_with("cilium-test", "test-21491")?;
    let table = lab.exec("kube-system", &agent, &["cilium-dbg", "endpoint", "list"])?.ok()?;
    let lines = listed(&table, "k8s:run=test-21491")?;
    let first: Vec<&str> = lines[0].split_whitespace().collect();
    ensure!(first[4] == "k8s:io.cilium.k8s.namespace.labels.app.kubernetes.io/name=cilium-cli", "{lines:#?}");
    ensure!(first[1..3] == ["Disabled", "Disabled"] && first[6] == "ready", "{lines:#?}");
    Ok(())
}
