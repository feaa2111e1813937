//! Which flows does a file of Hubble's, or of `policy eval`, hold?

use std::io::Read as _;
use std::net::IpAddr;
use std::path::Path;

use analysis::suggest::{Asked, End, Seen};
use anyhow::{Context, Result, anyhow, bail};
use labels::Labels;
use serde_json::Value;

use crate::case::{Case, Flow};
use crate::objects::Objects;
use crate::world::{World, settings};

/// A flow, and where it stood.
pub struct Read {
    /// The line of the file, from 1.
    pub line: usize,
    /// What it says.
    pub seen: Seen,
    /// The addresses of source and destination, if they are known.
    pub addresses: [Option<IpAddr>; 2],
}

impl Read {
    /// `a/web -> a/db 5432/TCP GET /x`
    pub fn text(&self) -> String {
        let seen = &self.seen;
        let asked = match &seen.asked {
            Some(Asked::Http(method, path)) => format!(" {method} {path}"),
            Some(Asked::Kafka(kind, Some(topic))) => format!(" {kind} of topic {topic}"),
            Some(Asked::Kafka(kind, None)) => format!(" {kind}"),
            Some(Asked::Dns(name)) => format!(" name {name}"),
            None => String::new(),
        };
        let protocol = crate::protocol::text(seen.protocol);
        format!("{} -> {} {}/{protocol}{asked}", name(&seen.source), name(&seen.destination), seen.port)
    }
}

fn name(end: &End) -> String {
    match end {
        End::Workload(labels) => {
            let known = ["app.kubernetes.io/name", "k8s-app", "app"];
            let app = known.iter().find_map(|key| labels.get(labels::source::K8S, key));
            format!("{}/{}", labels.namespace().unwrap_or_default(), app.unwrap_or("pods"))
        }
        End::Entity(name) | End::Name(name) => name.clone(),
        End::Address(address) => address.to_string(),
        End::World => "world".to_owned(),
    }
}

/// All flows of a file that policies can be for: replies need none.
pub fn read(file: &Path, case: &Case, forwarded: bool) -> Result<Vec<Read>> {
    let mut text = String::new();
    if file == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).context("read standard input")?;
    } else {
        text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    }
    let settings = settings(&case.config).map_err(anyhow::Error::msg)?;
    let world = World::new(case, &Objects::default(), settings).map_err(anyhow::Error::msg)?;
    let mut flows = Vec::new();
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let place = || format!("{}:{}", file.display(), at + 1);
        let value: Value = serde_json::from_str(line).with_context(place)?;
        let flow = if value.get("src").is_some() {
            Some(plain(value, &world).with_context(place)?)
        } else {
            hubble(value.get("flow").unwrap_or(&value), forwarded).with_context(place)?
        };
        flows.extend(flow.map(|(seen, addresses)| Read { line: at + 1, seen, addresses }));
    }
    Ok(flows)
}

type Ends = (Seen, [Option<IpAddr>; 2]);

/// A flow of Hubble's; nothing if it is a reply or no flow.
fn hubble(flow: &Value, forwarded: bool) -> Result<Option<Ends>> {
    let text = |path: &str| flow.pointer(path).and_then(Value::as_str);
    let dropped = text("/verdict") == Some("DROPPED");
    if flow.get("is_reply") == Some(&Value::Bool(true)) || forwarded && dropped {
        return Ok(None);
    }
    if text("/l7/type") == Some("RESPONSE") {
        return Ok(None);
    }
    let Some((protocol, port)) = flow.get("l4").map(port).transpose()?.flatten() else { return Ok(None) };
    let address = |path: &str| text(path).and_then(|text| text.parse::<IpAddr>().ok());
    let addresses = [address("/IP/source"), address("/IP/destination")];
    let names = |field: &str| flow.pointer(&format!("/{field}/0")).and_then(Value::as_str).map(policy::canonical_name);
    let source = end(flow.get("source"), addresses[0], None)?;
    let destination = end(flow.get("destination"), addresses[1], names("destination_names"))?;
    let (Some(source), Some(destination)) = (source, destination) else { return Ok(None) };
    let asked = match (flow.pointer("/l7/http"), text("/l7/dns/query")) {
        (Some(http), _) => {
            let part = |name: &str| http.get(name).and_then(Value::as_str).unwrap_or_default();
            Some(Asked::Http(part("method").to_owned(), path(part("url"))))
        }
        (None, Some(query)) => Some(Asked::Dns(policy::canonical_name(query))),
        (None, None) => flow.pointer("/l7/kafka").and_then(kafka),
    };
    Ok(Some((Seen { source, destination, protocol, port, asked }, addresses)))
}

