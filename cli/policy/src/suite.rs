//! Do policies let through what their tests expect, and keep out the rest?
//!
//! A file of tests names policies and a cluster, and what is expected: `allow: web -> db:5432`, `deny: world -> db`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, ValueEnum};
use policy::PolicyObject;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::case::{Case, Flow};
use crate::judge::{Judge, Verdict};
use crate::junit::escaped;
use crate::objects::Objects;
use crate::result::DirectionResult;
use crate::world::{World, settings};

/// Which tests to run, and what to tell of them.
#[derive(Debug, Args)]
pub struct Test {
    /// Files of tests, or folders
    #[arg(required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    live: crate::live::Live,
    /// Form of the results
    #[arg(short, long, value_enum, default_value_t = Form::Text)]
    output: Form,
    /// Tell which rules no expectation was decided by
    #[arg(long)]
    coverage: bool,
    /// Tell which rules could go without an expectation failing
    #[arg(long)]
    mutation: bool,
}

/// How results look.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Form {
    /// For people
    Text,
    /// An object: expectations, coverage, mutation
    Json,
    /// For build servers
    Junit,
}

/// A file of tests.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Suite {
    /// What it is about.
    name: String,
    /// Files of policies, or folders, from where the file is.
    policies: Vec<PathBuf>,
    /// Who is there: a file, from where this one is, or a case without policies and flows.
    cluster: Value,
    /// Settings beside those of the cluster.
    config: Value,
    /// What is expected of these policies.
    expect: Vec<Expectation>,
    /// Expectations of more policies, or of others, with the same cluster.
    tests: Vec<Group>,
}

/// Expectations of some policies.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Group {
    /// What it is about.
    name: String,
    /// Policies in addition to those of the file.
    policies: Vec<PathBuf>,
    /// Settings beside those of the file.
    config: Value,
    /// What is expected.
    expect: Vec<Expectation>,
}

/// One of `allow`, `deny` and `redirect`: flows as `from -> to:port/protocol`, or `from -> to icmp 8`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Expectation {
    allow: Flows,
    deny: Flows,
    /// Passes if the proxy agrees.
    redirect: Flows,
    /// ingress or egress: only this end is asked.
    at: String,
    /// Which end denies.
    denied_by: String,
    /// A policy or a rule that decides at one of the ends: `default/web`, `default/web ingress[0]`.
    by: String,
    /// What it is for.
    because: String,
}

/// One flow or several.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(untagged)]
enum Flows {
    #[default]
    None,
    One(String),
    Several(Vec<String>),
}

impl Flows {
    fn list(&self) -> Vec<String> {
        match self {
            Flows::None => Vec::new(),
            Flows::One(flow) => vec![flow.clone()],
            Flows::Several(flows) => flows.clone(),
        }
    }
}

/// What became of one flow.
struct Outcome {
    group: String,
    what: String,
    because: String,
    /// Empty if it is as expected.
    difference: String,
}

/// How many of a group's rules the expectations notice.
#[derive(Clone, Debug, Serialize)]
struct Score {
    group: String,
    /// All rules.
    rules: usize,
    /// Those that some expectation notices.
    noticed: usize,
    /// The others.
    missed: Vec<String>,
}

/// What is told besides the outcomes, if it is asked for.
#[derive(Clone, Debug, Default, Serialize)]
struct Scores {
    /// Rules that decide an expectation.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    coverage: Vec<Score>,
    /// Rules without which some expectation fails.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mutation: Vec<Score>,
}

/// Some policies with the expectations of them.
struct Plan {
    name: String,
    case: Case,
    files: Vec<PathBuf>,
    expect: Vec<Expectation>,
}

/// Runs the command. True if all is as expected.
pub fn run(test: &Test, out: &mut dyn std::io::Write) -> Result<bool> {
    let (mut outcomes, mut scores) = (Vec::new(), Scores::default());
    let mut texts = Vec::new();
    crate::files::read(&test.files, |name, text| texts.push((PathBuf::from(name), text.to_owned())))?;
    let live = test.live.case()?;
    for (file, text) in texts {
        for plan in plans(&file, &text, live.as_ref())? {
            outcomes.extend(plan.run(test, &mut scores).with_context(|| format!("{}", file.display()))?);
        }
    }
    out.write_all(told(&outcomes, &scores, test.output)?.as_bytes())?;
    Ok(outcomes.iter().all(|one| one.difference.is_empty()))
}

