//! What does the API server ask of this kubelet: logs, commands in containers, connections to pods?

use crate::container::{log_path, new_pipe, receiver};
use crate::kubelet::Node;
use crate::namespaces::Kind;
use crate::pod::PodState;
use crate::process::{Process, exit_code};
use crate::spawner::Streams;
use crate::streams::{self, Channel, EXEC_PROTOCOLS, Said};
use crate::{Error, Result, While, logs};
use axum::Router;
use axum::body::Body;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use futures::{SinkExt, StreamExt, stream::SplitSink};
use jiff::Timestamp;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Starts to listen on the kubelet's socket.
pub fn start(node: Arc<Node>) -> Result<JoinHandle<std::io::Result<()>>> {
    let path = node.settings.socket.clone();
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).while_doing(|| format!("create {}", folder.display()))?;
    }
    let _ = std::fs::remove_file(&path);
    let listener = tokio::net::UnixListener::bind(&path).while_doing(|| format!("listen on {}", path.display()))?;
    let routes = Router::new()
        .route("/healthz", any(|| async { "ok" }))
        .route("/pods", any(pods))
        .route("/containerLogs/{namespace}/{pod}/{container}", any(container_logs))
        .route("/exec/{namespace}/{pod}/{container}", any(exec))
        .route("/attach/{namespace}/{pod}/{container}", any(attach))
        .route("/portForward/{namespace}/{pod}", any(port_forward))
        .with_state(node);
    Ok(tokio::spawn(async move { axum::serve(listener, routes).await }))
}

/// A refusal: code and reason, sent as the API's `Status`.
#[derive(Debug)]
struct Refused(StatusCode, String);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Refused(code, message) = self;
        let reason = match code {
            StatusCode::NOT_FOUND => "NotFound",
            StatusCode::BAD_REQUEST => "BadRequest",
            _ => "InternalError",
        };
        let status = serde_json::json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message, "reason": reason, "code": code.as_u16(),
        });
        (code, axum::Json(status)).into_response()
    }
}

/// The query of a request: keys may repeat.
struct Query(Vec<(String, String)>);

impl Query {
    fn parse(raw: Option<String>) -> Query {
        let raw = raw.unwrap_or_default();
        let pairs = raw.split('&').filter(|p| !p.is_empty());
        Query(
            pairs
                .map(|pair| {
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decode(key), decode(value))
                })
                .collect(),
        )
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    fn all(&self, key: &str) -> Vec<String> {
        self.0.iter().filter(|(k, _)| k == key).map(|(_, v)| v.clone()).collect()
    }

    /// Either name: that of the API server's and that of the kubelet's interface.
    fn flag(&self, names: [&str; 2]) -> bool {
        names.iter().any(|n| self.get(n).is_some_and(|v| v != "0" && v != "false"))
    }

    fn number<T: std::str::FromStr>(&self, key: &str) -> std::result::Result<Option<T>, Refused> {
        match self.get(key).filter(|v| !v.is_empty()) {
            None => Ok(None),
            Some(text) => text
                .parse()
                .map(Some)
                .map_err(|_| Refused(StatusCode::BAD_REQUEST, format!("parameter {key} is {text:?}, not a number"))),
        }
    }
}

