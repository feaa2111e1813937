//! Do the engine's tables say what the oracle reads in the rules?

use std::collections::{BTreeMap, BTreeSet};

use identity::NumericIdentity;
use ipnet::IpNet;
use oracle::engine::Engine;
use oracle::generate::{self, Random};
use oracle::{Decision, Other, Packet, World, evaluate, life};

fn compare(world: &World, packet: &Packet, found: &Decision, seed: u64) {
    let expected = evaluate(world, packet);
    assert_eq!(*found, expected, "seed {seed}: {packet:?}\n{}{:?}", story(world, packet), world.settings);
}

/// The rules of the subject in the direction of the packet, and who is at both ends.
fn story(world: &World, packet: &Packet) -> String {
    let labels = |identity: NumericIdentity| world.parties.get(&identity).map(|party| party.labels.to_string());
    let other = match packet.other {
        Other::Party(identity) => labels(identity).unwrap_or_default(),
        Other::Address(address) => address.to_string(),
    };
    let mut story = format!("{} and {other}\n", labels(packet.subject).unwrap_or_default());
    let known = policy::PeerIdentity::new(packet.subject, world.parties[&packet.subject].labels.clone());
    let rules = world.rules().filter(|rule| rule.direction == packet.direction && rule.subject.selects(&known));
    for rule in rules {
        let peers: Vec<String> = rule.peers.iter().map(ToString::to_string).collect();
        story += &format!(
            "{} {:?} {} {:?} [{}] {:?}\n",
            rule.origin,
            rule.tier,
            rule.priority,
            rule.effect,
            peers.join("; "),
            rule.ports
        );
    }
    story
}

/// How many worlds are tried; more of them, 75 packets each, with `ORACLE_WORLDS=14000`.
fn worlds() -> u64 {
    std::env::var("ORACLE_WORLDS").ok().and_then(|text| text.parse().ok()).unwrap_or(400)
}

#[test]
fn tables_say_what_the_rules_say() {
    let mut verdicts = BTreeMap::new();
    let seeds = (0..worlds()).map(|at| if at < 400 { at } else { 100_000 + at });
    for seed in seeds {
        let mut random = Random::new(seed);
        let mut world = generate::world(&mut random);
        for _ in 0..2 + random.below(7) {
            let policy = generate::policy(&mut random, &world.settings);
            life::upsert(&mut world, policy);
        }
        let mut engine = Engine::new(&world);
        for _ in 0..75 {
            let packet = generate::packet(&mut random, &world);
            let found = engine.decision(&packet);
            *verdicts.entry(format!("{:?} {}", found.verdict, found.match_type)).or_insert(0) += 1;
            compare(&world, &packet, &found, seed);
        }
    }
    // The pools are no good if some answer never comes.
    assert!(verdicts.values().sum::<u32>() >= 25_000);
    for verdict in [
        "Allow all",
        "Allow l3-l4",
        "Allow l4-only",
        "Allow l3-only",
        "Deny l3-l4",
        "Deny l4-only",
        "Redirect l3-l4",
        "Redirect l4-only",
        "DefaultDeny none",
        "Allow l3-proto",
        "Allow proto-only",
    ] {
        assert!(verdicts.get(verdict).is_some_and(|count| *count > 20), "{verdict} is rare: {verdicts:?}");
    }
}

#[test]
fn proof_is_asked_for_where_the_rules_ask_for_it() {
    let mut asked = BTreeMap::new();
    for seed in 5_000..5_300 {
        let mut random = Random::new(seed);
        let mut world = generate::world(&mut random);
        let mode = random.pick(&["required", "test-always-fail", "disabled"]);
        for _ in 0..2 + random.below(6) {
            let policy = generate::policy_with_proof(&mut random, &world.settings, mode);
            life::upsert(&mut world, policy);
        }
        let mut engine = Engine::new(&world);
        for _ in 0..60 {
            let packet = generate::packet(&mut random, &world);
            let found = engine.decision(&packet);
            *asked.entry(format!("{:?}", found.auth)).or_insert(0) += 1;
            compare(&world, &packet, &found, seed);
        }
    }
    for auth in ["(Spire, true)", "(AlwaysFail, true)", "(Disabled, true)"] {
        assert!(asked.get(auth).is_some_and(|count| *count > 20), "{auth} is rare: {asked:?}");
    }
}

