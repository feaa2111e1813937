//! Which traffic does a change of policies let pass or keep out, each with a flow that shows it?

use std::fmt::Write;
use std::path::PathBuf;

use analysis::diff::{Change, Difference, Differences, Ports, Traffic, differences};
use analysis::requests::Beyond;
use analysis::{Scene, Set};
use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::{Value, json};

use crate::case::Case;
use crate::judge::Verdict;
use crate::objects::Objects;
use crate::result::Origin;
use crate::universe::Universe;
use crate::witness::Witness;

/// What to compare.
#[derive(Debug, Args)]
pub struct Diff {
    /// Policies before and after, each a file or a folder; of a live cluster, after alone
    #[arg(required = true, num_args = 1..=2, value_name = "OLD> <NEW")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    cluster: crate::live::Cluster,
    /// For whoever could be there, not just for those who are: then "equivalent" holds for every packet
    #[arg(long)]
    prove: bool,
    /// The mode after, if it is another one than before
    #[arg(long)]
    new_enforcement: Option<String>,
    /// So many kinds of senders and receivers are told apart at most; beyond that nothing is proved
    #[arg(long, default_value_t = 20_000)]
    bound: usize,
    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t = Form::Table)]
    output: Form,
}

/// How answers look.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Form {
    /// For people
    Table,
    /// For programs
    Json,
    /// For programs
    Yaml,
}

/// What the comparison came to.
#[derive(Serialize)]
struct Report {
    /// No packet is judged otherwise, as far as was looked.
    equivalent: bool,
    /// It holds for whoever could be there.
    proved: bool,
    /// Why it is not all.
    #[serde(skip_serializing_if = "Option::is_none")]
    incomplete: Option<String>,
    /// Traffic that changes, no two with a packet in common.
    regions: Vec<Told>,
}

/// Traffic that changes alike.
#[derive(Serialize)]
struct Told {
    change: &'static str,
    sources: Who,
    destinations: Who,
    ports: Vec<String>,
    #[serde(skip_serializing_if = "Value::is_null")]
    l7: Value,
    witness: Shown,
}

/// Somebody of several.
#[derive(Serialize, Default)]
pub struct Who {
    /// Those who are there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub known: Vec<String>,
    /// Those who could be, and addresses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<String>,
}

/// A flow that shows a change.
#[derive(Serialize)]
struct Shown {
    source: String,
    destination: String,
    protocol: String,
    port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<String>,
    /// Labels of those that are not there.
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    labels: std::collections::BTreeMap<String, Vec<String>>,
    before: Said,
    after: Said,
}

/// What the engine says of a flow.
#[derive(Serialize)]
struct Said {
    verdict: &'static str,
    rules: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    error: String,
}

/// Both sides, as the engine has them.
struct Sides {
    old: Universe,
    new: Universe,
}

/// Runs the command. True if nothing changes.
pub fn run(diff: &Diff, out: &mut dyn std::io::Write) -> Result<bool> {
    let case = diff.cluster.case()?;
    let given = |files: &[PathBuf]| diff.cluster.given(files);
    let (old, new) = match (diff.files.as_slice(), diff.cluster.is_live()) {
        ([_, _], _) => (given(&diff.files[..1])?.objects, given(&diff.files[1..])?.objects),
        ([_], true) => (given(&[])?.objects, given(&diff.files)?.objects),
        _ => bail!("what is to be compared with {}? diff takes OLD and NEW", diff.files[0].display()),
    };
    let report = compare(&case, old, new, diff)?;
    let text = match diff.output {
        Form::Table => report.table(),
        Form::Json => format!("{}\n", serde_json::to_string_pretty(&report)?),
        Form::Yaml => serde_saphyr::to_string(&report)?,
    };
    out.write_all(text.as_bytes())?;
    if report.incomplete.is_some() && report.regions.is_empty() {
        bail!("nothing can be said: {}", report.incomplete.unwrap_or_default());
    }
    Ok(report.equivalent)
}