/// The plans of a file. Where it names no cluster, it is about the live one, and where it names no policies, about those
/// that are there.
fn plans(file: &Path, text: &str, live: Option<&Case>) -> Result<Vec<Plan>> {
    let suite = serde_saphyr::from_str::<Suite>(text);
    let suite = suite.map_err(|error| anyhow!("{}: {}", file.display(), error.without_snippet()))?;
    let folder = file.parent().unwrap_or(Path::new("."));
    let cluster = match &suite.cluster {
        Value::String(name) => {
            let path = folder.join(name);
            let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            let value = serde_saphyr::from_str::<Value>(&text);
            value.map_err(|error| anyhow!("{}: {}", path.display(), error.without_snippet()))?
        }
        Value::Null => Value::Object(serde_json::Map::new()),
        other => other.clone(),
    };
    let plan = |name: String, policies: &[&PathBuf], configs: &[&Value], expect: &[Expectation]| -> Result<Plan> {
        let mut cluster = cluster.clone();
        for config in configs {
            for (key, value) in config.as_object().into_iter().flatten() {
                cluster["config"][key] = value.clone();
            }
        }
        let case = match live.filter(|_| suite.cluster.is_null()) {
            Some(live) => live.with_policies(policies.is_empty()),
            None => Case::from_value(cluster).map_err(|error| anyhow!("{}: cluster: {error}", file.display()))?,
        };
        let files = policies.iter().map(|policy| folder.join(policy)).collect();
        Ok(Plan { name, case, files, expect: expect.to_vec() })
    };
    let named = |name: &str| if name.is_empty() { file.display().to_string() } else { name.to_owned() };
    let own: Vec<&PathBuf> = suite.policies.iter().collect();
    let mut plans = Vec::new();
    if !suite.expect.is_empty() {
        plans.push(plan(named(&suite.name), &own, &[&suite.config], &suite.expect)?);
    }
    for group in &suite.tests {
        let policies: Vec<&PathBuf> = own.iter().copied().chain(&group.policies).collect();
        let name = format!("{}: {}", named(&suite.name), group.name);
        plans.push(plan(name, &policies, &[&suite.config, &group.config], &group.expect)?);
    }
    if plans.iter().all(|plan| plan.expect.is_empty()) {
        bail!("{}: nothing is expected; a file of tests has expect or tests", file.display());
    }
    Ok(plans)
}

impl Plan {
    fn run(&self, test: &Test, scores: &mut Scores) -> Result<Vec<Outcome>> {
        let objects = self.objects()?;
        let mut decided = BTreeSet::new();
        let outcomes = self.outcomes(&objects, &mut decided)?;
        if test.coverage {
            scores.coverage.push(self.coverage(&objects, &decided));
        }
        if test.mutation && outcomes.iter().all(|one| one.difference.is_empty()) {
            scores.mutation.push(self.mutation(&objects)?);
        }
        Ok(outcomes)
    }

    fn objects(&self) -> Result<Objects> {
        let settings = settings(&self.case.config).map_err(anyhow::Error::msg)?;
        let mut objects = Objects::default();
        objects.add_value(&self.case.policies, &settings);
        crate::files::read(&self.files, |name, text| objects.add_file(name, text, &settings))?;
        let wrong = objects.policies.iter().filter_map(|read| read.object.as_ref().err()).flatten();
        let wrong: Vec<String> = objects.problems.iter().chain(wrong).map(ToString::to_string).collect();
        if !wrong.is_empty() {
            bail!("{}: {}", self.name, wrong.join("\n"));
        }
        Ok(objects)
    }

    /// What became of each flow; `decided` gets the rules that decided.
    fn outcomes(&self, objects: &Objects, decided: &mut BTreeSet<String>) -> Result<Vec<Outcome>> {
        let settings = settings(&self.case.config).map_err(anyhow::Error::msg)?;
        let mut world = World::new(&self.case, objects, settings).map_err(anyhow::Error::msg)?;
        let mut judge = Judge::new(&mut world, false);
        let mut outcomes = Vec::new();
        for expectation in &self.expect {
            let kinds =
                [("allow", &expectation.allow), ("deny", &expectation.deny), ("redirect", &expectation.redirect)];
            for (wanted, flows) in kinds {
                for text in flows.list() {
                    let flow = parse(&text, &expectation.at)?;
                    let found = judge.verdict(&flow);
                    let ends = found.iter().flat_map(|verdict| [&verdict.egress, &verdict.ingress]).flatten();
                    decided.extend(ends.flat_map(|end| &end.origins).map(crate::result::Origin::name));
                    outcomes.push(Outcome {
                        group: self.name.clone(),
                        what: format!("{wanted} {text}"),
                        because: expectation.because.clone(),
                        difference: expectation.difference(wanted, found),
                    });
                }
            }
        }
        Ok(outcomes)
    }

