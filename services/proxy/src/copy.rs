//! How do bytes go both ways of which nothing is asked?

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;
use tokio::net::TcpStream;

use crate::shared::{Connection, millis};
use crate::wire::{Buffer, CHUNK, Wire};

/// A connection that is only passed on.
pub async fn serve(connection: Connection, client: TcpStream) {
    match connection.connect().await {
        Ok(server) => {
            both(&connection, Wire::Tcp(client), Wire::Tcp(server), Buffer::default(), Buffer::default()).await
        }
        Err(_) => Wire::Tcp(client).reset(),
    }
}

/// Copies both ways, beginning with what was read already, until both have ended or one breaks.
pub async fn both(connection: &Connection, mut client: Wire, mut server: Wire, up: Buffer, down: Buffer) {
    let (mut up, mut down) = (Way::new(up), Way::new(down));
    let idle = millis(connection.shared.settings.load().timeouts.idle);
    loop {
        let moved = std::future::poll_fn(|cx| {
            let one = up.poll(&mut client, &mut server, cx);
            let two = down.poll(&mut server, &mut client, cx);
            match (one, two) {
                (Step::Broken, _) | (_, Step::Broken) => Poll::Ready(Err(())),
                (Step::Ended, Step::Ended) => Poll::Ready(Ok(true)),
                (Step::Moved, _) | (_, Step::Moved) => Poll::Ready(Ok(false)),
                _ => Poll::Pending,
            }
        });
        match tokio::time::timeout(idle, moved).await {
            Ok(Ok(false)) => {}
            Ok(Ok(true)) => return,
            Ok(Err(())) | Err(_) => {
                client.reset();
                server.reset();
                return;
            }
        }
    }
}

/// One way of a copy.
struct Way {
    buffer: Buffer,
    end_seen: bool,
    end_told: bool,
}

enum Step {
    Moved,
    Waits,
    Ended,
    Broken,
}

impl Way {
    fn new(buffer: Buffer) -> Way {
        Way { buffer, end_seen: false, end_told: false }
    }

    fn poll(&mut self, from: &mut Wire, to: &mut Wire, cx: &mut Context<'_>) -> Step {
        let mut moved = false;
        loop {
            match self.step(from, to, cx) {
                Poll::Ready(Ok(())) if self.end_told => return Step::Ended,
                Poll::Ready(Ok(())) => moved = true,
                Poll::Ready(Err(_)) => return Step::Broken,
                Poll::Pending if moved => return Step::Moved,
                Poll::Pending => return Step::Waits,
            }
        }
    }

    fn step(&mut self, from: &mut Wire, to: &mut Wire, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.end_told {
            return Poll::Ready(Ok(()));
        }
        let mut result = Poll::Pending;
        if !self.buffer.is_empty() {
            let count = self.buffer.len();
            if self.buffer.poll_drain(count, to, cx)?.is_ready() {
                result = Poll::Ready(Ok(()));
            }
        }
        if !self.end_seen && self.buffer.len() < CHUNK {
            if let Poll::Ready(count) = self.buffer.poll_fill(from, cx)? {
                self.end_seen = count == 0;
                result = Poll::Ready(Ok(()));
            }
        } else if self.end_seen && self.buffer.is_empty() {
            std::task::ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
            self.end_told = true;
            result = Poll::Ready(Ok(()));
        }
        // TLS keeps what it could not write.
        if let Poll::Ready(Err(error)) = Pin::new(to).poll_flush(cx) {
            return Poll::Ready(Err(error));
        }
        result
    }
}
