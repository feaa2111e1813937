//! What does a packet say: checked views of the headers of packets.
#![no_std]
