//! Are the differences between two sets of policies just those that packets see?
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use abi::policy::{VERDICT_ALLOW, VERDICT_REDIRECT};
use analysis::dead::dead;
use analysis::diff::{Change, Differences, Traffic, differences};
use analysis::{Area, Kind, Party, PortName, Region, Scene, Set, Side, Somebody, Space};
use labels::{Label, Labels};
use oracle::engine::Engine;
use oracle::generate::{self, Random};
use oracle::{Other, Packet, World, life};
use policy::{Direction, Learned, Peer, PolicyObject, Redirect};

/// How many worlds are tried, 400 packets each; more of them with `DIFF_WORLDS=2000`.
fn worlds(usually: u64) -> u64 {
    std::env::var("DIFF_WORLDS").ok().and_then(|text| text.parse().ok()).unwrap_or(usually)
}

/// Policies, and the same with some changed.
fn pair(random: &mut Random, world: &World) -> [World; 2] {
    let mut old = world.clone();
    for _ in 0..2 + random.below(5) {
        let policy = generate::policy(random, &world.settings);
        life::upsert(&mut old, policy);
    }
    let mut new = old.clone();
    for _ in 0..1 + random.below(2) {
        match random.below(3) {
            0 if new.policies.len() > 1 => drop(new.policies.swap_remove(random.below(new.policies.len()))),
            1 => {
                let at = random.below(new.policies.len());
                let policy = &mut new.policies[at];
                if !policy.rules.is_empty() {
                    let rule = random.below(policy.rules.len());
                    policy.rules.remove(rule);
                }
            }
            _ => {
                let policy = generate::policy(random, &world.settings);
                life::upsert(&mut new, policy);
            }
        }
    }
    [old, new]
}

fn side(world: &World) -> Side {
    let peers = world.rules().flat_map(|rule| &rule.peers);
    let learned = peers.filter_map(|peer| if let Peer::Learned(learned) = peer { Some(learned) } else { None });
    let learned = learned.map(|learned| (learned.clone(), world.known(learned)));
    Side {
        settings: world.settings.clone(),
        policies: world.policies.clone(),
        learned: learned.collect(),
        prefixes: BTreeSet::new(),
    }
}

/// A world's label is that of the world's address family.
fn addresses(world: &World) -> Vec<Region> {
    let both = world.settings.families.ipv6;
    let one = |prefix: &str, label: &str| {
        Region::addresses(Area::new(prefix.parse().unwrap()), Labels::new([Label::reserved(label)]))
    };
    match both {
        false => vec![one("0.0.0.0/0", "world")],
        true => vec![one("0.0.0.0/0", "world-ipv4"), one("::/0", "world-ipv6")],
    }
}

fn is_subject(identity: u32) -> bool {
    identity == 1 || (256..1 << 16).contains(&identity)
}

fn known_space(world: &World) -> (Space, Vec<u32>) {
    let numbers: Vec<u32> = world.parties.keys().copied().filter(|one| ![2, 9, 10].contains(one)).collect();
    let parties = numbers.iter().map(|identity| {
        let party = &world.parties[identity];
        Party {
            name: identity.to_string(),
            identity: *identity,
            labels: party.labels.clone(),
            is_subject: is_subject(*identity),
            ports: party.ports.clone(),
            identity_ports: party.ports.clone(),
        }
    });
    (Space::new(parties.collect(), addresses(world), world.settings.clone(), false), numbers)
}

/// What a packet comes to at both ends.
#[derive(PartialEq, Debug)]
enum Verdict {
    Denied,
    Proof,
    Broken,
    Passes([BTreeSet<Arc<Redirect>>; 2]),
}

struct Flow {
    source: Other,
    destination: Other,
    protocol: u8,
    port: u16,
}