fn compare(case: &Case, mut old: Objects, mut new: Objects, diff: &Diff) -> Result<Report> {
    // Who is there is the same before and after: labels of namespaces and services are no policies.
    let originals = [new.clone(), old.clone()];
    for (one, other) in [&mut old, &mut new].into_iter().zip(originals) {
        for (name, labels) in other.namespaces {
            one.namespaces.entry(name).or_insert(labels);
        }
        let known: Vec<(String, String)> =
            one.services.iter().map(|service| (service.namespace.clone(), service.name.clone())).collect();
        let more = other.services.into_iter().filter(|one| !known.contains(&(one.namespace.clone(), one.name.clone())));
        one.services.extend(more);
    }
    let mut after = case.clone();
    if let Some(mode) = &diff.new_enforcement {
        mode.clone_into(&mut after.config.mode);
    }
    let sides = Sides { old: Universe::new(case, old)?, new: Universe::new(&after, new)? };
    let space = sides.new.space(diff.prove)?;
    let mut scene = Scene::new(space, [&sides.old.side, &sides.new.side], diff.prove, diff.bound);
    let found = differences(&mut scene, diff.bound.saturating_mul(50));
    sides.report(&scene, found, diff.prove)
}

impl Sides {
    fn report(&self, scene: &Scene<'_>, found: Differences, prove: bool) -> Result<Report> {
        let unsure = prove && !self.new.case.config.cidr_match_mode.is_empty();
        let incomplete = found.incomplete.or_else(|| {
            unsure.then(|| {
                "prefixes select nodes or pods here, of which only those that are there were looked at".to_owned()
            })
        });
        let mut regions = Vec::new();
        for region in &found.regions {
            for traffic in &region.traffic {
                regions.push(self.told(scene, region, traffic)?);
            }
        }
        let equivalent = regions.is_empty() && incomplete.is_none();
        Ok(Report { equivalent, proved: equivalent && prove, incomplete, regions })
    }

    fn told(&self, scene: &Scene<'_>, region: &Difference, traffic: &Traffic) -> Result<Told> {
        let whom = |set: &Set| who(scene, set);
        Ok(Told {
            change: name_of(&traffic.change),
            sources: whom(&region.sources),
            destinations: whom(&region.destinations),
            ports: ports(scene, &traffic.ports),
            l7: l7(traffic),
            witness: self.witness(scene, region, traffic)?,
        })
    }

    /// A flow of the region, judged anew with all policies of either side.
    fn witness(&self, scene: &Scene<'_>, region: &Difference, traffic: &Traffic) -> Result<Shown> {
        let (protocol, port) = usual(scene, &traffic.ports);
        let ends = [&region.sources, &region.destinations];
        let Some(witness) = Witness::new(&scene.space, &self.new.case, ends, protocol, port) else {
            bail!("an invariant does not hold: a region has nobody in it");
        };
        let modes = [&self.old.case.config.mode, &self.new.case.config.mode];
        let before = said(witness.verdict(&self.old.objects, modes[0]));
        let after = said(witness.verdict(&self.new.objects, modes[1]));
        let fits = match &traffic.change {
            Change::Gained => before.verdict != "ALLOWED" && after.verdict == "ALLOWED",
            Change::Lost => before.verdict == "ALLOWED" && after.verdict != "ALLOWED",
            Change::Requests { .. } => before.verdict == "ALLOWED" && after.verdict == "ALLOWED",
            Change::Proof => before.verdict != "ALLOWED" && after.verdict != "ALLOWED",
            Change::Broken => before.error != after.error,
        };
        if !fits {
            bail!(
                "an invariant does not hold: {} -> {} {}/{} is {} and then {}, and not {}",
                witness.flow.src,
                witness.flow.dst,
                port,
                protocol,
                before.verdict,
                after.verdict,
                name_of(&traffic.change)
            );
        }
        Ok(Shown {
            source: witness.flow.src.clone(),
            destination: witness.flow.dst.clone(),
            protocol: witness.flow.proto.clone(),
            port,
            request: request(&traffic.change),
            labels: witness.made_up,
            before,
            after,
        })
    }
}

