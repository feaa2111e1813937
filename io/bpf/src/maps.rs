//! Which tables does the datapath have, and how does user space get hold of them?

use std::fs;
use std::path::Path;

use abi::config::{FLAG_PROXY, NodeConfig};
use abi::conntrack::{CtEntry, CtKey4, CtKey6};
use abi::endpoint::{Endpoint, EndpointPolicy};
use abi::fragment::{FragmentKey4, FragmentKey6, FragmentPorts};
use abi::ipcache::{IpcacheKey4, IpcacheKey6, RemoteEndpoint};
use abi::metrics::{EventCounters, Metric, MetricKey};
use abi::nat::{NatEntry, NatKey4, NatKey6};
use abi::proxy::{ProxySocket, SocketCookie};
use abi::service::{Affinity, AffinityKey, Backend, ReverseNat, Service, ServiceKey4, ServiceKey6, SocketKey};
use abi::{Plain, V4, V6, pins};

use crate::error::{Error, Result};
use crate::layout::{self, Sizes, Spec};
use crate::slots::PolicySlots;
use crate::sys;
use crate::table::{PerCpuTable, Sum, Table};

/// All tables. Every method of theirs is one or a few system calls; all may be used from several threads.
#[derive(Debug)]
pub struct Maps {
    /// Endpoints by IPv4 address.
    pub lxc4: Table<V4, Endpoint>,
    /// Endpoints by IPv6 address.
    pub lxc6: Table<V6, Endpoint>,
    /// Endpoints by interface index.
    pub devices: Table<u32, Endpoint>,
    /// Policy of each endpoint, by endpoint id. Reading an id that was never written gives slot 0 (deny all).
    pub ep_policy: Table<u32, EndpointPolicy>,
    /// Policies.
    pub policy: PolicySlots,
    /// IP cache, IPv4.
    pub ipcache4: Table<IpcacheKey4, RemoteEndpoint>,
    /// IP cache, IPv6.
    pub ipcache6: Table<IpcacheKey6, RemoteEndpoint>,
    /// Connections, IPv4.
    pub ct4: Table<CtKey4, CtEntry>,
    /// Connections, IPv6.
    pub ct6: Table<CtKey6, CtEntry>,
    /// Masquerading, IPv4.
    pub nat4: Table<NatKey4, NatEntry<V4>>,
    /// Masquerading, IPv6.
    pub nat6: Table<NatKey6, NatEntry<V6>>,
    /// Services, IPv4.
    pub services4: Table<ServiceKey4, Service>,
    /// Services, IPv6.
    pub services6: Table<ServiceKey6, Service>,
    /// Backends, IPv4.
    pub backends4: Table<u32, Backend<V4>>,
    /// Backends, IPv6.
    pub backends6: Table<u32, Backend<V6>>,
    /// Reverse NAT, IPv4.
    pub reverse_nat4: Table<u32, ReverseNat<V4>>,
    /// Reverse NAT, IPv6.
    pub reverse_nat6: Table<u32, ReverseNat<V6>>,
    /// Which service a socket asked for, IPv4.
    pub reverse_sk4: Table<SocketKey<V4>, ReverseNat<V4>>,
    /// Which service a socket asked for, IPv6.
    pub reverse_sk6: Table<SocketKey<V6>, ReverseNat<V6>>,
    /// Session affinity.
    pub affinity: Table<AffinityKey, Affinity>,
    /// Fragmented datagrams, IPv4.
    pub fragments4: Table<FragmentKey4, FragmentPorts>,
    /// Fragmented datagrams, IPv6.
    pub fragments6: Table<FragmentKey6, FragmentPorts>,
    /// In whose name sockets of the proxy speak.
    pub proxy_sockets: Table<SocketCookie, ProxySocket>,
    /// The node's configuration (key 0).
    pub node_config: Table<u32, NodeConfig>,
    /// Packets by fate.
    pub metrics: PerCpuTable<MetricKey, Metric>,
    event_counters: PerCpuTable<u32, EventCounters>,
}

impl Maps {
    /// Opens the maps pinned in `pin_dir` for reading only (any size); nothing is created.
    pub fn open_pinned(pin_dir: &Path) -> Result<Maps> {
        let sizes = Sizes::default();
        Maps::assemble(&sizes, &|spec| layout::open(pin_dir, spec, sys::F_RDONLY))
    }

    /// Opens the maps pinned in `pin_dir`, making those that are missing or of another layout.
    pub(crate) fn open_or_create(pin_dir: &Path, sizes: &Sizes) -> Result<Maps> {
        let maps = Maps::assemble(sizes, &|spec| layout::open_or_create(pin_dir, spec))?;
        // The ring buffer has no table: its reader maps it into memory.
        if let Some(events) = layout::specs(sizes).iter().find(|s| s.name == pins::EVENTS) {
            layout::open_or_create(pin_dir, events)?;
        }
        maps.policy.prepare(sizes.policy_slots)?;
        Ok(maps)
    }

