//! Which identity has an address, and behind which node is it? Keys and value of the IP cache (LPM tries).

use crate::{V4, V6, identity::Identity};

/// Key of `cilium_ipcache` for IPv4: the prefix length counts the bits of the address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(C)]
pub struct IpcacheKey<A> {
    /// Significant bits of `addr`.
    pub prefix_len: u32,
    /// The address, host bits zero.
    pub addr: A,
}

crate::plain!(IpcacheKey<V4>: u32, V4);
crate::plain!(IpcacheKey<V6>: u32, V6);

/// Key of `cilium_ipcache`.
pub type IpcacheKey4 = IpcacheKey<V4>;
/// Key of `cilium_ipcache6`.
pub type IpcacheKey6 = IpcacheKey<V6>;

/// What is known of a prefix.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct RemoteEndpoint {
    /// Its security identity.
    pub identity: Identity,
    /// IPv4 address of the node behind which it lies, if the way there is the tunnel; else 0.
    pub tunnel_endpoint: V4,
    /// `FLAG_*`.
    pub flags: u32,
}

crate::plain!(RemoteEndpoint: Identity, V4, u32);

/// Traffic to this prefix never enters the tunnel.
pub const FLAG_SKIP_TUNNEL: u32 = 1 << 0;
