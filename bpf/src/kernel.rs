//! How does the datapath reach the kernel? The environment of `pipeline`, by BPF helpers.

use crate::maps;
use abi::config::NodeConfig;
use abi::conntrack::{CtEntry, CtKey};
use abi::endpoint::{Endpoint, EndpointPolicy};
use abi::event::Record;
use abi::fragment::{FragmentKey, FragmentPorts};
use abi::identity::Identity;
use abi::ipcache::{IpcacheKey, RemoteEndpoint};
use abi::metrics::{Metric, MetricKey};
use abi::nat::{NatEntry, NatKey};
use abi::policy::{Class, CountedVerdict, VerdictKey};
use abi::proxy::{ProxySocket, SocketCookie};
use abi::service::{Backend, ReverseNat, Service, ServiceKey};
use abi::{Addr, Mac, Plain, Port, V4, V6};
use aya_ebpf::bindings::{
    __sk_buff, bpf_sock_tuple, bpf_sock_tuple__bindgen_ty_1, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1,
    bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2, bpf_tunnel_key, bpf_tunnel_key__bindgen_ty_1,
    bpf_tunnel_key__bindgen_ty_2, bpf_tunnel_key__bindgen_ty_3,
};
use aya_ebpf::helpers::*;
use aya_ebpf::programs::TcContext;
use core::ffi::c_void;
use core::mem::{MaybeUninit, size_of};
use pipeline::env::{Change, Env, Socket, Tables, Wanted};
use pipeline::packet::{ACK, Packet, SYN, TCP};
use pipeline::work::Work;

const PSEUDO: u64 = 0x10;
const MARK_MANGLED_0: u64 = 0x20;
const ZERO_CSUM_TX: u64 = 2;
const NO_EXIST: u64 = 1;
const ANY: u64 = 0;
const PACKET_HOST: u32 = 0;

/// The EtherType, in host order; 0 for a frame without.
#[inline(always)]
pub fn ether_type(ctx: &TcContext) -> u16 {
    u16::from_be(unsafe { (*ctx.skb.skb).protocol } as u16)
}

/// A packet at a hook.
pub struct Kernel {
    skb: *mut __sk_buff,
}

impl Kernel {
    #[inline(always)]
    pub fn new(skb: *mut __sk_buff) -> Self {
        Kernel { skb }
    }

    #[inline(always)]
    fn bytes<T>(&self, at: usize) -> Option<*const T> {
        let (start, end) = unsafe { ((*self.skb).data as usize, (*self.skb).data_end as usize) };
        let p = start + at;
        if p + size_of::<T>() > end { None } else { Some(p as *const T) }
    }
}

#[inline(always)]
fn lookup<K, V>(map: *const c_void, key: &K) -> Option<&'static V> {
    // SAFETY: the kernel gives a pointer to a value of the map, which lives as long as the program runs
    unsafe { (bpf_map_lookup_elem(map as *mut c_void, core::ptr::from_ref(key).cast()) as *const V).as_ref() }
}

#[inline(always)]
fn update<K, V>(map: *const c_void, key: &K, value: &V, flags: u64) -> bool {
    unsafe {
        bpf_map_update_elem(
            map as *mut c_void,
            core::ptr::from_ref(key).cast(),
            core::ptr::from_ref(value).cast(),
            flags,
        ) == 0
    }
}

/// The processor's own memory for the packet that it is at.
#[inline(always)]
pub fn work<A>() -> Option<&'static mut Work<A>> {
    const { assert!(size_of::<Work<A>>() <= size_of::<[u64; 48]>()) };
    let map = core::ptr::from_ref(&maps::WORK) as *mut c_void;
    // SAFETY: programs of this kind do not interrupt each other on one processor, and each takes the memory once
    unsafe { bpf_map_lookup_elem(map, core::ptr::from_ref(&0u32).cast()).cast::<Work<A>>().as_mut() }
}

/// An empty connection outside of the stack, which is too small for it; nobody else uses it while the program runs.
#[inline(always)]
fn scratch() -> Option<&'static mut CtEntry> {
    let place = unsafe {
        bpf_map_lookup_elem(core::ptr::from_ref(&maps::SCRATCH) as *mut c_void, core::ptr::from_ref(&0u32).cast())
    };
    let entry = unsafe { place.cast::<CtEntry>().as_mut() }?;
    *entry = CtEntry::default();
    Some(entry)
}

