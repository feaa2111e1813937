//! Which few policies let just these flows pass?

use std::collections::{BTreeMap, BTreeSet};

use labels::{Label, Labels, source};
use serde_json::{Map, Value, json};

/// Who sends or receives.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum End {
    /// A pod, by the labels of its identity.
    Workload(Labels),
    /// Somebody who is known by name: host, kube-apiserver.
    Entity(String),
    /// A DNS name.
    Name(String),
    /// An address.
    Address(std::net::IpAddr),
    /// Somebody outside of whom nothing is known.
    World,
}

/// What a flow asks for at the application's level.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Asked {
    /// Method and path.
    Http(String, String),
    /// Kind and topic; without a topic, if the kind has none.
    Kafka(String, Option<String>),
    /// A name.
    Dns(String),
}

/// A flow that was seen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    /// Who sends.
    pub source: End,
    /// Who receives.
    pub destination: End,
    /// IP protocol number.
    pub protocol: u8,
    /// Destination port, or message type of ICMP.
    pub port: u16,
    /// What it asks for.
    pub asked: Option<Asked>,
}

/// A rule of a suggestion, with the flows that it is for.
#[derive(Clone, Debug)]
pub struct Reasoned {
    /// The place of the policy.
    pub policy: usize,
    /// ingress or egress.
    pub direction: &'static str,
    /// Which rule of the section.
    pub index: usize,
    /// The places of the flows.
    pub flows: Vec<usize>,
}

/// Policies for some flows.
#[derive(Clone, Debug, Default)]
pub struct Suggestion {
    /// The policies, as objects.
    pub policies: Vec<Value>,
    /// Their rules in order.
    pub rules: Vec<Reasoned>,
}

/// Labels that say what a workload is, the first that is there counts.
const TELLING: [&str; 3] = ["app.kubernetes.io/name", "k8s-app", "app"];
/// Labels that controllers make up.
const NOISE: [&str; 7] = [
    "pod-template-hash",
    "controller-revision-hash",
    "pod-template-generation",
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/controller-uid",
    "controller-uid",
];

/// A workload as policies select it: its namespace and the labels that tell what it is.
type Workload = (String, BTreeMap<String, String>);

/// A port with what is asked on it.
type Port = (u8, u16);

/// Peers of one kind, in the order in which rules are written.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Peer {
    Endpoints(Workload),
    Entities(String),
    Names(String),
    Addresses(std::net::IpAddr),
}

/// A rule before it is written.
#[derive(Clone, Debug, Default)]
struct Draft {
    peers: BTreeSet<Peer>,
    ports: BTreeMap<Port, BTreeSet<Asked>>,
    flows: BTreeSet<usize>,
}

