//! How do redirected datagrams come in, with the addresses that they were sent to?

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use nix::cmsg_space;
use nix::libc;
use nix::sys::socket::sockopt::{Ipv4OrigDstAddr, Ipv6OrigDstAddr};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt};
use proxy_api::{Direction, Protocol};
use socket2::{Domain, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::reply::Replies;
use super::{Dns, Ends};
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

/// A socket with questions.
pub struct Datagrams {
    socket: Arc<UdpSocket>,
}

impl Datagrams {
    /// For the runtime.
    pub fn register(socket: OwnedFd) -> io::Result<Datagrams> {
        Ok(Datagrams { socket: Arc::new(UdpSocket::from_std(socket.into())?) })
    }

    /// The socket, for the next process.
    pub fn copy(&self) -> io::Result<OwnedFd> {
        self.socket.as_fd().try_clone_to_owned()
    }

    /// Takes questions until it is told to stop.
    pub fn serve(
        &self,
        dns: Arc<Dns>,
        replies: Arc<Replies>,
        direction: Direction,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send + 'static {
        let socket = Arc::clone(&self.socket);
        async move {
            loop {
                let ready = tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    ready = socket.readable() => ready,
                };
                if ready.is_err() {
                    return;
                }
                // Many are read for one waking, and others have their turn between.
                for _ in 0..64 {
                    match socket.try_io(Interest::READABLE, || receive(&socket)) {
                        Ok(Some(question)) => {
                            tasks.spawn(answer(Arc::clone(&dns), Arc::clone(&replies), direction, question));
                        }
                        Ok(None) => dns.shared.counters.dns_unreadable.add(),
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                        Err(error) => {
                            tracing::debug!(%error, "a datagram could not be taken");
                            break;
                        }
                    }
                }
            }
        }
    }
}

/// A datagram and its addresses.
struct Datagram {
    client: SocketAddr,
    server: SocketAddr,
    message: Vec<u8>,
}

fn receive(socket: &UdpSocket) -> io::Result<Option<Datagram>> {
    let mut room = [0; LONGEST];
    let mut control = cmsg_space!(libc::sockaddr_in6);
    let mut slices = [IoSliceMut::new(&mut room)];
    let flags = MsgFlags::MSG_DONTWAIT;
    let got = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut slices, Some(&mut control), flags)?;
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
    Ok(Some(Datagram { client, server, message: room[..length].to_vec() }))
}

async fn answer(dns: Arc<Dns>, replies: Arc<Replies>, direction: Direction, question: Datagram) {
    let Datagram { client, server, message } = question;
    let ends = Ends { client, server, protocol: Protocol::Udp };
    let (facts, rules) = match dns.facts(ends, direction) {
        Ok(found) => found,
        Err(unknown) => {
            tracing::debug!(%client, %server, why = unknown.reason(), "a question is refused");
            return dns.shared.counters.refused_unknown.add();
        }
    };
    let exchange = |question, message| dns.pool.ask(&facts, (client, server), question, message);
    let Some(answer) = dns.answer(ends, &facts, &rules, &message, exchange).await else { return };
    if let Err(error) = replies.send(server, client, &answer) {
        tracing::debug!(%client, %error, "an answer could not be sent");
        dns.shared.counters.dns_failed.add();
    }
}
