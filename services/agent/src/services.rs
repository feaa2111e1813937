//! Which backends stand behind which service address, and under which numbers?

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// A port of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// The port; 0 with protocol 0 stands for all ports that a service does not have.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
}

/// A service as the API describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Its addresses; none for headless ones.
    pub addresses: Vec<IpAddr>,
    /// Name (may be empty), port, protocol.
    pub ports: Vec<(String, u16, u8)>,
    /// Session affinity by client address in seconds, 0: none.
    pub affinity: u32,
}

/// Backends of a service, as one slice tells them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slice {
    /// Addresses that are ready.
    pub ready: Vec<IpAddr>,
    /// Addresses that are terminating but still serve: used if nothing is ready.
    pub terminating: Vec<IpAddr>,
    /// Port name, number, protocol.
    pub ports: Vec<(String, u16, u8)>,
}

/// Namespace and name.
pub type Name = (String, String);

/// One service address as the datapath knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frontend {
    /// Where clients go.
    pub address: Address,
    /// Index of reverse NAT, stable as long as the address lives.
    pub rev_nat: u16,
    /// Affinity in seconds, 0: none.
    pub affinity: u32,
    /// The backends' numbers, stable as long as the backend lives.
    pub backends: Vec<u32>,
    /// Of which service.
    pub service: Name,
    /// The name of the port.
    pub port_name: String,
}

/// Every service address and backend, as the datapath is to know it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// By address; entries with port 0 catch unknown ports.
    pub frontends: BTreeMap<Address, Frontend>,
    /// By number.
    pub backends: BTreeMap<u32, Address>,
}

impl Table {
    /// What a datapath may have in which not all of the way from this table to `new` was done. Everything in it differs
    /// from what any service is, so that all of it is written or removed the next time.
    pub fn unsure(&self, new: &Table) -> Table {
        let frontends = self.frontends.values().chain(new.frontends.values());
        let mut table = Table {
            frontends: frontends.map(|f| (f.address, Frontend { rev_nat: 0, ..f.clone() })).collect(),
            backends: self
                .backends
                .iter()
                .chain(&new.backends)
                .map(|(id, at)| (*id, Address { port: 0, ..*at }))
                .collect(),
        };
        for (address, frontend) in &mut table.frontends {
            // Slots of the longer list are removed.
            let slots = |table: &Table| table.frontends.get(address).map_or(0, |f| f.backends.len());
            frontend.backends.resize(slots(self).max(slots(new)), 0);
        }
        table
    }
}

/// All services, and the numbers given to them.
#[derive(Clone, Debug, Default)]
pub struct Services {
    services: BTreeMap<Name, Service>,
    /// By namespace and service, then by slice name.
    slices: BTreeMap<Name, BTreeMap<String, Slice>>,
    backend_numbers: Numbers<Address>,
    reverse_numbers: Numbers<Address>,
}

/// Numbers that stay with their owner, smallest free first, 0 never.
#[derive(Clone, Debug)]
struct Numbers<T> {
    by_owner: BTreeMap<T, u32>,
    used: BTreeSet<u32>,
}

impl<T> Default for Numbers<T> {
    fn default() -> Self {
        Numbers { by_owner: BTreeMap::new(), used: BTreeSet::new() }
    }
}

impl<T: Ord + Clone> Numbers<T> {
    fn get(&mut self, owner: &T, most: u32) -> Option<u32> {
        if let Some(number) = self.by_owner.get(owner) {
            return Some(*number);
        }
        let free = (1..=most).find(|number| !self.used.contains(number))?;
        self.set(owner.clone(), free);
        Some(free)
    }

    fn set(&mut self, owner: T, number: u32) {
        self.used.insert(number);
        self.by_owner.insert(owner, number);
    }

    fn keep(&mut self, owners: &BTreeSet<T>) {
        let used = &mut self.used;
        self.by_owner.retain(|owner, number| {
            let keep = owners.contains(owner);
            if !keep {
                used.remove(number);
            }
            keep
        });
    }
}

const MOST_BACKENDS: u32 = 1 << 24;
const MOST_FRONTENDS: u32 = u16::MAX as u32;

