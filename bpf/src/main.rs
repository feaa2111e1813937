//! Where does a packet or a system call enter the datapath? One entry point per hook; the decisions are in `pipeline`.
#![no_std]
#![no_main]

mod kernel;
mod maps;
mod socket;

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::macros::{cgroup_sock_addr, classifier};
use aya_ebpf::programs::{SockAddrContext, TcContext};
use kernel::Kernel;
use pipeline::entry;

#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual BSD/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const PASS: i32 = 0;
const DROP: i32 = 2;

/// A function of its own for each family: each has the whole stack for itself and is verified once.
macro_rules! families {
    ($($name:ident = $entry:path;)*) => {
        $(#[inline(never)]
        fn $name(skb: *mut __sk_buff) -> i32 {
            match kernel::work() {
                Some(work) => $entry(&mut Kernel::new(skb), work),
                None => DROP,
            }
        })*
    };
}

families! {
    container4 = entry::container4;
    container6 = entry::container6;
    overlay4 = entry::overlay::<abi::V4, Kernel>;
    overlay6 = entry::overlay::<abi::V6, Kernel>;
    host4 = entry::host::<abi::V4, Kernel>;
    host6 = entry::host::<abi::V6, Kernel>;
    netdev4 = entry::netdev::<abi::V4, Kernel>;
    netdev6 = entry::netdev::<abi::V6, Kernel>;
    to_netdev4 = entry::to_netdev::<abi::V4, Kernel>;
    to_netdev6 = entry::to_netdev::<abi::V6, Kernel>;
}

#[inline(never)]
fn container_other(skb: *mut __sk_buff) -> i32 {
    entry::container_other(&mut Kernel::new(skb))
}

#[inline(never)]
fn overlay_other(skb: *mut __sk_buff) -> i32 {
    entry::overlay_other(&Kernel::new(skb))
}

#[classifier]
pub fn from_container(ctx: TcContext) -> i32 {
    match kernel::ether_type(&ctx) {
        IPV4 => container4(ctx.skb.skb),
        IPV6 => container6(ctx.skb.skb),
        _ => container_other(ctx.skb.skb),
    }
}

#[classifier]
pub fn from_overlay(ctx: TcContext) -> i32 {
    match kernel::ether_type(&ctx) {
        IPV4 => overlay4(ctx.skb.skb),
        IPV6 => overlay6(ctx.skb.skb),
        _ => overlay_other(ctx.skb.skb),
    }
}

#[classifier]
pub fn from_host(ctx: TcContext) -> i32 {
    match kernel::ether_type(&ctx) {
        IPV4 => host4(ctx.skb.skb),
        IPV6 => host6(ctx.skb.skb),
        _ => PASS,
    }
}

#[classifier]
pub fn from_netdev(ctx: TcContext) -> i32 {
    match kernel::ether_type(&ctx) {
        IPV4 => netdev4(ctx.skb.skb),
        IPV6 => netdev6(ctx.skb.skb),
        _ => PASS,
    }
}

#[classifier]
pub fn to_netdev(ctx: TcContext) -> i32 {
    match kernel::ether_type(&ctx) {
        IPV4 => to_netdev4(ctx.skb.skb),
        IPV6 => to_netdev6(ctx.skb.skb),
        _ => PASS,
    }
}

#[cgroup_sock_addr(connect4)]
pub fn sock_connect4(ctx: SockAddrContext) -> i32 {
    socket::connect4(&ctx)
}

#[cgroup_sock_addr(connect6)]
pub fn sock_connect6(ctx: SockAddrContext) -> i32 {
    socket::connect6(&ctx)
}

#[cgroup_sock_addr(sendmsg4)]
pub fn sock_sendmsg4(ctx: SockAddrContext) -> i32 {
    socket::connect4(&ctx)
}

#[cgroup_sock_addr(sendmsg6)]
pub fn sock_sendmsg6(ctx: SockAddrContext) -> i32 {
    socket::connect6(&ctx)
}

#[cgroup_sock_addr(recvmsg4)]
pub fn sock_recvmsg4(ctx: SockAddrContext) -> i32 {
    socket::back4(&ctx)
}

#[cgroup_sock_addr(recvmsg6)]
pub fn sock_recvmsg6(ctx: SockAddrContext) -> i32 {
    socket::back6(&ctx)
}

#[cgroup_sock_addr(getpeername4)]
pub fn sock_getpeername4(ctx: SockAddrContext) -> i32 {
    socket::back4(&ctx)
}

#[cgroup_sock_addr(getpeername6)]
pub fn sock_getpeername6(ctx: SockAddrContext) -> i32 {
    socket::back6(&ctx)
}
