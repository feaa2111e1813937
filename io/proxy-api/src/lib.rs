//! What do agent and proxy tell each other?
//!
//! The agent listens on a unix socket, the proxy connects and comes back for ever. Each message is one frame: four
//! bytes of length, then JSON, or postcard for access records, which are many. Both sides begin with a hello that has [`VERSION`]. Rules and settings go down; what was
//! realised, access records and counters go up. While the agent is away the proxy serves with the last rules.
#![forbid(unsafe_code)]

mod client;
mod error;
mod facts;
mod frame;
mod hidden;
mod message;
mod record;
mod rules;
mod server;
mod settings;

pub use client::{Client, Event};
pub use error::Error;
pub use facts::{Direction, Facts, Protocol, Redirected};
pub use frame::{MAX_FRAME, Reader, Writer};
pub use hidden::Hidden;
pub use message::{AgentHello, Counters, FromAgent, FromProxy, Learned, NamesHeld, ProxyHello, Realised};
pub use record::{Application, Dns, Http, Kafka, Kind, Party, Record, Records, Tls, Verdict};
pub use rules::{Parser, RuleSet, RulesUpdate, TlsClient, TlsServer};
pub use server::{Greeting, Server, Session};
pub use settings::{DnsSettings, Limits, Listener, Redaction, Settings, Timeouts, Traffic};

/// Version of the messages. Both sides are of one build; another version is refused.
pub const VERSION: u32 = 3;

/// Where the agent listens for proxies, if nothing else is said.
pub const DEFAULT_SOCKET: &str = "/var/run/cilium/proxy.sock";
