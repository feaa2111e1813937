//! What do the policies say of a packet, read rule by rule?

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use identity::NumericIdentity;
use ipnet::IpNet;
use labels::{Label, Labels, Operator, Selector};
use policy::{
    AllowLocalhost, Auth, Direction, Effect, Entity, Implicit, Learned, Mode, Peer, PortRange, Ports, Redirect, Rule,
    RuleOrigin, Subject, Tier,
};

use crate::filters::{Statement, Who, merge};
use crate::tables::{Entry, Found, Tables};
use crate::world::{Party, World};

/// The other side of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Other {
    /// A workload or a reserved identity.
    Party(NumericIdentity),
    /// An address outside of the cluster.
    Address(IpAddr),
}

/// A packet, seen from the subject.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet {
    /// The identity of the endpoint whose policy is asked.
    pub subject: NumericIdentity,
    /// The other side.
    pub other: Other,
    /// The direction.
    pub direction: Direction,
    /// IP protocol number.
    pub protocol: u8,
    /// Destination port or ICMP type.
    pub port: u16,
}

/// What happens to the packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Nothing allows it.
    DefaultDeny,
    /// A rule forbids it.
    Deny,
    /// It passes.
    Allow,
    /// The proxy decides.
    Redirect,
}

/// What happens, and who says so.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decision {
    /// What happens.
    pub verdict: Verdict,
    /// How the flow names the match.
    pub match_type: &'static str,
    /// Set if no rule allows or denies.
    pub implicit: Option<Implicit>,
    /// The rules that decide; with a default denial, those that closed the subject.
    pub rules: BTreeSet<RuleOrigin>,
    /// True if policy is enforced in the direction.
    pub enforced: bool,
    /// Proof that is asked for, and whether a deciding rule says so itself.
    pub auth: (Auth, bool),
}

/// Ports as a rule has them (`None`: all), and what the proxy asks on them.
type Ranged<'a> = (Option<(u8, &'a PortRange, u16)>, Option<Redirect>);

/// Who a subject is and what its rules are.
struct Asked<'a> {
    world: &'a World,
    packet: &'a Packet,
    subject: &'a Party,
    /// In the order in which they are asked.
    rules: Vec<&'a Rule>,
    closed: bool,
}

/// What the policies say of a packet.
pub fn evaluate(world: &World, packet: &Packet) -> Decision {
    let subject = &world.parties[&packet.subject];
    let is_host = packet.subject == abi::identity::HOST;
    let exempt = world.settings.mode == Mode::Never || (is_host && !world.settings.host_firewall);
    let mut rules: Vec<&Rule> = world
        .rules()
        .filter(|rule| !exempt && rule.direction == packet.direction && is_for(rule, subject, is_host))
        .collect();
    rules.sort_by_key(|rule| (rule.tier, rule.priority));
    let forced = !exempt && (world.settings.mode == Mode::Always || subject.labels.has_reserved("init"));
    let closing: BTreeSet<RuleOrigin> =
        rules.iter().filter(|rule| rule.default_deny).map(|rule| (*rule.origin).clone()).collect();
    let enforced = forced || !rules.is_empty();
    let closed = forced || !closing.is_empty();
    let implied = |verdict, match_type, implicit, rules| Decision {
        verdict,
        match_type,
        implicit: Some(implicit),
        rules,
        enforced,
        auth: (Auth::Disabled, false),
    };
    if !enforced {
        return implied(Verdict::Allow, "all", Implicit::NotEnforced, BTreeSet::new());
    }
    let asked = Asked { world, packet, subject, rules, closed };
    match asked.tables().find() {
        None => implied(Verdict::DefaultDeny, "none", Implicit::DefaultDeny, closing),
        Some(found) => described(found, closing, enforced),
    }
}

fn described(found: Found, closing: BTreeSet<RuleOrigin>, enforced: bool) -> Decision {
    let Entry { origins, implicit, .. } = found.entry;
    let verdict = match (found.deny, found.auth.0, found.redirect) {
        (true, _, _) | (false, Auth::Spire | Auth::AlwaysFail, _) => Verdict::Deny,
        (false, Auth::Disabled, true) => Verdict::Redirect,
        (false, Auth::Disabled, false) => Verdict::Allow,
    };
    let match_type = match (found.own, found.detail) {
        (false, 0) => "all",
        (false, 1) => "proto-only",
        (false, _) => "l4-only",
        (true, 0) => "l3-only",
        (true, 1) => "l3-proto",
        (true, _) => "l3-l4",
    };
    let rules = if matches!(implicit, Some(Implicit::DenyAny(_))) { closing } else { origins };
    Decision { verdict, match_type, implicit, rules, enforced, auth: found.auth }
}

