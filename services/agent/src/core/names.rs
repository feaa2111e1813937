//! What follows from DNS answers: which addresses the names of policies stand for, and for how long.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use fqdn::{Answer, Cache, Change};

use super::Core;

/// What is known of names. Hubble reads it for each flow, which must not wait for the daemon.
pub type SharedNames = Arc<RwLock<Cache>>;

/// Nobody who holds the lock fails half-way.
pub fn read(names: &SharedNames) -> RwLockReadGuard<'_, Cache> {
    names.read().unwrap_or_else(PoisonError::into_inner)
}

impl Core {
    /// An endpoint gets an answer. Addresses that are the node's or nobody's are not learned: whoever answers for a name
    /// could open them otherwise.
    pub(super) fn answered(&mut self, endpoint: u32, mut answer: Answer, now: u64) {
        if self.endpoints.contains_key(&endpoint) {
            answer.addresses.retain(|address| may_be_learned(*address));
            self.change_names(|names| names.learn(endpoint, &answer, now));
        }
    }

    /// Time has passed; these endpoints have connections to these addresses.
    pub(super) fn elapsed(&mut self, now: u64, in_use: &HashSet<(u32, IpAddr)>) {
        self.change_names(|names| names.expire(now, &|endpoint, address| in_use.contains(&(endpoint, address))));
    }

    /// Forgets what was learned of some names, and tells how many addresses of names that were.
    pub fn clean_names(&mut self, is_meant: impl Fn(&str) -> bool) -> usize {
        self.change_names(|names| names.clean(is_meant)).removed.len()
    }

    /// The endpoint is gone.
    pub(super) fn forget_names(&mut self, endpoint: u32) {
        self.change_names(|names| names.forget(endpoint));
    }

    /// What an earlier run learned; of endpoints that are gone nothing is.
    pub fn restore_names(&mut self, saved: fqdn::Saved) {
        self.change_names(|names| names.restore(saved));
        let learners: HashSet<u32> = read(&self.names).iter().map(|found| found.endpoint).collect();
        for stranger in learners.into_iter().filter(|id| !self.endpoints.contains_key(id)).collect::<Vec<_>>() {
            self.forget_names(stranger);
        }
    }

    /// What is known of names.
    pub fn names(&self) -> &SharedNames {
        &self.names
    }

    fn change_names(&mut self, work: impl FnOnce(&mut Cache) -> Change) -> Change {
        let change = work(&mut self.names.write().unwrap_or_else(PoisonError::into_inner));
        if !change.is_empty() {
            self.engine.set_names(&change);
            self.dirty.policies = true;
        }
        change
    }
}

fn may_be_learned(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => {
            !(ip.is_loopback() || ip.is_unspecified() || ip.is_link_local() || ip.is_multicast() || ip.is_broadcast())
        }
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(_) => false,
            None => !(ip.is_loopback() || ip.is_unspecified() || ip.is_unicast_link_local() || ip.is_multicast()),
        },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a53_addresses_of_the_node_and_of_nobody_are_not_learned() {
        for text in [
            "127.0.0.1",
            "169.254.169.254",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "ff02::1",
            "::ffff:10.0.0.1",
        ] {
            assert!(!may_be_learned(text.parse().unwrap()), "{text}");
        }
        for text in ["1.1.1.1", "10.0.0.1", "2606:4700::1111", "fd00::1"] {
            assert!(may_be_learned(text.parse().unwrap()), "{text}");
        }
    }
}