/// Addresses and ports by which the kernel finds a socket that receives packets.
trait Tuple: Copy {
    const LENGTH: u32;
    const LOOPBACK: Self;
    fn tuple(from: (Self, Port), to: (Self, Port)) -> bpf_sock_tuple;
}

impl Tuple for V4 {
    const LENGTH: u32 = size_of::<bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1>() as u32;
    const LOOPBACK: Self = V4(u32::from_ne_bytes([127, 0, 0, 1]));
    #[inline(always)]
    fn tuple((saddr, sport): (Self, Port), (daddr, dport): (Self, Port)) -> bpf_sock_tuple {
        let ipv4 = bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 {
            saddr: saddr.0,
            daddr: daddr.0,
            sport: sport.0,
            dport: dport.0,
        };
        bpf_sock_tuple { __bindgen_anon_1: bpf_sock_tuple__bindgen_ty_1 { ipv4 } }
    }
}

impl Tuple for V6 {
    const LENGTH: u32 = size_of::<bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2>() as u32;
    const LOOPBACK: Self = V6([0, 0, 0, u32::from_ne_bytes([0, 0, 0, 1])]);
    #[inline(always)]
    fn tuple((saddr, sport): (Self, Port), (daddr, dport): (Self, Port)) -> bpf_sock_tuple {
        let ipv6 = bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2 {
            saddr: saddr.0,
            daddr: daddr.0,
            sport: sport.0,
            dport: dport.0,
        };
        bpf_sock_tuple { __bindgen_anon_1: bpf_sock_tuple__bindgen_ty_1 { ipv6 } }
    }
}

const CURRENT_NETNS: u64 = -1i64 as u64;
/// States of sockets, as the kernel numbers them.
const ESTABLISHED: u32 = 1;
const TIME_WAIT: u32 = 6;
const LISTEN: u32 = 10;

/// What the kernel says of giving a packet to a socket.
#[inline(always)]
fn assigned(answer: i64) -> Socket {
    if answer == 0 { Socket::Found } else { Socket::Refused }
}

/// See [`Tables::socket`]. Sockets of both protocols are of different types to the kernel's verifier.
#[inline(always)]
fn socket<A: Tuple>(skb: *mut __sk_buff, p: &Packet<A>, which: Wanted, assign: bool) -> Socket {
    let from = (p.source, p.source_port);
    let (listening, to) = match which {
        Wanted::Connected => (false, (p.destination, p.destination_port)),
        Wanted::Listening(port) => (true, (A::LOOPBACK, port)),
    };
    let mut tuple = A::tuple(from, to);
    let mut found = Socket::None;
    if p.protocol == TCP {
        // SAFETY: the tuple is as long as is said; the socket is released on all ways
        let sk = unsafe { bpf_skc_lookup_tcp(skb.cast(), &mut tuple, A::LENGTH, CURRENT_NETNS, 0) };
        if sk.is_null() {
            return found;
        }
        let state = unsafe { (*sk).state };
        // a connection that is over gives way to a new one with the same ports
        let over = state == TIME_WAIT && p.tcp_flags & (SYN | ACK) == SYN;
        if (state == LISTEN) == listening && !over {
            found = if assign { assigned(unsafe { bpf_sk_assign(skb.cast(), sk.cast(), 0) }) } else { Socket::Found };
        }
        unsafe { bpf_sk_release(sk.cast()) };
    } else {
        // SAFETY: as above
        let sk = unsafe { bpf_sk_lookup_udp(skb.cast(), &mut tuple, A::LENGTH, CURRENT_NETNS, 0) };
        if sk.is_null() {
            return found;
        }
        if (unsafe { (*sk).state } != ESTABLISHED) == listening {
            found = if assign { assigned(unsafe { bpf_sk_assign(skb.cast(), sk.cast(), 0) }) } else { Socket::Found };
        }
        unsafe { bpf_sk_release(sk.cast()) };
    }
    found
}

macro_rules! address {
    ($map:path) => {
        core::ptr::from_ref(&$map).cast::<c_void>()
    };
}

