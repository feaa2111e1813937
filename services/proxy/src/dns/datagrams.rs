//! How do redirected datagrams come in, with the addresses that they were sent to?

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::cmsg_space;
use nix::libc;
use nix::sys::socket::sockopt::{Ipv4OrigDstAddr, Ipv6OrigDstAddr};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt};
use socket2::{Domain, Socket, Type};

use crate::sockets::transparent;

/// Questions by UDP are short; what is longer is cut and unreadable.
const LONGEST: usize = 4_096;
/// Bytes that wait to be read.
const ROOM: usize = 4 << 20;

/// A socket that takes datagrams to any address. A second one cannot be bound while the first is there.
pub fn bind(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(socket2::Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
        setsockopt(&socket, Ipv6OrigDstAddr, &true)?;
    } else {
        setsockopt(&socket, Ipv4OrigDstAddr, &true)?;
    }
    transparent(&socket, address)?;
    socket.set_nonblocking(true)?;
    socket.set_recv_buffer_size(ROOM)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Takes datagrams, in room that stays.
#[derive(Default)]
pub struct Receiver {
    room: Vec<u8>,
    control: Vec<u8>,
}

/// A datagram that was taken.
pub struct Datagram<'a> {
    /// Who sent it.
    pub client: SocketAddr,
    /// To whom.
    pub server: SocketAddr,
    /// What it says.
    pub message: &'a [u8],
}

impl Receiver {
    /// With room for the longest question.
    pub fn new() -> Receiver {
        Receiver { room: vec![0; LONGEST], control: cmsg_space!(libc::sockaddr_in6) }
    }

    /// The next datagram; `None`: one that is too long, or without addresses.
    pub fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<Option<Datagram<'_>>> {
        let mut slices = [IoSliceMut::new(&mut self.room)];
        let (control, flags) = (Some(self.control.as_mut_slice()), MsgFlags::MSG_DONTWAIT);
        let got = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut slices, control, flags)?;
        let server = got.cmsgs()?.find_map(|message| match message {
            ControlMessageOwned::Ipv4OrigDstAddr(address) => {
                let ip = u32::from_be(address.sin_addr.s_addr).into();
                Some(SocketAddr::new(std::net::IpAddr::V4(ip), u16::from_be(address.sin_port)))
            }
            ControlMessageOwned::Ipv6OrigDstAddr(address) => {
                let ip = address.sin6_addr.s6_addr.into();
                Some(SocketAddr::new(std::net::IpAddr::V6(ip), u16::from_be(address.sin6_port)))
            }
            _ => None,
        });
        let client = got.address.and_then(|address| {
            let v4 = address.as_sockaddr_in().map(|address| SocketAddr::from((address.ip(), address.port())));
            v4.or_else(|| address.as_sockaddr_in6().map(|address| SocketAddr::from((address.ip(), address.port()))))
        });
        let (length, cut) = (got.bytes, got.flags.contains(MsgFlags::MSG_TRUNC));
        let (Some(client), Some(server), false) = (client, server, cut) else { return Ok(None) };
        Ok(Some(Datagram { client, server, message: &self.room[..length] }))
    }
}
