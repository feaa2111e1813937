//! How is a proxy set up between raw sockets?

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use proxy::{Shared, Table, Upstream, accept};
use proxy_api::*;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What the datapath would know of every connection.
#[derive(Clone)]
pub struct Known(pub Arc<Mutex<Option<Facts>>>);

impl Redirected for Known {
    fn facts(&self, _: Protocol, _: SocketAddr, _: SocketAddr) -> Option<Facts> {
        *self.0.lock().unwrap()
    }

    fn speak_for(&self, _: BorrowedFd<'_>, _: &Facts) -> std::io::Result<()> {
        Ok(())
    }
}

pub const FACTS: Facts = Facts {
    endpoint: 7,
    direction: Direction::Ingress,
    source_identity: 1_001,
    destination_identity: 1_002,
    rule_set: 1,
    revision: 1,
};

/// A proxy before one server.
pub struct Proxy {
    pub address: SocketAddr,
    pub shared: Arc<Shared>,
    pub known: Known,
    pub tasks: TaskTracker,
    runtime: Option<Runtime>,
}

impl Proxy {
    /// With these HTTP rules.
    pub fn http(server: SocketAddr, rules: &str) -> Proxy {
        Proxy::new(server, vec![http_rules(1, rules)])
    }

    pub fn new(server: SocketAddr, sets: Vec<RuleSet>) -> Proxy {
        let proxy = Proxy::without_rules(server);
        proxy.set(sets);
        proxy
    }

    pub fn without_rules(server: SocketAddr) -> Proxy {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let known = Known(Arc::new(Mutex::new(Some(FACTS))));
        let shared = Shared::new(Box::new(known.clone()), Upstream::Fixed(server));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let tasks = TaskTracker::new();
        {
            let _inside = runtime.enter();
            let listener = Arc::new(tokio::net::TcpListener::from_std(listener).unwrap());
            let (shared, tasks, stop) = (Arc::clone(&shared), tasks.clone(), CancellationToken::new());
            runtime.spawn(accept(shared, listener, Direction::Ingress, None, tasks, stop));
        }
        Proxy { address, shared, known, tasks, runtime: Some(runtime) }
    }

    /// Replaces all rules.
    pub fn set(&self, set: Vec<RuleSet>) {
        let table = Table::default().with(RulesUpdate { revision: 1, whole: true, last: true, set, removed: vec![] });
        self.shared.rules.store(Arc::new(table));
    }

    pub fn settings(&self, change: impl FnOnce(&mut Settings)) {
        let mut settings = Settings::clone(&self.shared.settings.load());
        change(&mut settings);
        self.shared.settings.store(Arc::new(settings));
    }

    pub fn client(&self) -> Peer {
        Peer::new(TcpStream::connect(self.address).unwrap())
    }

    /// What comes back for these bytes until the connection ends.
    pub fn send(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut client = self.client();
        client.write(bytes);
        String::from_utf8_lossy(&client.rest()).into_owned()
    }

    /// Code of the answer to a request that ends its connection.
    pub fn code(&self, request: &str) -> u16 {
        let (line, headers) = request.split_once('\n').unwrap_or((request, ""));
        let headers: String = headers.lines().map(|line| format!("{line}\r\n")).collect();
        code(&self.send(format!("{line} HTTP/1.1\r\nHost: web\r\n{headers}Connection: close\r\n\r\n")))
    }

    /// Records of requests and answers, as `verdict kind method url code info`.
    pub fn records(&self) -> Vec<Record> {
        self.shared.recorder.take().records
    }

    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.as_ref().unwrap().block_on(future)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

pub fn http_rules(id: u32, rules: &str) -> RuleSet {
    RuleSet { http: Some(Hidden(serde_json::from_str(rules).unwrap())), ..RuleSet::open(id, Parser::Http) }
}

pub fn code(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("no answer: {answer:?}"))
}

/// A client's or a server's connection.
pub struct Peer(pub TcpStream);

impl Peer {
    pub fn new(stream: TcpStream) -> Peer {
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.set_nodelay(true).unwrap();
        Peer(stream)
    }

    pub fn write(&mut self, bytes: impl AsRef<[u8]>) {
        // The other side may have closed, which the answer shows.
        let _ = self.0.write_all(bytes.as_ref());
    }

    /// So many bytes, or as many as came.
    pub fn read(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        let mut filled = 0;
        while filled < count {
            match self.0.read(&mut bytes[filled..]) {
                Ok(0) | Err(_) => break,
                Ok(count) => filled += count,
            }
        }
        bytes.truncate(filled);
        bytes
    }

    /// To the end of a head, and with it.
    pub fn head(&mut self) -> String {
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\n") {
            let byte = self.read(1);
            if byte.is_empty() {
                break;
            }
            bytes.extend(byte);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// An answer with Content-Length.
    pub fn answer(&mut self) -> (u16, String) {
        let head = self.head();
        let length = head
            .to_ascii_lowercase()
            .split("content-length: ")
            .nth(1)
            .map_or(0, |rest| rest.split("\r\n").next().unwrap().parse().unwrap());
        (code(&head), String::from_utf8_lossy(&self.read(length)).into_owned())
    }

    /// All that still comes.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let _ = self.0.read_to_end(&mut bytes);
        bytes
    }

    /// True if it was refused or broken off, without a byte.
    pub fn is_reset(&mut self) -> bool {
        matches!(self.0.read(&mut [0]), Err(error) if error.kind() == ErrorKind::ConnectionReset)
    }

    /// No more bytes will come from here.
    pub fn end(&mut self) {
        self.0.shutdown(Shutdown::Write).unwrap();
    }
}

impl Read for Peer {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(bytes)
    }
}

impl Write for Peer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

/// A server whose connections are handled by this.
pub fn server(handle: impl Fn(Peer) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let handle = Arc::new(handle);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let handle = Arc::clone(&handle);
            std::thread::spawn(move || handle(Peer::new(stream)));
        }
    });
    address
}

/// A server of requests without body: what it saw, and always the same answer.
pub struct Origin {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Origin {
    pub fn new() -> Origin {
        Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    }

    pub fn answering(answer: &'static str) -> Origin {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let address = server(move |mut client| {
            loop {
                let head = client.head();
                if head.is_empty() {
                    return;
                }
                let last = head.to_ascii_lowercase().contains("connection: close");
                log.lock().unwrap().push(head);
                client.write(answer);
                if last {
                    return;
                }
            }
        });
        Origin { address, seen }
    }

    /// The heads that came.
    pub fn seen(&self) -> Vec<String> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

/// Waits until this holds.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(10), "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
