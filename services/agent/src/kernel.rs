//! How do the core's operations reach the datapath, and what of it is there at start?

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use abi::endpoint::EndpointPolicy;
use abi::ipcache::{IpcacheKey4, IpcacheKey6, RemoteEndpoint};
use abi::policy::{CountedVerdict, VerdictKey};
use abi::service::{Backend, FLAG_CLUSTER_IP, ReverseNat, Service, ServiceKey};
use abi::{Port, V4, V6};
use bpf::{Datapath, Maps};
use ipnet::IpNet;

use crate::core::Found;
use crate::ipcache::Change;
use crate::ops::Op;
use crate::services::{Address, Frontend, Table};

/// What is in the kernel's maps now.
pub fn found(maps: &Maps) -> bpf::Result<Found> {
    let mut ipcache = BTreeMap::new();
    for (key, value) in maps.ipcache4.entries()? {
        add_prefix(&mut ipcache, IpAddr::V4(key.addr.into()), key.prefix_len, value);
    }
    for (key, value) in maps.ipcache6.entries()? {
        add_prefix(&mut ipcache, IpAddr::V6(key.addr.into()), key.prefix_len, value);
    }
    let policies = maps.ep_policy.entries()?.into_iter().filter(|(_, p)| p.slot != 0 || p.revision_and_modes != 0);
    let (slots, services) = (maps.policy.used()?, services(maps)?);
    Ok(Found { ipcache, slots, policies: policies.collect(), services, ..Found::default() })
}

/// Removes endpoints of an earlier run that nobody remembers; those of the node itself stay.
pub fn forget_strangers(maps: &Maps, addresses: &BTreeSet<IpAddr>, devices: &BTreeSet<u32>) -> bpf::Result<()> {
    let host = |endpoint: &abi::endpoint::Endpoint| endpoint.flags & abi::endpoint::FLAG_HOST != 0;
    for (address, endpoint) in maps.lxc4.entries()? {
        if !host(&endpoint) && !addresses.contains(&IpAddr::V4(address.into())) {
            maps.lxc4.remove(&address)?;
        }
    }
    for (address, endpoint) in maps.lxc6.entries()? {
        if !host(&endpoint) && !addresses.contains(&IpAddr::V6(address.into())) {
            maps.lxc6.remove(&address)?;
        }
    }
    for (device, _) in maps.devices.entries()? {
        if !devices.contains(&device) {
            maps.devices.remove(&device)?;
        }
    }
    Ok(())
}

fn add_prefix(all: &mut BTreeMap<IpNet, RemoteEndpoint>, address: IpAddr, length: u32, value: RemoteEndpoint) {
    if let Ok(prefix) = IpNet::new(address, length as u8) {
        all.insert(prefix, value);
    }
}

fn services(maps: &Maps) -> bpf::Result<Table> {
    let mut table = Table::default();
    for (id, backend) in maps.backends4.entries()? {
        let ip = IpAddr::V4(backend.addr.into());
        table.backends.insert(id, Address { ip, port: backend.port.number(), protocol: backend.protocol });
    }
    for (id, backend) in maps.backends6.entries()? {
        let ip = IpAddr::V6(backend.addr.into());
        table.backends.insert(id, Address { ip, port: backend.port.number(), protocol: backend.protocol });
    }
    let four = maps
        .services4
        .entries()?
        .into_iter()
        .map(|(k, v)| (IpAddr::V4(k.addr.into()), k.port, k.protocol, k.backend_slot, v));
    let six = maps
        .services6
        .entries()?
        .into_iter()
        .map(|(k, v)| (IpAddr::V6(k.addr.into()), k.port, k.protocol, k.backend_slot, v));
    let mut slots: BTreeMap<Address, BTreeMap<u16, Service>> = BTreeMap::new();
    for (ip, port, protocol, slot, value) in four.chain(six) {
        slots.entry(Address { ip, port: port.number(), protocol }).or_default().insert(slot, value);
    }
    for (address, slots) in slots {
        let Some(head) = slots.get(&0) else { continue };
        let backends = (1..=head.count).filter_map(|number| slots.get(&number)).map(|slot| slot.backend_id).collect();
        let frontend = Frontend {
            address,
            rev_nat: head.rev_nat,
            affinity: head.affinity_timeout,
            backends,
            service: Default::default(),
            port_name: String::new(),
        };
        table.frontends.insert(address, frontend);
    }
    Ok(table)
}

/// What became of operations.
#[derive(Debug, Default)]
pub struct Outcome<'a> {
    /// Slots whose policy is not what it is to be, and why; endpoints that were to use them are locked down.
    pub slots: BTreeMap<u32, String>,
    /// Slots that were emptied, and what their tables had counted.
    pub freed: Vec<(u32, Vec<(VerdictKey, CountedVerdict)>)>,
    /// Other operations that the datapath refused.
    pub refused: Vec<&'a Op>,
}

