//! How is a map of the kernel read and written as a table of typed keys and values?

use std::fmt::Write;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use abi::{Plain, bytes_of, from_bytes};

use crate::error::{Error, Result};
use crate::sys;

/// Entries that are moved by one system call.
const BATCH: usize = 512;

/// A hash, LRU hash, LPM trie or array with keys `K` and values `V`.
#[derive(Debug)]
pub struct Table<K, V> {
    name: String,
    fd: OwnedFd,
    types: PhantomData<fn(K) -> V>,
}

impl<K: Plain, V: Plain> Table<K, V> {
    /// The caller has checked that key and value sizes are those of `K` and `V`.
    pub(crate) fn new(name: &str, fd: OwnedFd) -> Self {
        Table { name: name.to_string(), fd, types: PhantomData }
    }

    /// Name of the map.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Writes an entry, replacing an older one.
    pub fn insert(&self, key: &K, value: &V) -> Result<()> {
        sys::map_update(self.fd(), bytes_of(key), bytes_of(value), 0).map_err(|e| self.error("insert", key, e))
    }

    /// Writes an entry; false: the key is there already and stays as it is.
    pub fn insert_new(&self, key: &K, value: &V) -> Result<bool> {
        match sys::map_update(self.fd(), bytes_of(key), bytes_of(value), sys::NO_EXIST) {
            Ok(()) => Ok(true),
            Err(e) if e.raw_os_error() == Some(libc::EEXIST) => Ok(false),
            Err(e) => Err(self.error("insert", key, e)),
        }
    }

    /// The value of a key.
    pub fn get(&self, key: &K) -> Result<Option<V>> {
        let mut value = vec![0; size_of::<V>()];
        let found = sys::map_lookup(self.fd(), bytes_of(key), &mut value);
        Ok(if found.map_err(|e| self.error("read", key, e))? { from_bytes(&value) } else { None })
    }

    /// Removes an entry; false: there was none.
    pub fn remove(&self, key: &K) -> Result<bool> {
        sys::map_delete(self.fd(), bytes_of(key)).map_err(|e| self.error("remove", key, e))
    }

    /// Writes many entries with few system calls.
    pub fn insert_all(&self, entries: &[(K, V)]) -> Result<()> {
        for chunk in entries.chunks(BATCH) {
            let keys: Vec<u8> = chunk.iter().flat_map(|(k, _)| bytes_of(k)).copied().collect();
            let values: Vec<u8> = chunk.iter().flat_map(|(_, v)| bytes_of(v)).copied().collect();
            if let Err((done, e)) = sys::map_update_batch(self.fd(), &keys, &values, chunk.len() as u32) {
                self.one_by_one(chunk, done as usize, e)?;
            }
        }
        Ok(())
    }

    /// Where a batch stopped, the rest is written singly: that also names the key at fault.
    fn one_by_one(&self, chunk: &[(K, V)], done: usize, batch_error: io::Error) -> Result<()> {
        tracing::debug!(map = self.name, done, error = %batch_error, "batched write stopped");
        // An old kernel without batches for this map type reports nothing done at all.
        chunk.iter().skip(done.min(chunk.len())).try_for_each(|(k, v)| self.insert(k, v))
    }

    /// Removes many keys; those that are not there do not matter.
    pub fn remove_all(&self, keys: &[K]) -> Result<()> {
        for chunk in keys.chunks(BATCH) {
            let bytes: Vec<u8> = chunk.iter().flat_map(bytes_of).copied().collect();
            if let Err((done, _)) = sys::map_delete_batch(self.fd(), &bytes, chunk.len() as u32) {
                chunk.iter().skip(done as usize).try_for_each(|k| self.remove(k).map(drop))?;
            }
        }
        Ok(())
    }

    /// Removes every entry.
    pub fn clear(&self) -> Result<()> {
        let keys: Vec<K> = self.entries()?.into_iter().map(|(k, _)| k).collect();
        self.remove_all(&keys)
    }

    /// All entries. While others write, each is one that was there at some moment of the call.
    pub fn entries(&self) -> Result<Vec<(K, V)>> {
        let mut all = Vec::new();
        let (mut cursor, mut room) = (sys::Cursor::new(), BATCH);
        let mut keys = vec![0; room * size_of::<K>()];
        let mut values = vec![0; room * size_of::<V>()];
        loop {
            match sys::map_lookup_batch(self.fd(), &mut cursor, (&mut keys, &mut values), room as u32) {
                Ok((count, more)) => {
                    all.extend(pairs::<K, V>(&keys, &values, count as usize));
                    if !more {
                        return Ok(all);
                    }
                }
                // One bucket has more entries than the buffer.
                Err(e) if e.raw_os_error() == Some(libc::ENOSPC) => {
                    room *= 2;
                    keys.resize(room * size_of::<K>(), 0);
                    values.resize(room * size_of::<V>(), 0);
                }
                Err(e) if unsupported(&e) => return self.entries_one_by_one(),
                Err(e) => return Err(self.general_error("list", e)),
            }
        }
    }

