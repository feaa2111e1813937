//! What in a policy is right as it is written and surely not meant?

use std::collections::BTreeMap;

use crds::{Problem, Source};
use policy::{Effect, PolicyObject, Rule};

use crate::objects::{Read, path_of};

/// Comments stand so many lines above what they are about, at most.
const ABOVE: usize = 3;

/// What is found in a policy that was read, beside what its reader found. `texts` are the files.
pub fn of(read: &Read, policy: &PolicyObject, texts: &BTreeMap<String, String>) -> Vec<Problem> {
    let text = read.source.file.as_ref().and_then(|file| texts.get(file));
    let mut found = Vec::new();
    for rule in &policy.rules {
        let path = path_of(&read.value, &rule.origin);
        let mut warn = |message: String| {
            let line = if rule.origin.line > 0 { Some(rule.origin.line) } else { read.source.line };
            let source = Source { line, ..read.source.clone() };
            let problem = Problem { source, ..Problem::at(path.clone(), message) };
            if !found.contains(&problem) {
                found.push(problem);
            }
        };
        for why in analysis::never::never(rule) {
            warn(format!("this can never match: {why}"));
        }
        let written = read.value.pointer(&format!("/{}", path.replace(['.', '['], "/").replace(']', "")));
        let is_empty = written.is_some_and(|rule| rule.as_object().is_some_and(serde_json::Map::is_empty));
        if rule.peers.is_empty() && !is_empty {
            warn("this can never match: an empty list of peers selects nobody".to_owned());
        }
        if let Some(comment) =
            text.filter(|_| is_empty && speaks_of_nothing(rule)).and_then(|text| comment(text, rule.origin.line))
        {
            warn(format!("the comment beside it says {comment:?}, but an empty rule allows nothing"));
        }
    }
    found
}

fn speaks_of_nothing(rule: &Rule) -> bool {
    rule.effect == Effect::Allow && rule.peers.is_empty()
}

/// A comment at the line, or just above it, that says that something is allowed.
fn comment(text: &str, line: usize) -> Option<String> {
    let lines: Vec<&str> = text.lines().collect();
    let last = line.min(lines.len());
    let near = lines.get(last.saturating_sub(ABOVE + 1)..last)?;
    let comment = |line: &&str| line.split_once('#').map(|(_, comment)| comment.trim().to_owned());
    let comments = near.iter().rev().filter_map(comment);
    comments.into_iter().find(|comment| {
        let comment = comment.to_ascii_lowercase();
        ["allow", "permit", "open"].iter().any(|word| comment.contains(word))
    })
}
