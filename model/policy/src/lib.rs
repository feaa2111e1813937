//! Who may talk to whom: policies and identities turned into verdict tables.
#![forbid(unsafe_code)]

mod origin;
mod parse;
mod peer;
mod repository;
mod resolve;
mod rule;
mod settings;
mod tables;

pub use origin::{Direction, Implicit, PolicyKind, PolicyRef, RuleOrigin, RuleSet};
pub use peer::{CidrSet, Context, ENTITIES, Entity, Learned, Peer, PeerIdentity};
pub use repository::{Change, NamedPorts, Repository, TableChange, What};
pub use rule::{Effect, L7, PolicyObject, PortRange, PortSpec, Ports, Rule, Subject, protocol};
pub use settings::{AllowLocalhost, Mode, Settings};
pub use tables::EndpointPolicy;
