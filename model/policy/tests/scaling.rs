//! Does what changes cost what it concerns, and not what there is besides?
//!
//! Steps are counted, not times: comparisons of selectors with identities, and allocations.
#![allow(clippy::unwrap_used)]

use counting::{Counting, allocations};
use crds::Source;
use labels::Labels;
use policy::{PolicyObject, Repository, Settings};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What something took: comparisons and allocations.
fn steps(repository: &mut Repository, work: impl FnOnce(&mut Repository)) -> (u64, u64) {
    let (compared, allocated) = (repository.comparisons(), allocations());
    work(repository);
    (repository.comparisons() - compared, allocations() - allocated)
}

const FIRST: u32 = 1000;

/// Ten versions of each app; all in one namespace, where it would be easiest to look at all of them.
fn pod(number: u32) -> Labels {
    let own = [format!("k8s:app=a{}", number / 10), format!("k8s:version=v{}", number % 10)];
    let common = ["k8s:io.kubernetes.pod.namespace=default", "k8s:io.cilium.k8s.policy.cluster=default"];
    Labels::parse(own.iter().map(String::as_str).chain(common)).unwrap()
}

fn policy(name: u32, subject: u32, peer: u32, port: u16) -> PolicyObject {
    let text = format!(
        r#"{{"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": {{"name": "p{name}", "namespace": "default"}},
        "spec": {{"endpointSelector": {{"matchLabels": {{"app": "a{subject}"}}}}, "ingress": [
        {{"fromEndpoints": [{{"matchLabels": {{"app": "a{peer}"}}}}], "toPorts": [{{"ports": [{{"port": "{port}"}}]}}]}}]}}}}"#
    );
    PolicyObject::from_value(&serde_json::from_str(&text).unwrap(), &Source::default(), &Settings::default()).unwrap()
}

/// So many pods, and so many policies for the pods of app 0.
fn repository(pods: u32, policies: u32) -> Repository {
    let mut repository = Repository::new(Settings::default());
    for number in 0..pods {
        repository.upsert_identity(FIRST + number, &pod(number));
    }
    for number in 0..policies {
        repository.upsert_policy(policy(number, 0, number % (pods / 10), 80));
    }
    repository.subject_policy(FIRST).unwrap();
    repository
}

/// Cost with few and with many; `most` times as much is allowed for twenty times as many or more.
fn check(what: &str, few: (u64, u64), many: (u64, u64), most: f64) {
    let grown = |few: u64, many: u64| many as f64 / few.max(1) as f64;
    let (compared, allocated) = (grown(few.0, many.0), grown(few.1, many.1));
    assert!(compared <= most && allocated <= most, "{what}: {few:?} steps became {many:?}");
}

#[test]
fn an_identity_costs_the_same_among_few_and_many() {
    let cost = |pods: u32| {
        let mut repository = repository(pods, 20);
        steps(&mut repository, |repository| {
            let come = repository.upsert_identity(FIRST + pods + 1, &pod(5));
            let gone = repository.remove_identity(FIRST + pods + 1);
            assert_eq!((come.tables.len(), gone.tables.len()), (1, 1), "it is a peer of the subject");
        })
    };
    check("an identity", cost(200), cost(4_000), 1.2);
}

#[test]
fn an_identity_costs_the_same_with_few_and_many_rules() {
    let cost = |policies: u32| {
        let mut repository = repository(4_000, policies);
        steps(&mut repository, |repository| {
            repository.upsert_identity(FIRST - 1, &pod(5));
            repository.remove_identity(FIRST - 1);
        })
    };
    check("an identity", cost(15), cost(400), 1.2);
}

#[test]
fn a_selector_that_is_new_asks_those_that_have_its_rarest_label() {
    let cost = |pods: u32| {
        let mut repository = repository(pods, 1);
        steps(&mut repository, |repository| drop(repository.upsert_policy(policy(9, 7, 3, 80))))
    };
    let (few, many) = (cost(200), cost(4_000));
    assert_eq!(many.0, 10, "ten pods have the label");
    check("a policy", few, many, 1.2);
}

#[test]
fn a_policy_costs_its_tables_once_for_all_who_have_the_same_rules() {
    let cost = |subjects: u32| {
        let mut repository = repository(1_000, 0);
        for number in 0..subjects {
            repository
                .upsert_identity(FIRST + 5_000 + number, &pod(7).with([labels::Label::k8s("n", number.to_string())]));
            repository.subject_policy(FIRST + 5_000 + number).unwrap();
        }
        for number in 0..50 {
            repository.upsert_policy(policy(number, 0, number, 80));
        }
        steps(&mut repository, |repository| {
            let change = repository.upsert_policy(policy(99, 0, 3, 81));
            assert_eq!(change.tables.len(), subjects as usize + 1);
        })
    };
    // A change for each subject is told, which takes a little; the tables, which take most, are made once.
    check("a policy", cost(10), cost(1_000), 12.0);
}

#[test]
fn tables_grow_with_the_rules_and_not_with_their_square() {
    let cost = |policies: u32| {
        let mut repository = repository(4_000, policies);
        repository.release_subject(FIRST);
        steps(&mut repository, |repository| drop(repository.subject_policy(FIRST)))
    };
    check("ten times as many rules", cost(40), cost(400), 11.0);
}
