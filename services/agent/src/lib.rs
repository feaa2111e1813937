//! The agent: turns the cluster's objects into the datapath's maps and answers about both.

pub mod allocation;
pub mod cluster;
pub mod config;
pub mod core;
pub mod engine;
pub mod ipam;
pub mod ipcache;
pub mod kernel;
pub mod network;
pub mod objects;
pub mod ops;
pub mod services;
pub mod watch;
