//! Which identity does an address belong to?

use std::collections::BTreeMap;
use std::net::IpAddr;

use identity::NumericIdentity;
use ipnet::IpNet;

/// Identities by prefix; the longest one that holds an address counts.
#[derive(Default)]
pub struct Addresses {
    by_prefix: BTreeMap<IpNet, NumericIdentity>,
    /// Lengths in use, longest first, for either family.
    lengths: [Vec<u8>; 2],
}

impl Addresses {
    /// All addresses of the prefix, unless a longer one holds them.
    pub fn set(&mut self, prefix: IpNet, identity: NumericIdentity) {
        let lengths = &mut self.lengths[usize::from(prefix.addr().is_ipv6())];
        if let Err(at) = lengths.binary_search_by(|known| prefix.prefix_len().cmp(known)) {
            lengths.insert(at, prefix.prefix_len());
        }
        self.by_prefix.insert(prefix, identity);
    }

    /// The identity of exactly this prefix.
    pub fn exact(&self, prefix: &IpNet) -> Option<NumericIdentity> {
        self.by_prefix.get(prefix).copied()
    }

    /// The identity of an address.
    pub fn of(&self, address: IpAddr) -> Option<NumericIdentity> {
        let lengths = &self.lengths[usize::from(address.is_ipv6())];
        let prefixes = lengths.iter().filter_map(|length| Some(IpNet::new(address, *length).ok()?.trunc()));
        prefixes.into_iter().find_map(|prefix| self.exact(&prefix))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_longest_prefix_counts() {
        let mut addresses = Addresses::default();
        for (text, number) in [("10.0.0.0/8", 1), ("10.1.0.0/16", 2), ("10.1.2.3", 3), ("::/0", 4)] {
            addresses.set(policy::parse_prefix_or_address(text).unwrap(), number);
        }
        for (text, number) in
            [("10.1.2.3", Some(3)), ("10.1.2.4", Some(2)), ("10.2.0.1", Some(1)), ("11.0.0.1", None), ("::1", Some(4))]
        {
            assert_eq!(addresses.of(text.parse().unwrap()), number, "{text}");
        }
    }
}
