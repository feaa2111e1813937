//! When did a process end, and how?

use crate::{Result, While};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use tokio::io::unix::AsyncFd;

/// A child whose end can be awaited.
#[derive(Debug)]
pub struct Process {
    child: Child,
    handle: AsyncFd<OwnedFd>,
}

impl Process {
    /// Takes over a child that was just started.
    pub fn new(child: Child) -> Result<Process> {
        // SAFETY: plain numbers; the child has not been waited for, so the number is still its own.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, child.id() as libc::pid_t, libc::PIDFD_NONBLOCK) };
        let opened = if fd < 0 { Err(std::io::Error::last_os_error()) } else { Ok(fd as i32) };
        let fd = opened.while_doing(|| format!("open a handle of process {}", child.id()))?;
        // SAFETY: the kernel has just made this descriptor for us.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: an owned descriptor answers with one number as long as it lives, and the handle owns it.
        let handle = unsafe { AsyncFd::register(fd) }
            .map_err(std::io::Error::from)
            .while_doing(|| format!("watch process {}", child.id()))?;
        Ok(Process { child, handle })
    }

    /// Its number, as the kubelet sees it.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it has ended.
    pub async fn wait(&mut self) -> Result<ExitStatus> {
        loop {
            if let Some(status) = self.child.try_wait().while_doing(|| "wait for a process".into())? {
                return Ok(status);
            }
            let mut ready = self.handle.readable().await.while_doing(|| "watch a process".into())?;
            ready.clear_ready();
            if let Some(status) = self.child.try_wait().while_doing(|| "wait for a process".into())? {
                return Ok(status);
            }
        }
    }

    /// Sends a signal unless the process is known to have ended (its number may be another's then).
    pub fn signal_if_running(&mut self, signal: i32) {
        if matches!(self.child.try_wait(), Ok(None)) {
            signal_number(self.child.id(), signal);
        }
    }

    /// Sends a signal; a process that has ended is no error.
    pub fn signal(&self, signal: i32) {
        signal_number(self.child.id(), signal);
    }
}

/// Sends a signal to a child that has not been waited for.
pub fn signal_number(pid: u32, signal: i32) {
    // SAFETY: plain numbers.
    unsafe { libc::kill(pid as libc::pid_t, signal) };
}

/// The exit code as Kubernetes counts it: 128 + signal for a killed process.
pub fn exit_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}
