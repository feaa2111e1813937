//! Is the wanted peer at the source, is it at the destination?

use super::{FilterError, Test, address, any, l4, labels, pattern};
use crate::proto::flow::{Endpoint, Flow, FlowFilter, Service, layer4::Protocol};

#[derive(Clone, Copy)]
enum Side {
    Source,
    Destination,
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Side::Source => "source",
            Side::Destination => "destination",
        }
    }

    fn endpoint(self, flow: &Flow) -> Option<&Endpoint> {
        match self {
            Side::Source => flow.source.as_ref(),
            Side::Destination => flow.destination.as_ref(),
        }
    }

    fn service(self, flow: &Flow) -> Option<&Service> {
        match self {
            Side::Source => flow.source_service.as_ref(),
            Side::Destination => flow.destination_service.as_ref(),
        }
    }

    fn address(self, flow: &Flow) -> &str {
        match (self, &flow.ip) {
            (_, None) => "",
            (Side::Source, Some(ip)) => &ip.source,
            (Side::Destination, Some(ip)) => &ip.destination,
        }
    }

    fn names(self, flow: &Flow) -> &[String] {
        match self {
            Side::Source => &flow.source_names,
            Side::Destination => &flow.destination_names,
        }
    }

    fn port(self, flow: &Flow) -> Option<u32> {
        let (source, destination) = match l4(flow)? {
            Protocol::Tcp(tcp) => (tcp.source_port, tcp.destination_port),
            Protocol::Udp(udp) => (udp.source_port, udp.destination_port),
            Protocol::Sctp(sctp) => (sctp.source_port, sctp.destination_port),
            _ => return None,
        };
        Some(match self {
            Side::Source => source,
            Side::Destination => destination,
        })
    }
}

/// What one side is asked for.
struct Wanted<'a> {
    addresses: &'a [String],
    pods: &'a [String],
    names: &'a [String],
    labels: &'a [String],
    services: &'a [String],
    workloads: &'a [crate::proto::flow::Workload],
    clusters: &'a [String],
    ports: &'a [String],
    identities: &'a [u32],
}

pub(super) fn compile(filter: &FlowFilter, tests: &mut Vec<Test>) -> Result<(), FilterError> {
    let source = Wanted {
        addresses: &filter.source_ip,
        pods: &filter.source_pod,
        names: &filter.source_fqdn,
        labels: &filter.source_label,
        services: &filter.source_service,
        workloads: &filter.source_workload,
        clusters: &filter.source_cluster_name,
        ports: &filter.source_port,
        identities: &filter.source_identity,
    };
    let destination = Wanted {
        addresses: &filter.destination_ip,
        pods: &filter.destination_pod,
        names: &filter.destination_fqdn,
        labels: &filter.destination_label,
        services: &filter.destination_service,
        workloads: &filter.destination_workload,
        clusters: &filter.destination_cluster_name,
        ports: &filter.destination_port,
        identities: &filter.destination_identity,
    };
    one_side(Side::Source, &source, tests)?;
    one_side(Side::Destination, &destination, tests)?;
    if !filter.source_ip_xlated.is_empty() {
        let set = address::compile(&filter.source_ip_xlated)?;
        tests.push(Box::new(move |flow| flow.ip.as_ref().is_some_and(|ip| set.contains(&ip.source_xlated))));
    }
    Ok(())
}

fn one_side(side: Side, wanted: &Wanted<'_>, tests: &mut Vec<Test>) -> Result<(), FilterError> {
    any(tests, wanted.identities, move |flow, id| side.endpoint(flow).is_some_and(|e| e.identity == *id));
    if !wanted.addresses.is_empty() {
        let set = address::compile(wanted.addresses)?;
        tests.push(Box::new(move |flow| set.contains(side.address(flow))));
    }
    any(tests, &prefixes("pod", wanted.pods)?, move |flow, prefix| {
        side.endpoint(flow).is_some_and(|endpoint| prefix.matches(&endpoint.namespace, &endpoint.pod_name))
    });
    any(tests, wanted.workloads, move |flow, wanted| {
        side.endpoint(flow).is_some_and(|endpoint| {
            endpoint.workloads.iter().any(|workload| {
                (wanted.name.is_empty() || wanted.name == workload.name)
                    && (wanted.kind.is_empty() || wanted.kind == workload.kind)
            })
        })
    });
    any(tests, &prefixes("service", wanted.services)?, move |flow, prefix| {
        side.service(flow).is_some_and(|service| prefix.matches(&service.namespace, &service.name))
    });
    if !wanted.names.is_empty() {
        let pattern = pattern::dns_names(wanted.names)?;
        tests.push(Box::new(move |flow| side.names(flow).iter().any(|name| pattern.is_match(name))));
    }
    if !wanted.labels.is_empty() {
        let selectors = labels::compile(side.name(), wanted.labels)?;
        tests.push(Box::new(move |flow| {
            let labels = side.endpoint(flow).map_or(&[][..], |endpoint| &endpoint.labels);
            selectors.iter().any(|selector| selector.matches(labels))
        }));
    }
    any(tests, &ports(side, wanted.ports)?, move |flow, port| side.port(flow) == Some(*port));
    if wanted.clusters.iter().any(String::is_empty) {
        return Err(FilterError::EmptyName { what: "cluster" });
    }
    any(tests, wanted.clusters, move |flow, cluster| {
        side.endpoint(flow).is_some_and(|endpoint| endpoint.cluster_name == *cluster)
    });
    Ok(())
}

fn ports(side: Side, texts: &[String]) -> Result<Vec<u32>, FilterError> {
    let parse = |text: &String| match text.parse::<u16>() {
        Ok(port) => Ok(u32::from(port)),
        Err(_) => Err(FilterError::Port { side: side.name(), text: text.clone() }),
    };
    texts.iter().map(parse).collect()
}

/// A namespace and the beginning of a name; either may be empty and then matches all.
#[derive(Clone)]
struct Prefix {
    namespace: String,
    name: String,
}

impl Prefix {
    fn matches(&self, namespace: &str, name: &str) -> bool {
        if namespace.is_empty() && name.is_empty() {
            return false;
        }
        name.starts_with(&self.name) && (self.namespace.is_empty() || self.namespace == namespace)
    }
}

/// `namespace/name`, `namespace/`, or `name`, which is in the namespace `default`.
fn prefixes(what: &'static str, texts: &[String]) -> Result<Vec<Prefix>, FilterError> {
    let parse = |text: &String| {
        let (namespace, name) = match text.split_once('/') {
            _ if text.is_empty() => return Err(FilterError::EmptyName { what }),
            Some((namespace, rest)) => (namespace, rest.split('/').next().unwrap_or_default()),
            None => ("default", text.as_str()),
        };
        Ok(Prefix { namespace: namespace.to_owned(), name: name.to_owned() })
    };
    texts.iter().map(parse).collect()
}
