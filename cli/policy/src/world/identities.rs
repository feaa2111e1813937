//! Which number has which set of labels?

use std::collections::HashMap;

use abi::identity as id;
use identity::{LocalAllocator, NumericIdentity, reserved_by_labels};
use labels::{Labels, source};

/// Numbers for labels.
pub(super) struct Identities {
    by_labels: HashMap<(u32, Labels), NumericIdentity>,
    next: HashMap<u32, NumericIdentity>,
    addresses: LocalAllocator,
    pub nodes: LocalAllocator,
}

impl Identities {
    /// None are given yet.
    pub fn new() -> Self {
        Identities {
            by_labels: HashMap::new(),
            next: HashMap::new(),
            addresses: LocalAllocator::default(),
            nodes: LocalAllocator::with_range(id::LOCAL_REMOTE_NODE, id::LOCAL_REMOTE_NODE + (1 << 24) - 1),
        }
    }

    /// The number of pods of a cluster that have these labels.
    pub fn workload(&mut self, cluster: u32, labels: &Labels) -> NumericIdentity {
        if let Some(known) = self.by_labels.get(&(cluster, labels.clone())) {
            return *known;
        }
        let next = self.next.entry(cluster).or_insert((cluster << 16) + id::MINIMAL_ALLOCATED);
        let number = *next;
        *next += 1;
        self.by_labels.insert((cluster, labels.clone()), number);
        number
    }

    /// The number of addresses that have these labels.
    pub fn address(&mut self, labels: &Labels) -> Result<NumericIdentity, String> {
        self.addresses.acquire(labels).map(|one| one.identity).map_err(|error| error.to_string())
    }

    /// Labels that somebody made up: what Cilium would take them for.
    pub fn of(&mut self, cluster: u32, labels: &Labels) -> Result<NumericIdentity, String> {
        if let Some(reserved) = reserved_by_labels(labels) {
            return Ok(reserved);
        }
        if labels.has_reserved("ingress") {
            return self.address(labels);
        }
        let local = [source::CIDR, source::FQDN, source::RESERVED, source::CIDR_GROUP];
        if !labels.is_empty() && labels.iter().all(|label| local.contains(&label.source.as_str())) {
            return self.address(labels);
        }
        Ok(self.workload(cluster, labels))
    }
}