#[test]
fn changes_lead_where_a_fresh_start_leads() {
    for seed in 1_000..1_080 {
        let mut random = Random::new(seed);
        let mut world = generate::world(&mut random);
        let mut engine = Engine::new(&world);
        for step in 0..40 {
            let touched = life::step(&mut random, &mut world, &mut engine);
            let mut fresh = if step % 10 == 9 { Some(Engine::new(&world)) } else { None };
            for at in 0..12 {
                let mut packet = generate::packet(&mut random, &world);
                // Half of the packets are from or to whom the change was about.
                if let Some(other) = touched.filter(|_| at % 2 == 0) {
                    packet.other = other;
                }
                let found = engine.decision(&packet);
                compare(&world, &packet, &found, seed);
                assert_eq!(
                    engine.kept_decision(&packet),
                    found,
                    "seed {seed}, step {step}: changes that were told differ"
                );
                if let Some(fresh) = &mut fresh {
                    assert_eq!(fresh.decision(&packet), found);
                }
            }
            if let Some(fresh) = fresh {
                assert_eq!(fresh.repository.prefixes(), engine.repository.prefixes());
                let wanted: BTreeSet<IpNet> = engine.outside.iter().map(|(prefix, _)| *prefix).collect();
                let named = engine.repository.prefixes();
                assert!(named.is_subset(&wanted), "{named:?} {wanted:?}");
                assert!(wanted.difference(&named).all(|prefix| prefix.prefix_len() == prefix.max_prefix_len()));
            }
        }
    }
}

/// The generator is no good for a field that it never writes.
#[test]
fn every_kind_of_rule_is_generated() {
    let mut random = Random::new(1);
    let mut fields = BTreeSet::new();
    for _ in 0..20 {
        let world = generate::world(&mut random);
        (0..200).for_each(|_| note(&generate::value(&mut random, &world.settings), "", &mut fields));
    }
    for field in FIELDS {
        assert!(fields.contains(*field), "{field} is never generated: {fields:?}");
    }
}

/// Notes the names of fields with the name of what holds them; `.kind` stands for what is in a list of words.
fn note(value: &serde_json::Value, within: &str, fields: &mut BTreeSet<String>) {
    match value {
        serde_json::Value::Object(map) => {
            for (key, value) in map {
                fields.insert(format!("{within}.{key}"));
                note(value, key, fields);
            }
        }
        serde_json::Value::Array(list) => list.iter().for_each(|one| note(one, within, fields)),
        serde_json::Value::String(word) => drop(fields.insert(format!("{within}={word}"))),
        _ => {}
    }
}

/// Fields of `docs/policy-fields.md` that change a verdict, but for `specs` in place of `spec`, proof, which has a test of
/// its own, and what is refused.
const FIELDS: &[&str] = &[
    "kind=CiliumNetworkPolicy",
    "kind=CiliumClusterwideNetworkPolicy",
    "kind=NetworkPolicy",
    "kind=ClusterNetworkPolicy",
    "specs.endpointSelector",
    "specs.nodeSelector",
    "specs.enableDefaultDeny",
    "specs.log",
    "specs.ingressDeny",
    "specs.egressDeny",
    "ingress.fromEndpoints",
    "ingress.fromNodes",
    "ingress.fromCIDR",
    "ingress.fromCIDRSet",
    "ingress.fromEntities",
    "egress.toEndpoints",
    "egress.toNodes",
    "egress.toCIDR",
    "egress.toCIDRSet",
    "egress.toEntities",
    "egress.toServices",
    "egress.toFQDNs",
    "egressDeny.toFQDNs",
    "egressDeny.toServices",
    "toCIDRSet.except",
    "fromCIDRSet.cidrGroupRef",
    "toCIDRSet.cidrGroupSelector",
    "toFQDNs.matchName",
    "toFQDNs.matchPattern",
    "toServices.k8sService",
    "toServices.k8sServiceSelector",
    "ingress.icmps",
    "egressDeny.icmps",
    "fields.family",
    "ports.endPort",
    "protocol=SCTP",
    "protocol=GRE",
    "rules.http",
    "http.path",
    "http.method",
    "http.host",
    "http.headers",
    "http.headerMatches",
    "rules.kafka",
    "kafka.role",
    "kafka.apiKey",
    "kafka.apiVersion",
    "kafka.clientID",
    "kafka.topic",
    "rules.dns",
    "toPorts.serverNames",
    "toPorts.terminatingTLS",
    "toPorts.originatingTLS",
    "toPorts.listener",
    "listener.priority",
    "operator=In",
    "operator=NotIn",
    "operator=Exists",
    "operator=DoesNotExist",
    "spec.policyTypes",
    "from.podSelector",
    "from.namespaceSelector",
    "from.ipBlock",
    "ports.port",
    "spec.tier",
    "spec.priority",
    "subject.namespaces",
    "subject.pods",
    "action=Accept",
    "action=Deny",
    "action=Pass",
    "to.namespaces",
    "to.pods",
    "to.networks",
    "to.nodes",
    "to.domainNames",
    "protocols.tcp",
    "protocols.udp",
    "protocols.sctp",
    "protocols.destinationNamedPort",
    "destinationPort.range",
];
