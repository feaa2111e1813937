//! Who reaches whom, drawn or listed?

use std::collections::BTreeMap;
use std::fmt::Write;

use analysis::layout::{Arrow, Box, svg};
use analysis::reach::{Passing, reach};
use analysis::{Area, Region, Scene, Set};
use anyhow::{Result, anyhow};
use clap::{Args, ValueEnum};
use ipnet::IpNet;
use labels::{Labels, source};
use serde::Serialize;

use crate::case::Flow;
use crate::judge::Judge;
use crate::universe::Universe;

/// What to draw.
#[derive(Debug, Args)]
pub struct Graph {
    #[command(flatten)]
    sources: crate::live::Sources,
    /// Only what comes from or goes to this namespace
    #[arg(short, long)]
    namespace: Option<String>,
    /// Also what passes because no policy selects either end
    #[arg(long)]
    all: bool,
    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t = Form::Table)]
    output: Form,
}

/// How the answer looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Form {
    /// A line for each edge
    Table,
    /// A picture
    Svg,
    /// For graphviz
    Dot,
    /// For programs
    Json,
    /// For programs
    Yaml,
}

/// Who reaches whom.
#[derive(Serialize)]
struct Report {
    nodes: Vec<Node>,
    edges: Vec<Edge>,
}

#[derive(Serialize)]
struct Node {
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    namespace: String,
    /// The endpoints that it stands for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    endpoints: Vec<String>,
    /// Whom the engine is asked about.
    #[serde(skip)]
    asked: String,
}

#[derive(Serialize)]
struct Edge {
    source: String,
    destination: String,
    /// Ports that are open.
    ports: Vec<String>,
    /// Ports on which a proxy reads the traffic.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    redirected: Vec<String>,
    /// The policies that decide.
    policies: Vec<String>,
    #[serde(skip)]
    ends: (usize, usize),
    #[serde(skip)]
    is_decided: bool,
}

/// Runs the command.
pub fn run(graph: &Graph, out: &mut dyn std::io::Write) -> Result<bool> {
    let given = graph.sources.given()?;
    let report = report(Universe::new(&given.case, given.objects)?, graph)?;
    let text = match graph.output {
        Form::Table => report.table(),
        Form::Svg => report.svg(),
        Form::Dot => report.dot(),
        Form::Json => format!("{}\n", serde_json::to_string_pretty(&report)?),
        Form::Yaml => serde_saphyr::to_string(&report)?,
    };
    out.write_all(text.as_bytes())?;
    Ok(true)
}

fn report(mut universe: Universe, graph: &Graph) -> Result<Report> {
    let side = universe.side.clone();
    let mut scene = Scene::new(universe.space(false)?, [&side, &side], false, 100_000);
    let (nodes, sets) = nodes(&universe, &scene);
    let found = reach(&mut scene, &sets).map_err(|_| anyhow!("there are too many kinds of peers to tell apart"))?;
    let mut judge = Judge::new(&mut universe.world, false);
    let mut edges = Vec::new();
    for edge in found {
        let list = |redirected: bool| {
            let some = edge.ports.iter().filter(|one| one.redirected == redirected).map(|one| one.ports);
            crate::diff::ports(&scene, &some.collect::<Vec<_>>())
        };
        let (policies, is_decided) =
            policies(&mut judge, &scene, [&nodes[edge.source], &nodes[edge.destination]], &edge.ports);
        edges.push(Edge {
            source: nodes[edge.source].name.clone(),
            destination: nodes[edge.destination].name.clone(),
            ports: list(false),
            redirected: list(true),
            policies,
            ends: (edge.source, edge.destination),
            is_decided,
        });
    }
    edges.retain(|edge| graph.all || edge.is_decided);
    if let Some(wanted) = &graph.namespace {
        edges.retain(|edge| [edge.ends.0, edge.ends.1].iter().any(|end| nodes[*end].namespace == *wanted));
    }
    Ok(Report { nodes, edges }.without_lonely())
}