fn verdict(engine: &mut Engine, flow: &Flow) -> Option<Verdict> {
    let ends =
        [(flow.source, flow.destination, Direction::Egress), (flow.destination, flow.source, Direction::Ingress)];
    let mut redirects = [BTreeSet::new(), BTreeSet::new()];
    let (mut asked, mut found) = (false, None);
    for (at, (own, other, direction)) in ends.into_iter().enumerate() {
        let Other::Party(subject) = own else { continue };
        if !is_subject(subject) {
            continue;
        }
        asked = true;
        let policy = engine.policy(subject);
        let packet = Packet { subject, other, direction, protocol: flow.protocol, port: flow.port };
        let entry = policy.verdict(engine.identity(packet.other), direction, flow.protocol, flow.port);
        let set = policy.rule_set(entry.rule_set).unwrap();
        if policy.error.is_some() {
            found = Some(Verdict::Broken);
        } else if entry.verdict == VERDICT_REDIRECT {
            redirects[at] = set.redirects.iter().cloned().collect();
        } else if entry.verdict != VERDICT_ALLOW && found != Some(Verdict::Broken) {
            let proof = set.auth != policy::Auth::Disabled && found.is_none();
            found = Some(if proof { Verdict::Proof } else { Verdict::Denied });
        }
    }
    asked.then(|| found.unwrap_or(Verdict::Passes(redirects)))
}

/// The change that a difference claims for a flow, if one does; two would be one too many.
fn claimed<'a>(
    found: &'a Differences,
    named: &BTreeSet<u8>,
    flow: &Flow,
    has: &dyn Fn(&Set, Other, &Flow) -> bool,
) -> Option<&'a Traffic> {
    let all: Vec<&Traffic> = found
        .regions
        .iter()
        .filter(|region| has(&region.sources, flow.source, flow) && has(&region.destinations, flow.destination, flow))
        .flat_map(|region| {
            region.traffic.iter().filter(move |traffic| {
                traffic.ports.iter().any(|ports| match ports.protocol {
                    Some(protocol) => protocol == flow.protocol && (ports.first..=ports.last).contains(&flow.port),
                    None => !named.contains(&flow.protocol),
                })
            })
        })
        .collect();
    assert!(all.len() < 2, "regions overlap: {all:?}");
    all.first().copied()
}

fn check(claimed: Option<&Traffic>, old: &Verdict, new: &Verdict, story: &dyn Fn() -> String) {
    let change = claimed.map(|traffic| &traffic.change);
    let fits = match (old, new) {
        (Verdict::Broken, Verdict::Broken) => change.is_none() || change == Some(&Change::Broken),
        (Verdict::Broken, _) | (_, Verdict::Broken) => change == Some(&Change::Broken),
        (Verdict::Passes(one), Verdict::Passes(two)) if one == two => change.is_none(),
        (Verdict::Passes(_), Verdict::Passes(_)) => matches!(change, None | Some(Change::Requests { .. })),
        (Verdict::Passes(_), _) => change == Some(&Change::Lost),
        (_, Verdict::Passes(_)) => change == Some(&Change::Gained),
        (one, two) if one == two => change.is_none(),
        _ => change == Some(&Change::Proof),
    };
    assert!(fits, "{old:?} -> {new:?}, but claimed is {claimed:?}: {}", story());
}

/// Packets of and to those in the world, as the oracle draws them, with the destination's port.
fn flow(random: &mut Random, worlds: &[World; 2]) -> Flow {
    let world = &worlds[random.below(2)];
    let packet = generate::packet(random, world);
    let own = Other::Party(packet.subject);
    let (source, destination) = match packet.direction {
        Direction::Egress => (own, packet.other),
        Direction::Ingress => (packet.other, own),
    };
    let protocol = if random.once_in(20) { 253 } else { packet.protocol };
    Flow { source, destination, protocol, port: packet.port }
}

fn story(worlds: &[World; 2], flow: &Flow, seed: u64) -> String {
    let labels = |other: Other| match other {
        Other::Party(identity) => format!("{identity} {}", worlds[0].parties[&identity].labels),
        Other::Address(address) => address.to_string(),
    };
    let mut text = format!(
        "seed {seed}: {} -> {} {}/{}\n{:?}\n",
        labels(flow.source),
        labels(flow.destination),
        flow.port,
        flow.protocol,
        worlds[0].settings
    );
    for (world, name) in worlds.iter().zip(["old", "new"]) {
        for rule in world.rules() {
            text += &format!(
                "{name} {} for {:?}: {:?} {} {:?} {:?} {:?}\n",
                rule.origin, rule.subject, rule.tier, rule.priority, rule.effect, rule.peers, rule.ports
            );
        }
    }
    text
}

