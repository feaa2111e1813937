//! Which backend does a socket get that asks for a service address, and what does it see of that?

use crate::maps;
use abi::service::{Affinity, AffinityKey, Backend, FLAG_CLUSTER_IP, ReverseNat, Service, ServiceKey, SocketKey};
use abi::shared::Shared;
use abi::{Port, V4, V6};
use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::helpers::{bpf_get_netns_cookie, bpf_get_prandom_u32, bpf_get_socket_cookie, bpf_ktime_get_coarse_ns};
use aya_ebpf::programs::SockAddrContext;

const ALLOW: i32 = 1;
const REFUSE: i32 = 0;

/// With which backend a client of a service with session affinity stays. Clients are network namespaces.
#[inline(always)]
fn client(sa: *mut bpf_sock_addr, service: &Service, version: u8) -> AffinityKey {
    let cookie = unsafe { bpf_get_netns_cookie(sa.cast()) };
    let client = [cookie as u32, (cookie >> 32) as u32, 0, 0];
    AffinityKey { client, rev_nat: service.rev_nat, kind: version | COOKIE, pad: 0 }
}

/// Marks clients that are namespaces.
const COOKIE: u8 = 0x80;

#[inline(always)]
fn seconds() -> u32 {
    (unsafe { bpf_ktime_get_coarse_ns() } / 1_000_000_000) as u32
}

/// The backend that the client had last, if that is not too long ago.
#[inline(always)]
fn last_backend(client: &AffinityKey, timeout: u32) -> Option<u32> {
    let now = seconds();
    let last = unsafe { maps::LB_AFFINITY.get(client) }?;
    if now.wrapping_sub(last.last_used.get()) > timeout {
        return None;
    }
    last.last_used.set(now);
    Some(last.backend.get())
}

#[inline(always)]
fn keep_backend(client: &AffinityKey, backend: u32) {
    let entry = Affinity { backend: Shared::new(backend), last_used: Shared::new(seconds()) };
    // without room the client gets any backend next time
    let _ = maps::LB_AFFINITY.insert(client, &entry, 0);
}

enum Answer<A> {
    /// Not a service: as it is.
    Plain,
    /// A service without backends.
    Nobody,
    Backend(Backend<A>),
}

macro_rules! family {
    ($version:literal, $choose:ident, $remember:ident, $recall:ident, $addr:ty, $services:ident, $backends:ident, $reverse:ident) => {
        #[inline(always)]
        fn $choose(sa: *mut bpf_sock_addr, addr: $addr, port: Port, protocol: u8) -> Answer<$addr> {
            let front = ServiceKey { addr, port, backend_slot: 0, protocol, pad: [0; 3] };
            let Some(service): Option<&Service> = (unsafe { maps::$services.get(&front) }) else {
                return Answer::Plain;
            };
            if service.count == 0 {
                return if service.flags & FLAG_CLUSTER_IP != 0 { Answer::Nobody } else { Answer::Plain };
            }
            let client = client(sa, service, $version);
            if service.affinity_timeout != 0
                && let Some(id) = last_backend(&client, service.affinity_timeout)
                && let Some(backend) = unsafe { maps::$backends.get(&id) }
            {
                return Answer::Backend(*backend);
            }
            let slot = (unsafe { bpf_get_prandom_u32() } % service.count as u32) as u16 + 1;
            let Some(chosen) = (unsafe { maps::$services.get(&ServiceKey { backend_slot: slot, ..front }) }) else {
                return Answer::Nobody;
            };
            match unsafe { maps::$backends.get(&chosen.backend_id) } {
                Some(backend) => {
                    if service.affinity_timeout != 0 {
                        keep_backend(&client, chosen.backend_id);
                    }
                    Answer::Backend(*backend)
                }
                None => Answer::Nobody,
            }
        }

        #[inline(always)]
        fn $remember(cookie: u64, backend: &Backend<$addr>, addr: $addr, port: Port) -> bool {
            let key = SocketKey {
                cookie: [cookie as u32, (cookie >> 32) as u32],
                addr: backend.addr,
                port: backend.port,
                pad: 0,
            };
            maps::$reverse.insert(&key, &ReverseNat { addr, port, pad: 0 }, 0).is_ok()
        }

        #[inline(always)]
        fn $recall(cookie: u64, addr: $addr, port: Port) -> Option<ReverseNat<$addr>> {
            let key = SocketKey { cookie: [cookie as u32, (cookie >> 32) as u32], addr, port, pad: 0 };
            unsafe { maps::$reverse.get(&key) }.copied()
        }
    };
}

