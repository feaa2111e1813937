//! Which few policies let flows pass that were seen, and how much more do they allow?

mod flows;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::PathBuf;

use analysis::suggest::{Asked, End, Seen, Suggestion, suggest};
use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::Value;

use crate::case::{Case, Endpoint, Flow, Name};
use crate::judge::{Judge, Verdict};
use crate::objects::Objects;
use crate::world::{World, settings};

/// Which flows, and how the policies look.
#[derive(Debug, Args)]
pub struct Suggest {
    /// Flows, one a line: Hubble's (hubble observe -o jsonpb), or those of policy eval; - is standard input
    #[arg(long)]
    flows: PathBuf,
    /// Who is there, for flows that only name who sends and receives
    #[arg(long)]
    cluster: Option<PathBuf>,
    /// So many rules at most, if that can be: rules are put together that then allow more
    #[arg(long)]
    max_rules: Option<usize>,
    /// Leave out flows that were dropped
    #[arg(long)]
    forwarded: bool,
    /// Leave a direction of a workload open of which no flow was seen
    #[arg(long)]
    leave_open: bool,
    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t = Form::Yaml)]
    output: Form,
}

/// How the answer looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Form {
    /// Policies to be applied, with comments
    Yaml,
    /// For programs
    Json,
    /// The rules alone
    Table,
}

/// What is suggested, and what was proved of it.
#[derive(Serialize)]
struct Report {
    policies: Vec<Value>,
    rules: Vec<Told>,
    proof: Proof,
    score: Score,
}

#[derive(Serialize)]
struct Told {
    policy: String,
    direction: &'static str,
    index: usize,
    /// Each kind of flow once, with the lines of the file that have it.
    flows: BTreeMap<String, Vec<usize>>,
}

/// What the engine says of the flows with these policies.
#[derive(Serialize)]
struct Proof {
    flows: usize,
    allowed: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_allowed: Vec<String>,
}

/// How much is allowed that was not seen, among those that were seen and on the ports that were seen.
#[derive(Serialize)]
struct Score {
    seen: usize,
    allowed: usize,
    /// Share of what is allowed that was not seen.
    over_permission: f64,
}

/// So many questions at most for the score.
const MOST: usize = 4_000_000;

/// Runs the command. True if all flows are allowed by what is suggested.
pub fn run(arguments: &Suggest, out: &mut dyn std::io::Write) -> Result<bool> {
    let case = match &arguments.cluster {
        Some(file) => crate::eval::cluster(file)?,
        None => Case::default(),
    };
    let read = flows::read(&arguments.flows, &case, arguments.forwarded)?;
    if read.is_empty() {
        bail!("{}: there is no flow that a policy could be for", arguments.flows.display());
    }
    let seen: Vec<Seen> = read.iter().map(|one| one.seen.clone()).collect();
    let suggestion = suggest(&seen, arguments.max_rules, arguments.leave_open);
    let report = prove(&case, &read, suggestion)?;
    let text = match arguments.output {
        Form::Yaml => report.yaml()?,
        Form::Json => format!("{}\n", serde_json::to_string_pretty(&report)?),
        Form::Table => report.table(),
    };
    out.write_all(text.as_bytes())?;
    Ok(report.proof.allowed == report.proof.flows)
}

/// The cluster of the flows: everybody who is in them.
fn cluster(case: &Case, read: &[flows::Read]) -> (Case, BTreeMap<End, String>) {
    let (mut case, mut names) = (case.clone(), BTreeMap::new());
    let ends =
        read.iter().flat_map(|one| [(&one.seen.source, one.addresses[0]), (&one.seen.destination, one.addresses[1])]);
    for (end, address) in ends {
        if names.contains_key(end) {
            continue;
        }
        let name = match end {
            End::Workload(labels) => {
                let name = format!("seen-{}", names.len());
                let endpoint = Endpoint { name: name.clone(), raw_labels: labels.to_strings(), ..Endpoint::default() };
                case.endpoints.push(endpoint);
                format!("default/{name}")
            }
            End::Entity(name) => format!("reserved:{name}"),
            End::Name(name) => {
                let ips = vec![address.map_or_else(|| "192.0.2.1".to_owned(), |address| address.to_string())];
                case.dns.push(Name { name: name.clone(), ips });
                format!("dns:{name}")
            }
            End::Address(address) => {
                case.config.ipv6 |= address.is_ipv6();
                address.to_string()
            }
            End::World => "reserved:world".to_owned(),
        };
        names.insert(end.clone(), name);
    }
    case.policies = Value::Null;
    (case, names)
}

