//! Which slot has which policy, and which endpoint uses it?

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use abi::endpoint::{EndpointPolicy, MODE_EGRESS, MODE_INGRESS};

use super::endpoints::{Applied, Kind, State};
use super::{Core, Endpoint};
use abi::identity::Identity;

use crate::engine::Tables;
use crate::ops::Op;

const REVISION_BITS: u32 = 0x3fff_ffff;
const MOST_SLOTS: u32 = 16384;

/// The policies in the datapath.
#[derive(Debug, Default)]
pub struct Slots {
    installed: BTreeMap<Identity, Installed>,
    used: BTreeSet<u32>,
    /// Slots that are emptied at the end of this round: only then may others have them.
    leaving: Vec<u32>,
    /// Slots of an earlier run, until their endpoints have new ones.
    earlier: BTreeSet<u32>,
    restored: BTreeMap<u32, Applied>,
    revision: u32,
}

#[derive(Debug)]
struct Installed {
    slot: u32,
    tables: Arc<Tables>,
    /// Revision of the repository.
    revision: u64,
}

impl Slots {
    pub(super) fn new(slots: &[u32], policies: &BTreeMap<u32, EndpointPolicy>) -> Self {
        let earlier: BTreeSet<u32> = slots.iter().copied().filter(|slot| *slot != 0).collect();
        let restored = policies.iter().map(|(id, policy)| (*id, applied(policy))).collect();
        let revision = policies.values().map(|p| p.revision_and_modes & REVISION_BITS).max().unwrap_or(0);
        Slots { installed: BTreeMap::new(), used: earlier.clone(), leaving: Vec::new(), earlier, restored, revision }
    }

    pub(super) fn restored(&self, id: u32) -> Applied {
        self.restored.get(&id).copied().unwrap_or_default()
    }

    fn next_revision(&mut self) -> u32 {
        self.revision = (self.revision % REVISION_BITS) + 1;
        self.revision
    }

    fn take_slot(&mut self) -> Option<u32> {
        let slot = (1..MOST_SLOTS).find(|slot| !self.used.contains(slot))?;
        self.used.insert(slot);
        Some(slot)
    }

    /// Empties a slot when all endpoints have been switched. Its number stays taken until the next round: a policy that
    /// was put there in this round would be emptied with it.
    fn leave(&mut self, slot: u32, late: &mut Vec<Op>) {
        self.leaving.push(slot);
        late.push(Op::FreeSlot(slot));
    }
}

fn applied(policy: &EndpointPolicy) -> Applied {
    let modes = policy.revision_and_modes;
    Applied {
        slot: policy.slot,
        revision: modes & REVISION_BITS,
        ingress: modes & MODE_INGRESS != 0,
        egress: modes & MODE_EGRESS != 0,
        realized: 0,
    }
}

impl Core {
    /// Makes the policies of all subjects; removals go to `late`.
    pub(super) fn resolve_policies(&mut self, ops: &mut Vec<Op>, late: &mut Vec<Op>) {
        for slot in std::mem::take(&mut self.slots.leaving) {
            self.slots.used.remove(&slot);
        }
        let subjects: BTreeSet<Identity> = self.endpoints.values().filter_map(Core::subject).collect();
        let gone: Vec<Identity> = self.slots.installed.keys().filter(|s| !subjects.contains(*s)).copied().collect();
        self.tell_named_ports();
        for subject in subjects {
            if let Some(tables) = self.engine.resolve(subject) {
                self.install(subject, tables, ops, late);
            }
        }
        for subject in gone {
            self.engine.release(subject);
            if let Some(installed) = self.slots.installed.remove(&subject) {
                self.slots.leave(installed.slot, late);
            }
        }
        // What no subject of this run took over is of an earlier one; all endpoints are switched before it goes.
        for slot in std::mem::take(&mut self.slots.earlier) {
            self.slots.leave(slot, late);
        }
    }

    fn tell_named_ports(&mut self) {
        let now = self.named_ports();
        let gone: Vec<Identity> = self.named.keys().filter(|identity| !now.contains_key(*identity)).copied().collect();
        gone.into_iter().for_each(|identity| self.engine.set_named_ports(identity, Default::default()));
        for (identity, ports) in &now {
            if self.named.get(identity) != Some(ports) {
                self.engine.set_named_ports(*identity, ports.clone());
            }
        }
        self.named = now;
    }

