//! Which addresses of the node's pod networks are free, and who has the others?

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use ipnet::IpNet;

/// Why there is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IpamError {
    /// All are taken.
    #[error("all {0} addresses of {1} are taken")]
    Exhausted(usize, IpNet),
    /// Somebody has it.
    #[error("{0} belongs to {1}")]
    Taken(IpAddr, String),
    /// It is not of this node.
    #[error("{0} is not in the node's pod network {1}")]
    Foreign(IpAddr, IpNet),
}

/// How long an address waits for its endpoint.
const PATIENCE: Duration = Duration::from_secs(600);

/// Addresses that were handed out and have no endpoint yet. Whoever asked for one may have been killed.
#[derive(Clone, Debug, Default)]
pub struct Waiting(BTreeMap<IpAddr, Instant>);

impl Waiting {
    /// An address was handed out.
    pub fn begin(&mut self, address: IpAddr, now: Instant) {
        self.0.insert(address, now);
    }

    /// It has its endpoint, or was given back.
    pub fn end(&mut self, address: IpAddr) {
        self.0.remove(&address);
    }

    /// Those that have waited in vain; they are not told again.
    pub fn overdue(&mut self, now: Instant) -> Vec<IpAddr> {
        let late = |since: &Instant| now.saturating_duration_since(*since) >= PATIENCE;
        let all: Vec<IpAddr> = self.0.iter().filter(|(_, since)| late(since)).map(|(address, _)| *address).collect();
        self.0.retain(|_, since| !late(since));
        all
    }
}

/// The addresses of one network. Free ones are handed out round robin, so that an address rests before it is used again.
#[derive(Clone, Debug)]
pub struct Pool {
    network: IpNet,
    owners: BTreeMap<IpAddr, String>,
    last: u128,
}

/// IPv6 networks are vast; this many of their addresses are used.
const MOST_ADDRESSES: u128 = 1 << 16;

impl Pool {
    /// A network with all its addresses free. The first (and for IPv4 the last) are never handed out.
    pub fn new(network: IpNet) -> Self {
        Pool { network: network.trunc(), owners: BTreeMap::new(), last: 0 }
    }

    /// The network.
    pub fn network(&self) -> IpNet {
        self.network
    }

    /// Who has which address.
    pub fn owners(&self) -> &BTreeMap<IpAddr, String> {
        &self.owners
    }

    /// Number of addresses that can be handed out.
    pub fn size(&self) -> usize {
        usize::try_from(self.usable()).unwrap_or(usize::MAX)
    }

    fn usable(&self) -> u128 {
        let bits = self.network.max_prefix_len() - self.network.prefix_len();
        let all = 1_u128.checked_shl(u32::from(bits)).unwrap_or(u128::MAX).min(MOST_ADDRESSES);
        all.saturating_sub(if self.network.addr().is_ipv4() { 2 } else { 1 })
    }

    /// Hands out a free address.
    pub fn allocate(&mut self, owner: &str) -> Result<IpAddr, IpamError> {
        let usable = self.usable();
        for step in 1..=usable {
            let offset = (self.last + step - 1) % usable + 1;
            let address = self.at(offset);
            if !self.owners.contains_key(&address) {
                self.last = offset;
                self.owners.insert(address, owner.to_owned());
                return Ok(address);
            }
        }
        Err(IpamError::Exhausted(self.size(), self.network))
    }

    /// Marks an address as taken: one that was handed out before a restart.
    pub fn claim(&mut self, address: IpAddr, owner: &str) -> Result<(), IpamError> {
        if !self.network.contains(&address) {
            return Err(IpamError::Foreign(address, self.network));
        }
        match self.owners.get(&address) {
            Some(other) if other != owner => Err(IpamError::Taken(address, other.clone())),
            _ => {
                self.owners.insert(address, owner.to_owned());
                Ok(())
            }
        }
    }

    /// Takes an address back; false: it was free.
    pub fn release(&mut self, address: IpAddr) -> bool {
        self.owners.remove(&address).is_some()
    }

    fn at(&self, offset: u128) -> IpAddr {
        match self.network.network() {
            IpAddr::V4(base) => IpAddr::V4(Ipv4Addr::from(u32::from(base).wrapping_add(offset as u32))),
            IpAddr::V6(base) => IpAddr::V6(Ipv6Addr::from(u128::from(base).wrapping_add(offset))),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_are_handed_out_once_and_rest_before_they_come_again() {
        let mut pool = Pool::new("10.244.1.0/29".parse().unwrap());
        let all: Vec<IpAddr> = (0..6).map(|n| pool.allocate(&n.to_string()).unwrap()).collect();
        assert_eq!(all, ["10.244.1.1", "10.244.1.2", "10.244.1.3", "10.244.1.4", "10.244.1.5", "10.244.1.6"].map(ip));
        assert_eq!(pool.allocate("x").unwrap_err().to_string(), "all 6 addresses of 10.244.1.0/29 are taken");
        assert!(pool.release(ip("10.244.1.2")) && !pool.release(ip("10.244.1.2")));
        assert!(pool.release(ip("10.244.1.5")));
        assert_eq!(pool.allocate("y").unwrap(), ip("10.244.1.2"));
        assert_eq!(pool.allocate("z").unwrap(), ip("10.244.1.5"));
    }

    #[test]
    fn an_address_whose_add_was_given_up_is_overdue_once() {
        let (mut waiting, start) = (Waiting::default(), Instant::now());
        let [a, b, c] = ["10.244.1.2", "10.244.1.3", "10.244.1.4"].map(ip);
        waiting.begin(a, start);
        waiting.begin(b, start);
        waiting.begin(c, start + Duration::from_secs(1));
        waiting.end(b);
        assert_eq!(waiting.overdue(start + PATIENCE - Duration::from_secs(1)), Vec::<IpAddr>::new());
        assert_eq!(waiting.overdue(start + PATIENCE), [a]);
        assert_eq!(waiting.overdue(start + PATIENCE + Duration::from_secs(1)), [c]);
        assert_eq!(waiting.overdue(start + PATIENCE * 2), Vec::<IpAddr>::new());
    }

    #[test]
    fn a_restart_claims_what_was_handed_out() {
        let mut pool = Pool::new("fd00:10:244:1::/64".parse().unwrap());
        pool.claim(ip("fd00:10:244:1::1"), "router").unwrap();
        pool.claim(ip("fd00:10:244:1::1"), "router").unwrap();
        assert!(matches!(pool.claim(ip("fd00:10:244:1::1"), "pod"), Err(IpamError::Taken(..))));
        assert!(matches!(pool.claim(ip("fd00:10:244:2::1"), "pod"), Err(IpamError::Foreign(..))));
        assert_eq!(pool.allocate("pod").unwrap(), ip("fd00:10:244:1::2"));
        assert_eq!(pool.size(), 65535);
    }
}