/// Workloads by what they are, the node, the others that have names, and prefixes that policies name.
fn nodes(universe: &Universe, scene: &Scene<'_>) -> (Vec<Node>, Vec<Set>) {
    let (mut nodes, mut sets) = (Vec::new(), Vec::new());
    let mut by_identity: BTreeMap<u32, usize> = BTreeMap::new();
    for (at, party) in scene.space.parties().iter().enumerate() {
        if let Some(known) = by_identity.get(&party.identity) {
            let node: &mut Node = &mut nodes[*known];
            node.endpoints.push(party.name.clone());
            continue;
        }
        by_identity.insert(party.identity, nodes.len());
        let namespace = party.labels.namespace().unwrap_or_default().to_owned();
        let endpoints = if namespace.is_empty() { Vec::new() } else { vec![party.name.clone()] };
        nodes.push(Node { name: name_of(&party.labels, &party.name), namespace, endpoints, asked: party.name.clone() });
        sets.push(scene.space.one(at));
    }
    // Two identities that are called the same are told apart by an endpoint of theirs.
    let mut count: BTreeMap<String, usize> = BTreeMap::new();
    nodes.iter().for_each(|node| *count.entry(node.name.clone()).or_default() += 1);
    for node in nodes.iter_mut().filter(|node| count[&node.name] > 1) {
        node.name.clone_from(&node.asked);
    }
    let (named, areas) = areas(universe, scene);
    nodes.extend(named);
    sets.extend(areas);
    (nodes, sets)
}

fn name_of(labels: &Labels, name: &str) -> String {
    let app = ["app.kubernetes.io/name", "k8s-app", "app"].iter().find_map(|key| labels.get(source::K8S, key));
    match (labels.namespace(), app) {
        (Some(namespace), Some(app)) => format!("{namespace}/{app}"),
        _ => name.strip_prefix("reserved:").unwrap_or(name).to_owned(),
    }
}

fn areas(universe: &Universe, scene: &Scene<'_>) -> (Vec<Node>, Vec<Set>) {
    let families = universe.side.settings.families;
    let whole = [(families.ipv4, "0.0.0.0/0"), (families.ipv6, "::/0")];
    let whole = whole.into_iter().filter(|(used, _)| *used).filter_map(|(_, text)| text.parse::<IpNet>().ok());
    let named: Vec<IpNet> = scene.prefixes().iter().copied().chain(whole).collect();
    let (mut nodes, mut sets) = (Vec::new(), Vec::new());
    for prefix in &named {
        let narrower: Vec<IpNet> =
            named.iter().filter(|one| *one != prefix && prefix.contains(*one)).copied().collect();
        let Some(area) = Area::new(*prefix).without(&narrower) else { continue };
        let names = universe.case.dns.iter().filter(|name| {
            name.ips.iter().any(|ip| ip.parse().is_ok_and(|ip: std::net::IpAddr| *prefix == IpNet::from(ip)))
        });
        let names: Vec<&str> = names.map(|name| name.name.as_str()).collect();
        let name = match (names.is_empty(), prefix.prefix_len(), families.ipv4 && families.ipv6) {
            (false, _, true) => format!("{} ({})", names.join(", "), prefix.addr()),
            (false, ..) => names.join(", "),
            (true, 0, false) => "world".to_owned(),
            (true, 0, true) => if prefix.addr().is_ipv6() { "world (IPv6)" } else { "world (IPv4)" }.to_owned(),
            (true, ..) => prefix.to_string(),
        };
        let asked = area.address(&|address| universe.world.is_taken(address)).to_string();
        nodes.push(Node { name, namespace: String::new(), endpoints: Vec::new(), asked });
        let world = identity::world_label(prefix.addr().is_ipv6(), families);
        sets.push(scene.space.whole(Region::addresses(area, Labels::new([world]))));
    }
    (nodes, sets)
}

/// The policies that decide for what passes, and whether any does.
fn policies(judge: &mut Judge<'_>, scene: &Scene<'_>, ends: [&Node; 2], open: &[Passing]) -> (Vec<String>, bool) {
    let mut policies = std::collections::BTreeSet::new();
    let mut enforced = false;
    for one in open {
        let protocol = one.ports.protocol.unwrap_or_else(|| crate::diff::unnamed(scene));
        let icmp = [1, 58].contains(&protocol);
        let flow = Flow {
            src: ends[0].asked.clone(),
            dst: ends[1].asked.clone(),
            proto: protocol.to_string(),
            port: if icmp { 0 } else { one.ports.first },
            icmp_type: if icmp { u8::try_from(one.ports.first).ok() } else { None },
            ipv6: ends.iter().any(|end| end.asked.parse::<std::net::Ipv6Addr>().is_ok()),
            ..Flow::default()
        };
        let Ok(verdict) = judge.verdict(&flow) else { continue };
        for end in [&verdict.egress, &verdict.ingress].into_iter().flatten() {
            enforced |= end.enforced;
            policies.extend(end.rules.iter().filter(|_| end.enforced).cloned());
        }
    }
    (policies.into_iter().collect(), enforced)
}

