//! Do real packets between real network namespaces fare as they should? Needs root; each test makes a node of its own.
#![allow(clippy::unwrap_used)]

#[path = "node/bed.rs"]
mod bed;
#[path = "node/copier.rs"]
mod copier;
#[path = "node/raw.rs"]
mod raw;
#[path = "node/spaces.rs"]
mod spaces;

#[path = "node/attacks.rs"]
mod attacks;
#[path = "node/clsact.rs"]
mod clsact;
#[path = "node/maps.rs"]
mod maps;
#[path = "node/pods.rs"]
mod pods;
#[path = "node/proxy.rs"]
mod proxy;
#[path = "node/restart.rs"]
mod restart;
#[path = "node/sockets.rs"]
mod sockets;
#[path = "node/two_nodes.rs"]
mod two_nodes;
