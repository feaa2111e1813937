//! Which messages are there?

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::record::Records;
use crate::rules::RulesUpdate;
use crate::settings::{Listener, Settings};

/// From the agent to the proxy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FromAgent {
    /// First, and again when settings or listeners change.
    Hello(AgentHello),
    /// Rule sets; the first ones on a connection are whole.
    Rules(RulesUpdate),
    /// Answer to [`Learned`].
    NamesHeld(NamesHeld),
    /// What was held before may be gone: a user cleaned the cache, or there was no room.
    NamesForgotten,
}

/// What the agent says first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentHello {
    /// Version of the messages.
    pub version: u32,
    /// Differs for each run of the agent; revisions count within one.
    pub epoch: u64,
    /// Where connections come in.
    pub listeners: Vec<Listener>,
    /// Settings.
    pub settings: Settings,
}

/// The tables hold all addresses of these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamesHeld {
    /// Numbers of [`Learned`].
    pub numbers: Vec<u64>,
}

/// From the proxy to the agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FromProxy {
    /// First.
    Hello(ProxyHello),
    /// Rules are in force.
    Realised(Realised),
    /// What was said on connections.
    Records(Records),
    /// A name's addresses.
    Learned(Learned),
    /// How often things happened since the proxy started, and what there is now.
    Counters(Counters),
}

/// What the proxy says first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyHello {
    /// Version of the messages.
    pub version: u32,
    /// Its process.
    pub pid: u32,
    /// Version of the program.
    pub program: String,
}

/// All requests from now on are judged by this revision or a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Realised {
    /// The agent's run.
    pub epoch: u64,
    /// The change.
    pub revision: u64,
    /// False while some listener could not be bound: connections to it are refused.
    pub listening: bool,
}

/// An answer of DNS that an endpoint got, or gets when the agent has said that its tables hold it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Learned {
    /// Number, for [`NamesHeld`].
    pub number: u64,
    /// Who asked.
    pub endpoint: u32,
    /// For what, in lower case with a dot at its end.
    pub name: Arc<str>,
    /// Addresses with their times to live in seconds.
    pub addresses: Vec<(IpAddr, u32)>,
    /// When its time begins, in nanoseconds since the node started, which nobody sets (`CLOCK_BOOTTIME`): as it came or some
    /// seconds later, so that the same answer within those needs not be told.
    pub since_boot: u64,
}

/// Counters and gauges by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Counters(pub BTreeMap<String, u64>);
