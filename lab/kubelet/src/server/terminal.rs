//! How is a terminal's master side read, written and sized without blocking?

use std::os::fd::{AsRawFd, OwnedFd};

use crate::{Result, While};

/// The master side of a terminal.
pub(super) struct Terminal(tokio::io::unix::AsyncFd<std::fs::File>);

impl Terminal {
    pub(super) fn new(fd: OwnedFd) -> Result<Terminal> {
        let flags = nix::fcntl::OFlag::O_NONBLOCK | nix::fcntl::OFlag::O_RDWR;
        nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_SETFL(flags)).while_doing(|| "set a terminal up".into())?;
        // SAFETY: an open file answers with one number as long as it lives, and the handle owns it.
        let file = unsafe { tokio::io::unix::AsyncFd::register(std::fs::File::from(fd)) };
        let file = file.map_err(std::io::Error::from).while_doing(|| "watch a terminal".into())?;
        Ok(Terminal(file))
    }
}

impl tokio::io::AsyncRead for Terminal {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        loop {
            let mut ready = std::task::ready!(self.0.poll_read_ready(context))?;
            let room = buffer.initialize_unfilled();
            match ready.try_io(|fd| std::io::Read::read(&mut fd.get_ref(), room)) {
                Ok(Ok(n)) => {
                    buffer.advance(n);
                    return std::task::Poll::Ready(Ok(()));
                }
                Ok(Err(error)) => return std::task::Poll::Ready(Err(error)),
                Err(_not_ready) => {}
            }
        }
    }
}

impl tokio::io::AsyncWrite for Terminal {
    fn poll_write(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        loop {
            let mut ready = std::task::ready!(self.0.poll_write_ready(context))?;
            match ready.try_io(|fd| std::io::Write::write(&mut fd.get_ref(), bytes)) {
                Ok(done) => return std::task::Poll::Ready(done),
                Err(_not_ready) => {}
            }
        }
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }
}

pub(super) fn resize(terminal: Option<&OwnedFd>, columns: u16, rows: u16) {
    if let Some(terminal) = terminal {
        let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the structure lives through the call and has the form that this ioctl reads.
        unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &size) };
    }
}
