//! Which rules could go without any packet being judged otherwise?

use std::fmt::Write;
use std::path::PathBuf;

use analysis::Scene;
use analysis::dead::{DeadRules, Reason, dead};
use anyhow::Result;
use clap::Args;
use policy::RuleOrigin;
use serde::Serialize;

use crate::diff::Form;
use crate::universe::Universe;

/// What to look for, and where.
#[derive(Debug, Args)]
pub struct Lint {
    /// Policies from files, or from all files of folders
    #[arg(required_unless_present_any = ["live", "kubeconfig", "agent"])]
    files: Vec<PathBuf>,
    #[command(flatten)]
    cluster: crate::live::Cluster,
    /// Rules that could go without any packet being judged otherwise
    #[arg(long, required = true)]
    dead: bool,
    /// Only for those who are there, and not for whoever could be
    #[arg(long)]
    here: bool,
    /// So many kinds of senders and receivers are told apart at most
    #[arg(long, default_value_t = 20_000)]
    bound: usize,
    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t = Form::Table)]
    output: Form,
}

/// What was found.
#[derive(Serialize)]
struct Report {
    /// Rules that were looked at.
    rules: usize,
    /// Rules that could go, all of them together.
    dead: Vec<Told>,
    /// Rules of which it could not be told.
    unclear: Vec<Unclear>,
}

#[derive(Serialize)]
struct Told {
    rule: String,
    place: String,
    reason: &'static str,
    explanation: &'static str,
    covered_by: Vec<String>,
}

#[derive(Serialize)]
struct Unclear {
    rule: String,
    place: String,
    why: String,
}

/// Runs the command. True if no rule is dead.
pub fn run(lint: &Lint, out: &mut dyn std::io::Write) -> Result<bool> {
    let given = lint.cluster.given(&lint.files)?;
    let mut universe = Universe::new(&given.case, given.objects)?;
    universe.side.policies = universe.side.distinct().into_iter().cloned().collect();
    let report = report(&universe, lint)?;
    let text = match lint.output {
        Form::Table => report.table(),
        Form::Json => format!("{}\n", serde_json::to_string_pretty(&report)?),
        Form::Yaml => serde_saphyr::to_string(&report)?,
    };
    out.write_all(text.as_bytes())?;
    Ok(report.dead.is_empty())
}

fn report(universe: &Universe, lint: &Lint) -> Result<Report> {
    let unseen = !lint.here;
    let side = &universe.side;
    let mut scene = Scene::new(universe.space(unseen)?, [side, side], unseen, lint.bound);
    let DeadRules { dead, unclear } = dead(&mut scene, lint.bound.saturating_mul(50));
    let origin = |(policy, rule): (usize, usize)| side.policies[policy].rules[rule].origin.as_ref();
    let file = |rule: &RuleOrigin| {
        let policy = side.policies.iter().find(|policy| policy.reference == rule.policy);
        let source = policy.map(|policy| policy.source.clone()).unwrap_or_default();
        match source.file {
            Some(file) => format!("{file}:{}", if rule.line > 0 { rule.line } else { source.line.unwrap_or(0) }),
            None => String::new(),
        }
    };
    let told = dead.iter().map(|one| Told {
        rule: crate::result::name_of(origin(one.place)),
        place: file(origin(one.place)),
        reason: name(one.reason),
        explanation: explanation(one.reason),
        covered_by: one
            .covered_by
            .iter()
            .map(|rule| format!("{} ({})", crate::result::name_of(rule), file(rule)))
            .collect(),
    });
    let unclear = unclear.into_iter().map(|(place, why)| Unclear {
        rule: crate::result::name_of(origin(place)),
        place: file(origin(place)),
        why,
    });
    let rules = side.policies.iter().map(|policy| policy.rules.len()).sum();
    Ok(Report { rules, dead: told.collect(), unclear: unclear.collect() })
}

fn name(reason: Reason) -> &'static str {
    match reason {
        Reason::Duplicate => "duplicate",
        Reason::NoSubject => "no-subject",
        Reason::NoTraffic => "no-traffic",
        Reason::Covered => "covered",
        Reason::Shadowed => "shadowed",
        Reason::OtherEnd => "other-end",
    }
}

fn explanation(reason: Reason) -> &'static str {
    match reason {
        Reason::Duplicate => "it is written twice",
        Reason::NoSubject => "it is for nobody",
        Reason::NoTraffic => "it speaks of no traffic, and what it closes is closed without it",
        Reason::Covered => "others say the same of all that it speaks of",
        Reason::Shadowed => "others deny all that it allows",
        Reason::OtherEnd => "the other end keeps out all that it speaks of",
    }
}

impl Report {
    fn table(&self) -> String {
        let mut text = String::new();
        for one in &self.dead {
            let _ = writeln!(text, "{}: {} is dead: {}", one.place, one.rule, one.explanation);
            for rule in &one.covered_by {
                let _ = writeln!(text, "    {rule}");
            }
        }
        for one in &self.unclear {
            let _ = writeln!(text, "{}: {}: it cannot be told: {}", one.place, one.rule, one.why);
        }
        let _ = writeln!(text, "{} of {} rules could go, all of them together", self.dead.len(), self.rules);
        text
    }
}
