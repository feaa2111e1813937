//! How many packets had which fate? Key and value of `cilium_metrics` and of the event accounting.

use crate::shared::Shared;

/// Key of `cilium_metrics`, a per-CPU array: its four bytes are the index.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(C)]
pub struct MetricKey {
    /// 0: forwarded; else the drop reason.
    pub reason: u8,
    /// `DIR_INGRESS`, `DIR_EGRESS` of [`crate::policy`] plus 1, or 0 where neither fits.
    pub direction: u8,
    /// Always zero.
    pub pad: u16,
}

crate::plain!(MetricKey: u8, u8, u16);

/// Counters of one fate on one CPU.
#[derive(Clone, Debug, Default)]
#[repr(C)]
pub struct Metric {
    /// Packets.
    pub packets: Shared<u64>,
    /// Bytes.
    pub bytes: Shared<u64>,
}

crate::plain!(Metric: Shared<u64>, Shared<u64>);

/// Value of `cilium_event_counters`, a per-CPU array of one: exact accounting, sent + lost = all.
#[derive(Clone, Debug, Default)]
#[repr(C)]
pub struct EventCounters {
    /// Events that entered the ring buffer.
    pub sent: Shared<u64>,
    /// Events for which the ring buffer had no room.
    pub lost: Shared<u64>,
}

crate::plain!(EventCounters: Shared<u64>, Shared<u64>);
