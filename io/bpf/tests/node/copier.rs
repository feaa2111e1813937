//! What is the least that a proxy can do? It copies bytes between a client and the server that the client meant.

use crate::bed::Node;
use abi::Port;
use bpf::{ProxyMaps, Redirected};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Where it listens, on the loopback addresses.
pub const PORT: Port = Port::new(10_001);

/// What the proxy knew of each connection.
pub type Seen = Arc<Mutex<Vec<(SocketAddr, SocketAddr, Option<Redirected>)>>>;

/// A proxy of a node. It ends with the test.
pub struct Copier {
    pub seen: Seen,
}

impl Copier {
    /// Listens for TCP and answers no datagram.
    pub fn start(node: &Node) -> Copier {
        let maps = Arc::new(ProxyMaps::open(node.datapath.pin_dir()).unwrap());
        let seen = Seen::default();
        for loopback in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
            let address = SocketAddr::new(loopback, PORT.number());
            let listener = node.space.run(|| {
                let socket = transparent(address, libc::SOCK_STREAM).unwrap();
                bind(&socket, address).unwrap();
                // SAFETY: the descriptor is a socket's
                assert_eq!(unsafe { libc::listen(socket.as_raw_fd(), 64) }, 0);
                TcpListener::from(socket)
            });
            let (maps, seen) = (maps.clone(), seen.clone());
            // sockets that a thread makes are of its namespace
            node.space.spawn(move || {
                for client in listener.incoming().flatten() {
                    let (maps, seen) = (maps.clone(), seen.clone());
                    thread::spawn(move || serve(client, &maps, &seen));
                }
            });
        }
        Copier { seen }
    }

    /// What was known of the last connection.
    pub fn last(&self) -> (SocketAddr, SocketAddr, Option<Redirected>) {
        *self.seen.lock().unwrap().last().unwrap()
    }
}

fn serve(client: TcpStream, maps: &ProxyMaps, seen: &Seen) {
    let (from, meant) = (client.peer_addr().unwrap(), client.local_addr().unwrap());
    let of = maps.redirected(6, from, meant).unwrap();
    seen.lock().unwrap().push((from, meant, of));
    let Some(of) = of else { return };
    let Ok(server) = upstream(maps, &of, from.ip(), meant) else { return };
    let (mut a, mut b) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    thread::spawn(move || copy(&mut a, &mut b));
    copy(&mut { server }, &mut { client });
}

/// A connection to a server in a client's name.
pub fn upstream(maps: &ProxyMaps, of: &Redirected, client: IpAddr, server: SocketAddr) -> io::Result<TcpStream> {
    let address = SocketAddr::new(client, 0);
    let socket = transparent(address, libc::SOCK_STREAM)?;
    option(&socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT)?;
    maps.speak_for(socket.as_fd(), of).map_err(io::Error::other)?;
    bind(&socket, address)?;
    connect(&socket, server)?;
    Ok(TcpStream::from(socket))
}

/// A stream socket of any address, not connected yet.
pub fn transparent_stream(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = transparent(address, libc::SOCK_STREAM)?;
    bind(&socket, address)?;
    Ok(socket)
}

/// A datagram socket that gets what clients send to others.
pub fn datagrams(node: &Node, loopback: IpAddr) -> UdpSocket {
    pretending(node, SocketAddr::new(loopback, PORT.number()))
}

/// A datagram socket of any address and port.
pub fn pretending(node: &Node, address: SocketAddr) -> UdpSocket {
    let socket = node.space.run(|| {
        let socket = transparent(address, libc::SOCK_DGRAM).unwrap();
        bind(&socket, address).unwrap();
        UdpSocket::from(socket)
    });
    socket.set_read_timeout(Some(Duration::from_millis(700))).unwrap();
    socket
}

fn copy(from: &mut TcpStream, to: &mut TcpStream) {
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

/// A socket that may have any address.
fn transparent(address: SocketAddr, kind: i32) -> io::Result<OwnedFd> {
    let (family, level, name) = match address {
        SocketAddr::V4(_) => (libc::AF_INET, libc::IPPROTO_IP, libc::IP_TRANSPARENT),
        SocketAddr::V6(_) => (libc::AF_INET6, libc::IPPROTO_IPV6, libc::IPV6_TRANSPARENT),
    };
    // SAFETY: no memory is involved
    let fd = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made it for us
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    option(&socket, level, name)?;
    option(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR)?;
    Ok(socket)
}

pub fn option(socket: &impl AsFd, level: i32, name: i32) -> io::Result<()> {
    let on = 1i32;
    // SAFETY: the value is as long as is said
    let done = unsafe {
        libc::setsockopt(socket.as_fd().as_raw_fd(), level, name, (&raw const on).cast(), size_of::<i32>() as u32)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn bind(socket: &OwnedFd, address: SocketAddr) -> io::Result<()> {
    let address = nix::sys::socket::SockaddrStorage::from(address);
    Ok(nix::sys::socket::bind(socket.as_raw_fd(), &address)?)
}

pub fn connect(socket: &OwnedFd, address: SocketAddr) -> io::Result<()> {
    let stream = TcpStream::from(socket.try_clone()?);
    stream.set_write_timeout(Some(Duration::from_millis(700)))?;
    let address = nix::sys::socket::SockaddrStorage::from(address);
    Ok(nix::sys::socket::connect(socket.as_raw_fd(), &address)?)
}
