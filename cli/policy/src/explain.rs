//! Why is a flow let through or kept out, and which small change would turn that?

mod change;
mod l7;

use std::fmt::Write;

use anyhow::{Context, Result, anyhow};
use clap::{Args, ValueEnum};
use policy::{Direction, Effect, PeerIdentity, Rule, Tier};
use serde::Serialize;
use serde_json::Value;

use crate::case::{Case, Flow};
use crate::judge::{Judge, Verdict};
use crate::objects::Objects;
use crate::result::DirectionResult;
use crate::world::{World, settings};
use change::Change;
use l7::L7Answer;

/// The flow, and the policies and the cluster that it is about.
#[derive(Debug, Args)]
pub struct Explain {
    /// Who sends: namespace/pod, an address, node:NAME, reserved:world
    source: String,
    /// Who receives, as DST, DST:PORT or DST:PORT/PROTOCOL
    destination: String,
    #[command(flatten)]
    sources: crate::live::Sources,
    /// Message type of ICMP, with a protocol ICMP or ICMPv6
    #[arg(long)]
    icmp: Option<u8>,
    /// A request, like "GET /x"
    #[arg(long)]
    http: Option<String>,
    /// The host that the request is for
    #[arg(long, requires = "http")]
    host: Option<String>,
    /// A header of the request, like "X-Token: abc"
    #[arg(long, requires = "http")]
    header: Vec<String>,
    /// A request to a Kafka broker, like "produce orders": its kind, or kind/version, and topics
    #[arg(long, conflicts_with = "http")]
    kafka: Option<String>,
    /// How the client of Kafka calls itself
    #[arg(long, requires = "kafka")]
    client_id: Option<String>,
    /// A name that is asked for
    #[arg(long, conflicts_with_all = ["http", "kafka"])]
    dns: Option<String>,
    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t = Form::Text)]
    output: Form,
}

/// How the answer looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Form {
    /// For people
    Text,
    /// For programs
    Json,
    /// For programs
    Yaml,
}

/// All that is to be said of a flow.
#[derive(Serialize)]
struct Explanation {
    source: Peer,
    destination: Peer,
    protocol: String,
    port: u16,
    /// ALLOWED or DENIED, as far as tables go.
    verdict: &'static str,
    ends: Vec<End>,
    #[serde(skip_serializing_if = "Option::is_none")]
    l7: Option<L7Answer>,
    /// Each of them alone turns the verdict.
    changes: Vec<Change>,
}

/// Who is at one side.
#[derive(Serialize)]
struct Peer {
    name: String,
    identity: u32,
    labels: Vec<String>,
}

/// What the policy of one side says.
#[derive(Serialize)]
struct End {
    direction: &'static str,
    endpoint: String,
    #[serde(flatten)]
    result: DirectionResult,
    /// The rules that speak of the flow, in the order in which they are asked.
    speaking: Vec<Speaking>,
    /// Policies that close this side, if nothing decides but that.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    closed_by: Vec<String>,
}

/// A rule that speaks of the flow.
#[derive(Clone, Serialize)]
struct Speaking {
    tier: &'static str,
    priority: u32,
    rule: String,
    /// allow, deny or pass.
    effect: &'static str,
    /// Its word counts.
    decides: bool,
    file: String,
    line: usize,
    /// As it is written.
    text: Value,
}

/// Policies and a cluster, and judging with other policies in their place.
struct Setting {
    case: Case,
    objects: Objects,
}

/// Runs the command. True if the flow is let through, at the application's level, too.
pub fn run(explain: &Explain, out: &mut dyn std::io::Write) -> Result<bool> {
    let mut flow = Flow { src: explain.source.clone(), icmp_type: explain.icmp, ..Flow::default() };
    crate::target::read(&explain.destination, &mut flow)
        .ok_or_else(|| anyhow!("{:?} is not a destination like db:5432/TCP", explain.destination))?;
    let setting = Setting::read(explain)?;
    let explanation = setting.explain(&flow, explain)?;
    let text = match explain.output {
        Form::Text => explanation.text(),
        Form::Json => format!("{}\n", serde_json::to_string_pretty(&explanation)?),
        Form::Yaml => serde_saphyr::to_string(&explanation)?,
    };
    out.write_all(text.as_bytes())?;
    Ok(explanation.verdict == "ALLOWED" && explanation.l7.is_none_or(|answer| answer.allowed))
}

