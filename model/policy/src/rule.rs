//! What does one rule of a policy say, read and checked?

use std::sync::Arc;

use labels::Selector;

use crate::origin::{Direction, PolicyRef, RuleOrigin};
use crate::peer::Peer;

/// Whom a rule is for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Subject {
    /// Endpoints by labels.
    Endpoints(Selector),
    /// Nodes by labels.
    Nodes(Selector),
}

/// What a rule does to the traffic that it speaks of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Effect {
    /// Lets it pass.
    Allow,
    /// Keeps it out, whatever allows it.
    Deny,
    /// Leaves it to the rules of the next tier.
    Pass,
}

/// The layers of rules: what a higher one decides, a lower one is not asked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Tier {
    /// ClusterNetworkPolicy, tier Admin.
    Admin,
    /// CiliumNetworkPolicy, CiliumClusterwideNetworkPolicy and NetworkPolicy.
    Normal,
    /// ClusterNetworkPolicy, tier Baseline.
    Baseline,
    /// What holds in the absence of rules.
    Default,
}

impl Tier {
    /// As users know it.
    pub fn name(self) -> &'static str {
        match self {
            Tier::Admin => "admin",
            Tier::Normal => "normal",
            Tier::Baseline => "baseline",
            Tier::Default => "default",
        }
    }
}

/// Whether both sides must prove who they are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Auth {
    /// They need not.
    #[default]
    Disabled,
    /// By certificates of SPIFFE.
    Spire,
    /// It always fails, for tests.
    AlwaysFail,
}

impl Auth {
    /// As the datapath's users know it.
    pub fn name(self) -> &'static str {
        match self {
            Auth::Disabled => "disabled",
            Auth::Spire => "spire",
            Auth::AlwaysFail => "always-fail",
        }
    }
}

/// One rule: a direction, peers and ports.
#[derive(Clone, PartialEq, Debug)]
pub struct Rule {
    /// Where it stands.
    pub origin: Arc<RuleOrigin>,
    /// Whom it is for.
    pub subject: Subject,
    /// The direction of the traffic.
    pub direction: Direction,
    /// The layer that it is in.
    pub tier: Tier,
    /// Its place within the layer: lower numbers are asked first.
    pub priority: u32,
    /// What it does.
    pub effect: Effect,
    /// What it says of proof; `None` if nothing.
    pub auth: Option<Auth>,
    /// True if it closes its subjects in this direction.
    pub default_deny: bool,
    /// The peers; none of them: the rule speaks of no traffic.
    pub peers: Vec<Peer>,
    /// The ports.
    pub ports: Ports,
}

/// Which ports a rule speaks of.
#[derive(Clone, PartialEq, Debug)]
pub enum Ports {
    /// Every protocol and port.
    All,
    /// These; none: the rule speaks of no traffic.
    Some(Vec<PortSpec>),
}

/// IP protocol numbers.
pub mod protocol {
    /// ICMP
    pub const ICMP: u8 = 1;
    /// TCP
    pub const TCP: u8 = 6;
    /// UDP
    pub const UDP: u8 = 17;
    /// ICMPv6
    pub const ICMPV6: u8 = 58;
    /// SCTP
    pub const SCTP: u8 = 132;
    /// What `ANY` stands for.
    pub const WITH_PORTS: [u8; 3] = [TCP, UDP, SCTP];
}

/// Ports of one protocol.
#[derive(Clone, PartialEq, Debug)]
pub struct PortSpec {
    /// IP protocol number.
    pub protocol: u8,
    /// The ports; of ICMP and ICMPv6, the message types.
    pub range: PortRange,
    /// The end of the range as it is written; 0 if there is none. Rules add up only where they write ports alike.
    pub written_end: u16,
    /// What is asked at the application's level: the proxy decides.
    pub l7: Option<Arc<L7>>,
}

impl PortSpec {
    /// Ports of a protocol, with nothing that is asked on them.
    pub fn new(protocol: u8, range: PortRange) -> Self {
        PortSpec { protocol, range, written_end: 0, l7: None }
    }
}

/// Some ports.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum PortRange {
    /// All of the protocol.
    All,
    /// From one to another, both included.
    Numbers(u16, u16),
    /// Those that have this name: at ingress the subject's, at egress the peer's.
    Named(String),
}

/// What is asked at the application's level.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct L7 {
    /// HTTP and DNS rules.
    pub rules: Option<crds::L7Rules>,
    /// Server names that TLS clients may ask for.
    pub server_names: Vec<String>,
    /// A listener of the user's.
    pub listener: Option<crds::Listener>,
    /// TLS that ends at the proxy.
    pub terminating_tls: Option<crds::TlsContext>,
    /// TLS that begins at the proxy.
    pub originating_tls: Option<crds::TlsContext>,
}

/// A policy, read and checked.
#[derive(Clone, PartialEq, Debug)]
pub struct PolicyObject {
    /// Its name.
    pub reference: PolicyRef,
    /// Its object's uid; empty if it has none.
    pub uid: String,
    /// Its object's resource version; empty if it has none.
    pub resource_version: String,
    /// Where it was read from.
    pub source: crds::Source,
    /// Its rules.
    pub rules: Vec<Rule>,
    /// What is legal and surely not meant.
    pub warnings: Vec<crds::Problem>,
}

impl PolicyObject {
    /// True if some rule closes its subjects in this direction.
    pub fn default_deny(&self, direction: Direction) -> bool {
        self.rules.iter().any(|rule| rule.direction == direction && rule.default_deny)
    }
}