    fn install(&mut self, subject: Identity, tables: Tables, ops: &mut Vec<Op>, late: &mut Vec<Op>) {
        let revision = self.engine.revision();
        if let Some(installed) = self.slots.installed.get_mut(&subject)
            && same_but_for_classes(&installed.tables, &tables)
        {
            let slot = installed.slot;
            for (number, class) in &tables.classes {
                if installed.tables.classes.get(number) != Some(class) {
                    ops.push(Op::SetClass(slot, *number, *class));
                }
            }
            let gone = installed.tables.classes.keys().filter(|number| !tables.classes.contains_key(*number));
            late.extend(gone.map(|number| Op::RemoveClass(slot, *number)));
            *installed = Installed { slot, tables: Arc::new(tables), revision };
            return;
        }
        let Some(slot) = self.slots.take_slot() else { return };
        let classes = tables.classes.iter().map(|(number, class)| (*number, *class)).collect();
        ops.push(Op::InstallPolicy { slot, classes, verdicts: tables.verdicts.clone() });
        let new = Installed { slot, tables: Arc::new(tables), revision };
        if let Some(old) = self.slots.installed.insert(subject, new) {
            self.slots.leave(old.slot, late);
        }
    }

    /// Switches endpoints to their policies, then shows the endpoints to the programs.
    pub(super) fn switch_endpoints(&mut self, ops: &mut Vec<Op>) {
        let ids: Vec<u32> = self.endpoints.keys().copied().collect();
        for id in ids {
            let Some(endpoint) = self.endpoints.get(&id) else { continue };
            let subject = Core::subject(endpoint);
            let installed =
                subject.and_then(|s| self.slots.installed.get(&s)).map(|i| (i.slot, i.tables.clone(), i.revision));
            if let Some((slot, tables, realized)) = installed {
                self.switch(id, slot, &tables, ops);
                if let Some(endpoint) = self.endpoints.get_mut(&id) {
                    endpoint.applied.realized = realized;
                    endpoint.settle();
                }
            }
            if let Some(endpoint) = self.endpoints.get_mut(&id) {
                if endpoint.record.kind == Kind::Host {
                    endpoint.state = State::Ready;
                }
                let value = endpoint.value();
                if endpoint.written != Some(value) && (endpoint.applied.slot != 0 || endpoint.record.kind == Kind::Host)
                {
                    endpoint.written = Some(value);
                    let node = self.facts.node_addresses.iter().chain(&self.facts.routers).copied().collect();
                    let addresses = if endpoint.record.kind == Kind::Host { node } else { endpoint.addresses() };
                    ops.push(Op::SetEndpoint(addresses, value));
                }
            }
        }
    }

    fn switch(&mut self, id: u32, slot: u32, tables: &Tables, ops: &mut Vec<Op>) {
        let Some(endpoint) = self.endpoints.get_mut(&id) else { return };
        let now = endpoint.applied;
        // An earlier run's slot of the same number held something else.
        let same =
            now.slot == slot && now.realized != 0 && (now.ingress, now.egress) == (tables.ingress, tables.egress);
        if same {
            return;
        }
        let revision = self.slots.next_revision();
        let modes = [(tables.ingress, MODE_INGRESS), (tables.egress, MODE_EGRESS)];
        let modes = modes.iter().filter(|(on, _)| *on).fold(0, |all, (_, mode)| all | mode);
        ops.push(Op::UsePolicy(id, EndpointPolicy { slot, revision_and_modes: revision | modes }));
        endpoint.applied =
            Applied { slot, revision, ingress: tables.ingress, egress: tables.egress, realized: now.realized };
    }

    /// A policy could not be written: its endpoints were locked down. It is tried again with the next change.
    pub fn policy_failed(&mut self, slot: u32) {
        self.slots.installed.retain(|_, installed| installed.slot != slot);
        self.slots.used.remove(&slot);
        for endpoint in self.endpoints.values_mut().filter(|e| e.applied.slot == slot) {
            endpoint.applied = Applied { slot: 0, ..Applied::default() };
            endpoint.state = State::NotReady;
            endpoint.written = None;
        }
        self.dirty.policies = true;
    }

    /// The tables that an endpoint uses.
    pub fn tables(&self, endpoint: &Endpoint) -> Option<Arc<Tables>> {
        let subject = Core::subject(endpoint)?;
        self.slots.installed.get(&subject).map(|installed| installed.tables.clone())
    }
}

impl Endpoint {
    /// With identity and policy in place it is ready.
    fn settle(&mut self) {
        if self.applied.slot != 0 && self.state != State::WaitingForIdentity {
            self.state = State::Ready;
        }
    }
}

/// Identities of one class are not told apart; an identity never moves between classes of the same verdicts.
fn same_but_for_classes(old: &Tables, new: &Tables) -> bool {
    let moved = |number, class| old.classes.get(number).is_some_and(|before| before != class);
    (old.ingress, old.egress, &old.verdicts, &old.rule_sets) == (new.ingress, new.egress, &new.verdicts, &new.rule_sets)
        && !new.classes.iter().any(|(number, class)| moved(number, class))
}
