//! How does a program listen at one address, or at every address of both families?

use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage, setsockopt, sockopt};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use tokio::net::TcpListener;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// Listens at `port` of every address, of both families where the machine has both.
pub fn listen_everywhere(port: u16) -> io::Result<TcpListener> {
    listen((Ipv6Addr::UNSPECIFIED, port).into()).or_else(|_| listen((Ipv4Addr::UNSPECIFIED, port).into()))
}

/// Listens at one address, which need not be an address of a device: it is enough that packets for it are delivered here.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let fd = bound(address, SockType::Stream, false)?;
    let backlog = socket::Backlog::new(BACKLOG).map_err(io::Error::from)?;
    socket::listen(&fd, backlog)?;
    TcpListener::from_std(fd.into())
}

/// A socket bound to `address`. The wildcard of IPv6 also takes IPv4, unless `alone`.
pub(crate) fn bound(address: SocketAddr, kind: SockType, alone: bool) -> io::Result<OwnedFd> {
    let family = if address.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let fd = socket::socket(family, kind, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, None)?;
    if kind == SockType::Stream {
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    }
    if address.is_ipv6() {
        setsockopt(&fd, sockopt::Ipv6V6Only, &alone)?;
    }
    // also for wildcards: by IPv6, answers may leave from an address of no device only with this
    setsockopt(&fd, sockopt::IpFreebind, &true)?;
    socket::bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(fd)
}

/// An address as its own family knows it: a listener for both families sees IPv4 as `::ffff:a.b.c.d`.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Both wildcards.
pub fn wildcards() -> [IpAddr; 2] {
    [Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::net::TcpStream;

    #[tokio::test]
    async fn everywhere_takes_ipv4_and_says_so() {
        let listener = listen_everywhere(0).unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        let (server, peer) = listener.accept().await.unwrap();
        assert_eq!(canonical(peer), client.local_addr().unwrap());
        assert_eq!(canonical(server.local_addr().unwrap()).ip(), Ipv4Addr::LOCALHOST);
    }

    #[tokio::test]
    async fn an_address_of_no_device_can_be_listened_at() {
        let listener = listen("192.0.2.1:0".parse().unwrap()).unwrap();
        assert_eq!(listener.local_addr().unwrap().ip().to_string(), "192.0.2.1");
    }
}