impl Services {
    /// Takes over the numbers of an earlier run, so that running connections keep their backends.
    pub fn restore(
        &mut self,
        backends: impl IntoIterator<Item = (Address, u32)>,
        reverse: impl IntoIterator<Item = (Address, u32)>,
    ) {
        backends.into_iter().for_each(|(address, number)| self.backend_numbers.set(address, number));
        reverse.into_iter().for_each(|(address, number)| self.reverse_numbers.set(address, number));
    }

    /// A service is there or changed.
    pub fn set_service(&mut self, name: Name, service: Service) {
        self.services.insert(name, service);
    }

    /// A service is gone.
    pub fn remove_service(&mut self, name: &Name) {
        self.services.remove(name);
    }

    /// A slice is there or changed; `service` is the service that it belongs to.
    pub fn set_slice(&mut self, service: Name, slice_name: String, slice: Slice) {
        self.slices.entry(service).or_default().insert(slice_name, slice);
    }

    /// A slice is gone.
    pub fn remove_slice(&mut self, service: &Name, slice_name: &str) {
        if let Some(slices) = self.slices.get_mut(service) {
            slices.remove(slice_name);
            if slices.is_empty() {
                self.slices.remove(service);
            }
        }
    }

    /// The backend addresses of a service, whatever the port.
    pub fn backend_addresses(&self, service: &Name) -> BTreeSet<IpAddr> {
        self.slices.get(service).into_iter().flat_map(BTreeMap::values).flat_map(|s| s.ready.iter().copied()).collect()
    }

    /// Everything as the datapath is to know it.
    pub fn table(&mut self) -> Table {
        let wanted = self.wanted();
        let backends = wanted.values().flat_map(|f| f.2.iter().copied()).collect();
        self.backend_numbers.keep(&backends);
        self.reverse_numbers.keep(&wanted.keys().copied().collect());
        let mut table = Table::default();
        for (address, (service, port_name, backends)) in wanted {
            let Some(rev_nat) = self.reverse_numbers.get(&address, MOST_FRONTENDS) else { continue };
            let mut numbers = Vec::with_capacity(backends.len());
            for backend in backends {
                if let Some(number) = self.backend_numbers.get(&backend, MOST_BACKENDS) {
                    table.backends.insert(number, backend);
                    numbers.push(number);
                }
            }
            let affinity = self.services.get(&service).map_or(0, |s| s.affinity);
            let rev_nat = u16::try_from(rev_nat).unwrap_or(0);
            table
                .frontends
                .insert(address, Frontend { address, rev_nat, affinity, backends: numbers, service, port_name });
        }
        table
    }

    /// Frontends with their service, port name and backend addresses.
    fn wanted(&self) -> BTreeMap<Address, (Name, String, Vec<Address>)> {
        let mut wanted = BTreeMap::new();
        for (name, service) in &self.services {
            for ip in &service.addresses {
                // What the service does not have must be dropped, not sent to the network.
                let unknown = Address { ip: *ip, port: 0, protocol: 0 };
                wanted.entry(unknown).or_insert_with(|| (name.clone(), String::new(), Vec::new()));
                for (port_name, port, protocol) in &service.ports {
                    let address = Address { ip: *ip, port: *port, protocol: *protocol };
                    let backends = self.backends(name, port_name, *protocol, ip.is_ipv4());
                    wanted.insert(address, (name.clone(), port_name.clone(), backends));
                }
            }
        }
        wanted
    }

    fn backends(&self, service: &Name, port_name: &str, protocol: u8, ipv4: bool) -> Vec<Address> {
        let slices: Vec<&Slice> = self.slices.get(service).into_iter().flat_map(BTreeMap::values).collect();
        let pick = |addresses: fn(&Slice) -> &Vec<IpAddr>| {
            let mut found = BTreeSet::new();
            for slice in &slices {
                for (_, port, _) in slice.ports.iter().filter(|(n, _, p)| n == port_name && *p == protocol) {
                    let of_family = addresses(slice).iter().filter(|ip| ip.is_ipv4() == ipv4 && is_sane(**ip));
                    found.extend(of_family.map(|ip| Address { ip: *ip, port: *port, protocol }));
                }
            }
            found
        };
        let ready = pick(|slice| &slice.ready);
        if ready.is_empty() { pick(|slice| &slice.terminating) } else { ready }.into_iter().collect()
    }
}

