//! What do texts become that say they are policies?

use crds::{LIMITS, load_documents};
use labels::Labels;
use policy::{Direction, PolicyObject, Repository, Settings};

/// Reads documents, and puts the policies among them together for a few endpoints.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (documents, _) = load_documents("input.yaml", text, &LIMITS);
    let settings = Settings::default();
    let mut repository = Repository::new(settings.clone());
    for (identity, labels) in PEERS {
        repository.upsert_identity(*identity, &Labels::parse(labels.iter().copied()).unwrap());
    }
    let mut names = Vec::new();
    for document in &documents {
        match PolicyObject::from_value(&document.value, &document.source, &settings) {
            Ok(policy) => {
                let again = PolicyObject::from_value(&document.value, &document.source, &settings);
                assert_eq!(again.as_ref(), Ok(&policy), "what is read twice is the same");
                names.push(policy.reference.clone());
                repository.upsert_policy(policy);
            }
            Err(problems) => assert!(!problems.is_empty(), "a refusal says why"),
        }
    }
    for (identity, _) in PEERS {
        every_packet_has_an_answer(&mut repository, *identity);
    }
    names.iter().for_each(|name| drop(repository.remove_policy(name)));
    assert_eq!(repository.prefixes().len(), 0, "policies that are gone ask for no addresses");
}

const PEERS: &[(u32, &[&str])] = &[
    (1, &["reserved:host"]),
    (2, &["reserved:world"]),
    (256, &["k8s:app=web", "k8s:io.kubernetes.pod.namespace=default", "k8s:io.cilium.k8s.policy.cluster=default"]),
    (257, &["k8s:app=db", "k8s:io.kubernetes.pod.namespace=default", "k8s:io.cilium.k8s.policy.cluster=default"]),
    (16_777_217, &["cidr:10.0.0.0/8", "reserved:world"]),
];

fn every_packet_has_an_answer(repository: &mut Repository, subject: u32) {
    let policy = repository.subject_policy(subject).unwrap();
    for (peer, _) in PEERS {
        for direction in [Direction::Ingress, Direction::Egress] {
            for (protocol, port) in [(6, 80), (6, 0), (17, 53), (132, 65535), (1, 8), (58, 128), (47, 0)] {
                let entry = policy.verdict(*peer, direction, protocol, port);
                assert!(policy.rule_set(entry.rule_set).is_some(), "{entry:?} names no rule set");
                let open = entry.verdict == abi::policy::VERDICT_ALLOW;
                assert!(policy.error.is_none() || !open, "a policy that cannot be made lets {peer} pass");
            }
        }
    }
}
