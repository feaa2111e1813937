//! Do addresses stand for names exactly as long as answers and connections say?
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use proptest::prelude::*;

use crate::{Answer, Cache, Limits, Source};

fn ip(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

fn answer(name: &str, addresses: &[u8], ttl: u32) -> Answer {
    Answer { name: name.to_owned(), addresses: addresses.iter().map(|last| ip(*last)).collect(), ttl }
}

fn addresses(cache: &Cache, name: &str) -> Vec<IpAddr> {
    cache.addresses(name).collect()
}

const IDLE: &dyn Fn(u32, IpAddr) -> bool = &|_, _| false;

#[test]
fn an_answer_holds_for_its_time() {
    let mut cache = Cache::new(Limits::default());
    let change = cache.learn(1, &answer("a.example", &[1, 2], 30), 100);
    assert_eq!(change.added.len(), 2);
    assert!(cache.expire(129, IDLE).is_empty());
    let change = cache.expire(130, IDLE);
    assert_eq!(change.removed.len(), 2);
    assert_eq!((addresses(&cache, "a.example"), cache.iter().count()), (vec![], 0));
    assert_eq!(cache.taken_away(), 0, "its time was over");
}

#[test]
fn a_clock_that_was_set_back_or_ahead_opens_nothing_for_longer() {
    const YEAR: u64 = 365 * 86_400;
    let mut before = Cache::new(Limits::default());
    before.learn(1, &answer("a.example", &[1], 30), 2 * YEAR);
    // Within a run time only passes. What an earlier run saved may be from any time.
    let mut behind = Cache::new(Limits::default());
    behind.restore(before.save());
    assert!(behind.expire(YEAR, IDLE).is_empty());
    assert!(behind.expire(YEAR + 29, IDLE).is_empty());
    assert_eq!(behind.expire(YEAR + 30, IDLE).removed.len(), 1);
    let mut ahead = Cache::new(Limits::default());
    ahead.restore(before.save());
    let used = |_, _| true;
    assert!(ahead.expire(3 * YEAR, &used).is_empty(), "a connection keeps its address");
    assert_eq!(ahead.expire(3 * YEAR, IDLE).removed.len(), 1);
}

#[test]
fn a_shorter_answer_does_not_shorten_an_earlier_one() {
    let mut cache = Cache::new(Limits::default());
    cache.learn(1, &answer("a.example", &[1], 300), 100);
    assert!(cache.learn(1, &answer("a.example", &[1], 5), 110).is_empty());
    assert!(cache.expire(399, IDLE).is_empty());
    assert_eq!(cache.iter().next().unwrap().ttl, 300);
}

#[test]
fn the_shortest_time_of_settings_counts() {
    let mut cache = Cache::new(Limits { min_ttl: 3600, ..Limits::default() });
    cache.learn(1, &answer("a.example", &[1], 0), 100);
    assert!(cache.expire(3699, IDLE).is_empty());
    assert_eq!(cache.expire(3700, IDLE).removed.len(), 1);
}

#[test]
fn a_connection_in_use_keeps_its_address_and_no_other() {
    let mut cache = Cache::new(Limits { grace: 60, ..Limits::default() });
    cache.learn(1, &answer("a.example", &[1, 2], 10), 100);
    let in_use = |endpoint: u32, address: IpAddr| endpoint == 1 && address == ip(1);
    assert!(cache.expire(110, &in_use).is_empty(), "the grace of the other");
    let change = cache.expire(170, &in_use);
    assert_eq!(change.removed, BTreeSet::from([("a.example".to_owned(), ip(2))]));
    let held = cache.iter().next().unwrap();
    assert_eq!((held.source, held.address), (Source::Connection, ip(1)));
    assert!(cache.expire(229, IDLE).is_empty(), "idle for less than the grace");
    assert_eq!(cache.expire(230, IDLE).removed.len(), 1);
}

#[test]
fn an_answer_comes_back_to_a_held_address() {
    let mut cache = Cache::new(Limits::default());
    cache.learn(1, &answer("a.example", &[1], 10), 100);
    cache.expire(200, &|_, _| true);
    assert!(cache.learn(1, &answer("a.example", &[1], 10), 300).is_empty());
    assert_eq!(cache.iter().next().unwrap().source, Source::Lookup);
    assert!(cache.expire(309, IDLE).is_empty());
}

#[test]
fn what_one_endpoint_lets_go_another_may_keep() {
    let mut cache = Cache::new(Limits::default());
    cache.learn(1, &answer("a.example", &[1], 10), 100);
    assert!(cache.learn(2, &answer("a.example", &[1], 99), 100).is_empty());
    assert!(cache.expire(150, IDLE).is_empty());
    assert!(cache.forget(1).is_empty());
    assert_eq!(cache.forget(2).removed.len(), 1);
}

#[test]
fn an_address_of_two_names_stays_with_the_other() {
    let mut cache = Cache::new(Limits::default());
    cache.learn(1, &answer("a.example", &[1], 10), 100);
    cache.learn(1, &answer("b.example", &[1], 99), 100);
    assert_eq!(cache.names_of(ip(1)).collect::<Vec<_>>(), ["a.example", "b.example"]);
    cache.expire(150, IDLE);
    assert_eq!(cache.names_of(ip(1)).collect::<Vec<_>>(), ["b.example"]);
    assert_eq!(cache.why(1, ip(1)).map(|found| found.expires).collect::<Vec<_>>(), [199]);
    assert_eq!(cache.why(2, ip(1)).count(), 0);
}

#[test]
fn names_addresses_and_held_ones_are_bounded() {
    let limits = Limits { addresses_per_name: 3, names: 2, held: 1, ..Limits::default() };
    let mut cache = Cache::new(limits);
    for last in 0..200u8 {
        cache.learn(1, &answer("many.example", &[last], 10 + u32::from(last)), 100);
    }
    assert_eq!(addresses(&cache, "many.example"), [ip(197), ip(198), ip(199)]);
    assert_eq!(cache.taken_away(), 197);
    cache.learn(1, &answer("b.example", &[1], 5000), 100);
    cache.learn(1, &answer("c.example", &[2], 50), 100);
    assert_eq!(cache.names().collect::<Vec<_>>(), ["b.example", "c.example"]);
    assert_eq!(cache.taken_away(), 200);
    cache.expire(9000, &|_, _| true);
    assert_eq!(cache.names().collect::<Vec<_>>(), ["b.example"], "the one whose answer ended last is held");
    assert_eq!(cache.taken_away(), 200, "connections held it");
}

#[test]
fn users_clean_by_name() {
    let mut cache = Cache::new(Limits::default());
    cache.learn(1, &answer("a.example", &[1], 10), 100);
    cache.learn(2, &answer("b.example", &[1], 10), 100);
    let change = cache.clean(|name| name == "a.example");
    assert_eq!(change.removed, BTreeSet::from([("a.example".to_owned(), ip(1))]));
    assert_eq!(cache.names().collect::<Vec<_>>(), ["b.example"]);
    cache.forget(2);
    assert_eq!(cache.taken_away(), 2);
}

#[derive(Clone, Debug)]
enum Step {
    Learn { endpoint: u32, name: u8, addresses: Vec<u8>, ttl: u32 },
    Pass { seconds: u64, used: BTreeSet<(u32, u8)> },
    Forget(u32),
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let learn = (0..3u32, 0..3u8, prop::collection::vec(0..4u8, 1..4), 0..40u32)
        .prop_map(|(endpoint, name, addresses, ttl)| Step::Learn { endpoint, name, addresses, ttl });
    let pass = (0..30u64, prop::collection::btree_set((0..3u32, 0..4u8), 0..4))
        .prop_map(|(seconds, used)| Step::Pass { seconds, used });
    prop::collection::vec(
        prop_oneof![5 => learn, 3 => pass, 1 => (0..3u32).prop_map(Step::Forget), 1 => Just(Step::Restart)],
        1..60,
    )
}

proptest! {
    /// Against the plain sentence: by endpoint, name and address, the latest end of all answers, and the last use.
    #[test]
    fn changes_add_up_to_what_a_plain_record_says(steps in steps()) {
        let limits = Limits { grace: 7, ..Limits::default() };
        let mut cache = Cache::new(limits);
        let mut plain: BTreeMap<(u32, String, IpAddr), (u64, Option<u64>)> = BTreeMap::new();
        let mut known: BTreeSet<(String, IpAddr)> = BTreeSet::new();
        let mut now = 1000u64;
        for step in steps {
            let change = match step {
                Step::Learn { endpoint, name, addresses, ttl } => {
                    let name = format!("n{name}.example");
                    for last in &addresses {
                        let entry = plain.entry((endpoint, name.clone(), ip(*last))).or_insert((0, None));
                        let end = now + u64::from(ttl);
                        *entry = (if entry.1.is_some() { end } else { entry.0.max(end) }, None);
                    }
                    cache.learn(endpoint, &answer(&name, &addresses, ttl), now)
                }
                Step::Pass { seconds, used } => {
                    now += seconds;
                    let in_use = |endpoint: u32, address: IpAddr| used.iter().any(|(e, last)| (*e, ip(*last)) == (endpoint, address));
                    plain.retain(|(endpoint, _, address), (end, held)| {
                        if *end > now {
                            return true;
                        }
                        if in_use(*endpoint, *address) {
                            *held = Some(now);
                            return true;
                        }
                        let since = *held.get_or_insert(*end);
                        since + 7 > now
                    });
                    cache.expire(now, &in_use)
                }
                Step::Forget(endpoint) => {
                    plain.retain(|(of, _, _), _| *of != endpoint);
                    cache.forget(endpoint)
                }
                Step::Restart => {
                    let text = serde_json::to_string(&cache.save()).unwrap();
                    cache = Cache::new(limits);
                    cache.restore(serde_json::from_str(&text).unwrap());
                    continue;
                }
            };
            prop_assert!(change.added.iter().all(|pair| known.insert(pair.clone())), "told twice");
            prop_assert!(change.removed.iter().all(|pair| known.remove(pair)), "was not known");
            let wanted: BTreeSet<(String, IpAddr)> = plain.keys().map(|(_, name, address)| (name.clone(), *address)).collect();
            prop_assert_eq!(&known, &wanted);
            for (name, address) in &wanted {
                prop_assert!(cache.addresses(name).any(|one| one == *address));
                prop_assert!(cache.names_of(*address).any(|one| one == name));
            }
            let entries: BTreeSet<(u32, String, IpAddr)> = cache.iter().map(|f| (f.endpoint, f.name.to_owned(), f.address)).collect();
            prop_assert_eq!(entries, plain.keys().cloned().collect::<BTreeSet<_>>());
        }
    }
}
