//! How does the kernel's datapath get a node and a packet?

use crate::state::{CLIENT_IF, State};
use abi::event::Event;
use anyhow::{Context, Result};
use bpf::{Datapath, EventReader, Hook, Maps, Options, Sizes, SlotDump, TestInput};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use std::cell::RefCell;
use tempfile::TempDir;

/// The programs, loaded and attached to nothing.
pub struct Kernel {
    datapath: Datapath,
    events: RefCell<EventReader>,
    counted: RefCell<Vec<(abi::metrics::MetricKey, u64)>>,
    folder: TempDir,
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
}

impl Kernel {
    /// Loads the programs in a mount and network namespace of this thread's own.
    pub fn open() -> Result<Kernel> {
        let folder = TempDir::with_prefix("parity")?;
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).context("namespaces (needs root)")?;
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        mount(Some("bpf"), folder.path(), Some("bpf"), MsFlags::empty(), none)?;
        let sizes =
            Sizes { conntrack: 8192, nat: 8192, services: 1024, policy_slots: 16, ipcache: 1024, ..Sizes::default() };
        let datapath = Datapath::open(&Options { pin_dir: folder.path().join("pins"), sizes })?;
        let events = RefCell::new(datapath.events()?);
        Ok(Kernel { datapath, events, counted: RefCell::default(), folder })
    }

    /// The tables.
    pub fn maps(&self) -> &Maps {
        self.datapath.maps()
    }

    /// Makes the kernel's node the one that is given, without connections.
    pub fn apply(&self, state: &State) -> Result<()> {
        let maps = self.maps();
        maps.flush_conntrack()?;
        macro_rules! family {
            ($tables:expr, $lxc:ident, $ipcache:ident, $services:ident, $backends:ident, $reverse:ident, $nat:ident, $fragments:ident) => {{
                let tables = $tables;
                maps.$nat.clear()?;
                maps.$fragments.clear()?;
                maps.$services.clear()?;
                maps.$backends.clear()?;
                maps.$lxc.insert_all(&tables.endpoints)?;
                maps.$ipcache.insert_all(&tables.ipcache)?;
                maps.$services.insert_all(&tables.services)?;
                maps.$backends.insert_all(&tables.backends)?;
                maps.$reverse.insert_all(&tables.reverse_nat)?;
            }};
        }
        family!(state.tables4(), lxc4, ipcache4, services4, backends4, reverse_nat4, nat4, fragments4);
        family!(state.tables6(), lxc6, ipcache6, services6, backends6, reverse_nat6, nat6, fragments6);
        maps.devices.insert_all(&state.devices())?;
        self.renew(state, (0..state.policies.len()).collect())?;
        self.events.borrow_mut().drain(usize::MAX, |_| {});
        *self.counted.borrow_mut() = self.metrics()?;
        Ok(())
    }

    /// Brings the kernel's node to the state after a change of some policies; its connections stay.
    pub fn renew(&self, state: &State, policies: Vec<usize>) -> Result<()> {
        let maps = self.maps();
        maps.ipcache4.insert_all(&state.tables4().ipcache)?;
        maps.ipcache6.insert_all(&state.tables6().ipcache)?;
        let mut slots = Vec::new();
        for (_, policy, tables) in policies.iter().filter_map(|place| state.policies.get(*place)) {
            let classes = tables.classes.iter().map(|(identity, class)| (*identity, *class)).collect();
            slots.push((policy.slot, SlotDump { classes, verdicts: tables.verdicts.clone() }));
        }
        maps.policy.create_all(&slots)?;
        for (id, policy, _) in &state.policies {
            maps.ep_policy.insert(id, policy)?;
        }
        maps.node_config.insert(&0, &state.config)?;
        Ok(())
    }

    /// Sends a packet through the program of a hook.
    pub fn send(&self, hook: Hook, packet: &[u8]) -> Result<Real> {
        let out = self.datapath.test_run(hook, &TestInput { packet, ifindex: CLIENT_IF, repeat: 1 })?;
        let mut events = Vec::new();
        self.events.borrow_mut().drain(usize::MAX, |event| events.push(event));
        Ok(Real { action: out.action, packet: out.packet, events })
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

/// Seconds since boot, as the programs count them.
pub fn seconds() -> Result<u32> {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC_COARSE)?;
    Ok(u32::try_from(now.tv_sec())?)
}

impl Drop for Kernel {
    fn drop(&mut self) {
        // a folder on which something is mounted cannot be removed
        let _ = umount2(self.folder.path(), MntFlags::MNT_DETACH);
    }
}
