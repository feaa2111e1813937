//! Which prefixes of protocol and port make up a range of ports?

use abi::policy::{PREFIX_ANY_PROTOCOL, PREFIX_PROTOCOL};

use crate::tables::masked;

/// Any protocol, a protocol, or some ports of a protocol. Ordered from wide to narrow.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Prefix {
    pub protocol: Option<u8>,
    /// How many bits of the port count.
    pub bits: u8,
    pub port: u16,
}

impl Prefix {
    /// Everything.
    pub const ANY: Prefix = Prefix { protocol: None, bits: 0, port: 0 };

    /// All ports of a protocol.
    pub fn protocol(protocol: u8) -> Prefix {
        Prefix { protocol: Some(protocol), bits: 0, port: 0 }
    }

    /// The prefixes that have this one in them, from narrow to wide.
    pub fn wider(self) -> impl Iterator<Item = Prefix> {
        let shorter = (0..self.bits).rev().map(move |bits| Prefix { bits, port: masked(self.port, bits), ..self });
        shorter.chain(self.protocol.map(|_| Prefix::ANY))
    }

    /// Significant bits of the tables' key.
    pub fn len(self) -> u32 {
        match self.protocol {
            None => PREFIX_ANY_PROTOCOL,
            Some(_) => PREFIX_PROTOCOL + u32::from(self.bits),
        }
    }

    /// The fewest prefixes for the ports from `first` to `last`.
    pub fn range(protocol: u8, first: u16, last: u16) -> Vec<Prefix> {
        let (mut next, last) = (u32::from(first), u32::from(last));
        let mut prefixes = Vec::new();
        while next <= last {
            let aligned = if next == 0 { 16 } else { next.trailing_zeros().min(16) };
            let fitting = (last - next + 1).ilog2();
            let free = aligned.min(fitting);
            prefixes.push(Prefix { protocol: Some(protocol), bits: (16 - free) as u8, port: next as u16 });
            next += 1 << free;
        }
        prefixes
    }
}

impl PartialOrd for Prefix {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Prefix {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.len(), self.protocol, self.port).cmp(&(other.len(), other.protocol, other.port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(first: u16, last: u16, count: usize) {
        let prefixes = Prefix::range(6, first, last);
        assert_eq!(prefixes.len(), count, "{first}-{last}: {prefixes:?}");
        for port in 0..=u16::MAX {
            let inside = prefixes.iter().filter(|one| masked(port, one.bits) == one.port).count();
            assert_eq!(inside == 1, (first..=last).contains(&port), "{port} in {first}-{last}");
            assert!(inside <= 1);
        }
    }

    #[test]
    fn ranges_are_exact_and_small() {
        check(80, 80, 1);
        check(0, 65535, 1);
        check(1, 65535, 16);
        check(16, 31, 1);
        check(80, 6443, 12);
        check(65535, 65535, 1);
        check(1, 65534, 30);
    }

    #[test]
    fn wider_prefixes_come_from_narrow_to_wide() {
        let port = Prefix { protocol: Some(6), bits: 16, port: 0x8001 };
        let wider: Vec<Prefix> = port.wider().collect();
        assert_eq!(wider.len(), 17);
        assert_eq!(wider[0], Prefix { bits: 15, port: 0x8000, ..port });
        assert_eq!(wider[15], Prefix::protocol(6));
        assert_eq!(wider[16], Prefix::ANY);
        assert_eq!(Prefix::ANY.wider().count(), 0);
    }
}
