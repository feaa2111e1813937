//! Which ports of endpoints go to the proxy, and what was said there?

use std::collections::BTreeMap;

use abi::policy::DIR_EGRESS;
use agent_api::{Endpoint, ProxyRedirect, ProxyStatistics};

use crate::daemon::Daemon;
use crate::engine::RedirectedPort;
use crate::objects::protocol_name;

fn location(port: &RedirectedPort) -> &'static str {
    if port.direction == DIR_EGRESS { "egress" } else { "ingress" }
}

/// All of them, by endpoint.
pub fn all(daemon: &Daemon) -> Vec<ProxyRedirect> {
    let mut all = Vec::new();
    for endpoint in daemon.core.endpoints().values() {
        let id = endpoint.record.id;
        all.extend(daemon.core.redirected_ports(endpoint).iter().map(|port| {
            let (direction, protocol) = (location(port), protocol_name(port.protocol));
            let name = format!("{id}:{direction}:{protocol}:{}:", port.first);
            ProxyRedirect { name, proxy: port.reads.into(), proxy_port: port.proxy_port }
        }));
    }
    all
}

/// How many there are, for each way by which they are read.
pub fn counted(daemon: &Daemon) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for endpoint in daemon.core.endpoints().values() {
        for port in daemon.core.redirected_ports(endpoint).iter() {
            *counts.entry(port.reads).or_default() += 1;
        }
    }
    counts
}

/// Endpoints as the API tells them, with what was said at their ports.
pub fn endpoints(daemon: &Daemon) -> Vec<Endpoint> {
    let counts = daemon.tally.counts();
    let mut all = daemon.core.describe_endpoints();
    for endpoint in &mut all {
        let Some(known) = daemon.core.endpoints().get(&endpoint.id) else { continue };
        let statistics = daemon
            .core
            .redirected_ports(known)
            .iter()
            .map(|port| ProxyStatistics {
                allocated_proxy_port: port.proxy_port,
                location: location(port).into(),
                port: port.first,
                protocol: port.reads.into(),
                statistics: counts.of(endpoint.id, port.direction == DIR_EGRESS, port.first..=port.last),
            })
            .collect();
        endpoint.status.policy.proxy_statistics = statistics;
    }
    all
}
