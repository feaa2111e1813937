//! Which small change turns a verdict? Each one that is told has been tried.

use labels::{Label, source};
use policy::{Direction, PolicyObject};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::Setting;
use crate::case::Flow;
use crate::judge::Verdict;
use crate::objects::{Objects, Read};
use crate::result::DirectionResult;
use crate::world::{World, settings};

/// So many things to do at most: a longer list helps nobody.
const MOST: usize = 6;

/// Something to do.
#[derive(Clone, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Take this rule out, or narrow it.
    TakeOut(String),
    /// Add this policy.
    Add(Value),
}

/// What to do so that a flow is judged otherwise.
#[derive(Serialize)]
pub struct Change {
    /// ALLOWED or DENIED: what it comes to.
    pub to: &'static str,
    /// What to do.
    pub steps: Vec<Step>,
}

impl Change {
    /// For people.
    pub fn text(&self) -> String {
        let mut text = format!("to have it {}:\n", self.to);
        for step in &self.steps {
            match step {
                Step::TakeOut(rule) => text.push_str(&format!("- take out or narrow {rule}\n")),
                Step::Add(policy) => {
                    text.push_str("- add\n");
                    text.push_str(&super::indented(policy, "    "));
                }
            }
        }
        text
    }
}

fn denies(verdict: &Verdict) -> bool {
    ends(verdict).iter().any(|(_, end)| end.verdict == "deny")
}

fn ends(verdict: &Verdict) -> Vec<(Direction, &DirectionResult)> {
    let both = [(Direction::Egress, &verdict.egress), (Direction::Ingress, &verdict.ingress)];
    both.into_iter().filter_map(|(direction, end)| Some((direction, end.as_ref()?))).collect()
}

impl Setting {
    /// Changes that turn the verdict.
    pub fn changes(&self, world: &World, flow: &Flow, verdict: &Verdict) -> Vec<Change> {
        if denies(verdict) {
            return self.to_allow(world, flow).into_iter().collect();
        }
        let mut changes = Vec::new();
        for (direction, end) in ends(verdict) {
            if !end.origins.is_empty() {
                changes.extend(self.by_taking_out(flow, direction, end));
            }
        }
        let last = ends(verdict).last().map(|(direction, _)| *direction);
        changes.extend(last.and_then(|direction| self.by_denying(world, flow, direction)));
        changes
    }

    /// What is needed until nothing denies it.
    fn to_allow(&self, world: &World, flow: &Flow) -> Option<Change> {
        let (mut objects, mut steps) = (self.objects.clone(), Vec::new());
        while steps.len() < MOST {
            let verdict = self.verdict(&objects, flow).ok()?;
            if !denies(&verdict) {
                return Some(Change { to: "ALLOWED", steps });
            }
            let before = steps.len();
            for (direction, end) in ends(&verdict).into_iter().filter(|(_, end)| end.verdict == "deny") {
                if end.reason == "policy" {
                    let policy = self.allowing(world, flow, direction, false)?;
                    self.add(&mut objects, &policy).then(|| steps.push(Step::Add(policy)));
                } else {
                    steps.extend(take_out(&mut objects, end).into_iter().map(Step::TakeOut));
                }
            }
            if steps.len() == before {
                return None;
            }
        }
        None
    }

    fn by_taking_out(&self, flow: &Flow, direction: Direction, end: &DirectionResult) -> Option<Change> {
        let mut objects = self.objects.clone();
        let mut steps = Vec::new();
        let mut end = end.clone();
        while steps.len() < MOST {
            let taken = take_out(&mut objects, &end);
            if taken.is_empty() {
                return None;
            }
            steps.extend(taken.into_iter().map(Step::TakeOut));
            let verdict = self.verdict(&objects, flow).ok()?;
            if denies(&verdict) {
                return Some(Change { to: "DENIED", steps });
            }
            end = ends(&verdict).into_iter().find(|(side, _)| *side == direction)?.1.clone();
        }
        None
    }

    fn by_denying(&self, world: &World, flow: &Flow, direction: Direction) -> Option<Change> {
        let policy = self.allowing(world, flow, direction, true)?;
        let mut objects = self.objects.clone();
        let added = self.add(&mut objects, &policy);
        let denied = added && denies(&self.verdict(&objects, flow).ok()?);
        denied.then(|| Change { to: "DENIED", steps: vec![Step::Add(policy)] })
    }

    /// False if the policy is refused.
    fn add(&self, objects: &mut Objects, policy: &Value) -> bool {
        let Ok(settings) = settings(&self.case.config) else { return false };
        let source = crds::Source::default();
        let object = PolicyObject::from_value(policy, &source, &settings);
        let fits = object.is_ok();
        objects.policies.push(Read { reference: String::new(), source, value: policy.clone(), object });
        fits
    }

