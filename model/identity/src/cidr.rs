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

/// `reserved:world`; where the other family is in use, the one of this family.
pub fn world_label(is_ipv6: bool, families: Families) -> Label {
    match (is_ipv6, families) {
        (false, Families { ipv6: true, .. }) => Label::reserved("world-ipv4"),
        (true, Families { ipv4: true, .. }) => Label::reserved("world-ipv6"),
        (false | true, _) => Label::reserved("world"),
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

/// The prefixes that labels name: one for an address, several for something that has several addresses.
pub fn labelled_prefixes(labels: &Labels) -> Vec<IpNet> {
    let named = labels.iter().filter(|label| label.source == source::CIDR);
    named.filter_map(|label| label.key.replace('-', ":").parse().ok()).collect()
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
            assert_eq!(labelled_prefixes(&labels), [prefix.parse::<IpNet>().unwrap().trunc()]);
        }
    }

    #[test]
    fn a_prefix_has_its_label_and_worlds() {
        check("10.0.0.0/8", (true, false), "cidr:10.0.0.0/8,reserved:world");
        check("10.1.2.3/8", (true, true), "cidr:10.0.0.0/8,reserved:world-ipv4");
        check("2001:db8::/32", (true, true), "cidr:2001-db8--0/32,reserved:world-ipv6");
        check("::1/128", (false, true), "cidr:0--1/128,reserved:world");
        check("::1/128", (true, false), "cidr:0--1/128,reserved:world-ipv6");
        check("10.0.0.0/8", (false, true), "cidr:10.0.0.0/8,reserved:world-ipv4");
        check("0.0.0.0/0", (true, true), "reserved:world-ipv4");
    }
}