/// A request to Kafka. What does not say its kind, or not its topic though its kind has some, says nothing.
fn kafka(said: &Value) -> Option<Asked> {
    let part = |name: &str| said.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let api = l7::kafka::by_name(part("api_key")?)?;
    let topic = part("topic").map(str::to_owned);
    (topic.is_some() == api.has_topics()).then(|| Asked::Kafka(api.name.to_owned(), topic))
}

/// The path and query of an address of the web.
fn path(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = if url.contains("://") { rest.find('/').map_or("/", |at| &rest[at..]) } else { rest };
    path.to_owned()
}

fn port(l4: &Value) -> Result<Option<(u8, u16)>> {
    for (name, protocol) in [("TCP", 6), ("UDP", 17), ("SCTP", 132)] {
        if let Some(ports) = l4.get(name) {
            let port = ports.get("destination_port").and_then(Value::as_u64).unwrap_or(0);
            return Ok(Some((protocol, u16::try_from(port).map_err(|_| anyhow!("l4.{name}: {port} is not a port"))?)));
        }
    }
    for (name, protocol) in [("ICMPv4", 1), ("ICMPv6", 58)] {
        if let Some(message) = l4.get(name) {
            let kind = message.get("type").and_then(Value::as_u64).unwrap_or(0);
            return Ok(Some((protocol, u16::try_from(kind).unwrap_or(0))));
        }
    }
    Ok(None)
}

/// Who is at one side; nothing if that is not told.
fn end(side: Option<&Value>, address: Option<IpAddr>, name: Option<String>) -> Result<Option<End>> {
    let labels = side.and_then(|side| side.get("labels")).and_then(Value::as_array);
    let labels = labels.into_iter().flatten().filter_map(Value::as_str);
    let labels = Labels::parse(labels)?;
    Ok(of_labels(&labels, address, name))
}

fn of_labels(labels: &Labels, address: Option<IpAddr>, name: Option<String>) -> Option<End> {
    if labels.namespace().is_some() {
        return Some(End::Workload(labels.clone()));
    }
    let entities = ["kube-apiserver", "host", "remote-node", "health", "ingress", "init", "unmanaged"];
    if let Some(entity) = entities.iter().find(|entity| labels.has_reserved(entity)) {
        return Some(End::Entity((*entity).to_owned()));
    }
    match (name, address) {
        (Some(name), _) => Some(End::Name(name)),
        (None, Some(address)) => Some(End::Address(address)),
        (None, None) => (!labels.is_empty()).then_some(End::World),
    }
}

/// A flow as `policy eval` has it.
fn plain(value: Value, world: &World) -> Result<Ends> {
    let flow = Flow::from_value(value).map_err(anyhow::Error::msg)?;
    let protocol = crate::protocol::number(&flow.proto).map_err(anyhow::Error::msg)?;
    let port = match (protocol, flow.icmp_type) {
        (1 | 58, kind) => u16::from(kind.unwrap_or(0)),
        _ => flow.port,
    };
    let mut addresses = [None, None];
    let mut ends = Vec::new();
    for (at, name) in [&flow.src, &flow.dst].into_iter().enumerate() {
        let (_, identity) = world.find(name, flow.ipv6).map_err(anyhow::Error::msg)?;
        let labels = world.labels(identity).cloned().unwrap_or_default();
        addresses[at] = name.parse().ok();
        let dns = name.strip_prefix("dns:").map(policy::canonical_name);
        match of_labels(&labels, addresses[at], dns) {
            Some(end) => ends.push(end),
            None => bail!("{name:?}: nothing is known of it that a policy could select"),
        }
    }
    let [destination, source] = [ends.pop(), ends.pop()];
    let (Some(source), Some(destination)) = (source, destination) else { bail!("a flow has two ends") };
    Ok((Seen { source, destination, protocol, port, asked: None }, addresses))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn paths_are_what_is_behind_the_host() {
        for (url, expected) in [("http://a.b:80/x?y", "/x?y"), ("http://a.b", "/"), ("/x", "/x")] {
            assert_eq!(path(url), expected);
        }
    }
}
