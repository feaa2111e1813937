//! What is a process of the lab, where does it run, and what does it do before it is itself?

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use kubelet::namespaces::Namespace;

/// Where a process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whereabouts {
    Machine,
    World,
    /// The network of a node, files of the machine.
    NetworkOf(usize),
    /// On a node.
    Node(usize),
}

/// A process that is kept running.
pub(super) struct Service {
    pub(super) name: String,
    pub(super) args: Vec<String>,
    pub(super) place: Whereabouts,
    pub(super) sockets: Vec<OwnedFd>,
    /// Whether it is started again when it ends.
    pub(super) lasting: bool,
    pub(super) running: Option<(i32, Instant)>,
    pub(super) next_start: Instant,
    pub(super) short_runs: u32,
}

impl Service {
    pub(super) fn new<S: AsRef<str>>(name: &str, args: &[S], place: Whereabouts, sockets: Vec<OwnedFd>) -> Service {
        Service {
            name: name.into(),
            args: args.iter().map(|a| a.as_ref().to_string()).collect(),
            place,
            sockets,
            lasting: true,
            running: None,
            next_start: Instant::now(),
            short_runs: 0,
        }
    }

    /// Notes its end; one that keeps ending soon waits longer.
    pub(super) fn ended(&mut self) {
        let ran = self.running.take().map_or(Duration::ZERO, |(_, since)| since.elapsed());
        self.short_runs = if ran > Duration::from_secs(10) { 0 } else { self.short_runs.saturating_add(1) };
        let wait = Duration::from_millis(50).saturating_mul(2u32.saturating_pow(self.short_runs.min(7)));
        self.next_start = Instant::now() + wait;
    }
}

/// What a service does between fork and exec.
pub(super) struct ChildSetup {
    pub(super) network: Option<netlink::Namespace>,
    pub(super) others: Vec<Namespace>,
    pub(super) cgroup: File,
    pub(super) sockets: Vec<OwnedFd>,
}

impl ChildSetup {
    pub(super) fn run(&self) -> std::io::Result<()> {
        (&self.cgroup).write_all(b"0")?;
        if let Some(network) = &self.network {
            enter_network(network)?;
        }
        for namespace in &self.others {
            namespace.enter_raw()?;
        }
        for (socket, number) in self.sockets.iter().zip(3..) {
            kubelet::spawner::hand_over(socket.as_raw_fd(), number)?;
        }
        Ok(())
    }
}

pub(super) fn enter_network(network: &netlink::Namespace) -> std::io::Result<()> {
    // SAFETY: plain numbers.
    let done = unsafe { libc::setns(network.as_raw_fd(), libc::CLONE_NEWNET) };
    if done < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

/// A copy whose number collides with none that a child gets.
pub(super) fn high_copy(fd: &OwnedFd) -> Result<OwnedFd> {
    let number = nix::fcntl::fcntl(fd.as_fd(), nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(64)).context("copy a socket")?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
