//! How does a policy get into the kernel as a whole, and how does a running one take a new identity?

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use abi::identity::Identity;
use abi::policy::{
    CLASS_OTHERS, Class, DIR_EGRESS, DIR_INGRESS, MATCH_NONE, PREFIX_ANY_PROTOCOL, VERDICT_DEFAULT_DENY, VerdictEntry,
    VerdictKey,
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
    /// Class, direction, protocol and port to verdict.
    pub verdicts: Vec<(VerdictKey, VerdictEntry)>,
}

/// The policy slots: pairs of maps, built aside and put into place.
#[derive(Debug)]
pub struct PolicySlots {
    classes: Table<u32, u32>,
    verdicts: Table<u32, u32>,
    max_verdicts: u32,
}

/// Slot 0 denies everything; an endpoint whose policy was never written uses it.
pub const DENY_ALL: u32 = 0;

impl PolicySlots {
    pub(crate) fn new(classes: Table<u32, u32>, verdicts: Table<u32, u32>, max_verdicts: u32) -> Self {
        PolicySlots { classes, verdicts, max_verdicts }
    }

    pub(crate) fn ensure_deny_all(&self) -> Result<()> {
        self.create(DENY_ALL, &[], &deny_all())
    }

    /// Builds both tables aside and puts them into the slot. Until an endpoint's policy names the slot nobody sees them,
    /// so use a slot that none names. Fails, and leaves the slot as it was, if there are more verdicts than a policy may
    /// have: the caller then keeps the old policy or locks down.
    pub fn create(
        &self,
        slot: u32,
        classes: &[(Identity, Class)],
        verdicts: &[(VerdictKey, VerdictEntry)],
    ) -> Result<()> {
        self.create_all(&[(slot, SlotDump { classes: classes.to_vec(), verdicts: verdicts.to_vec() })])
    }

    /// The same for many slots at once, which costs hardly more than one: each write to an array of maps waits until no
    /// program uses the old map any more, some ten milliseconds, however many slots it is about.
    pub fn create_all(&self, slots: &[(u32, SlotDump)]) -> Result<()> {
        if let Some((slot, _)) = slots.iter().find(|(_, tables)| tables.verdicts.len() > self.max_verdicts as usize) {
            return Err(self.verdicts_full(*slot));
        }
        let mut built = Vec::with_capacity(slots.len());
        for (slot, tables) in slots {
            built.push((*slot, class_table_of(&tables.classes)?, verdict_table_of(&tables.verdicts)?));
        }
        let verdicts: Vec<(u32, u32)> = built.iter().map(|(slot, _, verdicts)| (*slot, raw(verdicts))).collect();
        let classes: Vec<(u32, u32)> = built.iter().map(|(slot, classes, _)| (*slot, raw(classes))).collect();
        self.verdicts.insert_all(&verdicts)?;
        self.classes.insert_all(&classes)
    }

    /// Lets an identity belong to a class in a slot that is in use. A full table is replaced by a larger copy.
    pub fn class_set(&self, slot: u32, identity: Identity, class: Class) -> Result<()> {
        let table = self.open_classes(slot)?;
        match table.insert(&identity, &class) {
            Err(Error::Map { source, .. }) if source.raw_os_error() == Some(libc::E2BIG) => {
                let mut all = table.entries()?;
                all.push((identity, class));
                let larger = class_table_of(&all)?;
                self.classes.insert(&slot, &raw(&larger))
            }
            other => other,
        }
    }

    /// Lets an identity fall back to [`CLASS_OTHERS`] in a slot that is in use; false: it had no class of its own.
    pub fn class_remove(&self, slot: u32, identity: Identity) -> Result<bool> {
        self.open_classes(slot)?.remove(&identity)
    }

    /// Empties a slot that no endpoint names; packets that still find it are dropped.
    pub fn free(&self, slot: u32) -> Result<()> {
        // Verdicts first: without them nothing passes, without classes everybody would be one of the others.
        self.verdicts.remove(&slot)?;
        self.classes.remove(&slot).map(drop)
    }

    /// What a slot holds; nothing: it is empty.
    pub fn dump(&self, slot: u32) -> Result<Option<SlotDump>> {
        let Some(classes) = inner::<Identity, Class>(&self.classes, slot)? else { return Ok(None) };
        let Some(verdicts) = inner::<VerdictKey, VerdictEntry>(&self.verdicts, slot)? else { return Ok(None) };
        Ok(Some(SlotDump { classes: classes.entries()?, verdicts: verdicts.entries()? }))
    }

    /// The slots in use, ascending.
    pub fn used(&self) -> Result<Vec<u32>> {
        let mut slots: Vec<u32> = self.verdicts.entries()?.into_iter().map(|(slot, _)| slot).collect();
        slots.sort_unstable();
        Ok(slots)
    }

    fn open_classes(&self, slot: u32) -> Result<Table<Identity, Class>> {
        inner(&self.classes, slot)?.ok_or_else(|| Error::Map {
            map: pins::POLICY_CLASSES.into(),
            operation: "open the policy in",
            key: format!("slot {slot}"),
            source: std::io::Error::from_raw_os_error(libc::ENOENT),
        })
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

fn class_table_of(entries: &[(Identity, Class)]) -> Result<Table<Identity, Class>> {
    let shape = layout::classes(capacity(entries.len()));
    let table = Table::new("cilium_policy_c", layout::create_shape("classes", &shape)?);
    table.insert_all(entries)?;
    Ok(table)
}

fn verdict_table_of(entries: &[(VerdictKey, VerdictEntry)]) -> Result<Table<VerdictKey, VerdictEntry>> {
    let shape = layout::verdicts((entries.len() as u32).max(2));
    let table = Table::new("cilium_policy_v", layout::create_shape("verdicts", &shape)?);
    table.insert_all(entries)?;
    Ok(table)
}

fn raw<K: abi::Plain, V: abi::Plain>(table: &Table<K, V>) -> u32 {
    table.fd().as_raw_fd() as u32
}

/// Opens the map in a slot of an array of maps.
fn inner<K: abi::Plain, V: abi::Plain>(outer: &Table<u32, u32>, slot: u32) -> Result<Option<Table<K, V>>> {
    let Some(id) = outer.get(&slot)? else { return Ok(None) };
    let pick = |source| Error::Map { map: outer.name().into(), operation: "open", key: format!("slot {slot}"), source };
    let fd: OwnedFd = sys::map_by_id(id).map_err(pick)?;
    let shape = sys::map_shape(fd.as_fd()).map_err(pick)?;
    if (shape.key_size as usize, shape.value_size as usize) != (size_of::<K>(), size_of::<V>()) {
        return Err(pick(std::io::Error::other(format!("another layout: {shape:?}"))));
    }
    Ok(Some(Table::new(outer.name(), fd)))
}