fn prove(case: &Case, read: &[flows::Read], suggestion: Suggestion) -> Result<Report> {
    let (case, names) = cluster(case, read);
    let settings = settings(&case.config).map_err(anyhow::Error::msg)?;
    let mut objects = Objects::default();
    objects.add_value(&Value::Array(suggestion.policies.clone()), &settings);
    let wrong = objects.policies.iter().filter_map(|one| one.object.as_ref().err()).flatten();
    if let Some(problem) = objects.problems.iter().chain(wrong).next() {
        bail!("an invariant does not hold: a suggested policy is refused: {problem}");
    }
    let mut world = World::new(&case, &objects, settings).map_err(anyhow::Error::msg)?;
    let mut judge = Judge::new(&mut world, false);
    let mut not_allowed = Vec::new();
    for one in read {
        let flow = flow(&names, &one.seen.source, &one.seen.destination, (one.seen.protocol, one.seen.port));
        let passes = judge.verdict(&flow).is_ok_and(|verdict| allows(&verdict, one.seen.asked.as_ref()));
        if !passes {
            not_allowed.push(format!("line {}: {}", one.line, one.text()));
        }
    }
    let proof = Proof { flows: read.len(), allowed: read.len() - not_allowed.len(), not_allowed };
    let score = score(&mut judge, &names, read);
    let rules = suggestion.rules.iter().map(|rule| {
        let mut flows: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for at in &rule.flows {
            flows.entry(read[*at].text()).or_default().push(read[*at].line);
        }
        Told { policy: name_of(&suggestion.policies[rule.policy]), direction: rule.direction, index: rule.index, flows }
    });
    Ok(Report { rules: rules.collect(), policies: suggestion.policies.clone(), proof, score })
}

fn flow(names: &BTreeMap<End, String>, source: &End, destination: &End, (protocol, port): (u8, u16)) -> Flow {
    let name = |end: &End| names.get(end).cloned().unwrap_or_default();
    let icmp = [1, 58].contains(&protocol);
    Flow {
        src: name(source),
        dst: name(destination),
        proto: protocol.to_string(),
        port: if icmp { 0 } else { port },
        icmp_type: if icmp { u8::try_from(port).ok() } else { None },
        ipv6: [source, destination].iter().any(|end| matches!(end, End::Address(address) if address.is_ipv6())),
        ..Flow::default()
    }
}

/// Both ends let it pass, and so do their proxies.
fn allows(verdict: &Verdict, asked: Option<&Asked>) -> bool {
    let ends = [&verdict.egress, &verdict.ingress];
    ends.into_iter().flatten().all(|end| {
        end.verdict == "allow"
            && (!end.redirect || end.open || end.l7.is_empty() || {
                let rules =
                    end.l7.iter().filter_map(|one| serde_json::from_value::<crds::L7Rules>(one.rules.clone()).ok());
                rules.into_iter().any(|rules| asked.is_none_or(|asked| fits(&rules, asked)))
            })
    })
}

fn fits(rules: &crds::L7Rules, asked: &Asked) -> bool {
    match asked {
        Asked::Http(method, path) => {
            let Some(list) = &rules.http else { return true };
            let headers = http::HeaderMap::new();
            let request = l7::http::Request { method, path, authority: "", headers: &headers };
            l7::http::HttpRules::new(list, &NoSecrets).0.allows(&request).is_some()
        }
        Asked::Kafka(kind, topic) => {
            let Some(list) = &rules.kafka else { return true };
            let Some(api) = l7::kafka::by_name(kind) else { return false };
            let topics: Vec<&str> = topic.iter().map(String::as_str).collect();
            l7::kafka::Rules::new(list).0.allow(&l7::kafka::Request::of(api, api.last, ""), &topics)
        }
        Asked::Dns(name) => {
            let Some(list) = &rules.dns else { return true };
            let name = policy::canonical_name(name);
            list.iter().any(|rule| {
                let is = rule.match_name.as_deref().is_some_and(|one| policy::canonical_name(one) == name);
                is || rule.match_pattern.as_deref().is_some_and(|one| policy::name_matches(one, &name))
            })
        }
    }
}