macro_rules! tables {
    ($addr:ty, $lxc:ident, $ipcache:ident, $ct:ident, $services:ident, $backends:ident, $revnat:ident, $snat:ident, $fragments:ident) => {
        impl Tables<$addr> for Kernel {
            #[inline(always)]
            fn endpoint(&self, addr: &$addr) -> Option<Endpoint> {
                lookup::<_, Endpoint>(address!(maps::$lxc), addr).copied()
            }
            #[inline(always)]
            fn remote(&self, addr: &$addr) -> Option<RemoteEndpoint> {
                let key = IpcacheKey { prefix_len: <$addr as Addr>::BITS, addr: *addr };
                lookup::<_, RemoteEndpoint>(address!(maps::$ipcache), &key).copied()
            }
            #[inline(always)]
            fn connection(&self, key: &CtKey<$addr>) -> Option<&CtEntry> {
                lookup(address!(maps::$ct), key)
            }
            #[inline(always)]
            fn connect(&self, key: &CtKey<$addr>, fill: impl FnOnce(&mut CtEntry)) -> bool {
                let Some(entry) = scratch() else { return false };
                fill(entry);
                update(address!(maps::$ct), key, entry, ANY)
            }
            #[inline(always)]
            fn service(&self, key: &ServiceKey<$addr>) -> Option<Service> {
                lookup::<_, Service>(address!(maps::$services), key).copied()
            }
            #[inline(always)]
            fn backend(&self, id: u32) -> Option<Backend<$addr>> {
                lookup::<_, Backend<$addr>>(address!(maps::$backends), &id).copied()
            }
            #[inline(always)]
            fn reverse_nat(&self, index: u16) -> Option<ReverseNat<$addr>> {
                lookup::<_, ReverseNat<$addr>>(address!(maps::$revnat), &(index as u32)).copied()
            }
            #[inline(always)]
            fn nat(&self, key: &NatKey<$addr>) -> Option<&NatEntry<$addr>> {
                lookup(address!(maps::$snat), key)
            }
            #[inline(always)]
            fn nat_insert(&self, key: &NatKey<$addr>, entry: &NatEntry<$addr>, only_new: bool) -> bool {
                update(address!(maps::$snat), key, entry, if only_new { NO_EXIST } else { ANY })
            }
            #[inline(always)]
            fn fragment(&self, key: &FragmentKey<$addr>) -> Option<&FragmentPorts> {
                lookup(address!(maps::$fragments), key)
            }
            #[inline(always)]
            fn fragment_insert(&self, key: &FragmentKey<$addr>, ports: &FragmentPorts) -> bool {
                update(address!(maps::$fragments), key, ports, ANY)
            }
            #[inline(always)]
            fn socket(&mut self, packet: &Packet<$addr>, which: Wanted, assign: bool) -> Socket {
                socket(self.skb, packet, which, assign)
            }
        }
    };
}

tables!(V4, LXC4, IPCACHE4, CT4, LB4_SERVICES, LB4_BACKENDS, LB4_REVERSE_NAT, SNAT4, FRAGMENTS4);
tables!(V6, LXC6, IPCACHE6, CT6, LB6_SERVICES, LB6_BACKENDS, LB6_REVERSE_NAT, SNAT6, FRAGMENTS6);

