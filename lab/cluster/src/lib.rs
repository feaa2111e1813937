//! A cluster of node namespaces on one machine: up, down, status.

pub mod apiserver_process;
pub mod bootstrap;
pub mod down;
pub mod forward;
pub mod layout;
pub mod manifests;
pub mod network;
pub mod node;
pub mod options;
pub mod plan;
pub mod progress;
pub mod reaper;
pub mod steps;
pub mod supervisor;
pub mod up;

pub use layout::Layout;
pub use options::{Enforcement, Options};