#[test]
fn differences_are_what_packets_of_a_known_cluster_see() {
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for seed in 0..worlds(200) {
        let mut random = Random::new(seed + 77_000);
        let world = generate::world(&mut random);
        let both = pair(&mut random, &world);
        let sides = both.each_ref().map(side);
        let (space, numbers) = known_space(&world);
        let mut scene = Scene::new(space, [&sides[0], &sides[1]], false, 100_000);
        let found = differences(&mut scene, 1_000_000);
        assert_eq!(found.incomplete, None);
        let mut engines = both.each_ref().map(Engine::new);
        let has = |set: &Set, other: Other, _: &Flow| match other {
            Other::Party(identity) => set.has(numbers.binary_search(&identity).unwrap()),
            Other::Address(address) => {
                set.regions.iter().any(|region| region.area().is_some_and(|area| area.has(&address)))
            }
        };
        for _ in 0..400 {
            let flow = flow(&mut random, &both);
            let unknown = |other: Other| matches!(other, Other::Party(2 | 9 | 10));
            if unknown(flow.source) || unknown(flow.destination) {
                continue;
            }
            let [one, two] = &mut engines;
            let (Some(old), Some(new)) = (verdict(one, &flow), verdict(two, &flow)) else { continue };
            let claimed = claimed(&found, scene.protocols(), &flow, &has);
            *seen.entry(format!("{:?}", claimed.map(|one| std::mem::discriminant(&one.change)))).or_default() += 1;
            check(claimed, &old, &new, &|| story(&both, &flow, seed));
        }
    }
    assert!(seen.len() >= 4 && seen.values().all(|count| *count > 10), "some change never comes: {seen:?}");
}

/// Everybody who can be, none of whom is known.
fn open_space(world: &World) -> Space {
    let name = &world.settings.cluster_name;
    let mut regions = vec![Region::pods(name), Region::foreign_pods(name), Region::host(false), Region::host(true)];
    regions.extend([false, true].map(|api| Region::remote_nodes(api, false)));
    regions.extend(addresses(world));
    Space::new(Vec::new(), regions, world.settings.clone(), true)
}

fn kind_of(identity: u32, labels: &Labels) -> Option<Kind> {
    match identity {
        1 => Some(Kind::Host(labels.has_reserved("kube-apiserver"))),
        6 | 7 => Some(Kind::RemoteNode(identity == 7)),
        256..0x1_0000 => Some(Kind::Pod),
        0x1_0000..abi::identity::LOCAL_CIDR => Some(Kind::ForeignPod),
        _ => None,
    }
}

#[test]
fn no_packet_differs_where_nothing_is_claimed_whoever_comes() {
    let (mut equivalent, mut packets, mut incomplete) = (0, 0, 0);
    // A name for ports beside numbers of the same protocol.
    for seed in (0..worlds(10)).chain([2_343]) {
        let mut random = Random::new(seed + 990_000);
        let world = generate::world(&mut random);
        let both = pair(&mut random, &world);
        let sides = both.each_ref().map(side);
        let mut scene = Scene::new(open_space(&world), [&sides[0], &sides[1]], true, 100_000);
        let found = differences(&mut scene, 1_000_000);
        // Many names of ports make many cases.
        if found.incomplete.is_some() {
            incomplete += 1;
            continue;
        }
        equivalent += u32::from(found.regions.is_empty());
        // Others than those for whom the policies were made.
        let mut both = both;
        for _ in 0..6 {
            let mut one = both[0].clone();
            generate::add_workload(&mut random, &mut one);
            for world in &mut both {
                world.parties.clone_from(&one.parties);
            }
        }
        let mut engines = both.each_ref().map(Engine::new);
        for _ in 0..400 {
            let flow = flow(&mut random, &both);
            let learned = |address: IpAddr| -> BTreeSet<Learned> {
                let known = world.learned.iter().filter(|(_, all)| all.iter().any(|one| one.contains(&address)));
                let known: BTreeSet<Learned> = known.map(|(one, _)| one.clone()).collect();
                let elsewhere = (!known.is_empty()).then(|| Learned::Name(analysis::ELSEWHERE.to_owned()));
                known.into_iter().chain(elsewhere).collect()
            };
            let has = |set: &Set, other: Other, flow: &Flow| {
                // A name of which an identity's pods disagree is none of a peer's.
                let (labels, address, [names, identity_names]) = match other {
                    Other::Party(identity) => {
                        let party = &both[0].parties[&identity];
                        let named = |most: usize| -> BTreeSet<PortName> {
                            let of_port = party.ports.iter().filter(|((protocol, _), numbers)| {
                                *protocol == flow.protocol && numbers.contains(&flow.port) && numbers.len() <= most
                            });
                            of_port.map(|(name, _)| name.clone()).collect()
                        };
                        // Of the own node a region tells the labels by which it is a subject.
                        let known = policy::PeerIdentity::new(identity, party.labels.clone());
                        (known.subject_labels().clone(), None, [named(usize::MAX), named(1)])
                    }
                    Other::Address(address) => (Labels::empty(), Some(address), Default::default()),
                };
                let learned = address.map(learned).unwrap_or_default();
                set.regions.iter().any(|region| {
                    let kind = match other {
                        Other::Party(identity) => kind_of(identity, &both[0].parties[&identity].labels),
                        Other::Address(_) => Some(region.kind.clone()).filter(|kind| matches!(kind, Kind::Address(_))),
                    };
                    let Some(kind) = kind else { return false };
                    let (names, identity_names) = (&names, &identity_names);
                    let labels = &labels;
                    region.has(&Somebody { kind: &kind, labels, address, learned: &learned, names, identity_names })
                })
            };
            let covered = |other: Other| match other {
                Other::Party(identity) => kind_of(identity, &both[0].parties[&identity].labels).is_some(),
                Other::Address(_) => true,
            };
            if !covered(flow.source) || !covered(flow.destination) {
                continue;
            }
            let [one, two] = &mut engines;
            let (Some(old), Some(new)) = (verdict(one, &flow), verdict(two, &flow)) else { continue };
            packets += 1;
            check(claimed(&found, scene.protocols(), &flow, &has), &old, &new, &|| story(&both, &flow, seed));
        }
    }
    let told = format!("{equivalent} pairs are equivalent, {incomplete} too large, {packets} packets");
    assert!(equivalent > 0 && packets > 1_000 && incomplete < worlds(10), "{told}");
    println!("{told}");
}

