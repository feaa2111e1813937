//! What does it cost to put policies together, and to follow what changes, in the agent's memory alone?

mod worlds;

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use policy::{Direction, Repository};

use crate::report::{Demand, Figure, Row, whole};
use crate::stats::{median, paired_ratio};

use worlds::{FIRST, Form, SUBJECT, allowing, app, app_of_labelled, for_subject, letting_in, one_of_many, repository};

/// What the field's own engine takes for 1,000 rules that select by labels of namespaces, and 10,000 identities, measured
/// on the same kind of machine: µs.
const FIELD_COLD: f64 = 320_000.0;
const FIELD_WARM: f64 = 5_400.0;

/// What is asked of us there, and wherever as many rules select among as many identities: µs.
const COLD: Demand = Demand::AtMost(3_500.0);
const WARM: Demand = Demand::AtMost(800.0);

/// Policies of several sizes over several numbers of identities: loaded and put together for one subject.
pub fn load(rounds: usize) -> Result<Vec<Row>> {
    let mut rows = vec![];
    for identities in [1_000, 10_000, 50_000] {
        for rules in [10, 1_000, 5_000] {
            let rounds = if rules > 1_000 { rounds.min(5) } else { rounds };
            let name = format!("{} rules × {} identities", whole(rules.into()), whole(identities.into()));
            let [mut first, mut again] = both(&name, &cold_and_warm(rules, identities, app, rounds)?);
            if (rules, identities) == (1_000, 10_000) {
                (first, again) = (first.goal(9, COLD), again.goal(9, WARM));
            }
            rows.extend([first, again]);
        }
    }
    let name = "1,000 rules × 10,000 identities, by labels of namespaces";
    let [first, again] = both(name, &cold_and_warm(1_000, 10_000, app_of_labelled, rounds)?);
    let against = |row: Row, field: f64| {
        let ratio = Figure::Ratio(row.value / field);
        row.against("Cilium", field, ratio)
    };
    rows.push(against(first, FIELD_COLD).goal(9, Demand::AtMost(0.01)));
    rows.push(against(again, FIELD_WARM).goal(9, Demand::AtMost(0.1)));
    Ok(rows)
}

fn both(name: &str, (cold, warm): &(Vec<f64>, Vec<f64>)) -> [Row; 2] {
    [
        Row::of("policies", format!("{name}: added and put together"), cold, "µs"),
        Row::of("policies", format!("{name}: put together again"), warm, "µs"),
    ]
}

/// µs for adding the rules one by one and asking for the subject's tables; and for making these tables again.
fn cold_and_warm(rules: u32, identities: u32, form: Form, rounds: usize) -> Result<(Vec<f64>, Vec<f64>)> {
    let mut repository = repository(identities);
    let (mut cold, mut warm) = (vec![], vec![]);
    for _ in 0..rounds {
        let policies: Vec<_> = (0..rules).map(|number| letting_in(number, identities, form)).collect();
        let names: Vec<_> = policies.iter().map(|policy| policy.reference.clone()).collect();
        let start = Instant::now();
        policies.into_iter().for_each(|policy| drop(repository.upsert_policy(policy)));
        let made = repository.subject_policy(SUBJECT).context("the subject is known")?;
        cold.push(micros(start));
        let expected = rules.min(identities / 10) as usize * 10;
        ensure!(made.classes.len() == expected, "{} of {expected} peers have classes", made.classes.len());
        let allowed = made.verdict(FIRST, Direction::Ingress, 6, 1024);
        ensure!(allowed.verdict == abi::policy::VERDICT_ALLOW, "the first peer is not allowed: {allowed:?}");
        drop(made);
        repository.release_subject(SUBJECT);
        let start = Instant::now();
        let made = repository.subject_policy(SUBJECT);
        warm.push(micros(start));
        drop(made);
        repository.release_subject(SUBJECT);
        names.iter().for_each(|name| drop(repository.remove_policy(name)));
    }
    Ok((cold, warm))
}

/// An identity comes and goes, that rules select; and one policy for many endpoints changes.
pub fn changes(rounds: usize) -> Result<Vec<Row>> {
    const RULES: u32 = 1_000;
    const KNOWN: [u32; 2] = [1_000, 1_000_000];
    const CHURN: u32 = 200;
    let mut times = [vec![], vec![]];
    let mut repositories = vec![];
    for known in KNOWN {
        let mut repository = repository(known);
        (0..RULES).for_each(|number| drop(repository.upsert_policy(for_subject(number, 1_000))));
        repository.subject_policy(SUBJECT).context("the subject is known")?;
        repositories.push(repository);
    }
    let fresh: Vec<_> =
        (0..CHURN).map(|number| one_of_many(number).with([labels::Label::k8s("canary", "yes")])).collect();
    for _ in 0..rounds {
        for (repository, times) in repositories.iter_mut().zip(&mut times) {
            let start = Instant::now();
            for (number, labels) in (0..).zip(&fresh) {
                let identity = FIRST + KNOWN[1] + number;
                let come = repository.upsert_identity(identity, labels);
                let gone = repository.remove_identity(identity);
                ensure!((come.tables.len(), gone.tables.len()) == (1, 1), "one table of one subject changes");
            }
            times.push(micros(start) / f64::from(CHURN));
        }
    }
    let [few, many] = times;
    let grown = Figure::Ratio(paired_ratio(&many, &few));
    let mut rows = vec![
        Row::of("churn", "an identity comes and goes among 1,000, engine alone, 1,000 rules", &few, "µs")
            .goal(10, Demand::AtMost(20.0)),
        Row::of("churn", "the same among 1,000,000", &many, "µs")
            .against("1,000", median(&few), grown)
            .goal(10, Demand::AtMost(1.2)),
    ];
    rows.push(one_policy(rounds)?);
    Ok(rows)
}

