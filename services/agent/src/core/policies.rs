//! Which slot has which policy, which endpoint uses it, and which endpoints may do nothing because theirs is not there?

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use abi::endpoint::{EndpointPolicy, MODE_EGRESS, MODE_INGRESS};
use abi::identity::Identity;
use abi::policy::{CountedVerdict, VerdictKey};

use super::endpoints::{Applied, Kind, State};
use super::{Core, Endpoint};
use crate::engine::{RedirectedPort, Redirects, TableChange, Tables};
use crate::hits::{Decisions, Hits};
use crate::ops::Op;

const REVISION_BITS: u32 = 0x3fff_ffff;
/// The slot that denies everything.
const DENY_ALL: u32 = 0;

/// The policies in the datapath.
#[derive(Debug, Default)]
pub struct Slots {
    installed: BTreeMap<Identity, Installed>,
    /// What the proxy asks, of all that are installed, and how many of them ask it.
    redirects: Redirects,
    asking: BTreeMap<u32, usize>,
    /// Grows when rule sets come to the redirects or go.
    redirects_version: u64,
    /// Subjects whose policy is not in the datapath, and why: their endpoints are locked down.
    locked: BTreeMap<Identity, String>,
    used: BTreeSet<u32>,
    /// Slots that are emptied at the end of this round, with what their rule sets stand for: only then may others have them.
    leaving: BTreeMap<u32, Arc<Decisions>>,
    /// Slots of an earlier run, until their endpoints have new ones.
    earlier: BTreeSet<u32>,
    restored: BTreeMap<u32, Applied>,
    revision: u32,
    /// How many there are.
    most: u32,
}

#[derive(Debug)]
struct Installed {
    slot: u32,
    ingress: bool,
    egress: bool,
    revision: u64,
    redirects: Redirects,
    decisions: Arc<Decisions>,
    redirected: Arc<BTreeSet<RedirectedPort>>,
    /// A known peer is another one to it now: connections must be judged again.
    moved: bool,
}

impl Slots {
    pub(super) fn new(most: u32, slots: &[u32], policies: &BTreeMap<u32, EndpointPolicy>) -> Self {
        let earlier: BTreeSet<u32> = slots.iter().copied().filter(|slot| *slot != DENY_ALL).collect();
        let restored = policies.iter().map(|(id, policy)| (*id, applied(policy))).collect();
        let revision = policies.values().map(|p| p.revision_and_modes & REVISION_BITS).max().unwrap_or(0);
        Slots { used: earlier.clone(), earlier, restored, revision, most, ..Slots::default() }
    }

    pub(super) fn restored(&self, id: u32) -> Applied {
        self.restored.get(&id).copied().unwrap_or_default()
    }

    /// No subject is locked down.
    pub(super) fn is_complete(&self) -> bool {
        self.locked.is_empty()
    }

    fn next_revision(&mut self) -> u32 {
        self.revision = (self.revision % REVISION_BITS) + 1;
        self.revision
    }

    fn take_slot(&mut self) -> Option<u32> {
        let slot = (1..self.most).find(|slot| !self.used.contains(slot))?;
        self.used.insert(slot);
        Some(slot)
    }

    /// Empties a slot when all endpoints have been switched. Its number stays taken until the next round: a policy that
    /// was put there in this round would be emptied with it.
    fn leave(&mut self, slot: u32, decisions: Arc<Decisions>, late: &mut Vec<Op>) {
        self.leaving.insert(slot, decisions);
        late.push(Op::FreeSlot(slot));
    }

    /// The subject has no policy in the datapath.
    fn lock(&mut self, subject: Identity, why: String, late: &mut Vec<Op>) {
        self.uninstall(subject, late);
        if self.locked.insert(subject, why.clone()).as_ref() != Some(&why) {
            tracing::error!(identity = subject, reason = why, "no policy: endpoints of the identity are locked down");
        }
    }

    /// The subject's policy leaves its slot.
    fn uninstall(&mut self, subject: Identity, late: &mut Vec<Op>) {
        let Some(old) = self.installed.remove(&subject) else { return };
        for id in old.redirects.keys() {
            let Some(asking) = self.asking.get_mut(id) else { continue };
            *asking -= 1;
            if *asking == 0 {
                self.asking.remove(id);
                self.redirects.remove(id);
                self.redirects_version += 1;
            }
        }
        self.leave(old.slot, old.decisions, late);
    }

