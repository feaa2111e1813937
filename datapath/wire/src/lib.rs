//! What does a packet say, and how is one written?
//!
//! The kernel's programs read single fields by offset (`pipeline::packet`). This crate is what everything beside the
//! kernel uses: views that check before they read, checksums, and packets to try the datapath with.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod build;
pub mod checksum;
pub mod view;

pub use build::Frame;
pub use view::{Ip, Layer4, View};

/// EtherTypes.
pub const ETHER_IPV4: u16 = 0x0800;
/// See [`ETHER_IPV4`].
pub const ETHER_ARP: u16 = 0x0806;
/// See [`ETHER_IPV4`].
pub const ETHER_IPV6: u16 = 0x86dd;

/// IP protocol numbers.
pub const ICMP: u8 = 1;
/// See [`ICMP`].
pub const TCP: u8 = 6;
/// See [`ICMP`].
pub const UDP: u8 = 17;
/// See [`ICMP`].
pub const FRAGMENT: u8 = 44;
/// See [`ICMP`].
pub const ICMPV6: u8 = 58;
/// See [`ICMP`].
pub const SCTP: u8 = 132;

/// Length of an Ethernet header.
pub const ETHERNET: usize = 14;
