//! How are ports, ICMP types and L7 rules written in a rule?

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::rule::FqdnSelector;

/// DNS rules select names as toFQDNs do.
pub type DnsRule = FqdnSelector;

/// Ports, with what is allowed on them.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PortRule {
    /// The ports; any of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxItems" = 40))]
    pub ports: Option<Vec<PortProtocol>>,
    /// TLS that clients open and that ends at the proxy.
    #[serde(default, rename = "terminatingTLS", skip_serializing_if = "Option::is_none")]
    pub terminating_tls: Option<TlsContext>,
    /// TLS that the proxy opens to the server.
    #[serde(default, rename = "originatingTLS", skip_serializing_if = "Option::is_none")]
    pub originating_tls: Option<TlsContext>,
    /// Server names (SNI) that a TLS client may ask for; * stands for a part of one label, **. for any labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minItems" = 1, "x-kubernetes-list-type" = "set",
        "items" = { "type": "string", "maxLength": 255, "pattern": "^([-a-zA-Z0-9_*]+[.]?)+$" }))]
    pub server_names: Option<Vec<String>>,
    /// A listener of an Envoy configuration that gets the traffic. Egress only, not together with rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener: Option<Listener>,
    /// What is allowed at the application's level. Absent: everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<L7Rules>,
}

/// Ports that are denied.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct PortDenyRule {
    /// The ports; any of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<Vec<PortProtocol>>,
}

/// A port or a range of ports of a protocol.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PortProtocol {
    /// Number, or name of a container's port. 0 stands for all ports.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(extend("minLength" = 1, "pattern" = "^(6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[0-9]{1,4})|([a-zA-Z0-9]-?)*[a-zA-Z](-?[a-zA-Z0-9])*$"))]
    pub port: String,
    /// Last port of a range that begins at port; not with a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "int32", "minimum" = 0, "maximum" = 65535))]
    pub end_port: Option<i32>,
    /// ANY, or nothing, stands for TCP, UDP and SCTP. Protocols without ports need their own switch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["TCP", "UDP", "SCTP", "VRRP", "IGMP", "GRE", "IPIP", "IPV6", "ESP", "AH", "ANY"]))]
    pub protocol: Option<String>,
}

/// What is allowed at the application's level: one kind of rules.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-one-of" = [{ "required": ["http"] }, { "required": ["kafka"] }, { "required": ["dns"] }]))]
pub struct L7Rules {
    /// HTTP requests that are allowed; an empty rule allows all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<Vec<HttpRule>>,
    /// Requests to Kafka brokers that are allowed; an empty rule allows all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kafka: Option<Vec<KafkaRule>>,
    /// Names that may be asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<Vec<DnsRule>>,
}

impl L7Rules {
    /// True if there is no rule of any kind.
    pub fn is_empty(&self) -> bool {
        let none = |count: Option<usize>| count.unwrap_or(0) == 0;
        none(self.http.as_ref().map(Vec::len))
            && none(self.kafka.as_ref().map(Vec::len))
            && none(self.dns.as_ref().map(Vec::len))
    }
}

/// HTTP requests; all that is given must hold.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpRule {
    /// Regular expression over the whole path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Regular expression over the method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Regular expression over the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "idn-hostname"))]
    pub host: Option<String>,
    /// Headers that must be there, as "Name: value" or "Name".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<Vec<String>>,
    /// Headers, with what happens if they do not match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header_matches: Option<Vec<HeaderMatch>>,
}

/// A header and what happens if it does not match.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct HeaderMatch {
    /// Name of the header.
    #[schemars(extend("minLength" = 1))]
    pub name: String,
    /// The value that it must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Secret that holds the value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretRef>,
    /// If it does not match: LOG it, ADD the header, DELETE it, REPLACE its value. Absent: the request is denied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["LOG", "ADD", "DELETE", "REPLACE"]))]
    pub mismatch: Option<String>,
}