fn said(verdict: Result<Verdict, String>) -> Said {
    let verdict = match verdict {
        Ok(verdict) => verdict,
        Err(error) => return Said { verdict: "ERROR", rules: Vec::new(), error },
    };
    let ends = [&verdict.egress, &verdict.ingress];
    let denying: Vec<_> = ends.iter().filter_map(|end| end.as_ref()).filter(|end| end.verdict == "deny").collect();
    let told: Vec<_> = match denying.is_empty() {
        true => ends.iter().filter_map(|end| end.as_ref()).collect(),
        false => denying.clone(),
    };
    let by = |end: &&crate::result::DirectionResult| match end.origins.is_empty() {
        true if end.verdict == "deny" => vec!["nothing allows it".to_owned()],
        true => end.rules.clone(),
        false => end.origins.iter().map(place).collect(),
    };
    let mut rules: Vec<String> = told.iter().flat_map(by).collect();
    rules.dedup();
    Said { verdict: if denying.is_empty() { "ALLOWED" } else { "DENIED" }, rules, error: String::new() }
}

/// A rule with its place in a file.
fn place(origin: &Origin) -> String {
    match origin.file.is_empty() {
        true => origin.name(),
        false => format!("{} ({}:{})", origin.name(), origin.file, origin.line),
    }
}

/// Of these ports one that people know.
fn usual(scene: &Scene<'_>, ports: &[Ports]) -> (u8, u16) {
    let first = ports.iter().find(|one| one.protocol == Some(6)).unwrap_or(&ports[0]);
    let protocol = first.protocol.unwrap_or_else(|| unnamed(scene));
    let known = if [6, 17, 132].contains(&protocol) { &[80, 443, 53, 8080, 1][..] } else { &[][..] };
    let port = known.iter().copied().find(|port| (first.first..=first.last).contains(port));
    (protocol, port.unwrap_or(first.first))
}

/// A protocol that no rule names.
pub fn unnamed(scene: &Scene<'_>) -> u8 {
    let usual = [6, 17, 132, 1, 58, 253];
    usual.into_iter().find(|one| !scene.protocols().contains(one)).unwrap_or(254)
}

fn name_of(change: &Change) -> &'static str {
    match change {
        Change::Gained => "gained",
        Change::Lost => "lost",
        Change::Requests { .. } => "requests",
        Change::Proof => "proof",
        Change::Broken => "broken",
    }
}

fn request(change: &Change) -> Option<String> {
    let Change::Requests { gained, lost } = change else { return None };
    [gained, lost].into_iter().find_map(|one| match one {
        Beyond::Request(request) => Some(request.to_string()),
        Beyond::Nothing | Beyond::Unknown => None,
    })
}

fn l7(traffic: &Traffic) -> Value {
    let asked = |at: usize| -> Vec<Value> {
        let redirects = traffic.redirects[at].iter();
        redirects.map(|one| serde_json::to_value(crate::judge::l7(one)).unwrap_or_default()).collect()
    };
    let (before, after) = (asked(0), asked(1));
    if before.is_empty() && after.is_empty() {
        return Value::Null;
    }
    let mut value = json!({ "before": before, "after": after });
    if let Change::Requests { gained, lost } = &traffic.change {
        for (name, beyond) in [("gained", gained), ("lost", lost)] {
            match beyond {
                Beyond::Nothing => {}
                Beyond::Request(request) => value[name] = json!(request.to_string()),
                Beyond::Unknown => value[name] = json!("not told: the rules are too different, or too large"),
            }
        }
    }
    value
}

