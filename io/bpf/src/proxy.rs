//! What does the proxy ask the datapath, and what does it tell it?

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::{fs, io};

use abi::conntrack::{
    CtEntry, CtKey, FLAG_INITIATOR_A, KIND_CONNECTION, KIND_UPSTREAM, PROXY_EGRESS, PROXY_INGRESS, PROXY_REDIRECTED,
};
use abi::endpoint::{MODE_EGRESS, MODE_INGRESS};
use abi::identity::Identity;
use abi::policy::{DIR_EGRESS, DIR_INGRESS};
use abi::proxy::{self, ProxySocket, SocketCookie};
use abi::{Addr, Plain, Port, pins};

use crate::error::{Error, Result};
use crate::maps;
use crate::table::Table;

/// The tables of which the proxy has need. It may open them as root and go on as anybody; to open them again it has to
/// be of a group that was [let in](let_group_in).
#[derive(Debug)]
pub struct ProxyMaps {
    ct4: Table<CtKey<abi::V4>, CtEntry>,
    ct6: Table<CtKey<abi::V6>, CtEntry>,
    sockets: Table<SocketCookie, ProxySocket>,
}

/// Lets a group open the tables of which the proxy has need: to read what was decided of connections, and to write whose
/// sockets are the proxy's. Pins of tables that are made anew are root's alone again.
pub fn let_group_in(pin_dir: &Path, group: u32) -> Result<()> {
    for (name, mode) in [(pins::CT4, 0o640), (pins::CT6, 0o640), (pins::PROXY_SOCKETS, 0o660)] {
        let path = pin_dir.join(name);
        chown(&path, None, Some(group))
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(mode)))
            .map_err(|source| Error::Pin { operation: "let the proxy's group open", path, source })?;
    }
    Ok(())
}

/// What was decided of a redirected connection when its newest packet passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redirected {
    /// The endpoint whose policy redirects it.
    pub endpoint: u32,
    /// Which of its policies: [`DIR_INGRESS`] or [`DIR_EGRESS`].
    pub direction: u8,
    /// The client's identity.
    pub source_identity: Identity,
    /// The server's identity.
    pub destination_identity: Identity,
    /// The rule set that decided.
    pub rule_set: u32,
    /// Revision of the policy.
    pub revision: u32,
}

impl ProxyMaps {
    /// Opens the maps that are pinned in this folder.
    pub fn open(pin_dir: &Path) -> Result<ProxyMaps> {
        let (ct4, ct6, sockets) = maps::of_proxy(pin_dir)?;
        Ok(ProxyMaps { ct4, ct6, sockets })
    }

    /// What was decided of the connection from `client` to `server`, an accepted socket's peer and own address. `None`: no
    /// policy sends it to the proxy (any more), and nothing may be said on it.
    pub fn redirected(&self, protocol: u8, client: SocketAddr, server: SocketAddr) -> Result<Option<Redirected>> {
        let ports = (Port::new(client.port()), Port::new(server.port()));
        match (client, server) {
            (SocketAddr::V4(from), SocketAddr::V4(to)) => {
                search(&self.ct4, ((*from.ip()).into(), ports.0), ((*to.ip()).into(), ports.1), protocol)
            }
            (SocketAddr::V6(from), SocketAddr::V6(to)) => {
                search(&self.ct6, ((*from.ip()).into(), ports.0), ((*to.ip()).into(), ports.1), protocol)
            }
            _ => Ok(None),
        }
    }

    /// Tells the datapath, before it connects, that this socket of the caller will speak in the name of the client of a
    /// redirected connection, whose policy the caller has asked; and marks it so. The socket must be bound to the client's
    /// address. Needs `CAP_NET_ADMIN`.
    pub fn speak_for(&self, socket: BorrowedFd<'_>, of: &Redirected) -> Result<()> {
        let magic = if of.direction == DIR_EGRESS { proxy::MARK_FROM_EGRESS } else { proxy::MARK_FROM_INGRESS };
        let client = of.source_identity;
        let failed = |operation| move |source| Error::Socket { operation, source };
        let cookie = cookie(socket).map_err(failed("ask a socket for its cookie"))?;
        self.sockets.insert(&[cookie as u32, (cookie >> 32) as u32], &ProxySocket { client, magic })?;
        mark(socket, proxy::from_proxy(magic, client)).map_err(failed("mark a socket"))
    }
}

fn search<A: Addr>(
    table: &Table<CtKey<A>, CtEntry>,
    client: (A, Port),
    server: (A, Port),
    protocol: u8,
) -> Result<Option<Redirected>>
where
    CtKey<A>: Plain,
{
    // where a connection passes the proxy twice, the second half is one that the proxy itself began
    for kind in [KIND_CONNECTION, KIND_UPSTREAM] {
        let (key, from_a) = CtKey::between(client, server, protocol, kind);
        let entry = table.get(&key)?.filter(|entry| (entry.flags.get() & FLAG_INITIATOR_A != 0) == from_a);
        if let Some(found) = entry.as_ref().and_then(read) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn read(entry: &CtEntry) -> Option<Redirected> {
    let proxy = entry.proxy.get();
    if proxy & PROXY_REDIRECTED == 0 {
        return None;
    }
    let (direction, rule_set, revision) = if proxy & PROXY_EGRESS != 0 {
        (DIR_EGRESS, entry.egress_rule_set.get(), entry.egress_revision.get())
    } else if proxy & PROXY_INGRESS != 0 {
        (DIR_INGRESS, entry.ingress_rule_set.get(), entry.ingress_revision.get())
    } else {
        return None;
    };
    Some(Redirected {
        endpoint: entry.backend.get(),
        direction,
        source_identity: entry.source_identity.get(),
        destination_identity: entry.destination_identity.get(),
        rule_set,
        revision: revision & !(MODE_EGRESS | MODE_INGRESS),
    })
}

fn cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut cookie = 0u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the value is as long as is said, and both live as long as the call
    let done = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if done == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

fn mark(socket: BorrowedFd<'_>, mark: u32) -> io::Result<()> {
    // SAFETY: the value is as long as is said, and lives as long as the call
    let done = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MARK,
            (&raw const mark).cast(),
            size_of::<u32>() as libc::socklen_t,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
