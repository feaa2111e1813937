//! Which policy, and which rule of it, decided?

use std::fmt;
use std::sync::Arc;

use abi::policy::{DIR_EGRESS, DIR_INGRESS};
use labels::Labels;

use crate::redirect::Redirect;
use crate::rule::Auth;

/// The kinds of policies.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum PolicyKind {
    /// `cilium.io/v2`, for pods of a namespace.
    CiliumNetworkPolicy,
    /// `cilium.io/v2`, for all pods or for nodes.
    CiliumClusterwideNetworkPolicy,
    /// `networking.k8s.io/v1`
    NetworkPolicy,
    /// `policy.networking.k8s.io/v1alpha2`
    ClusterNetworkPolicy,
}

impl PolicyKind {
    /// As `kind:` has it.
    pub fn name(self) -> &'static str {
        match self {
            PolicyKind::CiliumNetworkPolicy => "CiliumNetworkPolicy",
            PolicyKind::CiliumClusterwideNetworkPolicy => "CiliumClusterwideNetworkPolicy",
            PolicyKind::NetworkPolicy => "NetworkPolicy",
            PolicyKind::ClusterNetworkPolicy => "ClusterNetworkPolicy",
        }
    }
}

impl fmt::Display for PolicyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The name of a policy. A policy replaces another one of the same name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PolicyRef {
    /// Its kind.
    pub kind: PolicyKind,
    /// Its namespace; empty for clusterwide ones.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// `CiliumNetworkPolicy default/allow-to-dns`
impl fmt::Display for PolicyRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.as_str() {
            "" => write!(f, "{} {}", self.kind, self.name),
            namespace => write!(f, "{} {namespace}/{}", self.kind, self.name),
        }
    }
}

/// Direction of traffic, seen from the endpoint that the policy is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Direction {
    /// Into the endpoint.
    Ingress,
    /// Out of the endpoint.
    Egress,
}

impl Direction {
    /// Both.
    pub const BOTH: [Direction; 2] = [Direction::Ingress, Direction::Egress];

    /// As the tables have it.
    pub fn number(self) -> u8 {
        match self {
            Direction::Ingress => DIR_INGRESS,
            Direction::Egress => DIR_EGRESS,
        }
    }

    /// `ingress` or `egress`.
    pub fn name(self) -> &'static str {
        match self {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        }
    }
}

/// A rule of a policy.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RuleOrigin {
    /// The policy.
    pub policy: PolicyRef,
    /// The policy object's uid; empty if it has none.
    pub uid: String,
    /// The section that the rule is in.
    pub direction: Direction,
    /// True for ingressDeny and egressDeny, and for rules whose action is Deny.
    pub deny: bool,
    /// Which of the policy's specs: 0 is `spec`, or the first of `specs` if there is none.
    pub spec: usize,
    /// Which rule of the section.
    pub index: usize,
    /// Labels of the rule: where it comes from, and what its author wrote.
    pub labels: Labels,
    /// What flows say that it decided.
    pub log: String,
    /// The line of its file that it begins at; 0 if that is not known.
    pub line: usize,
}

impl RuleOrigin {
    /// Name of the section that the rule is in.
    pub fn section(&self) -> &'static str {
        let own_section =
            matches!(self.policy.kind, PolicyKind::CiliumNetworkPolicy | PolicyKind::CiliumClusterwideNetworkPolicy);
        match (self.direction, self.deny && own_section) {
            (Direction::Ingress, false) => "ingress",
            (Direction::Ingress, true) => "ingressDeny",
            (Direction::Egress, false) => "egress",
            (Direction::Egress, true) => "egressDeny",
        }
    }
}

/// `CiliumNetworkPolicy default/allow-to-dns egress[0]`
impl fmt::Display for RuleOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}[{}]", self.policy, self.section(), self.index)
    }
}

/// What decides where no rule of a policy does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Implicit {
    /// The direction is not enforced.
    NotEnforced,
    /// Rules select the endpoint, and none of them closes it.
    AllowAny(Direction),
    /// The own node reaches its pods.
    AllowLocalhost,
    /// Nothing allows it.
    DefaultDeny,
    /// Nothing allows it, where some rule passes traffic on to this one.
    DenyAny(Direction),
}

impl Implicit {
    /// As users see it in place of a policy's name.
    pub fn name(self) -> &'static str {
        match self {
            Implicit::NotEnforced => "not-enforced",
            Implicit::AllowAny(Direction::Ingress) => "allow-any-ingress",
            Implicit::AllowAny(Direction::Egress) => "allow-any-egress",
            Implicit::AllowLocalhost => "allow-localhost-ingress",
            Implicit::DefaultDeny => "default-deny",
            Implicit::DenyAny(Direction::Ingress) => "deny-any-ingress",
            Implicit::DenyAny(Direction::Egress) => "deny-any-egress",
        }
    }
}

/// The rules that one entry of the tables stands for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RuleSet {
    /// Number in the tables; 0 where no policy is enforced. One number means one set for the life of a repository.
    pub id: u32,
    /// Set where no rule allowed or denied.
    pub implicit: Option<Implicit>,
    /// The rules that contribute, sorted; with a default denial, those that closed the endpoint.
    pub rules: Arc<[Arc<RuleOrigin>]>,
    /// Proof that is asked for.
    pub auth: Auth,
    /// True if a rule says so itself, and not a wider one.
    pub auth_explicit: bool,
    /// What the proxy asks, if the traffic goes there.
    pub redirects: Arc<[Arc<Redirect>]>,
}

impl RuleSet {
    /// No rules: no policy is enforced.
    pub fn none() -> Self {
        RuleSet {
            id: 0,
            implicit: Some(Implicit::NotEnforced),
            rules: Arc::from([]),
            auth: Auth::Disabled,
            auth_explicit: false,
            redirects: Arc::from([]),
        }
    }

    /// The policies of the rules, each once.
    pub fn policies(&self) -> Vec<&PolicyRef> {
        let mut policies: Vec<&PolicyRef> = self.rules.iter().map(|rule| &rule.policy).collect();
        policies.dedup();
        policies
    }

    /// True if the rules are those that closed the endpoint, and not those that decided.
    pub fn is_default_denial(&self) -> bool {
        matches!(self.implicit, Some(Implicit::DefaultDeny | Implicit::DenyAny(_)))
    }
}
