//! What do the pods do to each other? Four workloads; both ends of each run on one processor.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use netlink::Namespace;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{RcvBuf, SndBuf};

use crate::stats::quantile;
use crate::supervisor::pin;
use crate::topology::Topology;

/// Ports of the server pod.
pub const PORT_ECHO: u16 = 7001;
/// Answers one request of each connection.
pub const PORT_CONNECT: u16 = 7002;
/// Reads all and says nothing.
pub const PORT_SINK: u16 = 7003;
/// UDP.
pub const PORT_UDP: u16 = 7004;

/// Time that a slice runs before it counts.
const WARM_UP: Duration = Duration::from_millis(15);
/// Bytes that a stream may have on the way; where the kernel finds the size itself, connections differ by a quarter.
const STREAM_BUFFER: usize = 512 << 10;
/// Datagrams that are on the way together.
const BURST: usize = 32;

/// What one slice of time showed.
#[derive(Clone, Copy, Debug)]
pub struct Slice {
    /// The median latency in µs, or a rate or cost, as the workload says.
    pub value: f64,
    /// The 99th percentile of the latencies.
    pub tail: f64,
}

/// The servers of a topology and one client of each workload.
pub struct Workloads {
    client: Namespace,
    server_address: Ipv4Addr,
    echo: TcpStream,
    sunk: Arc<AtomicU64>,
    udp: (UdpSocket, UdpSocket),
}

impl Workloads {
    /// Starts servers and connects; the servers end with the process.
    pub fn start(topology: &Topology) -> Result<Workloads> {
        let address = topology.server.v4;
        let sunk = Arc::new(AtomicU64::new(0));
        let received = sunk.clone();
        serve(topology, PORT_ECHO, |stream| while answer(stream) {})?;
        serve(topology, PORT_CONNECT, |stream| {
            answer(stream);
        })?;
        serve(topology, PORT_SINK, move |stream| swallow(stream, &received))?;
        let client = topology.client.namespace.clone();
        let echo = connect(&client, address, PORT_ECHO)?;
        let udp = (udp(&client, topology.client.v4, 0)?, udp(&topology.server.namespace, address, PORT_UDP)?);
        udp.0.connect((address, PORT_UDP))?;
        Ok(Workloads { client, server_address: address, echo, sunk, udp })
    }

    /// One byte there and back: latency in µs.
    pub fn request_response(&mut self, length: Duration) -> Result<Slice> {
        let echo = &mut self.echo;
        on_own_thread(|| latencies(length, || ask(echo)))
    }

    /// Connect, one byte there and back, close: latency in µs.
    pub fn connect_close(&mut self, length: Duration) -> Result<Slice> {
        let target = SocketAddrV4::new(self.server_address, PORT_CONNECT);
        self.connect_close_to(target, length, || Ok(()))
    }

    /// The same to another address, after `prepare` on the thread that connects.
    pub fn connect_close_to(
        &self,
        target: SocketAddrV4,
        length: Duration,
        prepare: impl FnOnce() -> Result<()> + Send,
    ) -> Result<Slice> {
        let round = || ask(&mut TcpStream::connect_timeout(&SocketAddr::V4(target), Duration::from_secs(2))?);
        self.client.run(|| {
            prepare()?;
            pin()?;
            latencies(length, round).with_context(|| format!("connect to {target}"))
        })?
    }

    /// A stream of bytes over a new connection: Gbit/s that arrive.
    pub fn stream(&mut self, length: Duration) -> Result<Slice> {
        let (mut sink, sunk) = (connect(&self.client, self.server_address, PORT_SINK)?, &self.sunk);
        setsockopt(&sink, SndBuf, &STREAM_BUFFER)?;
        on_own_thread(|| {
            let buffer = vec![0x5a; 128 << 10];
            send_for(WARM_UP, || Ok(sink.write_all(&buffer)?))?;
            let (before, start) = (sunk.load(Ordering::Relaxed), Instant::now());
            send_for(length, || Ok(sink.write_all(&buffer)?))?;
            let bytes = sunk.load(Ordering::Relaxed) - before;
            let value = bytes as f64 * 8.0 / start.elapsed().as_nanos() as f64;
            Ok(Slice { value, tail: value })
        })
    }

