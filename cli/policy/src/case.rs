//! How is a case written: settings, policies, who is there, and flows?

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// A case. Every field may be absent or null.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Case {
    /// What the results are called.
    #[serde(default, deserialize_with = "text")]
    pub id: String,
    /// Settings of the agents.
    #[serde(default)]
    pub config: Config,
    /// Policies and other objects: a text, or a list of texts and objects.
    #[serde(default)]
    pub policies: Value,
    /// Labels of namespaces.
    #[serde(default)]
    pub namespaces: BTreeMap<String, Map>,
    /// Pods and what else has a policy.
    #[serde(default)]
    pub endpoints: Vec<Endpoint>,
    /// Nodes.
    #[serde(default)]
    pub nodes: Vec<Node>,
    /// Services.
    #[serde(default)]
    pub services: Vec<Service>,
    /// Names that were learned from DNS answers.
    #[serde(default)]
    pub dns: Vec<Name>,
    /// Labels of addresses.
    #[serde(default)]
    pub ip_labels: Vec<AddressLabels>,
    /// What is to be judged.
    #[serde(default)]
    pub flows: Vec<Flow>,
}

/// Labels, or other pairs of texts.
pub type Map = BTreeMap<String, Text>;

/// A text; numbers and truth values are taken as they are written.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Text(pub String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer).map(Text)
    }
}

/// A text, whatever scalar it is written as.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text),
        Value::Bool(value) => Ok(value.to_string()),
        Value::Number(number) => Ok(number.to_string()),
        other @ (Value::Array(_) | Value::Object(_)) => {
            Err(serde::de::Error::custom(format!("a text is expected, found {other}")))
        }
    }
}

/// Settings of the agents, by Cilium's meaning of them.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct Config {
    /// default, always or never.
    #[serde(deserialize_with = "text")]
    pub mode: String,
    /// What would be denied passes and is reported.
    pub audit: bool,
    /// IPv4 is in use.
    pub ipv4: bool,
    /// IPv6 is in use.
    pub ipv6: bool,
    /// Policies for nodes are enforced.
    pub host_firewall: bool,
    /// Nodes can be selected by labels.
    pub node_selector_labels: bool,
    /// Whom prefixes select besides addresses outside: nodes, pods.
    pub cidr_match_mode: Vec<String>,
    /// always or policy.
    #[serde(deserialize_with = "text")]
    pub allow_localhost: String,
    /// Name of the own cluster.
    pub cluster_name: String,
    /// Number of the own cluster.
    pub cluster_id: u32,
    /// Selectors that name no cluster select pods of all.
    pub any_cluster: bool,
    /// Protocols without ports can be named.
    pub extended_ip_protocols: bool,
    /// There is no proxy.
    pub no_l7_proxy: bool,
    /// Messages of ICMP cannot be named.
    pub no_icmp_rules: bool,
    /// reject, warn or off: what becomes of objects that do not fit their kind's schema.
    #[serde(deserialize_with = "text")]
    pub crd: String,
    /// Names of ports are not known.
    pub no_port_labels: bool,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            mode: "default".to_owned(),
            audit: false,
            ipv4: true,
            ipv6: false,
            host_firewall: false,
            node_selector_labels: false,
            cidr_match_mode: Vec::new(),
            allow_localhost: "always".to_owned(),
            cluster_name: "default".to_owned(),
            cluster_id: 0,
            any_cluster: false,
            extended_ip_protocols: false,
            no_l7_proxy: false,
            no_icmp_rules: false,
            crd: "reject".to_owned(),
            no_port_labels: false,
        }
    }
}

