//! Which ICMP messages does a rule name?

use super::Reader;
use crate::rule::{PortRange, PortSpec, protocol};

/// Most types in one list.
const MAX_FIELDS: usize = 40;

/// Names of ICMP's types.
pub const ICMP_TYPES: &[(&str, u8)] = &[
    ("EchoReply", 0),
    ("DestinationUnreachable", 3),
    ("Redirect", 5),
    ("Echo", 8),
    ("EchoRequest", 8),
    ("RouterAdvertisement", 9),
    ("RouterSelection", 10),
    ("TimeExceeded", 11),
    ("ParameterProblem", 12),
    ("Timestamp", 13),
    ("TimestampReply", 14),
    ("Photuris", 40),
    ("ExtendedEchoRequest", 42),
    ("ExtendedEchoReply", 43),
];

/// Names of ICMPv6's types.
pub const ICMPV6_TYPES: &[(&str, u8)] = &[
    ("DestinationUnreachable", 1),
    ("PacketTooBig", 2),
    ("TimeExceeded", 3),
    ("ParameterProblem", 4),
    ("EchoRequest", 128),
    ("EchoReply", 129),
    ("MulticastListenerQuery", 130),
    ("MulticastListenerReport", 131),
    ("MulticastListenerDone", 132),
    ("RouterSolicitation", 133),
    ("RouterAdvertisement", 134),
    ("NeighborSolicitation", 135),
    ("NeighborAdvertisement", 136),
    ("RedirectMessage", 137),
    ("RouterRenumbering", 138),
    ("ICMPNodeInformationQuery", 139),
    ("ICMPNodeInformationResponse", 140),
    ("InverseNeighborDiscoverySolicitation", 141),
    ("InverseNeighborDiscoveryAdvertisement", 142),
    ("HomeAgentAddressDiscoveryRequest", 144),
    ("HomeAgentAddressDiscoveryReply", 145),
    ("MobilePrefixSolicitation", 146),
    ("MobilePrefixAdvertisement", 147),
    ("DuplicateAddressRequestCodeSuffix", 157),
    ("DuplicateAddressConfirmationCodeSuffix", 158),
    ("ExtendedEchoRequest", 160),
    ("ExtendedEchoReply", 161),
];

impl Reader<'_> {
    /// The ports of a rule or its ICMP messages: both is an error.
    pub(super) fn with_icmp(
        &mut self,
        path: &str,
        ports: Option<Vec<PortSpec>>,
        rules: Option<&[crds::IcmpRule]>,
    ) -> Option<Vec<PortSpec>> {
        let Some(rules) = rules.filter(|rules| !rules.is_empty()) else { return ports };
        if !self.settings.icmp_rules {
            let message = "ICMP rules can only be applied when the \"enable-icmp-rules\" flag is set";
            self.refuse(format!("{path}.icmps"), message);
        }
        if ports.is_some() {
            let message = "the ICMPs block may only be present without ToPorts. Define a separate rule to use ToPorts";
            self.refuse(format!("{path}.icmps"), message);
        }
        let mut specs = ports.unwrap_or_default();
        for (at, rule) in rules.iter().enumerate() {
            let fields = rule.fields.as_deref().unwrap_or_default();
            let path = format!("{path}.icmps[{at}].fields");
            if fields.len() > MAX_FIELDS {
                self.refuse(&path, format!("too many types, the max is {MAX_FIELDS}; found {}", fields.len()));
            }
            for (at, field) in fields.iter().enumerate() {
                specs.extend(self.icmp_field(&format!("{path}[{at}]"), field));
            }
        }
        Some(specs)
    }

    fn icmp_field(&mut self, path: &str, field: &crds::IcmpField) -> Option<PortSpec> {
        let family = field.family.as_deref().filter(|family| !family.is_empty()).unwrap_or("IPv4");
        let (protocol, names) = match family {
            "IPv4" => (protocol::ICMP, ICMP_TYPES),
            "IPv6" => (protocol::ICMPV6, ICMPV6_TYPES),
            _ => {
                self.refuse(format!("{path}.family"), format!("wrong family: {family}; IPv4 and IPv6 are right"));
                return None;
            }
        };
        let text = field.message_type.to_string();
        let named = names.iter().find(|(name, _)| *name == text).map(|(_, number)| *number);
        let Some(number) = named.or_else(|| text.parse::<u8>().ok()) else {
            let known: Vec<&str> = names.iter().map(|(name, _)| *name).collect();
            let message = format!(
                "ICMP type {text} not found in {family}: a number from 0 to 255 or one of {}",
                known.join(", ")
            );
            self.refuse(format!("{path}.type"), message);
            return None;
        };
        if number == 0 {
            self.warn(path, "type 0 stands for every type of the family");
            return Some(PortSpec::new(protocol, PortRange::All));
        }
        let number = u16::from(number);
        Some(PortSpec::new(protocol, PortRange::Numbers(number, number)))
    }
}
