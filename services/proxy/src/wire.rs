//! How are bytes read and written, with as little memory as an idle connection needs?

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;
use tokio_util::io::poll_read_buf;

/// Bytes that are read at a time.
pub const CHUNK: usize = 16 << 10;

/// Free buffers that a thread keeps.
const KEPT: usize = 32;

thread_local! {
    static FREE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// One side of a connection.
#[derive(Debug)]
pub enum Wire {
    /// Plain.
    Tcp(TcpStream),
    /// TLS that begins or ends here.
    Tls(Box<TlsStream<Fronted<TcpStream>>>),
}

impl Wire {
    /// The socket.
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Wire::Tcp(stream) => stream,
            Wire::Tls(stream) => &stream.get_ref().0.inner,
        }
    }

    /// Ends it so that the other side knows that something is missing.
    pub fn reset(self) {
        let _ = socket2::SockRef::from(self.tcp()).set_linger(Some(std::time::Duration::ZERO));
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Wire::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Wire::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Wire::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Wire::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Wire::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Wire::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Wire::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Wire::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// A stream some bytes of which were read already.
#[derive(Debug)]
pub struct Fronted<S> {
    front: Buffer,
    inner: S,
}

impl<S> Fronted<S> {
    /// These bytes, then the stream's.
    pub fn new(front: Buffer, inner: S) -> Self {
        Fronted { front, inner }
    }

    /// The stream, and what is left of the bytes before it.
    pub fn into_parts(self) -> (S, Buffer) {
        (self.inner, self.front)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Fronted<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.front.is_empty() {
            return Pin::new(&mut this.inner).poll_read(cx, buf);
        }
        let count = this.front.len().min(buf.remaining());
        buf.put_slice(&this.front.data()[..count]);
        this.front.consume(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Fronted<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

/// Bytes that were read and not yet passed on. While it is empty it takes no memory.
#[derive(Debug, Default)]
pub struct Buffer {
    bytes: Vec<u8>,
    start: usize,
}

impl Buffer {
    /// What is there.
    pub fn data(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// The same, to be changed.
    pub fn data_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..]
    }

    /// How much.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// True if there is nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Leaves the first bytes out.
    pub fn consume(&mut self, count: usize) {
        self.start += count.min(self.len());
        if self.is_empty() {
            self.start = 0;
            give_back(std::mem::take(&mut self.bytes));
        }
    }

    /// Takes `count` bytes out of the middle.
    pub fn cut(&mut self, at: usize, count: usize) {
        if at == 0 {
            return self.consume(count);
        }
        let from = (self.start + at).min(self.bytes.len());
        let to = from.saturating_add(count).min(self.bytes.len());
        self.bytes.drain(from..to);
    }

    /// Keeps the first bytes only.
    pub fn truncate(&mut self, count: usize) {
        self.bytes.truncate(self.start + count);
        self.consume(0);
    }

    /// Reads once. `Ok(0)`: the other side has ended.
    pub fn poll_fill<R: AsyncRead + Unpin>(&mut self, from: &mut R, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.bytes.capacity() == 0 {
            self.bytes = FREE.with_borrow_mut(Vec::pop).unwrap_or_else(|| Vec::with_capacity(CHUNK));
        } else if self.start > 0 && self.bytes.capacity() - self.bytes.len() < CHUNK / 4 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        let read = poll_read_buf(Pin::new(from), cx, &mut self.bytes);
        if self.is_empty() {
            self.consume(0);
        }
        read
    }

    /// Writes as many of the first `count` bytes as can be, once, and leaves those out.
    pub fn poll_drain<W: AsyncWrite + Unpin>(
        &mut self,
        count: usize,
        to: &mut W,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(to).poll_write(cx, &self.data()[..count]))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.consume(written);
        Poll::Ready(Ok(written))
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        give_back(std::mem::take(&mut self.bytes));
    }
}

fn give_back(mut bytes: Vec<u8>) {
    if bytes.capacity() == 0 || bytes.capacity() > 2 * CHUNK {
        return;
    }
    bytes.clear();
    // The thread may be ending.
    let _ = FREE.try_with(|free| {
        let mut free = free.borrow_mut();
        if free.len() < KEPT {
            free.push(bytes);
        }
    });
}
