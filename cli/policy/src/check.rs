//! Are policies right, and do they say what their author means?

mod lints;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};
use crds::Problem;
use serde_json::{Value, json};

use crate::case::Config;
use crate::junit::escaped;
use crate::objects::Objects;
use crate::world::settings;

/// What to check, and how the findings look.
#[derive(Debug, Args)]
pub struct Check {
    /// Files, folders, or - for standard input
    #[arg(required_unless_present_any = ["live", "kubeconfig", "agent"])]
    files: Vec<PathBuf>,
    #[command(flatten)]
    live: crate::live::Live,
    /// Form of the findings
    #[arg(short, long, value_enum, default_value_t = Form::Table)]
    output: Form,
    /// Warnings fail the check, too
    #[arg(long)]
    strict: bool,
    /// Take policies for nodes, protocols without ports and selectors of nodes for switched on
    #[arg(long)]
    all_features: bool,
}

/// How findings look.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Form {
    /// A line each
    Table,
    /// A list
    Json,
    /// A list
    Yaml,
    /// For code hosts
    Sarif,
    /// For build servers
    Junit,
}

/// How bad a finding is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Severity {
    Error,
    Warning,
}

impl Severity {
    fn name(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        }
    }
}

/// Something that was found.
struct Finding {
    severity: Severity,
    /// The policy, if it is one.
    reference: String,
    problem: Problem,
}

/// All findings, and the policies that there are.
struct Report {
    policies: Vec<String>,
    findings: Vec<Finding>,
}

/// Runs the command. True if all is well.
pub fn run(check: &Check, out: &mut dyn std::io::Write) -> Result<bool> {
    let live = check.live.case()?;
    let mut config = live.as_ref().map_or_else(Config::default, |case| case.config.clone());
    if check.all_features {
        (config.host_firewall, config.node_selector_labels, config.extended_ip_protocols) = (true, true, true);
    }
    let settings = settings(&config).map_err(anyhow::Error::msg)?;
    let mut objects = Objects::default();
    if let Some(case) = live.filter(|_| check.files.is_empty()) {
        objects.add_value(&case.policies, &settings);
    }
    let mut texts = BTreeMap::new();
    crate::files::read(&check.files, |name, text| {
        texts.insert(name.to_owned(), text.to_owned());
        objects.add_file(name, text, &settings);
    })?;
    let report = report(&objects, &texts);
    out.write_all(report.text(check.output).as_bytes())?;
    let worst = |severity: Severity| report.findings.iter().any(|one| one.severity == severity);
    Ok(!(worst(Severity::Error) || check.strict && worst(Severity::Warning)))
}

fn report(objects: &Objects, texts: &BTreeMap<String, String>) -> Report {
    let mut findings: Vec<Finding> = Vec::new();
    let mut add = |severity: Severity, reference: &str, problem: &Problem| {
        findings.push(Finding { severity, reference: reference.to_owned(), problem: problem.clone() });
    };
    objects.problems.iter().for_each(|problem| add(Severity::Error, "", problem));
    for read in &objects.policies {
        match &read.object {
            Ok(policy) => {
                let more = lints::of(read, policy, texts);
                policy.warnings.iter().chain(&more).for_each(|one| add(Severity::Warning, &read.reference, one));
            }
            Err(problems) => problems.iter().for_each(|one| add(Severity::Error, &read.reference, one)),
        }
        for other in objects.policies.iter().take_while(|other| !std::ptr::eq(*other, read)) {
            if other.reference == read.reference {
                let message = format!("this takes the place of the policy of the same name at {}", other.source);
                add(Severity::Warning, &read.reference, &Problem::at("", message).from_source(&read.source));
            }
        }
    }
    findings.sort_by(|a, b| a.problem.source.cmp(&b.problem.source));
    Report { policies: objects.policies.iter().map(|read| read.reference.clone()).collect(), findings }
}

