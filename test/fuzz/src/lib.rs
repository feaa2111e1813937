//! Does anything from outside make a parser panic, loop or contradict itself?
#![forbid(unsafe_code)]
// A panic is how a target tells of what it found.
#![allow(clippy::unwrap_used)]

mod cases;
mod kafka;
mod packets;
mod patterns;
mod policies;
mod ports;
mod proxies;
mod selectors;

/// Something that reads what others wrote.
pub struct Target {
    /// What it is called, and its folder in `corpus/`.
    pub name: &'static str,
    /// What it reads.
    pub what: &'static str,
    /// Reads one input; panics if it finds something.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "policies", what: "YAML and JSON to policies, and their tables", run: policies::run },
    Target { name: "selectors", what: "labels and label selectors", run: selectors::run },
    Target { name: "ports", what: "ports, ranges and prefixes", run: ports::run },
    Target { name: "patterns", what: "regular expressions and patterns of DNS names", run: patterns::run },
    Target { name: "cases", what: "cases and flows of `policy eval`", run: cases::run },
    Target { name: "proxies", what: "first bytes of DNS, HTTP and TLS", run: proxies::run },
    Target { name: "kafka", what: "requests to Kafka brokers, and rules for them", run: kafka::run },
    Target { name: "packets", what: "packets through the datapath", run: packets::run },
];

/// The target of this name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