impl Asked<'_> {
    /// The field's own tables, as far as they speak of the packet.
    fn tables(&self) -> Tables {
        let mut said: Vec<Statement> = self.rules.iter().flat_map(|rule| self.statements(rule)).collect();
        said.extend(self.implied());
        Tables::new(merge(said))
    }

    /// What holds where no rule decides.
    fn implied(&self) -> Vec<Statement> {
        let statement = |what, effect, priority| Statement {
            who: Who::Implied(what),
            place: (Tier::Default, priority),
            peer: Peer::All,
            range: None,
            detail: Some(0),
            selects: true,
            own: false,
            effect,
            auth: None,
            redirect: None,
            log: String::new(),
        };
        if !self.closed {
            return vec![statement(Implicit::AllowAny(self.packet.direction), Effect::Allow, 0)];
        }
        let mut said = Vec::new();
        let may = match self.world.settings.allow_localhost {
            AllowLocalhost::Always => !self.rules.is_empty(),
            AllowLocalhost::EvenWithoutRules => true,
            AllowLocalhost::Policy => false,
        };
        let is_host = self.packet.subject == abi::identity::HOST;
        if self.packet.direction == Direction::Ingress && !is_host && may {
            let peer = Peer::Entity { entity: Entity::Host, sum: false };
            let selects = is_peer(self.world, self.packet.other, &peer);
            let localhost = statement(Implicit::AllowLocalhost, Effect::Allow, 0);
            said.push(Statement { peer, selects, own: true, ..localhost });
        }
        if self.rules.iter().any(|rule| rule.effect == Effect::Pass) {
            said.push(statement(Implicit::DenyAny(self.packet.direction), Effect::Deny, 1));
        }
        said
    }

    fn statements(&self, rule: &Rule) -> Vec<Statement> {
        let mut said = Vec::new();
        let redirect = |l7: &Option<Arc<policy::L7>>, protocol: u8| {
            let namespace = self.subject.labels.namespace().unwrap_or_default();
            let asked = l7.as_ref().filter(|_| rule.effect == Effect::Allow)?;
            let redirect = Redirect::new(asked, protocol, namespace).expect("generated listeners are right")?;
            Some(if self.closed { redirect } else { redirect.opened() })
        };
        let ranges: Vec<Ranged<'_>> = match &rule.ports {
            Ports::All => vec![(None, None)],
            Ports::Some(ports) => ports
                .iter()
                .map(|port| (Some((port.protocol, &port.range, port.written_end)), redirect(&port.l7, port.protocol)))
                .collect(),
        };
        for peer in &rule.peers {
            for (range, redirect) in &ranges {
                let by_peer =
                    self.packet.direction == Direction::Egress && matches!(range, Some((_, PortRange::Named(_), _)));
                let sum = peer.is_sum();
                said.push(Statement {
                    who: Who::Rule((*rule.origin).clone()),
                    place: (rule.tier, rule.priority),
                    peer: peer.clone(),
                    range: range.map(|(protocol, range, end)| (protocol, range.clone(), end)),
                    detail: detail(
                        self.world,
                        self.packet,
                        self.subject,
                        range.map(|(protocol, range, _)| (protocol, range)),
                    ),
                    // A sum has no ports with names.
                    selects: is_peer(self.world, self.packet.other, peer)
                        && !(by_peer && sum && *peer != policy::Peer::All),
                    own: by_peer || !sum,
                    effect: rule.effect,
                    auth: rule.auth.filter(|_| rule.effect == Effect::Allow),
                    redirect: redirect.clone(),
                    log: rule.origin.log.clone(),
                });
            }
        }
        said
    }
}

