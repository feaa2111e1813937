//! Which ports does a rule of cilium.io name?

use super::Reader;
use crate::origin::Direction;
use crate::rule::{PortRange, PortSpec, protocol};

/// Most ports in one list.
const MAX_PORTS: usize = 40;

/// Protocols by name; the last ones have no ports.
const PROTOCOLS: &[(&str, &[u8])] = &[
    ("ANY", &protocol::WITH_PORTS),
    ("TCP", &[protocol::TCP]),
    ("UDP", &[protocol::UDP]),
    ("SCTP", &[protocol::SCTP]),
    ("VRRP", &[112]),
    ("IGMP", &[2]),
    ("GRE", &[47]),
    ("IPIP", &[4]),
    ("IPV6", &[41]),
    ("ESP", &[50]),
    ("AH", &[51]),
];

impl Reader<'_> {
    /// The ports of `toPorts` with what is asked on them; `None` if the field is absent or empty.
    pub(super) fn port_rules(
        &mut self,
        path: &str,
        direction: Direction,
        nodes: bool,
        rules: Option<&[crds::PortRule]>,
    ) -> Option<Vec<PortSpec>> {
        let rules = rules.filter(|rules| !rules.is_empty())?;
        let mut specs = Vec::new();
        for (at, rule) in rules.iter().enumerate() {
            let path = format!("{path}.toPorts[{at}]");
            let l7 = self.l7(&path, direction, nodes, rule);
            let given = rule.rules.as_ref().filter(|rules| !rules.is_empty());
            let has_dns = given.and_then(|rules| rules.dns.as_ref()).is_some_and(|list| !list.is_empty());
            let mut ports = self.port_list(&path, rule.ports.as_deref(), has_dns);
            if let Some(rules) = given {
                self.check_l7_ports(&path, rules, rule.ports.as_deref().unwrap_or_default(), &ports);
            }
            ports.iter_mut().for_each(|port| port.l7.clone_from(&l7));
            specs.extend(ports);
        }
        Some(specs)
    }

    /// The ports of a deny rule.
    pub(super) fn deny_port_rules(
        &mut self,
        path: &str,
        rules: Option<&[crds::PortDenyRule]>,
    ) -> Option<Vec<PortSpec>> {
        let rules = rules.filter(|rules| !rules.is_empty())?;
        let mut specs = Vec::new();
        for (at, rule) in rules.iter().enumerate() {
            specs.extend(self.port_list(&format!("{path}.toPorts[{at}]"), rule.ports.as_deref(), false));
        }
        Some(specs)
    }

    fn port_list(&mut self, path: &str, ports: Option<&[crds::PortProtocol]>, has_dns: bool) -> Vec<PortSpec> {
        let ports = ports.unwrap_or_default();
        if ports.len() > MAX_PORTS {
            self.refuse(
                format!("{path}.ports"),
                format!("too many ports, the max is {MAX_PORTS}; found {}", ports.len()),
            );
        }
        if ports.is_empty() {
            self.warn(path, "toPorts without ports speaks of no traffic");
        }
        let ports = ports.iter().enumerate();
        ports.flat_map(|(at, port)| self.port(&format!("{path}.ports[{at}]"), port, has_dns)).collect()
    }

    fn port(&mut self, path: &str, port: &crds::PortProtocol, has_dns: bool) -> Vec<PortSpec> {
        let name = port.protocol.as_deref().filter(|name| !name.is_empty()).unwrap_or("ANY").to_ascii_uppercase();
        let Some((_, numbers)) = PROTOCOLS.iter().find(|(known, _)| *known == name) else {
            let known: Vec<&str> = PROTOCOLS.iter().map(|(known, _)| *known).collect();
            self.refuse(
                format!("{path}.protocol"),
                format!("invalid protocol {name:?}, must be one of {}", known.join(", ")),
            );
            return Vec::new();
        };
        let without_ports = !matches!(name.as_str(), "ANY" | "TCP" | "UDP" | "SCTP");
        let Some(range) = self.port_range(path, port, without_ports, has_dns) else { return Vec::new() };
        let written_end = port.end_port.and_then(|end| u16::try_from(end).ok()).unwrap_or(0);
        let spec = |number: &u8| PortSpec { written_end, ..PortSpec::new(*number, range.clone()) };
        numbers.iter().map(spec).collect()
    }

    fn port_range(
        &mut self,
        path: &str,
        port: &crds::PortProtocol,
        without_ports: bool,
        has_dns: bool,
    ) -> Option<PortRange> {
        let path = format!("{path}.port");
        let text = port.port.as_str();
        if text.is_empty() {
            if self.settings.extended_ip_protocols {
                return Some(PortRange::All);
            }
            let message = "port must be specified: a number, a name, or 0 for all ports; protocols without ports may \
                           leave it out where the \"enable-extended-ip-protocols\" flag is set";
            self.refuse(path, message);
            return None;
        }
        if is_service_name(text) {
            return Some(PortRange::Named(text.to_ascii_lowercase()));
        }
        let Some(first) = port_number(text) else {
            self.refuse(path, format!("unable to parse port: {text:?} is neither a number from 0 to 65535 nor a name"));
            return None;
        };
        if without_ports && first != 0 {
            self.refuse(path, format!("port must be empty or 0 for a protocol without ports; found {first}"));
            return None;
        }
        let last = port.end_port.unwrap_or(0);
        if has_dns && last > i32::from(first) {
            self.refuse(path, "DNS rules do not support port ranges");
            return None;
        }
        let Ok(last) = u16::try_from(last) else {
            self.refuse(path, format!("endPort {last} is not a number from 0 to 65535"));
            return None;
        };
        Some(numbers(first, last))
    }
}

/// A number as the field reads it: with a zero in front it is octal.
pub(super) fn port_number(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let radix = if text.len() > 1 && text.starts_with('0') { 8 } else { 10 };
    u16::from_str_radix(text, radix).ok().filter(|_| digits)
}

/// A range from the two fields: 0 is all ports, and an end that lies before the first port is not heeded.
pub(super) fn numbers(first: u16, last: u16) -> PortRange {
    match first {
        0 => PortRange::All,
        first => PortRange::Numbers(first, last.max(first)),
    }
}

/// True for names of services as they are registered: 1 to 15 letters, digits and single dashes within, and a letter.
pub fn is_service_name(text: &str) -> bool {
    (1..=15).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && text.bytes().any(|byte| byte.is_ascii_alphabetic())
        && !text.starts_with('-')
        && !text.ends_with('-')
        && !text.contains("--")
}
