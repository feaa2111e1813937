//! What happens to a packet: the one implementation, for the kernel and natively.
#![no_std]