/// Backends on the node itself or on a link would let a service reach what its author cannot.
fn is_sane(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !(ip.is_loopback() || ip.is_unspecified() || ip.is_link_local() || ip.is_multicast()),
        IpAddr::V6(ip) => !(ip.is_loopback() || ip.is_unspecified() || ip.is_unicast_link_local() || ip.is_multicast()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn name() -> Name {
        ("default".into(), "web".into())
    }

    fn web(services: &mut Services, ready: &[&str]) {
        let service = Service { addresses: vec![ip("10.96.0.7")], ports: vec![("http".into(), 80, 6)], affinity: 0 };
        services.set_service(name(), service);
        let ready = ready.iter().map(|a| ip(a)).collect();
        let slice = Slice { ready, terminating: Vec::new(), ports: vec![("http".into(), 8080, 6)] };
        services.set_slice(name(), "web-1".into(), slice);
    }

    fn at(port: u16, protocol: u8) -> Address {
        Address { ip: ip("10.96.0.7"), port, protocol }
    }

    #[test]
    fn numbers_stay_while_backends_come_and_go() {
        let mut services = Services::default();
        web(&mut services, &["10.244.1.1", "10.244.1.2", "10.244.1.3"]);
        let before = services.table();
        assert_eq!(before.frontends[&at(80, 6)].backends, [1, 2, 3]);
        web(&mut services, &["10.244.1.1", "10.244.1.3"]);
        let after = services.table();
        assert_eq!(after.frontends[&at(80, 6)].backends, [1, 3]);
        web(&mut services, &["10.244.1.1", "10.244.1.3", "10.244.1.9"]);
        assert_eq!(services.table().frontends[&at(80, 6)].backends, [1, 3, 2]);
        assert_eq!(before.frontends[&at(80, 6)].rev_nat, after.frontends[&at(80, 6)].rev_nat);
    }

    #[test]
    fn a36_unknown_ports_of_a_cluster_address_are_known_as_such() {
        let mut services = Services::default();
        web(&mut services, &["10.244.1.1"]);
        let table = services.table();
        assert_eq!(table.frontends[&at(0, 0)].backends, Vec::<u32>::new());
        services.remove_service(&name());
        assert_eq!(services.table(), Table::default());
    }

    #[test]
    fn a35_backends_that_are_the_node_itself_are_left_out() {
        let mut services = Services::default();
        web(&mut services, &["127.0.0.1", "169.254.169.254", "10.244.1.1"]);
        assert_eq!(services.table().backends.len(), 1);
    }

    #[test]
    fn terminating_backends_serve_only_if_nothing_is_ready() {
        let mut services = Services::default();
        web(&mut services, &[]);
        let slice =
            Slice { ready: Vec::new(), terminating: vec![ip("10.244.1.4")], ports: vec![("http".into(), 8080, 6)] };
        services.set_slice(name(), "web-1".into(), slice);
        assert_eq!(services.table().backends[&1].ip, ip("10.244.1.4"));
        web(&mut services, &["10.244.1.1"]);
        assert!(services.table().backends.values().all(|b| b.ip == ip("10.244.1.1")));
    }

    #[test]
    fn a_table_that_was_half_written_is_written_whole() {
        let mut services = Services::default();
        web(&mut services, &["10.244.1.1", "10.244.1.2"]);
        let old = services.table();
        web(&mut services, &["10.244.1.3"]);
        let new = services.table();
        let unsure = old.unsure(&new);
        assert_eq!(unsure.frontends[&at(80, 6)].backends.len(), 2, "no slot is forgotten");
        assert!(new.frontends.iter().all(|(address, frontend)| unsure.frontends[address] != *frontend));
        assert!(new.backends.iter().all(|(id, backend)| unsure.backends[id] != *backend));
        assert!(old.backends.keys().all(|id| unsure.backends.contains_key(id)));
    }

    #[test]
    fn a_restart_keeps_the_numbers() {
        let mut services = Services::default();
        let backend = Address { ip: ip("10.244.1.2"), port: 8080, protocol: 6 };
        services.restore([(backend, 77)], [(at(80, 6), 9)]);
        web(&mut services, &["10.244.1.1", "10.244.1.2"]);
        let table = services.table();
        assert_eq!((table.frontends[&at(80, 6)].rev_nat, &table.frontends[&at(80, 6)].backends), (9, &vec![1, 77]));
    }
}
