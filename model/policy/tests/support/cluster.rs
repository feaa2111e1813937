//! Who reaches whom in a cluster with these policies?
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use abi::policy::{VERDICT_ALLOW, VERDICT_DEFAULT_DENY, VERDICT_DENY, VERDICT_REDIRECT};
use identity::{NumericIdentity, Outside, OutsideChange, candidates, reserved_labels};
use labels::{LabelFilter, Labels, Workload, workload_labels};
use policy::{Change, Direction, PolicyObject, Repository, RuleSet, Settings, protocol};

/// A cluster: pods and nodes by name, and the policies that are applied.
pub struct Cluster {
    pub repository: Repository,
    outside: Outside,
    names: BTreeMap<String, NumericIdentity>,
}

/// The objects of a file below `tests/data`, as JSON values.
#[allow(clippy::disallowed_methods)] // tests read their files
pub fn data(path: &str) -> Vec<crds::Document> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(path);
    let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let (documents, problems) = crds::load_documents(path, &text, &crds::LIMITS);
    assert_eq!(problems, [], "{path}");
    documents
}

/// The policies of a text.
pub fn read(text: &str, settings: &Settings) -> Result<Vec<PolicyObject>, Vec<crds::Problem>> {
    let (documents, problems) = crds::load_documents("test", text, &crds::LIMITS);
    assert_eq!(problems, []);
    documents.iter().map(|one| PolicyObject::from_value(&one.value, &one.source, settings)).collect()
}

/// What is wrong with a text, one line for each.
pub fn wrong(text: &str) -> Vec<String> {
    let problems = read(text, &Settings::default()).expect_err("the policy is wrong");
    problems.iter().map(ToString::to_string).collect()
}

/// A policy of namespace a whose subjects are all of its pods.
pub fn cnp(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: {name}, namespace: a}}\nspec: {{endpointSelector: {{}}, {spec}}}\n"
    )
}

/// A policy of the whole cluster.
pub fn ccnp(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"
    )
}

impl Cluster {
    pub fn new(settings: Settings) -> Self {
        let outside = Outside::new(settings.families, &BTreeMap::new(), []);
        let mut cluster = Cluster { repository: Repository::new(settings), outside, names: BTreeMap::new() };
        for (name, number) in [
            ("host", 1),
            ("world", 2),
            ("unmanaged", 3),
            ("health", 4),
            ("init", 5),
            ("remote-node", 6),
            ("kube-apiserver", 7),
            ("ingress", 8),
        ] {
            cluster.named(name, number, &reserved_labels(number).expect("a reserved identity"));
        }
        cluster
    }

    pub fn default_mode() -> Self {
        Cluster::new(Settings::default())
    }

    /// A pod: `namespace/name`, `key=value` labels.
    pub fn pod(self, name: &str, labels: &[&str]) -> Self {
        self.pod_with(name, labels, "default", &[])
    }

    pub fn pod_with(mut self, name: &str, labels: &[&str], account: &str, namespace_labels: &[&str]) -> Self {
        let map = |texts: &[&str]| -> BTreeMap<String, String> {
            let pair = |text: &&str| text.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
            texts.iter().filter_map(pair).collect()
        };
        let (namespace, _) = name.split_once('/').expect("namespace/name");
        let metadata = format!("kubernetes.io/metadata.name={namespace}");
        let namespace_labels: Vec<&str> = namespace_labels.iter().copied().chain([metadata.as_str()]).collect();
        let workload = Workload {
            labels: &map(labels),
            namespace,
            namespace_labels: &map(&namespace_labels),
            service_account: account,
            cluster: &self.repository.settings().cluster_name.clone(),
        };
        let labels = workload_labels(&workload, &LabelFilter::default());
        let known = self.repository.identities().find(|(_, known)| **known == labels).map(|(number, _)| number);
        let taken: Vec<NumericIdentity> = self.names.values().copied().collect();
        let free = || candidates(&labels).find(|number| !taken.contains(number)).expect("a free number");
        let number = known.unwrap_or_else(free);
        self.named(name, number, &labels);
        self
    }

    fn named(&mut self, name: &str, number: NumericIdentity, labels: &Labels) {
        self.names.insert(name.to_owned(), number);
        let change = self.repository.upsert_identity(number, labels);
        self.take(change);
    }