    fn entries_one_by_one(&self) -> Result<Vec<(K, V)>> {
        let mut all = Vec::new();
        let mut next = vec![0; size_of::<K>()];
        let mut at: Option<Vec<u8>> = None;
        while sys::map_next_key(self.fd(), at.as_deref(), &mut next).map_err(|e| self.general_error("list", e))? {
            let key: Option<K> = from_bytes(&next);
            if let Some(key) = key
                && let Some(value) = self.get(&key)?
            {
                all.push((key, value));
            }
            at = Some(next.clone());
        }
        Ok(all)
    }

    fn error(&self, operation: &'static str, key: &K, source: io::Error) -> Error {
        Error::Map { map: self.name.clone(), operation, key: hex(bytes_of(key)), source }
    }

    fn general_error(&self, operation: &'static str, source: io::Error) -> Error {
        Error::Map { map: self.name.clone(), operation, key: "-".into(), source }
    }
}

/// The kernel or the map type has no batches.
fn unsupported(e: &io::Error) -> bool {
    // 524 is the kernel's own ENOTSUPP.
    matches!(e.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP | 524))
}

fn pairs<K: Plain, V: Plain>(keys: &[u8], values: &[u8], count: usize) -> impl Iterator<Item = (K, V)> {
    let keys = keys.chunks_exact(size_of::<K>());
    keys.zip(values.chunks_exact(size_of::<V>())).take(count).filter_map(|(k, v)| from_bytes(k).zip(from_bytes(v)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, b| {
        let _ = write!(out, "{b:02x}");
        out
    })
}

/// Values that are the sum of one part per processor.
pub trait Sum: Plain {
    /// Nothing counted.
    fn zero() -> Self;
    /// Both together.
    fn add(self, other: Self) -> Self;
    /// Is it nothing?
    fn is_zero(&self) -> bool;
}

/// A per-CPU hash or array whose parts are summed.
#[derive(Debug)]
pub struct PerCpuTable<K, V> {
    table: Table<K, u8>,
    processors: usize,
    value: PhantomData<fn() -> V>,
}

impl<K: Plain, V: Sum> PerCpuTable<K, V> {
    pub(crate) fn new(name: &str, fd: OwnedFd, processors: usize) -> Self {
        PerCpuTable { table: Table::new(name, fd), processors, value: PhantomData }
    }

    /// The sum over all processors.
    pub fn get(&self, key: &K) -> Result<Option<V>> {
        // The kernel gives each processor's part a multiple of eight bytes.
        let part = size_of::<V>().next_multiple_of(8);
        let mut values = vec![0; part * self.processors];
        let found = sys::map_lookup(self.table.fd(), bytes_of(key), &mut values);
        if !found.map_err(|e| self.table.error("read", key, e))? {
            return Ok(None);
        }
        let parts = values.chunks_exact(part).filter_map(|p| from_bytes::<V>(&p[..size_of::<V>()]));
        Ok(Some(parts.fold(V::zero(), V::add)))
    }

    /// All keys with their sums, where anything was counted.
    pub fn entries(&self) -> Result<Vec<(K, V)>> {
        let mut all = Vec::new();
        let mut next = vec![0; size_of::<K>()];
        let mut at: Option<Vec<u8>> = None;
        let fd = self.table.fd();
        while sys::map_next_key(fd, at.as_deref(), &mut next).map_err(|e| self.table.general_error("list", e))? {
            if let Some(key) = from_bytes::<K>(&next)
                && let Some(sum) = self.get(&key)?
                && !sum.is_zero()
            {
                all.push((key, sum));
            }
            at = Some(next.clone());
        }
        Ok(all)
    }
}

impl Sum for abi::metrics::Metric {
    fn zero() -> Self {
        Self::default()
    }

    fn add(self, other: Self) -> Self {
        self.packets.set(self.packets.get() + other.packets.get());
        self.bytes.set(self.bytes.get() + other.bytes.get());
        self
    }

    fn is_zero(&self) -> bool {
        self.packets.get() == 0
    }
}

impl Sum for abi::metrics::EventCounters {
    fn zero() -> Self {
        Self::default()
    }

    fn add(self, other: Self) -> Self {
        self.sent.set(self.sent.get() + other.sent.get());
        self.lost.set(self.lost.get() + other.lost.get());
        self
    }

    fn is_zero(&self) -> bool {
        self.sent.get() == 0 && self.lost.get() == 0
    }
}
