//! How does a client run a command in a container, or watch the one that runs?

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use futures::{SinkExt, StreamExt, stream::SplitSink};
use k8s_openapi::api::core::v1::Pod;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use super::log::{FollowedLog, follow_log};
use super::query::Query;
use super::terminal::{Terminal, resize};
use super::{Container, Refused, binary, find, goodbye};
use crate::container::{log_path, new_pipe, receiver};
use crate::kubelet::Node;
use crate::process::{Process, exit_code};
use crate::spawner::Streams;
use crate::streams::{self, Channel, EXEC_PROTOCOLS, Said};
use crate::{Result, While, logs};

pub(super) async fn exec(
    State(node): State<Arc<Node>>,
    Path((namespace, pod, container)): Container,
    RawQuery(query): RawQuery,
    upgrade: WebSocketUpgrade,
) -> std::result::Result<Response, Refused> {
    let query = Query::parse(query);
    let state = find(&node, &namespace, &pod)?;
    let live = state.live(&container).ok_or_else(|| {
        Refused(StatusCode::BAD_REQUEST, format!("container {container} of pod {pod} is not running"))
    })?;
    let wanted = Wanted {
        argv: query.all("command"),
        input: query.flag(["stdin", "input"]),
        terminal: query.flag(["tty", "tty"]),
    };
    Ok(upgrade.protocols(EXEC_PROTOCOLS).on_upgrade(move |socket| async move {
        run_command(&node, &live, wanted, socket).await;
    }))
}

struct Wanted {
    argv: Vec<String>,
    input: bool,
    terminal: bool,
}

/// A command that runs, with what it reads and writes.
struct Command {
    process: Process,
    input: Option<Box<dyn tokio::io::AsyncWrite + Send + Unpin>>,
    outputs: Vec<(Channel, Box<dyn tokio::io::AsyncRead + Send + Unpin>)>,
    terminal: Option<OwnedFd>,
}

async fn run_command(node: &Node, live: &crate::container::Live, wanted: Wanted, socket: WebSocket) {
    let (mut sender, mut from_client) = socket.split();
    let command = match begin(node, live, &wanted).await {
        Ok(command) => command,
        Err(error) => {
            let status = streams::failed(&error.to_string()).to_string();
            let _ = sender.send(binary(Channel::Status, status.as_bytes())).await;
            let _ = sender.send(goodbye()).await;
            return;
        }
    };
    let Command { mut process, mut input, outputs, terminal } = command;
    let (queue, messages) = mpsc::channel::<Message>(32);
    let writer = tokio::spawn(write_all(messages, sender));
    let readers: Vec<_> = outputs.into_iter().map(|(c, r)| tokio::spawn(read_all(c, r, queue.clone()))).collect();
    let status = loop {
        tokio::select! {
            status = process.wait() => break status,
            said = from_client.next() => match said {
                Some(Ok(Message::Binary(bytes))) => match streams::parse(&bytes) {
                    Said::Input(bytes) => if let Some(open) = &mut input
                        && open.write_all(bytes).await.is_err() { input = None },
                    Said::InputEnds => input = None,
                    Said::Resize(columns, rows) => resize(terminal.as_ref(), columns, rows),
                    Said::Other => {}
                },
                Some(Ok(Message::Close(_)) | Err(_)) | None => {
                    // Nobody reads any more; a command that only computes is ended with its client.
                    process.signal(libc::SIGHUP);
                    process.signal(libc::SIGKILL);
                    break process.wait().await;
                }
                Some(Ok(_)) => {}
            }
        }
    };
    drop(input);
    // A child that keeps the stream open must not keep the client waiting.
    for reader in readers {
        let _ = tokio::time::timeout(Duration::from_secs(2), reader).await;
    }
    let status = status.map_or_else(|e| streams::failed(&e.to_string()), |s| streams::ended(exit_code(s)));
    let _ = queue.send(binary(Channel::Status, status.to_string().as_bytes())).await;
    let _ = queue.send(goodbye()).await;
    drop(queue);
    let _ = tokio::time::timeout(Duration::from_secs(5), writer).await;
}

async fn write_all(mut messages: mpsc::Receiver<Message>, mut sender: SplitSink<WebSocket, Message>) {
    while let Some(message) = messages.recv().await {
        if sender.send(message).await.is_err() {
            return;
        }
    }
    let _ = sender.close().await;
}

