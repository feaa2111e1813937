//! What does the agent read of the cluster's objects?

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use abi::identity::Identity;
use ipnet::IpNet;
use k8s_openapi::api::core::v1 as k8s;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::services::{Service, Slice};

/// Namespace and name.
pub type Key = (String, String);

/// A pod, as far as it matters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its UID.
    pub uid: String,
    /// Its service account.
    pub service_account: String,
    /// It has the node's network.
    pub host_network: bool,
    /// Name, number, protocol.
    pub ports: Vec<(String, u16, String)>,
    /// Kind and name of what owns it.
    pub workload: Option<(String, String)>,
}

/// A node, as far as it matters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its own addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// Its pods' networks.
    pub pod_networks: Vec<IpNet>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

impl Node {
    /// The address to which tunnels lead.
    pub fn tunnel(&self) -> Option<Ipv4Addr> {
        self.addresses.iter().find_map(|a| match a {
            IpAddr::V4(a) => Some(*a),
            IpAddr::V6(_) => None,
        })
    }
}

/// What a node's agent says of its node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentNode {
    /// Addresses of its `cilium_host`.
    pub routers: BTreeSet<IpAddr>,
    /// Addresses of its health endpoint.
    pub health: BTreeSet<IpAddr>,
}

/// A pod of any node, by its CiliumEndpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RemotePod {
    /// Its identity; none: not known yet.
    pub identity: Option<Identity>,
    /// Its addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// Address of its node.
    pub node: Option<IpAddr>,
    /// Protocol, name and number of its named ports.
    pub ports: Vec<(u8, String, u16)>,
}

fn port(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|n| *n != 0)
}

/// IP protocol number of Kubernetes' name for it; TCP if it says nothing.
pub fn protocol_number(name: Option<&str>) -> Option<u8> {
    match name {
        None | Some("TCP") => Some(6),
        Some("UDP") => Some(17),
        Some("SCTP") => Some(132),
        Some(_) => None,
    }
}

/// Kubernetes' name of an IP protocol number.
pub fn protocol_name(number: u8) -> &'static str {
    match number {
        6 => "TCP",
        17 => "UDP",
        132 => "SCTP",
        1 => "ICMP",
        58 => "ICMPv6",
        _ => "ANY",
    }
}

/// What rules for services go by: the labels of a service and those that its pods have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceLabels {
    /// Its own labels.
    pub own: BTreeMap<String, String>,
    /// Its selector; none: its backends are not pods of its choice.
    pub pods: BTreeMap<String, String>,
}

impl Pod {
    /// Reads a pod; whatever its annotations say.
    pub fn read(pod: &k8s::Pod) -> Pod {
        let spec = pod.spec.clone().unwrap_or_default();
        let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        let ports = containers.flat_map(|c| c.ports.iter().flatten()).filter_map(|p| {
            Some((p.name.clone()?, port(p.container_port)?, p.protocol.clone().unwrap_or_else(|| "TCP".into())))
        });
        Pod {
            labels: pod.metadata.labels.clone().unwrap_or_default(),
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            service_account: spec.service_account_name.clone().unwrap_or_else(|| "default".into()),
            host_network: spec.host_network.unwrap_or(false),
            ports: ports.collect(),
            workload: workload(pod),
        }
    }
}

/// A pod of a Deployment belongs to its ReplicaSet, whose name is the Deployment's with a hash behind it.
fn workload(pod: &k8s::Pod) -> Option<(String, String)> {
    let owner = pod.metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))?;
    let hash = pod.metadata.labels.as_ref().and_then(|labels| labels.get("pod-template-hash"));
    if owner.kind == "ReplicaSet"
        && let Some(hash) = hash
        && let Some(name) = owner.name.strip_suffix(&format!("-{hash}"))
    {
        return Some(("Deployment".into(), name.into()));
    }
    Some((owner.kind.clone(), owner.name.clone()))
}

impl Node {
    /// Reads a node.
    pub fn read(node: &k8s::Node) -> Node {
        let spec = node.spec.clone().unwrap_or_default();
        let single = spec.pod_cidr.clone().into_iter().collect::<Vec<_>>();
        let networks = spec.pod_cidrs.clone().filter(|all| !all.is_empty()).unwrap_or(single);
        let status = node.status.clone().unwrap_or_default();
        let addresses = status.addresses.into_iter().flatten();
        let addresses = addresses.filter(|a| a.type_ == "InternalIP" || a.type_ == "ExternalIP");
        Node {
            addresses: addresses.filter_map(|a| a.address.parse().ok()).collect(),
            pod_networks: networks.iter().filter_map(|text| text.parse().ok()).collect(),
            labels: node.metadata.labels.clone().unwrap_or_default(),
        }
    }
}

impl AgentNode {
    /// Reads what a node's agent says.
    pub fn read(node: &crds::CiliumNode) -> AgentNode {
        let internal = node.spec.addresses.iter().filter(|a| a.address_type.as_deref() == Some("CiliumInternalIP"));
        let health = node.spec.health.iter().flat_map(|h| [&h.ipv4, &h.ipv6]).flatten();
        AgentNode {
            routers: internal.filter_map(|a| a.ip.as_ref()?.parse().ok()).collect(),
            health: health.filter_map(|a| a.parse().ok()).collect(),
        }
    }
}