/// Requests to Kafka brokers; all that is given must hold. Each topic of a request needs a rule.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KafkaRule {
    /// produce or consume: the kinds of requests that producers or consumers need. Not together with apiKey.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["produce", "consume"]))]
    pub role: Option<String>,
    /// Kind of the request, by its name in whatever case, as in produce, fetch, createtopics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key: Option<String>,
    /// Version of the request's layout, as a number that is not negative.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_version: Option<String>,
    /// How the client calls itself.
    #[serde(default, rename = "clientID", skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Topic that the request names. Asks nothing of requests that never name one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxLength" = 255))]
    pub topic: Option<String>,
}

/// Name of a secret.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct SecretRef {
    /// Name of the secret.
    pub name: String,
    /// Its namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// Certificates and keys for TLS.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TlsContext {
    /// Secret that holds the items.
    pub secret: SecretRef,
    /// Item with the certificates to trust; ca.crt if absent.
    #[serde(default, rename = "trustedCA", skip_serializing_if = "Option::is_none")]
    pub trusted_ca: Option<String>,
    /// Item with the certificate; tls.crt if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// Item with the private key; tls.key if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_key: Option<String>,
}

/// A listener of an Envoy configuration.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Listener {
    /// The configuration that has the listener.
    pub envoy_config: EnvoyConfigRef,
    /// Name of the listener.
    #[schemars(extend("minLength" = 1))]
    pub name: String,
    /// Which of several listeners wins: the lowest number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 1, "maximum" = 100))]
    pub priority: Option<u16>,
}

/// Name of an Envoy configuration.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct EnvoyConfigRef {
    /// CiliumEnvoyConfig or CiliumClusterwideEnvoyConfig; absent: as the policy's own scope.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["CiliumEnvoyConfig", "CiliumClusterwideEnvoyConfig"]))]
    pub kind: Option<String>,
    /// Name of the object.
    #[schemars(extend("minLength" = 1))]
    pub name: String,
}

/// ICMP messages; not together with toPorts.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct IcmpRule {
    /// The messages; any of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxItems" = 40))]
    pub fields: Option<Vec<IcmpField>>,
}

/// What a type of messages may be written as, if as a text: its number, or one of the names of both families.
const ICMP_TYPE: &str = concat!(
    "^([0-9]|[1-9][0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-5]",
    "|EchoReply|DestinationUnreachable|Redirect|Echo|RouterAdvertisement",
    "|RouterSelection|TimeExceeded|ParameterProblem|Timestamp|TimestampReply|Photuris",
    "|ExtendedEchoRequest|ExtendedEchoReply|PacketTooBig|EchoRequest",
    "|MulticastListenerQuery|MulticastListenerReport|MulticastListenerDone",
    "|RouterSolicitation|NeighborSolicitation|NeighborAdvertisement|RedirectMessage",
    "|RouterRenumbering|ICMPNodeInformationQuery|ICMPNodeInformationResponse",
    "|InverseNeighborDiscoverySolicitation|InverseNeighborDiscoveryAdvertisement",
    "|HomeAgentAddressDiscoveryRequest|HomeAgentAddressDiscoveryReply",
    "|MobilePrefixSolicitation|MobilePrefixAdvertisement",
    "|DuplicateAddressRequestCodeSuffix|DuplicateAddressConfirmationCodeSuffix",
    ")$",
);

/// ICMP messages of one type.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct IcmpField {
    /// IPv4 (ICMP, the default) or IPv6 (ICMPv6).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["IPv4", "IPv6"], "default" = "IPv4"))]
    pub family: Option<String>,
    /// Number of the type (0 to 255), or its name, as in EchoRequest.
    #[serde(rename = "type")]
    #[schemars(extend("pattern" = ICMP_TYPE))]
    pub message_type: IntOrString,
}

/// A number or a text.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum IntOrString {
    /// A number.
    Int(i64),
    /// A text.
    String(String),
}

impl std::fmt::Display for IntOrString {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            IntOrString::Int(number) => number.fmt(f),
            IntOrString::String(text) => text.fmt(f),
        }
    }
}

impl JsonSchema for IntOrString {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "IntOrString".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "anyOf": [{ "type": "integer" }, { "type": "string" }],
            "x-kubernetes-int-or-string": true
        })
    }
}
