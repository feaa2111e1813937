//! How do the agent's answers look as text?

use std::collections::BTreeMap;
use std::fmt::Write;

use agent_api::{Endpoint, Identity, IpEntry, Map, Metric, Node, Selector, Service};

use crate::tabwriter::align;

/// `cilium-dbg endpoint list`.
pub fn endpoints(mut endpoints: Vec<Endpoint>, headers: bool) -> String {
    endpoints.sort_by_key(|endpoint| endpoint.id);
    let mut text = String::new();
    if headers {
        text.push_str("ENDPOINT\tPOLICY (ingress)\tPOLICY (egress)\tIDENTITY\tLABELS (source:key[=value])\tIPv6\tIPv4\tSTATUS\t\n");
        text.push_str("\tENFORCEMENT\tENFORCEMENT\t\t\t\t\t\n");
    }
    for endpoint in &endpoints {
        endpoint_rows(endpoint, &mut text);
    }
    align(&text, 5, 3)
}

fn endpoint_rows(endpoint: &Endpoint, text: &mut String) {
    let status = &endpoint.status;
    let (ingress, egress) = enforcement(&status.policy.realized.policy_enabled);
    let mut labels = status.labels.security_relevant.clone();
    labels.sort();
    if labels.is_empty() {
        labels.push("no labels".into());
    }
    let pair = status.networking.addressing.first().cloned().unwrap_or_default();
    let identity = status.identity.as_ref().map_or("<no label id>".into(), |identity| identity.id.to_string());
    for (at, label) in labels.iter().enumerate() {
        let _ = if at == 0 {
            let (id, state) = (endpoint.id, &status.state);
            writeln!(text, "{id}\t{ingress}\t{egress}\t{identity}\t{label}\t{}\t{}\t{state}\t", pair.ipv6, pair.ipv4)
        } else {
            writeln!(text, "\t\t\t\t{label}\t\t\t\t")
        };
    }
    // An endpoint of one label is followed by an empty row.
    if labels.len() == 1 {
        text.push_str("\t\t\t\t\t\t\t\t\n");
    }
}

fn enforcement(enabled: &str) -> (&'static str, &'static str) {
    match enabled {
        "none" => ("Disabled", "Disabled"),
        "ingress" => ("Enabled", "Disabled"),
        "egress" => ("Disabled", "Enabled"),
        "both" => ("Enabled", "Enabled"),
        "audit-ingress" => ("Disabled (Audit)", "Disabled"),
        "audit-egress" => ("Disabled", "Disabled (Audit)"),
        "audit-both" => ("Disabled (Audit)", "Disabled (Audit)"),
        _ => ("Unknown", "Unknown"),
    }
}

/// `cilium-dbg identity list`.
pub fn identities(identities: &[Identity]) -> String {
    let mut text = String::from("ID\tLABELS\n");
    for identity in identities {
        for (at, label) in identity.labels.iter().enumerate() {
            let id = if at == 0 { identity.id.to_string() } else { String::new() };
            let _ = writeln!(text, "{id}\t{label}");
        }
    }
    align(&text, 2, 3)
}

/// `cilium-dbg ip list`; with all that is known of each, if wanted.
pub fn ips(ips: &[IpEntry], labels: Option<&BTreeMap<u32, Vec<String>>>, verbose: bool) -> String {
    let more = |columns: String| if verbose { format!("\t{columns}") } else { String::new() };
    let mut text = format!("IP\tIDENTITY\tSOURCE{}\n", more("HOST\tNAMESPACE\tPOD".into()));
    for entry in ips {
        let known = labels.and_then(|all| all.get(&entry.identity));
        let rows = known.cloned().unwrap_or_else(|| vec![entry.identity.to_string()]);
        let about = &entry.metadata;
        for (at, row) in rows.iter().enumerate() {
            let _ = if at == 0 {
                let rest = more(format!("{}\t{}\t{}", entry.host_ip, about.namespace, about.name));
                writeln!(text, "{}\t{row}\t{}{rest}", entry.cidr, about.source)
            } else {
                writeln!(text, "\t{row}\t{}", more("\t\t".into()))
            };
        }
    }
    align(&text, 5, 3)
}

