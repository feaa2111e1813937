//! What does a pod do that only is there for others to run commands in?

use crate::Error;
use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use tokio::signal::unix::{SignalKind, signal};

/// Sleeps for ever. As the first process of its namespace it inherits orphans and takes note of their end.
pub async fn run() -> Result<(), Error> {
    let mut children = signal(SignalKind::child())?;
    loop {
        reap();
        if children.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

/// Takes note of all children that have ended; how many.
fn reap() -> usize {
    let mut ended = 0;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return ended,
            Err(Errno::EINTR) => {}
            Err(_) => return ended,
            Ok(_) => ended += 1,
        }
    }
}
