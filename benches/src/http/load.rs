//! Who asks, and who answers?

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::middle::Middle;
use crate::stats::quantile;

/// A request as a browser or a service might send it. The last of a hundred rules allows it.
const REQUEST: &[u8] = b"GET /api/v1/items/99/12345?view=full HTTP/1.1\r\nHost: shop.example\r\n\
User-Agent: bench/1.0\r\nAccept: application/json\r\nAccept-Encoding: gzip\r\nX-Request-Id: 4711-0815\r\n\r\n";

/// Bytes of an answer's body.
const BODY: usize = 256;

/// What was measured in a slice.
#[derive(Debug, Clone)]
pub struct Slice {
    /// Requests that were answered.
    pub requests: u64,
    /// How long it took.
    pub time: Duration,
    /// Processor time of what is between.
    pub cpu: Duration,
    /// Half of the answers came within so many microseconds.
    pub p50: f64,
    /// Of a hundred, all but one.
    pub p99: f64,
}

/// Connections of clients.
pub struct Load {
    clients: Vec<Mutex<TcpStream>>,
}

impl Load {
    /// So many, to this address.
    pub fn connect(address: SocketAddr, count: usize) -> Result<Load> {
        let connect = |_| {
            let stream = TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(Duration::from_secs(20)))?;
            Ok(Mutex::new(stream))
        };
        Ok(Load { clients: (0..count).map(connect).collect::<Result<_>>()? })
    }

    /// One request on each.
    pub fn each_once(&self) -> Result<()> {
        self.clients.iter().try_for_each(ask)
    }

    /// All of them, one request after the other.
    pub fn run(&self, time: Duration, middle: Option<&Middle>) -> Result<Slice> {
        self.each_once()?;
        let stop = AtomicBool::new(false);
        let before = middle.map(Middle::cpu).transpose()?;
        let started = Instant::now();
        let times = std::thread::scope(|scope| {
            let threads: Vec<_> = self.clients.iter().map(|client| scope.spawn(|| work(client, &stop))).collect();
            std::thread::sleep(time);
            stop.store(true, Ordering::Relaxed);
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| Ok(Vec::new())))
                .collect::<Result<Vec<_>>>()
        })?;
        let time = started.elapsed();
        let after = middle.map(Middle::cpu).transpose()?;
        let mut all: Vec<f64> = times.concat();
        ensure!(!all.is_empty(), "no request was answered");
        Ok(Slice {
            requests: all.len() as u64,
            time,
            cpu: after.zip(before).map_or(Duration::ZERO, |(after, before)| after - before),
            p50: quantile(&mut all, 0.5),
            p99: quantile(&mut all, 0.99),
        })
    }
}

fn work(client: &Mutex<TcpStream>, stop: &AtomicBool) -> Result<Vec<f64>> {
    let mut times = Vec::with_capacity(1 << 14);
    while !stop.load(Ordering::Relaxed) {
        let started = Instant::now();
        ask(client)?;
        times.push(started.elapsed().as_secs_f64() * 1e6);
    }
    Ok(times)
}

fn ask(client: &Mutex<TcpStream>) -> Result<()> {
    let mut client = client.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    client.write_all(REQUEST)?;
    let (mut buffer, mut filled) = ([0; 2_048], 0);
    loop {
        let count = client.read(&mut buffer[filled..]).context("no answer")?;
        ensure!(count > 0, "the connection ended");
        filled += count;
        ensure!(buffer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&buffer[..filled]));
        let head = buffer[..filled].windows(4).position(|four| four == b"\r\n\r\n");
        if head.is_some_and(|head| filled >= head + 4 + BODY) {
            return Ok(());
        }
    }
}

/// A server that answers everything with the same.
pub async fn origin() -> Result<SocketAddr> {
    let listener = tokio::net::TcpSocket::new_v4()?;
    listener.bind("127.0.0.1:0".parse()?)?;
    let listener = listener.listen(4_096)?;
    let address = listener.local_addr()?;
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {BODY}\r\n\r\n");
    let answer: &'static [u8] = Vec::leak([head.as_bytes(), &[b'x'; BODY]].concat());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            tokio::spawn(async move {
                let mut buffer = [0; 1_024];
                let mut filled = 0;
                while let Ok(count @ 1..) = stream.read(&mut buffer[filled..]).await {
                    filled += count;
                    // Requests have no body and come one at a time.
                    if buffer[..filled].ends_with(b"\r\n\r\n") {
                        filled = 0;
                        if stream.write_all(answer).await.is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    Ok(address)
}
