//! A slow, obvious evaluator of the policy language, to compare the engine with.
//!
//! It knows no tables, classes, selector caches or prefixes of ports: for each packet it goes through all rules of
//! all policies and reads them as a person would.
#![forbid(unsafe_code)]

pub mod engine;
mod evaluate;
pub mod generate;
pub mod life;
mod world;

pub use evaluate::{Decision, Other, Packet, Verdict, evaluate};
pub use world::{Party, World};