/// How much of the packet's protocol and port the range pins down, if it has them: 0 nothing, 1 the protocol, 2 to 17
/// the bits of the port that all ports of the widest aligned block around it within the range share.
fn detail(world: &World, packet: &Packet, subject: &Party, range: Option<(u8, &PortRange)>) -> Option<u8> {
    let Some((protocol, range)) = range else { return Some(0) };
    if protocol != packet.protocol {
        return None;
    }
    match range {
        PortRange::All => Some(1),
        PortRange::Numbers(first, last) => (0..=16_u8).find_map(|bits| {
            let rest = if bits == 16 { 0 } else { u16::MAX >> bits };
            let (low, high) = (packet.port & !rest, packet.port | rest);
            (*first <= low && high <= *last).then_some(1 + bits)
        }),
        PortRange::Named(name) => {
            let owner = match (packet.direction, packet.other) {
                (Direction::Ingress, _) => Some(subject),
                (Direction::Egress, Other::Party(peer)) => world.parties.get(&peer),
                (Direction::Egress, Other::Address(_)) => None,
            };
            let numbers = owner?.ports.get(&(protocol, name.clone()))?;
            // A name of which a peer's pods disagree is none.
            let agreed = packet.direction == Direction::Ingress || numbers.len() == 1;
            (agreed && numbers.contains(&packet.port)).then_some(17)
        }
    }
}

fn is_for(rule: &Rule, subject: &Party, is_host: bool) -> bool {
    match &rule.subject {
        Subject::Endpoints(selector) => !is_host && fulfils(&subject.labels, selector),
        Subject::Nodes(selector) => is_host && fulfils(&labels_of_own_node(subject), selector),
    }
}

/// The labels by which the own node is a subject: those that Kubernetes gives it.
fn labels_of_own_node(host: &Party) -> Labels {
    let kept = |label: &&Label| label.source == "k8s" && label.key != labels::CLUSTER || label.is_reserved("host");
    host.labels.iter().filter(kept).cloned().collect()
}

fn fulfils<'a>(labels: impl IntoIterator<Item = &'a Label>, selector: &Selector) -> bool {
    let labels: Vec<&Label> = labels.into_iter().collect();
    selector.requirements().iter().all(|requirement| {
        let of_key = labels.iter().filter(|label| {
            label.key == requirement.key.key
                && (requirement.key.source == "any" || label.source == requirement.key.source)
        });
        let values: Vec<&str> = of_key.map(|label| label.value.as_str()).collect();
        match &requirement.operator {
            Operator::Exists => !values.is_empty(),
            Operator::DoesNotExist => values.is_empty(),
            Operator::In(wanted) => wanted.iter().any(|one| values.contains(&one.as_str())),
            Operator::NotIn(unwanted) => !unwanted.iter().any(|one| values.contains(&one.as_str())),
        }
    })
}

/// The labels by which a party is a peer: of the own node not those that Kubernetes gives it, by which it is a subject.
fn peer_labels(world: &World, party: NumericIdentity) -> Labels {
    let all = &world.parties[&party].labels;
    let of_kubernetes = |label: &&Label| label.source == "k8s" && label.key != labels::CLUSTER;
    if party == abi::identity::HOST {
        all.iter().filter(|label| !of_kubernetes(label)).cloned().collect()
    } else {
        all.clone()
    }
}

fn is_peer(world: &World, other: Other, peer: &Peer) -> bool {
    match (peer, other) {
        (Peer::All, _) => true,
        (Peer::Labels(selector), Other::Party(party)) => fulfils(&peer_labels(world, party), selector),
        (Peer::Labels(selector), Other::Address(address)) => fulfils(&labels_of(world, address), selector),
        (Peer::Sums(selector), other) => {
            sum_of(world, other).is_some_and(|name| fulfils(&Labels::reserved(name), selector))
        }
        (Peer::Entity { entity, sum: false }, other) => is_entity(world, other, *entity),
        (Peer::Entity { entity, sum: true }, other) => in_sum(world, other, *entity),
        (Peer::Learned(Learned::Groups(selector, except)), other) => {
            let (is_outside, address) = match other {
                Other::Address(address) => (true, Some(address)),
                Other::Party(party) => (is_world(&world.parties[&party].labels), None),
            };
            let is_out = |part: &IpNet| address.is_some_and(|address| part.contains(&address));
            is_outside && fulfils(world.labels_of_groups(address), selector) && !except.iter().any(is_out)
        }
        (Peer::Learned(learned), Other::Party(party)) if learned.is_service() => {
            let labels = &world.parties[&party].labels;
            let is = |key: &str, value: &str| labels.get("k8s", key) == Some(value);
            world.services_of(learned).iter().any(|(namespace, service)| {
                let app = service.app.as_deref();
                app.is_some_and(|app| is("app", app))
                    && is(labels::POD_NAMESPACE, namespace)
                    && is(labels::CLUSTER, &world.settings.cluster_name)
            })
        }
        (Peer::Cidr(_) | Peer::Learned(_), Other::Address(address)) => world.address_sets(peer).iter().any(|set| {
            let family_is_used = match address {
                IpAddr::V4(_) => world.settings.families.ipv4,
                IpAddr::V6(_) => world.settings.families.ipv6,
            };
            family_is_used && set.prefix.contains(&address) && !set.except.iter().any(|part| part.contains(&address))
        }),
        (Peer::Cidr(_) | Peer::Learned(_), Other::Party(party)) => {
            // Who is nothing but the world is an address of which nobody spoke: a whole family has it.
            let world_of = |set: &policy::CidrSet| {
                let label = identity::world_label(set.prefix.addr().is_ipv6(), world.settings.families);
                let used = if set.prefix.addr().is_ipv6() {
                    world.settings.families.ipv6
                } else {
                    world.settings.families.ipv4
                };
                used && set.prefix.prefix_len() == 0 && world.parties[&party].labels.has_reserved(&label.key)
            };
            world.address_sets(peer).iter().any(world_of)
        }
    }
}