/// One policy that selects 1,000 subjects changes: ms until all their tables are there.
fn one_policy(rounds: usize) -> Result<Row> {
    const SUBJECTS: u32 = 1_000;
    let mut repository = repository(10_000);
    let everybody = || labels::Selector::everything().and_label(labels::source::K8S, labels::CLUSTER, "default");
    for number in 0..100 {
        let peer = app(&format!("ns{number}"), "app3");
        repository.upsert_policy(allowing("", &format!("base{number}"), everybody(), peer, 80));
    }
    for number in 0..SUBJECTS {
        repository.subject_policy(FIRST + number).context("the subject is known")?;
    }
    let mut times = vec![];
    for round in 0..rounds as u16 {
        let policy = allowing("", "changing", everybody(), app("ns7", "app7"), 1000 + round);
        let start = Instant::now();
        let change = repository.upsert_policy(policy);
        times.push(micros(start) / 1000.0);
        ensure!(change.tables.len() == SUBJECTS as usize, "{} tables changed", change.tables.len());
    }
    let what = "one policy of 101 changes for 1,000 endpoints of as many identities, engine alone";
    Ok(Row::of("churn", what, &times, "ms").goal(11, Demand::AtMost(8.0)))
}

/// What policies and identities take in memory, and a large cluster's all at once.
pub fn sizes() -> Result<Vec<Row>> {
    let mut rows = vec![million()];
    let empty = in_use();
    let mut known = repository(50_000);
    let of_identities = in_use() - empty;
    (0..5_000).for_each(|number| drop(known.upsert_policy(for_subject(number, 50_000))));
    let of_rules = in_use() - empty - of_identities;
    known.subject_policy(SUBJECT).context("the subject is known")?;
    let of_subject = in_use() - empty - of_identities - of_rules;
    drop(known);
    rows.extend([
        Row::new("footprint", "memory for each identity, of 50,000", of_identities / 50_000.0, "bytes"),
        Row::new(
            "footprint",
            "memory for each rule that selects ten identities, of 5,000",
            of_rules / 5_000.0,
            "bytes",
        ),
        Row::new("footprint", "memory of one subject's tables of these 5,000 rules", of_subject / 1024.0, "KiB"),
    ]);
    rows.extend(cluster()?);
    Ok(rows)
}

/// As many endpoints as identities, the worst case: none shares what is known of it.
fn million() -> Row {
    let empty = in_use();
    let known = repository(1_000_000);
    let each = (in_use() - empty) / 1e6;
    drop(known);
    Row::new("footprint", "memory for each of 1,000,000 endpoints with an identity of its own", each, "bytes")
        .goal(17, Demand::AtMost(1024.0))
}

/// 25,000 namespaces of four pods (two apps, two pods each) and three policies each.
fn cluster() -> Result<Vec<Row>> {
    const NAMESPACES: u32 = 25_000;
    let pods: Vec<_> = (0..NAMESPACES)
        .flat_map(|number| ["front", "back"].map(|app| worlds::pod(&format!("ns{number}"), app, 0)))
        .collect();
    let policies: Vec<_> = (0..NAMESPACES).flat_map(of_namespace).collect();
    let empty = in_use();
    let start = Instant::now();
    let mut repository = Repository::new(policy::Settings::default());
    for (number, labels) in (0..).zip(&pods) {
        // Two pods have these labels: the second is known already.
        repository.upsert_identity(FIRST + number, labels);
        repository.upsert_identity(FIRST + number, labels);
    }
    policies.into_iter().for_each(|policy| drop(repository.upsert_policy(policy)));
    for number in 0..pods.len() as u32 {
        for _ in 0..2 {
            let made = repository.subject_policy(FIRST + number).context("the subject is known")?;
            ensure!(made.ingress_enforced, "every pod is selected");
        }
    }
    let took = start.elapsed().as_secs_f64();
    let each = (in_use() - empty) / f64::from(4 * NAMESPACES);
    Ok(vec![
        Row::new("footprint", "100,000 pods × 75,000 policies: all tables of all pods", took, "s")
            .goal(17, Demand::AtMost(0.6)),
        Row::new("footprint", "memory for each of these pods: its part of policies, labels and tables", each, "bytes"),
    ])
}

fn of_namespace(number: u32) -> [policy::PolicyObject; 3] {
    let namespace = format!("ns{number}");
    let own = |name: &str| app(&namespace, name);
    let everybody = labels::Selector::everything().and_label(labels::source::K8S, labels::POD_NAMESPACE, &namespace);
    [
        allowing(&namespace, "front", own("front"), own("back"), 8080),
        allowing(&namespace, "back", own("back"), own("front"), 9090),
        allowing(&namespace, "all", everybody, app("monitoring", "prometheus"), 9100),
    ]
}

/// Bytes that the allocator has given out.
fn in_use() -> f64 {
    // SAFETY: it reads counters.
    let now = unsafe { libc::mallinfo2() };
    (now.uordblks + now.hblkhd) as f64
}

fn micros(since: Instant) -> f64 {
    since.elapsed().as_nanos() as f64 / 1e3
}
