//! How do clients that speak SPDY reach a kubelet that speaks WebSocket?
//!
//! Exec and attach: one WebSocket whose channels become the client's streams. Port-forward: each pair of streams is one
//! connection to a port, and gets a WebSocket of its own.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::mpsc;

use super::Stream;
use super::spdy::{self, Frame, Writer};
use super::websocket::{self, Message};
use crate::request::Query;

const PART: usize = 32 * 1024;
/// A pod that is silent for this long after the client's end has nothing more to say.
const SILENCE: Duration = Duration::from_secs(1);

/// The kubelet's side.
pub struct Socket {
    reader: websocket::Reader,
    read: ReadHalf<Box<dyn Stream>>,
    write: WriteHalf<Box<dyn Stream>>,
}

impl Socket {
    pub fn new(stream: Box<dyn Stream>) -> Self {
        let (read, write) = tokio::io::split(stream);
        Self { reader: websocket::Reader::default(), read, write }
    }

    async fn send(&mut self, payload: &[u8]) -> std::io::Result<()> {
        self.write.write_all(&websocket::binary(payload, rand::random())).await
    }

    /// The next message; None when the kubelet is done. It may be dropped between messages without loss.
    async fn receive(&mut self) -> Option<Vec<u8>> {
        loop {
            match self.reader.next().ok()? {
                Some(Message::Binary(bytes)) => return Some(bytes),
                Some(Message::Close) => return None,
                Some(Message::Ping(bytes)) => {
                    self.write.write_all(&websocket::pong(&bytes, rand::random())).await.ok()?
                }
                None => {
                    let mut part = [0; 8192];
                    let count = self.read.read(&mut part).await.ok().filter(|count| *count > 0)?;
                    self.reader.push(&part[..count]);
                }
            }
        }
    }

    async fn close(&mut self) {
        let _ = self.write.write_all(&websocket::close(rand::random())).await;
        let _ = self.write.shutdown().await;
    }
}

