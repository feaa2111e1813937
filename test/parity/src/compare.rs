//! Do both datapaths say the same?

use crate::kernel::{Kernel, Real};
use crate::state::CLIENT_IF;
use abi::conntrack::{CtEntry, CtKey};
use abi::event::Event;
use abi::policy::{CountedVerdict, VerdictKey};
use bpf::{Hook, Table};
use pipeline::native::{self, Action, Input, Node, Outcome, Shelf};
use std::fmt::Debug;
use std::hash::Hash;

/// What the native datapath does.
pub fn native(node: &Node, hook: Hook, packet: &[u8], now: u32) -> Outcome {
    let hook = match hook {
        Hook::FromContainer => native::Hook::Container,
        Hook::FromHost => native::Hook::Host,
        Hook::FromNetdev => native::Hook::Netdev,
        Hook::ToNetdev => native::Hook::ToNetdev,
        // nor is a packet marked that nothing has marked
        Hook::ToHost => native::Hook::ToHost(0),
        // outside of a tunnel there is no tunnel's key
        Hook::FromOverlay => native::Hook::Overlay(0, abi::V4(0)),
    };
    native::run(node, &Input { hook, ifindex: CLIENT_IF, packet, now, seed: 1 })
}

/// The first difference between two outcomes of a packet.
pub fn outcomes(native: &Outcome, real: &Real) -> Result<(), String> {
    let action = match native.action {
        Action::Stack | Action::Marked(_) | Action::Proxy(_) => 0,
        Action::Dropped => 2,
        Action::Peer(_) | Action::Device(_) | Action::Tunnel { .. } => 7,
    };
    same("action", &action, &real.action)?;
    let mark = if let Action::Marked(mark) = native.action { mark } else { 0 };
    same("mark", &mark, &if action == 2 { mark } else { real.mark })?;
    same("number of events", &native.events.len(), &real.events.len())?;
    for (a, b) in native.events.iter().zip(&real.events) {
        same("event", &timeless(a), &timeless(b))?;
    }
    // of a packet that is gone nobody sees the bytes
    if action == 2 { Ok(()) } else { same("packet", &native.packet, &real.packet) }
}

fn timeless(event: &Event) -> Event {
    Event { time: 0, ..*event }
}

fn same<T: PartialEq + Debug>(what: &str, native: &T, real: &T) -> Result<(), String> {
    if native == real { Ok(()) } else { Err(format!("{what}: native {native:02x?}, kernel {real:02x?}")) }
}

/// The first difference between the tables of both.
pub fn tables(node: &Node, kernel: &Kernel) -> Result<(), String> {
    connections(&node.v4.connections, &kernel.maps().ct4)?;
    connections(&node.v6.connections, &kernel.maps().ct6)?;
    let mut native = Vec::new();
    for reason in 0..=255 {
        for direction in 0..3 {
            let count = node.counted(reason, direction);
            if count > 0 {
                native.push(((reason, direction), count));
            }
        }
    }
    native.sort_unstable();
    let real = kernel.counted().map_err(|e| e.to_string())?;
    same("counters (reason, direction) to packets", &native, &real)?;
    node.policies.iter().try_for_each(|(slot, policy)| {
        let mut native: Vec<_> = policy.verdicts.iter().map(asked).collect();
        let real = kernel.maps().policy.counted(*slot).map_err(|e| e.to_string())?;
        let mut real: Vec<_> = real.iter().map(asked).collect();
        native.sort_unstable();
        real.sort_unstable();
        same(&format!("packets and bytes that asked verdicts of slot {slot}"), &native, &real)
    })
}

/// How often a verdict was the answer.
fn asked((key, value): &(VerdictKey, CountedVerdict)) -> (VerdictKey, u64, u64) {
    (*key, value.packets.get(), value.bytes.get())
}

fn connections<A>(native: &Shelf<CtKey<A>, CtEntry>, real: &Table<CtKey<A>, CtEntry>) -> Result<(), String>
where
    A: Copy + Eq + Hash + Debug + 'static,
    CtKey<A>: abi::Plain,
{
    let entries = real.entries().map_err(|e| e.to_string())?;
    same("number of connections", &native.len(), &entries.len())?;
    for (key, entry) in entries {
        let Some(ours) = native.get(&key) else { return Err(format!("connection of the kernel alone: {key:?}")) };
        same(&format!("connection {key:?}"), &without_times(ours), &without_times(&entry))?;
    }
    Ok(())
}

/// As text, which names the field that differs.
fn without_times(entry: &CtEntry) -> String {
    let entry = CtEntry { created: 0, ..entry.clone() };
    entry.expires.set(0);
    entry.reported.iter().for_each(|at| at.set(0));
    format!("{entry:?}")
}
