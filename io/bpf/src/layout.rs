//! Which maps are there, of which type and size, and are those that are pinned still the same?

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use abi::conntrack::{CtEntry, CtKey4, CtKey6};
use abi::endpoint::{Endpoint, EndpointPolicy};
use abi::fragment::{FragmentKey4, FragmentKey6, FragmentPorts};
use abi::ipcache::{IpcacheKey4, IpcacheKey6, RemoteEndpoint};
use abi::metrics::{EventCounters, Metric, MetricKey};
use abi::nat::{NatEntry, NatKey4, NatKey6};
use abi::policy::{CountedVerdict, VerdictKey};
use abi::proxy::{ProxySocket, SocketCookie};
use abi::service::{Affinity, AffinityKey, Backend, ReverseNat, Service, ServiceKey4, ServiceKey6, SocketKey};
use abi::{V4, V6, pins};

use crate::error::{Error, Result};
use crate::sys::{self, F_NO_PREALLOC, MapShape};

const HASH: u32 = 1;
const ARRAY: u32 = 2;
const PERCPU_ARRAY: u32 = 6;
const LRU_HASH: u32 = 9;
const LPM_TRIE: u32 = 11;
const ARRAY_OF_MAPS: u32 = 12;
const RINGBUF: u32 = 27;

/// How many entries the maps take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Connections, for each of IPv4 and IPv6.
    pub conntrack: u32,
    /// Masqueraded connections, for each family; each takes two entries.
    pub nat: u32,
    /// Endpoints of the node (addresses and devices).
    pub endpoints: u32,
    /// Policy slots.
    pub policy_slots: u32,
    /// Verdict entries of one policy.
    pub policy_entries: u32,
    /// Prefixes in the IP cache, for each family.
    pub ipcache: u32,
    /// Services with their backend slots, for each family.
    pub services: u32,
    /// Bytes of the event ring buffer, a power of two.
    pub event_bytes: u32,
}

impl Default for Sizes {
    fn default() -> Self {
        Sizes {
            conntrack: 1 << 17,
            nat: 1 << 17,
            endpoints: 65535,
            policy_slots: 16384,
            policy_entries: 1 << 17,
            ipcache: 512_000,
            services: 65536,
            event_bytes: 1 << 23,
        }
    }
}

/// One map: its name and what it is made of.
pub(crate) struct Spec {
    pub(crate) name: &'static str,
    pub(crate) shape: MapShape,
}

fn spec<K, V>(name: &'static str, map_type: u32, max_entries: u32, flags: u32) -> Spec {
    let (key_size, value_size) = (size_of::<K>() as u32, size_of::<V>() as u32);
    Spec { name, shape: MapShape { map_type, key_size, value_size, max_entries, flags } }
}

/// Every pinned map.
pub(crate) fn specs(s: &Sizes) -> Vec<Spec> {
    let n = F_NO_PREALLOC;
    let ring = MapShape { map_type: RINGBUF, max_entries: s.event_bytes, ..MapShape::default() };
    vec![
        spec::<V4, Endpoint>(pins::LXC4, HASH, s.endpoints, n),
        spec::<V6, Endpoint>(pins::LXC6, HASH, s.endpoints, n),
        spec::<u32, Endpoint>(pins::DEVICES, HASH, s.endpoints, n),
        spec::<u32, EndpointPolicy>(pins::EP_POLICY, ARRAY, 65536, 0),
        spec::<u32, u32>(pins::POLICY_CLASSES, ARRAY_OF_MAPS, s.policy_slots, 0),
        spec::<u32, u32>(pins::POLICY_VERDICTS, ARRAY_OF_MAPS, s.policy_slots, 0),
        spec::<IpcacheKey4, RemoteEndpoint>(pins::IPCACHE4, LPM_TRIE, s.ipcache, n),
        spec::<IpcacheKey6, RemoteEndpoint>(pins::IPCACHE6, LPM_TRIE, s.ipcache, n),
        spec::<CtKey4, CtEntry>(pins::CT4, LRU_HASH, s.conntrack, 0),
        spec::<CtKey6, CtEntry>(pins::CT6, LRU_HASH, s.conntrack, 0),
        spec::<NatKey4, NatEntry<V4>>(pins::SNAT4, LRU_HASH, s.nat, 0),
        spec::<NatKey6, NatEntry<V6>>(pins::SNAT6, LRU_HASH, s.nat, 0),
        Spec { name: pins::EVENTS, shape: ring },
        spec::<u32, EventCounters>(pins::EVENT_COUNTERS, PERCPU_ARRAY, 1, 0),
        spec::<MetricKey, Metric>(pins::METRICS, PERCPU_ARRAY, 1024, 0),
        spec::<u32, abi::config::NodeConfig>(pins::NODE_CONFIG, ARRAY, 1, 0),
        spec::<ServiceKey4, Service>(pins::LB4_SERVICES, HASH, s.services, n),
        spec::<ServiceKey6, Service>(pins::LB6_SERVICES, HASH, s.services, n),
        spec::<u32, Backend<V4>>(pins::LB4_BACKENDS, HASH, s.services, n),
        spec::<u32, Backend<V6>>(pins::LB6_BACKENDS, HASH, s.services, n),
        spec::<u32, ReverseNat<V4>>(pins::LB4_REVERSE_NAT, HASH, s.services, n),
        spec::<u32, ReverseNat<V6>>(pins::LB6_REVERSE_NAT, HASH, s.services, n),
        spec::<SocketKey<V4>, ReverseNat<V4>>(pins::LB4_REVERSE_SK, LRU_HASH, s.services, 0),
        spec::<SocketKey<V6>, ReverseNat<V6>>(pins::LB6_REVERSE_SK, LRU_HASH, s.services, 0),
        spec::<AffinityKey, Affinity>(pins::LB_AFFINITY, LRU_HASH, s.services, 0),
        spec::<SocketCookie, ProxySocket>(pins::PROXY_SOCKETS, LRU_HASH, s.services, 0),
        spec::<FragmentKey4, FragmentPorts>(pins::FRAGMENTS4, LRU_HASH, 8192, 0),
        spec::<FragmentKey6, FragmentPorts>(pins::FRAGMENTS6, LRU_HASH, 8192, 0),
    ]
}