/// Does what the core says, in its order. What fails is logged.
pub fn apply<'a>(datapath: &Datapath, ops: &'a [Op]) -> Outcome<'a> {
    let mut outcome = Outcome::default();
    for op in ops {
        let result = match op {
            Op::UsePolicy(id, policy) if outcome.slots.contains_key(&policy.slot) => lock_down(datapath, *id, *policy),
            Op::FreeSlot(slot) => {
                datapath.maps().policy.free(*slot).map(|counted| outcome.freed.push((*slot, counted)))
            }
            _ => apply_one(datapath, op),
        };
        let Err(error) = result else { continue };
        match op {
            // Without its class an identity counts as one of all others, which may be wider.
            Op::InstallPolicy { slot, .. } | Op::SetClass(slot, ..) | Op::RemoveClass(slot, _) => {
                tracing::error!(slot, %error, "policy cannot be written");
                outcome.slots.insert(*slot, error.to_string());
            }
            _ => {
                tracing::error!(?op, %error, "datapath refused");
                outcome.refused.push(op);
            }
        }
    }
    outcome
}

fn lock_down(datapath: &Datapath, endpoint: u32, policy: EndpointPolicy) -> bpf::Result<()> {
    datapath.maps().ep_policy.insert(&endpoint, &EndpointPolicy { slot: 0, ..policy })
}

fn apply_one(datapath: &Datapath, op: &Op) -> bpf::Result<()> {
    let maps = datapath.maps();
    match op {
        Op::InstallPolicy { slot, classes, verdicts } => maps.policy.create(*slot, classes, verdicts),
        Op::SetClass(slot, identity, class) => maps.policy.class_set(*slot, *identity, *class),
        Op::RemoveClass(slot, identity) => maps.policy.class_remove(*slot, *identity).map(drop),
        Op::UsePolicy(id, policy) => maps.ep_policy.insert(id, policy),
        Op::FreeSlot(slot) => maps.policy.free(*slot).map(drop),
        Op::SetEndpoint(addresses, endpoint) => {
            if endpoint.ifindex != 0 {
                maps.devices.insert(&endpoint.ifindex, endpoint)?;
            }
            addresses.iter().try_for_each(|address| match address {
                IpAddr::V4(a) => maps.lxc4.insert(&V4::from(*a), endpoint),
                IpAddr::V6(a) => maps.lxc6.insert(&V6::from(*a), endpoint),
            })
        }
        Op::RemoveEndpoint(addresses, ifindex) => {
            for address in addresses {
                match address {
                    IpAddr::V4(a) => maps.lxc4.remove(&V4::from(*a))?,
                    IpAddr::V6(a) => maps.lxc6.remove(&V6::from(*a))?,
                };
            }
            maps.devices.remove(ifindex)?;
            datapath.remove_dead_links().map(drop)
        }
        Op::ForgetConnections(IpAddr::V4(a)) => maps.forget_address4(V4::from(*a)).map(drop),
        Op::ForgetConnections(IpAddr::V6(a)) => maps.forget_address6(V6::from(*a)).map(drop),
        Op::Ipcache(change) => write_prefix(maps, change),
        Op::BumpGeneration => datapath.bump_ipcache_generation().map(drop),
        Op::Services { old, new } => write_services(maps, old, new),
        Op::AllocateIdentity(_)
        | Op::Persist(_)
        | Op::Forget(_)
        | Op::Publish(..)
        | Op::Unpublish(..)
        | Op::PolicyStatus(..) => Ok(()),
    }
}

fn write_prefix(maps: &Maps, change: &Change) -> bpf::Result<()> {
    let (prefix, value) = match change {
        Change::Set(prefix, value) => (prefix, Some(value)),
        Change::Remove(prefix) => (prefix, None),
    };
    let prefix_len = u32::from(prefix.prefix_len());
    match (prefix, value) {
        (IpNet::V4(net), Some(value)) => {
            maps.ipcache4.insert(&IpcacheKey4 { prefix_len, addr: net.network().into() }, value)
        }
        (IpNet::V6(net), Some(value)) => {
            maps.ipcache6.insert(&IpcacheKey6 { prefix_len, addr: net.network().into() }, value)
        }
        (IpNet::V4(net), None) => {
            maps.ipcache4.remove(&IpcacheKey4 { prefix_len, addr: net.network().into() }).map(drop)
        }
        (IpNet::V6(net), None) => {
            maps.ipcache6.remove(&IpcacheKey6 { prefix_len, addr: net.network().into() }).map(drop)
        }
    }
}

