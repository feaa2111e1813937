//! How are sockets made that speak with other people's addresses?

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;

use proxy_api::{Facts, Redirected};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Connections that wait to be taken.
const BACKLOG: i32 = 4_096;

/// The two addresses of a port that the datapath assigns connections to. Nobody else reaches them from outside.
pub fn addresses(port: u16) -> [SocketAddr; 2] {
    [(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()]
}

/// A listening socket that takes connections to any address. A second one cannot be bound while the first is there.
pub fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    transparent(&socket, address)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// For the runtime.
pub fn register(listener: std::net::TcpListener) -> io::Result<TcpListener> {
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// The socket may have addresses that are not the node's.
pub(crate) fn transparent(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    if address.is_ipv6() { socket.set_ip_transparent_v6(true) } else { socket.set_ip_transparent_v4(true) }
}

/// How servers are reached.
#[derive(Debug, Clone, Copy)]
pub enum Upstream {
    /// Where the client meant, from the client's address, marked.
    Transparent,
    /// Always there, from our own address: a reverse proxy, to measure and to test.
    Fixed(SocketAddr),
}

impl Upstream {
    /// Connects.
    pub async fn connect(
        self,
        redirected: &dyn Redirected,
        facts: &Facts,
        (client, server): (SocketAddr, SocketAddr),
        patience: Duration,
    ) -> io::Result<TcpStream> {
        let connecting = async {
            match self {
                Upstream::Fixed(address) => TcpStream::connect(address).await,
                Upstream::Transparent => from_client(redirected, facts, client, server).await,
            }
        };
        let stream = tokio::time::timeout(patience, connecting).await;
        let stream = stream.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// Where the ports of connections in a client's name lie: below those that clients get from their kernels.
///
/// Where both sides of a connection are on this node and both have rules, the server's side takes the second half from
/// the same network namespace. Had that the port of another connection of the client's to the same server, two sockets
/// would have one pair of addresses, and packets of one would come to the other.
const PORTS: std::ops::RangeInclusive<u16> = 20_001..=32_767;
/// How many ports are tried before the kernel chooses.
const TRIES: usize = 16;

/// Connects from the client's address and another port.
async fn from_client(
    redirected: &dyn Redirected,
    facts: &Facts,
    client: SocketAddr,
    server: SocketAddr,
) -> io::Result<TcpStream> {
    use io::ErrorKind::{AddrInUse, AddrNotAvailable};
    for _ in 0..TRIES {
        let own = SocketAddr::new(client.ip(), rand::random_range(PORTS));
        if own == client || redirected.facts(proxy_api::Protocol::Tcp, own, server).is_some() {
            continue;
        }
        let stream = match marked(redirected, facts, own) {
            Ok(socket) => socket.connect(server).await,
            Err(error) => Err(error),
        };
        match stream {
            Err(error) if matches!(error.kind(), AddrInUse | AddrNotAvailable) => {}
            other => return other,
        }
    }
    marked(redirected, facts, SocketAddr::new(client.ip(), 0))?.connect(server).await
}

/// A socket with this address, known to the datapath. Port 0: the kernel chooses.
fn marked(redirected: &dyn Redirected, facts: &Facts, own: SocketAddr) -> io::Result<TcpSocket> {
    let socket = Socket::new(Domain::for_address(own), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    transparent(&socket, own)?;
    // One port serves for many servers.
    if own.port() == 0 {
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::IpBindAddressNoPort, &true)?;
    } else {
        socket.set_reuse_address(true)?;
    }
    socket.bind(&own.into())?;
    redirected.speak_for(socket.as_fd(), facts)?;
    Ok(TcpSocket::from_std_stream(socket.into()))
}

/// A socket that asks a server by UDP from the client's address, known to the datapath.
pub fn datagrams(
    redirected: &dyn Redirected,
    facts: &Facts,
    client: SocketAddr,
    server: SocketAddr,
) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(client), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    transparent(&socket, client)?;
    socket.bind(&SocketAddr::new(client.ip(), 0).into())?;
    redirected.speak_for(socket.as_fd(), facts)?;
    socket.connect(&server.into())?;
    Ok(socket.into())
}

/// Ends a connection so that the other side knows it was refused.
pub fn reset(stream: TcpStream) {
    // Without the option the end is a plain one, which is the next best.
    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Mutex;

    use proxy_api::{Direction, Protocol as Transport};

    use super::*;

    /// Who spoke for whom; ports that were asked for while they had to be another's.
    #[derive(Default)]
    struct Told(Mutex<Vec<(SocketAddr, Facts)>>, Mutex<Vec<u16>>, usize);

    impl Redirected for Told {
        fn facts(&self, _: Transport, client: SocketAddr, _: SocketAddr) -> Option<Facts> {
            let mut asked = self.1.lock().unwrap();
            (asked.len() < self.2).then(|| {
                asked.push(client.port());
                FACTS
            })
        }

        fn speak_for(&self, socket: std::os::fd::BorrowedFd<'_>, facts: &Facts) -> io::Result<()> {
            let own = SockRef::from(&socket).local_addr()?.as_socket().unwrap();
            self.0.lock().unwrap().push((own, *facts));
            Ok(())
        }
    }

    const FACTS: Facts = Facts {
        endpoint: 1,
        direction: Direction::Egress,
        source_identity: 2,
        destination_identity: 3,
        rule_set: 4,
        revision: 5,
    };

    #[tokio::test]
    async fn a_server_is_reached_from_the_client_s_address_once_the_datapath_knows() {
        for (server, client) in [("127.0.0.1:0", "127.0.0.9:4711"), ("[::1]:0", "[::1]:4711")] {
            let (server, client): (SocketAddr, SocketAddr) = (server.parse().unwrap(), client.parse().unwrap());
            let listener = TcpListener::bind(server).await.unwrap();
            let ends = (client, listener.local_addr().unwrap());
            let told = Told::default();
            let stream = Upstream::Transparent.connect(&told, &FACTS, ends, Duration::from_secs(5)).await.unwrap();
            let (_, peer) = listener.accept().await.unwrap();
            assert_eq!((peer.ip(), peer), (client.ip(), stream.local_addr().unwrap()));
            let told = told.0.into_inner().unwrap();
            assert_eq!(told.iter().map(|(own, facts)| (own.ip(), *facts)).collect::<Vec<_>>(), [(client.ip(), FACTS)]);
        }
    }

    #[tokio::test]
    async fn no_port_is_taken_that_the_client_has_a_connection_at() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ends = ("127.0.0.9:4711".parse().unwrap(), listener.local_addr().unwrap());
        for crowded in [3, TRIES] {
            let told = Told(Mutex::default(), Mutex::default(), crowded);
            let stream = Upstream::Transparent.connect(&told, &FACTS, ends, Duration::from_secs(5)).await.unwrap();
            let (port, taken) = (stream.local_addr().unwrap().port(), told.1.into_inner().unwrap());
            assert_eq!((taken.len(), PORTS.contains(&port)), (crowded, crowded < TRIES));
            assert!(!taken.contains(&port), "{port} of {taken:?}");
        }
    }

    /// Connections to several servers share ports, and one whose pair of addresses is taken gets another.
    #[tokio::test]
    async fn many_connections_at_a_time_find_ports() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ends = ("127.0.0.9:4711".parse().unwrap(), listener.local_addr().unwrap());
        tokio::spawn(async move {
            let mut all = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                all.push(stream);
            }
        });
        let (told, mut streams) = (Told::default(), Vec::new());
        for _ in 0..500 {
            streams.push(Upstream::Transparent.connect(&told, &FACTS, ends, Duration::from_secs(5)).await.unwrap());
        }
        let ports: std::collections::BTreeSet<u16> = streams.iter().map(|s| s.local_addr().unwrap().port()).collect();
        assert_eq!(ports.len(), 500);
    }

    #[tokio::test]
    async fn a_port_is_bound_once_and_another_process_waits() {
        let first = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = first.local_addr().unwrap();
        assert_eq!(listen(address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        listen(address).unwrap();
    }
}
