//! What others may know of the agent's state: the API, Hubble, the cluster.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use abi::identity::Identity;
use flow::Peer;
use flow::proto::flow::Workload;
use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::shards::Shards;
use super::{Core, Endpoint, Kind};
use crate::hits::Decisions;
use crate::objects::protocol_name;
use crate::ops::Op;
use crate::services::Frontend;

/// A snapshot that is replaced as a whole, so that readers never wait.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Who has an address.
    pub peers: Shards<IpAddr, Arc<Peer>>,
    /// Prefixes that are more than one address, with what is known of them, longest first.
    pub networks: Arc<Vec<(IpNet, Arc<Peer>)>>,
    /// Labels of identities.
    pub labels: Shards<Identity, Arc<[String]>>,
    /// Services by address and port.
    pub services: Arc<HashMap<(IpAddr, u16), Frontend>>,
    /// What rule sets of endpoints' policies stand for, and the policies' revision.
    pub decisions: HashMap<u32, (u64, Arc<Decisions>)>,
    /// Devices of endpoints.
    pub devices: HashMap<u32, Arc<str>>,
}

/// What changed since the last snapshot.
#[derive(Debug, Default)]
pub(super) struct Unseen {
    pub prefixes: BTreeSet<IpNet>,
    pub identities: BTreeSet<Identity>,
    pub services: bool,
}

impl Core {
    /// The snapshot. It costs what changed, and shares all else with the last one.
    pub fn view(&mut self) -> View {
        let mut view = std::mem::take(&mut self.view);
        let unseen = std::mem::take(&mut self.unseen);
        for number in unseen.identities {
            let labels = self.identities.get(&number).map(|labels| labels.to_strings().into());
            view.labels.set(number, labels);
        }
        let mut networks = false;
        for prefix in unseen.prefixes {
            if prefix.prefix_len() < prefix.max_prefix_len() {
                networks = true;
            } else {
                view.peers.set(prefix.addr(), self.ipcache.get(&prefix).map(peer));
            }
        }
        if networks {
            view.networks = Arc::new(self.networks());
        }
        if unseen.services {
            let frontends = self.service_table.frontends.values().filter(|f| f.address.port != 0);
            view.services = Arc::new(frontends.map(|f| ((f.address.ip, f.address.port), f.clone())).collect());
        }
        view.decisions.clear();
        view.devices.clear();
        for endpoint in self.endpoints.values() {
            self.view_endpoint(endpoint, &mut view);
        }
        self.view = view.clone();
        view
    }