family!(4, choose4, remember4, recall4, V4, LB4_SERVICES, LB4_BACKENDS, LB4_REVERSE_SK);
family!(6, choose6, remember6, recall6, V6, LB6_SERVICES, LB6_BACKENDS, LB6_REVERSE_SK);

#[inline(always)]
fn cookie(sa: *mut bpf_sock_addr) -> u64 {
    unsafe { bpf_get_socket_cookie(sa.cast()) }
}

/// `connect` and `sendmsg`: the service's address becomes a backend's.
#[inline(always)]
pub fn connect4(ctx: &SockAddrContext) -> i32 {
    let sa = ctx.sock_addr;
    let (addr, port, protocol) = unsafe { (V4((*sa).user_ip4), Port((*sa).user_port as u16), (*sa).protocol as u8) };
    match choose4(sa, addr, port, protocol) {
        Answer::Plain => ALLOW,
        Answer::Nobody => REFUSE,
        Answer::Backend(backend) => {
            if !remember4(cookie(sa), &backend, addr, port) {
                return REFUSE;
            }
            unsafe {
                (*sa).user_ip4 = backend.addr.0;
                (*sa).user_port = backend.port.0 as u32;
            }
            ALLOW
        }
    }
}

/// `recvmsg` and `getpeername`: the backend's address becomes the service's.
#[inline(always)]
pub fn back4(ctx: &SockAddrContext) -> i32 {
    let sa = ctx.sock_addr;
    let (addr, port) = unsafe { (V4((*sa).user_ip4), Port((*sa).user_port as u16)) };
    if let Some(service) = recall4(cookie(sa), addr, port) {
        unsafe {
            (*sa).user_ip4 = service.addr.0;
            (*sa).user_port = service.port.0 as u32;
        }
    }
    ALLOW
}

#[inline(always)]
fn address6(sa: *mut bpf_sock_addr) -> V6 {
    unsafe { V6([(*sa).user_ip6[0], (*sa).user_ip6[1], (*sa).user_ip6[2], (*sa).user_ip6[3]]) }
}

#[inline(always)]
fn set_address6(sa: *mut bpf_sock_addr, addr: V6, port: Port) {
    unsafe {
        (*sa).user_ip6[0] = addr.0[0];
        (*sa).user_ip6[1] = addr.0[1];
        (*sa).user_ip6[2] = addr.0[2];
        (*sa).user_ip6[3] = addr.0[3];
        (*sa).user_port = port.0 as u32;
    }
}

/// IPv4 addresses as IPv6 sockets write them.
const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

#[inline(always)]
fn is_mapped(addr: &V6) -> bool {
    addr.0[0] == 0 && addr.0[1] == 0 && addr.0[2] == MAPPED
}

/// See [`connect4`].
#[inline(always)]
pub fn connect6(ctx: &SockAddrContext) -> i32 {
    let sa = ctx.sock_addr;
    let addr = address6(sa);
    let (port, protocol) = unsafe { (Port((*sa).user_port as u16), (*sa).protocol as u8) };
    if is_mapped(&addr) {
        let inner = V4(addr.0[3]);
        return match choose4(sa, inner, port, protocol) {
            Answer::Plain => ALLOW,
            Answer::Nobody => REFUSE,
            Answer::Backend(backend) => {
                if !remember4(cookie(sa), &backend, inner, port) {
                    return REFUSE;
                }
                set_address6(sa, V6([0, 0, MAPPED, backend.addr.0]), backend.port);
                ALLOW
            }
        };
    }
    match choose6(sa, addr, port, protocol) {
        Answer::Plain => ALLOW,
        Answer::Nobody => REFUSE,
        Answer::Backend(backend) => {
            if !remember6(cookie(sa), &backend, addr, port) {
                return REFUSE;
            }
            set_address6(sa, backend.addr, backend.port);
            ALLOW
        }
    }
}

/// See [`back4`].
#[inline(always)]
pub fn back6(ctx: &SockAddrContext) -> i32 {
    let sa = ctx.sock_addr;
    let addr = address6(sa);
    let port = unsafe { Port((*sa).user_port as u16) };
    if is_mapped(&addr) {
        if let Some(service) = recall4(cookie(sa), V4(addr.0[3]), port) {
            set_address6(sa, V6([0, 0, MAPPED, service.addr.0]), service.port);
        }
    } else if let Some(service) = recall6(cookie(sa), addr, port) {
        set_address6(sa, service.addr, service.port);
    }
    ALLOW
}
