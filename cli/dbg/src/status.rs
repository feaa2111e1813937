//! How does the agent's own state look as text?

use std::fmt::Write;

use agent_api::{StatusResponse, TableFill};

use crate::tabwriter::align;

/// `cilium-dbg status --brief`.
pub fn brief(status: &StatusResponse) -> String {
    let bad = |state: &str| matches!(state, "Warning" | "Failure");
    if bad(&status.kubernetes.state) {
        return format!("error in kubernetes: {}\n", status.kubernetes.msg);
    }
    if bad(&status.cilium.state) {
        return format!("error in cilium: {}\n", status.cilium.msg);
    }
    "OK\n".into()
}

/// What is shown besides the usual.
#[derive(Clone, Copy, Debug, Default)]
pub struct More {
    /// Each allocated address.
    pub addresses: bool,
    /// Each node.
    pub nodes: bool,
    /// Each table of the datapath that was looked at.
    pub tables: bool,
    /// Each port that is redirected to the proxy.
    pub redirects: bool,
}

/// Why the command fails, if it does.
pub fn trouble(status: &StatusResponse, kubernetes: bool) -> Option<String> {
    let bad = |state: &str| matches!(state, "Warning" | "Failure");
    if kubernetes && bad(&status.kubernetes.state) {
        return Some(format!("kubernetes: {}", status.kubernetes.msg));
    }
    bad(&status.cilium.state).then(|| format!("cilium: {}", status.cilium.msg))
}

/// `cilium-dbg status`, and with `--verbose`.
pub fn full(status: &StatusResponse, more: More) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name}:\t{value}");
    };
    line("Kubernetes", format!("{}\t{}", status.kubernetes.state, status.kubernetes.msg));
    line("Kubernetes APIs", format!("[\"{}\"]", status.k8s_api_versions.join("\", \"")));
    let replacement = if status.kube_proxy_replacement == "true" { "True" } else { "False" };
    line("KubeProxyReplacement", format!("{replacement}\t[{}]", status.devices.join(", ")));
    line("Host firewall", "Disabled".into());
    line("SRv6", "Disabled".into());
    line("CNI Chaining", "none".into());
    line("CNI Config file", status.cni_file.msg.clone());
    line("Cilium", format!("{}   {}", status.cilium.state, status.cilium.msg));
    let monitor = &status.monitor;
    line(
        "NodeMonitor",
        format!(
            "Listening for events on {} CPUs with {}x{} of shared memory",
            monitor.cpus, monitor.npages, monitor.pagesize
        ),
    );
    if monitor.lost > 0 {
        line("", format!("{} events lost, 0 unknown notifications", monitor.lost));
    }
    line("Cilium health daemon", format!("{}\t{}", status.cilium_health.state, status.cilium_health.msg));
    line("IPAM", status.ipam.status.clone());
    if more.addresses {
        let _ = writeln!(text, "Allocated addresses:");
        for (address, owner) in &status.ipam.allocations {
            let _ = writeln!(text, "  {address} ({owner})");
        }
    }
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name}:\t{value}");
    };
    line("IPv4 BIG TCP", "Disabled".into());
    line("IPv6 BIG TCP", "Disabled".into());
    line("BandwidthManager", "Disabled".into());
    line("Routing", status.routing.clone());
    line("Attach Mode", status.attach_mode.clone());
    line("Device Mode", "veth".into());
    let on = |on: bool| if on { "Enabled" } else { "Disabled" };
    let masquerade = &status.masquerading;
    let device = status.devices.first().and_then(|d| d.split(' ').next()).unwrap_or_default();
    line(
        "Masquerading",
        format!(
            "BPF\t[{device}]\t{} [IPv4: {}, IPv6: {}]",
            masquerade.exclusion_cidr,
            on(masquerade.ipv4),
            on(masquerade.ipv6)
        ),
    );
    let proxy = &status.proxy;
    let (ip, ports, redirects) = (&proxy.ip, &proxy.port_range, proxy.total_redirects);
    line(
        "Proxy Status",
        match proxy.state.as_str() {
            "Ok" => format!("OK, ip {ip}, {redirects} redirects active on ports {ports}, Envoy: external"),
            "Warning" => format!("No proxy is connected: {redirects} redirects are refused, ip {ip}, ports {ports}"),
            _ => "No managed proxy redirect".into(),
        },
    );
    if more.redirects && !proxy.redirects.is_empty() {
        let _ = writeln!(text, "  Protocol\tRedirect\tProxy Port");
        for redirect in &proxy.redirects {
            let _ = writeln!(text, "  {}\t{}\t{}", redirect.proxy, redirect.name, redirect.proxy_port);
        }
    }
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name}:\t{value}");
    };
    for missing in &proxy.missing {
        line("Rules that allow nothing", missing.clone());
    }
    line(
        "Global Identity Range",
        format!("min {}, max {}", abi::identity::MINIMAL_ALLOCATED, abi::identity::MAXIMAL_ALLOCATED),
    );
    let hubble = &status.hubble;
    let share = if hubble.max_flows == 0 { 0.0 } else { hubble.current_flows as f64 * 100.0 / hubble.max_flows as f64 };
    line(
        "Hubble",
        format!(
            "{}\tCurrent/Max Flows: {}/{} ({share:.2}%), Flows/s: {:.2}\tMetrics: Disabled",
            hubble.state, hubble.current_flows, hubble.max_flows, hubble.flows_per_second
        ),
    );
    line("Encryption", "Disabled".into());
    line("Endpoints", format!("{}/{} ready", status.endpoints[1], status.endpoints[0]));
    line("Nodes", status.nodes.len().to_string());
    line("Events", format!("{} sent, {} lost, {} read", monitor.sent, monitor.lost, monitor.read));
    let policies = &status.policies;
    line("Policies", format!("{} of {} slots in use", policies.used, policies.most));
    for (identity, why) in &policies.locked {
        line("Locked down", format!("identity {identity}: {why}"));
    }
    for table in status.tables.iter().filter(|table| table.nearly_full) {
        line("Nearly full", fill(table));
    }
    let mut text = align(&text, 0, 3);
    if more.nodes {
        text.push_str("Nodes:\n");
        for node in &status.nodes {
            let local = if node.local { " (localhost)" } else { "" };
            let _ = writeln!(text, "  {}{local}: {} {}", node.name, node.ipv4, node.ipv6);
        }
    }
    if more.tables {
        text.push_str("Tables:\n");
        status.tables.iter().for_each(|table| text.push_str(&format!("  {}\n", fill(table))));
    }
    text
}