impl Report {
    fn text(&self, form: Form) -> String {
        match form {
            Form::Table => self.table(),
            Form::Json => format!("{:#}\n", self.value()),
            Form::Yaml => serde_saphyr::to_string(&self.value()).unwrap_or_default(),
            Form::Sarif => format!("{:#}\n", self.sarif()),
            Form::Junit => self.junit(),
        }
    }

    fn table(&self) -> String {
        let mut text = String::new();
        for finding in &self.findings {
            let _ = writeln!(text, "{}: {}{}", finding.severity.name(), finding.named(), finding.problem);
        }
        let count = |severity: Severity| self.findings.iter().filter(|one| one.severity == severity).count();
        let _ = writeln!(
            text,
            "{} policies, {} errors, {} warnings",
            self.policies.len(),
            count(Severity::Error),
            count(Severity::Warning)
        );
        text
    }

    fn value(&self) -> Value {
        let findings = self.findings.iter().map(|finding| {
            let source = &finding.problem.source;
            json!({
                "severity": finding.severity.name(),
                "policy": finding.reference,
                "file": source.file,
                "line": source.line,
                "document": source.document,
                "path": finding.problem.path,
                "message": finding.problem.message,
            })
        });
        json!({ "policies": self.policies, "findings": findings.collect::<Vec<_>>() })
    }

    fn sarif(&self) -> Value {
        let results = self.findings.iter().map(|finding| {
            let source = &finding.problem.source;
            let file = source.file.clone().unwrap_or_else(|| "-".to_owned());
            json!({
                "ruleId": finding.rule(),
                "level": finding.severity.name(),
                "message": { "text": format!("{}{}", finding.named(), finding.plain()) },
                "locations": [{ "physicalLocation": {
                    "artifactLocation": { "uri": file },
                    "region": { "startLine": source.line.unwrap_or(1) },
                } }],
            })
        });
        json!({
            "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
            "version": "2.1.0",
            "runs": [{
                "tool": { "driver": { "name": "axoneme policy check", "rules": [
                    { "id": "policy-error", "shortDescription": { "text": "The policy is refused." } },
                    { "id": "policy-warning", "shortDescription": { "text": "The policy is surely not meant so." } },
                ] } },
                "results": results.collect::<Vec<_>>(),
            }],
        })
    }

    /// A test for each policy, and for each text that could not be read.
    fn junit(&self) -> String {
        let mut cases = String::new();
        let unnamed = self.findings.iter().any(|one| one.reference.is_empty()).then(String::new);
        let mut names: Vec<&String> = self.policies.iter().chain(&unnamed).collect();
        names.dedup();
        let mut failed = 0;
        for name in &names {
            let own = || self.findings.iter().filter(|one| one.reference == **name);
            let shown = if name.is_empty() { "files" } else { name };
            let _ = write!(cases, "  <testcase classname=\"policy\" name=\"{}\">", escaped(shown));
            let errors: Vec<&Finding> = own().filter(|one| one.severity == Severity::Error).collect();
            failed += usize::from(!errors.is_empty());
            for error in errors {
                let text = escaped(&error.problem.to_string());
                let _ = write!(cases, "<failure message=\"{text}\">{text}</failure>");
            }
            for warning in own().filter(|one| one.severity == Severity::Warning) {
                let _ = write!(cases, "<system-out>{}</system-out>", escaped(&warning.problem.to_string()));
            }
            cases.push_str("</testcase>\n");
        }
        crate::junit::suite("axoneme policy check", names.len(), failed, &cases)
    }
}

impl Finding {
    fn named(&self) -> String {
        if self.reference.is_empty() { String::new() } else { format!("{}: ", self.reference) }
    }

    fn plain(&self) -> String {
        let problem = &self.problem;
        if problem.path.is_empty() { problem.message.clone() } else { format!("{}: {}", problem.path, problem.message) }
    }

    fn rule(&self) -> &'static str {
        match self.severity {
            Severity::Error => "policy-error",
            Severity::Warning => "policy-warning",
        }
    }
}
