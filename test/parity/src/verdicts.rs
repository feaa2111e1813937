//! Do oracle, tables, native datapath and kernel give every packet the same verdict, by the same rules?
//!
//! The oracle reads the policies rule by rule; the engine makes tables of them; both datapaths judge by those tables. For
//! each packet all four must agree on what happens to it, on the rule set that decided and on how it matched, also where
//! the packet belongs to a connection that was admitted before the policies changed.

use crate::case::Case;
use crate::compare;
use crate::kernel::{self, Kernel, Real};
use crate::scene::{self, Scene};
use crate::smallest;
use crate::tables::Tables;
use abi::conntrack::{CtEntry, KIND_CONNECTION};
use abi::policy::{DIR_EGRESS, DIR_INGRESS, VERDICT_ALLOW, VERDICT_DENY, VERDICT_REDIRECT, VerdictEntry};
use abi::{DropReason, V4, V6, event};
use anyhow::{Context, Result, bail};
use oracle::engine::meaning;
use oracle::evaluate;
use oracle::generate::Random;
use pipeline::native::{Node, Passage};
use pipeline::packet::{Packet, Parse};
use pipeline::track;
use policy::Direction;
use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::thread;

/// Packets that one world sees.
const PER_WORLD: u64 = 800;
/// After so many packets, something happens in the world.
const STEP: u64 = 160;
/// Worlds that are tried at the same time, each with maps of its own: writing policies is mostly waiting for the kernel.
const LANES: u64 = 3;

/// What a run found.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Summary {
    /// All packets.
    pub cases: u64,
    /// Packets of known connections.
    pub known: u64,
    /// Packets that were dropped.
    pub dropped: u64,
    /// What was said, by each side that was asked.
    pub verdicts: BTreeMap<String, u64>,
}

/// What is done to the tables before the datapaths get them: nothing, but where a test tries whether faults are found.
pub type Tamper = fn(&mut Tables);

/// Tries `cases` packets in worlds made from `seed`. An error names the seed and shows the smallest case that fails.
pub fn run(cases: u64, seed: u64) -> Result<Summary> {
    run_with(cases, seed, |_| {})
}

/// The same with tables that were tampered with.
pub fn run_with(cases: u64, seed: u64, tamper: Tamper) -> Result<Summary> {
    let worlds = cases.div_ceil(PER_WORLD);
    let some = |first| some_worlds(cases, (first..worlds).step_by(LANES as usize), seed, tamper);
    let found: Vec<Result<Summary>> = thread::scope(|scope| {
        let lanes: Vec<_> = (0..LANES.min(worlds)).map(|first| scope.spawn(move || some(first))).collect();
        lanes.into_iter().map(|lane| lane.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
    });
    let mut summary = Summary::default();
    for part in found {
        summary.add(part.with_context(|| format!("seed {seed}"))?);
    }
    Ok(summary)
}

fn some_worlds(cases: u64, worlds: impl Iterator<Item = u64>, seed: u64, tamper: Tamper) -> Result<Summary> {
    let kernel = Kernel::open()?;
    let mut summary = Summary::default();
    for world in worlds {
        let wanted = (cases - world * PER_WORLD).min(PER_WORLD);
        let world_seed = seed.wrapping_mul(0x9e37_79b9).wrapping_add(world);
        one_world(&kernel, &mut summary, world_seed, wanted, tamper)?;
    }
    Ok(summary)
}

fn one_world(kernel: &Kernel, summary: &mut Summary, seed: u64, wanted: u64, tamper: Tamper) -> Result<()> {
    let mut random = Random::new(seed);
    let mut bed = Bed::open(kernel, Scene::random(&mut random), tamper)?;
    let mut earlier: Vec<Case> = Vec::new();
    for number in 0..wanted {
        if number % STEP == STEP - 1 {
            bed.scene.step(&mut random);
            bed.renew()?;
        }
        let (case, answers) = next(&mut random, &bed.scene, &earlier, number);
        match bed.check(&case, answers) {
            Ok(fate) => summary.note(fate),
            Err(difference) => bail!(
                "world {seed}, packet {number}: {difference}\n{}",
                smallest::report(kernel, &bed.scene.world, &case, tamper)
            ),
        }
        earlier.push(case);
    }
    compare::tables(&bed.node, kernel).map_err(|e| anyhow::anyhow!("world {seed} after {wanted} packets: {e}"))
}

/// A new packet, one of before, or the answer to one of before.
fn next(random: &mut Random, scene: &Scene, earlier: &[Case], number: u64) -> (Case, bool) {
    if !earlier.is_empty() && random.once_in(4) {
        let again = random.pick(earlier);
        if again.stands(scene) {
            let answers = again.reply().is_some() && random.once_in(2);
            return (again, answers);
        }
    }
    (Case::random(random, scene, 10_000 + number as u16), false)
}

/// Both datapaths with the tables of a scene.
pub struct Bed<'a> {
    kernel: &'a Kernel,
    /// The scene.
    pub scene: Scene,
    node: Node,
    tamper: Tamper,
}

