//! What do the kernel's programs and the agent agree on: map keys and values, events, numbers and names.
//!
//! Every struct is `repr(C)` without implicit padding, so that the bytes which user space writes are the bytes which
//! the programs read. Addresses and ports lie in network byte order exactly as in a packet, everything else in host
//! order. Numbers that Cilium users see (identities, drop reasons, observation points, match types) are Cilium's.
#![no_std]
// An atomic addition is an instruction that only assembly can name there.
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
#![forbid(unsafe_op_in_unsafe_fn)]

mod plain;

pub mod address;
pub mod config;
pub mod conntrack;
pub mod drop_reason;
pub mod endpoint;
pub mod event;
pub mod fragment;
pub mod identity;
pub mod ipcache;
pub mod metrics;
pub mod nat;
pub mod pins;
pub mod policy;
pub mod proxy;
pub mod service;
pub mod shared;

pub use address::{Addr, Mac, Port, V4, V6};
pub use drop_reason::DropReason;
pub use plain::{Plain, bytes_of, from_bytes};
