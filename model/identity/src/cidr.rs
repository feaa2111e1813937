//! Which labels does a prefix of addresses have?

use ipnet::IpNet;
use labels::{Label, Labels, source};

/// The address families that a cluster uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Families {
    /// IPv4.
    pub ipv4: bool,
    /// IPv6.
    pub ipv6: bool,
}

/// `reserved:world`, or with both families the one of this family.
pub fn world_label(is_ipv6: bool, families: Families) -> Label {
    match (is_ipv6, families.ipv4 && families.ipv6) {
        (_, false) => Label::reserved("world"),
        (false, true) => Label::reserved("world-ipv4"),
        (true, true) => Label::reserved("world-ipv6"),
    }
}

/// `cidr:10.0.0.0/8`. In IPv6, dashes stand for the colons, with a 0 where one would come first or last.
pub fn cidr_label(prefix: IpNet) -> Label {
    let prefix = prefix.trunc();
    let address = prefix.addr().to_string();
    let key = if prefix.addr().is_ipv6() {
        let padded_front = if address.starts_with(':') { "0" } else { "" };
        let padded_back = if address.ends_with(':') { "0" } else { "" };
        format!("{padded_front}{}{padded_back}", address.replace(':', "-"))
    } else {
        address
    };
    Label::new(source::CIDR, format!("{key}/{}", prefix.prefix_len()), "")
}

/// The labels of the identity for a prefix outside of the cluster.
pub fn cidr_labels(prefix: IpNet, families: Families) -> Labels {
    let world = world_label(prefix.addr().is_ipv6(), families);
    let own = (prefix.prefix_len() > 0).then(|| cidr_label(prefix));
    own.into_iter().chain([world]).collect()
}

/// The prefix that labels name.
pub fn labelled_prefix(labels: &Labels) -> Option<IpNet> {
    let label = labels.iter().find(|label| label.source == source::CIDR)?;
    label.key.replace('-', ":").parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check(prefix: &str, families: (bool, bool), expected: &str) {
        let families = Families { ipv4: families.0, ipv6: families.1 };
        let labels = cidr_labels(prefix.parse().unwrap(), families);
        assert_eq!(labels.to_string(), expected);
        if !prefix.ends_with("/0") {
            assert_eq!(labelled_prefix(&labels), Some(prefix.parse::<IpNet>().unwrap().trunc()));
        }
    }

    #[test]
    fn a_prefix_has_its_label_and_worlds() {
        check("10.0.0.0/8", (true, false), "cidr:10.0.0.0/8,reserved:world");
        check("10.1.2.3/8", (true, true), "cidr:10.0.0.0/8,reserved:world-ipv4");
        check("2001:db8::/32", (true, true), "cidr:2001-db8--0/32,reserved:world-ipv6");
        check("::1/128", (false, true), "cidr:0--1/128,reserved:world");
        check("0.0.0.0/0", (true, true), "reserved:world-ipv4");
    }
}
