//! How does a policy get into the kernel as a whole, and how does a running one take a new identity?

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use abi::identity::Identity;
use abi::policy::{
    CLASS_OTHERS, Class, CountedVerdict, DIR_EGRESS, DIR_INGRESS, MATCH_NONE, PREFIX_ANY_PROTOCOL,
    VERDICT_DEFAULT_DENY, VerdictEntry, VerdictKey,
};
use abi::{Port, pins};

use crate::error::{Error, Result};
use crate::table::Table;
use crate::{layout, sys};

/// What a slot holds.
#[derive(Debug, Default, Clone)]
pub struct SlotDump {
    /// Identity to class.
    pub classes: Vec<(Identity, Class)>,
    /// Class, direction, protocol and port to verdict, and how often it was the answer.
    pub verdicts: Vec<(VerdictKey, CountedVerdict)>,
}

/// The policy slots: pairs of maps, one of classes and one of verdicts.
///
/// A write to an array of maps waits until no program uses the old map any more, tens of milliseconds. Some free slots
/// therefore have empty maps of usual size from the beginning: a policy that goes there is written into them, and
/// nothing waits.
#[derive(Debug)]
pub struct PolicySlots {
    classes: Table<u32, u32>,
    verdicts: Table<u32, u32>,
    max_verdicts: u32,
    prepared: Mutex<HashMap<u32, Tables>>,
    open: Mutex<HashMap<u32, Open>>,
}

/// A slot's map of classes, held open because identities come and go.
#[derive(Debug)]
struct Open {
    /// Number of the map. If the slot has another one by now, this one is nobody's.
    id: u32,
    classes: Table<Identity, Class>,
}

/// Maps that are held open at a time.
const MOST_OPEN: usize = 256;

/// Both maps of a slot.
#[derive(Debug)]
struct Tables {
    classes: Table<Identity, Class>,
    verdicts: Table<VerdictKey, CountedVerdict>,
}

/// Slot 0 denies everything; an endpoint whose policy was never written uses it.
pub const DENY_ALL: u32 = 0;
/// Slots that are prepared when the maps are opened: the lowest that are free.
const PREPARED: u32 = 48;
/// Entries that the maps of a prepared slot take; a larger policy gets maps of its own.
const USUAL_CLASSES: u32 = 1024;
/// See [`USUAL_CLASSES`].
const USUAL_VERDICTS: u32 = 2048;

impl PolicySlots {
    pub(crate) fn new(classes: Table<u32, u32>, verdicts: Table<u32, u32>, max_verdicts: u32) -> Self {
        PolicySlots { classes, verdicts, max_verdicts, prepared: Mutex::default(), open: Mutex::default() }
    }

    /// Makes slot 0 deny all, and gives free slots their empty maps.
    pub(crate) fn prepare(&self, slots: u32) -> Result<()> {
        let used = self.used()?;
        let mut all = vec![(DENY_ALL, Tables::of(&SlotDump::of(&[], &deny_all()))?)];
        for slot in (1..slots.min(PREPARED + 1)).filter(|slot| !used.contains(slot)) {
            all.push((slot, Tables::empty()?));
        }
        self.install(&all)?;
        self.lock().extend(all.into_iter().filter(|(slot, _)| *slot != DENY_ALL));
        Ok(())
    }

    /// Fills the slot. Until an endpoint's policy names the slot nobody sees it, so use a slot that none names. Fails, and
    /// leaves the slot as it was, if there are more verdicts than a policy may have: the caller then keeps the old policy
    /// or locks down.
    pub fn create(
        &self,
        slot: u32,
        classes: &[(Identity, Class)],
        verdicts: &[(VerdictKey, VerdictEntry)],
    ) -> Result<()> {
        self.create_all(&[(slot, SlotDump::of(classes, verdicts))])
    }

    /// The same for many slots at once, which costs hardly more than one.
    pub fn create_all(&self, slots: &[(u32, SlotDump)]) -> Result<()> {
        if let Some((slot, _)) = slots.iter().find(|(_, tables)| tables.verdicts.len() > self.max_verdicts as usize) {
            return Err(self.verdicts_full(*slot));
        }
        let mut aside = Vec::new();
        for (slot, wanted) in slots {
            match self.lock().remove(slot) {
                Some(tables) if wanted.fits() => tables.fill(wanted)?,
                _ => aside.push((*slot, Tables::of(wanted)?)),
            }
        }
        self.install(&aside)
    }

