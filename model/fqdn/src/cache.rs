//! How long does an address stand for a name? As long as an answer says so, and then while a connection uses it.
//!
//! Each endpoint has its answers. An address stands for a name on this node while some endpoint has it so. When the
//! time of an answer is over, a connection of that endpoint to the address keeps it: it is *held* until the connection
//! has been idle for a grace period. Times are seconds since the epoch, of a clock that nobody sets.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// What a DNS answer said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The name that was asked for, in lower case and without the dot at its end.
    pub name: String,
    /// The addresses that it stands for.
    pub addresses: Vec<IpAddr>,
    /// For how many seconds.
    pub ttl: u32,
}

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// An answer counts for at least so many seconds (`tofqdns-min-ttl`).
    pub min_ttl: u32,
    /// Addresses of one name and endpoint (`tofqdns-endpoint-max-ip-per-hostname`): of more, those that end first go.
    pub addresses_per_name: usize,
    /// Addresses of an endpoint that are held though their answers are over (`tofqdns-max-deferred-connection-deletes`).
    pub held: usize,
    /// Names of one endpoint: of more, those that end first go. Without it a pod that asks for ever new names would fill
    /// the memory.
    pub names: usize,
    /// For so many seconds a connection that ended keeps its address (`tofqdns-idle-connection-grace-period`).
    pub grace: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { min_ttl: 0, addresses_per_name: 1000, held: 10_000, names: 50_000, grace: 0 }
    }
}

/// A name that came to stand for an address on this node, or does not any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Name and address.
    pub added: BTreeSet<(String, IpAddr)>,
    /// Name and address.
    pub removed: BTreeSet<(String, IpAddr)>,
}

impl Change {
    /// Nothing changed.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty()
    }

    fn add(&mut self, name: &str, address: IpAddr) {
        let pair = (name.to_owned(), address);
        if !self.removed.remove(&pair) {
            self.added.insert(pair);
        }
    }

    fn remove(&mut self, name: &str, address: IpAddr) {
        let pair = (name.to_owned(), address);
        if !self.added.remove(&pair) {
            self.removed.insert(pair);
        }
    }
}

/// Why an address stands for a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// An answer says so.
    Lookup,
    /// An answer said so, and a connection still uses it.
    Connection,
}

/// An address that stands for a name, for one endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found<'a> {
    /// Number of the endpoint.
    pub endpoint: u32,
    /// The name.
    pub name: &'a str,
    /// The address.
    pub address: IpAddr,
    /// Why.
    pub source: Source,
    /// When the answer came.
    pub looked_up: u64,
    /// What it said.
    pub ttl: u32,
    /// When its time is or was over.
    pub expires: u64,
}

/// One answer for one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    looked_up: u64,
    ttl: u32,
    expires: u64,
    /// Its time is over; when a connection was last seen to use it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    held: Option<u64>,
}

type Entries = BTreeMap<IpAddr, Entry>;

/// All that is known, by endpoint.
#[derive(Clone, Debug, Default)]
pub struct Cache {
    limits: Limits,
    endpoints: BTreeMap<u32, BTreeMap<String, Entries>>,
    /// How many endpoints have an address for a name.
    by_name: BTreeMap<String, BTreeMap<IpAddr, usize>>,
    /// The names of an address.
    by_address: HashMap<IpAddr, BTreeSet<String>>,
    version: u64,
    taken_away: u64,
}

impl Cache {
    /// An empty one.
    pub fn new(limits: Limits) -> Cache {
        Cache { limits, ..Cache::default() }
    }

    /// An endpoint got an answer. What it says holds at least as long as any earlier answer said of the same address.
    pub fn learn(&mut self, endpoint: u32, answer: &Answer, now: u64) -> Change {
        let mut change = Change::default();
        self.version += 1;
        let ttl = answer.ttl.max(self.limits.min_ttl);
        let expires = now.saturating_add(ttl.into());
        let names = self.endpoints.entry(endpoint).or_default();
        if names.len() >= self.limits.names && !names.contains_key(&answer.name) {
            let last = |entries: &Entries| entries.values().map(|entry| entry.expires).max().unwrap_or(0);
            let first = names.iter().min_by_key(|(_, entries)| last(entries)).map(|(name, _)| name.clone());
            if let Some(name) = first {
                self.drop_name(endpoint, &name, &mut change);
            }
        }
        for address in &answer.addresses {
            let names = self.endpoints.entry(endpoint).or_default();
            let entries = names.entry(answer.name.clone()).or_default();
            let new = Entry { looked_up: now, ttl, expires, held: None };
            match entries.get_mut(address) {
                Some(known) if known.held.is_none() && known.expires > expires => {}
                Some(known) => *known = new,
                None => {
                    entries.insert(*address, new);
                    self.count(&answer.name, *address, &mut change);
                }
            }
        }
        self.keep_to_limit(endpoint, &answer.name, &mut change);
        change
    }