/// What the map of a policy slot that holds identities' classes is made of.
pub(crate) fn classes(max_entries: u32) -> MapShape {
    MapShape { map_type: HASH, key_size: 4, value_size: 4, max_entries, flags: F_NO_PREALLOC }
}

/// The same for verdicts.
pub(crate) fn verdicts(max_entries: u32) -> MapShape {
    let (key_size, value_size) = (size_of::<VerdictKey>() as u32, size_of::<CountedVerdict>() as u32);
    MapShape { map_type: LPM_TRIE, key_size, value_size, max_entries, flags: F_NO_PREALLOC }
}

/// Opens the pinned map if it is the one expected; else makes a new one and pins it.
pub(crate) fn open_or_create(dir: &Path, spec: &Spec) -> Result<OwnedFd> {
    let path = dir.join(spec.name);
    match open(dir, spec, 0) {
        Ok(fd) => return Ok(fd),
        Err(Error::Pin { source, .. }) if source.raw_os_error() == Some(libc::ENOENT) => {}
        Err(e) => {
            tracing::warn!(map = spec.name, reason = %e, "pinned map is replaced by an empty one");
            fs::remove_file(&path).map_err(|source| Error::Pin { operation: "remove", path: path.clone(), source })?;
        }
    }
    let fd = create(spec)?;
    sys::pin(fd.as_fd(), &path).map_err(|source| Error::Pin { operation: "pin", path, source })?;
    Ok(fd)
}

/// Opens a pinned map and compares it, all but its size if it is opened for reading only.
pub(crate) fn open(dir: &Path, spec: &Spec, flags: u32) -> Result<OwnedFd> {
    compared(dir, spec, flags, flags == sys::F_RDONLY)
}

/// The same for reading and writing, whatever its size.
pub(crate) fn open_any_size(dir: &Path, spec: &Spec) -> Result<OwnedFd> {
    compared(dir, spec, 0, true)
}

fn compared(dir: &Path, spec: &Spec, flags: u32, any_size: bool) -> Result<OwnedFd> {
    let path = dir.join(spec.name);
    let failed = |operation| {
        let path = path.clone();
        move |source| Error::Pin { operation, path, source }
    };
    let fd = sys::open(&path, flags).map_err(failed("open"))?;
    let mut found = sys::map_shape(fd.as_fd()).map_err(failed("examine"))?;
    // Kernels report some flags that they set themselves.
    found.flags &= F_NO_PREALLOC;
    if any_size {
        found.max_entries = spec.shape.max_entries;
    }
    if found != spec.shape {
        let (found, expected) = (format!("{found:?}"), format!("{:?}", spec.shape));
        return Err(Error::OtherLayout { path, found, expected });
    }
    Ok(fd)
}

fn create(spec: &Spec) -> Result<OwnedFd> {
    let inner = match spec.name {
        pins::POLICY_CLASSES => Some(create_shape("classes", &classes(64))?),
        pins::POLICY_VERDICTS => Some(create_shape("verdicts", &verdicts(64))?),
        _ => None,
    };
    let inner = inner.as_ref().map(AsFd::as_fd);
    sys::map_create(spec.name, &spec.shape, inner).map_err(|source| Error::CreateMap {
        map: spec.name.into(),
        max_entries: spec.shape.max_entries,
        source,
    })
}

/// Makes a map that is not pinned.
pub(crate) fn create_shape(name: &str, shape: &MapShape) -> Result<OwnedFd> {
    let max_entries = shape.max_entries;
    sys::map_create(name, shape, None).map_err(|source| Error::CreateMap { map: name.into(), max_entries, source })
}
