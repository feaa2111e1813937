//! Which sockets does the process listen on?

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;

use proxy_api::{Listener, Traffic};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::dns::{self, Dns, Listening};
use crate::handover::Given;
use crate::serve::accept;
use crate::shared::Shared;
use crate::sockets;

/// The sockets, each with a task that takes what comes there.
pub struct Listeners {
    shared: Arc<Shared>,
    dns: Arc<Dns>,
    tasks: TaskTracker,
    open: Vec<Open>,
    given: Vec<Given>,
}

struct Open {
    listener: Listener,
    address: SocketAddr,
    socket: Socket,
    stop: CancellationToken,
}

enum Socket {
    Connections(Arc<TcpListener>),
    Datagrams(Listening),
}

impl Drop for Open {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Open {
    fn is(&self, listener: Listener, address: SocketAddr, datagrams: bool) -> bool {
        let same = self.listener == listener && self.address == address;
        same && matches!(self.socket, Socket::Datagrams(_)) == datagrams
    }
}

impl Listeners {
    /// None yet; those of the process before this one are used when they are wanted.
    pub fn new(dns: Arc<Dns>, tasks: TaskTracker, given: Vec<Given>) -> Listeners {
        let shared = Arc::clone(dns.shared());
        Listeners { shared, dns, tasks, open: Vec::new(), given }
    }

    /// Listens on these and on no others; true if all of them could be bound.
    pub fn set(&mut self, wanted: &[Listener]) -> bool {
        self.open.retain(|open| wanted.contains(&open.listener));
        let mut all = true;
        for listener in wanted {
            let kinds: &[bool] = if listener.traffic == Traffic::Dns { &[false, true] } else { &[false] };
            for address in sockets::addresses(listener.port) {
                for datagrams in kinds {
                    all &= self.want(*listener, address, *datagrams);
                }
            }
        }
        all
    }

    fn want(&mut self, listener: Listener, address: SocketAddr, datagrams: bool) -> bool {
        if self.open.iter().any(|open| open.is(listener, address, datagrams)) {
            return true;
        }
        match self.bind(listener, address, datagrams) {
            Ok(()) => true,
            // No IPv6 on this node.
            Err(error) if address.is_ipv6() && is_without_v6(&error) => true,
            Err(error) => {
                tracing::warn!(%address, %error, "cannot listen: connections to it are refused");
                false
            }
        }
    }

    fn bind(&mut self, listener: Listener, address: SocketAddr, datagrams: bool) -> std::io::Result<()> {
        let is =
            |given: &Given| (given.listener, given.v6, given.datagrams) == (listener, address.is_ipv6(), datagrams);
        let known = self.given.iter().position(is).map(|place| self.given.swap_remove(place).socket);
        let (stop, tasks, direction) = (CancellationToken::new(), self.tasks.clone(), listener.direction);
        let socket = if datagrams {
            let socket = known.map_or_else(|| dns::bind(address), Ok)?;
            Socket::Datagrams(self.dns.listen(socket, direction)?)
        } else {
            let socket = known.map_or_else(|| sockets::listen(address), |socket| Ok(socket.into()))?;
            let socket = Arc::new(sockets::register(socket)?);
            let dns = (listener.traffic == Traffic::Dns).then(|| Arc::clone(&self.dns));
            let taking = accept(Arc::clone(&self.shared), Arc::clone(&socket), direction, dns, tasks, stop.clone());
            tokio::spawn(taking);
            Socket::Connections(socket)
        };
        self.open.push(Open { listener, address, socket, stop });
        Ok(())
    }

    /// Copies of the sockets, for the next process.
    pub fn copies(&self) -> std::io::Result<Vec<Given>> {
        let copy = |open: &Open| {
            let (datagrams, socket) = match &open.socket {
                Socket::Connections(socket) => (false, socket.as_fd().try_clone_to_owned()?),
                Socket::Datagrams(socket) => (true, socket.copy()?),
            };
            Ok(Given { listener: open.listener, v6: open.address.is_ipv6(), datagrams, socket })
        };
        self.open.iter().map(copy).collect()
    }

    /// Takes no more connections.
    pub fn close(&mut self) {
        self.open.clear();
        self.given.clear();
    }
}

fn is_without_v6(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc) if libc == nix::libc::EAFNOSUPPORT || libc == nix::libc::EADDRNOTAVAIL)
}
