//! How does an answer come from the server's own address and port?
//!
//! No socket is bound to them: on the node's own addresses it would take the place of who serves there. A raw socket
//! sends the datagram, and receives nothing: it is bound to an address that nobody has, so that the kernel does not copy
//! every datagram of the node for it, only to find that it wants none.

use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;

use nix::libc;
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

const HEADER: usize = 8;
const UDP: u8 = 17;
/// For documents (RFC 5737), and of the prefix that is discarded (RFC 6666).
const NOBODY: (Ipv4Addr, Ipv6Addr) = (Ipv4Addr::new(192, 0, 2, 1), Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 1));

/// Sends datagrams in the names of others.
#[derive(Debug)]
pub struct Replies {
    v4: Socket,
    v6: Option<Socket>,
}

impl Replies {
    /// Needs `CAP_NET_RAW` and `CAP_NET_ADMIN`.
    pub fn open() -> io::Result<Replies> {
        let v4 = raw(Domain::IPV4)?;
        v4.set_ip_transparent_v4(true)?;
        v4.bind(&SocketAddr::from((NOBODY.0, 0)).into())?;
        let v6 = || {
            let socket = raw(Domain::IPV6)?;
            socket.set_ip_transparent_v6(true)?;
            socket.bind(&SocketAddr::from((NOBODY.1, 0)).into())?;
            io::Result::Ok(socket)
        };
        Ok(Replies { v4, v6: v6().ok() })
    }

    /// Sends from one address to another. What the kernel has no room for is lost, as datagrams are.
    pub fn send(&self, from: SocketAddr, to: SocketAddr, data: &[u8]) -> io::Result<()> {
        let header = header(from, to, data).ok_or(io::ErrorKind::InvalidInput)?;
        let room = [IoSlice::new(&header), IoSlice::new(data)];
        // Raw sockets of IPv6 want no port.
        let target = SockaddrStorage::from(SocketAddr::new(to.ip(), 0));
        let sent = match (from.ip(), &self.v6) {
            (IpAddr::V4(source), _) => {
                let info = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(source.octets()) },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                let control = [ControlMessage::Ipv4PacketInfo(&info)];
                sendmsg(self.v4.as_raw_fd(), &room, &control, MsgFlags::MSG_DONTWAIT, Some(&target))
            }
            (IpAddr::V6(source), Some(socket)) => {
                let info =
                    libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: source.octets() }, ipi6_ifindex: 0 };
                let control = [ControlMessage::Ipv6PacketInfo(&info)];
                sendmsg(socket.as_raw_fd(), &room, &control, MsgFlags::MSG_DONTWAIT, Some(&target))
            }
            (IpAddr::V6(_), None) => return Err(io::ErrorKind::Unsupported.into()),
        };
        sent.map(|_| ()).map_err(io::Error::from)
    }
}

fn raw(domain: Domain) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::UDP))?;
    // Nothing comes here, and what might is not taken.
    socket.attach_filter(&[SockFilter::new(6, 0, 0, 0)])?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// The UDP header of this data; `None`: it is too long, or the addresses are of two families.
fn header(from: SocketAddr, to: SocketAddr, data: &[u8]) -> Option<[u8; HEADER]> {
    let length = u16::try_from(HEADER + data.len()).ok()?;
    let mut bytes = [0; HEADER];
    for (place, word) in bytes.chunks_exact_mut(2).zip([from.port(), to.port(), length]) {
        place.copy_from_slice(&word.to_be_bytes());
    }
    let mut sum = match (from.ip(), to.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            wire::checksum::sum(&destination.octets(), wire::checksum::sum(&source.octets(), 0))
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            wire::checksum::sum(&destination.octets(), wire::checksum::sum(&source.octets(), 0))
        }
        _ => return None,
    };
    let [high, low] = length.to_be_bytes();
    sum = wire::checksum::sum(&[0, UDP, high, low], sum);
    sum = wire::checksum::sum(&bytes, sum);
    // Zero says that there is no checksum (RFC 768).
    let checksum = match wire::checksum::checksum(data, sum) {
        0 => u16::MAX,
        other => other,
    };
    bytes[6..8].copy_from_slice(&checksum.to_be_bytes());
    Some(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::net::UdpSocket;
    use std::time::Duration;

    /// To a port of the loopback interface, as from addresses that are nobody's; needs root.
    #[test]
    fn datagrams_come_from_whom_they_should() {
        let replies = Replies::open().unwrap();
        for (client, server) in [("127.0.0.1:0", "127.9.8.7:53"), ("[::1]:0", "[::1]:53")] {
            let Ok(socket) = UdpSocket::bind(client) else { continue };
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let server: SocketAddr = server.parse().unwrap();
            for data in [&b"odd"[..], b"", &[7; 4000]] {
                replies.send(server, socket.local_addr().unwrap(), data).unwrap();
                let mut room = [0; 5000];
                let (length, from) = socket.recv_from(&mut room).unwrap();
                assert_eq!((from, &room[..length]), (server, data));
            }
        }
    }
}