struct NoSecrets;

impl l7::http::Secrets for NoSecrets {
    fn header_value(&self, _: &crds::SecretRef) -> Option<Vec<u8>> {
        None
    }
}

/// Asks of all who were seen whether each may reach each on all ports that were seen.
fn score(judge: &mut Judge<'_>, names: &BTreeMap<End, String>, read: &[flows::Read]) -> Score {
    let ports: BTreeSet<(u8, u16)> = read.iter().map(|one| (one.seen.protocol, one.seen.port)).collect();
    let seen: BTreeSet<(&End, &End, (u8, u16))> =
        read.iter().map(|one| (&one.seen.source, &one.seen.destination, (one.seen.protocol, one.seen.port))).collect();
    let is_pod = |end: &End| matches!(end, End::Workload(_));
    let mut allowed = 0;
    if names.len() * names.len() * ports.len() <= MOST {
        for source in names.keys() {
            for destination in names.keys().filter(|one| *one != source && (is_pod(source) || is_pod(one))) {
                for port in &ports {
                    let flow = flow(names, source, destination, *port);
                    let verdict = judge.verdict(&flow);
                    let counts = verdict.is_ok_and(|verdict| allows(&verdict, None) && !by_the_node(&verdict));
                    allowed += usize::from(counts);
                }
            }
        }
    }
    // A workload that talks to itself counts as well as seen as allowed.
    let own = seen.iter().filter(|(source, destination, _)| source == destination).count();
    let allowed = (allowed + own).max(seen.len());
    let over_permission = (allowed - seen.len()) as f64 / allowed.max(1) as f64;
    Score { seen: seen.len(), allowed, over_permission }
}

/// That the own node reaches its pods, no policy of these says.
fn by_the_node(verdict: &Verdict) -> bool {
    verdict.ingress.as_ref().is_some_and(|end| end.rules == ["allow-localhost-ingress"])
}

fn name_of(policy: &Value) -> String {
    let text = |path: &str| policy.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    format!("{} {}/{}", text("/kind"), text("/metadata/namespace"), text("/metadata/name"))
}

impl Report {
    /// Policies as they are applied; above each, what its rules are for.
    fn yaml(&self) -> Result<String> {
        let mut text = String::new();
        for line in self.summary().lines() {
            let _ = writeln!(text, "# {line}");
        }
        for policy in &self.policies {
            text.push_str("---\n");
            let name = name_of(policy);
            for rule in self.rules.iter().filter(|rule| rule.policy == name) {
                for (flow, lines) in &rule.flows {
                    let _ = writeln!(text, "# {}[{}]: {flow} ({})", rule.direction, rule.index, lines_of(lines));
                }
            }
            text.push_str(&serde_saphyr::to_string(policy)?);
        }
        Ok(text)
    }

    fn table(&self) -> String {
        let mut text = String::new();
        for rule in &self.rules {
            let _ = writeln!(text, "{} {}[{}]", rule.policy, rule.direction, rule.index);
            for (flow, lines) in &rule.flows {
                let _ = writeln!(text, "    {flow} ({})", lines_of(lines));
            }
        }
        text + &self.summary()
    }

    fn summary(&self) -> String {
        let (proof, score) = (&self.proof, &self.score);
        let mut text = format!(
            "{} rules in {} policies; {} of {} flows are allowed by them, as the engine says\n",
            self.rules.len(),
            self.policies.len(),
            proof.allowed,
            proof.flows
        );
        let _ = writeln!(
            text,
            "over-permission {:.1} %: of {} connections that are allowed among those seen, {} were seen",
            100.0 * score.over_permission,
            score.allowed,
            score.seen
        );
        for one in &proof.not_allowed {
            let _ = writeln!(text, "not allowed: {one}");
        }
        text
    }
}

fn lines_of(lines: &[usize]) -> String {
    const MOST: usize = 5;
    let shown: Vec<String> = lines.iter().take(MOST).map(ToString::to_string).collect();
    let more = if lines.len() > MOST { format!(" and {} more", lines.len() - MOST) } else { String::new() };
    format!("line {}{more}", shown.join(", "))
}