    /// Applies the policies of files below `tests/data`.
    pub fn apply(&mut self, files: &[&str]) {
        for document in files.iter().flat_map(|file| data(file)) {
            let read = PolicyObject::from_value(&document.value, &document.source, self.repository.settings());
            let policy = read.unwrap_or_else(|problems| panic!("{problems:?}"));
            let change = self.repository.upsert_policy(policy);
            self.take(change);
        }
    }

    /// Applies the policies of a text.
    pub fn apply_text(&mut self, text: &str) {
        for policy in read(text, &self.repository.settings().clone()).unwrap_or_else(|problems| panic!("{problems:?}"))
        {
            let change = self.repository.upsert_policy(policy);
            self.take(change);
        }
    }

    /// Does what a change asks for.
    pub fn take(&mut self, change: Change) {
        let added = change.prefixes_added.into_iter().map(|prefix| (prefix, true));
        let named = added.chain(change.prefixes_removed.into_iter().map(|prefix| (prefix, false))).collect();
        let change = self.outside.change(&named, BTreeMap::new());
        self.take_outside(change);
    }

    /// An address was learned for these names and patterns of policies, and for no others.
    pub fn learn(&mut self, address: &str, names: &[&str]) {
        let address: IpAddr = address.parse().expect("an address");
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let change = self.outside.change(&BTreeMap::new(), BTreeMap::from([(address, names)]));
        self.take_outside(change);
    }

    fn take_outside(&mut self, change: OutsideChange) {
        for (number, labels) in change.added {
            self.repository.upsert_identity(number, &labels);
        }
        for number in change.removed {
            self.repository.remove_identity(number);
        }
        self.outside.retire();
    }

    /// The identity of a name or an address.
    pub fn identity(&self, name: &str) -> NumericIdentity {
        if let Some(number) = self.names.get(name) {
            return *number;
        }
        let address: IpAddr = name.parse().unwrap_or_else(|_| panic!("nobody is called {name}"));
        let around = self.outside.iter().filter(|(prefix, _)| prefix.contains(&address));
        around.max_by_key(|(prefix, _)| prefix.prefix_len()).map_or(2, |(_, number)| number)
    }

    /// In which directions a pod is enforced.
    pub fn enforced(&mut self, pod: &str) -> (bool, bool) {
        let policy = self.repository.subject_policy(self.identity(pod)).expect("a known pod");
        (policy.ingress_enforced, policy.egress_enforced)
    }

    /// The answer of one end: `allow`, `redirect`, `open` (to a proxy that lets all pass), `none` or `deny`, with the
    /// rule set.
    pub fn answer(
        &mut self,
        subject: &str,
        direction: Direction,
        peer: &str,
        protocol: u8,
        port: u16,
    ) -> (&'static str, RuleSet) {
        let policy = self.repository.subject_policy(self.identity(subject)).expect("a known pod");
        let entry = policy.verdict(self.identity(peer), direction, protocol, port);
        let rule_set = policy.rule_set(entry.rule_set).expect("a rule set of the tables").clone();
        let verdict = match entry.verdict {
            VERDICT_ALLOW => "allow",
            VERDICT_REDIRECT if rule_set.redirects.iter().any(|one| one.is_open()) => "open",
            VERDICT_REDIRECT => "redirect",
            VERDICT_DENY => "deny",
            VERDICT_DEFAULT_DENY => "none",
            other => panic!("verdict {other}"),
        };
        (verdict, rule_set)
    }

    pub fn egress(&mut self, from: &str, to: &str, port: u16) -> &'static str {
        self.answer(from, Direction::Egress, to, protocol::TCP, port).0
    }

    pub fn ingress(&mut self, from: &str, to: &str, port: u16) -> &'static str {
        self.answer(to, Direction::Ingress, from, protocol::TCP, port).0
    }

    pub fn egress_by(&mut self, from: &str, to: &str, protocol: u8, port: u16) -> &'static str {
        self.answer(from, Direction::Egress, to, protocol, port).0
    }

    /// `ok`, or which end keeps a TCP connection from a pod to a pod out.
    pub fn connect(&mut self, from: &str, to: &str, port: u16) -> &'static str {
        match (self.egress(from, to, port), self.ingress(from, to, port)) {
            ("allow", "allow") => "ok",
            ("allow", _) => "ingress",
            _ => "egress",
        }
    }
}
