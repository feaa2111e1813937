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

/// `fqdn:*.example.com`: the address was learned for this name or pattern of a policy (Cilium: `FQDNSelector.IdentityLabel`).
pub fn name_label(selector: &str) -> Label {
    Label::new(source::FQDN, selector, "")
}

/// The labels of the identity of an address outside of the cluster: the longest prefix around it that policies name, if
/// any, and the names and patterns of policies that it was learned for.
pub fn address_labels<'a>(
    around: Option<IpNet>,
    names: impl IntoIterator<Item = &'a str>,
    is_ipv6: bool,
    families: Families,
) -> Labels {
    let around = around.filter(|prefix| prefix.prefix_len() > 0).map(cidr_label);
    let names = names.into_iter().map(name_label);
    names.chain(around).chain([world_label(is_ipv6, families)]).collect()
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
    fn an_address_has_a_label_for_each_name_and_one_for_the_prefix_around_it() {
        let families = Families { ipv4: true, ipv6: true };
        let wide = "10.0.0.0/8".parse().unwrap();
        let labels = address_labels(Some(wide), ["*.b.c", "a.b.c"], false, families);
        assert_eq!(labels.to_string(), "cidr:10.0.0.0/8,fqdn:*.b.c,fqdn:a.b.c,reserved:world-ipv4");
        let labels = address_labels(None, ["a.b.c"], true, families);
        assert_eq!(labels.to_string(), "fqdn:a.b.c,reserved:world-ipv6");
        let all = "0.0.0.0/0".parse().unwrap();
        let labels = address_labels(Some(all), [], false, Families { ipv4: true, ipv6: false });
        assert_eq!(labels.to_string(), "reserved:world");
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