/// The client's side.
struct Client<S> {
    reader: spdy::Reader,
    read: ReadHalf<S>,
    write: WriteHalf<S>,
    writer: Writer,
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Client<S> {
    fn new(stream: S) -> Self {
        let (read, write) = tokio::io::split(stream);
        Self { reader: spdy::Reader::new(), read, write, writer: Writer::default() }
    }

    /// The next frame that matters; None when the client went.
    async fn receive(&mut self) -> Option<Frame> {
        loop {
            match self.reader.next().ok()? {
                Some(Frame::Ping(id)) => self.write.write_all(&Writer::pong(id)).await.ok()?,
                Some(Frame::GoAway) => return None,
                Some(Frame::Other) => {}
                Some(frame) => return Some(frame),
                None => {
                    let mut part = vec![0; PART];
                    let count = self.read.read(&mut part).await.ok().filter(|count| *count > 0)?;
                    self.reader.push(&part[..count]);
                }
            }
        }
    }

    async fn accept(&mut self, stream: u32) -> std::io::Result<()> {
        let frame = self.writer.accept(stream);
        self.write.write_all(&frame).await
    }

    async fn data(&mut self, stream: u32, bytes: &[u8], end: bool) -> std::io::Result<()> {
        self.write.write_all(&Writer::data(stream, bytes, end)).await
    }

    /// Lets the client read what is left, and go.
    async fn finish(&mut self, last: u32) {
        let _ = self.write.write_all(&Writer::go_away(last)).await;
        let _ = tokio::time::timeout(Duration::from_secs(2), async { while self.receive().await.is_some() {} }).await;
        let _ = self.write.shutdown().await;
    }
}

/// The channel of a stream, by the client's name for it.
fn channel(name: &str) -> Option<u8> {
    Some(match name {
        "stdin" => 0,
        "stdout" => 1,
        "stderr" => 2,
        "error" => 3,
        "resize" => 4,
        _ => return None,
    })
}

/// The channels that a client opens for what it asks.
pub fn expected(query: &Query) -> HashSet<u8> {
    let tty = query.is("tty") && query.get("tty").is_some();
    let wants = |name: &str| query.get(name).is_some() && query.is(name);
    let mut channels = HashSet::from([3]);
    channels.extend(wants("stdin").then_some(0));
    channels.extend(wants("stdout").then_some(1));
    channels.extend((wants("stderr") && !tty).then_some(2));
    channels.extend(tty.then_some(4));
    channels
}

/// Joins a client's streams with a kubelet's channels until the command ends or one side goes.
pub async fn exec<S: AsyncRead + AsyncWrite + Send + Unpin>(stream: S, mut kubelet: Socket, expected: HashSet<u8>) {
    let mut client = Client::new(stream);
    let mut streams: HashMap<u8, u32> = HashMap::new();
    loop {
        let complete = expected.iter().all(|channel| streams.contains_key(channel));
        tokio::select! {
            frame = client.receive() => match frame {
                None => return kubelet.close().await,
                Some(frame) => if to_kubelet(&mut client, &mut kubelet, &mut streams, frame).await.is_err() { break },
            },
            message = kubelet.receive(), if complete => {
                let Some(message) = message else { break };
                let Some((channel, bytes)) = message.split_first() else { continue };
                if let Some(stream) = streams.get(channel)
                    && !bytes.is_empty()
                    && client.data(*stream, bytes, false).await.is_err()
                {
                    return kubelet.close().await;
                }
            }
        }
    }
    for (channel, stream) in &streams {
        if matches!(channel, 1..=3) {
            let _ = client.data(*stream, &[], true).await;
        }
    }
    client.finish(streams.values().copied().max().unwrap_or(0)).await;
}

async fn to_kubelet<S: AsyncRead + AsyncWrite + Send + Unpin>(
    client: &mut Client<S>,
    kubelet: &mut Socket,
    streams: &mut HashMap<u8, u32>,
    frame: Frame,
) -> std::io::Result<()> {
    match frame {
        Frame::Open { stream, headers } => {
            if let Some(channel) = headers.get("streamtype").and_then(|name| channel(name)) {
                streams.insert(channel, stream);
            }
            client.accept(stream).await
        }
        Frame::Data { stream, bytes, end } => {
            let channel = streams.iter().find(|(_, known)| **known == stream).map(|(channel, _)| *channel);
            match channel {
                Some(channel @ (0 | 4)) => {
                    if !bytes.is_empty() {
                        kubelet.send(&[&[channel], bytes.as_slice()].concat()).await?;
                    }
                    if end && channel == 0 {
                        kubelet.send(&[255, 0]).await?;
                    }
                    Ok(())
                }
                _ => Ok(()),
            }
        }
        Frame::Reset { .. } | Frame::Ping(_) | Frame::GoAway | Frame::Other => Ok(()),
    }
}

/// One forwarded connection.
#[derive(Default)]
struct Pair {
    error: Option<u32>,
    data: Option<u32>,
}

/// Frames for the client from one forwarded connection: stream, bytes, end.
type Outgoing = (u32, Vec<u8>, bool);

/// Joins pairs of a client's streams with connections to ports, which `dial` opens.
pub async fn forward<S, D, F>(stream: S, dial: D)
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
    D: Fn(u16) -> F + Send + Sync,
    F: Future<Output = Result<Socket, String>> + Send + 'static,
{
    let mut client = Client::new(stream);
    let mut pairs: HashMap<String, Pair> = HashMap::new();
    let mut inputs: HashMap<u32, mpsc::Sender<Vec<u8>>> = HashMap::new();
    let (out, mut outgoing) = mpsc::channel::<Outgoing>(64);
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            frame = client.receive() => match frame {
                None => return,
                Some(Frame::Open { stream, headers }) => {
                    if client.accept(stream).await.is_err() { return }
                    let Some((id, pair)) = note(&mut pairs, stream, &headers) else { continue };
                    if let (Some(error), Some(data)) = (pair.error, pair.data) {
                        pairs.remove(&id);
                        let (input, incoming) = mpsc::channel(64);
                        inputs.insert(data, input);
                        let port = headers.get("port").and_then(|text| text.parse().ok()).unwrap_or(0);
                        connections.spawn(connection(dial(port), (error, data), incoming, out.clone()));
                    }
                }
                Some(Frame::Data { stream, bytes, end }) => {
                    if let Some(input) = inputs.get(&stream) && !bytes.is_empty() {
                        let _ = input.send(bytes).await;
                    }
                    if end { inputs.remove(&stream); }
                }
                Some(Frame::Reset { stream }) => drop(inputs.remove(&stream)),
                Some(Frame::Ping(_) | Frame::GoAway | Frame::Other) => {}
            },
            Some((stream, bytes, end)) = outgoing.recv() => {
                if client.data(stream, &bytes, end).await.is_err() { return }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

fn note<'a>(
    pairs: &'a mut HashMap<String, Pair>,
    stream: u32,
    headers: &HashMap<String, String>,
) -> Option<(String, &'a Pair)> {
    // Clients without request numbers open the error stream first and the data stream right after it.
    let kind = headers.get("streamtype")?;
    let id = headers
        .get("requestid")
        .cloned()
        .unwrap_or_else(|| (if kind == "data" { stream.saturating_sub(2) } else { stream }).to_string());
    let pair = pairs.entry(id.clone()).or_default();
    match kind.as_str() {
        "error" => pair.error = Some(stream),
        "data" => pair.data = Some(stream),
        _ => return None,
    }
    Some((id, pair))
}

async fn connection<F: Future<Output = Result<Socket, String>>>(
    dial: F,
    (error, data): (u32, u32),
    mut incoming: mpsc::Receiver<Vec<u8>>,
    out: mpsc::Sender<Outgoing>,
) {
    match dial.await {
        Err(why) => drop(out.send((error, why.into_bytes(), false)).await),
        Ok(mut kubelet) => {
            // Both channels begin with the port's number.
            let mut begun = HashSet::new();
            let mut open = true;
            loop {
                tokio::select! {
                    bytes = incoming.recv(), if open => match bytes {
                        Some(bytes) => if kubelet.send(&[&[0], bytes.as_slice()].concat()).await.is_err() { break },
                        None => open = false,
                    },
                    message = kubelet.receive() => {
                        let Some(message) = message else { break };
                        let Some((channel, bytes)) = message.split_first() else { continue };
                        if begun.insert(*channel) || bytes.is_empty() { continue }
                        let stream = if *channel == 0 { data } else { error };
                        if out.send((stream, bytes.to_vec(), false)).await.is_err() { break }
                    }
                    () = tokio::time::sleep(SILENCE), if !open => break,
                }
            }
            kubelet.close().await;
        }
    }
    let _ = out.send((error, Vec::new(), true)).await;
    let _ = out.send((data, Vec::new(), true)).await;
}