impl Setting {
    fn read(explain: &Explain) -> Result<Setting> {
        let given = explain.sources.given()?;
        let (case, objects) = (given.case, given.objects);
        let wrong = objects.policies.iter().filter_map(|read| read.object.as_ref().err()).flatten();
        objects.problems.iter().chain(wrong).for_each(|problem| eprintln!("{problem}"));
        Ok(Setting { case, objects })
    }

    fn verdict(&self, objects: &Objects, flow: &Flow) -> Result<Verdict, String> {
        let settings = settings(&self.case.config)?;
        let mut world = World::new(&self.case, objects, settings)?;
        Judge::new(&mut world, false).verdict(flow)
    }

    fn explain(&self, flow: &Flow, explain: &Explain) -> Result<Explanation> {
        let settings = settings(&self.case.config).map_err(anyhow::Error::msg)?;
        let mut world = World::new(&self.case, &self.objects, settings).map_err(anyhow::Error::msg)?;
        let verdict = Judge::new(&mut world, false).verdict(flow).map_err(anyhow::Error::msg)?;
        let peer = |name: &str, identity: u32| Peer {
            name: name.to_owned(),
            identity,
            labels: world.labels(identity).map(labels::Labels::to_strings).unwrap_or_default(),
        };
        let (source, destination) = (peer(&flow.src, verdict.identities.0), peer(&flow.dst, verdict.identities.1));
        let mut ends = Vec::new();
        let sides =
            [(Direction::Egress, &verdict.egress, &source), (Direction::Ingress, &verdict.ingress, &destination)];
        for (direction, result, own) in sides {
            if let Some(result) = result {
                ends.push(self.end(&world, flow, direction, result, own)?);
            }
        }
        if ends.is_empty() {
            return Err(anyhow!("neither {} nor {} is an endpoint of the cluster: nobody decides", flow.src, flow.dst));
        }
        let denied = ends.iter().any(|end| end.result.verdict == "deny");
        let l7 = if denied { None } else { l7::answer(explain, &ends).context("at the application's level")? };
        Ok(Explanation {
            source,
            destination,
            protocol: if flow.proto.is_empty() { "TCP".to_owned() } else { flow.proto.clone() },
            port: flow.port,
            verdict: if denied { "DENIED" } else { "ALLOWED" },
            l7,
            changes: self.changes(&world, flow, &verdict),
            ends,
        })
    }

    fn end(
        &self,
        world: &World,
        flow: &Flow,
        direction: Direction,
        result: &DirectionResult,
        own: &Peer,
    ) -> Result<End> {
        let labels = world.labels(own.identity).cloned().unwrap_or_default();
        let subject = PeerIdentity::new(own.identity, labels);
        let (mut speaking, mut closed_by) = (Vec::new(), Vec::new());
        for (at, read) in self.objects.policies.iter().enumerate() {
            for rule in read.object.iter().flat_map(|policy| &policy.rules) {
                if rule.direction != direction || !rule.subject.selects(&subject) {
                    continue;
                }
                if rule.default_deny && !closed_by.contains(&read.reference) {
                    closed_by.push(read.reference.clone());
                }
                if self.speaks(at, rule, flow).map_err(anyhow::Error::msg)? {
                    let name = crate::result::name_of(&rule.origin);
                    let decides = result.origins.iter().any(|origin| origin.name() == name);
                    speaking.push((rule.tier, rule.priority, self.speaking(at, rule, decides)));
                }
            }
        }
        speaking.sort_by_key(|(tier, priority, _): &(Tier, u32, Speaking)| (*tier, *priority));
        Ok(End {
            direction: direction.name(),
            endpoint: own.name.clone(),
            closed_by: if result.reason == "policy" { closed_by } else { Vec::new() },
            speaking: speaking.into_iter().map(|(_, _, one)| one).collect(),
            result: result.clone(),
        })
    }

