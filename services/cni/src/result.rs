//! What does the plugin tell the runtime about a container's network?

use agent_api::{AddressPair, IpamResponse};
use serde::{Deserialize, Serialize};

use crate::Attachment;

/// The result of ADD.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkResult {
    /// Version of the specification.
    #[serde(default)]
    pub cni_version: String,
    /// Both sides of the device pair.
    #[serde(default)]
    pub interfaces: Vec<Interface>,
    /// The container's addresses.
    #[serde(default)]
    pub ips: Vec<Ip>,
    /// The container's routes.
    #[serde(default)]
    pub routes: Vec<Route>,
    /// Name servers: not this plugin's business.
    #[serde(default)]
    pub dns: serde_json::Map<String, serde_json::Value>,
}

/// A device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its Ethernet address.
    #[serde(default)]
    pub mac: String,
    /// The container's namespace, for the side within.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sandbox: String,
}

/// An address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ip {
    /// `4` or `6`; before version 1.0 of the specification only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Index into the interfaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<usize>,
    /// With the length of its network.
    pub address: String,
    /// The next hop.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub gateway: String,
}

/// A route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Where to.
    pub dst: String,
    /// The next hop; none: on the link.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub gw: String,
}

/// Both sides of the device pair, with their Ethernet addresses as text.
#[derive(Clone, Debug, Default)]
pub struct Pair {
    /// Host's side.
    pub host: (String, String),
    /// Container's side.
    pub container: (String, String),
}

impl NetworkResult {
    /// What ADD made.
    pub fn new(version: &str, attachment: &Attachment, pair: &Pair, ipam: &IpamResponse) -> Self {
        let sandbox = attachment.netns.as_ref().map(|p| p.display().to_string()).unwrap_or_default();
        let interfaces = vec![
            Interface { name: pair.host.0.clone(), mac: pair.host.1.clone(), sandbox: String::new() },
            Interface { name: pair.container.0.clone(), mac: pair.container.1.clone(), sandbox },
        ];
        let mut result = NetworkResult { cni_version: version.into(), interfaces, ..NetworkResult::default() };
        let says_family = version.starts_with("0.");
        for family in families(&ipam.address, &ipam.host_addressing) {
            let version = says_family.then(|| family.version.to_owned());
            let address = format!("{}/{}", family.address, family.length);
            result.ips.push(Ip { version, interface: Some(1), address, gateway: family.gateway.to_owned() });
            result.routes.push(Route { dst: format!("{}/{}", family.gateway, family.length), gw: String::new() });
            result.routes.push(Route { dst: family.default.into(), gw: family.gateway.to_owned() });
        }
        result
    }
}

pub(crate) struct Family<'a> {
    pub version: &'static str,
    pub address: &'a str,
    pub gateway: &'a str,
    pub length: u8,
    pub default: &'static str,
}

/// The families that are on: those with an address.
pub(crate) fn families<'a>(own: &'a AddressPair, gateway: &'a AddressPair) -> Vec<Family<'a>> {
    let v4 = Family { version: "4", address: &own.ipv4, gateway: &gateway.ipv4, length: 32, default: "0.0.0.0/0" };
    let v6 = Family { version: "6", address: &own.ipv6, gateway: &gateway.ipv6, length: 128, default: "::/0" };
    [v4, v6].into_iter().filter(|f| !f.address.is_empty()).collect()
}
