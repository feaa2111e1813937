//! Who asks for names, and who answers?

use std::net::{SocketAddr, UdpSocket};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::http::middle::Middle;
use crate::stats::quantile;

/// What was measured in a slice.
#[derive(Debug, Clone)]
pub struct Slice {
    /// Questions that were answered.
    pub answers: u64,
    /// How long it took.
    pub time: Duration,
    /// Processor time of what is between.
    pub cpu: Duration,
    /// Half of the answers came within so many microseconds.
    pub p50: f64,
    /// Of a hundred, all but one.
    pub p99: f64,
}

/// Sockets of clients.
pub struct Load {
    clients: Vec<Mutex<UdpSocket>>,
}

impl Load {
    /// So many, to this address.
    pub fn connect(address: SocketAddr, count: usize) -> Result<Load> {
        let connect = |_| {
            let socket = UdpSocket::bind("127.0.0.1:0")?;
            socket.connect(address)?;
            socket.set_read_timeout(Some(Duration::from_secs(5)))?;
            Ok(Mutex::new(socket))
        };
        Ok(Load { clients: (0..count).map(connect).collect::<Result<_>>()? })
    }

    /// One question of each.
    pub fn each_once(&self) -> Result<()> {
        self.clients.iter().enumerate().try_for_each(|(client, socket)| ask(socket, client, 0))
    }

    /// All of them, one question after the other.
    pub fn run(&self, time: Duration, middle: Option<&Middle>) -> Result<Slice> {
        self.each_once()?;
        let stop = AtomicBool::new(false);
        let before = middle.map(Middle::cpu).transpose()?;
        let started = Instant::now();
        let times = std::thread::scope(|scope| {
            let each = self.clients.iter().enumerate();
            let threads: Vec<_> = each
                .map(|(client, socket)| {
                    scope.spawn({
                        let stop = &stop;
                        move || work(socket, client, stop)
                    })
                })
                .collect();
            std::thread::sleep(time);
            stop.store(true, Ordering::Relaxed);
            let join = |thread: std::thread::ScopedJoinHandle<'_, _>| thread.join().unwrap_or_else(|_| Ok(Vec::new()));
            threads.into_iter().map(join).collect::<Result<Vec<_>>>()
        })?;
        let time = started.elapsed();
        let after = middle.map(Middle::cpu).transpose()?;
        let mut all: Vec<f64> = times.concat();
        ensure!(!all.is_empty(), "no question was answered");
        Ok(Slice {
            answers: all.len() as u64,
            time,
            cpu: after.zip(before).map_or(Duration::ZERO, |(after, before)| after - before),
            p50: quantile(&mut all, 0.5),
            p99: quantile(&mut all, 0.99),
        })
    }
}

fn work(socket: &Mutex<UdpSocket>, client: usize, stop: &AtomicBool) -> Result<Vec<f64>> {
    let mut times = Vec::with_capacity(1 << 14);
    while !stop.load(Ordering::Relaxed) {
        let started = Instant::now();
        ask(socket, client, times.len())?;
        times.push(started.elapsed().as_secs_f64() * 1e6);
    }
    Ok(times)
}

/// The last of a hundred patterns allows it.
fn ask(socket: &Mutex<UdpSocket>, client: usize, number: usize) -> Result<()> {
    let socket = socket.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let host = format!("host-{client}-{}", number % 100);
    let id = (number as u16).to_be_bytes();
    let mut question = vec![id[0], id[1], 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in [host.as_str(), "service-99", "shop", "example"] {
        question.push(label.len() as u8);
        question.extend(label.as_bytes());
    }
    question.extend([0, 0, 1, 0, 1]);
    socket.send(&question)?;
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer).context("no answer")?;
    let right = answer[..2] == id && answer[2] & 0x80 != 0 && answer[3] & 15 == 0 && answer[7] == 1;
    ensure!(right && length == question.len() + ANSWER.len(), "{:?}", &answer[..length]);
    Ok(())
}

/// An address of the name that was asked for, for 30 seconds.
const ANSWER: [u8; 16] = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4, 192, 0, 2, 1];

/// A server that knows every name.
pub fn server() -> Result<SocketAddr> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    let address = socket.local_addr()?;
    std::thread::Builder::new().name("names".into()).spawn(move || {
        let mut message = [0; 1_024];
        while let Ok((length, client)) = socket.recv_from(&mut message) {
            // Additional records are not asked for; dnsmasq adds some.
            let end = 12 + message[12..length].iter().position(|byte| *byte == 0).unwrap_or(0) + 5;
            message[2..4].copy_from_slice(&[0x81, 0x80]);
            message[6..12].copy_from_slice(&[0, 1, 0, 0, 0, 0]);
            message[end..end + ANSWER.len()].copy_from_slice(&ANSWER);
            let _ = socket.send_to(&message[..end + ANSWER.len()], client);
        }
    })?;
    Ok(address)
}
