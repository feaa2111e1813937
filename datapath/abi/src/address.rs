//! How are addresses and ports written in map keys? As in the packet, in network byte order.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IPv4 address; the bytes in memory are in network order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct V4(pub u32);

/// An IPv6 address; the bytes in memory are in network order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct V6(pub [u32; 4]);

/// A layer 4 port (or an ICMP identifier or type in its place); the bytes in memory are in network order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct Port(pub u16);

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(transparent)]
pub struct Mac(pub [u8; 6]);

/// What the generic code needs of an address family.
pub trait Addr: Copy + Eq + Ord {
    /// Number of bits of an address.
    const BITS: u32;
    /// 4 or 6.
    const VERSION: u8;
    /// The address widened to 16 bytes; IPv4 lies in the first four, the rest is zero.
    fn widen(self) -> [u32; 4];
    /// Is it the first of the two in any one order? Written out, because a comparison of arrays is a call, and calls cost
    /// a program stack.
    fn before(self, other: Self) -> bool;
}

impl Addr for V4 {
    const BITS: u32 = 32;
    const VERSION: u8 = 4;
    #[inline(always)]
    fn widen(self) -> [u32; 4] {
        [self.0, 0, 0, 0]
    }
    #[inline(always)]
    fn before(self, other: Self) -> bool {
        self.0 < other.0
    }
}

impl Addr for V6 {
    const BITS: u32 = 128;
    const VERSION: u8 = 6;
    #[inline(always)]
    fn widen(self) -> [u32; 4] {
        self.0
    }
    #[inline(always)]
    fn before(self, other: Self) -> bool {
        let ([a, b, c, d], [e, f, g, h]) = (self.0, other.0);
        if a != e {
            a < e
        } else if b != f {
            b < f
        } else if c != g {
            c < g
        } else {
            d < h
        }
    }
}

impl V4 {
    /// The four bytes as in the packet.
    #[inline(always)]
    pub const fn octets(self) -> [u8; 4] {
        self.0.to_ne_bytes()
    }
}

impl V6 {
    /// The sixteen bytes as in the packet.
    #[inline(always)]
    pub const fn octets(self) -> [u8; 16] {
        let [a, b, c, d] = self.0;
        let (a, b, c, d) = (a.to_ne_bytes(), b.to_ne_bytes(), c.to_ne_bytes(), d.to_ne_bytes());
        [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], c[0], c[1], c[2], c[3], d[0], d[1], d[2], d[3]]
    }
}

impl Port {
    /// From the number as people write it.
    #[inline(always)]
    pub const fn new(host_order: u16) -> Self {
        Port(host_order.to_be())
    }

    /// The number as people write it.
    #[inline(always)]
    pub const fn number(self) -> u16 {
        u16::from_be(self.0)
    }
}

impl From<Ipv4Addr> for V4 {
    fn from(a: Ipv4Addr) -> Self {
        V4(u32::from_ne_bytes(a.octets()))
    }
}

impl From<V4> for Ipv4Addr {
    fn from(a: V4) -> Self {
        Ipv4Addr::from(a.octets())
    }
}

impl From<Ipv6Addr> for V6 {
    fn from(a: Ipv6Addr) -> Self {
        let o = a.octets();
        let word = |i: usize| u32::from_ne_bytes([o[i], o[i + 1], o[i + 2], o[i + 3]]);
        V6([word(0), word(4), word(8), word(12)])
    }
}

impl From<V6> for Ipv6Addr {
    fn from(a: V6) -> Self {
        Ipv6Addr::from(a.octets())
    }
}

/// The inverse of [`Addr::widen`], for a known IP version.
pub fn narrow(version: u8, words: [u32; 4]) -> IpAddr {
    if version == 4 { IpAddr::V4(V4(words[0]).into()) } else { IpAddr::V6(V6(words).into()) }
}

impl fmt::Debug for V4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ipv4Addr::from(*self).fmt(f)
    }
}

impl fmt::Debug for V6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ipv6Addr::from(*self).fmt(f)
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number().fmt(f)
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

crate::plain!(V4: u32);
crate::plain!(V6: [u32; 4]);
crate::plain!(Port: u16);
crate::plain!(Mac: [u8; 6]);