    /// Puts maps into their slots.
    fn install(&self, all: &[(u32, Tables)]) -> Result<()> {
        let verdicts: Vec<(u32, u32)> = all.iter().map(|(slot, tables)| (*slot, raw(&tables.verdicts))).collect();
        let classes: Vec<(u32, u32)> = all.iter().map(|(slot, tables)| (*slot, raw(&tables.classes))).collect();
        // Verdicts first: without them nothing passes, without classes everybody would be one of the others.
        self.verdicts.insert_all(&verdicts)?;
        self.classes.insert_all(&classes)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u32, Tables>> {
        // A panic elsewhere leaves a map of whole entries.
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets an identity belong to a class in a slot that is in use. A full table is replaced by a larger copy.
    pub fn class_set(&self, slot: u32, identity: Identity, class: Class) -> Result<()> {
        self.with_classes(slot, |table| match table.insert(&identity, &class) {
            Err(Error::Map { source, .. }) if source.raw_os_error() == Some(libc::E2BIG) => {
                let mut all = table.entries()?;
                all.push((identity, class));
                let larger = class_table(capacity(all.len()))?;
                larger.insert_all(&all)?;
                self.classes.insert(&slot, &raw(&larger))
            }
            other => other,
        })
    }

    /// Lets an identity fall back to [`CLASS_OTHERS`] in a slot that is in use; false: it had no class of its own.
    pub fn class_remove(&self, slot: u32, identity: Identity) -> Result<bool> {
        self.with_classes(slot, |table| table.remove(&identity))
    }

    /// Does something with a slot's classes. One question finds out whether the map that is open is still the slot's.
    fn with_classes<T>(&self, slot: u32, work: impl FnOnce(&Table<Identity, Class>) -> Result<T>) -> Result<T> {
        let id = self.classes.get(&slot)?.ok_or_else(|| no_policy(slot))?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = open.get(&slot).filter(|there| there.id == id) {
            return work(&there.classes);
        }
        if open.len() >= MOST_OPEN {
            open.clear();
        }
        let classes = by_id(&self.classes, slot, id)?;
        work(&open.entry(slot).insert_entry(Open { id, classes }).get().classes)
    }

    /// Empties a slot that no endpoint names; packets that still find it are dropped. It returns when no packet does, so
    /// the slot may be used again at once, and what it tells of the slot's verdicts is all that they ever counted.
    pub fn free(&self, slot: u32) -> Result<Vec<(VerdictKey, CountedVerdict)>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&slot);
        let verdicts = inner::<VerdictKey, CountedVerdict>(&self.verdicts, slot)?;
        if slot > PREPARED {
            // Verdicts first, as above.
            self.verdicts.remove(&slot)?;
            self.classes.remove(&slot)?;
        } else {
            let fresh = [(slot, Tables::empty()?)];
            self.install(&fresh)?;
            self.lock().extend(fresh);
        }
        verdicts.map_or(Ok(Vec::new()), |verdicts| verdicts.entries())
    }

    /// What the verdicts of a slot have counted so far.
    pub fn counted(&self, slot: u32) -> Result<Vec<(VerdictKey, CountedVerdict)>> {
        let verdicts = inner::<VerdictKey, CountedVerdict>(&self.verdicts, slot)?;
        verdicts.map_or(Ok(Vec::new()), |verdicts| verdicts.entries())
    }

    /// What a slot holds; nothing: it is empty.
    pub fn dump(&self, slot: u32) -> Result<Option<SlotDump>> {
        let Some(classes) = inner::<Identity, Class>(&self.classes, slot)? else { return Ok(None) };
        let Some(verdicts) = inner::<VerdictKey, CountedVerdict>(&self.verdicts, slot)? else { return Ok(None) };
        let dump = SlotDump { classes: classes.entries()?, verdicts: verdicts.entries()? };
        Ok((!dump.verdicts.is_empty()).then_some(dump))
    }

    /// The slots in use, ascending.
    pub fn used(&self) -> Result<Vec<u32>> {
        let mut slots = Vec::new();
        for (slot, _) in self.verdicts.entries()? {
            if self.dump(slot)?.is_some() {
                slots.push(slot);
            }
        }
        slots.sort_unstable();
        Ok(slots)
    }