/// `cilium-dbg service list`.
pub fn services(services: &[Service]) -> String {
    let mut text = String::from("ID\tFrontend\tService Type\tBackend\t\n");
    let address = |a: &agent_api::ServiceAddress| {
        let host = if a.ip.contains(':') { format!("[{}]", a.ip) } else { a.ip.clone() };
        format!("{host}:{}/{}", a.port, a.protocol)
    };
    for service in services {
        let rows: Vec<String> = service
            .backends
            .iter()
            .enumerate()
            .map(|(at, backend)| format!("{} => {} ({})", at + 1, address(&backend.address), backend.state))
            .collect();
        let first = rows.first().cloned().unwrap_or_default();
        let _ = writeln!(text, "{}\t{}\t{}\t{first}\t", service.id, address(&service.frontend), service.kind);
        for row in rows.iter().skip(1) {
            let _ = writeln!(text, "\t\t\t{row}\t");
        }
    }
    align(&text, 5, 3)
}

/// `cilium-dbg node list`.
pub fn nodes(nodes: &[Node]) -> String {
    let mut text = String::from("Name\tIPv4 Address\tEndpoint CIDR\tIPv6 Address\tEndpoint CIDR\tSource\n");
    for node in nodes {
        let cidr = |v6: bool| node.pod_cidrs.iter().find(|c| c.contains(':') == v6).cloned().unwrap_or_default();
        let source = if node.local { "local" } else { "custom-resource" };
        let _ =
            writeln!(text, "{}\t{}\t{}\t{}\t{}\t{source}", node.name, node.ipv4, cidr(false), node.ipv6, cidr(true));
    }
    align(&text, 0, 3)
}

/// `cilium-dbg map list`.
pub fn maps(maps: &[Map]) -> String {
    let mut text = String::from("Name\tNum entries\tNum errors\tCache enabled\n");
    for map in maps {
        let _ = writeln!(text, "{}\t{}\t{}\t{}", map.name, map.num_entries, map.num_errors, map.cache_enabled);
    }
    align(&text, 5, 3)
}

/// `cilium-dbg policy selectors`; users by kind, namespace and name, or without the kind.
pub fn selectors(selectors: &[Selector], verbose: bool) -> String {
    let mut text = String::from("SELECTOR\tLABELS\tUSERS\tIDENTITIES\n");
    let name = |label: &String| match label.split_once(' ') {
        Some((_, rest)) if !verbose => rest.to_owned(),
        _ => label.clone(),
    };
    for selector in selectors {
        let mut ids = selector.identities.iter().map(u32::to_string);
        let first = ids.next().unwrap_or_default();
        let names: Vec<String> = selector.labels.iter().map(name).collect();
        let _ = writeln!(text, "{}\t{}\t{}\t{first}\t", selector.selector, names.join(","), selector.users);
        for id in ids {
            let _ = writeln!(text, "\t\t\t{id}\t");
        }
    }
    align(&text, 5, 3)
}

