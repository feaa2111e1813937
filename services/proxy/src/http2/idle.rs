//! Does anything still move on a stream? One on which nothing does in either direction is ended.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::clock::Clock;

/// When something last moved.
#[derive(Debug)]
pub struct Moved {
    begun: Instant,
    /// Milliseconds after that.
    last: AtomicU64,
}

impl Moved {
    /// Now.
    pub fn now() -> Arc<Moved> {
        Arc::new(Moved { begun: Instant::now(), last: AtomicU64::new(0) })
    }

    fn moves(&self) {
        let since = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(since, Ordering::Relaxed);
    }

    fn last(&self) -> Instant {
        self.begun + Duration::from_millis(self.last.load(Ordering::Relaxed))
    }
}

/// A body whose moves are noticed; with a patience, it fails when nothing has moved for so long.
#[derive(Debug)]
pub struct Watched {
    body: Incoming,
    moved: Arc<Moved>,
    patience: Option<Duration>,
    clock: Clock,
}

impl Watched {
    /// A request's, which only counts.
    pub fn request(body: Incoming, moved: Arc<Moved>) -> Watched {
        Watched { body, moved, patience: None, clock: Clock::default() }
    }

    /// An answer's.
    pub fn answer(body: Incoming, moved: Arc<Moved>, patience: Duration) -> Watched {
        moved.moves();
        Watched { body, moved, patience: Some(patience), clock: Clock::default() }
    }
}

impl Body for Watched {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            this.moved.moves();
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        match this.patience {
            Some(patience) if this.clock.poll(this.moved.last() + patience, cx).is_ready() => {
                Poll::Ready(Some(Err("nothing moves on the stream".into())))
            }
            _ => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
