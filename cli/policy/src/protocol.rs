//! Which number does a protocol's name stand for?

const NAMES: &[(&str, u8)] = &[
    ("TCP", 6),
    ("UDP", 17),
    ("SCTP", 132),
    ("ICMP", 1),
    ("ICMPV4", 1),
    ("ICMPV6", 58),
    ("IGMP", 2),
    ("IPIP", 4),
    ("IPV6", 41),
    ("GRE", 47),
    ("ESP", 50),
    ("AH", 51),
    ("VRRP", 112),
];

/// The name of a protocol that has ports.
pub fn name(number: u8) -> &'static str {
    NAMES.iter().find(|(_, known)| *known == number).map_or("", |(name, _)| name)
}

/// The number of a protocol, by name or as a number; TCP if nothing is said.
pub fn number(text: &str) -> Result<u8, String> {
    if text.is_empty() {
        return Ok(policy::protocol::TCP);
    }
    let known = NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, number)| *number);
    known.or_else(|| text.parse().ok()).ok_or_else(|| {
        let names: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
        format!("protocol {text:?} is neither a number nor one of {}", names.join(", "))
    })
}

/// The name of a protocol; its number, if it has none.
pub fn text(number: u8) -> String {
    match name(number) {
        "" => number.to_string(),
        known => known.to_owned(),
    }
}