    /// Time has passed. An answer that says to end later than its time from now on is from before the clock was set back, and
    /// ends then. `in_use` tells whether a connection of an endpoint to an address is open.
    pub fn expire(&mut self, now: u64, in_use: &dyn Fn(u32, IpAddr) -> bool) -> Change {
        let mut change = Change::default();
        let mut gone = Vec::new();
        for (endpoint, names) in &mut self.endpoints {
            for (name, entries) in names {
                for entry in entries.values_mut() {
                    entry.expires = entry.expires.min(now.saturating_add(entry.ttl.into()));
                }
                for (address, entry) in entries.iter_mut().filter(|(_, entry)| entry.expires <= now) {
                    if in_use(*endpoint, *address) {
                        entry.held = Some(now);
                        continue;
                    }
                    // Without a connection so far the grace begins with the end of the answer's time.
                    let since = *entry.held.get_or_insert(entry.expires);
                    if since.saturating_add(self.limits.grace) <= now {
                        gone.push((*endpoint, name.clone(), *address));
                    }
                }
            }
        }
        self.version += u64::from(!gone.is_empty());
        for (endpoint, name, address) in gone {
            self.drop_entry(endpoint, &name, address, &mut change);
        }
        let endpoints: Vec<u32> = self.endpoints.keys().copied().collect();
        for endpoint in endpoints {
            self.keep_to_held(endpoint, &mut change);
        }
        change
    }

    /// The endpoint is gone, and with it what only it knew.
    pub fn forget(&mut self, endpoint: u32) -> Change {
        let mut change = Change::default();
        self.version += 1;
        let names: Vec<String> =
            self.endpoints.get(&endpoint).into_iter().flat_map(|all| all.keys().cloned()).collect();
        names.iter().for_each(|name| self.drop_name(endpoint, name, &mut change));
        self.endpoints.remove(&endpoint);
        change
    }

    /// Forgets names of every endpoint, as users ask for: answers and what connections hold.
    pub fn clean(&mut self, is_meant: impl Fn(&str) -> bool) -> Change {
        let mut change = Change::default();
        self.version += 1;
        let all = self.endpoints.iter();
        let meant: Vec<(u32, String)> = all
            .flat_map(|(endpoint, names)| names.keys().map(move |name| (*endpoint, name)))
            .filter(|(_, name)| is_meant(name))
            .map(|(endpoint, name)| (endpoint, name.clone()))
            .collect();
        meant.iter().for_each(|(endpoint, name)| self.drop_name(*endpoint, name, &mut change));
        change
    }