/// The labels of an address outside: what it belongs to, and the longest prefix that a policy names around it.
fn labels_of(world: &World, address: IpAddr) -> Labels {
    let named = world.named_prefixes().into_iter();
    let longest = named.filter(|prefix| prefix.contains(&address)).max_by_key(|prefix| prefix.prefix_len());
    match longest {
        Some(prefix) => identity::cidr_labels(prefix, world.settings.families),
        None => Labels::new([identity::world_label(address.is_ipv6(), world.settings.families)]),
    }
}

fn is_entity(world: &World, other: Other, entity: Entity) -> bool {
    let Other::Party(party) = other else {
        let Other::Address(address) = other else { return false };
        let both = world.settings.families.ipv4 && world.settings.families.ipv6;
        return match entity {
            Entity::All | Entity::World => true,
            Entity::WorldIpv4 => both && address.is_ipv4(),
            Entity::WorldIpv6 => both && address.is_ipv6(),
            _ => false,
        };
    };
    let labels = &world.parties[&party].labels;
    let is = |name: &str| labels.has_reserved(name);
    let inside = ["host", "remote-node", "init", "ingress", "health", "unmanaged", "kube-apiserver"];
    match entity {
        Entity::All => true,
        Entity::None => false,
        Entity::World => is_world(labels),
        Entity::Cluster => {
            inside.iter().any(|name| is(name)) || cluster_of(labels) == Some(&world.settings.cluster_name)
        }
        Entity::ClusterMesh => inside.iter().any(|name| is(name)) || cluster_of(labels).is_some(),
        other => is(other.name()),
    }
}

fn is_world(labels: &Labels) -> bool {
    ["world", "world-ipv4", "world-ipv6"].iter().any(|name| labels.has_reserved(name))
}

fn cluster_of(labels: &Labels) -> Option<&str> {
    labels.get("k8s", labels::CLUSTER)
}

/// The label that the field gives to all of the other side's sort together.
fn sum_of(world: &World, other: Other) -> Option<&'static str> {
    match other {
        Other::Address(address) if world.is_named(address) => Some("aggregate-world"),
        Other::Party(party) if (256..1 << 16).contains(&party) => Some("aggregate-cluster"),
        Other::Party(party) if (1 << 16..1 << 24).contains(&party) => Some("aggregate-cluster-mesh"),
        Other::Party(party) if party >= abi::identity::LOCAL_REMOTE_NODE => Some("aggregate-remote-node"),
        Other::Address(_) | Other::Party(_) => None,
    }
}

/// True if the entity means the other side as one of many of its sort.
fn in_sum(world: &World, other: Other, entity: Entity) -> bool {
    match (entity, other) {
        (Entity::World, Other::Address(address)) => world.is_named(address),
        (Entity::RemoteNode, Other::Party(party)) => party >= abi::identity::LOCAL_REMOTE_NODE,
        (Entity::Cluster, Other::Party(party)) => (256..1 << 16).contains(&party),
        (Entity::ClusterMesh, Other::Party(party)) => (256..1 << 24).contains(&party),
        _ => false,
    }
}
