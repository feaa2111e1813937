//! Which sockets does the process listen on?

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;

use proxy_api::{Listener, Traffic};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::handover::Given;
use crate::serve::accept;
use crate::shared::Shared;
use crate::sockets;

/// The sockets, each with a task that takes its connections.
pub struct Listeners {
    shared: Arc<Shared>,
    tasks: TaskTracker,
    open: Vec<Open>,
    given: Vec<Given>,
}

struct Open {
    listener: Listener,
    address: SocketAddr,
    socket: Arc<TcpListener>,
    stop: CancellationToken,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Listeners {
    /// None yet; those of the process before this one are used when they are wanted.
    pub fn new(shared: Arc<Shared>, tasks: TaskTracker, given: Vec<Given>) -> Listeners {
        Listeners { shared, tasks, open: Vec::new(), given }
    }

    /// Listens on these and on no others; true if all of them could be bound.
    pub fn set(&mut self, wanted: &[Listener]) -> bool {
        self.open.retain(|open| wanted.contains(&open.listener));
        let mut all = true;
        for listener in wanted.iter().filter(|listener| listener.traffic == Traffic::Tcp) {
            for address in sockets::addresses(listener.port) {
                if self.open.iter().any(|open| open.listener == *listener && open.address == address) {
                    continue;
                }
                match self.bind(*listener, address) {
                    Ok(()) => {}
                    // No IPv6 on this node.
                    Err(error) if address.is_ipv6() && is_without_v6(&error) => {}
                    Err(error) => {
                        tracing::warn!(%address, %error, "cannot listen: connections to it are refused");
                        all = false;
                    }
                }
            }
        }
        all
    }

    fn bind(&mut self, listener: Listener, address: SocketAddr) -> std::io::Result<()> {
        let known = self.given.iter().position(|given| given.listener == listener && given.v6 == address.is_ipv6());
        let socket = match known {
            Some(place) => self.given.swap_remove(place).socket.into(),
            None => sockets::listen(address)?,
        };
        let socket = Arc::new(sockets::register(socket)?);
        let stop = CancellationToken::new();
        let (shared, tasks) = (Arc::clone(&self.shared), self.tasks.clone());
        tokio::spawn(accept(shared, Arc::clone(&socket), listener.direction, tasks, stop.clone()));
        self.open.push(Open { listener, address, socket, stop });
        Ok(())
    }

    /// Copies of the sockets, for the next process.
    pub fn copies(&self) -> std::io::Result<Vec<Given>> {
        let copy = |open: &Open| {
            let socket = open.socket.as_fd().try_clone_to_owned()?;
            Ok(Given { listener: open.listener, v6: open.address.is_ipv6(), socket })
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
