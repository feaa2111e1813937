//! What does the agent count and measure? Names are Cilium's where Cilium has one.

use std::collections::BTreeMap;

use abi::DropReason;
use agent_api::Metric;

use crate::core::Kind;
use crate::daemon::Daemon;

/// Every metric, those of one name together.
pub fn of(daemon: &Daemon) -> bpf::Result<Vec<Metric>> {
    let mut all = Vec::new();
    endpoints(daemon, &mut all);
    policies(daemon, &mut all);
    proxy(daemon, &mut all);
    identities(daemon, &mut all);
    tables(daemon, &mut all);
    events(daemon, &mut all);
    traffic(daemon, &mut all)?;
    Ok(all)
}

fn metric(name: &str, labels: &[(&str, &str)], value: f64) -> Metric {
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Metric { name: name.into(), labels, value }
}

/// How many have each label.
fn counted(name: &str, key: &str, each: impl Iterator<Item = &'static str>, all: &mut Vec<Metric>) {
    let mut counts: BTreeMap<&str, f64> = BTreeMap::new();
    each.for_each(|label| *counts.entry(label).or_default() += 1.0);
    all.extend(counts.into_iter().map(|(label, count)| metric(name, &[(key, label)], count)));
}

fn endpoints(daemon: &Daemon, all: &mut Vec<Metric>) {
    let endpoints = daemon.core.endpoints().values();
    all.push(metric("cilium_endpoint", &[], endpoints.len() as f64));
    counted("cilium_endpoint_state", "endpoint_state", endpoints.clone().map(|e| e.state.as_str()), all);
    let enforced =
        endpoints.filter(|e| e.record.kind != Kind::Host).map(|e| match (e.applied.ingress, e.applied.egress) {
            (false, false) => "none",
            (true, false) => "ingress",
            (false, true) => "egress",
            (true, true) => "both",
        });
    counted("cilium_policy_endpoint_enforcement_status", "enforcement", enforced, all);
}

fn policies(daemon: &Daemon, all: &mut Vec<Metric>) {
    let core = &daemon.core;
    all.push(metric("cilium_policy", &[], core.engine().policy_count() as f64));
    all.push(metric("cilium_policy_max_revision", &[], core.engine().revision() as f64));
    let (used, most) = core.policy_slots();
    all.push(metric("axoneme_policy_slots", &[("state", "used")], used.into()));
    all.push(metric("axoneme_policy_slots", &[("state", "free")], most.saturating_sub(used).into()));
    all.push(metric("axoneme_policy_locked_identities", &[], core.locked().len() as f64));
}

fn proxy(daemon: &Daemon, all: &mut Vec<Metric>) {
    let Some(proxy) = &daemon.proxy else { return };
    for (protocol, count) in crate::redirects::counted(daemon) {
        all.push(metric("cilium_proxy_redirects", &[("protocol_l7", protocol)], count as f64));
    }
    let counts = daemon.tally.counts();
    for ((kind, rule), count) in &counts.results {
        all.push(metric("cilium_policy_l7_total", &[("proxy_type", kind), ("rule", rule)], *count as f64));
    }
    for part in ["bucket", "count", "sum"] {
        let name = format!("cilium_proxy_upstream_reply_seconds_{part}");
        for ((protocol, error), times) in &counts.replies {
            let labels = [("error", *error), ("protocol_l7", *protocol), ("scope", "upstreamTime")];
            match part {
                "count" => all.push(metric(&name, &labels, times.count as f64)),
                "sum" => all.push(metric(&name, &labels, times.sum)),
                _ => all.extend(times.buckets().map(|(end, count)| {
                    let end = if end.is_finite() { end.to_string() } else { "+Inf".into() };
                    metric(&name, &[&labels[..], &[("le", &end)]].concat(), count as f64)
                })),
            }
        }
    }
    all.push(metric("axoneme_proxy_secrets_missing", &[], proxy.missing().len() as f64));
    for (name, value) in proxy.counters() {
        all.push(metric("axoneme_proxy", &[("what", &name)], value as f64));
    }
}

fn identities(daemon: &Daemon, all: &mut Vec<Metric>) {
    let kind = |number: &u32| match *number {
        number if abi::identity::is_node_local(number) => "node_local",
        number if number < abi::identity::MINIMAL_ALLOCATED => "reserved",
        _ => "cluster_local",
    };
    counted("cilium_identity", "type", daemon.core.identities().keys().map(kind), all);
    for pool in &daemon.pools {
        let family = if pool.network().addr().is_ipv4() { "ipv4" } else { "ipv6" };
        all.push(metric("cilium_ip_addresses", &[("family", family)], pool.owners().len() as f64));
        all.push(metric("cilium_ipam_capacity", &[("family", family)], pool.size() as f64));
    }
}

fn tables(daemon: &Daemon, all: &mut Vec<Metric>) {
    let pressure = |(name, fill): (&'static str, crate::pressure::Fill)| {
        metric("cilium_bpf_map_pressure", &[("map_name", name)], fill.share())
    };
    all.extend(daemon.pressure.tables().map(pressure));
}

fn events(daemon: &Daemon, all: &mut Vec<Metric>) {
    let (sent, lost, read) = daemon.event_counts();
    for (state, count) in [("lost", lost), ("read", read), ("sent", sent)] {
        all.push(metric("axoneme_datapath_events_total", &[("state", state)], count as f64));
    }
}

/// What the datapath forwarded and dropped.
fn traffic(daemon: &Daemon, all: &mut Vec<Metric>) -> bpf::Result<()> {
    let mut rows = Vec::new();
    for (key, value) in daemon.datapath.maps().metrics.entries()? {
        let direction = match key.direction {
            1 => "INGRESS",
            2 => "EGRESS",
            _ => "UNKNOWN",
        };
        let reason = if key.reason == 0 { "" } else { DropReason(key.reason).text() };
        rows.push((reason, direction, value.packets.get(), value.bytes.get()));
    }
    rows.sort_unstable();
    for (unit, pick) in [("count", 0), ("bytes", 1)] {
        for (reason, direction, packets, bytes) in &rows {
            let value = if pick == 0 { *packets } else { *bytes } as f64;
            let name = if reason.is_empty() { "forward" } else { "drop" };
            let labels = [("direction", *direction), ("reason", *reason)];
            let labels = if reason.is_empty() { &labels[..1] } else { &labels[..] };
            all.push(metric(&format!("cilium_{name}_{unit}_total"), labels, value));
        }
    }
    Ok(())
}
