//! Where does a packet or a system call enter the datapath? One entry point per hook; the decisions are in `pipeline`.
#![no_std]
#![no_main]

mod maps;

use aya_ebpf::macros::{cgroup_sock_addr, classifier};
use aya_ebpf::programs::{SockAddrContext, TcContext};

#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual BSD/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[classifier]
pub fn from_container(_ctx: TcContext) -> i32 { 2 }
#[classifier]
pub fn from_overlay(_ctx: TcContext) -> i32 { 2 }
#[classifier]
pub fn from_host(_ctx: TcContext) -> i32 { 2 }
#[classifier]
pub fn from_netdev(_ctx: TcContext) -> i32 { 0 }
#[classifier]
pub fn to_netdev(_ctx: TcContext) -> i32 { 0 }
#[cgroup_sock_addr(connect4)]
pub fn sock_connect4(_ctx: SockAddrContext) -> i32 { 1 }
#[cgroup_sock_addr(connect6)]
pub fn sock_connect6(_ctx: SockAddrContext) -> i32 { 1 }
#[cgroup_sock_addr(sendmsg4)]
pub fn sock_sendmsg4(_ctx: SockAddrContext) -> i32 { 1 }
#[cgroup_sock_addr(sendmsg6)]
pub fn sock_sendmsg6(_ctx: SockAddrContext) -> i32 { 1 }
#[cgroup_sock_addr(recvmsg4)]
pub fn sock_recvmsg4(_ctx: SockAddrContext) -> i32 { 1 }
#[cgroup_sock_addr(recvmsg6)]
pub fn sock_recvmsg6(_ctx: SockAddrContext) -> i32 { 1 }
#[cgroup_sock_addr(getpeername4)]
pub fn sock_getpeername4(_ctx: SockAddrContext) -> i32 { 1 }
#[cgroup_sock_addr(getpeername6)]
pub fn sock_getpeername6(_ctx: SockAddrContext) -> i32 { 1 }
