//! How does the kernel's datapath get a node and a packet?

use crate::state::{CLIENT_IF, PROXY_PORT};
use crate::tables::Tables;
use abi::event::Event;
use anyhow::{Context, Result};
use bpf::{Datapath, EventReader, Hook, Maps, Options, Sizes, Table, TestInput};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// The programs, loaded and attached to nothing.
pub struct Kernel {
    datapath: Datapath,
    events: RefCell<EventReader>,
    counted: RefCell<Vec<(abi::metrics::MetricKey, u64)>>,
    folder: TempDir,
    /// Where the proxy would listen. Test runs give no packet to a socket, but find it.
    _listeners: Vec<(TcpListener, UdpSocket)>,
}

/// What became of a packet.
#[derive(Debug)]
pub struct Real {
    /// `TC_ACT_*`.
    pub action: u32,
    /// Its bytes then.
    pub packet: Vec<u8>,
    /// What was told.
    pub events: Vec<Event>,
    /// The mark that it has then.
    pub mark: u32,
}

impl Kernel {
    /// Loads the programs in a mount and network namespace of this thread's own.
    pub fn open() -> Result<Kernel> {
        Kernel::sized(8192)
    }

    /// The same with tables for so many connections.
    pub fn sized(connections: u32) -> Result<Kernel> {
        let folder = TempDir::with_prefix("parity")?;
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).context("namespaces (needs root)")?;
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        mount(Some("bpf"), folder.path(), Some("bpf"), MsFlags::empty(), none)?;
        let sizes = Sizes {
            conntrack: connections,
            nat: 8192,
            services: 1024,
            policy_slots: 128,
            ipcache: 1024,
            ..Sizes::default()
        };
        let datapath = Datapath::open(&Options { sizes, ..Options::new(folder.path().join("pins")) })?;
        let events = RefCell::new(datapath.events()?);
        let done = Command::new("ip").args(["link", "set", "lo", "up"]).status().context("run ip")?;
        anyhow::ensure!(done.success(), "bring lo up: {done}");
        let loopbacks = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        let listen = |loopback| -> Result<_> {
            let at = (loopback, PROXY_PORT.number());
            Ok((TcpListener::bind(at)?, UdpSocket::bind(at)?))
        };
        let listeners = loopbacks.into_iter().map(listen).collect::<Result<_>>().context("listen as the proxy")?;
        Ok(Kernel { datapath, events, counted: RefCell::default(), folder, _listeners: listeners })
    }

    /// The tables.
    pub fn maps(&self) -> &Maps {
        self.datapath.maps()
    }

    /// Makes the kernel's node the one that is given, without connections.
    pub fn apply(&self, tables: &Tables) -> Result<()> {
        let maps = self.maps();
        maps.flush_conntrack()?;
        maps.nat4.clear()?;
        maps.nat6.clear()?;
        maps.fragments4.clear()?;
        maps.fragments6.clear()?;
        self.renew(tables)?;
        self.install(tables, |_| true)?;
        self.events.borrow_mut().drain(usize::MAX, |_| {});
        *self.counted.borrow_mut() = self.metrics()?;
        Ok(())
    }

    /// Gives the kernel's node other tables, beside policies; its connections stay.
    pub fn renew(&self, tables: &Tables) -> Result<()> {
        let maps = self.maps();
        macro_rules! family {
            ($tables:expr, $lxc:ident, $ipcache:ident, $services:ident, $backends:ident, $reverse:ident) => {{
                replace(&maps.$lxc, &$tables.endpoints)?;
                replace(&maps.$ipcache, &$tables.ipcache)?;
                replace(&maps.$services, &$tables.services)?;
                replace(&maps.$backends, &$tables.backends)?;
                replace(&maps.$reverse, &$tables.reverse_nat)?;
            }};
        }
        family!(tables.v4, lxc4, ipcache4, services4, backends4, reverse_nat4);
        family!(tables.v6, lxc6, ipcache6, services6, backends6, reverse_nat6);
        replace(&maps.devices, &tables.devices)?;
        maps.node_config.insert(&0, &tables.config)?;
        Ok(())
    }

    /// Writes the policies of the endpoints that are picked.
    pub fn install(&self, tables: &Tables, picked: impl Fn(u32) -> bool) -> Result<()> {
        let maps = self.maps();
        let slots = tables.policies.iter().zip(tables.slots()).filter(|((id, _, _), _)| picked(*id));
        let slots: Vec<_> = slots.map(|(_, slot)| slot).collect();
        maps.policy.create_all(&slots)?;
        for (id, policy, _) in &tables.policies {
            maps.ep_policy.insert(id, policy)?;
        }
        Ok(())
    }

    /// Sends a packet through the program of a hook.
    pub fn send(&self, hook: Hook, packet: &[u8]) -> Result<Real> {
        let out = self.datapath.test_run(hook, &TestInput { packet, ifindex: CLIENT_IF, repeat: 1 })?;
        let mut events = Vec::new();
        self.events.borrow_mut().drain(usize::MAX, |event| events.push(event));
        Ok(Real { action: out.action, packet: out.packet, events, mark: out.mark })
    }

    fn metrics(&self) -> Result<Vec<(abi::metrics::MetricKey, u64)>> {
        Ok(self.maps().metrics.entries()?.into_iter().map(|(key, m)| (key, m.packets.get())).collect())
    }

    /// Packets counted since the node was made, by reason and direction.
    pub fn counted(&self) -> Result<Vec<((u8, u8), u64)>> {
        let before = self.counted.borrow();
        let earlier = |key| before.iter().find(|(k, _)| *k == key).map_or(0, |(_, count)| *count);
        let since = self.metrics()?.into_iter().map(|(key, count)| ((key.reason, key.direction), count - earlier(key)));
        let mut since: Vec<_> = since.filter(|(_, count)| *count > 0).collect();
        since.sort_unstable();
        Ok(since)
    }
}

/// Makes a table hold these entries and no others.
fn replace<K: abi::Plain, V: abi::Plain>(table: &Table<K, V>, entries: &[(K, V)]) -> Result<()> {
    table.clear()?;
    table.insert_all(entries)?;
    Ok(())
}

/// How long a packet may take through both datapaths.
const MARGIN: Duration = Duration::from_millis(100);

/// The second that it is for the programs, and will be for a while yet: at the end of one the next is waited for, because
/// both datapaths are to see the same.
pub fn seconds() -> Result<u32> {
    loop {
        let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC_COARSE)?;
        let nanoseconds = u64::try_from(now.tv_sec() * 1_000_000_000 + now.tv_nsec())?;
        let second = |nanoseconds| abi::conntrack::second(nanoseconds);
        if second(nanoseconds) == second(nanoseconds + MARGIN.as_nanos() as u64) {
            return Ok(second(nanoseconds));
        }
        std::thread::sleep(MARGIN / 10);
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        // a folder on which something is mounted cannot be removed
        let _ = umount2(self.folder.path(), MntFlags::MNT_DETACH);
    }
}
