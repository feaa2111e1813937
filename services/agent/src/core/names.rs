//! What follows from DNS answers: which addresses the names of policies stand for, and for how long.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use agent_api::server::EndpointSelector;
use agent_api::{ApiError, CacheQuery, DnsLookup, NameReason};
use fqdn::{Answer, Cache, Change, Found, Source};

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

/// Whether a name that is known is one that a pattern means, as users write patterns.
pub fn is_meant(pattern: &str, name: &str) -> bool {
    let pattern = policy::canonical_name(pattern);
    if pattern.contains('*') { policy::name_matches(&pattern, name) } else { pattern == name }
}

impl Core {
    /// What DNS answers said, as far as it is asked for.
    pub fn describe_names(&self, query: &CacheQuery) -> Result<Vec<DnsLookup>, ApiError> {
        let endpoint = query.endpoint.as_deref().map(|text| self.endpoint_named(text)).transpose()?;
        let mut lookups: BTreeMap<_, DnsLookup> = BTreeMap::new();
        for found in read(&self.names).iter() {
            let pattern = query.matchpattern.as_deref();
            let asked = endpoint.is_none_or(|id| found.endpoint == id)
                && pattern.is_none_or(|pattern| is_meant(pattern, found.name))
                && query.source.as_deref().is_none_or(|source| source == source_name(found.source))
                && query.address.as_ref().is_none_or(|address| *address == found.address.to_string());
            if asked {
                let key =
                    (found.endpoint, found.name.to_owned(), found.looked_up, found.expires, source_name(found.source));
                let lookup = lookups.entry(key).or_insert_with(|| lookup(&found));
                lookup.ips.push(found.address.to_string());
            }
        }
        Ok(lookups.into_values().collect())
    }

    /// By which names an endpoint may reach an address, and which rules say so.
    pub fn why_name(&self, query: &CacheQuery) -> Result<Vec<NameReason>, ApiError> {
        let wanted = |what: &str| ApiError::Invalid(format!("{what} is missing"));
        let id = self.endpoint_named(query.endpoint.as_deref().ok_or_else(|| wanted("endpoint"))?)?;
        let text = query.address.as_deref().ok_or_else(|| wanted("address"))?;
        let address: IpAddr =
            text.parse().map_err(|_| ApiError::Invalid(format!("address {text:?}: expected an IP address")))?;
        let subject = self.endpoints.get(&id).and_then(Core::subject);
        let names = read(&self.names);
        // Rules for a name hold on the node, whoever asked for it; who asked itself comes first.
        let own = names.why(id, address);
        let others = names.names_of(address).filter_map(|name| {
            let asked = names.why(id, address).any(|found| found.name == name);
            if asked { None } else { names.iter().find(|found| found.address == address && found.name == name) }
        });
        let reason = |found: Found<'_>| {
            let rules = subject.map(|subject| self.engine.rules_for_name(subject, found.name)).unwrap_or_default();
            NameReason { lookup: DnsLookup { ips: vec![address.to_string()], ..lookup(&found) }, rules }
        };
        Ok(own.chain(others).map(reason).collect())
    }

    /// The number of an endpoint that somebody names.
    fn endpoint_named(&self, text: &str) -> Result<u32, ApiError> {
        let wanted = EndpointSelector::parse(text)?;
        let found = self.describe_endpoints().into_iter().find(|endpoint| wanted.matches(endpoint));
        found.map(|endpoint| endpoint.id).ok_or_else(|| ApiError::NotFound(format!("endpoint {text} not found")))
    }
}

fn source_name(source: Source) -> &'static str {
    match source {
        Source::Lookup => "lookup",
        Source::Connection => "connection",
    }
}

fn lookup(found: &Found<'_>) -> DnsLookup {
    let time = |seconds: u64| {
        let time = i64::try_from(seconds).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
        time.map(|time| time.strftime("%Y-%m-%dT%H:%M:%S.000Z").to_string()).unwrap_or_default()
    };
    DnsLookup {
        endpoint_id: found.endpoint,
        fqdn: format!("{}.", found.name),
        ips: Vec::new(),
        lookup_time: time(found.looked_up),
        ttl: found.ttl,
        expiration_time: time(found.expires),
        source: source_name(found.source).into(),
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
