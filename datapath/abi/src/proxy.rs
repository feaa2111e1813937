//! What do datapath and proxy have in common? Marks of packets, and which sockets are the proxy's.

use crate::{Port, identity::Identity};

/// The bits of a packet's mark that say what it is.
pub const MARK_MASK: u32 = 0x0f00;
/// To the proxy; the upper half is the proxy's port, as it lies in a header.
pub const MARK_TO_PROXY: u32 = 0x0200;
/// From the proxy, which asked an ingress policy.
pub const MARK_FROM_INGRESS: u32 = 0x0a00;
/// From the proxy, which asked an egress policy.
pub const MARK_FROM_EGRESS: u32 = 0x0b00;

/// The mark of a packet to the proxy.
pub const fn to_proxy(port: Port) -> u32 {
    MARK_TO_PROXY | (port.0 as u32) << 16
}

/// The port of such a mark.
pub const fn proxy_port(mark: u32) -> Port {
    Port((mark >> 16) as u16)
}

/// The mark that the proxy sets on a connection to a server in a client's name: `MARK_FROM_*` and the client's identity, its
/// lower 16 bits above and the others below.
pub const fn from_proxy(magic: u32, client: Identity) -> u32 {
    magic | (client & 0xffff) << 16 | (client >> 16) & 0xff
}

/// Value of `cilium_proxy_sockets`, by socket cookie: the proxy itself writes there in whose name a socket of its own will
/// speak, before it connects. A mark can be set by whoever may send raw packets; this cannot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct ProxySocket {
    /// The client's identity.
    pub client: Identity,
    /// [`MARK_FROM_INGRESS`] or [`MARK_FROM_EGRESS`].
    pub magic: u32,
}

crate::plain!(ProxySocket: Identity, u32);

/// Key of `cilium_proxy_sockets`: a socket's cookie, low word first.
pub type SocketCookie = [u32; 2];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_have_cilium_s_layout() {
        assert_eq!(from_proxy(MARK_FROM_EGRESS, 0x1234), 0x1234_0b00);
        assert_eq!(from_proxy(MARK_FROM_INGRESS, 0x0001_0007), 0x0007_0a01);
        let mark = to_proxy(Port::new(10_001));
        assert_eq!((mark & MARK_MASK, proxy_port(mark)), (MARK_TO_PROXY, Port::new(10_001)));
    }
}
