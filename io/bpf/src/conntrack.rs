//! Which connections and translations are over, and how are they removed?

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use abi::conntrack::{CtEntry, CtKey};
use abi::nat::{NatEntry, NatKey};
use abi::{Plain, V4, V6};

use crate::error::Result;
use crate::maps::Maps;
use crate::table::Table;

/// What a sweep found.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Sweep {
    /// Entries that stay.
    pub alive: usize,
    /// Entries that were removed.
    pub removed: usize,
}

impl Maps {
    /// Removes connections whose time is over, IPv4 and IPv6; `uptime` is the time since boot (`CLOCK_MONOTONIC`). The
    /// addresses of those that stay are shown.
    pub fn sweep_conntrack(&self, uptime: Duration, alive: &mut dyn FnMut(IpAddr, IpAddr)) -> Result<[Sweep; 2]> {
        let now = uptime.as_secs() as u32;
        let v4 = sweep_ct(&self.ct4, now, &mut |one: Ipv4Addr, other| alive(one.into(), other.into()))?;
        let v6 = sweep_ct(&self.ct6, now, &mut |one: Ipv6Addr, other| alive(one.into(), other.into()))?;
        Ok([v4, v6])
    }

    /// Removes masquerading entries that were not used for `idle`, IPv4 and IPv6.
    pub fn sweep_nat(&self, uptime: Duration, idle: Duration) -> Result<[Sweep; 2]> {
        let oldest = uptime.saturating_sub(idle).as_secs() as u32;
        Ok([sweep_nat(&self.nat4, oldest)?, sweep_nat(&self.nat6, oldest)?])
    }

    /// Forgets every connection; the next packet of each is judged as a first one.
    pub fn flush_conntrack(&self) -> Result<Sweep> {
        let removed = self.ct4.entries()?.len() + self.ct6.entries()?.len();
        self.ct4.clear()?;
        self.ct6.clear()?;
        Ok(Sweep { alive: 0, removed })
    }

    /// Forgets the connections of an address that is being released, so that the next owner inherits none.
    pub fn forget_address4(&self, address: V4) -> Result<Sweep> {
        forget(&self.ct4, address)
    }

    /// As [`Maps::forget_address4`].
    pub fn forget_address6(&self, address: V6) -> Result<Sweep> {
        forget(&self.ct6, address)
    }
}

fn sweep_ct<A: Copy + Into<Ip>, Ip>(
    table: &Table<CtKey<A>, CtEntry>,
    now: u32,
    alive: &mut dyn FnMut(Ip, Ip),
) -> Result<Sweep>
where
    CtKey<A>: Plain,
{
    remove_where(table, |key, entry| {
        let over = entry.expires.get() < now;
        if !over {
            alive(key.addr_a.into(), key.addr_b.into());
        }
        over
    })
}

fn sweep_nat<A: Copy>(table: &Table<NatKey<A>, NatEntry<A>>, oldest: u32) -> Result<Sweep>
where
    NatKey<A>: Plain,
    NatEntry<A>: Plain,
{
    remove_where(table, |_, entry| entry.last_used.get() < oldest)
}

fn forget<A: Copy + PartialEq>(table: &Table<CtKey<A>, CtEntry>, address: A) -> Result<Sweep>
where
    CtKey<A>: Plain,
{
    remove_where(table, |key, _| key.addr_a == address || key.addr_b == address)
}

fn remove_where<K: Plain, V: Plain>(table: &Table<K, V>, mut over: impl FnMut(&K, &V) -> bool) -> Result<Sweep> {
    let entries = table.entries()?;
    let all = entries.len();
    let dead: Vec<K> = entries.into_iter().filter(|(k, v)| over(k, v)).map(|(k, _)| k).collect();
    table.remove_all(&dead)?;
    Ok(Sweep { alive: all - dead.len(), removed: dead.len() })
}
