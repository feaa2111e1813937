//! Who has this address? The node answers its pods' ARP requests and neighbour solicitations itself.

use crate::env::Env;
use abi::endpoint::Endpoint;
use abi::{DropReason, V6};

/// An ARP request for IPv4 over Ethernet becomes the answer.
#[inline(always)]
pub fn arp<E: Env>(env: &mut E, me: &Endpoint) -> Result<i32, DropReason> {
    let invalid = DropReason::INVALID_PACKET;
    let head: [u8; 8] = env.load(14).ok_or(invalid)?;
    if head != [0, 1, 8, 0, 6, 4, 0, 1] {
        return Err(DropReason::UNSUPPORTED_L2);
    }
    let sender_mac: [u8; 6] = env.load(22).ok_or(invalid)?;
    let sender: [u8; 4] = env.load(28).ok_or(invalid)?;
    let asked: [u8; 4] = env.load(38).ok_or(invalid)?;
    if sender == asked || sender == [0; 4] {
        // an announcement or a probe for duplicates: nobody else has it
        return Ok(crate::forward::DROP);
    }
    let own = me.node_mac.0;
    let written = env.store(0, sender_mac)
        && env.store(6, own)
        && env.store(20, 2u16.to_be())
        && env.store(22, own)
        && env.store(28, asked)
        && env.store(32, sender_mac)
        && env.store(38, sender);
    if written { Ok(env.back()) } else { Err(DropReason::WRITE_ERROR) }
}

/// Types of neighbour discovery.
pub const ROUTER_SOLICITATION: u8 = 133;
/// See [`ROUTER_SOLICITATION`].
pub const ROUTER_ADVERTISEMENT: u8 = 134;
/// See [`ROUTER_SOLICITATION`].
pub const NEIGHBOUR_SOLICITATION: u8 = 135;
/// See [`ROUTER_SOLICITATION`].
pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;

/// Is this a message of neighbour discovery?
#[inline(always)]
pub fn is_discovery(message: u8) -> bool {
    (ROUTER_SOLICITATION..=137).contains(&message)
}

/// A neighbour solicitation becomes the advertisement that the node's side of the veth has the address.
#[inline(always)]
pub fn solicited<E: Env>(env: &mut E, me: &Endpoint, asker: V6) -> Result<i32, DropReason> {
    let invalid = DropReason::INVALID_PACKET;
    let target: [u8; 16] = env.load(14 + 40 + 8).ok_or(invalid)?;
    let option: [u8; 2] = env.load(14 + 40 + 24).ok_or(invalid)?;
    let asker_mac: [u8; 6] = env.load(6).ok_or(invalid)?;
    if asker.0 == [0; 4] || option != [1, 1] {
        // a probe for duplicates: nobody else has it
        return Ok(crate::forward::DROP);
    }
    let own = me.node_mac.0;
    let words = |b: &[u8; 16]| -> [u32; 4] {
        let w = |i: usize| u32::from_ne_bytes([b[i], b[i + 1], b[i + 2], b[i + 3]]);
        [w(0), w(4), w(8), w(12)]
    };
    let flags = u32::from_ne_bytes([0x60, 0, 0, 0]);
    let checksum = advertisement_checksum(words(&target), asker.0, own);
    let written = env.store(0, asker_mac)
        && env.store(6, own)
        && env.store(14 + 8, target)
        && env.store(14 + 24, asker)
        && env.store(14 + 7, 255u8)
        && env.store(54, [NEIGHBOUR_ADVERTISEMENT, 0])
        && env.store(56, checksum)
        && env.store(58, flags)
        && env.store(14 + 40 + 24, [2u8, 1])
        && env.store(14 + 40 + 26, own);
    if written { Ok(env.back()) } else { Err(DropReason::WRITE_ERROR) }
}

/// Internet checksum of the advertisement that [`solicited`] writes, as it lies in the packet.
#[inline(always)]
fn advertisement_checksum(target: [u32; 4], asker: [u32; 4], mac: [u8; 6]) -> u16 {
    let half = |w: u32| (w & 0xffff) + (w >> 16);
    // source and target are the same address: it counts twice
    let mut sum = 0u32;
    let mut i = 0;
    while i < 4 {
        sum += 2 * half(target[i]) + half(asker[i]);
        i += 1;
    }
    sum += u16::from_ne_bytes([0, 32]) as u32 + u16::from_ne_bytes([0, 58]) as u32;
    sum += u16::from_ne_bytes([NEIGHBOUR_ADVERTISEMENT, 0]) as u32;
    sum += u16::from_ne_bytes([0x60, 0]) as u32;
    sum += u16::from_ne_bytes([2, 1]) as u32;
    sum += u16::from_ne_bytes([mac[0], mac[1]]) as u32
        + u16::from_ne_bytes([mac[2], mac[3]]) as u32
        + u16::from_ne_bytes([mac[4], mac[5]]) as u32;
    sum = half(sum);
    sum = half(sum);
    !(sum as u16)
}
