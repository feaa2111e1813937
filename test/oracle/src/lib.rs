//! A slow, obvious evaluator of the policy language, to compare the engine with.
//!
//! It knows no classes and no selector caches: for each packet it goes through all rules of all policies, and puts what
//! speaks of the packet into the field's own tables one by one, as the field does. The engine must come to the same
//! without any of it.
#![forbid(unsafe_code)]

pub mod engine;
mod evaluate;
mod filters;
pub mod generate;
pub mod life;
mod random;
mod tables;
mod world;

pub use evaluate::{Decision, Other, Packet, Verdict, evaluate};
pub use world::{Group, Party, Service, World};
