//! What do the policies say of a packet, read rule by rule?

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use identity::NumericIdentity;
use labels::{Labels, Operator, Selector};
use policy::{
    AllowLocalhost, Direction, Effect, Entity, Implicit, L7, Mode, Peer, PortRange, Ports, Rule, RuleOrigin, Subject,
};

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
}

/// A rule's statement about the packet: one peer selector and one range of ports that both match.
struct Statement<'a> {
    rule: &'a Rule,
    peer: &'a Peer,
    /// Protocol and ports as the rule has them.
    range: Option<(u8, &'a PortRange)>,
    /// Says something about application rules.
    asks: bool,
    /// How much of protocol and port it pins down.
    detail: u8,
    /// True if the peer selector means everybody of a sort.
    sum: bool,
}

/// What the policies say of a packet.
pub fn evaluate(world: &World, packet: &Packet) -> Decision {
    let subject = &world.parties[&packet.subject];
    let is_host = packet.subject == abi::identity::HOST;
    let exempt = world.settings.mode == Mode::Never || (is_host && !world.settings.host_firewall);
    let rules: Vec<&Rule> = world
        .rules()
        .filter(|rule| !exempt && rule.direction == packet.direction && is_for(rule, subject, is_host))
        .collect();
    let forced = !exempt && (world.settings.mode == Mode::Always || subject.labels.has_reserved("init"));
    let closing: BTreeSet<RuleOrigin> =
        rules.iter().filter(|rule| rule.default_deny).map(|rule| (*rule.origin).clone()).collect();
    let enforced = forced || !rules.is_empty();
    let statements: Vec<Statement<'_>> =
        rules.iter().flat_map(|rule| statements(world, packet, subject, rule)).collect();
    let statements = without_those_of_everybody(statements, &rules);

    if let Some(decision) = strongest(&statements, &rules, enforced) {
        return decision;
    }
    let implied = |verdict, match_type, implicit, rules| Decision {
        verdict,
        match_type,
        implicit: Some(implicit),
        rules,
        enforced,
    };
    if !enforced {
        return implied(Verdict::Allow, "all", Implicit::NotEnforced, BTreeSet::new());
    }
    let closed = forced || !closing.is_empty();
    if !closed {
        return implied(Verdict::Allow, "all", Implicit::AllowAny(packet.direction), BTreeSet::new());
    }
    let from_host = packet.direction == Direction::Ingress && is_entity(world, packet.other, Entity::Host);
    let may = !is_host
        && match world.settings.allow_localhost {
            AllowLocalhost::Always => !rules.is_empty(),
            AllowLocalhost::EvenWithoutRules => true,
            AllowLocalhost::Policy => false,
        };
    if from_host && may {
        return implied(Verdict::Allow, "l3-only", Implicit::AllowLocalhost, BTreeSet::new());
    }
    implied(Verdict::DefaultDeny, "none", Implicit::DefaultDeny, closing)
}

/// Denial first, then what the proxy must see, then the rest; then what says most of the ports; then who is named.
fn strongest(statements: &[Statement<'_>], rules: &[&Rule], enforced: bool) -> Option<Decision> {
    let class = |one: &Statement<'_>| match one.rule.effect {
        Effect::Deny => 0,
        Effect::Allow if one.asks && !somebody_asks_nothing(one, rules) => 1,
        Effect::Allow => 2,
    };
    let first = statements.iter().map(class).min()?;
    let left: Vec<&Statement<'_>> = statements.iter().filter(|one| class(one) == first).collect();
    let detail = left.iter().map(|one| one.detail).max()?;
    let left: Vec<&Statement<'_>> = left.into_iter().filter(|one| one.detail == detail).collect();
    let sum = left.iter().all(|one| one.sum);
    let left: Vec<&Statement<'_>> = left.into_iter().filter(|one| one.sum == sum).collect();
    let match_type = match (sum, detail) {
        (true, 0) => "all",
        (true, 1) => "proto-only",
        (true, _) => "l4-only",
        (false, 0) => "l3-only",
        (false, 1) => "l3-proto",
        (false, _) => "l3-l4",
    };
    Some(Decision {
        verdict: [Verdict::Deny, Verdict::Redirect, Verdict::Allow][first],
        match_type,
        implicit: None,
        rules: left.iter().map(|one| (*one.rule.origin).clone()).collect(),
        enforced,
    })
}

/// True if another allowing rule of the subject says the same of peers and ports, and asks nothing more.
fn somebody_asks_nothing(one: &Statement<'_>, rules: &[&Rule]) -> bool {
    let allowing = rules.iter().filter(|rule| rule.effect == Effect::Allow && rule.peers.contains(one.peer));
    allowing.flat_map(|rule| written(rule)).any(|(range, asks)| range == one.range && !asks)
}

