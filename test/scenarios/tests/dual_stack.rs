//! Does a cluster with both families do by IPv6 what it does by IPv4: pods, services, names, world, policies, flows?

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::process::ExitCode;
use std::time::Duration;
use testbed::transcript::normalise;
use testbed::{Lab, Plan, Run, eventually, trials};

const PLAN: Plan<'static> = Plan { name: "dual", nodes: 3, options: &["--ipv6"] };
const WORKLOADS: &str = include_str!("../workloads/dual-stack.yaml");
const ICMP_RULE: &str = include_str!("../../../examples/oke/08-icmp-rule.yaml");
const WITHIN: Duration = Duration::from_secs(30);

const IFCONFIG: &str = "2600:1901:0:bbc3::";
const CNN: &str = "2a04:4e42::773";

fn main() -> ExitCode {
    trials::run(
        &PLAN,
        prepare,
        &[
            ("pods_have_addresses_of_both_families_everywhere", addresses),
            ("pods_reach_each_other_on_one_node_and_between_nodes", pod_to_pod),
            ("large_transfers_and_fragments_pass_the_tunnel", large),
            ("the_node_reaches_its_pods_and_they_reach_it", node_and_pods),
            ("services_have_addresses_of_both_families", services),
            ("a36_unknown_ports_of_a_service_do_not_leave_the_node", a36),
            ("cluster_dns_knows_ipv6_addresses", names),
            ("the_world_sees_the_nodes_address", world),
            ("e0_26_echo_requests_alone_e0_27_types_by_name", icmp),
            ("a64_an_allowed_echo_does_not_open_the_other_direction", a64),
            ("e0_15_prefixes_and_e0_18_exceptions", prefixes),
            ("entities_tell_cluster_from_world", entities),
            ("ingress_is_enforced_by_both_families", ingress),
            ("flows_are_told_by_their_ipv6_addresses", flows),
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

/// The IPv6 address in a list of objects with `ip`, or of texts.
fn v6(list: &Value) -> Result<String> {
    let texts = list.as_array().into_iter().flatten().filter_map(|one| one["ip"].as_str().or(one.as_str()));
    texts.into_iter().find(|text| text.contains(':')).map(String::from).with_context(|| format!("no IPv6 in {list}"))
}

fn pod6(lab: &Lab, pod: &str) -> Result<String> {
    v6(&lab.get(&["pod", pod])?["status"]["podIPs"])
}

fn service6(lab: &Lab, service: &str) -> Result<String> {
    v6(&lab.get(&["service", service])?["spec"]["clusterIPs"])
}

fn run_in(lab: &Lab, pod: &str, script: &str) -> Result<Run> {
    lab.exec("default", pod, &["sh", "-c", script])
}

fn expect(lab: &Lab, from: &str, host: &str, port: u16, wanted: bool) -> Result<()> {
    eventually(WITHIN, &format!("{from} to {host} port {port}: {wanted}"), || {
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_string() };
        ensure!(lab.connects("default", from, &host, port)? == wanted, "it is not");
        Ok(())
    })
}

fn ping(lab: &Lab, from: &str, address: &str) -> Result<bool> {
    Ok(lab.exec("default", from, &["ping", "-c", "1", "-W", "2", address])?.code == 0)
}

fn expect_ping(lab: &Lab, from: &str, address: &str, wanted: bool) -> Result<()> {
    eventually(WITHIN, &format!("{from} pings {address}: {wanted}"), || {
        ensure!(ping(lab, from, address)? == wanted, "it is not");
        Ok(())
    })
}

fn addresses(lab: &Lab) -> Result<()> {
    let address = pod6(lab, "server")?;
    ensure!(address.starts_with("fd00:10:244:1::"), "{address}");
    let endpoint = lab.get(&["ciliumendpoint", "server"])?;
    ensure!(endpoint["status"]["networking"]["addressing"][0]["ipv6"] == address.as_str(), "{endpoint:#}");
    let agent = lab.agent_on("dual-worker")?;
    let table = lab.exec("kube-system", &agent, &["cilium-dbg", "endpoint", "list"])?.ok()?;
    let header = table.lines().next().context("a header")?;
    let column = header.find("IPv6").context("a column IPv6")?;
    let row = table.lines().find(|l| l.contains("k8s:app=server")).with_context(|| table.clone())?;
    ensure!(row.get(column..).is_some_and(|rest| rest.starts_with(&address)), "{table}");
    let health = table.lines().find(|l| l.contains("reserved:health")).with_context(|| table.clone())?;
    ensure!(health.get(column..).is_some_and(|rest| rest.starts_with("fd00:10:244:1::")), "{table}");
    let list = lab.exec("kube-system", &agent, &["cilium-dbg", "bpf", "ipcache", "list"])?.ok()?;
    ensure!(list.contains(&format!("{}/128", pod6(lab, "far")?)), "{list}");
    let status = lab.exec("kube-system", &agent, &["cilium-dbg", "status"])?.ok()?;
    ensure!(status.contains("IPv6: ") && status.contains("fd00:10:244:1::/64"), "{status}");
    Ok(())
}

fn pod_to_pod(lab: &Lab) -> Result<()> {
    let server = pod6(lab, "server")?;
    for from in ["near", "far"] {
        expect(lab, from, &server, 8080, true)?;
        ensure!(ping(lab, from, &server)?, "{from} does not ping");
        let page = run_in(lab, from, &format!("curl -s --max-time 5 'http://[{server}]:8080/'"))?.ok()?;
        let client = pod6(lab, from)?;
        ensure!(page.contains(&format!("from: [{client}]:")), "{page}");
    }
    // a pod to itself
    expect(lab, "server", &server, 8080, true)
}

fn large(lab: &Lab) -> Result<()> {
    let server = pod6(lab, "server")?;
    let url = format!("http://[{server}]:8080/bytes/20000000");
    let got = run_in(lab, "far", &format!("curl -s --max-time 20 '{url}' | wc -c"))?.ok()?;
    ensure!(got.trim() == "20000000", "{got} bytes");
    for address in [&server, &lab.pod_ip("default", "server")?] {
        lab.exec("default", "far", &["ping", "-c", "2", "-W", "2", "-s", "8000", address])?.ok()?;
    }
    Ok(())
}

fn node_and_pods(lab: &Lab) -> Result<()> {
    let server = pod6(lab, "server")?;
    for node in ["dual-worker", "dual-worker2"] {
        let agent = lab.agent_on(node)?;
        let reached = lab.connects("kube-system", &agent, &format!("[{server}]"), 8080)?;
        ensure!(reached, "{node} does not reach the pod");
    }
    for (from, node) in
        [("near", "fc00:f853:ccd:e793::3"), ("near", "fc00:f853:ccd:e793::4"), ("far", "fc00:f853:ccd:e793::3")]
    {
        expect(lab, from, node, 4244, true)?;
        ensure!(ping(lab, from, node)?, "{from} does not ping {node}");
    }
    Ok(())
}

fn services(lab: &Lab) -> Result<()> {
    let address = service6(lab, "server")?;
    ensure!(address.starts_with("fd00:10:96::"), "{address}");
    let slices = lab.get(&["endpointslices", "-l", "kubernetes.io/service-name=server"])?;
    let families: Vec<&str> =
        slices["items"].as_array().into_iter().flatten().filter_map(|s| s["addressType"].as_str()).collect();
    ensure!(families.len() == 2 && families.contains(&"IPv6"), "{families:?}");
    for from in ["near", "far", "server"] {
        expect(lab, from, &address, 80, true)?;
        let page = run_in(lab, from, &format!("curl -s --max-time 5 'http://[{address}]/'"))?.ok()?;
        ensure!(page.contains("host name: server"), "{page}");
    }
    let agent = lab.agent_on("dual-worker2")?;
    ensure!(lab.connects("kube-system", &agent, &format!("[{address}]"), 80)?, "the node does not reach the service");
    let list = lab.exec("kube-system", &agent, &["cilium-dbg", "service", "list"])?.ok()?;
    ensure!(
        list.contains(&format!("[{address}]:80/TCP")) && list.contains(&format!("[{}]:8080/TCP", pod6(lab, "server")?)),
        "{list}"
    );
    Ok(())
}

/// Ports that a service does not have are dropped at its client, for each family and every protocol.
fn a36(lab: &Lab) -> Result<()> {
    let (six, four) = (service6(lab, "server")?, lab.get(&["service", "server"])?["spec"]["clusterIP"].clone());
    let four = four.as_str().context("clusterIP")?.to_string();
    for address in [&six, &four] {
        for from in ["near", "far"] {
            expect(lab, from, address, 81, false)?;
            ensure!(!ping(lab, from, address)?, "{from} pings the service {address}");
        }
        let brackets = if address.contains(':') { format!("[{address}]") } else { address.clone() };
        // sent as datagrams, which connect to nothing
        run_in(lab, "near", &format!("curl -s --max-time 1 'tftp://{brackets}:82/x'; true"))?.ok()?;
        let text = lab.hubble(&["observe", "--from-pod", "default/near", "--to-ip", address, "--last", "50"])?.ok()?;
        ensure!(!text.contains("FORWARDED"), "left the node: {text}");
        ensure!(text.contains(":81 ") && text.contains(":82 ") && text.contains("DROPPED"), "{text}");
    }
    Ok(())
}

/// `getent ahostsv6 NAME`: addresses without repetition.
fn resolve6(lab: &Lab, from: &str, name: &str) -> Result<Vec<String>> {
    let text = lab.exec("default", from, &["getent", "ahostsv6", name])?.ok()?;
    let mut all: Vec<String> = text.lines().filter_map(|l| l.split_whitespace().next()).map(String::from).collect();
    all.sort();
    all.dedup();
    Ok(all)
}

fn names(lab: &Lab) -> Result<()> {
    for from in ["near", "far"] {
        ensure!(resolve6(lab, from, "server")? == [service6(lab, "server")?], "short name");
        ensure!(resolve6(lab, from, "server.default.svc.cluster.local")? == [service6(lab, "server")?], "full name");
        ensure!(resolve6(lab, from, "pods-of-server")? == [pod6(lab, "server")?], "headless");
        ensure!(resolve6(lab, from, "ifconfig.me")? == [IFCONFIG], "ifconfig.me");
        let cnn = resolve6(lab, from, "cnn.com")?;
        ensure!(cnn.len() == 8 && cnn.iter().any(|a| a == CNN), "{cnn:?}");
    }
    let by_name = run_in(lab, "far", "curl -6 -s --max-time 5 http://server/")?.ok()?;
    ensure!(by_name.contains("host name: server") && by_name.contains("from: [fd00:10:244:2::"), "{by_name}");
    Ok(())
}

fn world(lab: &Lab) -> Result<()> {
    for (from, node) in [("near", "fc00:f853:ccd:e793::3"), ("far", "fc00:f853:ccd:e793::4")] {
        let seen = eventually(WITHIN, "the world answers", || {
            run_in(lab, from, "curl -6 -s --max-time 5 http://ifconfig.me/")?.ok()
        })?;
        ensure!(seen.trim() == node, "the world sees {seen}");
        ensure!(ping(lab, from, IFCONFIG)?, "{from} does not ping the world");
        ensure!(ping(lab, from, "34.117.118.44")?, "{from} does not ping the world by IPv4");
    }
    let got = run_in(lab, "near", "curl -6 -s --max-time 5 http://cnn.com/page")?.ok()?;
    ensure!(got.contains("GET /page at cnn.com (2a04:4e42:"), "{got}");
    Ok(())
}

fn icmp(lab: &Lab) -> Result<()> {
    let rule = ICMP_RULE.replace("cilium-hr", "default").replace("app: backend", "app: near");
    lab.apply(&rule)?;
    let server = pod6(lab, "server")?;
    expect(lab, "near", &server, 8080, false)?;
    for address in [&server, &pod6(lab, "far")?, &lab.pod_ip("default", "server")?, &IFCONFIG.to_string()] {
        expect_ping(lab, "near", address, true)?;
    }
    expect(lab, "near", &lab.pod_ip("default", "server")?, 8080, false)?;
    lab.kubectl(&["delete", "cnp", "icmp-rule"])?.ok()?;
    expect(lab, "near", &server, 8080, true)
}

fn a64(lab: &Lab) -> Result<()> {
    lab.apply(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: echo}\nspec:\n  endpointSelector: {matchLabels: {app: \
         near}}\n  egress:\n  - icmps: [{fields: [{type: EchoRequest, family: IPv6}]}]\n  ingress:\n  - fromEndpoints: [{matchLabels: \
         {app: nobody}}]\n",
    )?;
    let (near, far) = (pod6(lab, "near")?, pod6(lab, "far")?);
    expect_ping(lab, "far", &near, false)?;
    expect_ping(lab, "near", &far, true)?;
    ensure!(!ping(lab, "far", &near)?, "the answer opened the way for requests");
    lab.kubectl(&["delete", "cnp", "echo"])?.ok()?;
    expect_ping(lab, "far", &near, true)
}

fn prefixes(lab: &Lab) -> Result<()> {
    lab.apply(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: prefixes}\nspec:\n  endpointSelector: {matchLabels: {app: \
         far}}\n  egress:\n  - toCIDR: [\"2600:1901:0:bbc3::/64\"]\n  - toCIDRSet: [{cidr: \"2a04:4e42::/32\", except: \
         [\"2a04:4e42:a00::/40\"]}]\n    toPorts: [{ports: [{port: \"80\", protocol: TCP}]}]\n",
    )?;
    expect(lab, "far", "2606:4700:4700::1111", 80, false)?;
    expect(lab, "far", IFCONFIG, 80, true)?;
    expect(lab, "far", IFCONFIG, 22, true)?;
    ensure!(ping(lab, "far", IFCONFIG)?, "a rule without ports allows ICMPv6 too");
    expect(lab, "far", CNN, 80, true)?;
    expect(lab, "far", CNN, 22, false)?;
    expect(lab, "far", "2a04:4e42:a00::773", 80, false)?;
    expect(lab, "far", "34.117.118.44", 80, false)?;
    expect(lab, "far", &pod6(lab, "server")?, 8080, false)?;
    let text = lab.hubble(&["observe", "--from-pod", "default/far", "--to-ip", IFCONFIG, "--last", "20"])?.ok()?;
    let to_world = |l: &&str| l.contains("to-stack FORWARDED (TCP Flags: SYN)");
    let line = text.lines().rfind(to_world).with_context(|| text.clone())?;
    let number = line.split("(ID:").nth(2).and_then(|r| r.split(')').next()).with_context(|| text.clone())?;
    ensure!((1 << 24..2 << 24).contains(&number.parse::<u32>()?), "{line}");
    lab.kubectl(&["delete", "cnp", "prefixes"])?.ok()?;
    expect(lab, "far", "2606:4700:4700::1111", 80, true)
}

fn entities(lab: &Lab) -> Result<()> {
    let rule = |entity: &str| {
        format!(
            "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: entities}}\nspec:\n  endpointSelector: {{matchLabels: \
             {{app: far}}}}\n  egress:\n  - toEntities: [{entity}]\n"
        )
    };
    let (server, service) = (pod6(lab, "server")?, service6(lab, "server")?);
    lab.apply(&rule("cluster"))?;
    expect(lab, "far", IFCONFIG, 80, false)?;
    expect(lab, "far", &server, 8080, true)?;
    expect(lab, "far", &service, 80, true)?;
    expect(lab, "far", "fc00:f853:ccd:e793::3", 4244, true)?;
    lab.apply(&rule("world"))?;
    expect(lab, "far", &server, 8080, false)?;
    expect(lab, "far", IFCONFIG, 80, true)?;
    expect(lab, "far", "34.117.118.44", 80, true)?;
    expect(lab, "far", &service, 80, false)?;
    expect(lab, "far", "fc00:f853:ccd:e793::3", 4244, false)?;
    lab.apply(&rule("kube-apiserver"))?;
    expect(lab, "far", IFCONFIG, 80, false)?;
    expect(lab, "far", "10.96.0.1", 443, true)?;
    lab.kubectl(&["delete", "cnp", "entities"])?.ok()?;
    expect(lab, "far", &server, 8080, true)
}

fn ingress(lab: &Lab) -> Result<()> {
    lab.apply(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: server}\nspec:\n  endpointSelector: {matchLabels: {app: \
         server}}\n  ingress:\n  - fromEndpoints: [{matchLabels: {app: far}}]\n    toPorts: [{ports: [{port: \"8080\", protocol: TCP}]}]\n",
    )?;
    let addresses = [pod6(lab, "server")?, lab.pod_ip("default", "server")?];
    for address in &addresses {
        expect(lab, "near", address, 8080, false)?;
        expect(lab, "far", address, 8080, true)?;
        expect(lab, "far", address, 8081, false)?;
        expect_ping(lab, "far", address, false)?;
    }
    expect(lab, "near", &service6(lab, "server")?, 80, false)?;
    expect(lab, "far", &service6(lab, "server")?, 80, true)
}

/// Runs after [`ingress`], whose policy holds.
fn flows(lab: &Lab) -> Result<()> {
    let (near, server) = (pod6(lab, "near")?, pod6(lab, "server")?);
    expect(lab, "near", &server, 8080, false)?;
    let text = lab
        .hubble(&["observe", "--from-ip", &near, "--to-ip", &server, "--verdict", "DROPPED", "--last", "5"])?
        .ok()?;
    let lines: Vec<String> = text.lines().map(normalise).collect();
    for end in ["policy-verdict:none INGRESS DENIED (TCP Flags: SYN)", "Policy denied DROPPED (TCP Flags: SYN)"] {
        let wanted = format!("default/near:PORT (ID:N) <> default/server:8080 (ID:N) {end}");
        ensure!(lines.contains(&wanted), "{wanted} not in\n{text}");
    }
    let json = lab.hubble(&["observe", "--from-ip", &near, "--to-ip", &server, "--last", "1", "-o", "jsonpb"])?.ok()?;
    let flow: Value = serde_json::from_str(json.lines().next().context("a flow")?)?;
    let ip = &flow["flow"]["IP"];
    ensure!(
        ip["ipVersion"] == "IPv6" && ip["source"] == near.as_str() && ip["destination"] == server.as_str(),
        "{flow:#}"
    );
    let by_ip = lab
        .hubble(&["observe", "--ip-translation=false", "--from-ip", &near, "--to-ip", &server, "--last", "1"])?
        .ok()?;
    ensure!(by_ip.contains(&format!("[{near}]:")) && by_ip.contains(&format!("[{server}]:8080")), "{by_ip}");
    let only6 = lab.hubble(&["observe", "--ip-version", "6", "--last", "20"])?.ok()?;
    ensure!(!only6.is_empty(), "no IPv6 flows");
    ping(lab, "near", &server)?;
    let echo = lab.hubble(&["observe", "--protocol", "ICMPv6", "--from-pod", "default/near", "--last", "5"])?.ok()?;
    ensure!(echo.contains("(ICMPv6 EchoRequest)"), "{echo}");
    lab.kubectl(&["delete", "cnp", "server"])?.ok()?;
    Ok(())
}