fn fill(table: &TableFill) -> String {
    format!("{}: {} of {} entries", table.name, table.entries, table.most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_told_in_one_line() {
        let mut status = StatusResponse::default();
        status.kubernetes.state = "Ok".into();
        assert_eq!(brief(&status), "OK\n");
        status.kubernetes.state = "Failure".into();
        status.kubernetes.msg = "the API does not answer".into();
        assert_eq!(brief(&status), "error in kubernetes: the API does not answer\n");
        assert_eq!(trouble(&status, true).as_deref(), Some("kubernetes: the API does not answer"));
        assert_eq!(trouble(&status, false), None);
        status.policies.locked.insert(1001, "all 16383 policy slots are in use".into());
        status.tables.push(TableFill { name: "cilium_ct4".into(), entries: 950, most: 1000, nearly_full: true });
        status.proxy = agent_api::ProxyStatus {
            state: "Ok".into(),
            ip: "10.0.0.1".into(),
            port_range: "10000-20000".into(),
            total_redirects: 1,
            redirects: vec![agent_api::ProxyRedirect {
                name: "7:ingress:TCP:80:".into(),
                proxy: "http".into(),
                proxy_port: 14000,
            }],
            missing: vec!["Secret a/b: not found".into()],
        };
        let text = full(&status, More::default());
        assert!(text.contains("OK, ip 10.0.0.1, 1 redirects active on ports 10000-20000, Envoy: external"), "{text}");
        assert!(text.contains("Secret a/b: not found") && !text.contains("7:ingress"), "{text}");
        assert!(text.contains("identity 1001: all 16383 policy slots are in use"), "{text}");
        assert!(text.contains("cilium_ct4: 950 of 1000 entries"), "{text}");
        let more = More { addresses: true, nodes: true, tables: true, redirects: true };
        assert!(full(&status, more).contains("7:ingress:TCP:80:"));
        assert!(full(&status, more).contains("Kubernetes:             Failure   the API does not answer\n"));
    }
}
