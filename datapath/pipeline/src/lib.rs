//! What happens to a packet: the one implementation, for the kernel and natively.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(any(test, feature = "native"))]
extern crate std;

pub mod admit;
pub mod deliver;
pub mod entry;
pub mod env;
pub mod family;
pub mod forward;
pub mod masquerade;
#[cfg(any(test, feature = "native"))]
pub mod native;
pub mod neighbour;
pub mod packet;
pub mod peers;
pub mod proxy;
pub mod quoted;
pub mod report;
pub mod road;
pub mod service;
pub mod track;
pub mod work;

#[cfg(test)]
mod tests;