    fn coverage(&self, objects: &Objects, decided: &BTreeSet<String>) -> Score {
        let rules: BTreeSet<String> = policies(objects).flat_map(rule_names).collect();
        let missed: Vec<String> = rules.difference(decided).cloned().collect();
        self.score(rules.len(), missed)
    }

    /// Takes each rule away in turn: some expectation should fail.
    fn mutation(&self, objects: &Objects) -> Result<Score> {
        let mut names: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        for (at, policy) in objects.policies.iter().enumerate() {
            let rules = policy.object.iter().flat_map(|object| rule_names(object).into_iter().enumerate());
            names.extend(rules.map(|(rule, name)| (name, (at, rule))));
        }
        let mut survivors = Vec::new();
        for (name, place) in &names {
            let without = without(objects, *place);
            let outcomes = self.outcomes(&without, &mut BTreeSet::new())?;
            if outcomes.iter().all(|one| one.difference.is_empty()) {
                survivors.push(name.clone());
            }
        }
        Ok(self.score(names.len(), survivors))
    }

    fn score(&self, rules: usize, missed: Vec<String>) -> Score {
        Score { group: self.name.clone(), rules, noticed: rules - missed.len(), missed }
    }
}

impl Scores {
    fn told(&self) -> String {
        let coverage = self.coverage.iter().map(|score| (score, "decide an expectation", "not asked"));
        let mutation = self.mutation.iter().map(|score| (score, "cannot go unnoticed", "could go"));
        let mut text = String::new();
        for (Score { group, rules, noticed, missed }, what, but) in coverage.chain(mutation) {
            let _ = writeln!(text, "{group}: {noticed} of {rules} rules {what}");
            for rule in missed {
                let _ = writeln!(text, "  {but}: {rule}");
            }
        }
        text
    }
}

fn policies(objects: &Objects) -> impl Iterator<Item = &PolicyObject> {
    objects.policies.iter().filter_map(|read| read.object.as_ref().ok())
}

fn rule_names(policy: &PolicyObject) -> Vec<String> {
    policy.rules.iter().map(|rule| crate::result::name_of(&rule.origin)).collect()
}

/// The same policies without one rule.
fn without(objects: &Objects, (policy, rule): (usize, usize)) -> Objects {
    let mut fewer = objects.clone();
    if let Some(Ok(policy)) = fewer.policies.get_mut(policy).map(|read| read.object.as_mut()) {
        policy.rules.remove(rule);
    }
    fewer
}

impl Expectation {
    /// What is not as expected; empty if all is.
    fn difference(&self, wanted: &str, found: Result<Verdict, String>) -> String {
        let verdict = match found {
            Ok(verdict) => verdict,
            Err(error) => return error,
        };
        let ends = [("egress", &verdict.egress), ("ingress", &verdict.ingress)];
        let ends: Vec<(&str, &DirectionResult)> =
            ends.into_iter().filter_map(|(name, end)| Some((name, end.as_ref()?))).collect();
        if ends.is_empty() {
            return "neither end is an endpoint of the cluster, so that nobody decides".to_owned();
        }
        let denier = ends.iter().find(|(_, end)| end.verdict == "deny").map(|(name, _)| *name);
        let redirects = ends.iter().any(|(_, end)| end.redirect);
        let is = match (denier, redirects) {
            (Some(_), _) => "deny",
            (None, true) => "redirect",
            (None, false) => "allow",
        };
        let by = || {
            let policies = ends.iter().flat_map(|(_, end)| end.rules.iter().cloned());
            let rules = ends.iter().flat_map(|(_, end)| end.origins.iter().map(crate::result::Origin::name));
            policies.chain(rules).any(|name| name.ends_with(&self.by))
        };
        let told =
            || ends.iter().map(|(name, end)| format!("{name}: {}", describe(end))).collect::<Vec<_>>().join("; ");
        // What the proxy is asked for passes as far as the tables go.
        let fits = is == wanted || wanted == "allow" && is == "redirect" && open(&ends);
        if !fits {
            return format!("expected {wanted}, found {is}: {}", told());
        }
        if !self.denied_by.is_empty() && denier != Some(self.denied_by.as_str()) {
            return format!("expected to be denied at {}: {}", self.denied_by, told());
        }
        if !self.by.is_empty() && !by() {
            return format!("expected to be decided by {}: {}", self.by, told());
        }
        String::new()
    }
}

