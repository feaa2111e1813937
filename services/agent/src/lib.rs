//! The agent: turns the cluster's objects into the datapath's maps and answers about both.

pub mod allocation;
pub mod config;
pub mod ipam;
pub mod ipcache;
pub mod services;