    /// Would the rule decide, were it the only one?
    fn speaks(&self, policy: usize, rule: &Rule, flow: &Flow) -> Result<bool, String> {
        let mut alone = Objects { policies: vec![self.objects.policies[policy].clone()], ..self.objects.clone() };
        for object in alone.policies.iter_mut().flat_map(|read| read.object.as_mut()) {
            let effect = if rule.effect == Effect::Pass { Effect::Deny } else { rule.effect };
            object.rules = vec![Rule { effect, ..rule.clone() }];
        }
        let flow = Flow { direction: rule.direction.name().to_owned(), ..flow.clone() };
        let verdict = self.verdict(&alone, &flow)?;
        Ok([verdict.egress, verdict.ingress].iter().flatten().any(|end| !end.origins.is_empty()))
    }

    fn speaking(&self, policy: usize, rule: &Rule, decides: bool) -> Speaking {
        let read = &self.objects.policies[policy];
        let origin = &rule.origin;
        let path = crate::objects::path_of(&read.value, origin).replace(['.', '['], "/").replace(']', "");
        let text = read.value.pointer(&format!("/{path}"));
        Speaking {
            tier: rule.tier.name(),
            priority: rule.priority,
            rule: crate::result::name_of(origin),
            effect: match rule.effect {
                Effect::Allow => "allow",
                Effect::Deny => "deny",
                Effect::Pass => "pass",
            },
            decides,
            file: read.source.file.clone().unwrap_or_default(),
            line: if origin.line > 0 { origin.line } else { read.source.line.unwrap_or(0) },
            text: text.cloned().unwrap_or_default(),
        }
    }
}

impl Explanation {
    fn text(&self) -> String {
        let mut text = String::new();
        let (from, to) = (&self.source, &self.destination);
        let _ = writeln!(
            text,
            "{}: {} (identity {}) -> {} (identity {}) {}/{}",
            self.verdict, from.name, from.identity, to.name, to.identity, self.port, self.protocol
        );
        // One that is denied denies the address that an allowed one has as well.
        let names: Vec<&str> = to.labels.iter().filter_map(|label| label.strip_prefix("fqdn:")).collect();
        if !names.is_empty() {
            let _ = writeln!(text, "  the address is one of {}", names.join(" and of "));
        }
        for end in &self.ends {
            end.tell(&mut text);
        }
        if let Some(answer) = &self.l7 {
            let _ = writeln!(text, "\n{}", answer.text());
        }
        for change in &self.changes {
            let _ = write!(text, "\n{}", change.text());
        }
        text
    }
}

impl End {
    fn tell(&self, text: &mut String) {
        let _ = writeln!(text, "\n{} of {}: {}", self.direction, self.endpoint, crate::suite::describe(&self.result));
        if !self.closed_by.is_empty() {
            let _ = writeln!(text, "  closed by {}", self.closed_by.join(", "));
        }
        for rule in &self.speaking {
            let mark = if rule.decides { "*" } else { " " };
            let tier = match rule.tier {
                "normal" => String::new(),
                tier => format!(", tier {tier}, priority {}", rule.priority),
            };
            let place = if rule.file.is_empty() { String::new() } else { format!(" ({}:{})", rule.file, rule.line) };
            let _ = writeln!(text, "{mark} {}: {}{tier}{place}", rule.effect, rule.rule);
            text.push_str(&indented(&rule.text, "      "));
        }
        if self.result.redirect {
            for asked in &self.result.l7 {
                let _ = writeln!(text, "  the proxy for {} asks {}", asked.parser, asked.rules);
                if !asked.denied_names.is_empty() {
                    let _ = writeln!(text, "  and refuses {}", asked.denied_names.join(", "));
                }
            }
        }
    }
}

/// A value as YAML.
fn indented(value: &Value, by: &str) -> String {
    let yaml = if value.is_null() { String::new() } else { serde_saphyr::to_string(value).unwrap_or_default() };
    yaml.lines().map(|line| format!("{by}{line}\n")).collect()
}