impl Report {
    /// Nodes that no edge has are left out.
    fn without_lonely(mut self) -> Report {
        let mut kept: BTreeMap<usize, usize> = BTreeMap::new();
        for edge in &self.edges {
            kept.entry(edge.ends.0).or_default();
            kept.entry(edge.ends.1).or_default();
        }
        for (new, (_, place)) in kept.iter_mut().enumerate() {
            *place = new;
        }
        let nodes = std::mem::take(&mut self.nodes).into_iter().enumerate();
        self.nodes = nodes.filter(|(at, _)| kept.contains_key(at)).map(|(_, node)| node).collect();
        for edge in &mut self.edges {
            edge.ends = (kept[&edge.ends.0], kept[&edge.ends.1]);
        }
        self
    }

    fn table(&self) -> String {
        let mut text = String::new();
        for edge in &self.edges {
            let _ = writeln!(
                text,
                "{} -> {}  {}  [{}]",
                edge.source,
                edge.destination,
                edge.label(),
                edge.policies.join(", ")
            );
        }
        let _ = writeln!(text, "{} nodes, {} edges", self.nodes.len(), self.edges.len());
        text
    }

    fn svg(&self) -> String {
        let boxes: Vec<Box> =
            self.nodes.iter().map(|node| Box { text: node.name.clone(), group: node.namespace.clone() }).collect();
        let arrows: Vec<Arrow> = self
            .edges
            .iter()
            .map(|edge| Arrow {
                from: edge.ends.0,
                to: edge.ends.1,
                text: shortened(&edge.label()),
                title: edge.title(),
                dashed: !edge.redirected.is_empty(),
            })
            .collect();
        svg(&boxes, &arrows)
    }

    fn dot(&self) -> String {
        let mut text = String::from("digraph policy {\n  rankdir=LR;\n  node [shape=box, style=rounded];\n");
        let mut by_namespace: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (at, node) in self.nodes.iter().enumerate() {
            by_namespace.entry(&node.namespace).or_default().push(at);
        }
        for (namespace, nodes) in by_namespace {
            if !namespace.is_empty() {
                let _ = writeln!(
                    text,
                    "  subgraph {} {{\n    label={};",
                    quoted(&format!("cluster_{namespace}")),
                    quoted(namespace)
                );
            }
            for node in nodes {
                let _ = writeln!(text, "    n{node} [label={}];", quoted(&self.nodes[node].name));
            }
            if !namespace.is_empty() {
                text.push_str("  }\n");
            }
        }
        for edge in &self.edges {
            let style = if edge.redirected.is_empty() { "" } else { ", style=dashed" };
            let (label, title) = (quoted(&edge.label()), quoted(&edge.title()));
            let _ = writeln!(text, "  n{} -> n{} [label={label}, tooltip={title}{style}];", edge.ends.0, edge.ends.1);
        }
        text + "}\n"
    }
}

impl Edge {
    fn label(&self) -> String {
        let proxied =
            if self.redirected.is_empty() { None } else { Some(format!("{} (proxy)", self.redirected.join(" "))) };
        self.ports.iter().cloned().chain(proxied).collect::<Vec<_>>().join(" ")
    }

    fn title(&self) -> String {
        let by = if self.policies.is_empty() { "no policy".to_owned() } else { self.policies.join(", ") };
        format!("{} -> {}: {} by {by}", self.source, self.destination, self.label())
    }
}

fn shortened(text: &str) -> String {
    const MOST: usize = 34;
    if text.chars().count() <= MOST {
        return text.to_owned();
    }
    format!("{}...", text.chars().take(MOST).collect::<String>())
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
