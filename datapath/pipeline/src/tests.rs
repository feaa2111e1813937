//! Does the pipeline do what users rely on and attackers must not get? On a simulated node.
#![allow(clippy::unwrap_used)]

mod attacks;
mod bed;
mod hostile;
mod local;
mod nodes;
mod proxy;
mod services;
mod world;
