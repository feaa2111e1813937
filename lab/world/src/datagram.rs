//! How does an answer by UDP leave from the address that was asked, when a socket listens at all of them?

use crate::sockets::{bound, wildcards};
use nix::cmsg_space;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockType, SockaddrStorage, recvmsg, sendmsg, setsockopt, sockopt,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// A UDP socket that knows to which of its addresses each datagram came.
#[derive(Debug)]
pub struct Datagrams {
    socket: UdpSocket,
}

/// Who sent a datagram, and to which address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exchange {
    /// The sender.
    pub peer: SocketAddr,
    /// The address that was asked; answers leave from it.
    pub local: Option<IpAddr>,
}

impl Datagrams {
    /// Receives at `address`; a wildcard receives for its own family only.
    pub fn bind(address: SocketAddr) -> io::Result<Datagrams> {
        let fd = bound(address, SockType::Datagram, true)?;
        match address {
            SocketAddr::V4(_) => setsockopt(&fd.as_fd(), sockopt::Ipv4PacketInfo, &true)?,
            SocketAddr::V6(_) => setsockopt(&fd.as_fd(), sockopt::Ipv6RecvPacketInfo, &true)?,
        }
        Ok(Datagrams { socket: UdpSocket::from_std(fd.into())? })
    }

    /// Sockets for every address of each family that the machine has; an error if there is none.
    pub fn bind_everywhere(port: u16) -> io::Result<Vec<Datagrams>> {
        let bound = wildcards().map(|address| Datagrams::bind((address, port).into()));
        let [v6, v4] = bound;
        match (v6, v4) {
            (Ok(v6), Ok(v4)) => Ok(vec![v6, v4]),
            (Ok(one), Err(_)) | (Err(_), Ok(one)) => Ok(vec![one]),
            (Err(_), Err(e)) => Err(e),
        }
    }

    /// The address that it is bound to.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// The next datagram: its length and where it came from.
    pub async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, Exchange)> {
        self.socket.async_io(Interest::READABLE, || receive(self.socket.as_raw_fd(), buffer)).await
    }

    /// Answers from the address that was asked.
    pub async fn answer(&self, bytes: &[u8], exchange: Exchange) -> io::Result<()> {
        self.socket.async_io(Interest::WRITABLE, || answer(self.socket.as_raw_fd(), bytes, exchange)).await
    }
}

fn receive(fd: i32, buffer: &mut [u8]) -> io::Result<(usize, Exchange)> {
    let mut space = cmsg_space!(nix::libc::in_pktinfo, nix::libc::in6_pktinfo);
    let mut parts = [IoSliceMut::new(buffer)];
    let message = recvmsg::<SockaddrStorage>(fd, &mut parts, Some(&mut space), MsgFlags::empty())?;
    let peer = message.address.as_ref().and_then(address_of).ok_or(io::ErrorKind::InvalidData)?;
    let local = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::Ipv4PacketInfo(info) => {
            Some(IpAddr::V4(Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes())))
        }
        ControlMessageOwned::Ipv6PacketInfo(info) => Some(IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr))),
        _ => None,
    });
    Ok((message.bytes, Exchange { peer, local }))
}

fn answer(fd: i32, bytes: &[u8], exchange: Exchange) -> io::Result<()> {
    let parts = [IoSlice::new(bytes)];
    let to = SockaddrStorage::from(exchange.peer);
    let send = |control: &[ControlMessage<'_>]| sendmsg(fd, &parts, control, MsgFlags::empty(), Some(&to));
    match exchange.local {
        Some(IpAddr::V4(from)) => {
            let source = nix::libc::in_addr { s_addr: u32::from_ne_bytes(from.octets()) };
            let info = nix::libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: source,
                ipi_addr: nix::libc::in_addr { s_addr: 0 },
            };
            send(&[ControlMessage::Ipv4PacketInfo(&info)])?
        }
        Some(IpAddr::V6(from)) => {
            let source = nix::libc::in6_addr { s6_addr: from.octets() };
            send(&[ControlMessage::Ipv6PacketInfo(&nix::libc::in6_pktinfo { ipi6_addr: source, ipi6_ifindex: 0 })])?
        }
        None => send(&[])?,
    };
    Ok(())
}

fn address_of(storage: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = storage.as_sockaddr_in().map(|a| SocketAddr::V4(SocketAddrV4::from(*a)));
    v4.or_else(|| storage.as_sockaddr_in6().map(|a| SocketAddr::V6(SocketAddrV6::from(*a))))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::time::Duration;

    /// Asks the wildcard by `asked` through a connected socket, which takes answers from `asked` only.
    async fn asked_and_answered(wildcard: &str, asked: &str) {
        let server = Datagrams::bind(wildcard.parse().unwrap()).unwrap();
        let port = server.local_addr().unwrap().port();
        let client = UdpSocket::bind(wildcard).await.unwrap();
        client.connect((asked, port)).await.unwrap();
        client.send(b"question").await.unwrap();
        let mut buffer = [0; 64];
        let (n, exchange) = server.receive(&mut buffer).await.unwrap();
        assert_eq!((&buffer[..n], exchange.local.unwrap().to_string()), (&b"question"[..], asked.to_string()));
        server.answer(b"answer", exchange).await.unwrap();
        let n = tokio::time::timeout(Duration::from_secs(5), client.recv(&mut buffer)).await.unwrap().unwrap();
        assert_eq!(&buffer[..n], b"answer");
    }

    #[tokio::test]
    async fn answers_leave_from_the_address_that_was_asked() {
        asked_and_answered("0.0.0.0:0", "127.0.0.7").await;
        if std::net::UdpSocket::bind("[::1]:0").is_ok() {
            asked_and_answered("[::]:0", "::1").await;
        }
    }
}
