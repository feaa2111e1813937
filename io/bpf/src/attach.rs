//! How do programs get onto devices and cgroups so that no packet passes without one?
//!
//! Links are pinned: they outlive the agent. A later agent exchanges the program of the pinned link, which is one step
//! for the kernel: each packet sees the old program or the new one. Devices of kernels without TCX links get filters
//! instead ([`crate::clsact`]), to which the same applies. Where one way follows the other, the new program is there
//! before the old one goes.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::clsact::{self, Side};
use crate::error::{Error, Result};
use crate::sys;

/// How programs come to devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Attachment {
    /// By TCX links where the kernel has them (6.6), else by filters.
    #[default]
    Probe,
    /// By TCX links.
    Tcx,
    /// By filters of the `clsact` qdisc.
    Clsact,
}

impl Attachment {
    /// What to do on this kernel; `program` is any that could be attached to a device.
    pub(crate) fn probed(self, program: BorrowedFd<'_>) -> Attachment {
        match self {
            // a kernel that knows the links misses the device first
            Attachment::Probe => match sys::link_create(program, i32::MAX as u32, TCX_INGRESS) {
                Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Attachment::Tcx,
                _ => Attachment::Clsact,
            },
            chosen => chosen,
        }
    }

    /// As `cilium status` names it.
    pub fn name(self) -> &'static str {
        match self {
            Attachment::Probe | Attachment::Tcx => "TCX",
            Attachment::Clsact => "Legacy TC",
        }
    }
}

const TCX_INGRESS: u32 = 46;
const TCX_EGRESS: u32 = 47;

/// Where on a device a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// What comes from a pod: ingress of the host's side of its veth.
    FromContainer,
    /// What comes out of the tunnel: ingress of its device.
    FromOverlay,
    /// What the node itself sends to pods: egress of `cilium_host`.
    FromHost,
    /// What comes from outside: ingress of the node's device.
    FromNetdev,
    /// What leaves the node: egress of the node's device.
    ToNetdev,
    /// What the node itself sends to the proxy in a pod's place: ingress of `cilium_net`.
    ToHost,
}

impl Hook {
    /// Every hook.
    pub const ALL: [Hook; 6] =
        [Hook::FromContainer, Hook::FromOverlay, Hook::FromHost, Hook::FromNetdev, Hook::ToNetdev, Hook::ToHost];

    /// Name of the program.
    pub const fn program(self) -> &'static str {
        match self {
            Hook::FromContainer => "from_container",
            Hook::FromOverlay => "from_overlay",
            Hook::FromHost => "from_host",
            Hook::FromNetdev => "from_netdev",
            Hook::ToNetdev => "to_netdev",
            Hook::ToHost => "to_host",
        }
    }

    const fn side(self) -> Side {
        match self {
            Hook::FromContainer | Hook::FromOverlay | Hook::FromNetdev | Hook::ToHost => Side::Ingress,
            Hook::FromHost | Hook::ToNetdev => Side::Egress,
        }
    }

    const fn attach_type(self) -> u32 {
        match self.side() {
            Side::Ingress => TCX_INGRESS,
            Side::Egress => TCX_EGRESS,
        }
    }

    pub(crate) fn pin(self, dir: &Path, ifindex: u32) -> PathBuf {
        dir.join(format!("{}_{ifindex}", self.program()))
    }
}

/// Where at a cgroup a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketHook {
    /// `connect` of IPv4 sockets.
    Connect4,
    /// `connect` of IPv6 sockets.
    Connect6,
    /// `sendmsg` with an address, IPv4.
    Sendmsg4,
    /// `sendmsg` with an address, IPv6.
    Sendmsg6,
    /// `recvmsg` with an address, IPv4.
    Recvmsg4,
    /// `recvmsg` with an address, IPv6.
    Recvmsg6,
    /// `getpeername`, IPv4.
    Getpeername4,
    /// `getpeername`, IPv6.
    Getpeername6,
}

impl SocketHook {
    /// Every hook.
    pub const ALL: [SocketHook; 8] = [
        SocketHook::Connect4,
        SocketHook::Connect6,
        SocketHook::Sendmsg4,
        SocketHook::Sendmsg6,
        SocketHook::Recvmsg4,
        SocketHook::Recvmsg6,
        SocketHook::Getpeername4,
        SocketHook::Getpeername6,
    ];

    /// Name of the program.
    pub const fn program(self) -> &'static str {
        match self {
            SocketHook::Connect4 => "sock_connect4",
            SocketHook::Connect6 => "sock_connect6",
            SocketHook::Sendmsg4 => "sock_sendmsg4",
            SocketHook::Sendmsg6 => "sock_sendmsg6",
            SocketHook::Recvmsg4 => "sock_recvmsg4",
            SocketHook::Recvmsg6 => "sock_recvmsg6",
            SocketHook::Getpeername4 => "sock_getpeername4",
            SocketHook::Getpeername6 => "sock_getpeername6",
        }
    }

    const fn attach_type(self) -> u32 {
        match self {
            SocketHook::Connect4 => 10,
            SocketHook::Connect6 => 11,
            SocketHook::Sendmsg4 => 14,
            SocketHook::Sendmsg6 => 15,
            SocketHook::Recvmsg4 => 19,
            SocketHook::Recvmsg6 => 20,
            SocketHook::Getpeername4 => 29,
            SocketHook::Getpeername6 => 30,
        }
    }
}