    /// The addresses that stand for a name.
    pub fn addresses(&self, name: &str) -> impl Iterator<Item = IpAddr> + '_ {
        self.by_name.get(name).into_iter().flat_map(|addresses| addresses.keys().copied())
    }

    /// Every name that stands for some address.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    /// The names that an address stands for, to anybody here.
    pub fn names_of(&self, address: IpAddr) -> impl Iterator<Item = &str> {
        self.by_address.get(&address).into_iter().flatten().map(String::as_str)
    }

    /// Everything, by endpoint, name and address.
    pub fn iter(&self) -> impl Iterator<Item = Found<'_>> {
        self.endpoints.iter().flat_map(|(endpoint, names)| of_endpoint(*endpoint, names))
    }

    /// What an endpoint was told.
    pub fn of_endpoint(&self, endpoint: u32) -> impl Iterator<Item = Found<'_>> {
        self.endpoints.get(&endpoint).into_iter().flat_map(move |names| of_endpoint(endpoint, names))
    }

    /// How an endpoint came to the names of an address.
    pub fn why(&self, endpoint: u32, address: IpAddr) -> impl Iterator<Item = Found<'_>> {
        let names = self.by_address.get(&address).into_iter().flatten();
        names.filter_map(move |name| {
            let entry = self.endpoints.get(&endpoint)?.get(name)?.get(&address)?;
            Some(found(endpoint, name, address, entry))
        })
    }

    /// Grows with everything that may be worth saving.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// How many addresses went though the time of their answers was not over. Whoever remembers that they were learned is to
    /// forget it.
    pub fn taken_away(&self) -> u64 {
        self.taken_away
    }

    /// What is to survive a restart.
    pub fn save(&self) -> Saved {
        Saved { endpoints: self.endpoints.clone() }
    }

    /// Takes over what survived a restart; answers whose time is over go with the next [`Cache::expire`], unless they are
    /// in use.
    pub fn restore(&mut self, saved: Saved) -> Change {
        let mut change = Change::default();
        for (endpoint, names) in saved.endpoints {
            for (name, entries) in names {
                for (address, entry) in entries {
                    let known = self.endpoints.entry(endpoint).or_default().entry(name.clone()).or_default();
                    if known.insert(address, entry).is_none() {
                        self.count(&name, address, &mut change);
                    }
                }
                self.keep_to_limit(endpoint, &name, &mut change);
            }
        }
        change
    }

    fn count(&mut self, name: &str, address: IpAddr, change: &mut Change) {
        let users = self.by_name.entry(name.to_owned()).or_default().entry(address).or_default();
        *users += 1;
        if *users == 1 {
            self.by_address.entry(address).or_default().insert(name.to_owned());
            change.add(name, address);
        }
    }

    fn discount(&mut self, name: &str, address: IpAddr, change: &mut Change) {
        let Some(addresses) = self.by_name.get_mut(name) else { return };
        let Some(users) = addresses.get_mut(&address) else { return };
        *users -= 1;
        if *users > 0 {
            return;
        }
        addresses.remove(&address);
        if addresses.is_empty() {
            self.by_name.remove(name);
        }
        if let Some(names) = self.by_address.get_mut(&address) {
            names.remove(name);
            if names.is_empty() {
                self.by_address.remove(&address);
            }
        }
        change.remove(name, address);
    }

    fn drop_entry(&mut self, endpoint: u32, name: &str, address: IpAddr, change: &mut Change) {
        let Some(names) = self.endpoints.get_mut(&endpoint) else { return };
        let Some(entries) = names.get_mut(name) else { return };
        let known = entries.remove(&address);
        if entries.is_empty() {
            names.remove(name);
        }
        if names.is_empty() {
            self.endpoints.remove(&endpoint);
        }
        if let Some(entry) = known {
            self.taken_away += u64::from(entry.held.is_none());
            self.discount(name, address, change);
        }
    }

    fn drop_name(&mut self, endpoint: u32, name: &str, change: &mut Change) {
        let entries = self.endpoints.get(&endpoint).and_then(|names| names.get(name));
        let addresses: Vec<IpAddr> = entries.into_iter().flat_map(|entries| entries.keys().copied()).collect();
        addresses.into_iter().for_each(|address| self.drop_entry(endpoint, name, address, change));
    }

    fn keep_to_limit(&mut self, endpoint: u32, name: &str, change: &mut Change) {
        let entries = self.endpoints.get(&endpoint).and_then(|names| names.get(name));
        let Some(entries) = entries.filter(|entries| entries.len() > self.limits.addresses_per_name) else { return };
        let mut by_end: Vec<(u64, IpAddr)> = entries.iter().map(|(address, entry)| (entry.expires, *address)).collect();
        by_end.sort_unstable();
        let excess = entries.len() - self.limits.addresses_per_name;
        by_end.into_iter().take(excess).for_each(|(_, address)| self.drop_entry(endpoint, name, address, change));
    }

    fn keep_to_held(&mut self, endpoint: u32, change: &mut Change) {
        let Some(names) = self.endpoints.get(&endpoint) else { return };
        let mut held: Vec<(u64, &String, IpAddr)> = Vec::new();
        for (name, entries) in names {
            held.extend(entries.iter().filter(|(_, e)| e.held.is_some()).map(|(a, e)| (e.expires, name, *a)));
        }
        if held.len() <= self.limits.held {
            return;
        }
        held.sort_unstable();
        let excess = held.len() - self.limits.held;
        let gone: Vec<(String, IpAddr)> = held.into_iter().take(excess).map(|(_, n, a)| (n.clone(), a)).collect();
        gone.into_iter().for_each(|(name, address)| self.drop_entry(endpoint, &name, address, change));
    }
}

/// What is kept of a [`Cache`] over a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Saved {
    endpoints: BTreeMap<u32, BTreeMap<String, Entries>>,
}

fn of_endpoint(endpoint: u32, names: &BTreeMap<String, Entries>) -> impl Iterator<Item = Found<'_>> {
    names.iter().flat_map(move |(name, entries)| {
        entries.iter().map(move |(address, entry)| found(endpoint, name, *address, entry))
    })
}

fn found<'a>(endpoint: u32, name: &'a str, address: IpAddr, entry: &Entry) -> Found<'a> {
    let source = if entry.held.is_some() { Source::Connection } else { Source::Lookup };
    let Entry { looked_up, ttl, expires, .. } = *entry;
    Found { endpoint, name, address, source, looked_up, ttl, expires }
}