    fn put(&mut self, subject: Identity, tables: Tables, ops: &mut Vec<Op>, late: &mut Vec<Op>) {
        let Some(slot) = self.take_slot() else {
            let why = format!("all {} policy slots are in use", self.most.saturating_sub(1));
            return self.lock(subject, why, late);
        };
        let classes = tables.classes.into_iter().collect();
        ops.push(Op::InstallPolicy { slot, classes, verdicts: tables.verdicts });
        let (ingress, egress, revision) = (tables.ingress, tables.egress, tables.revision);
        let (redirects, redirected) = (tables.redirects, tables.redirected);
        let decisions = Arc::new(tables.decisions);
        let new = Installed { slot, ingress, egress, revision, redirects, redirected, decisions, moved: false };
        for (id, rules) in &new.redirects {
            let asking = self.asking.entry(*id).or_default();
            *asking += 1;
            if *asking == 1 {
                self.redirects.insert(*id, rules.clone());
                self.redirects_version += 1;
            }
        }
        self.uninstall(subject, late);
        self.installed.insert(subject, new);
        self.locked.remove(&subject);
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

/// Nothing passes, and what does not is told.
fn locked_down(revision: u32) -> EndpointPolicy {
    EndpointPolicy { slot: DENY_ALL, revision_and_modes: revision | MODE_INGRESS | MODE_EGRESS }
}

impl Core {
    /// Brings the policies of all subjects up to date, touching only those that a change concerns; removals go to `late`.
    pub(super) fn resolve_policies(&mut self, ops: &mut Vec<Op>, late: &mut Vec<Op>) {
        for slot in std::mem::take(&mut self.slots.leaving).into_keys() {
            self.slots.used.remove(&slot);
        }
        if std::mem::take(&mut self.dirty.ports) {
            self.tell_named_ports();
        }
        let subjects: BTreeSet<Identity> = self.endpoints.values().filter_map(Core::subject).collect();
        self.release_subjects(&subjects, late);
        for (subject, changes) in self.engine.changes() {
            if self.slots.installed.contains_key(&subject) {
                changes.into_iter().for_each(|change| self.change(subject, change, ops, late));
            }
        }
        for subject in subjects {
            if !self.slots.installed.contains_key(&subject) {
                match self.engine.resolve(subject) {
                    Some(tables) => self.slots.put(subject, tables, ops, late),
                    None => self.slots.lock(subject, "the identity is not known".into(), late),
                }
            }
        }
        self.fresh.clear();
        // What no subject of this run took over is of an earlier one; all endpoints are switched before it goes.
        for slot in std::mem::take(&mut self.slots.earlier) {
            // What its rule sets stood for is not known any more.
            self.slots.leave(slot, Arc::default(), late);
        }
    }

    /// Lets go of subjects that have no endpoints here any more.
    fn release_subjects(&mut self, subjects: &BTreeSet<Identity>, late: &mut Vec<Op>) {
        let slots = &self.slots;
        let known = slots.installed.keys().chain(slots.locked.keys());
        let gone: Vec<Identity> = known.filter(|subject| !subjects.contains(*subject)).copied().collect();
        for subject in gone {
            self.engine.release(subject);
            self.slots.locked.remove(&subject);
            self.slots.uninstall(subject, late);
        }
    }

    fn change(&mut self, subject: Identity, change: TableChange, ops: &mut Vec<Op>, late: &mut Vec<Op>) {
        let (fresh, known) = (&self.fresh, &self.identities);
        let Some(installed) = self.slots.installed.get_mut(&subject) else { return };
        match change {
            TableChange::Class(peer, class) => {
                ops.push(Op::SetClass(installed.slot, peer, class));
                installed.moved |= !fresh.contains(&peer);
            }
            TableChange::Others(peer) if known.contains_key(&peer) => {
                ops.push(Op::RemoveClass(installed.slot, peer));
                installed.moved = true;
            }
            TableChange::Others(peer) => late.push(Op::RemoveClass(installed.slot, peer)),
            TableChange::Rebuilt(tables) => self.slots.put(subject, *tables, ops, late),
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

    /// Switches endpoints to their policies, then shows the endpoints to the programs.
    pub(super) fn switch_endpoints(&mut self, ops: &mut Vec<Op>) {
        let ids: Vec<u32> = self.endpoints.keys().copied().collect();
        for id in ids {
            self.switch(id, ops);
            self.show(id, ops);
        }
        self.slots.installed.values_mut().for_each(|installed| installed.moved = false);
    }

    fn switch(&mut self, id: u32, ops: &mut Vec<Op>) {
        let Some(endpoint) = self.endpoints.get_mut(&id) else { return };
        let Some(subject) = Core::subject(endpoint) else {
            endpoint.state = State::Ready;
            return;
        };
        let Some(installed) = self.slots.installed.get(&subject) else {
            return if self.slots.locked.contains_key(&subject) {
                self.lock_down(id, ops)
            };
        };
        let (slot, ingress, egress) = (installed.slot, installed.ingress, installed.egress);
        let now = endpoint.applied;
        // An earlier run's slot of the same number held something else.
        let same = now.slot == slot && now.realized != 0 && (now.ingress, now.egress) == (ingress, egress);
        let realized = self.engine.revision();
        if same && !installed.moved {
            endpoint.applied.realized = realized;
            return endpoint.settle();
        }
        let revision = self.slots.next_revision();
        let modes = [(ingress, MODE_INGRESS), (egress, MODE_EGRESS)];
        let modes = modes.iter().filter(|(on, _)| *on).fold(0, |all, (_, mode)| all | mode);
        ops.push(Op::UsePolicy(id, EndpointPolicy { slot, revision_and_modes: revision | modes }));
        endpoint.applied = Applied { slot, revision, ingress, egress, realized };
        endpoint.settle();
    }

    /// The endpoint may do nothing, its running connections included.
    fn lock_down(&mut self, id: u32, ops: &mut Vec<Op>) {
        let Some(endpoint) = self.endpoints.get_mut(&id) else { return };
        endpoint.state = State::NotReady;
        if endpoint.applied.slot != DENY_ALL || endpoint.written.is_none() {
            let revision = self.slots.next_revision();
            ops.push(Op::UsePolicy(id, locked_down(revision)));
            endpoint.applied = Applied { revision, ingress: true, egress: true, ..Applied::default() };
        }
    }

    fn show(&mut self, id: u32, ops: &mut Vec<Op>) {
        let Some(endpoint) = self.endpoints.get_mut(&id) else { return };
        let is_host = endpoint.record.kind == Kind::Host;
        let value = endpoint.value();
        let may_be_seen = is_host || endpoint.applied.slot != DENY_ALL || endpoint.state == State::NotReady;
        if endpoint.written == Some(value) || !may_be_seen {
            return;
        }
        endpoint.written = Some(value);
        let node = self.facts.node_addresses.iter().chain(&self.facts.routers).copied().collect();
        let addresses = if is_host { node } else { endpoint.addresses() };
        ops.push(Op::SetEndpoint(addresses, value));
    }

    /// A policy could not be written: what locks its endpoints down. It is tried again with the next change.
    pub fn policy_failed(&mut self, slot: u32, why: &str) -> Vec<Op> {
        let subjects = self.slots.installed.iter().filter(|(_, installed)| installed.slot == slot);
        let subjects: Vec<Identity> = subjects.map(|(subject, _)| *subject).collect();
        let (mut ops, mut late) = (Vec::new(), Vec::new());
        for subject in subjects {
            self.slots.lock(subject, why.to_owned(), &mut late);
        }
        self.switch_endpoints(&mut ops);
        self.publish(&mut ops);
        ops.extend(late);
        ops
    }

    /// Identities whose policy is not in the datapath, and why.
    pub fn locked(&self) -> &BTreeMap<Identity, String> {
        &self.slots.locked
    }

    /// How many policies are in the datapath, and how many can be.
    pub fn policy_slots(&self) -> (u32, u32) {
        (u32::try_from(self.slots.used.len()).unwrap_or(u32::MAX), self.slots.most.saturating_sub(1))
    }

    /// What the proxy asks, by rule set, for all policies that are or are to be in the datapath.
    pub fn redirects(&self) -> &Redirects {
        &self.slots.redirects
    }

    /// Grows when [`Core::redirects`] change.
    pub fn redirects_version(&self) -> u64 {
        self.slots.redirects_version
    }

    /// The ports of an endpoint whose connections go to the proxy.
    pub fn redirected_ports(&self, endpoint: &Endpoint) -> Arc<BTreeSet<RedirectedPort>> {
        let installed = Core::subject(endpoint).and_then(|subject| self.slots.installed.get(&subject));
        installed.map(|installed| installed.redirected.clone()).unwrap_or_default()
    }

    /// A slot is empty now; what its tables had counted.
    pub fn slot_freed(&mut self, slot: u32, counted: &[(VerdictKey, CountedVerdict)]) {
        if let Some(decisions) = self.slots.leaving.get(&slot) {
            self.hits.keep(decisions, counted);
        }
    }

    /// What the tables that are gone had counted.
    pub fn hits(&self) -> &Hits {
        &self.hits
    }

    /// The slots in use, with what their rule sets stand for.
    pub fn decisions(&self) -> impl Iterator<Item = (u32, &Decisions)> {
        self.slots.installed.values().map(|installed| (installed.slot, installed.decisions.as_ref()))
    }

    /// What the rule sets of an endpoint's policy stand for, and its revision.
    pub fn decisions_of(&self, endpoint: &Endpoint) -> Option<(u64, Arc<Decisions>)> {
        let subject = Core::subject(endpoint)?;
        self.slots.installed.get(&subject).map(|installed| (installed.revision, installed.decisions.clone()))
    }
}

impl Endpoint {
    /// With identity and policy in place it is ready.
    fn settle(&mut self) {
        if self.applied.slot != DENY_ALL && self.state != State::WaitingForIdentity {
            self.state = State::Ready;
        }
    }
}