impl RemotePod {
    /// Reads a CiliumEndpoint.
    pub fn read(endpoint: &crds::CiliumEndpoint) -> RemotePod {
        let status = endpoint.status.clone().unwrap_or_default();
        let named = status.named_ports.iter();
        let named = named.filter_map(|p| Some((protocol_number(p.protocol.as_deref())?, p.name.clone()?, p.port?)));
        let ports = named.collect();
        let networking = status.networking.unwrap_or_default();
        let pairs = networking.addressing.iter().flat_map(|pair| [&pair.ipv4, &pair.ipv6]).flatten();
        RemotePod {
            identity: status.identity.and_then(|i| i.id).and_then(|id| u32::try_from(id).ok()).filter(|id| *id != 0),
            addresses: pairs.filter_map(|text| text.parse().ok()).collect(),
            node: networking.node.and_then(|text| text.parse().ok()),
            ports,
        }
    }
}

impl ServiceLabels {
    /// Reads a service of whatever type.
    pub fn read(service: &k8s::Service) -> ServiceLabels {
        ServiceLabels {
            own: service.metadata.labels.clone().unwrap_or_default(),
            pods: service.spec.as_ref().and_then(|spec| spec.selector.clone()).unwrap_or_default(),
        }
    }
}

/// Reads a service; nothing: it has no address of its own, or somebody else serves it.
pub fn read_service(service: &k8s::Service) -> Option<Service> {
    let spec = service.spec.as_ref()?;
    let labels = service.metadata.labels.as_ref();
    if spec.type_.as_deref() == Some("ExternalName")
        || labels.is_some_and(|l| l.contains_key("service.kubernetes.io/service-proxy-name"))
    {
        return None;
    }
    let texts = spec.cluster_ips.clone().unwrap_or_else(|| spec.cluster_ip.clone().into_iter().collect());
    let addresses: Vec<IpAddr> = texts.iter().filter_map(|text| text.parse().ok()).collect();
    if addresses.is_empty() {
        return None;
    }
    let ports = spec.ports.iter().flatten().filter_map(|p| {
        Some((p.name.clone().unwrap_or_default(), port(p.port)?, protocol_number(p.protocol.as_deref())?))
    });
    let timeout = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref()?.timeout_seconds);
    let affinity = match spec.session_affinity.as_deref() {
        Some("ClientIP") => u32::try_from(timeout.unwrap_or(10_800)).unwrap_or(10_800),
        _ => 0,
    };
    Some(Service { addresses, ports: ports.collect(), affinity })
}

/// Reads a slice, with the service that it belongs to.
pub fn read_slice(slice: &EndpointSlice) -> Option<(Key, Slice)> {
    let namespace = slice.metadata.namespace.clone()?;
    let service = slice.metadata.labels.as_ref()?.get("kubernetes.io/service-name")?.clone();
    let mut read = Slice::default();
    for endpoint in &slice.endpoints {
        let conditions = endpoint.conditions.clone().unwrap_or_default();
        let addresses = endpoint.addresses.iter().filter_map(|text| text.parse::<IpAddr>().ok());
        if conditions.ready.unwrap_or(true) {
            read.ready.extend(addresses);
        } else if conditions.terminating.unwrap_or(false) && conditions.serving.unwrap_or(false) {
            read.terminating.extend(addresses);
        }
    }
    let ports = slice.ports.iter().flatten().filter_map(|p| {
        Some((p.name.clone().unwrap_or_default(), port(p.port?)?, protocol_number(p.protocol.as_deref())?))
    });
    read.ports = ports.collect();
    Some(((namespace, service), read))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a50_no_annotation_and_no_odd_value_crashes_the_reader() {
        let odd = serde_json::json!({
            "metadata": {
                "name": "x", "namespace": "y",
                "annotations": {"io.cilium.proxy-visibility": "<Egress/53/UDP/DNS>,<", "policy.cilium.io/no-track-host-ports": "-1", "\u{0}": "\u{1b}[31m"},
                "ownerReferences": [{"apiVersion": "v1", "kind": "ReplicaSet", "name": "-", "uid": "", "controller": true}],
                "labels": {"pod-template-hash": ""},
            },
            "spec": {"containers": [{"name": "c", "ports": [{"name": "p", "containerPort": -7}, {"containerPort": 99999999}, {"name": "q", "containerPort": 80}]}]},
        });
        let pod = Pod::read(&serde_json::from_value(odd).unwrap());
        assert_eq!(pod.ports, [("q".to_owned(), 80, "TCP".to_owned())]);
        assert_eq!((pod.service_account.as_str(), pod.host_network), ("default", false));
    }

    #[test]
    fn a_pod_of_a_deployment_names_it() {
        let pod = serde_json::json!({"metadata": {
            "labels": {"pod-template-hash": "698d88b"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "details-v1-698d88b", "uid": "", "controller": true}],
        }});
        let pod = Pod::read(&serde_json::from_value(pod).unwrap());
        assert_eq!(pod.workload, Some(("Deployment".into(), "details-v1".into())));
    }

    #[test]
    fn headless_and_foreign_services_are_left_alone() {
        for spec in [
            serde_json::json!({"clusterIP": "None", "ports": [{"port": 80}]}),
            serde_json::json!({"type": "ExternalName", "externalName": "x"}),
        ] {
            assert_eq!(read_service(&serde_json::from_value(serde_json::json!({"spec": spec})).unwrap()), None);
        }
        let service = serde_json::json!({"spec": {"clusterIP": "10.96.0.7", "sessionAffinity": "ClientIP", "ports": [{"port": 53, "protocol": "UDP", "name": "dns"}, {"port": 0}]}});
        let service = read_service(&serde_json::from_value(service).unwrap()).unwrap();
        assert_eq!((service.ports, service.affinity), (vec![("dns".into(), 53, 17)], 10_800));
    }
}