/// What became of a packet.
struct Fate {
    known: bool,
    dropped: bool,
    verdicts: Vec<String>,
}

/// What the oracle says of a side, and by which entry the tables say the same.
struct Answer {
    direction: u8,
    endpoint: u32,
    entry: VerdictEntry,
    enforced: bool,
    text: String,
}

impl Answer {
    fn allowed(&self) -> bool {
        self.entry.verdict == VERDICT_ALLOW
    }

    /// What a verdict event says.
    fn told(&self) -> Told {
        (self.endpoint, self.direction, self.entry.verdict, self.entry.match_type, self.entry.rule_set)
    }
}

/// Endpoint, direction, verdict, match type and rule set of a verdict event.
type Told = (u32, u8, u8, u8, u32);

impl<'a> Bed<'a> {
    /// Gives both datapaths the tables of a scene.
    pub fn open(kernel: &'a Kernel, mut scene: Scene, tamper: Tamper) -> Result<Bed<'a>> {
        let mut tables = scene.tables();
        tamper(&mut tables);
        kernel.apply(&tables)?;
        Ok(Bed { kernel, scene, node: tables.native(), tamper })
    }

    fn renew(&mut self) -> Result<()> {
        let mut tables = self.scene.tables();
        (self.tamper)(&mut tables);
        self.kernel.renew(&tables)?;
        let old = |id| self.node.endpoint_policies.get(&id).copied();
        let changed: Vec<u32> =
            tables.policies.iter().filter(|(id, policy, _)| old(*id) != Some(*policy)).map(|(id, ..)| *id).collect();
        self.kernel.install(&tables, |id| changed.contains(&id))?;
        tables.renew(&mut self.node, |id| changed.contains(&id));
        Ok(())
    }

    /// Sends the packet of a case, or the answer to it, through everything. What an answer without a connection would mean
    /// is another question: then the packet itself is sent.
    fn check(&mut self, case: &Case, answers: bool) -> Result<Fate, String> {
        let first = case.packet().ok_or("a packet without a way in")?;
        let expected = self.answers(case)?;
        let now = kernel::seconds().map_err(|e| e.to_string())?;
        let known = self.connection(case, &first.1, now).is_some();
        let (hook, frame) = if answers && known { case.reply().unwrap_or(first.clone()) } else { first.clone() };
        let native = compare::native(&self.node, hook, &frame, now);
        let real = self.kernel.send(hook, &frame).map_err(|e| e.to_string())?;
        compare::outcomes(&native, &real)?;
        agree(&expected, &real, known)?;
        let denied = expected.last().is_some_and(|answer| !answer.allowed());
        if !denied && let Some(entry) = self.connection(case, &first.1, now) {
            remembered(&expected, &entry)?;
        }
        Ok(Fate { known, dropped: denied, verdicts: expected.into_iter().map(|answer| answer.text).collect() })
    }

    /// The same for a packet that begins anew.
    pub fn try_new(&mut self, case: &Case) -> Result<(), String> {
        self.check(case, false).map(drop)
    }

    /// What the oracle says of each side up to the first that denies. The tables must say the same.
    fn answers(&mut self, case: &Case) -> Result<Vec<Answer>, String> {
        let mut answers = Vec::new();
        for question in case.questions() {
            let expected = evaluate(&self.scene.world, &question);
            let peer = self.scene.engine.identity(question.other);
            let tables = self.scene.engine.kept(question.subject);
            let entry = tables.verdict(peer, question.direction, question.protocol, question.port);
            let found = meaning(tables, &entry, question.direction);
            if found != expected {
                return Err(format!("{question:?}: tables {found:#?}, oracle {expected:#?}"));
            }
            let answer = Answer {
                direction: if question.direction == Direction::Egress { DIR_EGRESS } else { DIR_INGRESS },
                endpoint: scene::pod(question.subject).id,
                entry,
                enforced: expected.enforced,
                text: format!("{:?} {}", expected.verdict, expected.match_type),
            };
            let denies = !answer.allowed();
            answers.push(answer);
            if denies {
                break;
            }
        }
        Ok(answers)
    }

    /// What the native datapath remembers of a packet's connection.
    fn connection(&self, case: &Case, frame: &[u8], now: u32) -> Option<CtEntry> {
        let at = Passage::new(&self.node, frame, crate::state::CLIENT_IF, None, (now, 1));
        let entry = if case.version == 4 {
            let mut packet = Packet::<V4>::default();
            V4::read(&at, &mut packet).ok()?;
            self.node.v4.connections.get(&track::key(&packet, KIND_CONNECTION).0)
        } else {
            let mut packet = Packet::<V6>::default();
            V6::read(&at, &mut packet).ok()?;
            self.node.v6.connections.get(&track::key(&packet, KIND_CONNECTION).0)
        };
        entry.filter(|entry| entry.expires.get() >= now).cloned()
    }
}

/// Did the kernel do and tell what was expected?
fn agree(expected: &[Answer], real: &Real, known: bool) -> Result<(), String> {
    let denial = expected.last().filter(|answer| !answer.allowed());
    let reason = denial.map(|answer| match answer.entry.verdict {
        VERDICT_DENY => DropReason::POLICY_DENY,
        VERDICT_REDIRECT => DropReason::PROXY_LOOKUP_FAILED,
        _ => DropReason::POLICY,
    });
    let told: Vec<Told> = real.events.iter().filter(|e| e.kind == event::KIND_POLICY_VERDICT).map(verdict).collect();
    let due = expected.iter().filter(|answer| answer.enforced && (!known || !answer.allowed()));
    same("verdicts told", &due.map(Answer::told).collect(), &told)?;
    let drops = real.events.iter().filter(|e| e.kind == event::KIND_DROP).map(|e| DropReason(e.code)).collect();
    same("drops told", &reason.into_iter().collect::<Vec<_>>(), &drops)?;
    same("dropped", &reason.is_some(), &(real.action == 2))
}

/// Endpoint, direction, verdict, match type and rule set of a verdict event.
fn verdict(e: &event::Event) -> Told {
    (e.endpoint, e.direction, e.code, e.detail, e.rule_set)
}

/// Does the connection remember who admitted it?
fn remembered(expected: &[Answer], entry: &CtEntry) -> Result<(), String> {
    let by = |direction| expected.iter().find(|a| a.direction == direction).map_or(0, |a| a.entry.rule_set);
    same("rule set of the sender's side", &by(DIR_EGRESS), &entry.egress_rule_set.get())?;
    same("rule set of the receiver's side", &by(DIR_INGRESS), &entry.ingress_rule_set.get())
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, expected: &T, found: &T) -> Result<(), String> {
    if expected == found { Ok(()) } else { Err(format!("{what}: expected {expected:?}, datapath {found:?}")) }
}

impl Summary {
    fn note(&mut self, fate: Fate) {
        self.cases += 1;
        self.known += u64::from(fate.known);
        self.dropped += u64::from(fate.dropped);
        for verdict in fate.verdicts {
            *self.verdicts.entry(verdict).or_insert(0) += 1;
        }
    }

    fn add(&mut self, other: Summary) {
        self.cases += other.cases;
        self.known += other.known;
        self.dropped += other.dropped;
        for (verdict, count) in other.verdicts {
            *self.verdicts.entry(verdict).or_insert(0) += count;
        }
    }
}