/// A selector that says of a range of ports what everybody's rules say of it is part of everybody.
fn without_those_of_everybody<'a>(statements: Vec<Statement<'a>>, rules: &[&Rule]) -> Vec<Statement<'a>> {
    let said = |peer: &Peer, range: Option<(u8, &PortRange)>| {
        let of_peer = || rules.iter().copied().filter(|rule| rule.peers.contains(peer));
        let denies = of_peer().any(|rule| rule.effect == Effect::Deny && !asked_of(rule, range).is_empty());
        let mut asked: Vec<_> =
            of_peer().filter(|rule| rule.effect == Effect::Allow).flat_map(|rule| asked_of(rule, range)).collect();
        if denies {
            return Some(Err(()));
        }
        if asked.is_empty() {
            return None;
        }
        if asked.contains(&None) {
            return Some(Ok(Vec::new()));
        }
        asked.sort_by_key(|l7| format!("{l7:?}"));
        asked.dedup();
        Some(Ok(asked))
    };
    let numbered = |one: &Statement<'_>| {
        matches!(one.range, Some((_, PortRange::Numbers(..) | PortRange::Named(_)))) && *one.peer != Peer::All
    };
    statements
        .into_iter()
        .filter(|one| !(numbered(one) && said(one.peer, one.range) == said(&Peer::All, one.range)))
        .collect()
}

/// What a rule asks of a range of ports, once for each time that it names the range.
fn asked_of<'a>(rule: &'a Rule, range: Option<(u8, &PortRange)>) -> Vec<Option<&'a Arc<L7>>> {
    let Ports::Some(ports) = &rule.ports else { return Vec::new() };
    let named = ports.iter().filter(|port| Some((port.protocol, &port.range)) == range);
    named.map(|port| port.l7.as_ref()).collect()
}

/// The ranges of ports as a rule has them, and whether it asks more of them.
fn written(rule: &Rule) -> Vec<(Option<(u8, &PortRange)>, bool)> {
    match &rule.ports {
        Ports::All => vec![(None, false)],
        Ports::Some(ports) => {
            ports.iter().map(|port| (Some((port.protocol, &port.range)), port.l7.is_some())).collect()
        }
    }
}

fn statements<'a>(world: &World, packet: &Packet, subject: &Party, rule: &'a Rule) -> Vec<Statement<'a>> {
    let mut found = Vec::new();
    for peer in rule.peers.iter().filter(|peer| is_peer(world, packet.other, peer)) {
        for (range, asks) in written(rule) {
            let Some(detail) = detail(world, packet, subject, range) else { continue };
            let by_peer = packet.direction == Direction::Egress && matches!(range, Some((_, PortRange::Named(_))));
            let sum = !by_peer && (*peer == Peer::All || matches!(peer, Peer::Entity { sum: true, .. }));
            found.push(Statement { rule, peer, range, asks, detail, sum });
        }
    }
    found
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
            numbers.contains(&packet.port).then_some(17)
        }
    }
}

fn is_for(rule: &Rule, subject: &Party, is_host: bool) -> bool {
    match &rule.subject {
        Subject::Endpoints(selector) => !is_host && fulfils(&subject.labels, selector),
        Subject::Nodes(selector) => is_host && fulfils(&subject.labels, selector),
    }
}

fn fulfils(labels: &Labels, selector: &Selector) -> bool {
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

fn is_peer(world: &World, other: Other, peer: &Peer) -> bool {
    match (peer, other) {
        (Peer::All, _) => true,
        (Peer::Labels(selector), Other::Party(party)) => fulfils(&world.parties[&party].labels, selector),
        (Peer::Labels(selector), Other::Address(address)) => fulfils(&labels_of(world, address), selector),
        (Peer::Entity { entity, sum }, other) => {
            is_entity(world, other, *entity) && *sum == in_sum(world, other, *entity)
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
    let peers = world.rules().flat_map(|rule| &rule.peers);
    let sets = peers.flat_map(|peer| world.address_sets(peer));
    let named = sets.flat_map(|set| [set.prefix].into_iter().chain(set.except));
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
        Entity::World => is("world") || is("world-ipv4") || is("world-ipv6"),
        Entity::Cluster => {
            inside.iter().any(|name| is(name)) || cluster_of(labels) == Some(&world.settings.cluster_name)
        }
        Entity::ClusterMesh => inside.iter().any(|name| is(name)) || cluster_of(labels).is_some(),
        other => is(other.name()),
    }
}

fn cluster_of(labels: &Labels) -> Option<&str> {
    labels.get("k8s", labels::CLUSTER)
}

/// True if the entity means the other side as one of many of its sort.
fn in_sum(world: &World, other: Other, entity: Entity) -> bool {
    match (entity, other) {
        (Entity::World, Other::Address(address)) => world.is_named(address),
        (Entity::Cluster | Entity::ClusterMesh, Other::Party(party)) => {
            cluster_of(&world.parties[&party].labels).is_some()
        }
        _ => false,
    }
}
