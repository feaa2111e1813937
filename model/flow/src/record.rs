//! How is an event kept until somebody asks for it? As it came, with references to who was behind its addresses.

use std::{net::IpAddr, sync::Arc};

use abi::{
    address::narrow,
    event::{self, Event},
};

use crate::{
    directory::{Directory, Peer},
    proto::flow::Policy,
};

/// Turns the datapath's clock (nanoseconds since boot) into wall time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    /// Nanoseconds since 1970 at the moment of boot.
    pub boot: i64,
}

impl Clock {
    /// From two clocks read at one moment: nanoseconds since 1970 and nanoseconds since boot.
    pub fn new(wall: i64, monotonic: u64) -> Self {
        Self { boot: wall.saturating_sub_unsigned(monotonic) }
    }

    /// Nanoseconds since 1970.
    pub fn wall(&self, monotonic: u64) -> i64 {
        self.boot.saturating_add_unsigned(monotonic)
    }
}

/// An event with its time and the names of its moment; a flow message is made of it only when one is asked for.
#[derive(Clone, Debug)]
pub struct Record {
    /// What the datapath told.
    pub event: Event,
    /// Nanoseconds since 1970.
    pub time: i64,
    /// Unique, see [`unique`].
    pub uuid: u128,
    /// Who had the source address.
    pub source: Option<Arc<Peer>>,
    /// Who had the destination address.
    pub destination: Option<Arc<Peer>>,
    /// DNS names of the source, if it is not a pod.
    pub source_names: Option<Arc<[String]>>,
    /// DNS names of the destination, if it is not a pod.
    pub destination_names: Option<Arc<[String]>>,
    /// The policies that decided.
    pub deciders: Option<Arc<[Policy]>>,
}

impl Record {
    /// Keeps an event together with what is known of its addresses now.
    pub fn new(event: Event, time: i64, uuid: u128, directory: &(impl Directory + ?Sized)) -> Self {
        let mut record = Self {
            event,
            time,
            uuid,
            source: None,
            destination: None,
            source_names: None,
            destination_names: None,
            deciders: None,
        };
        if let Some((source, destination)) = addresses(&event) {
            record.source = directory.peer(source);
            record.destination = directory.peer(destination);
            record.source_names = names(directory, &record.destination, source, &record.source);
            record.destination_names = names(directory, &record.source, destination, &record.destination);
        }
        if event.kind == event::KIND_POLICY_VERDICT && event.rule_set != 0 && event.endpoint != 0 {
            record.deciders = directory.policies(event.endpoint, event.rule_set);
        }
        record
    }
}

fn names(
    directory: &(impl Directory + ?Sized),
    asker: &Option<Arc<Peer>>,
    address: IpAddr,
    peer: &Option<Arc<Peer>>,
) -> Option<Arc<[String]>> {
    let endpoint = asker.as_ref().map_or(0, |peer| peer.endpoint);
    if endpoint == 0 || peer.as_ref().is_some_and(|peer| !peer.pod.is_empty()) {
        return None;
    }
    directory.names(endpoint, address)
}

/// Source and destination of an IP packet.
pub(crate) fn addresses(event: &Event) -> Option<(IpAddr, IpAddr)> {
    match event.ip_version {
        version @ (4 | 6) => Some((narrow(version, event.source), narrow(version, event.destination))),
        _ => None,
    }
}

/// The universally unique identifier (version 4) of event `sequence` of an observer that drew `seed`.
pub fn unique(seed: u128, sequence: u64) -> u128 {
    let high = mix((seed >> 64) as u64 ^ sequence);
    let low = mix(seed as u64 ^ sequence.rotate_left(32));
    let bits = (u128::from(high) << 64) | u128::from(low);
    (bits & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62)
}

/// A bijection that spreads every bit (the finaliser of splitmix64).
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
