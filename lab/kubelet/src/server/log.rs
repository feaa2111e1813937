//! How does a container's log get to who asks for it?

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use tokio::sync::mpsc;

use super::query::Query;
use super::{Container, Refused, find};
use crate::container::log_path;
use crate::kubelet::Node;
use crate::logs;
use crate::pod::PodState;

pub(super) async fn container_logs(
    State(node): State<Arc<Node>>,
    Path((namespace, pod, container)): Container,
    RawQuery(query): RawQuery,
) -> std::result::Result<Response, Refused> {
    let query = Query::parse(query);
    let state = find(&node, &namespace, &pod)?;
    let runtime = state
        .container(&container)
        .ok_or_else(|| Refused(StatusCode::NOT_FOUND, format!("container {container} is not in pod {pod}")))?;
    let previous = query.flag(["previous", "previous"]);
    let run = if previous { runtime.restarts - 1 } else { runtime.restarts };
    let mut path = log_path(&state.object(), &container, run);
    if !previous && !path.exists() && run > 0 {
        path = log_path(&state.object(), &container, run - 1);
    }
    if !path.exists() {
        let waiting = match (previous, &runtime.state) {
            (true, _) => format!("previous terminated container {container:?} in pod {pod:?} not found"),
            (false, crate::status::State::Waiting { reason, .. }) => {
                format!("container {container:?} in pod {pod:?} is waiting to start: {reason}")
            }
            (false, _) => format!("container {container:?} in pod {pod:?} has no log"),
        };
        return Err(Refused(StatusCode::BAD_REQUEST, waiting));
    }
    let wanted = log_query(&query)?;
    let (text, end) =
        logs::read(&path, &wanted).map_err(|e| Refused(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))?;
    let follow = query.flag(["follow", "follow"]) && !previous;
    let plain = [(axum::http::header::CONTENT_TYPE, "text/plain")];
    if !follow {
        return Ok((plain, text).into_response());
    }
    let (lines, body) = mpsc::channel::<std::io::Result<Vec<u8>>>(16);
    tokio::spawn(follow_log(FollowedLog { state, container, path, end, wanted, run }, text, lines));
    let body = Body::from_stream(tokio_stream(body));
    Ok((plain, body).into_response())
}

fn tokio_stream<T>(mut receiver: mpsc::Receiver<T>) -> impl futures::Stream<Item = T> {
    futures::stream::poll_fn(move |context| receiver.poll_recv(context))
}

fn log_query(query: &Query) -> std::result::Result<logs::Query, Refused> {
    let seconds: Option<i64> = query.number("sinceSeconds")?;
    let since = match (query.get("sinceTime"), seconds) {
        (Some(time), _) => Some(
            time.parse::<Timestamp>()
                .map_err(|e| Refused(StatusCode::BAD_REQUEST, format!("parameter sinceTime is {time:?}: {e}")))?,
        ),
        (None, Some(seconds)) => Timestamp::now().checked_sub(jiff::SignedDuration::from_secs(seconds)).ok(),
        (None, None) => None,
    };
    Ok(logs::Query {
        tail: query.number("tailLines")?,
        since,
        timestamps: query.flag(["timestamps", "timestamps"]),
        limit: query.number("limitBytes")?,
    })
}

pub(super) struct FollowedLog {
    pub(super) state: Arc<PodState>,
    pub(super) container: String,
    pub(super) path: std::path::PathBuf,
    pub(super) end: u64,
    pub(super) wanted: logs::Query,
    pub(super) run: i32,
}

/// Sends what is there and what comes until the run has ended or nobody listens.
pub(super) async fn follow_log(mut log: FollowedLog, first: Vec<u8>, lines: mpsc::Sender<std::io::Result<Vec<u8>>>) {
    if !first.is_empty() && lines.send(Ok(first)).await.is_err() {
        return;
    }
    let mut rest = Vec::new();
    loop {
        let over = !log
            .state
            .container(&log.container)
            .is_some_and(|c| c.restarts == log.run && matches!(c.state, crate::status::State::Running(_)));
        let fresh = match read_from(&log.path, &mut log.end) {
            Ok(fresh) => fresh,
            Err(error) => {
                let _ = lines.send(Err(error)).await;
                return;
            }
        };
        rest.extend_from_slice(&fresh);
        let mut text = Vec::new();
        while let Some(at) = rest.iter().position(|b| *b == b'\n') {
            let entry: Vec<u8> = rest.drain(..=at).collect();
            text.extend(logs::render(&entry[..at], &log.wanted).unwrap_or_default());
        }
        if !text.is_empty() && lines.send(Ok(text)).await.is_err() {
            return;
        }
        if over || lines.is_closed() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn read_from(path: &std::path::Path, end: &mut u64) -> std::io::Result<Vec<u8>> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = std::fs::File::open(path)?;
    // A shorter file is a new one: the old was set aside.
    if file.metadata()?.len() < *end {
        *end = 0;
    }
    file.seek(SeekFrom::Start(*end))?;
    let mut fresh = Vec::new();
    file.take(1 << 20).read_to_end(&mut fresh)?;
    *end += fresh.len() as u64;
    Ok(fresh)
}