async fn read_all(
    channel: Channel,
    mut reader: Box<dyn tokio::io::AsyncRead + Send + Unpin>,
    queue: mpsc::Sender<Message>,
) {
    let mut part = vec![0u8; 16 << 10];
    // A terminal whose last user has gone answers with an error.
    while let Ok(n @ 1..) = reader.read(&mut part).await {
        if queue.send(binary(channel, &part[..n])).await.is_err() {
            return;
        }
    }
}

async fn begin(node: &Node, live: &crate::container::Live, wanted: &Wanted) -> Result<Command> {
    let mut launch = live.launch(&wanted.argv, wanted.terminal)?;
    if wanted.terminal {
        let pair = nix::pty::openpty(None, None).while_doing(|| "open a terminal".into())?;
        let copy = |fd: &OwnedFd| fd.try_clone().while_doing(|| "duplicate a terminal".into());
        launch.streams =
            Streams { input: Some(copy(&pair.slave)?), output: Some(copy(&pair.slave)?), error: Some(pair.slave) };
        let process = Process::new(node.spawner.spawn(launch).await?)?;
        let master = Terminal::new(copy(&pair.master)?)?;
        let reader = Terminal::new(copy(&pair.master)?)?;
        let input: Option<Box<dyn tokio::io::AsyncWrite + Send + Unpin>> =
            if wanted.input { Some(Box::new(master)) } else { None };
        return Ok(Command {
            process,
            input,
            outputs: vec![(Channel::Output, Box::new(reader))],
            terminal: Some(pair.master),
        });
    }
    let (output, output_end) = new_pipe()?;
    let (error, error_end) = new_pipe()?;
    let (input_end, input) = if wanted.input { new_pipe().map(|(r, w)| (Some(r), Some(w)))? } else { (None, None) };
    launch.streams = Streams { input: input_end, output: Some(output_end), error: Some(error_end) };
    let process = Process::new(node.spawner.spawn(launch).await?)?;
    let input = match input {
        Some(fd) => {
            let sender = tokio::net::unix::pipe::Sender::from_owned_fd(fd).while_doing(|| "watch a pipe".into())?;
            Some(Box::new(sender) as Box<dyn tokio::io::AsyncWrite + Send + Unpin>)
        }
        None => None,
    };
    let outputs: Vec<(Channel, Box<dyn tokio::io::AsyncRead + Send + Unpin>)> =
        vec![(Channel::Output, Box::new(receiver(output)?)), (Channel::Error, Box::new(receiver(error)?))];
    Ok(Command { process, input, outputs, terminal: None })
}

/// The running program's output, from now on; input is not connected (containers have none). Of a container that waits
/// for somebody to attach (`stdin: true`, as `kubectl run -i` makes it), from its beginning: the program does not wait.
pub(super) async fn attach(
    State(node): State<Arc<Node>>,
    Path((namespace, pod, container)): Container,
    upgrade: WebSocketUpgrade,
) -> std::result::Result<Response, Refused> {
    let state = find(&node, &namespace, &pod)?;
    let runtime = state
        .container(&container)
        .ok_or_else(|| Refused(StatusCode::NOT_FOUND, format!("container {container} is not in pod {pod}")))?;
    let object = state.object();
    let path = log_path(&object, &container, runtime.restarts);
    let end = if wants_input(&object, &container) { 0 } else { std::fs::metadata(&path).map_or(0, |m| m.len()) };
    let (lines, mut fresh) = mpsc::channel(16);
    let wanted = logs::Query::default();
    let log = FollowedLog { state, container, path, end, wanted, run: runtime.restarts };
    Ok(upgrade.protocols(EXEC_PROTOCOLS).on_upgrade(move |mut socket| async move {
        let follower = tokio::spawn(follow_log(log, Vec::new(), lines));
        while let Some(Ok(text)) = fresh.recv().await {
            if socket.send(binary(Channel::Output, &text)).await.is_err() {
                break;
            }
        }
        follower.abort();
        let _ = socket.send(binary(Channel::Status, streams::ended(0).to_string().as_bytes())).await;
        let _ = socket.send(goodbye()).await;
        // A connection that is closed with unread input is reset, and what was sent is lost on the way.
        let _ = tokio::time::timeout(Duration::from_secs(5), async { while let Some(Ok(_)) = socket.recv().await {} })
            .await;
    }))
}

fn wants_input(pod: &Pod, name: &str) -> bool {
    let mut containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    containers.any(|container| container.name == name && container.stdin == Some(true))
}