#[test]
fn a_policy_written_otherwise_is_equivalent_and_one_that_only_looks_so_is_not() {
    let settings = policy::Settings::default();
    let read = |rules: serde_json::Value| {
        let object = serde_json::json!({ "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy",
            "metadata": { "name": "p", "namespace": "a" },
            "spec": { "endpointSelector": { "matchLabels": { "app": "x" } }, "ingress": rules } });
        PolicyObject::from_value(&object, &crds::Source::default(), &settings).unwrap()
    };
    let is_equivalent = |one: serde_json::Value, two: serde_json::Value| {
        let side = |rules| Side {
            settings: settings.clone(),
            policies: vec![read(rules)],
            learned: BTreeMap::new(),
            prefixes: BTreeSet::new(),
        };
        let (old, new) = (side(one), side(two));
        let world = World { settings: settings.clone(), ..World::default() };
        let mut scene = Scene::new(open_space(&world), [&old, &new], true, 10_000);
        let found = differences(&mut scene, 10_000);
        assert_eq!(found.incomplete, None);
        found.regions.is_empty()
    };
    let peer =
        |expression: serde_json::Value| serde_json::json!([{ "fromEndpoints": [{ "matchExpressions": expression }] }]);
    let by_two = serde_json::json!([
        { "fromEndpoints": [{ "matchExpressions": [{ "key": "app", "operator": "Exists" }] }] },
        { "fromEndpoints": [{ "matchExpressions": [{ "key": "app", "operator": "DoesNotExist" }] }] },
    ]);
    let pods = peer(serde_json::json!([]));
    assert!(is_equivalent(by_two.clone(), pods.clone()));
    let not_x = peer(serde_json::json!([{ "key": "app", "operator": "NotIn", "values": ["x"] }]));
    assert!(!is_equivalent(not_x, pods), "a pod called x was not seen yet");
    let ranges = |list: &[(&str, u16)]| {
        let ports: Vec<_> = list
            .iter()
            .map(|(first, last)| serde_json::json!({ "port": first, "endPort": last, "protocol": "TCP" }))
            .collect();
        serde_json::json!([{ "toPorts": [{ "ports": ports }] }])
    };
    assert!(is_equivalent(ranges(&[("1", 10), ("11", 20)]), ranges(&[("1", 20)])));
    assert!(!is_equivalent(ranges(&[("1", 10), ("12", 20)]), ranges(&[("1", 20)])));
}

