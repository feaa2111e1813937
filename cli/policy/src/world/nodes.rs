//! Which identities have the nodes of a case, and which labels?

use std::net::IpAddr;

use abi::identity as id;
use identity::NumericIdentity;
use ipnet::IpNet;
use labels::{CLUSTER, Label, LabelFilter, Labels, source};

use super::{World, ips};
use crate::case::{Case, Endpoint, Node};

impl World {
    pub(super) fn add_nodes(&mut self, case: &Case) -> Result<(), String> {
        for node in &case.nodes {
            let addresses = ips(&node.ips);
            let whole = if node.local { self.local_host(case, node) } else { self.remote_node(case, node, None)? };
            for address in &addresses {
                let identity = if node.local { whole } else { self.remote_node(case, node, Some(*address))? };
                self.addresses.set(IpNet::from(*address), identity);
            }
            let first = addresses.first().and_then(|address| self.addresses.exact(&IpNet::from(*address)));
            self.nodes.insert(node.name.clone(), first.unwrap_or(whole));
        }
        Ok(())
    }

    /// The own node: its labels are those of the node and of its endpoint.
    fn local_host(&mut self, case: &Case, node: &Node) -> NumericIdentity {
        let endpoint = case.endpoints.iter().find(|one| one.reserved == "host");
        let serves_api = ips(&node.ips).into_iter().any(|address| serves_api(case, node, Some(address)));
        let serves_api = Some(Label::reserved("kube-apiserver")).filter(|_| serves_api);
        let labels = self.host_labels(endpoint, Some(node)).with(serves_api);
        self.repository.upsert_identity(id::HOST, &labels);
        id::HOST
    }

    /// Another node, or one of its addresses: where prefixes select nodes, each has an identity of its own.
    fn remote_node(&mut self, case: &Case, node: &Node, address: Option<IpAddr>) -> Result<NumericIdentity, String> {
        let serves_api = serves_api(case, node, address);
        let settings = self.repository.settings();
        if !settings.node_selector_labels && !settings.cidr_matches_nodes {
            return Ok(if serves_api { id::KUBE_APISERVER } else { id::REMOTE_NODE });
        }
        let labels = self.node_labels(node, address, serves_api);
        let acquired = self.identities.nodes.acquire(&labels).map_err(|error| error.to_string())?;
        self.repository.upsert_identity(acquired.identity, &labels);
        Ok(acquired.identity)
    }

    fn node_labels(&self, node: &Node, address: Option<IpAddr>, serves_api: bool) -> Labels {
        let settings = self.repository.settings();
        let mut labels = vec![Label::reserved("remote-node")];
        if serves_api {
            labels.push(Label::reserved("kube-apiserver"));
        }
        labels.extend(self.labels_of_node(node));
        let address = address.filter(|_| settings.cidr_matches_nodes);
        labels.extend(address.into_iter().flat_map(|address| self.labels_of_node_address(address)));
        labels.into_iter().collect()
    }

    /// Where prefixes select nodes, names do too.
    fn labels_of_node_address(&self, address: IpAddr) -> Vec<Label> {
        let address = IpNet::from(address);
        let mut labels = self.labels_of_names(&address);
        labels.push(identity::cidr_label(address));
        labels
    }

    /// What selectors of nodes can ask for, where there are such selectors.
    fn labels_of_node(&self, node: &Node) -> Vec<Label> {
        let settings = self.repository.settings();
        if !settings.node_selector_labels {
            return Vec::new();
        }
        let cluster = if node.cluster.is_empty() { &settings.cluster_name } else { &node.cluster };
        let own = node.labels.iter().map(|(key, value)| Label::new(source::NODE, key, &value.0));
        own.chain([Label::k8s(CLUSTER, cluster.as_str())]).collect()
    }

    /// Labels of the own node: as a subject those that Kubernetes knows, as a peer those of nodes.
    pub(super) fn host_labels(&self, endpoint: Option<&Endpoint>, node: Option<&Node>) -> Labels {
        let settings = self.repository.settings();
        let filter = LabelFilter::default();
        let of_node = node.iter().flat_map(|node| &node.labels);
        let own = endpoint.iter().flat_map(|endpoint| &endpoint.labels);
        let own = of_node.chain(own).map(|(key, value)| Label::k8s(key, &value.0)).filter(|label| filter.keeps(label));
        let addresses = node.filter(|_| settings.cidr_matches_nodes).map(|node| ips(&node.ips)).unwrap_or_default();
        let prefixes = addresses.into_iter().flat_map(|address| self.labels_of_node_address(address));
        let of_nodes = node.map(|node| self.labels_of_node(node)).unwrap_or_default();
        own.chain([Label::reserved("host")]).chain(prefixes).chain(of_nodes).collect()
    }
}

/// True if the node serves the Kubernetes API, by what is said of it or of its address.
fn serves_api(case: &Case, node: &Node, address: Option<IpAddr>) -> bool {
    let around = case.ip_labels.iter().filter(|one| {
        let prefix = policy::parse_prefix_or_address(&one.prefix);
        prefix.is_some_and(|prefix| address.is_some_and(|address| prefix.contains(&address)))
    });
    node.kube_apiserver || around.flat_map(|one| &one.labels).any(|label| label == "reserved:kube-apiserver")
}
