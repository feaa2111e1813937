//! The agent: turns the cluster's objects into the datapath's maps and answers about both.

pub mod allocation;
pub mod answers;
pub mod chores;
pub mod clock;
mod cluster;
pub mod config;
pub mod core;
pub mod daemon;
pub mod directory;
pub mod engine;
pub mod flows;
pub mod health;
pub mod hits;
pub mod ipam;
pub mod ipcache;
pub mod kernel;
pub mod metrics;
pub mod network;
pub mod objects;
pub mod ops;
pub mod own_node;
pub mod pressure;
pub mod programs;
mod proxy;
pub mod readiness;
mod redirects;
pub mod secrets;
pub mod services;
pub mod start;
pub mod state;
pub mod status;
pub mod watch;

pub use health::responder_main as health_responder_main;
pub use start::main_with;