/// New backends first, then services, then what is gone: a packet always finds the backend that it was given.
fn write_services(maps: &Maps, old: &Table, new: &Table) -> bpf::Result<()> {
    for (id, backend) in new.backends.iter().filter(|(id, b)| old.backends.get(*id) != Some(*b)) {
        let (port, protocol) = (Port::new(backend.port), backend.protocol);
        match backend.ip {
            IpAddr::V4(a) => maps.backends4.insert(id, &Backend { addr: V4::from(a), port, protocol, pad: 0 })?,
            IpAddr::V6(a) => maps.backends6.insert(id, &Backend { addr: V6::from(a), port, protocol, pad: 0 })?,
        }
    }
    for frontend in new.frontends.values() {
        let before = old.frontends.get(&frontend.address);
        let same = |b: &Frontend| {
            (b.rev_nat, b.affinity, &b.backends) == (frontend.rev_nat, frontend.affinity, &frontend.backends)
        };
        if !before.is_some_and(same) {
            write_frontend(maps, frontend, before.map_or(0, |b| b.backends.len()))?;
        }
    }
    for frontend in old.frontends.values().filter(|f| !new.frontends.contains_key(&f.address)) {
        remove_frontend(maps, frontend)?;
    }
    for (id, backend) in old.backends.iter().filter(|(id, _)| !new.backends.contains_key(*id)) {
        match backend.ip {
            IpAddr::V4(_) => maps.backends4.remove(id)?,
            IpAddr::V6(_) => maps.backends6.remove(id)?,
        };
    }
    Ok(())
}

fn put(maps: &Maps, address: &Address, slot: u16, value: &Service) -> bpf::Result<()> {
    let (port, protocol) = (Port::new(address.port), address.protocol);
    match address.ip {
        IpAddr::V4(a) => {
            let key = ServiceKey { addr: V4::from(a), port, backend_slot: slot, protocol, pad: [0; 3] };
            maps.services4.insert(&key, value)
        }
        IpAddr::V6(a) => {
            let key = ServiceKey { addr: V6::from(a), port, backend_slot: slot, protocol, pad: [0; 3] };
            maps.services6.insert(&key, value)
        }
    }
}

fn take(maps: &Maps, address: &Address, slot: u16) -> bpf::Result<bool> {
    let (port, protocol) = (Port::new(address.port), address.protocol);
    match address.ip {
        IpAddr::V4(a) => {
            maps.services4.remove(&ServiceKey { addr: V4::from(a), port, backend_slot: slot, protocol, pad: [0; 3] })
        }
        IpAddr::V6(a) => {
            maps.services6.remove(&ServiceKey { addr: V6::from(a), port, backend_slot: slot, protocol, pad: [0; 3] })
        }
    }
}

fn slots(backends: usize) -> u16 {
    u16::try_from(backends).unwrap_or(u16::MAX)
}

/// Growing: slots before the count. Shrinking: the count before slots.
fn write_frontend(maps: &Maps, frontend: &Frontend, before: usize) -> bpf::Result<()> {
    let (address, rev_nat) = (&frontend.address, frontend.rev_nat);
    match address.ip {
        IpAddr::V4(a) => {
            let value = ReverseNat { addr: V4::from(a), port: Port::new(address.port), pad: 0 };
            maps.reverse_nat4.insert(&u32::from(rev_nat), &value)?;
        }
        IpAddr::V6(a) => {
            let value = ReverseNat { addr: V6::from(a), port: Port::new(address.port), pad: 0 };
            maps.reverse_nat6.insert(&u32::from(rev_nat), &value)?;
        }
    }
    let count = slots(frontend.backends.len());
    for (slot, backend_id) in (1..=count).zip(&frontend.backends) {
        put(maps, address, slot, &Service { backend_id: *backend_id, ..Service::default() })?;
    }
    let head = Service { backend_id: 0, count, rev_nat, flags: FLAG_CLUSTER_IP, affinity_timeout: frontend.affinity };
    put(maps, address, 0, &head)?;
    (count + 1..=slots(before)).try_for_each(|slot| take(maps, address, slot).map(drop))
}

fn remove_frontend(maps: &Maps, frontend: &Frontend) -> bpf::Result<()> {
    for slot in 0..=slots(frontend.backends.len()) {
        take(maps, &frontend.address, slot)?;
    }
    match frontend.address.ip {
        IpAddr::V4(_) => maps.reverse_nat4.remove(&u32::from(frontend.rev_nat)).map(drop),
        IpAddr::V6(_) => maps.reverse_nat6.remove(&u32::from(frontend.rev_nat)).map(drop),
    }
}