/// Those of a set, named.
pub fn who(scene: &Scene<'_>, set: &Set) -> Who {
    Who {
        known: set.parties().map(|at| scene.space.party(at).name.clone()).collect(),
        others: set.regions.iter().map(ToString::to_string).collect(),
    }
}

/// Ports as people write them. All there are of all protocols are `any`.
pub fn ports(scene: &Scene<'_>, ports: &[Ports]) -> Vec<String> {
    let whole = |one: &Ports| one.first == 0 && one.last == u16::MAX;
    let named = scene.protocols();
    let has = |protocol: Option<u8>| ports.iter().any(|one| one.protocol == protocol && whole(one));
    if has(None) && named.iter().all(|protocol| has(Some(*protocol))) {
        return vec!["any".to_owned()];
    }
    let text = |one: &Ports| {
        let Some(protocol) = one.protocol else {
            let names: Vec<String> = named.iter().map(|one| crate::protocol::text(*one)).collect();
            return if names.is_empty() { "any".to_owned() } else { format!("any but {}", names.join(", ")) };
        };
        let name = crate::protocol::text(protocol);
        let last = if [1, 58].contains(&protocol) { one.last.min(255) } else { one.last };
        match (whole(one), one.first == last) {
            (true, _) => name,
            (false, true) => format!("{}/{name}", one.first),
            (false, false) => format!("{}-{last}/{name}", one.first),
        }
    };
    // ICMP has 256 types.
    let there = |one: &&Ports| !(one.protocol.is_some_and(|protocol| [1, 58].contains(&protocol)) && one.first > 255);
    ports.iter().filter(there).map(text).collect()
}

impl Report {
    fn table(&self) -> String {
        let mut text = String::new();
        for region in &self.regions {
            let _ = writeln!(text, "{} {}", region.change.to_uppercase(), region.ports.join(" "));
            region.sources.tell("from", &mut text);
            region.destinations.tell("to", &mut text);
            for (name, key) in [("requests gained", "gained"), ("requests lost", "lost")] {
                if let Some(request) = region.l7.get(key).and_then(Value::as_str) {
                    let _ = writeln!(text, "  {name}: {request}");
                }
            }
            region.witness.tell(&mut text);
            text.push('\n');
        }
        let incomplete = self.incomplete.as_ref().map(|why| format!(" Not all was looked at: {why}."));
        let incomplete = incomplete.unwrap_or_default();
        let _ = match (self.regions.len(), self.proved) {
            (0, true) => writeln!(text, "Equivalent: no packet is judged otherwise, whoever comes."),
            (0, false) if self.equivalent => {
                writeln!(text, "No difference for those who are there; --prove asks for whoever could be there, too.")
            }
            (count, _) => writeln!(text, "{count} differences.{incomplete}"),
        };
        text
    }
}

impl Who {
    /// A line, or some, of who it is.
    pub fn tell(&self, name: &str, text: &mut String) {
        const MOST: usize = 8;
        let all: Vec<&String> = self.known.iter().chain(&self.others).collect();
        let shown: Vec<&str> = all.iter().take(MOST).map(|one| one.as_str()).collect();
        let more = if all.len() > MOST { format!("; and {} more", all.len() - MOST) } else { String::new() };
        let _ = writeln!(text, "  {name:<5}{}{more}", shown.join("; "));
    }
}

impl Shown {
    fn tell(&self, text: &mut String) {
        let request = self.request.as_ref().map(|request| format!(" ({request})")).unwrap_or_default();
        let _ =
            writeln!(text, "  e.g. {} -> {} {}/{}{request}", self.source, self.destination, self.port, self.protocol);
        for (name, labels) in &self.labels {
            let _ = writeln!(text, "       {name}: {}", labels.join(" "));
        }
        for (name, said) in [("before", &self.before), ("after", &self.after)] {
            let by = if said.error.is_empty() { said.rules.join(", ") } else { said.error.clone() };
            let _ = writeln!(text, "       {name:<7}{}: {by}", said.verdict);
        }
    }
}
