//! Does anything still move on a stream? One on which nothing does in either direction is ended.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
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

    /// Waits until nothing has moved for so long, or until then.
    pub async fn late(&self, patience: Duration, until: Instant) {
        loop {
            let next = until.min(self.last() + patience);
            if next <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(next).await;
        }
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
    deadline: Deadline,
    clock: Clock,
}

/// When a call of gRPC ends.
#[derive(Debug, Clone, Copy)]
enum Deadline {
    Never,
    At(Instant),
    /// The client was told.
    Told,
}

impl Watched {
    /// A request's, which only counts.
    pub fn request(body: Incoming, moved: Arc<Moved>) -> Watched {
        Watched { body, moved, patience: None, deadline: Deadline::Never, clock: Clock::default() }
    }

    /// An answer's. At the deadline it ends with the status that says so.
    pub fn answer(body: Incoming, moved: Arc<Moved>, patience: Duration, deadline: Option<Instant>) -> Watched {
        moved.moves();
        let deadline = deadline.map_or(Deadline::Never, Deadline::At);
        Watched { body, moved, patience: Some(patience), deadline, clock: Clock::default() }
    }
}

impl Body for Watched {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        if matches!(this.deadline, Deadline::Told) {
            return Poll::Ready(None);
        }
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            this.moved.moves();
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let Some(patience) = this.patience else { return Poll::Pending };
        let idle = this.moved.last() + patience;
        match this.deadline {
            Deadline::At(deadline) if deadline <= idle => {
                ready!(this.clock.poll(deadline, cx));
                this.deadline = Deadline::Told;
                let status = HeaderValue::from_static(super::deadline::EXCEEDED);
                let trailers = HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), status)]);
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
            _ => {
                ready!(this.clock.poll(idle, cx));
                Poll::Ready(Some(Err("nothing moves on the stream".into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream() || matches!(self.deadline, Deadline::Told)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