    fn assemble(sizes: &Sizes, open: &dyn Fn(&Spec) -> Result<std::os::fd::OwnedFd>) -> Result<Maps> {
        let from = Source { specs: layout::specs(sizes), open, processors: processors()? };
        Ok(Maps {
            lxc4: from.table(pins::LXC4)?,
            lxc6: from.table(pins::LXC6)?,
            devices: from.table(pins::DEVICES)?,
            ep_policy: from.table(pins::EP_POLICY)?,
            policy: PolicySlots::new(
                from.table(pins::POLICY_CLASSES)?,
                from.table(pins::POLICY_VERDICTS)?,
                sizes.policy_entries,
            ),
            ipcache4: from.table(pins::IPCACHE4)?,
            ipcache6: from.table(pins::IPCACHE6)?,
            ct4: from.table(pins::CT4)?,
            ct6: from.table(pins::CT6)?,
            nat4: from.table(pins::SNAT4)?,
            nat6: from.table(pins::SNAT6)?,
            services4: from.table(pins::LB4_SERVICES)?,
            services6: from.table(pins::LB6_SERVICES)?,
            backends4: from.table(pins::LB4_BACKENDS)?,
            backends6: from.table(pins::LB6_BACKENDS)?,
            reverse_nat4: from.table(pins::LB4_REVERSE_NAT)?,
            reverse_nat6: from.table(pins::LB6_REVERSE_NAT)?,
            reverse_sk4: from.table(pins::LB4_REVERSE_SK)?,
            reverse_sk6: from.table(pins::LB6_REVERSE_SK)?,
            affinity: from.table(pins::LB_AFFINITY)?,
            fragments4: from.table(pins::FRAGMENTS4)?,
            fragments6: from.table(pins::FRAGMENTS6)?,
            proxy_sockets: from.table(pins::PROXY_SOCKETS)?,
            node_config: from.table(pins::NODE_CONFIG)?,
            metrics: from.per_cpu(pins::METRICS)?,
            event_counters: from.per_cpu(pins::EVENT_COUNTERS)?,
        })
    }

    /// How many events were sent, and for how many the ring buffer had no room: (sent, lost).
    pub fn event_counters(&self) -> Result<(u64, u64)> {
        let counters = self.event_counters.get(&0)?.unwrap_or_default();
        Ok((counters.sent.get(), counters.lost.get()))
    }

    /// The configuration under which the programs run.
    pub fn config(&self) -> Result<NodeConfig> {
        Ok(self.node_config.get(&0)?.unwrap_or_default())
    }

    /// Replaces the configuration; of the running one the IP cache generation is kept, and that there is a proxy, whose
    /// connections may still run.
    pub fn set_config(&self, config: &NodeConfig) -> Result<()> {
        let running = self.config()?;
        let ipcache_generation = running.ipcache_generation.max(config.ipcache_generation).max(1);
        let flags = config.flags | running.flags & FLAG_PROXY;
        self.node_config.insert(&0, &NodeConfig { ipcache_generation, flags, ..*config })
    }

    /// Makes the programs look for connections of the proxy, from now on. One caller at a time, as below.
    pub fn look_for_proxy(&self) -> Result<()> {
        let config = self.config()?;
        if config.flags & FLAG_PROXY != 0 {
            return Ok(());
        }
        self.node_config.insert(&0, &NodeConfig { flags: config.flags | FLAG_PROXY, ..config })
    }

    /// Makes every connection ask again for identities and policy. Call it after an IP cache change that makes earlier
    /// answers wrong (a prefix changed its identity or was removed). One caller at a time.
    pub fn bump_ipcache_generation(&self) -> Result<u32> {
        let mut config = self.config()?;
        config.ipcache_generation = config.ipcache_generation.wrapping_add(1).max(1);
        self.node_config.insert(&0, &config)?;
        Ok(config.ipcache_generation)
    }
}

/// What the proxy has open: both tables of connections for reading, and the sockets of its own for writing.
pub(crate) fn of_proxy(pin_dir: &Path) -> Result<ProxyTables> {
    let specs = layout::specs(&Sizes::default());
    let reading = |spec: &Spec| layout::open(pin_dir, spec, sys::F_RDONLY);
    let connections = Source { specs, open: &reading, processors: 1 };
    let writing = |spec: &Spec| layout::open_any_size(pin_dir, spec);
    let sockets = Source { specs: layout::specs(&Sizes::default()), open: &writing, processors: 1 };
    Ok((connections.table(pins::CT4)?, connections.table(pins::CT6)?, sockets.table(pins::PROXY_SOCKETS)?))
}

type ProxyTables = (Table<CtKey4, CtEntry>, Table<CtKey6, CtEntry>, Table<SocketCookie, ProxySocket>);

struct Source<'a> {
    specs: Vec<Spec>,
    open: &'a dyn Fn(&Spec) -> Result<std::os::fd::OwnedFd>,
    processors: usize,
}

impl Source<'_> {
    fn spec(&self, name: &str) -> &Spec {
        self.specs.iter().find(|s| s.name == name).expect("every table has a layout")
    }

    fn table<K: Plain, V: Plain>(&self, name: &str) -> Result<Table<K, V>> {
        let spec = self.spec(name);
        debug_assert_eq!((spec.shape.key_size, spec.shape.value_size), (size_of::<K>() as u32, size_of::<V>() as u32));
        Ok(Table::new(name, (self.open)(spec)?))
    }

    fn per_cpu<K: Plain, V: Sum>(&self, name: &str) -> Result<PerCpuTable<K, V>> {
        Ok(PerCpuTable::new(name, (self.open)(self.spec(name))?, self.processors))
    }
}

/// Number of processors for which per-CPU maps have a part: all that the kernel could ever have.
fn processors() -> Result<usize> {
    let path = Path::new("/sys/devices/system/cpu/possible");
    let pin_error = |source| Error::Pin { operation: "read", path: path.into(), source };
    let text = fs::read_to_string(path).map_err(pin_error)?;
    let last = text.trim().rsplit(['-', ',']).next().and_then(|n| n.parse::<usize>().ok());
    last.map(|n| n + 1).ok_or_else(|| pin_error(std::io::Error::other(format!("no processor list: {text:?}"))))
}
