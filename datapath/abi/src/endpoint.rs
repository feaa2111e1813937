//! Which endpoints live on this node? The value of the endpoint maps, by address and by device.

use crate::{Mac, identity::Identity};

/// An endpoint of this node: value of `cilium_lxc` (by IPv4 address) and `cilium_lxc6` (by IPv6 address), and of
/// `cilium_devices` (by interface index). The maps are written by the agent only.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C, align(8))]
pub struct Endpoint {
    /// Host side of the endpoint's veth; 0 for the node itself.
    pub ifindex: u32,
    /// Number of the endpoint on this node, 1 to 65535; also its index in `cilium_ep_policy`.
    pub id: u32,
    /// Its security identity.
    pub identity: Identity,
    /// `FLAG_*`.
    pub flags: u32,
    /// The container's side of the veth.
    pub mac: Mac,
    /// The host's side of the veth.
    pub node_mac: Mac,
    /// Always zero.
    pub pad: u32,
}

crate::plain!(Endpoint: u32, u32, Identity, u32, Mac, Mac, u32);

/// The address belongs to this node itself, not to a pod.
pub const FLAG_HOST: u32 = 1 << 0;
/// Policy is not known yet: drop with `EP_NOT_READY`.
pub const FLAG_NOT_READY: u32 = 1 << 1;

/// Value of `cilium_ep_policy[endpoint id]`: which policy rules an endpoint now. Eight bytes, written as one store, so
/// that a packet sees the old policy or the new one and never half of each.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C, align(8))]
pub struct EndpointPolicy {
    /// Index into `cilium_policy_classes` and `cilium_policy_verdicts`; 0 is the slot that denies all.
    pub slot: u32,
    /// Bits 0 to 29: revision, changed with each change of the policy or its slot. Bit 30: ingress is enforced. Bit 31:
    /// egress is enforced.
    pub revision_and_modes: u32,
}

crate::plain!(EndpointPolicy: u32, u32);

/// Ingress is enforced, so ingress verdicts are reported.
pub const MODE_INGRESS: u32 = 1 << 30;
/// Egress is enforced, so egress verdicts are reported.
pub const MODE_EGRESS: u32 = 1 << 31;
