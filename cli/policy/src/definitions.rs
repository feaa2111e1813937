//! Which kinds of objects are policies written in, as a cluster is told of them?

use std::io::Write;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use serde_json::Value;

/// Which definitions, and how.
#[derive(Debug, Args)]
pub struct Definitions {
    /// Kinds, as in CiliumNetworkPolicy; all if none is named
    kinds: Vec<String>,
    /// Format of the output
    #[arg(short, long, default_value = "yaml")]
    output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Documents, for `kubectl apply --server-side -f -`
    Yaml,
    /// One object a line
    Json,
}

/// Runs the command.
pub fn run(asked: &Definitions, out: &mut dyn Write) -> Result<()> {
    let all = crds::custom_resource_definitions();
    let kind = |definition: &Value| definition["spec"]["names"]["kind"].as_str().unwrap_or_default().to_owned();
    if let Some(unknown) = asked.kinds.iter().find(|wanted| !all.iter().any(|one| kind(one) == **wanted)) {
        let known: Vec<String> = all.iter().map(kind).collect();
        bail!("there is no kind {unknown}; there are {}", known.join(", "));
    }
    for definition in all.iter().filter(|one| asked.kinds.is_empty() || asked.kinds.contains(&kind(one))) {
        match asked.output {
            Format::Yaml => write!(out, "---\n{}", serde_saphyr::to_string(definition)?)?,
            Format::Json => writeln!(out, "{definition}")?,
        }
    }
    Ok(())
}