    /// Datagrams of 32 bytes, sent and received by one thread: ns for each.
    pub fn datagrams(&mut self, length: Duration) -> Result<Slice> {
        let (from, to) = (&self.udp.0, &self.udp.1);
        on_own_thread(|| {
            send_for(WARM_UP, || burst(from, to))?;
            let (mut count, start) = (0, Instant::now());
            send_for(length, || {
                count += BURST;
                burst(from, to)
            })?;
            let value = start.elapsed().as_nanos() as f64 / count as f64;
            Ok(Slice { value, tail: value })
        })
    }
}

/// Runs a server of the server pod on a thread of its own, one connection after the other.
fn serve(topology: &Topology, port: u16, mut each: impl FnMut(&mut TcpStream) + Send + 'static) -> Result<()> {
    let address = (topology.server.v4, port);
    let listener = topology.server.namespace.run(|| TcpListener::bind(address))?.context("listen")?;
    setsockopt(&listener, RcvBuf, &STREAM_BUFFER)?;
    let forever = move || -> Result<()> {
        pin()?;
        loop {
            let (mut stream, _) = listener.accept()?;
            stream.set_nodelay(true)?;
            each(&mut stream);
        }
    };
    std::thread::Builder::new().name(format!("port-{port}")).spawn(forever)?;
    Ok(())
}

fn connect(from: &Namespace, address: Ipv4Addr, port: u16) -> Result<TcpStream> {
    let to = SocketAddr::from((address, port));
    let stream = from.run(|| TcpStream::connect_timeout(&to, Duration::from_secs(2)))?;
    let stream = stream.with_context(|| format!("connect to {to}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.set_write_timeout(Some(Duration::from_secs(2)))?;
    Ok(stream)
}

fn udp(namespace: &Namespace, address: Ipv4Addr, port: u16) -> Result<UdpSocket> {
    let socket = namespace.run(|| UdpSocket::bind((address, port)))?.context("bind UDP")?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    Ok(socket)
}

/// False: the other side has closed.
fn answer(stream: &mut TcpStream) -> bool {
    let mut byte = [0];
    stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok()
}

fn ask(stream: &mut TcpStream) -> Result<()> {
    let mut byte = [1];
    stream.write_all(&byte)?;
    Ok(stream.read_exact(&mut byte)?)
}

fn swallow(stream: &mut TcpStream, received: &AtomicU64) {
    let mut buffer = vec![0; 256 << 10];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => received.fetch_add(count as u64, Ordering::Relaxed),
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
    }
}

fn burst(from: &UdpSocket, to: &UdpSocket) -> Result<()> {
    let mut packet = [0; 32];
    for _ in 0..BURST {
        from.send(&packet)?;
    }
    for _ in 0..BURST {
        to.recv(&mut packet).context("a datagram was lost")?;
    }
    Ok(())
}

fn on_own_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let pinned = || pin().and_then(|()| work());
    std::thread::scope(|scope| scope.spawn(pinned).join()).map_err(|_| anyhow::anyhow!("the workload panicked"))?
}

fn send_for(length: Duration, mut send: impl FnMut() -> Result<()>) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < length {
        send()?;
    }
    Ok(())
}

fn latencies(length: Duration, mut once: impl FnMut() -> Result<()>) -> Result<Slice> {
    send_for(WARM_UP, &mut once)?;
    let mut micros = Vec::with_capacity(1 << 16);
    send_for(length, || {
        let start = Instant::now();
        once()?;
        micros.push(start.elapsed().as_nanos() as f64 / 1000.0);
        Ok(())
    })?;
    Ok(Slice { value: quantile(&mut micros, 0.5), tail: quantile(&mut micros, 0.99) })
}
