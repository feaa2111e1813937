//! How is a destination written: who, which port, which protocol?

use crate::case::Flow;

/// `db`, `db:5432`, `ns/db:53/UDP`, `192.0.2.1:80`, `[2001:db8::1]:80`, `dns:example.com:443`, `node:n1:22`.
pub fn read(text: &str, flow: &mut Flow) -> Option<()> {
    let bracketed = text.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    if let Some((address, rest)) = bracketed {
        address.clone_into(&mut flow.dst);
        flow.ipv6 = true;
        return match rest.strip_prefix(':') {
            Some(rest) => port(rest, flow),
            None => rest.is_empty().then_some(()),
        };
    }
    // An address of IPv6 without brackets has no port.
    if text.parse::<std::net::Ipv6Addr>().is_ok() {
        text.clone_into(&mut flow.dst);
        flow.ipv6 = true;
        return Some(());
    }
    let kinds = ["dns:", "node:", "reserved:"];
    let kind = kinds.iter().find(|kind| text.starts_with(**kind)).copied().unwrap_or_default();
    match text[kind.len()..].split_once(':') {
        None => text.clone_into(&mut flow.dst),
        Some((name, rest)) => {
            flow.dst = format!("{kind}{name}");
            port(rest, flow)?;
        }
    }
    (!flow.dst.is_empty()).then_some(())
}

/// `53` or `53/UDP`.
pub fn port(text: &str, flow: &mut Flow) -> Option<()> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, ""));
    flow.port = number.parse().ok()?;
    protocol.clone_into(&mut flow.proto);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_addresses_ports_and_protocols() {
        for (text, expected) in [
            ("db", ("db", 0, "")),
            ("db:5432", ("db", 5432, "")),
            ("ns/db:53/UDP", ("ns/db", 53, "UDP")),
            ("192.0.2.1:80", ("192.0.2.1", 80, "")),
            ("[2001:db8::1]:80", ("2001:db8::1", 80, "")),
            ("2001:db8::1", ("2001:db8::1", 0, "")),
            ("dns:a.b:443", ("dns:a.b", 443, "")),
            ("reserved:world", ("reserved:world", 0, "")),
        ] {
            let mut flow = Flow::default();
            assert!(read(text, &mut flow).is_some(), "{text}");
            assert_eq!((flow.dst.as_str(), flow.port, flow.proto.as_str()), expected);
        }
        for text in ["", "db:x", "db:70000", "[::1]x"] {
            assert!(read(text, &mut Flow::default()).is_none(), "{text}");
        }
    }
}