/// True if the proxies let all pass.
fn open(ends: &[(&str, &DirectionResult)]) -> bool {
    ends.iter().filter(|(_, end)| end.redirect).all(|(_, end)| end.open)
}

/// What one end says, in a few words.
pub fn describe(end: &DirectionResult) -> String {
    let by = if end.rules.is_empty() { "no rule".to_owned() } else { end.rules.join(", ") };
    let how = match (end.verdict, end.reason, end.redirect) {
        ("deny", "policy", _) => return "denied, because nothing allows it".to_owned(),
        ("deny", "auth-required", _) => "denied until both sides prove who they are",
        ("deny", ..) => "denied",
        (_, _, true) => "to the proxy",
        _ => "allowed",
    };
    format!("{how} by {by} ({})", end.match_type)
}

/// `web -> db:5432/TCP`, `web -> db icmp 8`, `web -> 2001:db8::1 port 53/UDP`.
fn parse(text: &str, at: &str) -> Result<Flow> {
    let wrong = || anyhow!("{text:?} is not a flow; one looks like web -> db:5432/TCP or web -> 192.0.2.1 icmp 8");
    let (source, rest) = text.split_once("->").ok_or_else(wrong)?;
    let mut flow = Flow { src: source.trim().to_owned(), direction: at.to_owned(), ..Flow::default() };
    let mut words = rest.split_whitespace();
    let target = words.next().ok_or_else(wrong)?;
    crate::target::read(target, &mut flow).ok_or_else(wrong)?;
    match (words.next(), words.next(), words.next()) {
        (None, ..) => {}
        (Some(kind @ ("icmp" | "icmpv6")), Some(number), None) => {
            (flow.proto, flow.icmp_type) = (kind.to_owned(), Some(number.parse().map_err(|_| wrong())?));
        }
        (Some("port"), Some(port), None) => crate::target::port(port, &mut flow).ok_or_else(wrong)?,
        _ => return Err(wrong()),
    }
    Ok(flow)
}

fn told(outcomes: &[Outcome], scores: &Scores, form: Form) -> Result<String> {
    let failed = outcomes.iter().filter(|one| !one.difference.is_empty()).count();
    let mut text = String::new();
    match form {
        Form::Text => {
            for one in outcomes.iter().filter(|one| !one.difference.is_empty()) {
                let because = if one.because.is_empty() { String::new() } else { format!(" ({})", one.because) };
                let _ = writeln!(text, "FAILED {}: {}{because}\n  {}", one.group, one.what, one.difference);
            }
            let _ = writeln!(text, "{} passed, {failed} failed", outcomes.len() - failed);
            text += &scores.told();
        }
        Form::Json => {
            let list = outcomes.iter().map(|one| {
                serde_json::json!({ "group": one.group, "expect": one.what, "because": one.because,
                    "ok": one.difference.is_empty(), "difference": one.difference })
            });
            let mut whole = serde_json::to_value(scores)?;
            whole["expectations"] = list.collect();
            let _ = writeln!(text, "{whole:#}");
        }
        Form::Junit => {
            let mut cases = String::new();
            for one in outcomes {
                let (group, what) = (escaped(&one.group), escaped(&one.what));
                let _ = write!(cases, "  <testcase classname=\"{group}\" name=\"{what}\">");
                if !one.difference.is_empty() {
                    let difference = escaped(&one.difference);
                    let _ = write!(cases, "<failure message=\"{difference}\"></failure>");
                }
                cases.push_str("</testcase>\n");
            }
            let notes = scores.told();
            if !notes.is_empty() {
                let _ = writeln!(cases, "  <system-out>{}</system-out>", escaped(&notes));
            }
            text = crate::junit::suite("axoneme policy test", outcomes.len(), failed, &cases);
        }
    }
    Ok(text)
}