    /// A policy for one end that allows, or denies, this flow and closes nothing else.
    fn allowing(&self, world: &World, flow: &Flow, direction: Direction, deny: bool) -> Option<Value> {
        let (source, destination) =
            (world.find(&flow.src, flow.ipv6).ok()?.1, world.find(&flow.dst, flow.ipv6).ok()?.1);
        let (own, peer, peer_name) = match direction {
            Direction::Egress => (source, destination, &flow.dst),
            Direction::Ingress => (destination, source, &flow.src),
        };
        let own = world.labels(own)?;
        let side = if direction == Direction::Egress { "to" } else { "from" };
        let mut rule = Map::new();
        let (field, value) = peers(world.labels(peer)?, peer_name, own.namespace(), side)?;
        rule.insert(format!("{side}{field}"), value);
        let protocol = crate::protocol::number(&flow.proto).ok()?;
        match (protocol, flow.icmp_type) {
            (1 | 58, Some(kind)) => {
                let family = if protocol == 1 { "IPv4" } else { "IPv6" };
                rule.insert("icmps".to_owned(), json!([{ "fields": [{ "family": family, "type": kind }] }]));
            }
            (6 | 17 | 132, _) => {
                let name = if flow.proto.is_empty() { "TCP".to_owned() } else { flow.proto.to_uppercase() };
                let port = json!([{ "ports": [{ "port": flow.port.to_string(), "protocol": name }] }]);
                rule.insert("toPorts".to_owned(), port);
            }
            _ => {}
        }
        let section = format!("{}{}", direction.name(), if deny { "Deny" } else { "" });
        let mut spec = Map::new();
        let node = own.has_reserved("host");
        let (kind, selector) = if own.namespace().is_some() {
            ("CiliumNetworkPolicy", "endpointSelector")
        } else {
            ("CiliumClusterwideNetworkPolicy", if node { "nodeSelector" } else { "endpointSelector" })
        };
        spec.insert(selector.to_owned(), json!({ "matchLabels": own_labels(own, None) }));
        spec.insert("enableDefaultDeny".to_owned(), json!({ "ingress": false, "egress": false }));
        spec.insert(section, json!([rule]));
        let mut metadata = Map::new();
        metadata.insert("name".to_owned(), json!(if deny { "deny-this" } else { "allow-this" }));
        if let Some(namespace) = own.namespace() {
            metadata.insert("namespace".to_owned(), json!(namespace));
        }
        Some(json!({ "apiVersion": "cilium.io/v2", "kind": kind, "metadata": metadata, "spec": spec }))
    }
}

/// The labels that tell somebody from others; with `namespace`, that of the peer as well.
fn own_labels(labels: &labels::Labels, namespace: Option<&str>) -> Map<String, Value> {
    let derived = |label: &&Label| {
        label.key == labels::POD_NAMESPACE || label.key.starts_with("io.cilium.") || label.source == source::CIDR
    };
    let own = labels.iter().filter(|label| !derived(label) && !label.is_reserved("host"));
    let name = |label: &Label| match label.source.as_str() {
        source::K8S => label.key.clone(),
        other => format!("{other}:{}", label.key),
    };
    let mut map: Map<String, Value> = own.map(|label| (name(label), json!(label.value))).collect();
    if let Some(namespace) = namespace {
        map.insert(format!("k8s:{}", labels::POD_NAMESPACE), json!(namespace));
    }
    map
}

/// The end of a field's name and its value for this peer.
fn peers(labels: &labels::Labels, name: &str, own: Option<&str>, side: &str) -> Option<(&'static str, Value)> {
    if let Some(namespace) = labels.namespace() {
        let elsewhere = (own != Some(namespace)).then_some(namespace);
        return Some(("Endpoints", json!([{ "matchLabels": own_labels(labels, elsewhere) }])));
    }
    if let (Some(name), "to") = (name.strip_prefix("dns:"), side) {
        return Some(("FQDNs", json!([{ "matchName": name }])));
    }
    let entities = ["kube-apiserver", "host", "remote-node", "health", "ingress", "init", "unmanaged"];
    if let Some(entity) = entities.iter().find(|entity| labels.has_reserved(entity)) {
        return Some(("Entities", json!([entity])));
    }
    match name.parse::<std::net::IpAddr>() {
        Ok(address) => Some(("CIDR", json!([ipnet::IpNet::from(address).to_string()]))),
        Err(_) => Some(("Entities", json!(["world"]))),
    }
}

/// Takes the rules that decide out; their names.
fn take_out(objects: &mut Objects, end: &DirectionResult) -> Vec<String> {
    let names: Vec<String> = end.origins.iter().map(crate::result::Origin::name).collect();
    for policy in objects.policies.iter_mut().flat_map(|read| read.object.as_mut()) {
        let before = policy.rules.clone();
        policy.rules.retain(|rule| !names.contains(&crate::result::name_of(&rule.origin)));
        // What is left of the policy closes its subjects as it did.
        for direction in [Direction::Ingress, Direction::Egress] {
            let closing = |rule: &&policy::Rule| rule.direction == direction && rule.default_deny;
            if let (None, Some(rule)) = (policy.rules.iter().find(closing), before.iter().find(closing)) {
                policy.rules.push(policy::Rule { peers: Vec::new(), ..rule.clone() });
            }
        }
    }
    names
}