/// Where devices' programs are kept, and how they get there.
pub(crate) struct Devices<'a> {
    pub(crate) links: &'a Path,
    pub(crate) by: Attachment,
}

impl Devices<'_> {
    /// Attaches to a device of the current network namespace, or exchanges the program that is there.
    pub(crate) fn attach(&self, hook: Hook, ifindex: u32, program: BorrowedFd<'_>) -> Result<()> {
        let failed = |source| Error::Attach { program: hook.program(), target: format!("interface {ifindex}"), source };
        if self.by == Attachment::Clsact {
            let device = sys::interface_name(ifindex).map_err(failed)?;
            let name = format!("{}-{device}", hook.program());
            clsact::attach(ifindex, hook.side(), &name, program).map_err(failed)?;
            return unpin(&hook.pin(self.links, ifindex));
        }
        self.link(hook, ifindex, program)?;
        clsact::detach(ifindex, hook.side()).map(drop).map_err(failed)
    }

    fn link(&self, hook: Hook, ifindex: u32, program: BorrowedFd<'_>) -> Result<()> {
        let path = hook.pin(self.links, ifindex);
        let failed = |source| Error::Attach { program: hook.program(), target: format!("interface {ifindex}"), source };
        if let Ok(link) = sys::open(&path, 0) {
            let target = sys::tcx_link_target(link.as_fd()).map_err(failed)?;
            if target == (ifindex, hook.attach_type()) && sys::link_update(link.as_fd(), program).is_ok() {
                return Ok(());
            }
            // The device is gone, and another one has its number now.
            unpin(&path)?;
        }
        let link = sys::link_create(program, ifindex, hook.attach_type()).map_err(failed)?;
        pin(link, &path)
    }

    /// Takes the program off a device of the current network namespace. None, or no device, is no error: the kernel removes
    /// programs together with their device.
    pub(crate) fn detach(&self, hook: Hook, ifindex: u32) -> Result<()> {
        unpin(&hook.pin(self.links, ifindex))?;
        match clsact::detach(ifindex, hook.side()) {
            Err(source) if source.raw_os_error() != Some(libc::ENODEV) => {
                Err(Error::Attach { program: hook.program(), target: format!("interface {ifindex}, off"), source })
            }
            _ => Ok(()),
        }
    }
}

/// Attaches a pinned program that is not ours to what comes in by a device of the current network namespace, in the way
/// that ours come there by TCX, for as long as the link lives.
pub fn attach_pinned(program: &Path, ifindex: u32) -> Result<OwnedFd> {
    let failed = |source| Error::Attach { program: "pinned", target: format!("interface {ifindex}"), source };
    let opened = sys::open(program, 0).map_err(failed)?;
    sys::link_create(opened.as_fd(), ifindex, TCX_INGRESS).map_err(failed)
}

/// Attaches to a cgroup, or exchanges the program of the link that is there.
pub(crate) fn cgroup(dir: &Path, hook: SocketHook, cgroup: &File, program: BorrowedFd<'_>) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let failed = |source| Error::Attach { program: hook.program(), target: "cgroup".into(), source };
    // The inode is the cgroup's id: a link of an earlier cgroup of the same path is not taken for this one's.
    let id = cgroup.metadata().map_err(failed)?.ino();
    let path = dir.join(format!("{}_{id}", hook.program()));
    if let Ok(link) = sys::open(&path, 0) {
        if sys::link_update(link.as_fd(), program).is_ok() {
            return Ok(());
        }
        unpin(&path)?;
    }
    let link = sys::link_create(program, cgroup.as_fd().as_raw_fd() as u32, hook.attach_type()).map_err(failed)?;
    pin(link, &path)
}

/// Removes pins of links whose device is gone, and returns how many.
pub(crate) fn remove_dead(dir: &Path) -> Result<usize> {
    let mut removed = 0;
    let listed = fs::read_dir(dir).map_err(|source| Error::Pin { operation: "list", path: dir.into(), source })?;
    for path in listed.flatten().map(|entry| entry.path()).filter(|path| is_device_link(path)) {
        let Ok(link) = sys::open(&path, 0) else { continue };
        if matches!(sys::tcx_link_target(link.as_fd()), Ok((0, _))) {
            unpin(&path)?;
            removed += 1;
        }
    }
    Ok(removed)
}

fn is_device_link(path: &Path) -> bool {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    Hook::ALL.iter().any(|hook| name.starts_with(hook.program()))
}

fn pin(link: OwnedFd, path: &Path) -> Result<()> {
    sys::pin(link.as_fd(), path).map_err(|source| Error::Pin { operation: "pin link", path: path.into(), source })
}

fn unpin(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(Error::Pin { operation: "remove link", path: path.into(), source })
        }
        _ => Ok(()),
    }
}