type Drafts = BTreeMap<(Workload, &'static str), Vec<Draft>>;

/// Policies that allow these flows at both ends, with few rules; with `most`, so many at most, if that can be. What was
/// not seen at all of a workload in a direction is closed, unless `leave_open`.
pub fn suggest(flows: &[Seen], most: Option<usize>, leave_open: bool) -> Suggestion {
    let mut drafts = drafts(flows);
    if let Some(most) = most {
        while count(&drafts) > most && merge_cheapest(&mut drafts) {}
    }
    written(&drafts, leave_open)
}

fn count(drafts: &Drafts) -> usize {
    drafts.values().map(Vec::len).sum()
}

/// For each subject and direction: peers that use the same ports share a rule.
fn drafts(flows: &[Seen]) -> Drafts {
    let mut by_peer: BTreeMap<(Workload, &'static str), BTreeMap<Peer, Draft>> = BTreeMap::new();
    for (at, flow) in flows.iter().enumerate() {
        for (own, other, direction) in
            [(&flow.source, &flow.destination, "egress"), (&flow.destination, &flow.source, "ingress")]
        {
            let End::Workload(labels) = own else { continue };
            let draft = by_peer.entry((workload(labels), direction)).or_default().entry(peer(other)).or_default();
            draft.peers.insert(peer(other));
            let port = draft.ports.entry((flow.protocol, flow.port)).or_default();
            // What is asked is checked where it is answered; names, where they are asked for.
            let checked = match flow.asked {
                Some(Asked::Http(..) | Asked::Kafka(..)) => direction == "ingress",
                Some(Asked::Dns(_)) => direction == "egress",
                None => false,
            };
            port.extend(flow.asked.clone().filter(|_| checked));
            draft.flows.insert(at);
        }
    }
    let mut drafts = Drafts::new();
    for (subject, peers) in by_peer {
        let learns = peers.keys().any(|peer| matches!(peer, Peer::Names(_)));
        let mut by_ports: BTreeMap<(u8, BTreeMap<Port, BTreeSet<Asked>>), Draft> = BTreeMap::new();
        for (peer, mut draft) in peers {
            // Names are learned from the answers that the proxy sees, of whatever is asked.
            if learns && subject.1 == "egress" {
                for ((_, port), asked) in &mut draft.ports {
                    if *port == 53 && asked.is_empty() {
                        asked.insert(Asked::Dns("*".to_owned()));
                    }
                }
            }
            let known = by_ports.entry((kind(&peer), draft.ports.clone())).or_default();
            known.peers.insert(peer);
            known.ports = draft.ports;
            known.flows.extend(draft.flows);
        }
        drafts.insert(subject, by_ports.into_values().collect());
    }
    drafts
}

fn kind(peer: &Peer) -> u8 {
    match peer {
        Peer::Endpoints(_) => 0,
        Peer::Entities(_) => 1,
        Peer::Names(_) => 2,
        Peer::Addresses(_) => 3,
    }
}

/// Puts the two rules together that allow the least more; false if no two can be.
fn merge_cheapest(drafts: &mut Drafts) -> bool {
    let mut best: Option<(usize, (Workload, &'static str), usize, usize)> = None;
    for (subject, rules) in drafts.iter() {
        for (one, first) in rules.iter().enumerate() {
            for (two, second) in rules.iter().enumerate().skip(one + 1) {
                let kinds = |draft: &Draft| draft.peers.first().map(kind);
                if kinds(first) != kinds(second) {
                    continue;
                }
                let both = merged(first, second);
                let more = size(&both).saturating_sub(size(first) + size(second));
                if best.as_ref().is_none_or(|(least, ..)| more < *least) {
                    best = Some((more, subject.clone(), one, two));
                }
            }
        }
    }
    let Some((_, subject, one, two)) = best else { return false };
    let Some(rules) = drafts.get_mut(&subject) else { return false };
    let second = rules.remove(two);
    rules[one] = merged(&rules[one], &second);
    true
}

fn size(draft: &Draft) -> usize {
    draft.peers.len() * draft.ports.len()
}

fn merged(one: &Draft, two: &Draft) -> Draft {
    let mut both = one.clone();
    both.peers.extend(two.peers.iter().cloned());
    both.flows.extend(&two.flows);
    for (port, asked) in &two.ports {
        match both.ports.get_mut(port) {
            // A port on which one of them asks nothing lets all pass.
            Some(known) if known.is_empty() || asked.is_empty() => known.clear(),
            Some(known) => known.extend(asked.iter().cloned()),
            None => drop(both.ports.insert(*port, asked.clone())),
        }
    }
    both
}

/// The namespace of a pod, and the labels that say what it is.
fn workload(labels: &Labels) -> Workload {
    let namespace = labels.namespace().unwrap_or_default().to_owned();
    let own = |label: &&Label| label.source == source::K8S && !labels::is_owned_key(&label.key);
    let telling = TELLING.iter().find_map(|key| Some(((*key).to_owned(), labels.get(source::K8S, key)?.to_owned())));
    let chosen = match telling {
        Some(one) => BTreeMap::from([one]),
        None => {
            let others = labels.iter().filter(own).filter(|label| !NOISE.contains(&label.key.as_str()));
            others.map(|label| (label.key.clone(), label.value.clone())).collect()
        }
    };
    (namespace, chosen)
}

fn peer(end: &End) -> Peer {
    match end {
        End::Workload(labels) => Peer::Endpoints(workload(labels)),
        End::Entity(name) => Peer::Entities(name.clone()),
        End::Name(name) => Peer::Names(name.clone()),
        End::Address(address) => Peer::Addresses(*address),
        End::World => Peer::Entities("world".to_owned()),
    }
}

fn written(drafts: &Drafts, leave_open: bool) -> Suggestion {
    let mut suggestion = Suggestion::default();
    let mut subjects: BTreeMap<&Workload, BTreeMap<&'static str, &Vec<Draft>>> = BTreeMap::new();
    for ((subject, direction), rules) in drafts {
        subjects.entry(subject).or_default().insert(direction, rules);
    }
    let mut names = BTreeSet::new();
    for (subject, directions) in subjects {
        let mut spec = Map::new();
        spec.insert("endpointSelector".to_owned(), json!({ "matchLabels": subject.1 }));
        for direction in ["ingress", "egress"] {
            let Some(rules) = directions.get(direction) else {
                if !leave_open {
                    spec.insert(direction.to_owned(), json!([{}]));
                }
                continue;
            };
            let texts = rules.iter().map(|draft| rule(draft, direction, &subject.0));
            spec.insert(direction.to_owned(), Value::Array(texts.collect()));
            let policy = suggestion.policies.len();
            suggestion.rules.extend(rules.iter().enumerate().map(|(index, draft)| Reasoned {
                policy,
                direction,
                index,
                flows: draft.flows.iter().copied().collect(),
            }));
        }
        let name = free_name(subject, &mut names);
        suggestion.policies.push(json!({
            "apiVersion": "cilium.io/v2",
            "kind": "CiliumNetworkPolicy",
            "metadata": { "name": name, "namespace": subject.0 },
            "spec": spec,
        }));
    }
    suggestion
}

/// A name that says whom it is for.
fn free_name(subject: &Workload, names: &mut BTreeSet<(String, String)>) -> String {
    let joined = subject.1.values().cloned().collect::<Vec<_>>().join("-").to_ascii_lowercase();
    let plain: String = joined.chars().map(|one| if one.is_ascii_alphanumeric() { one } else { '-' }).collect();
    let base = plain.trim_matches('-').chars().take(50).collect::<String>();
    let base = if base.is_empty() { "all".to_owned() } else { base };
    let numbered = (1..).map(|n| if n == 1 { base.clone() } else { format!("{base}-{n}") });
    let name = numbered.into_iter().find(|name| !names.contains(&(subject.0.clone(), name.clone()))).unwrap_or(base);
    names.insert((subject.0.clone(), name.clone()));
    name
}

fn rule(draft: &Draft, direction: &str, namespace: &str) -> Value {
    let mut rule = Map::new();
    let side = if direction == "ingress" { "from" } else { "to" };
    let mut lists: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for peer in &draft.peers {
        let (field, value) = match peer {
            Peer::Endpoints((of, labels)) => {
                let mut labels: BTreeMap<String, String> = labels.clone();
                if of != namespace {
                    labels.insert(format!("k8s:{}", labels::POD_NAMESPACE), of.clone());
                }
                ("Endpoints", json!({ "matchLabels": labels }))
            }
            Peer::Entities(name) => ("Entities", json!(name)),
            Peer::Names(name) => ("FQDNs", json!({ "matchName": name })),
            Peer::Addresses(address) => ("CIDR", json!(ipnet::IpNet::from(*address).to_string())),
        };
        lists.entry(field).or_default().push(value);
    }
    for (field, values) in lists {
        rule.insert(format!("{side}{field}"), Value::Array(values));
    }
    let icmps: Vec<Value> = draft
        .ports
        .keys()
        .filter_map(|(protocol, kind)| {
            let family = match protocol {
                1 => "IPv4",
                58 => "IPv6",
                _ => return None,
            };
            Some(json!({ "family": family, "type": kind }))
        })
        .collect();
    let ports = to_ports(&draft.ports);
    if !icmps.is_empty() && ports.is_empty() {
        rule.insert("icmps".to_owned(), json!([{ "fields": icmps }]));
    } else if !ports.is_empty() {
        rule.insert("toPorts".to_owned(), Value::Array(ports));
    }
    Value::Object(rule)
}

fn to_ports(ports: &BTreeMap<Port, BTreeSet<Asked>>) -> Vec<Value> {
    let mut by_asked: BTreeMap<&BTreeSet<Asked>, Vec<Value>> = BTreeMap::new();
    for ((protocol, port), asked) in ports {
        let name = match protocol {
            6 => "TCP",
            17 => "UDP",
            132 => "SCTP",
            _ => continue,
        };
        by_asked.entry(asked).or_default().push(json!({ "port": port.to_string(), "protocol": name }));
    }
    let with = |(asked, ports): (&BTreeSet<Asked>, Vec<Value>)| {
        let mut one = json!({ "ports": ports });
        if let Some(rules) = rules(asked) {
            one["rules"] = rules;
        }
        one
    };
    by_asked.into_iter().map(with).collect()
}

fn rules(asked: &BTreeSet<Asked>) -> Option<Value> {
    let mut http: BTreeSet<(String, String)> = BTreeSet::new();
    let mut kafka: BTreeSet<(&str, Option<&str>)> = BTreeSet::new();
    let mut dns: BTreeSet<&str> = BTreeSet::new();
    for one in asked {
        match one {
            Asked::Http(method, path) => drop(http.insert((method.clone(), pattern_of(path)))),
            Asked::Kafka(kind, topic) => drop(kafka.insert((kind, topic.as_deref()))),
            Asked::Dns(name) => drop(dns.insert(name)),
        }
    }
    if !http.is_empty() {
        let list: Vec<Value> = http.iter().map(|(method, path)| json!({ "method": method, "path": path })).collect();
        return Some(json!({ "http": list }));
    }
    if !kafka.is_empty() {
        let rule = |(kind, topic): &(&str, Option<&str>)| match topic {
            Some(topic) => json!({ "apiKey": kind, "topic": topic }),
            None => json!({ "apiKey": kind }),
        };
        return Some(json!({ "kafka": kafka.iter().map(rule).collect::<Vec<Value>>() }));
    }
    if dns.contains("*") {
        return Some(json!({ "dns": [{ "matchPattern": "*" }] }));
    }
    let list: Vec<Value> = dns.iter().map(|name| json!({ "matchName": name })).collect();
    (!list.is_empty()).then(|| json!({ "dns": list }))
}

/// A path as a pattern: numbers and identifiers in it stand for others of their kind, a query for any.
pub fn pattern_of(path: &str) -> String {
    let (path, query) = path.split_once('?').map_or((path, ""), |(path, _)| (path, "(\\?.*)?"));
    let segment = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let hex = |byte: u8| byte.is_ascii_hexdigit() || byte == b'-';
        let is_identifier = text.len() >= 16 && text.bytes().all(hex) && text.bytes().any(|byte| byte.is_ascii_digit());
        match (is_number, is_identifier) {
            (true, _) => "[0-9]+".to_owned(),
            (false, true) => "[0-9A-Fa-f-]+".to_owned(),
            (false, false) => escaped(text),
        }
    };
    format!("{}{query}", path.split('/').map(segment).collect::<Vec<_>>().join("/"))
}

pub(crate) fn escaped(text: &str) -> String {
    text.chars().fold(String::new(), |mut done, one| {
        if r"\.+*?()|[]{}^$".contains(one) {
            done.push('\\');
        }
        done.push(one);
        done
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn pod(app: &str) -> End {
        let labels =
            [format!("k8s:app={app}"), "k8s:io.kubernetes.pod.namespace=a".into(), "k8s:pod-template-hash=1".into()];
        End::Workload(Labels::parse(labels.iter().map(String::as_str)).unwrap())
    }

    fn flow(source: End, destination: End, port: u16) -> Seen {
        Seen { source, destination, protocol: 6, port, asked: None }
    }

    #[test]
    fn peers_with_the_same_ports_share_a_rule() {
        let flows = [flow(pod("x"), pod("db"), 5432), flow(pod("y"), pod("db"), 5432), flow(pod("z"), pod("db"), 80)];
        let found = suggest(&flows, None, false);
        let db = &found.policies[0];
        assert_eq!(db["metadata"]["name"], "db");
        assert_eq!(db["spec"]["endpointSelector"]["matchLabels"], json!({ "app": "db" }));
        assert_eq!(db["spec"]["ingress"].as_array().unwrap().len(), 2, "{db:#}");
        let both = found.rules.iter().find(|rule| rule.flows == [0, 1]).unwrap();
        assert_eq!((both.policy, both.direction), (0, "ingress"));
    }

    #[test]
    fn rules_are_put_together_until_there_are_few() {
        let flows = [flow(pod("x"), pod("db"), 1), flow(pod("y"), pod("db"), 2), flow(pod("z"), pod("db"), 3)];
        assert_eq!(suggest(&flows, None, false).rules.len(), 6);
        assert_eq!(suggest(&flows, Some(4), true).rules.len(), 4);
        assert_eq!(suggest(&flows, Some(1), true).rules.len(), 4, "each workload needs one of its own");
    }

    #[test]
    fn numbers_in_paths_stand_for_others() {
        assert_eq!(pattern_of("/users/17/a.b?x=1"), "/users/[0-9]+/a\\.b(\\?.*)?");
        assert_eq!(pattern_of("/o/123e4567-e89b-12d3-a456-426614174000"), "/o/[0-9A-Fa-f-]+");
        assert_eq!(pattern_of("/"), "/");
    }
}