impl Env for Kernel {
    #[inline(always)]
    fn config(&self) -> Option<&NodeConfig> {
        lookup(address!(maps::NODE_CONFIG), &0u32)
    }
    #[inline(always)]
    fn ifindex(&self) -> u32 {
        unsafe { (*self.skb).ifindex }
    }
    #[inline(always)]
    fn came_by(&self) -> u32 {
        unsafe { (*self.skb).ingress_ifindex }
    }
    #[inline(always)]
    fn mark(&self) -> u32 {
        unsafe { (*self.skb).mark }
    }
    #[inline(always)]
    fn set_mark(&mut self, mark: u32) {
        unsafe { (*self.skb).mark = mark };
    }
    #[inline(always)]
    fn socket_cookie(&self) -> SocketCookie {
        let cookie = unsafe { bpf_get_socket_cookie(self.skb.cast()) };
        [cookie as u32, (cookie >> 32) as u32]
    }
    #[inline(always)]
    fn proxy_socket(&self, cookie: &SocketCookie) -> Option<ProxySocket> {
        lookup::<_, ProxySocket>(address!(maps::PROXY_SOCKETS), cookie).copied()
    }
    #[inline(always)]
    fn device(&self, ifindex: u32) -> Option<Endpoint> {
        lookup::<_, Endpoint>(address!(maps::DEVICES), &ifindex).copied()
    }
    #[inline(always)]
    fn policy(&self, endpoint: u32) -> Option<EndpointPolicy> {
        // one load of eight bytes: the slot and its revision belong together
        let word = lookup::<_, u64>(address!(maps::EP_POLICY), &endpoint)?;
        let word = unsafe { core::ptr::read_volatile(word) };
        Some(EndpointPolicy { slot: word as u32, revision_and_modes: (word >> 32) as u32 })
    }
    #[inline(always)]
    fn class(&self, slot: u32, identity: Identity) -> Option<Class> {
        let inner = lookup::<_, c_void_map>(address!(maps::POLICY_CLASSES), &slot)?;
        lookup::<_, u32>(core::ptr::from_ref(inner).cast(), &identity).copied()
    }
    #[inline(always)]
    fn verdict(&self, slot: u32, key: &VerdictKey) -> Option<&CountedVerdict> {
        let inner = lookup::<_, c_void_map>(address!(maps::POLICY_VERDICTS), &slot)?;
        lookup(core::ptr::from_ref(inner).cast(), key)
    }
    #[inline(always)]
    fn metric(&self, key: &MetricKey) -> Option<&Metric> {
        lookup(address!(maps::METRICS), key)
    }
    #[inline(always)]
    fn emit(&self, events: u32, fill: impl FnOnce(&mut Record)) {
        let counters = lookup::<_, abi::metrics::EventCounters>(address!(maps::EVENT_COUNTERS), &0u32);
        let place = unsafe { bpf_ringbuf_reserve(address!(maps::EVENTS) as *mut c_void, size_of::<Record>() as u64, 0) }
            as *mut Record;
        let Some(record) = (unsafe { place.as_mut() }) else {
            if let Some(c) = counters {
                c.lost.set(c.lost.get() + events as u64);
            }
            return;
        };
        fill(record);
        // without a wake-up: the reader drains on a timer
        unsafe { bpf_ringbuf_submit(place.cast(), 1) };
        if let Some(c) = counters {
            c.sent.set(c.sent.get() + events as u64);
        }
    }
    #[inline(always)]
    fn opaque(&self, numbers: [u32; 3]) -> [u32; 3] {
        let map = core::ptr::from_ref(&maps::OPAQUE) as *mut c_void;
        let place = unsafe { bpf_map_lookup_elem(map, core::ptr::from_ref(&0u32).cast()) }.cast::<[u32; 3]>();
        if place.is_null() {
            return [0; 3];
        }
        unsafe {
            core::ptr::write_volatile(place, numbers);
            core::ptr::read_volatile(place)
        }
    }
    #[inline(always)]
    fn seconds(&self) -> u32 {
        abi::conntrack::second(unsafe { bpf_ktime_get_coarse_ns() })
    }
    #[inline(always)]
    fn nanoseconds(&self) -> u64 {
        unsafe { bpf_ktime_get_ns() }
    }
    #[inline(always)]
    fn random(&self) -> u32 {
        unsafe { bpf_get_prandom_u32() }
    }
    #[inline(always)]
    fn length(&self) -> u32 {
        unsafe { (*self.skb).len }
    }
    #[inline(always)]
    fn load<T: Plain + Copy>(&self, at: usize) -> Option<T> {
        if let Some(p) = self.bytes::<T>(at) {
            // SAFETY: the bounds were checked. The pointer may be unaligned, which single BPF loads allow; where a
            // machine does not, the kernel's verifier refuses the program.
            return Some(unsafe { *p });
        }
        let mut value = MaybeUninit::<T>::uninit();
        let done =
            unsafe { bpf_skb_load_bytes(self.skb.cast(), at as u32, value.as_mut_ptr().cast(), size_of::<T>() as u32) };
        if done == 0 { Some(unsafe { value.assume_init() }) } else { None }
    }
    #[inline(always)]
    fn load_at<T: Plain + Copy + Default>(&self, at: u32) -> Option<T> {
        let mut value = T::default();
        let done = unsafe {
            bpf_skb_load_bytes(self.skb.cast(), at, core::ptr::from_mut(&mut value).cast(), size_of::<T>() as u32)
        };
        if done == 0 { Some(value) } else { None }
    }
    #[inline(always)]
    fn address_frame(&mut self, destination: Mac, source: Mac) -> bool {
        let Some(p) = self.bytes::<[u16; 6]>(0) else { return false };
        let half = |mac: Mac, i: usize| u16::from_ne_bytes([mac.0[i], mac.0[i + 1]]);
        let words = [
            half(destination, 0),
            half(destination, 2),
            half(destination, 4),
            half(source, 0),
            half(source, 2),
            half(source, 4),
        ];
        // SAFETY: the bounds were checked, and nobody else writes the packet now
        unsafe { *p.cast_mut() = words };
        true
    }
    #[inline(always)]
    fn store<T: Plain + Copy>(&mut self, at: u32, value: T) -> bool {
        unsafe {
            bpf_skb_store_bytes(self.skb.cast(), at, core::ptr::from_ref(&value).cast(), size_of::<T>() as u32, 0) == 0
        }
    }
    #[inline(always)]
    fn correct_l3(&mut self, at: u32, from: u32, to: u32) -> bool {
        unsafe { bpf_l3_csum_replace(self.skb.cast(), at, from as u64, to as u64, 4) == 0 }
    }
    #[inline(always)]
    fn correct_l4(&mut self, at: u32, c: Change) -> bool {
        let mut flags = c.size as u64;
        if c.udp {
            flags |= MARK_MANGLED_0;
        }
        if c.pseudo {
            flags |= PSEUDO;
        }
        unsafe { bpf_l4_csum_replace(self.skb.cast(), at, c.from as u64, c.to as u64, flags) == 0 }
    }
    #[inline(always)]
    fn tunnel_key(&self) -> Option<(u32, V4)> {
        let mut key = MaybeUninit::<bpf_tunnel_key>::uninit();
        let got =
            unsafe { bpf_skb_get_tunnel_key(self.skb.cast(), key.as_mut_ptr(), size_of::<bpf_tunnel_key>() as u32, 0) };
        if got < 0 {
            return None;
        }
        let key = unsafe { key.assume_init() };
        // the kernel gives the address in host order
        Some((key.tunnel_id, V4(unsafe { key.__bindgen_anon_1.remote_ipv4 }.to_be())))
    }
    #[inline(always)]
    fn to_tunnel(&mut self, identity: Identity, remote: V4, ifindex: u32) -> Option<i32> {
        let mut key = bpf_tunnel_key {
            tunnel_id: identity,
            __bindgen_anon_1: bpf_tunnel_key__bindgen_ty_1 { remote_ipv6: [u32::from_be(remote.0), 0, 0, 0] },
            tunnel_tos: 0,
            tunnel_ttl: 64,
            __bindgen_anon_2: bpf_tunnel_key__bindgen_ty_2 { tunnel_flags: 0 },
            tunnel_label: 0,
            __bindgen_anon_3: bpf_tunnel_key__bindgen_ty_3 { local_ipv6: [0; 4] },
        };
        let set = unsafe {
            bpf_skb_set_tunnel_key(self.skb.cast(), &mut key, size_of::<bpf_tunnel_key>() as u32, ZERO_CSUM_TX)
        };
        if set < 0 { None } else { Some(unsafe { bpf_redirect(ifindex, 0) } as i32) }
    }
    #[inline(always)]
    fn to_peer(&mut self, ifindex: u32) -> i32 {
        self.for_host();
        unsafe { bpf_redirect_peer(ifindex, 0) as i32 }
    }
    #[inline(always)]
    fn to_device(&mut self, ifindex: u32) -> i32 {
        unsafe { bpf_redirect(ifindex, 0) as i32 }
    }
    #[inline(always)]
    fn for_host(&mut self) {
        if unsafe { (*self.skb).pkt_type } != PACKET_HOST {
            unsafe { bpf_skb_change_type(self.skb.cast(), PACKET_HOST) };
        }
    }
    #[inline(always)]
    fn back(&mut self) -> i32 {
        unsafe { bpf_redirect((*self.skb).ifindex, 0) as i32 }
    }
}

/// An inner map, seen through its outer one; never read as a value.
#[allow(non_camel_case_types)]
#[repr(C)]
struct c_void_map {
    opaque: [u8; 0],
}
