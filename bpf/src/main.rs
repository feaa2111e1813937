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
use pipeline::forward::{self, HAND, LATER};
use pipeline::proxy;

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

/// A function of its own for each family: each has the whole stack for itself. Exported functions are global ones to the
/// kernel, which verifies them by themselves and not anew for each way to them.
macro_rules! families {
    ($($name:ident = $entry:path;)*) => {
        $(#[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $name(skb: *mut __sk_buff) -> i32 {
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
    to_host4 = entry::to_host::<abi::V4, Kernel>;
    to_host6 = entry::to_host::<abi::V6, Kernel>;
    later4 = forward::later::<abi::V4, Kernel>;
    later6 = forward::later::<abi::V6, Kernel>;
    node_answers4 = proxy::node_answers::<abi::V4, Kernel>;
    node_answers6 = proxy::node_answers::<abi::V6, Kernel>;
    hand_over4 = proxy::hand_over::<abi::V4, Kernel>;
    hand_over6 = proxy::hand_over::<abi::V6, Kernel>;
}

type Step = extern "C" fn(*mut __sk_buff) -> i32;

/// A packet's steps, as far as it takes them. They are called from here, so that none has its stack on top of another's.
#[inline(always)]
fn steps<const N: usize>(skb: *mut __sk_buff, judging: &[Step; N], hand_over: Step) -> i32 {
    let mut result = LATER;
    for step in judging {
        if result == LATER {
            result = step(skb);
        }
    }
    if result == HAND { hand_over(skb) } else { result }
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
        IPV4 => steps(ctx.skb.skb, &[container4, later4], hand_over4),
        IPV6 => steps(ctx.skb.skb, &[container6, later6], hand_over6),
        _ => container_other(ctx.skb.skb),
    }
}

#[classifier]
pub fn from_overlay(ctx: TcContext) -> i32 {
    match kernel::ether_type(&ctx) {
        IPV4 => steps(ctx.skb.skb, &[overlay4, later4], hand_over4),
        IPV6 => steps(ctx.skb.skb, &[overlay6, later6], hand_over6),
        _ => overlay_other(ctx.skb.skb),
    }
}

#[classifier]
pub fn from_host(ctx: TcContext) -> i32 {
    match kernel::ether_type(&ctx) {
        IPV4 => steps(ctx.skb.skb, &[host4, node_answers4, later4], hand_over4),
        IPV6 => steps(ctx.skb.skb, &[host6, node_answers6, later6], hand_over6),
        _ => PASS,
    }
}

#[classifier]
pub fn from_netdev(ctx: TcContext) -> i32 {
    match kernel::ether_type(&ctx) {
        IPV4 => steps(ctx.skb.skb, &[netdev4, later4], hand_over4),
        IPV6 => steps(ctx.skb.skb, &[netdev6, later6], hand_over6),
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

#[classifier]
pub fn to_host(ctx: TcContext) -> i32 {
    match kernel::ether_type(&ctx) {
        IPV4 => to_host4(ctx.skb.skb),
        IPV6 => to_host6(ctx.skb.skb),
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
