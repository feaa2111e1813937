//! Do prefixes and addresses have the identities that they would have if everything were told at once?
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;

use abi::identity::LOCAL_CIDR;
use proptest::prelude::*;

use super::*;

const FAMILIES: Families = Families { ipv4: true, ipv6: true };

fn outside() -> Outside {
    Outside::new(FAMILIES, &BTreeMap::new(), [])
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn named(prefixes: &[(&str, bool)]) -> BTreeMap<IpNet, bool> {
    prefixes.iter().map(|(prefix, is)| (net(prefix), *is)).collect()
}

fn learned(all: &[(&str, &[&str])]) -> BTreeMap<IpAddr, BTreeSet<String>> {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    all.iter().map(|(address, all)| (address.parse().unwrap(), names(all))).collect()
}

fn labels(outside: &Outside, prefix: &str) -> String {
    let number = outside.identity(&net(prefix));
    number.map(|number| outside.allocator.labels(number).unwrap().to_string()).unwrap_or_default()
}

#[test]
fn addresses_of_equal_names_share_an_identity() {
    let mut outside = outside();
    let first = outside.change(&BTreeMap::new(), learned(&[("1.1.1.1", &["*.x", "a.x"]), ("2.2.2.2", &["a.x"])]));
    assert_eq!((first.added.len(), first.moved.len()), (2, 2));
    let more = outside.change(&BTreeMap::new(), learned(&[("1.1.1.2", &["a.x", "*.x"]), ("::2", &["a.x"])]));
    assert_eq!(outside.identity(&net("1.1.1.1/32")), outside.identity(&net("1.1.1.2/32")));
    assert_eq!(more.added.len(), 1, "the other family has a world of its own");
    assert_eq!(labels(&outside, "1.1.1.2/32"), "fqdn:*.x,fqdn:a.x,reserved:world-ipv4");
    assert_eq!(labels(&outside, "::2/128"), "fqdn:a.x,reserved:world-ipv6");
    assert_eq!(outside.change(&BTreeMap::new(), learned(&[("1.1.1.1", &["a.x", "*.x"])])), OutsideChange::default());
}

#[test]
fn an_address_has_the_longest_prefix_around_it_too() {
    let mut outside = outside();
    outside.change(&named(&[("1.0.0.0/8", true)]), learned(&[("1.1.1.1", &["a.x"])]));
    assert_eq!(labels(&outside, "1.1.1.1/32"), "cidr:1.0.0.0/8,fqdn:a.x,reserved:world-ipv4");
    let change = outside.change(&named(&[("1.1.0.0/16", true), ("1.1.1.1/32", true)]), BTreeMap::new());
    assert_eq!(labels(&outside, "1.1.1.1/32"), "cidr:1.1.1.1/32,fqdn:a.x,reserved:world-ipv4");
    assert_eq!(change.removed.len(), 1);
    outside.change(&named(&[("1.1.1.1/32", false)]), BTreeMap::new());
    assert_eq!(labels(&outside, "1.1.1.1/32"), "cidr:1.1.0.0/16,fqdn:a.x,reserved:world-ipv4");
    let change = outside.change(&BTreeMap::new(), learned(&[("1.1.1.1", &[])]));
    assert_eq!(change.moved, BTreeMap::from([(net("1.1.1.1/32"), None)]));
}

#[test]
fn a27_a_number_that_tables_may_hold_is_given_to_nobody_else() {
    let mut outside = outside();
    let gone = outside.change(&named(&[("1.0.0.0/8", true)]), BTreeMap::new()).added[0].0;
    assert_eq!(outside.change(&named(&[("1.0.0.0/8", false)]), BTreeMap::new()).removed, [gone]);
    let back = outside.change(&named(&[("1.0.0.0/8", true), ("2.0.0.0/8", true)]), BTreeMap::new());
    assert!(back.added.contains(&(gone, crate::cidr_labels(net("1.0.0.0/8"), FAMILIES))), "{back:?}");
    outside.retire();
    assert_eq!(outside.identity(&net("1.0.0.0/8")), Some(gone), "it is in use again");
}

#[test]
fn a20_numbers_survive_a_restart_with_their_labels_and_are_nobody_else_s() {
    let mut before = outside();
    before.change(&named(&[("1.0.0.0/8", true)]), learned(&[("9.9.9.9", &["a.x"]), ("9.9.9.8", &["b.x"])]));
    let held: Vec<NumericIdentity> = before.iter().map(|(_, number)| number).chain([LOCAL_CIDR + 3]).collect();
    let mut after = Outside::new(FAMILIES, &before.numbers(), held);
    after.change(&named(&[("3.0.0.0/8", true)]), learned(&[("9.9.9.9", &["b.x"]), ("9.9.9.7", &["a.x"])]));
    assert_eq!(after.identity(&net("9.9.9.9/32")), before.identity(&net("9.9.9.8/32")));
    assert_eq!(after.identity(&net("9.9.9.7/32")), before.identity(&net("9.9.9.9/32")));
    assert_eq!(after.identity(&net("3.0.0.0/8")), Some(LOCAL_CIDR + 4), "the IP cache holds the ones before");
    after.retire();
    assert_eq!(after.numbers().len(), 3, "of the prefix that nobody names any more nothing stays");
}

#[derive(Clone, Debug)]
enum Step {
    Named(usize, bool),
    Learned(usize, usize),
    Retire,
}

const PREFIXES: [&str; 6] = ["10.0.0.0/8", "10.1.0.0/16", "10.1.1.1/32", "0.0.0.0/0", "fd00::/8", "fd00::1/128"];
const ADDRESSES: [&str; 5] = ["10.1.1.1", "10.1.1.2", "10.2.0.1", "fd00::1", "fd00::2"];
const NAMES: [&str; 3] = ["a.x", "*.x", "*"];

fn steps() -> impl Strategy<Value = Vec<Vec<Step>>> {
    let step = prop_oneof![
        (0..PREFIXES.len(), any::<bool>()).prop_map(|(at, is)| Step::Named(at, is)),
        (0..ADDRESSES.len(), 0..8_usize).prop_map(|(at, names)| Step::Learned(at, names)),
        Just(Step::Retire),
    ];
    prop::collection::vec(prop::collection::vec(step, 1..4), 1..20)
}

proptest! {
    /// Changes say all that changes, labels are those of a fresh start, and equal labels are one number.
    #[test]
    fn changes_lead_where_a_fresh_start_leads(rounds in steps()) {
        let mut kept = outside();
        let mut known: HashMap<NumericIdentity, Labels> = HashMap::new();
        let mut places: BTreeMap<IpNet, NumericIdentity> = BTreeMap::new();
        let (mut all_named, mut all_learned) = (BTreeMap::new(), BTreeMap::new());
        for round in rounds {
            let (mut named, mut learned) = (BTreeMap::new(), BTreeMap::new());
            for step in round {
                match step {
                    // The world as a whole is never named.
                    Step::Named(3, _) => {}
                    Step::Named(at, is) => drop(named.insert(net(PREFIXES[at]), is)),
                    Step::Learned(at, bits) => {
                        let names = NAMES.iter().enumerate().filter(|(one, _)| bits >> one & 1 == 1);
                        let names: BTreeSet<String> = names.map(|(_, name)| (*name).to_owned()).collect();
                        learned.insert(ADDRESSES[at].parse::<IpAddr>().unwrap(), names);
                    }
                    Step::Retire => drop(kept.retire()),
                }
            }
            all_named.extend(named.clone());
            all_learned.extend(learned.clone());
            let change = kept.change(&named, learned);
            for (number, labels) in change.added {
                prop_assert!(known.insert(number, labels).is_none(), "{number} was there");
            }
            for (prefix, now) in change.moved {
                let before = match now {
                    Some(number) => places.insert(prefix, number),
                    None => places.remove(&prefix),
                };
                prop_assert!(before != now);
            }
            for number in change.removed {
                prop_assert!(known.remove(&number).is_some(), "{number} was not there");
                prop_assert!(!places.values().any(|held| *held == number));
            }
            let mut fresh = outside();
            fresh.change(&all_named, all_learned.clone());
            let told: BTreeMap<IpNet, &Labels> = places.iter().map(|(prefix, number)| (*prefix, &known[number])).collect();
            let wanted: BTreeMap<IpNet, &Labels> =
                fresh.iter().map(|(prefix, number)| (*prefix, fresh.allocator.labels(number).unwrap())).collect();
            prop_assert_eq!(told, wanted);
            let distinct: BTreeSet<&Labels> = known.values().collect();
            prop_assert_eq!(distinct.len(), known.len());
            prop_assert!(known.keys().all(|number| places.values().any(|held| held == number)), "nothing is left over");
        }
    }
}