/// A pod, or something else that has a policy.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Endpoint {
    /// Its name.
    #[serde(deserialize_with = "text")]
    pub name: String,
    /// Its namespace; default if empty.
    pub namespace: String,
    /// Its labels; of the host, the node's.
    pub labels: Map,
    /// Labels of its namespace.
    pub namespace_labels: Option<Map>,
    /// Its service account.
    pub service_account: String,
    /// Its addresses.
    pub ips: Vec<String>,
    /// Ports that have names.
    pub ports: Vec<NamedPort>,
    /// host, health, init, ingress, unmanaged: it is no pod.
    pub reserved: String,
    /// Labels in place of all others, as `source:key=value`.
    pub raw_labels: Vec<String>,
    /// Name of its cluster, if not the own one.
    pub cluster: String,
    /// Number of its cluster.
    pub cluster_id: Option<u32>,
    /// Its policy is not asked here.
    pub remote: bool,
    /// The number that its identity has; files do not say it.
    #[serde(skip)]
    pub identity: Option<u32>,
}

/// A port that has a name.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NamedPort {
    /// The name.
    #[serde(deserialize_with = "text")]
    pub name: String,
    /// The number.
    pub port: u16,
    /// TCP if empty.
    pub protocol: String,
}

/// A node.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Node {
    /// Its name.
    #[serde(deserialize_with = "text")]
    pub name: String,
    /// Its addresses.
    pub ips: Vec<String>,
    /// Its labels.
    pub labels: Map,
    /// It serves the Kubernetes API.
    pub kube_apiserver: bool,
    /// It is the node of the endpoints.
    pub local: bool,
    /// Name of its cluster, if not the own one.
    pub cluster: String,
}

/// A service.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Service {
    /// Its name.
    #[serde(deserialize_with = "text")]
    pub name: String,
    /// Its namespace; default if empty.
    pub namespace: String,
    /// Its labels.
    pub labels: Map,
    /// Labels of its pods.
    pub selector: Map,
    /// Its backends where it has no selector.
    pub backends: Vec<String>,
}

/// A name and the addresses that DNS answers gave it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Name {
    /// The name.
    pub name: String,
    /// Its addresses.
    pub ips: Vec<String>,
}

/// Labels of all addresses of a prefix.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct AddressLabels {
    /// The prefix, or one address.
    pub prefix: String,
    /// Its labels, as `source:key=value`.
    pub labels: Vec<String>,
}

/// A flow.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Flow {
    /// What its result is called.
    #[serde(deserialize_with = "text")]
    pub id: String,
    /// Who sends.
    pub src: String,
    /// Who receives; the backend, where a service is meant.
    pub dst: String,
    /// Protocol by name or number; TCP if empty.
    #[serde(deserialize_with = "text")]
    pub proto: String,
    /// Destination port.
    pub port: u16,
    /// Message type of ICMP and ICMPv6.
    pub icmp_type: Option<u8>,
    /// both, egress or ingress.
    pub direction: String,
    /// The packet is one of IPv6.
    pub ipv6: bool,
}

impl Case {
    /// Reads a case; null is as good as absent, but not within policies.
    pub fn from_value(mut value: Value) -> Result<Case, String> {
        let Value::Object(fields) = &mut value else { return Err("a case is an object".to_owned()) };
        let policies = fields.remove("policies").unwrap_or_default();
        let case: Case = serde_json::from_value(without_nulls(value)).map_err(|error| error.to_string())?;
        Ok(Case { policies, ..case })
    }
}

impl Case {
    /// The same case; without its policies if they are not wanted. Groups of prefixes are there whatever the policies.
    pub fn with_policies(&self, wanted: bool) -> Case {
        let mut case = self.clone();
        if let Some(items) = case.policies.as_array_mut().filter(|_| !wanted) {
            items.retain(|one| !one["kind"].as_str().unwrap_or_default().ends_with("Policy"));
        }
        case
    }
}

impl Flow {
    /// Reads a flow; null is as good as absent.
    pub fn from_value(value: Value) -> Result<Flow, String> {
        serde_json::from_value(without_nulls(value)).map_err(|error| error.to_string())
    }
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let there = fields.into_iter().filter(|(_, field)| !field.is_null());
            Value::Object(there.map(|(name, field)| (name, without_nulls(field))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(without_nulls).collect()),
        scalar @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => scalar,
    }
}
