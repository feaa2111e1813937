//! What may be said on connections that the datapath redirects?
//!
//! The datapath assigns redirected connections to sockets of this process. Each is judged by the rules of its rule set,
//! which the agent sends ([`proxy_api`]), and goes on to the server from the client's own address, marked. What nothing
//! is known of, what no rule allows and what is too much is refused.
#![forbid(unsafe_code)]

mod clock;
mod contexts;
mod copy;
mod counters;
mod datapath;
mod dns;
mod handover;
mod http1;
mod http2;
mod judge;
mod kafka;
mod listeners;
mod privileges;
mod process;
mod recorder;
mod redact;
mod rules;
mod serve;
mod shared;
mod sockets;
mod tls;
mod wire;

pub use dns::{Dns, Replies};
pub use listeners::Listeners;
pub use process::{main, main_with};
pub use rules::Table;
pub use serve::accept;
pub use shared::Shared;
pub use sockets::Upstream;
