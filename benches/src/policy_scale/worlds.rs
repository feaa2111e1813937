//! Which identities and policies are measured?

use std::sync::Arc;

use crds::Source;
use identity::NumericIdentity;
use labels::{CLUSTER, Label, Labels, POD_NAMESPACE, Selector, source};
use policy::{
    Direction, Effect, Peer, PolicyKind, PolicyObject, PolicyRef, PortRange, PortSpec, Ports, Repository, Rule,
    RuleOrigin, Settings, Subject, Tier, protocol,
};

/// The number of the first pod's identity.
pub const FIRST: NumericIdentity = 256;
/// Pods of one app differ by their version.
const VERSIONS: u32 = 10;
/// Apps of one namespace.
const APPS: u32 = 10;

/// The label of a namespace that is its name, as pods have it.
const NAMESPACE_NAME: &str = "io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name";

/// How a selector asks for pods of a namespace and an app.
pub type Form = fn(&str, &str) -> Selector;

/// The number of the identity that has policies.
pub const SUBJECT: NumericIdentity = 200;

/// Labels as a pod has them, of an app and a version in a namespace.
pub fn pod(namespace: &str, app: &str, version: u32) -> Labels {
    Labels::new([
        Label::k8s("app", app),
        Label::k8s("version", format!("v{version}")),
        Label::k8s(POD_NAMESPACE, namespace),
        Label::k8s(CLUSTER, "default"),
        Label::k8s("io.cilium.k8s.policy.serviceaccount", "default"),
        Label::k8s(NAMESPACE_NAME, namespace),
    ])
}

/// One of many pods: ten versions of each of ten apps in each namespace.
pub fn one_of_many(number: u32) -> Labels {
    let app = number / VERSIONS;
    pod(&format!("ns{}", app / APPS), &format!("app{}", app % APPS), number % VERSIONS)
}

/// A repository that knows so many pods, and the subject.
pub fn repository(identities: u32) -> Repository {
    let mut repository = Repository::new(Settings::default());
    repository.upsert_identity(SUBJECT, &pod("web", "web", 0));
    for number in 0..identities {
        repository.upsert_identity(FIRST + number, &one_of_many(number));
    }
    repository
}

/// Pods of an app in a namespace, by labels.
pub fn app(namespace: &str, app: &str) -> Selector {
    let selector = Selector::everything().and_label(source::K8S, "app", app);
    let selector = selector.and_label(source::K8S, POD_NAMESPACE, namespace);
    selector.and_label(source::K8S, CLUSTER, "default")
}

/// The same by the labels of their namespaces: such a selector asks pods of all of them.
pub fn app_of_labelled(namespace: &str, app: &str) -> Selector {
    let selector = Selector::everything().and_label(source::K8S, "app", app);
    let selector = selector.and_label(source::K8S, NAMESPACE_NAME, namespace);
    selector.and_label(source::K8S, CLUSTER, "default")
}

/// A policy that lets one app of many come to the subject's own port: each selects ten identities.
pub fn for_subject(number: u32, identities: u32) -> PolicyObject {
    letting_in(number, identities, app)
}

/// The same with peers of another form.
pub fn letting_in(number: u32, identities: u32, form: Form) -> PolicyObject {
    let app_number = number % (identities / VERSIONS).max(1);
    let peer = form(&format!("ns{}", app_number / APPS), &format!("app{}", app_number % APPS));
    allowing("web", &format!("p{number}"), app("web", "web"), peer, 1024 + (number % 16) as u16)
}

/// A policy with one rule: this peer may come to the subject's TCP port.
pub fn allowing(namespace: &str, name: &str, subject: Selector, peer: Selector, port: u16) -> PolicyObject {
    let reference =
        PolicyRef { kind: PolicyKind::CiliumNetworkPolicy, namespace: namespace.to_owned(), name: name.to_owned() };
    let origin = RuleOrigin {
        policy: reference.clone(),
        direction: Direction::Ingress,
        deny: false,
        spec: 0,
        index: 0,
        line: 0,
        labels: Labels::empty(),
        log: String::new(),
        uid: String::new(),
    };
    let rule = Rule {
        origin: Arc::new(origin),
        subject: Subject::Endpoints(subject),
        direction: Direction::Ingress,
        tier: Tier::Normal,
        priority: 0,
        effect: Effect::Allow,
        auth: None,
        default_deny: true,
        peers: Peer::of_selector(peer),
        ports: Ports::Some(vec![PortSpec::new(protocol::TCP, PortRange::Numbers(port, port))]),
    };
    PolicyObject {
        reference,
        uid: String::new(),
        resource_version: String::new(),
        source: Source::default(),
        rules: vec![rule],
        warnings: Vec::new(),
    }
}