/// A selector that only says what must be absent selects the sum of all addresses that have identities of their own,
/// but not the others.
#[test]
fn addresses_of_their_own_identity_are_told_from_the_others() {
    let settings = policy::Settings::default();
    let read = |name: &str, app: &str, rule: serde_json::Value| {
        let object = serde_json::json!({ "apiVersion": "cilium.io/v2", "kind": "CiliumClusterwideNetworkPolicy",
            "metadata": { "name": name },
            "spec": { "endpointSelector": { "matchLabels": { "app": app } }, "ingress": [rule] } });
        PolicyObject::from_value(&object, &crds::Source::default(), &settings).unwrap()
    };
    let absent = serde_json::json!([{ "matchExpressions": [{ "key": "reserved:world", "operator": "DoesNotExist" }] }]);
    let named = read("named", "y", serde_json::json!({ "fromCIDR": ["10.0.0.0/8"] }));
    let old = read("p", "x", serde_json::json!({ "fromEndpoints": absent }));
    let all = read("p", "x", serde_json::json!({ "fromEntities": ["all"] }));
    let side = |policy: &PolicyObject| Side {
        settings: settings.clone(),
        policies: vec![named.clone(), policy.clone()],
        learned: BTreeMap::new(),
        prefixes: BTreeSet::new(),
    };
    let sides = [side(&old), side(&all)];
    let policies = sides[0].policies.clone();
    let world = World { settings: settings.clone(), policies, ..World::default() };
    let gains = |open: bool| {
        let regions = [Region::pods(&settings.cluster_name)].into_iter().chain(addresses(&world)).collect();
        let space = Space::new(Vec::new(), regions, settings.clone(), open);
        let found = differences(&mut Scene::new(space, [&sides[0], &sides[1]], open, 10_000), 10_000);
        assert_eq!(found.incomplete, None);
        move |address: &str, is_learned: bool| {
            let address: IpAddr = address.parse().unwrap();
            let elsewhere = Learned::Name(analysis::ELSEWHERE.to_owned());
            let (learned, names, labels) = (is_learned.then_some(elsewhere), BTreeSet::new(), Labels::empty());
            let learned: BTreeSet<Learned> = learned.into_iter().collect();
            let regions = found.regions.iter().flat_map(|one| &one.sources.regions);
            regions.into_iter().any(|region| {
                let (kind, learned, names, labels) = (&region.kind, &learned, &names, &labels);
                let who = Somebody { kind, labels, address: Some(address), learned, names, identity_names: names };
                region.area().is_some() && region.has(&who)
            })
        }
    };
    let (known, open) = (gains(false), gains(true));
    for gains in [&known, &open] {
        assert!(gains("192.0.2.1", false));
        assert!(!gains("10.0.0.1", false), "its prefix is named by a policy");
    }
    assert!(!open("192.0.2.1", true), "another policy may ask for its name");
}

#[test]
fn dead_rules_can_go_together_and_no_packet_sees_it() {
    let (mut gone, mut all) = (0, 0);
    for seed in 0..worlds(40) {
        let mut random = Random::new(seed + 55_000);
        let world = generate::world(&mut random);
        let [old, _] = pair(&mut random, &world);
        let (space, _) = known_space(&world);
        let policies = side(&old);
        let mut scene = Scene::new(space, [&policies, &policies], false, 100_000);
        let found = dead(&mut scene, 1_000_000);
        let mut places: Vec<(usize, usize)> = found.dead.iter().map(|one| one.place).collect();
        places.sort_unstable();
        gone += places.len();
        all += old.rules().count();
        let mut new = old.clone();
        for (policy, rule) in places.into_iter().rev() {
            new.policies[policy].rules.remove(rule);
        }
        let both = [old, new];
        let mut engines = both.each_ref().map(Engine::new);
        for _ in 0..200 {
            let flow = flow(&mut random, &both);
            let [one, two] = &mut engines;
            let (old, new) = (verdict(one, &flow), verdict(two, &flow));
            let same = match (&old, &new) {
                // The same requests pass by other rules.
                (Some(Verdict::Passes(_)), Some(Verdict::Passes(_))) => true,
                _ => old == new,
            };
            assert!(same, "{old:?} and then {new:?}: {}", story(&both, &flow, seed));
        }
    }
    assert!(gone > 20 && gone < all, "{gone} of {all} rules are dead");
}
