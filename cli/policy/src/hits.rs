//! How often did each rule decide, and when last, as agents counted it?

use std::collections::BTreeMap;
use std::path::PathBuf;

use agent_api::{Client, RuleName, RuleSetHits};
use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;

use crate::diff::Form;

/// Which counts to show.
#[derive(Debug, Args)]
pub struct Hits {
    /// Sockets of agents, whose counts are added up; without one that of this node's agent
    #[arg(long, value_name = "SOCKET", num_args = 1..)]
    agent: Vec<PathBuf>,
    /// Only rules that never decided
    #[arg(long)]
    unused: bool,
    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t = Form::Table)]
    output: Form,
}

/// A rule and how often it decided. What several rules allow together counts for each of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Row {
    /// The rule, or what decided where no rule did: then of which policy.
    rule: String,
    direction: String,
    verdict: String,
    packets: u64,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_hit: Option<String>,
}

/// Runs the command.
pub fn run(hits: &Hits, out: &mut dyn std::io::Write) -> Result<()> {
    let sockets = if hits.agent.is_empty() { vec![agent_api::socket_path()] } else { hits.agent.clone() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    let mut all = Vec::new();
    for socket in sockets {
        let told: Vec<RuleSetHits> = runtime.block_on(Client::new(&socket).get("/v1/policy/hits"))?;
        all.extend(told);
    }
    let mut rows = by_rule(&all);
    if hits.unused {
        rows.retain(|row| row.packets == 0);
    }
    let text = match hits.output {
        Form::Table => table(&rows),
        Form::Json => format!("{}\n", serde_json::to_string_pretty(&rows)?),
        Form::Yaml => serde_saphyr::to_string(&rows)?,
    };
    out.write_all(text.as_bytes())?;
    Ok(())
}

/// Adds up what rule sets counted: for each rule, and for each policy that closed an endpoint.
fn by_rule(all: &[RuleSetHits]) -> Vec<Row> {
    let mut rows: BTreeMap<(String, &str, &str), Row> = BTreeMap::new();
    for set in all {
        let mut names: Vec<String> = set.rules.iter().map(|rule| name(rule, set.implicit.as_deref())).collect();
        names.extend(set.implicit.clone().filter(|_| set.rules.is_empty()));
        names.sort_unstable();
        names.dedup();
        for rule in names {
            let (direction, verdict) = (set.direction.as_str(), set.verdict.as_str());
            let row = rows.entry((rule.clone(), direction, verdict)).or_insert_with(|| Row {
                rule,
                direction: direction.to_owned(),
                verdict: verdict.to_owned(),
                packets: 0,
                bytes: 0,
                last_hit: None,
            });
            row.packets = row.packets.saturating_add(set.packets);
            row.bytes = row.bytes.saturating_add(set.bytes);
            // Times of one form and zone: the text that is greater is later.
            row.last_hit = row.last_hit.take().max(set.last_hit.clone());
        }
    }
    rows.into_values().collect()
}

fn name(rule: &RuleName, implicit: Option<&str>) -> String {
    let RuleName { kind, namespace, name, section, spec, index, .. } = rule;
    let policy = if namespace.is_empty() { format!("{kind} {name}") } else { format!("{kind} {namespace}/{name}") };
    match (implicit, spec) {
        (Some(implicit), _) => format!("{implicit} of {policy}"),
        (None, 0) => format!("{policy} {section}[{index}]"),
        (None, spec) => format!("{policy} specs[{spec}].{section}[{index}]"),
    }
}

fn table(rows: &[Row]) -> String {
    let head = ["RULE", "DIRECTION", "VERDICT", "PACKETS", "BYTES", "LAST HIT"].map(str::to_owned);
    let cells = rows.iter().map(|row| {
        let last = row.last_hit.clone().unwrap_or_else(|| "never".into());
        [
            row.rule.clone(),
            row.direction.clone(),
            row.verdict.clone(),
            row.packets.to_string(),
            row.bytes.to_string(),
            last,
        ]
    });
    let lines: Vec<[String; 6]> = std::iter::once(head).chain(cells).collect();
    let width = |at: usize| lines.iter().map(|line| line[at].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..6).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let padded: Vec<String> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(padded.join("   ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(
        rules: &[(&str, usize, usize)],
        implicit: Option<&str>,
        packets: u64,
        last_hit: Option<&str>,
    ) -> RuleSetHits {
        let rule = |(name, spec, index): &(&str, usize, usize)| RuleName {
            kind: "CiliumNetworkPolicy".into(),
            namespace: "default".into(),
            name: (*name).into(),
            section: "ingress".into(),
            spec: *spec,
            index: *index,
            ..RuleName::default()
        };
        RuleSetHits {
            direction: "ingress".into(),
            verdict: if implicit.is_some() { "default-deny" } else { "allow" }.into(),
            implicit: implicit.map(str::to_owned),
            rules: rules.iter().map(rule).collect(),
            packets,
            bytes: packets * 60,
            last_hit: last_hit.map(str::to_owned),
        }
    }

    #[test]
    fn what_several_rules_allow_counts_for_each() {
        let early = Some("2026-01-01T00:00:00Z");
        let late = Some("2026-01-02T00:00:00Z");
        let rows = by_rule(&[
            set(&[("a", 0, 0), ("a", 0, 1)], None, 2, late),
            set(&[("a", 0, 0)], None, 3, early),
            set(&[("b", 1, 0)], None, 0, None),
            set(&[("a", 0, 0), ("a", 0, 1)], Some("default-deny"), 7, early),
        ]);
        let text = table(&rows);
        assert_eq!(
            text,
            "RULE                                                DIRECTION   VERDICT        PACKETS   BYTES   LAST HIT\n\
             CiliumNetworkPolicy default/a ingress[0]            ingress     allow          5         300     2026-01-02T00:00:00Z\n\
             CiliumNetworkPolicy default/a ingress[1]            ingress     allow          2         120     2026-01-02T00:00:00Z\n\
             CiliumNetworkPolicy default/b specs[1].ingress[0]   ingress     allow          0         0       never\n\
             default-deny of CiliumNetworkPolicy default/a       ingress     default-deny   7         420     2026-01-01T00:00:00Z\n"
        );
    }
}
