//! Who may talk to whom: policies and identities turned into verdict tables.
#![forbid(unsafe_code)]

mod classes;
mod origin;
mod parse;
mod peer;
mod redirect;
mod repository;
mod resolve;
mod rule;
mod service_peers;
mod settings;
mod tables;

pub use classes::Classes;
pub use l7::dns::{canonical_name, name_matches};
pub use origin::{Direction, Implicit, PolicyKind, PolicyRef, RuleOrigin, RuleSet};
pub use parse::is_port_name;
pub use parse::prefix::{parse_prefix, parse_prefix_or_address};
pub use peer::{CidrSet, Context, ENTITIES, Entity, Known, Learned, Peer, PeerIdentity};
pub use redirect::{Parser, Redirect};
pub use repository::{Change, NamedPorts, Repository, TableChange, What};
pub use rule::{Auth, Effect, L7, PolicyObject, PortRange, PortSpec, Ports, Rule, Subject, Tier, protocol};
pub use settings::{AllowLocalhost, Mode, SchemaMode, Settings};
pub use tables::EndpointPolicy;
