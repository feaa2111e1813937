//! What changes from a version on, as a stream that ends by itself?

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::Response;
use hyper::body::{Bytes, Frame};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use tokio::sync::mpsc;

use crate::http::Body;
use crate::render::{self, Include};
use crate::status::Status;
use crate::store::{Change, Event, Object};
use crate::verbs::Call;
use crate::verbs::read::Selection;

const BOOKMARK_EVERY: Duration = Duration::from_secs(30);

struct Watcher {
    call: Call,
    selection: Selection,
    include: Include,
    bookmarks: bool,
    first: bool,
    out: mpsc::Sender<Bytes>,
}

/// Starts the stream.
///
/// # Errors
/// If a parameter is not understood.
pub fn serve(call: Call) -> Result<Response<Body>, Status> {
    let selection = Selection::of(&call)?;
    let since =
        match call.query.get("resourceVersion") {
            None | Some("0") => None,
            Some(text) => Some(text.parse::<u64>().map_err(|_| {
                Status::bad_request(format!("Invalid value: {text:?}: resourceVersion is not a number"))
            })?),
        };
    let initial = call.query.is("sendInitialEvents") && call.query.get("sendInitialEvents").is_some();
    let suppressed = call.query.get("sendInitialEvents") == Some("false");
    let timeout = match call.query.number("timeoutSeconds")? {
        Some(seconds) if seconds > 0 => Duration::from_secs(seconds),
        _ => Duration::from_secs(rand::random_range(1800..3600)),
    };
    let (out, frames) = mpsc::channel(64);
    let stop = call.api.stop.clone();
    let bookmarks = call.query.is("allowWatchBookmarks") && call.query.get("allowWatchBookmarks").is_some();
    let include = call.include();
    let watcher = Watcher { call, selection, include, bookmarks, first: true, out };
    let from_start = initial || (since.is_none() && !suppressed);
    tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(timeout) => {}
            _ = watcher.run(since, from_start, initial) => {}
        }
    });
    let frames = tokio_stream::wrappers::ReceiverStream::new(frames);
    let stream = frames.map(|bytes| Ok::<_, std::io::Error>(Frame::data(bytes)));
    let mut response = Response::new(StreamBody::new(stream).boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// The client went away.
struct Gone;

impl Watcher {
    async fn run(mut self, since: Option<u64>, from_start: bool, mark_end: bool) -> Result<(), Gone> {
        let mut changed = self.call.api.store.subscribe(&self.call.resource.collection);
        let mut position = if from_start {
            self.initial(mark_end).await?
        } else {
            since.unwrap_or_else(|| self.call.api.store.resource_version())
        };
        let mut quiet = tokio::time::interval(BOOKMARK_EVERY);
        quiet.tick().await;
        loop {
            let collection = &self.call.resource.collection;
            match self.call.api.store.events(collection, position) {
                Ok((events, upto)) => {
                    for event in &events {
                        self.event(event).await?;
                    }
                    position = position.max(upto);
                }
                Err(status) => return self.fail(&status).await,
            }
            tokio::select! {
                changed = changed.changed() => if changed.is_err() { return Ok(()) },
                () = self.out.closed() => return Err(Gone),
                _ = quiet.tick() => if self.bookmarks { self.bookmark(position, false).await? },
            }
        }
    }

    async fn initial(&mut self, mark_end: bool) -> Result<u64, Gone> {
        let (objects, version) = self.call.api.store.list(&self.call.resource.collection, self.call.namespace());
        for object in objects {
            if self.selection.matches(&object.value) {
                self.send("ADDED", &object).await?;
            }
        }
        if mark_end {
            self.bookmark(version, true).await?;
        }
        Ok(version)
    }

    /// What an event is to somebody who sees only what is selected.
    async fn event(&mut self, event: &Event) -> Result<(), Gone> {
        let inside = |object: &Object| {
            let namespace = crate::meta::namespace(&object.value);
            self.call.namespace().is_none_or(|wanted| wanted == namespace) && self.selection.matches(&object.value)
        };
        let told: Option<(&str, Arc<Object>)> = match &event.change {
            Change::Put { new, old } => match (inside(new), old.as_deref().is_some_and(inside)) {
                (true, true) => Some(("MODIFIED", new.clone())),
                (true, false) => Some(("ADDED", new.clone())),
                (false, true) => Some(("DELETED", new.clone())),
                (false, false) => None,
            },
            Change::Delete { old, last } => inside(old).then(|| ("DELETED", last.clone())),
        };
        match told {
            Some((kind, object)) => self.send(kind, &object).await,
            None => Ok(()),
        }
    }

    async fn send(&mut self, kind: &str, object: &Object) -> Result<(), Gone> {
        let columns = std::mem::take(&mut self.first);
        let line = render::event(kind, &self.call.resource, object, self.call.form, self.include, columns);
        self.out.send(line).await.map_err(|_| Gone)
    }

    async fn bookmark(&mut self, version: u64, initial_end: bool) -> Result<(), Gone> {
        let line = render::bookmark(&self.call.resource, version, self.call.form, initial_end);
        self.out.send(line).await.map_err(|_| Gone)
    }

    async fn fail(&mut self, status: &Status) -> Result<(), Gone> {
        let line = format!("{{\"type\":\"ERROR\",\"object\":{}}}\n", status.to_json());
        self.out.send(Bytes::from(line)).await.map_err(|_| Gone)
    }
}