    /// Prefixes that are more than one address, longest first.
    fn networks(&self) -> Vec<(IpNet, Arc<Peer>)> {
        let all = self.ipcache.iter().filter(|(prefix, ..)| prefix.prefix_len() < prefix.max_prefix_len());
        let mut networks: Vec<_> = all.map(|(prefix, _, entry)| (*prefix, peer(entry))).collect();
        networks.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.prefix_len()));
        networks
    }

    fn view_endpoint(&self, endpoint: &Endpoint, view: &mut View) {
        let record = &endpoint.record;
        if record.kind != Kind::Host {
            view.devices.insert(record.ifindex, record.device.as_str().into());
        }
        if let Some(decisions) = self.decisions_of(endpoint) {
            view.decisions.insert(record.id, decisions);
        }
        let workload = self.pod_of(endpoint).and_then(|pod| pod.workload.clone());
        let (namespace, pod) = endpoint.pod().unwrap_or_default();
        let peer = Arc::new(Peer {
            endpoint: record.id,
            identity: record.identity,
            namespace,
            pod,
            labels: record.labels.to_strings(),
            workloads: workload.into_iter().map(|(kind, name)| Workload { name, kind }).collect(),
        });
        for address in endpoint.addresses() {
            view.peers.set(address, Some(peer.clone()));
        }
    }

    /// Endpoints whose CiliumEndpoint is not what it is to be.
    pub(super) fn publish(&mut self, ops: &mut Vec<Op>) {
        let node = self.facts.main_address();
        let mut published = Vec::new();
        for endpoint in self.endpoints.values() {
            let Some(key) = endpoint.pod() else { continue };
            let Some(pod) = self.pod_of(endpoint) else { continue };
            let object = cilium_endpoint(endpoint, pod, node);
            if endpoint.published.as_deref() != Some(&object) {
                ops.push(Op::Publish(key, Box::new(object.clone())));
                published.push((endpoint.record.id, object));
            }
        }
        for (id, object) in published {
            if let Some(endpoint) = self.endpoints.get_mut(&id) {
                endpoint.published = Some(Box::new(object));
            }
        }
    }

    /// The cluster does not know of a pod's CiliumEndpoint (any more): tell it again.
    pub fn republish(&mut self, key: &crate::objects::Key) {
        for endpoint in self.endpoints.values_mut().filter(|e| e.pod().as_ref() == Some(key)) {
            endpoint.published = None;
        }
    }

    /// Endpoints as the API tells them.
    pub fn describe_endpoints(&self) -> Vec<agent_api::Endpoint> {
        self.endpoints.values().map(|endpoint| self.describe_endpoint(endpoint)).collect()
    }

    fn describe_endpoint(&self, endpoint: &Endpoint) -> agent_api::Endpoint {
        let record = &endpoint.record;
        let text = |address: Option<IpAddr>| address.map(|a| a.to_string()).unwrap_or_default();
        let pair =
            agent_api::AddressPair { ipv4: text(record.ipv4.map(IpAddr::V4)), ipv6: text(record.ipv6.map(IpAddr::V6)) };
        let labels = record.labels.to_strings();
        let pod_name = endpoint.pod().map(|(namespace, name)| format!("{namespace}/{name}")).unwrap_or_default();
        let enabled = match (endpoint.applied.ingress, endpoint.applied.egress) {
            (false, false) => "none",
            (true, false) => "ingress",
            (false, true) => "egress",
            (true, true) => "both",
        };
        let realized = agent_api::EndpointPolicy {
            id: record.identity,
            policy_enabled: enabled.into(),
            policy_revision: endpoint.applied.realized,
            slot: endpoint.applied.slot,
            ..agent_api::EndpointPolicy::default()
        };
        let spec = agent_api::EndpointPolicy { policy_revision: self.engine.revision(), ..realized.clone() };
        let named_ports = self.pod_of(endpoint).map(|pod| pod.ports.clone()).unwrap_or_default();
        let named_ports = named_ports.into_iter();
        agent_api::Endpoint {
            id: record.id,
            spec: serde_json::json!({ "label-configuration": {} }),
            status: agent_api::EndpointStatus {
                external_identifiers: agent_api::ExternalIdentifiers {
                    cni_attachment_id: record.attachment.clone(),
                    container_id: record.container_id.clone(),
                    k8s_namespace: record.namespace.clone(),
                    k8s_pod_name: record.pod.clone(),
                    pod_name,
                },
                identity: Some(agent_api::Identity {
                    id: record.identity,
                    labels: labels.clone(),
                    labels_sha256: String::new(),
                }),
                labels: agent_api::EndpointLabels { derived: Vec::new(), security_relevant: labels },
                named_ports: named_ports
                    .map(|(name, port, protocol)| agent_api::NamedPort { name, port, protocol })
                    .collect(),
                networking: agent_api::Networking {
                    addressing: vec![pair],
                    container_interface_name: record.container_device.clone(),
                    host_mac: abi::Mac(record.node_mac).to_string(),
                    interface_index: record.ifindex,
                    interface_name: record.device.clone(),
                    mac: abi::Mac(record.mac).to_string(),
                },
                policy: agent_api::EndpointPolicyStatus { realized, spec, ..Default::default() },
                state: endpoint.state.as_str().into(),
            },
        }
    }

    /// Services as the API tells them.
    pub fn describe_services(&self) -> Vec<agent_api::Service> {
        let table = self.service_table();
        let address = |a: &crate::services::Address| agent_api::ServiceAddress {
            ip: a.ip.to_string(),
            port: a.port,
            protocol: protocol_name(a.protocol).into(),
        };
        let mut services: Vec<agent_api::Service> = table
            .frontends
            .values()
            .filter(|f| f.address.port != 0)
            .map(|f| agent_api::Service {
                id: f.rev_nat.into(),
                kind: "ClusterIP".into(),
                frontend: address(&f.address),
                backends: f
                    .backends
                    .iter()
                    .filter_map(|id| {
                        let address = address(table.backends.get(id)?);
                        Some(agent_api::ServiceBackend { id: *id, address, state: "active".into() })
                    })
                    .collect(),
                name: f.service.1.clone(),
                namespace: f.service.0.clone(),
            })
            .collect();
        services.sort_by_key(|service| service.id);
        services
    }

    /// The IP cache as the API tells it.
    pub fn describe_ips(&self) -> Vec<agent_api::IpEntry> {
        let entry = |(prefix, teller, entry): (&IpNet, &crate::ipcache::Teller, &crate::ipcache::Entry)| {
            let (namespace, name) = entry.pod.clone().unwrap_or_default();
            agent_api::IpEntry {
                cidr: prefix.to_string(),
                identity: entry.identity,
                host_ip: entry.tunnel.map(|a| a.to_string()).unwrap_or_default(),
                metadata: agent_api::IpMetadata { source: teller.source().into(), name, namespace },
            }
        };
        self.ipcache().iter().map(entry).collect()
    }

    /// Identities as the API tells them.
    pub fn describe_identities(&self) -> Vec<agent_api::Identity> {
        let identity = |(id, labels): (&Identity, &labels::Labels)| agent_api::Identity {
            id: *id,
            labels: labels.to_strings(),
            labels_sha256: String::new(),
        };
        self.identities().iter().map(identity).collect()
    }

    /// Nodes as the API tells them.
    pub fn describe_nodes(&self) -> Vec<agent_api::Node> {
        let node = |(name, node): (&String, &crate::objects::Node)| {
            let first =
                |v4: bool| node.addresses.iter().find(|a| a.is_ipv4() == v4).map(IpAddr::to_string).unwrap_or_default();
            agent_api::Node {
                name: format!("{}/{name}", self.facts.cluster),
                local: *name == self.facts.node,
                ipv4: first(true),
                ipv6: first(false),
                pod_cidrs: node.pod_networks.iter().map(ToString::to_string).collect(),
            }
        };
        self.nodes.iter().map(node).collect()
    }
}