/// `cilium-dbg metrics list`.
pub fn metrics(metrics: &[Metric]) -> String {
    let mut text = String::from("Metric\tLabels\tValue\n");
    for metric in metrics {
        let labels: Vec<String> = metric.labels.iter().map(|(key, value)| format!("{key}={value:?}")).collect();
        let _ = writeln!(text, "{}\t{}\t{:.6}", metric.name, labels.join(" "), metric.value);
    }
    align(&text, 5, 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(id: u32, identity: u32, labels: &[&str], ipv4: &str, enabled: &str) -> Endpoint {
        let mut endpoint = Endpoint { id, ..Endpoint::default() };
        let status = &mut endpoint.status;
        status.state = "ready".into();
        status.identity = Some(Identity { id: identity, ..Identity::default() });
        status.labels.security_relevant = labels.iter().map(|l| (*l).to_owned()).collect();
        status.networking.addressing = vec![agent_api::AddressPair { ipv4: ipv4.into(), ipv6: String::new() }];
        status.policy.realized.policy_enabled = enabled.into();
        endpoint
    }

    #[test]
    fn e0_33_to_e0_37_endpoints_print_as_users_know_them() {
        let [name, cluster, account, pod] = [
            "k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name",
            "k8s:io.cilium.k8s.policy.cluster=default",
            "k8s:io.cilium.k8s.policy.serviceaccount=default",
            "k8s:io.kubernetes.pod.namespace",
        ];
        let named = |namespace: &str| (format!("{name}={namespace}"), format!("{pod}={namespace}"));
        let ((a, b), (c, d), (e, _)) = (named("default"), named("cilium-test"), named("cilium-hr"));
        let cli = "k8s:io.cilium.k8s.namespace.labels.app.kubernetes.io/name=cilium-cli";
        let listed = endpoints(
            vec![
                endpoint(168, 4, &["reserved:health"], "10.244.0.201", "none"),
                endpoint(4, 13682, &["k8s:app=web", &a, cluster, account, &b], "10.244.0.135", "ingress"),
                endpoint(514, 11488, &["k8s:app=frontend", &e, cluster, account], "10.244.0.184", "both"),
                endpoint(103, 49823, &[cli, &c, cluster, account, &d, "k8s:run=test-21491"], "10.244.0.230", "none"),
            ],
            true,
        );
        let lines: Vec<&str> = listed.lines().map(str::trim_end).collect();
        let expected = [
            "ENDPOINT   POLICY (ingress)   POLICY (egress)   IDENTITY   LABELS (source:key[=value])                                                  IPv6   IPv4           STATUS",
            "           ENFORCEMENT        ENFORCEMENT",
            "4          Enabled            Disabled          13682      k8s:app=web                                                                         10.244.0.135   ready",
            "                                                           k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=default",
            "                                                           k8s:io.cilium.k8s.policy.cluster=default",
            "                                                           k8s:io.cilium.k8s.policy.serviceaccount=default",
            "                                                           k8s:io.kubernetes.pod.namespace=default",
            "103        Disabled           Disabled          49823      k8s:io.cilium.k8s.namespace.labels.app.kubernetes.io/name=cilium-cli                10.244.0.230   ready",
            "                                                           k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=cilium-test",
            "                                                           k8s:io.cilium.k8s.policy.cluster=default",
            "                                                           k8s:io.cilium.k8s.policy.serviceaccount=default",
            "                                                           k8s:io.kubernetes.pod.namespace=cilium-test",
            "                                                           k8s:run=test-21491",
            "168        Disabled           Disabled          4          reserved:health                                                                     10.244.0.201   ready",
            "",
            "514        Enabled            Enabled           11488      k8s:app=frontend                                                                    10.244.0.184   ready",
            "                                                           k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=cilium-hr",
            "                                                           k8s:io.cilium.k8s.policy.cluster=default",
            "                                                           k8s:io.cilium.k8s.policy.serviceaccount=default",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn ips_say_more_when_asked() {
        let entry = IpEntry {
            cidr: "10.244.1.5/32".into(),
            identity: 1000,
            host_ip: "172.18.0.3".into(),
            metadata: agent_api::IpMetadata { source: "k8s".into(), name: "web".into(), namespace: "default".into() },
        };
        let known = [(1000, vec!["k8s:app=web".to_owned(), "k8s:x=y".to_owned()])].into();
        let lines = |numeric: bool, verbose| {
            let text = ips(std::slice::from_ref(&entry), (!numeric).then_some(&known), verbose);
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
        };
        assert_eq!(lines(true, false), ["IP IDENTITY SOURCE", "10.244.1.5/32 1000 k8s"]);
        let verbose = "10.244.1.5/32 k8s:app=web k8s 172.18.0.3 default web";
        assert_eq!(lines(false, true), ["IP IDENTITY SOURCE HOST NAMESPACE POD", verbose, "k8s:x=y"]);
    }

    #[test]
    fn metrics_and_selectors_are_listed() {
        let labels = [("direction".to_owned(), "EGRESS".to_owned()), ("reason".to_owned(), "Policy denied".to_owned())];
        let drops = Metric { name: "cilium_drop_count_total".into(), labels: labels.into(), value: 3.0 };
        let text = metrics(&[drops]);
        assert_eq!(
            text.lines().next_back().unwrap_or_default().trim_end(),
            "cilium_drop_count_total   direction=\"EGRESS\" reason=\"Policy denied\"   3.000000"
        );
        let selector = Selector {
            selector: "app=web".into(),
            identities: vec![1000, 2000],
            users: 1,
            labels: vec!["CiliumNetworkPolicy default/web".into()],
        };
        let short = selectors(std::slice::from_ref(&selector), false);
        assert!(short.contains(" default/web") && !short.contains("CiliumNetworkPolicy"), "{short}");
        assert!(selectors(&[selector], true).contains("CiliumNetworkPolicy default/web"));
    }

    #[test]
    fn identities_have_one_label_in_a_line() {
        let web = Identity { id: 13682, labels: vec!["k8s:app=web".into(), "k8s:x=y".into()], ..Identity::default() };
        assert_eq!(identities(&[web]), "ID      LABELS\n13682   k8s:app=web\n        k8s:x=y\n");
    }
}