/// Percent-decoding of a query.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let hex = bytes.get(at + 1..at + 3).and_then(|h| std::str::from_utf8(h).ok());
        match (byte, hex.and_then(|h| u8::from_str_radix(h, 16).ok())) {
            (b'%', Some(value)) => {
                out.push(value);
                at += 2;
            }
            (b'+', _) => out.push(b' '),
            _ => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn find(node: &Node, namespace: &str, pod: &str) -> std::result::Result<Arc<PodState>, Refused> {
    node.pod(namespace, pod)
        .ok_or_else(|| Refused(StatusCode::NOT_FOUND, format!("pod {namespace}/{pod} is not on this node")))
}

async fn pods(State(node): State<Arc<Node>>) -> Response {
    let list = node.names();
    axum::Json(list).into_response()
}

type Container = Path<(String, String, String)>;

async fn container_logs(
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

struct FollowedLog {
    state: Arc<PodState>,
    container: String,
    path: std::path::PathBuf,
    end: u64,
    wanted: logs::Query,
    run: i32,
}

/// Sends what is there and what comes until the run has ended or nobody listens.
async fn follow_log(mut log: FollowedLog, first: Vec<u8>, lines: mpsc::Sender<std::io::Result<Vec<u8>>>) {
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

async fn exec(
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

/// A close without code is an error to clients.
fn goodbye() -> Message {
    Message::Close(Some(CloseFrame { code: 1000, reason: "".into() }))
}

fn binary(channel: Channel, bytes: &[u8]) -> Message {
    Message::Binary(streams::message(channel, bytes).into())
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

fn resize(terminal: Option<&OwnedFd>, columns: u16, rows: u16) {
    if let Some(terminal) = terminal {
        let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the structure lives through the call and has the form that this ioctl reads.
        unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &size) };
    }
}

/// The master side of a terminal.
struct Terminal(tokio::io::unix::AsyncFd<std::fs::File>);

impl Terminal {
    fn new(fd: OwnedFd) -> Result<Terminal> {
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

/// The running program's output from now on; input is not connected (containers have none).
async fn attach(
    State(node): State<Arc<Node>>,
    Path((namespace, pod, container)): Container,
    upgrade: WebSocketUpgrade,
) -> std::result::Result<Response, Refused> {
    let state = find(&node, &namespace, &pod)?;
    let runtime = state
        .container(&container)
        .ok_or_else(|| Refused(StatusCode::NOT_FOUND, format!("container {container} is not in pod {pod}")))?;
    let path = log_path(&state.object(), &container, runtime.restarts);
    let end = std::fs::metadata(&path).map_or(0, |m| m.len());
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
    }))
}

/// One connection to a port of the pod, made inside its network namespace: `?port=N`. Each binary message is data; the
/// first byte says which of the two channels of the port's pair it is (0 data, 1 error).
async fn port_forward(
    State(node): State<Arc<Node>>,
    Path((namespace, pod)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    upgrade: WebSocketUpgrade,
) -> std::result::Result<Response, Refused> {
    let query = Query::parse(query);
    let ports: Vec<u16> = query
        .all("port")
        .iter()
        .chain(&query.all("ports"))
        .flat_map(|text| text.split(',').map(str::parse).collect::<Vec<_>>())
        .collect::<std::result::Result<_, _>>()
        .map_err(|_| Refused(StatusCode::BAD_REQUEST, "parameter port is no port".to_string()))?;
    let [port] = ports[..] else {
        return Err(Refused(StatusCode::BAD_REQUEST, "exactly one parameter port is expected".into()));
    };
    let state = find(&node, &namespace, &pod)?;
    let protocols = ["v4.channel.k8s.io", "portforward.k8s.io", "v4.base64.channel.k8s.io"];
    Ok(upgrade.protocols(protocols).on_upgrade(move |socket| async move {
        forward(&state, port, socket).await;
    }))
}

async fn forward(state: &PodState, port: u16, mut socket: WebSocket) {
    // Each channel begins with the port's number.
    for channel in [0u8, 1] {
        let [low, high] = port.to_le_bytes();
        if socket.send(Message::Binary(vec![channel, low, high].into())).await.is_err() {
            return;
        }
    }
    let stream = match connect(state, port).await {
        Ok(stream) => stream,
        Err(error) => {
            let mut message = vec![1u8];
            message.extend_from_slice(format!("port {port}: {error}").as_bytes());
            let _ = socket.send(Message::Binary(message.into())).await;
            let _ = socket.send(goodbye()).await;
            return;
        }
    };
    let (mut from_pod, mut to_pod) = stream.into_split();
    let mut part = vec![0u8; 16 << 10];
    loop {
        tokio::select! {
            read = from_pod.read(&mut part) => match read {
                Ok(n @ 1..) => {
                    let mut message = vec![0u8];
                    message.extend_from_slice(&part[..n]);
                    if socket.send(Message::Binary(message.into())).await.is_err() { break }
                }
                _ => break,
            },
            said = socket.recv() => match said {
                Some(Ok(Message::Binary(bytes))) => match bytes.split_first() {
                    Some((0, data)) => if to_pod.write_all(data).await.is_err() { break },
                    _ => continue,
                },
                Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                Some(Ok(_)) => {}
            }
        }
    }
    let _ = socket.send(goodbye()).await;
}

/// Connects to the pod's loopback address inside its network namespace.
async fn connect(state: &PodState, port: u16) -> Result<TcpStream> {
    let namespaces = state.namespaces()?;
    let net = namespaces.into_iter().find(|n| n.kind() == Kind::Net);
    let inside = move || -> Result<Vec<(std::net::SocketAddr, tokio::net::TcpSocket)>> {
        let v4 = tokio::net::TcpSocket::new_v4().while_doing(|| "open a socket".into())?;
        let mut all = vec![(std::net::SocketAddr::from(([127, 0, 0, 1], port)), v4)];
        if let Ok(v6) = tokio::net::TcpSocket::new_v6() {
            all.push((std::net::SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, port)), v6));
        }
        Ok(all)
    };
    let sockets = match net {
        Some(net) => net.within(inside)??,
        None => inside()?,
    };
    let mut last = None;
    for (address, socket) in sockets {
        match socket.connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = Some(error),
        }
    }
    Err(Error::System {
        what: format!("connect to port {port} of the pod"),
        source: last.unwrap_or_else(|| std::io::ErrorKind::NotConnected.into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_repeat_and_are_decoded() {
        let query = Query::parse(Some("command=ls&command=a+b%2Fc&stdin=1&tty=false&x=%zz".into()));
        assert_eq!(query.all("command"), ["ls", "a b/c"]);
        assert!(query.flag(["stdin", "input"]) && !query.flag(["tty", "tty"]));
        assert_eq!(query.get("x"), Some("%zz"));
        assert!(query.number::<u32>("command").is_err());
    }
}