fn peer(entry: &crate::ipcache::Entry) -> Arc<Peer> {
    let (namespace, pod) = entry.pod.clone().unwrap_or_default();
    Arc::new(Peer { identity: entry.identity, namespace, pod, ..Peer::default() })
}

fn cilium_endpoint(endpoint: &Endpoint, pod: &crate::objects::Pod, node: Option<IpAddr>) -> crds::CiliumEndpoint {
    let record = &endpoint.record;
    let direction = |enforcing: bool| {
        let state = if enforcing { "enforcing" } else { "non-enforcing" };
        Some(crds::EndpointPolicyDirection { enforcing, state: Some(state.into()), ..Default::default() })
    };
    let owner = OwnerReference {
        api_version: "v1".into(),
        kind: "Pod".into(),
        name: record.pod.clone(),
        uid: pod.uid.clone(),
        ..OwnerReference::default()
    };
    let visible: BTreeMap<String, String> = pod.labels.clone();
    let known = Some(record.identity).filter(|number| *number != abi::identity::INIT);
    crds::CiliumEndpoint {
        api_version: crds::CiliumEndpoint::default_api_version(),
        kind: crds::CiliumEndpoint::default_kind(),
        metadata: ObjectMeta {
            name: Some(record.pod.clone()),
            namespace: Some(record.namespace.clone()),
            labels: Some(visible).filter(|labels| !labels.is_empty()),
            owner_references: (!pod.uid.is_empty()).then(|| vec![owner]),
            ..ObjectMeta::default()
        },
        status: Some(crds::EndpointStatus {
            id: Some(record.id.into()),
            encryption: Some(crds::EncryptionSpec { key: None }),
            external_identifiers: Some(crds::ExternalIdentifiers {
                cni_attachment_id: Some(record.attachment.clone()),
                container_id: Some(record.container_id.clone()),
                k8s_namespace: Some(record.namespace.clone()),
                k8s_pod_name: Some(record.pod.clone()),
                pod_name: Some(format!("{}/{}", record.namespace, record.pod)),
                ..Default::default()
            }),
            identity: known
                .map(|number| crds::EndpointIdentity { id: Some(number.into()), labels: record.labels.to_strings() }),
            named_ports: pod
                .ports
                .iter()
                .map(|(name, port, protocol)| crds::NamedPort {
                    name: Some(name.clone()),
                    port: Some(*port),
                    protocol: Some(protocol.clone()),
                })
                .collect(),
            networking: Some(crds::Networking {
                addressing: vec![crds::AddressPair {
                    ipv4: record.ipv4.map(|a| a.to_string()),
                    ipv6: record.ipv6.map(|a| a.to_string()),
                }],
                node: node.map(|a| a.to_string()),
            }),
            policy: Some(crds::EndpointPolicyStatus {
                ingress: direction(endpoint.applied.ingress),
                egress: direction(endpoint.applied.egress),
            }),
            service_account: Some(pod.service_account.clone()).filter(|s| !s.is_empty()),
            state: Some(endpoint.state.as_str().into()),
            ..Default::default()
        }),
    }
}
