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

    /// The prefix of this length that has this one in it, or is it; `None` if it is shorter than that.
    pub fn of_length(self, length: u32) -> Option<Prefix> {
        match length {
            _ if length > self.len() => None,
            PREFIX_ANY_PROTOCOL => Some(Prefix::ANY),
            _ => {
                let bits = length.checked_sub(PREFIX_PROTOCOL)? as u8;
                Some(Prefix { bits, port: masked(self.port, bits), ..self })
            }
        }
    }

    /// Significant bits of the tables' key.
    pub fn len(self) -> u32 {
        match self.protocol {
            None => PREFIX_ANY_PROTOCOL,
            Some(_) => PREFIX_PROTOCOL + u32::from(self.bits),
        }
    }

    /// The fewest prefixes for the ports from `first` to `last`.
    pub fn range(protocol: u8, first: u16, last: u16) -> impl Iterator<Item = Prefix> {
        let (mut next, last) = (u32::from(first), u32::from(last));
        std::iter::from_fn(move || {
            let rest = (last + 1).checked_sub(next).filter(|rest| *rest > 0)?;
            let aligned = if next == 0 { 16 } else { next.trailing_zeros().min(16) };
            let free = aligned.min(rest.ilog2());
            let prefix = Prefix { protocol: Some(protocol), bits: (16 - free) as u8, port: next as u16 };
            next += 1 << free;
            Some(prefix)
        })
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
        let prefixes: Vec<Prefix> = Prefix::range(6, first, last).collect();
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
    fn wider_prefixes_have_what_is_in_the_narrow_one() {
        let port = Prefix { protocol: Some(6), bits: 16, port: 0x8001 };
        let wider = |length: u32| port.of_length(length);
        assert_eq!(wider(PREFIX_PROTOCOL + 16), Some(port));
        assert_eq!(wider(PREFIX_PROTOCOL + 15), Some(Prefix { bits: 15, port: 0x8000, ..port }));
        assert_eq!(wider(PREFIX_PROTOCOL), Some(Prefix::protocol(6)));
        assert_eq!(wider(PREFIX_ANY_PROTOCOL), Some(Prefix::ANY));
        assert_eq!(Prefix::ANY.of_length(PREFIX_PROTOCOL), None);
        assert_eq!(Prefix::protocol(6).of_length(PREFIX_PROTOCOL + 1), None);
    }
}
