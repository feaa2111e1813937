//! How does an answer come from the server's own address and port?
//!
//! No socket is bound to them: on the node's own addresses it would take the place of who serves there. A raw socket
//! sends the datagram, and receives nothing: it is bound to an address that nobody has, so that the kernel does not copy
//! every datagram of the node for it, only to find that it wants none.

use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::os::fd::AsRawFd;

use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg};
use nix::{cmsg_space, libc};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

const HEADER: usize = 8;
/// Datagrams in one call.
const TOGETHER: usize = 64;
const UDP: u8 = 17;
/// For documents (RFC 5737), and of the prefix that is discarded (RFC 6666).
const NOBODY: (Ipv4Addr, Ipv6Addr) = (Ipv4Addr::new(192, 0, 2, 1), Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 1));

/// Sends datagrams in the names of others, those that have come together by one call.
#[derive(Debug)]
pub struct Replies {
    v4: Socket,
    v6: Option<Socket>,
    waiting: Vec<Reply>,
    /// What waits, one datagram behind the other.
    datagrams: Vec<u8>,
}

#[derive(Debug)]
struct Reply {
    from: IpAddr,
    to: SocketAddr,
    datagram: Range<usize>,
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
        Ok(Replies { v4, v6: v6().ok(), waiting: Vec::new(), datagrams: Vec::new() })
    }

    /// Takes on what goes from one address to another. What is longer than a datagram is not sent.
    pub fn push(&mut self, from: SocketAddr, to: SocketAddr, data: &[u8]) {
        let Some(header) = header(from, to, data) else {
            return tracing::debug!(%from, %to, length = data.len(), "no datagram can be made of an answer");
        };
        let begin = self.datagrams.len();
        self.datagrams.extend_from_slice(&header);
        self.datagrams.extend_from_slice(data);
        self.waiting.push(Reply { from: from.ip(), to, datagram: begin..self.datagrams.len() });
    }

    /// Sends what was taken on. What the kernel has no room for is lost, as datagrams are; said is to whom.
    pub fn send(&mut self) -> Vec<(SocketAddr, io::Error)> {
        let mut failed = Vec::new();
        self.waiting.sort_by_key(|reply| reply.from);
        for group in self.waiting.chunk_by(|one, other| one.from == other.from) {
            let mut rest = group;
            while let Some(first) = rest.first() {
                match self.send_some(rest) {
                    // One at least, or it is an error.
                    Ok(sent) => rest = &rest[sent.max(1)..],
                    Err(error) => {
                        failed.push((first.to, error));
                        rest = &rest[1..];
                    }
                }
            }
        }
        self.waiting.clear();
        self.datagrams.clear();
        failed
    }

    /// Sends from one address; how many, from the first.
    fn send_some(&self, replies: &[Reply]) -> io::Result<usize> {
        let replies = &replies[..replies.len().min(TOGETHER)];
        let Some(first) = replies.first() else { return Ok(0) };
        let (v4, v6);
        let (socket, control, room) = match (first.from, &self.v6) {
            (IpAddr::V4(source), _) => {
                v4 = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(source.octets()) },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                (&self.v4, ControlMessage::Ipv4PacketInfo(&v4), cmsg_space!(libc::in_pktinfo))
            }
            (IpAddr::V6(source), Some(socket)) => {
                v6 = libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: source.octets() }, ipi6_ifindex: 0 };
                (socket, ControlMessage::Ipv6PacketInfo(&v6), cmsg_space!(libc::in6_pktinfo))
            }
            (IpAddr::V6(_), None) => return Err(io::ErrorKind::Unsupported.into()),
        };
        // Raw sockets of IPv6 want no port.
        let target = |reply: &Reply| Some(SockaddrStorage::from(SocketAddr::new(reply.to.ip(), 0)));
        let targets: Vec<_> = replies.iter().map(target).collect();
        let slices: Vec<_> =
            replies.iter().map(|reply| [IoSlice::new(&self.datagrams[reply.datagram.clone()])]).collect();
        let mut headers = MultiHeaders::preallocate(replies.len(), Some(room));
        let sent = sendmmsg(socket.as_raw_fd(), &mut headers, &slices, &targets, [control], MsgFlags::MSG_DONTWAIT)?;
        Ok(sent.count())
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
        let mut replies = Replies::open().unwrap();
        for (client, servers) in
            [("127.0.0.1:0", ["127.9.8.7:53", "127.9.8.6:53"]), ("[::1]:0", ["[::1]:53", "[::1]:54"])]
        {
            let Ok(socket) = UdpSocket::bind(client) else { continue };
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let servers = servers.map(|server| server.parse::<SocketAddr>().unwrap());
            let long = [7; 4000];
            let mut wanted: Vec<(SocketAddr, &[u8])> = Vec::new();
            for data in [&long[..]].into_iter().chain([&b"odd"[..], b""].into_iter().cycle().take(TOGETHER + 6)) {
                wanted.extend(servers.map(|server| (server, data)));
            }
            for (server, data) in &wanted {
                replies.push(*server, socket.local_addr().unwrap(), data);
            }
            replies.push(servers[0], socket.local_addr().unwrap(), &[0; 65_528]);
            assert!(replies.send().is_empty());
            assert!(replies.send().is_empty() && replies.datagrams.is_empty());
            let mut found = Vec::new();
            for _ in 0..wanted.len() {
                let mut room = [0; 5000];
                let (length, from) = socket.recv_from(&mut room).unwrap();
                found.push((from, room[..length].to_vec()));
            }
            // Those of one server come in their order.
            wanted.sort_by_key(|(from, _)| *from);
            found.sort_by_key(|(from, _)| *from);
            assert!(wanted.iter().copied().eq(found.iter().map(|(from, data)| (*from, &data[..]))));
        }
    }

    #[test]
    fn what_cannot_be_sent_is_said_and_the_rest_goes_out() {
        let mut replies = Replies::open().unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let (client, nobody) = (socket.local_addr().unwrap(), "255.255.255.255:9".parse().unwrap());
        for to in [nobody, client, nobody, client] {
            replies.push("127.9.8.7:53".parse().unwrap(), to, b"a");
        }
        let failed: Vec<SocketAddr> = replies.send().into_iter().map(|(to, _)| to).collect();
        assert_eq!(failed, [nobody; 2]);
        for _ in 0..2 {
            socket.recv_from(&mut [0; 9]).unwrap();
        }
    }
}