    fn verdicts_full(&self, slot: u32) -> Error {
        Error::Map {
            map: pins::POLICY_VERDICTS.into(),
            operation: "build a policy larger than allowed",
            key: format!("slot {slot}, at most {} verdicts", self.max_verdicts),
            source: std::io::Error::from_raw_os_error(libc::E2BIG),
        }
    }
}

/// The verdicts that let nothing pass.
fn deny_all() -> [(VerdictKey, VerdictEntry); 2] {
    let entry =
        VerdictEntry { rule_set: 0, verdict: VERDICT_DEFAULT_DENY, match_type: MATCH_NONE, proxy_port: Port(0) };
    [DIR_INGRESS, DIR_EGRESS].map(|direction| {
        let prefix_len = PREFIX_ANY_PROTOCOL;
        (VerdictKey { prefix_len, class: CLASS_OTHERS, direction, protocol: 0, port: Port(0) }, entry)
    })
}

fn capacity(entries: usize) -> u32 {
    u32::try_from(entries).unwrap_or(u32::MAX / 4).saturating_mul(2).max(64)
}

fn class_table(max_entries: u32) -> Result<Table<Identity, Class>> {
    Ok(Table::new("cilium_policy_c", layout::create_shape("classes", &layout::classes(max_entries))?))
}

fn verdict_table(max_entries: u32) -> Result<Table<VerdictKey, CountedVerdict>> {
    Ok(Table::new("cilium_policy_v", layout::create_shape("verdicts", &layout::verdicts(max_entries))?))
}

impl SlotDump {
    /// A policy that nobody has asked so far.
    pub fn of(classes: &[(Identity, Class)], verdicts: &[(VerdictKey, VerdictEntry)]) -> Self {
        let verdicts = verdicts.iter().map(|(key, entry)| (*key, (*entry).into())).collect();
        SlotDump { classes: classes.to_vec(), verdicts }
    }

    /// Does it go into the maps of a prepared slot, with room for identities to come?
    fn fits(&self) -> bool {
        self.classes.len() * 2 <= USUAL_CLASSES as usize && self.verdicts.len() <= USUAL_VERDICTS as usize
    }
}

impl Tables {
    fn empty() -> Result<Tables> {
        Ok(Tables { classes: class_table(USUAL_CLASSES)?, verdicts: verdict_table(USUAL_VERDICTS)? })
    }

    fn of(policy: &SlotDump) -> Result<Tables> {
        let most = (policy.verdicts.len() as u32).max(2);
        let tables = Tables { classes: class_table(capacity(policy.classes.len()))?, verdicts: verdict_table(most)? };
        tables.fill(policy)?;
        Ok(tables)
    }

    /// Classes before verdicts: as long as there are none of these, nothing passes.
    fn fill(&self, policy: &SlotDump) -> Result<()> {
        self.classes.insert_all(&policy.classes)?;
        self.verdicts.insert_all(&policy.verdicts)
    }
}

fn raw<K: abi::Plain, V: abi::Plain>(table: &Table<K, V>) -> u32 {
    table.fd().as_raw_fd() as u32
}

/// Opens the map in a slot of an array of maps.
fn inner<K: abi::Plain, V: abi::Plain>(outer: &Table<u32, u32>, slot: u32) -> Result<Option<Table<K, V>>> {
    outer.get(&slot)?.map(|id| by_id(outer, slot, id)).transpose()
}

fn by_id<K: abi::Plain, V: abi::Plain>(outer: &Table<u32, u32>, slot: u32, id: u32) -> Result<Table<K, V>> {
    let pick = |source| Error::Map { map: outer.name().into(), operation: "open", key: format!("slot {slot}"), source };
    let fd: OwnedFd = sys::map_by_id(id).map_err(pick)?;
    let shape = sys::map_shape(fd.as_fd()).map_err(pick)?;
    if (shape.key_size as usize, shape.value_size as usize) != (size_of::<K>(), size_of::<V>()) {
        return Err(pick(std::io::Error::other(format!("another layout: {shape:?}"))));
    }
    Ok(Table::new(outer.name(), fd))
}

fn no_policy(slot: u32) -> Error {
    Error::Map {
        map: pins::POLICY_CLASSES.into(),
        operation: "open the policy in",
        key: format!("slot {slot}"),
        source: std::io::Error::from_raw_os_error(libc::ENOENT),
    }
}
