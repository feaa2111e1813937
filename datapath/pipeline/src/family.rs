//! In what do IPv4 and IPv6 differ for the datapath?

use crate::env::{Change, Env};
use abi::config::{self, NodeConfig};
use abi::{Addr, Plain, V4, V6};

/// An address family with its header.
pub trait Family: Addr + Plain + Default + crate::quoted::Quoted {
    /// EtherType in host order.
    const ETHER_TYPE: u16;
    /// Flag of [`NodeConfig`] that says that the family is on.
    const ENABLED: u32;
    /// Where the source address is, from the Ethernet header on.
    const SOURCE: u32;
    /// Where the destination address is.
    const DESTINATION: u32;
    /// Protocol number of its ICMP.
    const ICMP: u8;
    /// Where layer 4 begins in packets without options.
    const USUAL_L4: u32;
    /// The node's own address.
    fn node(config: &NodeConfig) -> Self;
    /// The address of `cilium_host`.
    fn router(config: &NodeConfig) -> Self;
    /// True if traffic to this address is not masqueraded.
    fn native(self, config: &NodeConfig) -> bool;
    /// Is it a group's address?
    fn is_multicast(self) -> bool;
    /// Source of a pod's packets to itself through a service.
    fn loopback() -> Self;
    /// Writes another address over the one at `at` and corrects the checksums; `l4` is where the layer 4 checksum is, and
    /// whether it is UDP's.
    fn rewrite<E: Env>(self, env: &mut E, at: u32, to: Self, l4: Option<(u32, bool)>) -> bool;
    /// Writes another address over the one at `field` of the header that an ICMP error quotes at `quoted`, and corrects
    /// the quoted header's checksum and the error's own at `checksum`.
    fn requote<E: Env>(self, env: &mut E, quoted: u32, field: u32, to: Self, checksum: u32) -> bool;
}

impl Family for V4 {
    const ETHER_TYPE: u16 = 0x0800;
    const ENABLED: u32 = config::FLAG_IPV4;
    const SOURCE: u32 = 14 + 12;
    const DESTINATION: u32 = 14 + 16;
    const ICMP: u8 = 1;
    const USUAL_L4: u32 = 14 + 20;

    #[inline(always)]
    fn node(config: &NodeConfig) -> Self {
        config.node4
    }

    #[inline(always)]
    fn router(config: &NodeConfig) -> Self {
        config.router4
    }

    #[inline(always)]
    fn native(self, config: &NodeConfig) -> bool {
        let length = config.native_cidr4_len & 63;
        length > 0 && length <= 32 && (u32::from_be(self.0 ^ config.native_cidr4.0) >> (32 - length)) == 0
    }

    #[inline(always)]
    fn is_multicast(self) -> bool {
        self.octets()[0] & 0xf0 == 224
    }

    #[inline(always)]
    fn loopback() -> Self {
        V4(u32::from_ne_bytes([169, 254, 42, 1]))
    }

    #[inline(always)]
    fn rewrite<E: Env>(self, env: &mut E, at: u32, to: Self, l4: Option<(u32, bool)>) -> bool {
        if let Some((checksum, udp)) = l4 {
            let change = Change { from: self.0, to: to.0, size: 4, udp, pseudo: true };
            if !env.correct_l4(checksum, change) {
                return false;
            }
        }
        env.correct_l3(14 + 10, self.0, to.0) && env.store(at, to)
    }

    #[inline(always)]
    fn requote<E: Env>(self, env: &mut E, quoted: u32, field: u32, to: Self, _checksum: u32) -> bool {
        // the change of the address and that of the quoted checksum cancel each other out in the error's checksum
        env.correct_l3(quoted + 10, self.0, to.0) && env.store(quoted + field, to)
    }
}

impl Family for V6 {
    const ETHER_TYPE: u16 = 0x86dd;
    const ENABLED: u32 = config::FLAG_IPV6;
    const SOURCE: u32 = 14 + 8;
    const DESTINATION: u32 = 14 + 24;
    const ICMP: u8 = 58;
    const USUAL_L4: u32 = 14 + 40;

    #[inline(always)]
    fn node(config: &NodeConfig) -> Self {
        config.node6
    }

    #[inline(always)]
    fn router(config: &NodeConfig) -> Self {
        config.router6
    }

    #[inline(always)]
    fn native(self, config: &NodeConfig) -> bool {
        let mut left = config.native_cidr6_len;
        if left == 0 || left > 128 {
            return false;
        }
        let mut i = 0;
        while i < 4 {
            let bits = if left >= 32 { 32 } else { left };
            let differ = u32::from_be(self.0[i] ^ config.native_cidr6.0[i]);
            if bits > 0 && (differ >> (32 - bits)) != 0 {
                return false;
            }
            left -= bits;
            i += 1;
        }
        true
    }

    #[inline(always)]
    fn is_multicast(self) -> bool {
        self.0[0].to_ne_bytes()[0] == 0xff
    }

    #[inline(always)]
    fn loopback() -> Self {
        V6([u32::from_ne_bytes([0xfe, 0x80, 0, 0]), 0, 0, u32::from_ne_bytes([169, 254, 42, 1])])
    }

    #[inline(always)]
    fn rewrite<E: Env>(self, env: &mut E, at: u32, to: Self, l4: Option<(u32, bool)>) -> bool {
        if let Some((checksum, _)) = l4 {
            let mut i = 0;
            while i < 4 {
                let change = Change { from: self.0[i], to: to.0[i], size: 4, udp: false, pseudo: true };
                if change.from != change.to && !env.correct_l4(checksum, change) {
                    return false;
                }
                i += 1;
            }
        }
        env.store(at, to)
    }

    #[inline(always)]
    fn requote<E: Env>(self, env: &mut E, quoted: u32, field: u32, to: Self, checksum: u32) -> bool {
        let mut i = 0;
        while i < 4 {
            let change = Change { from: self.0[i], to: to.0[i], size: 4, udp: false, pseudo: false };
            if !env.correct_l4(checksum, change) {
                return false;
            }
            i += 1;
        }
        env.store(quoted + field, to)
    }
}
