//! Does the process follow its agent, hand over without a failed request, and end when told?

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use proxy_api::*;
use tokio::runtime::Runtime;

use crate::harness::{FACTS, Known, Origin, Peer, eventually, http_rules};

/// Socket and server, for a process that is the proxy.
const CHILD: &str = "AXONEME_TEST_PROXY";

/// A group that agents let in.
const GROUP: u32 = 1_337;

/// Not a test, unless it is asked to be the proxy.
#[test]
fn child() {
    let Ok(words) = std::env::var(CHILD) else { return };
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).unwrap();
    let (folder, server) = words.split_once(' ').unwrap();
    let (server, more) = server.split_once(' ').unwrap_or((server, ""));
    let user = more.strip_prefix("as ").unwrap_or("0");
    if let Ok(files) = more.parse() {
        few_files(files);
    }
    let (socket, handover) = (format!("{folder}/agent.sock"), format!("{folder}/handover.sock"));
    let flags = ["--socket", &socket, "--handover", &handover, "--user", user];
    let upstream = proxy::Upstream::Fixed(server.parse().unwrap());
    let open = || Ok(Box::new(Known(Arc::new(Mutex::new(Some(FACTS))))) as Box<dyn Redirected>);
    proxy::main_with(flags.map(str::to_owned).to_vec(), upstream, open);
}

/// No more files than these, and no right to have more.
fn few_files(most: u64) {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    let mut sets = capabilities(None).unwrap();
    sets.effective.remove(CapabilitySet::SYS_RESOURCE);
    sets.permitted.remove(CapabilitySet::SYS_RESOURCE);
    set_capabilities(None, sets).unwrap();
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, most, most).unwrap();
}

struct Process(Child);

impl Process {
    fn start(folder: &Path, server: SocketAddr) -> Process {
        Process::told(folder, &server.to_string())
    }

    fn told(folder: &Path, server: &str) -> Process {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["process::child", "--exact", "--nocapture"]).env(CHILD, format!("{} {server}", folder.display()));
        Process(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap())
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().try_into().unwrap()), signal).unwrap();
    }

    fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An agent: serves all proxies that come, with these rules.
struct Agent {
    runtime: Option<Runtime>,
    realised: Arc<Mutex<Vec<(u32, Realised)>>>,
    records: Arc<AtomicU32>,
    rules: Arc<Mutex<Option<String>>>,
}

impl Agent {
    fn start(socket: PathBuf, port: u16, epoch: u64, rules: Option<&str>) -> Agent {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let agent = Agent {
            runtime: Some(runtime),
            realised: Arc::default(),
            records: Arc::default(),
            rules: Arc::new(Mutex::new(rules.map(str::to_owned))),
        };
        let (realised, records, rules) = (agent.realised.clone(), agent.records.clone(), agent.rules.clone());
        let listeners = vec![Listener { traffic: Traffic::Tcp, direction: Direction::Ingress, port }];
        let settings = Settings { timeouts: Timeouts { drain: 3_000, ..Timeouts::default() }, ..Settings::default() };
        let hello = AgentHello { version: VERSION, epoch, listeners, settings };
        agent.runtime.as_ref().unwrap().spawn(async move {
            let server = Server::bind(&socket, Some(GROUP)).unwrap();
            loop {
                let mut session = server.accept().await.unwrap().greet(hello.clone()).await.unwrap();
                let (realised, records, rules) = (realised.clone(), records.clone(), rules.clone());
                tokio::spawn(async move {
                    let text = loop {
                        if let Some(text) = rules.lock().unwrap().clone() {
                            break text;
                        }
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    };
                    let set = vec![http_rules(1, &text)];
                    let update = RulesUpdate { revision: 1, whole: true, last: true, set, removed: vec![] };
                    session.writer.send_rules(update).await.unwrap();
                    while let Ok(Some(message)) = session.reader.next().await {
                        match message {
                            FromProxy::Realised(done) => realised.lock().unwrap().push((session.hello.pid, done)),
                            FromProxy::Records(some) => {
                                records.fetch_add(u32::try_from(some.records.len()).unwrap(), Ordering::Relaxed);
                            }
                            _ => {}
                        }
                    }
                });
            }
        });
        agent
    }

    fn wait_for(&self, process: &Process, epoch: u64) {
        let wanted = (process.0.id(), Realised { epoch, revision: 1, listening: true });
        eventually("the rules are realised", || self.realised.lock().unwrap().contains(&wanted));
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

/// A port that nobody has, and that no client gets from its kernel until the proxy has it.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 10_000 + u16::try_from(std::process::id() % 100).unwrap() * 100;
    loop {
        let port = first + NEXT.fetch_add(1, Ordering::Relaxed);
        if std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// A folder, an origin, and the address of a proxy that is not there yet.
fn bed() -> (tempfile::TempDir, Origin, u16, SocketAddr) {
    let port = free_port();
    (tempfile::tempdir().unwrap(), Origin::new(), port, SocketAddr::from(([127, 0, 0, 1], port)))
}

fn get(address: SocketAddr) -> Option<u16> {
    let mut client = Peer::new(TcpStream::connect(address).ok()?);
    client.write("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let answer = String::from_utf8(client.rest()).unwrap();
    (!answer.is_empty()).then(|| crate::harness::code(&answer))
}

/// Requests on a connection until the proxy says that it ends, and on the next, until it is told to stop.
fn keep_asking(address: SocketAddr, stop: &AtomicBool) -> u32 {
    let mut asked = 0;
    let mut client = Peer::new(TcpStream::connect(address).expect("a connection"));
    while !stop.load(Ordering::Relaxed) {
        client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let head = client.head();
        assert!(head.starts_with("HTTP/1.1 200 "), "after {asked}: {head:?}");
        assert_eq!(client.read(2), b"ok");
        asked += 1;
        if head.contains("Connection: close") {
            client = Peer::new(TcpStream::connect(address).expect("another connection"));
        }
    }
    asked
}

#[test]
fn a_new_proxy_takes_over_under_load_without_a_failed_request() {
    let (folder, origin, port, address) = bed();
    let agent = Agent::start(folder.path().join("agent.sock"), port, 1, Some("[{}]"));
    let mut old = Process::start(folder.path(), origin.address);
    agent.wait_for(&old, 1);
    let stop = AtomicBool::new(false);
    let asked = std::thread::scope(|scope| {
        let keeping: Vec<_> = (0..4).map(|_| scope.spawn(|| keep_asking(address, &stop))).collect();
        let single: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut asked = 0;
                    while !stop.load(Ordering::Relaxed) {
                        assert_eq!(get(address), Some(200), "after {asked}");
                        asked += 1;
                    }
                    asked
                })
            })
            .collect();
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(150));
            let new = Process::start(folder.path(), origin.address);
            agent.wait_for(&new, 1);
            eventually("the old one ends", || old.has_ended());
            old = new;
        }
        std::thread::sleep(Duration::from_millis(150));
        stop.store(true, Ordering::Relaxed);
        keeping.into_iter().chain(single).map(|thread| thread.join().unwrap()).collect::<Vec<u32>>()
    });
    assert!(asked.iter().all(|asked| *asked > 10), "{asked:?}");
    let told = agent.records.load(Ordering::Relaxed);
    assert!(told > asked.iter().sum::<u32>(), "{told} records of {asked:?}");
}

#[test]
fn without_rules_and_after_a_kill_connections_are_refused() {
    let (folder, origin, port, address) = bed();
    let agent = Agent::start(folder.path().join("agent.sock"), port, 1, None);
    let mut proxy = Process::start(folder.path(), origin.address);
    eventually("it listens", || TcpStream::connect(address).is_ok());
    assert_eq!(get(address), None, "it has no rules");
    *agent.rules.lock().unwrap() = Some(r#"[{"path":"/"}]"#.into());
    agent.wait_for(&proxy, 1);
    assert_eq!(get(address), Some(200));
    proxy.signal(Signal::SIGKILL);
    eventually("it ends", || proxy.has_ended());
    assert!(TcpStream::connect(address).is_err());
    let next = Process::start(folder.path(), origin.address);
    agent.wait_for(&next, 1);
    assert_eq!(get(address), Some(200));
}

#[test]
fn the_last_rules_go_on_while_the_agent_is_away() {
    let (folder, origin, port, address) = bed();
    let socket = folder.path().join("agent.sock");
    let agent = Agent::start(socket.clone(), port, 1, Some(r#"[{"path":"/"}]"#));
    let proxy = Process::start(folder.path(), origin.address);
    agent.wait_for(&proxy, 1);
    let mut client = Peer::new(TcpStream::connect(address).unwrap());
    drop(agent);
    for _ in 0..3 {
        client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!((client.answer().0, get(address)), (200, Some(200)));
    }
    let agent = Agent::start(socket, port, 2, Some(r#"[{"path":"/x"}]"#));
    agent.wait_for(&proxy, 2);
    client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((client.answer().0, get(address)), (403, Some(403)));
    eventually("records of the time before arrive", || agent.records.load(Ordering::Relaxed) >= 10);
}

#[test]
fn told_to_end_it_finishes_what_runs_within_its_time() {
    let (folder, _, port, address) = bed();
    let slow = crate::harness::server(|mut client| {
        client.head();
        std::thread::sleep(Duration::from_millis(700));
        client.write("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate");
    });
    let agent = Agent::start(folder.path().join("agent.sock"), port, 1, Some("[{}]"));
    let mut proxy = Process::start(folder.path(), slow);
    agent.wait_for(&proxy, 1);
    let mut client = Peer::new(TcpStream::connect(address).unwrap());
    client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut idle = Peer::new(TcpStream::connect(address).unwrap());
    std::thread::sleep(Duration::from_millis(100));
    proxy.signal(Signal::SIGTERM);
    eventually("no more connections are taken", || TcpStream::connect(address).is_err());
    assert!(client.rest().ends_with(b"late"));
    eventually("it ends, and the idle connection with it", || proxy.has_ended());
    assert_eq!(idle.rest(), b"");
}

#[test]
fn after_the_start_it_may_mark_sockets_and_nothing_else() {
    let (folder, origin, port, _) = bed();
    let agent = Agent::start(folder.path().join("agent.sock"), port, 1, Some("[{}]"));
    let proxy = Process::start(folder.path(), origin.address);
    agent.wait_for(&proxy, 1);
    let tasks = std::fs::read_dir(format!("/proc/{}/task", proxy.0.id())).unwrap();
    let status = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("status")).unwrap();
    let ours: Vec<String> =
        tasks.map(|task| status(task.unwrap())).filter(|text| text.starts_with("Name:\tproxy\n")).collect();
    assert!(!ours.is_empty());
    for text in ours {
        let value = |name: &str| text.split(name).nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
        for set in ["CapEff:", "CapPrm:"] {
            assert_eq!(u64::from_str_radix(&value(set), 16).unwrap(), 1 << 12, "CAP_NET_ADMIN alone");
        }
        assert_eq!(value("NoNewPrivs:"), "1");
    }
}

#[test]
fn as_another_user_it_comes_back_to_the_agent_and_hands_over() {
    use std::os::unix::fs::PermissionsExt;
    let (folder, origin, port, address) = bed();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let socket = folder.path().join("agent.sock");
    let agent = Agent::start(socket.clone(), port, 1, Some(r#"[{"path":"/"}]"#));
    let told = format!("{} as {GROUP}", origin.address);
    let mut proxy = Process::told(folder.path(), &told);
    agent.wait_for(&proxy, 1);
    let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.0.id())).unwrap();
    for line in ["Uid:\t1337\t1337\t1337\t1337\n", "Gid:\t1337\t1337\t1337\t1337\n"] {
        assert!(status.contains(line), "{status}");
    }
    drop(agent);
    let agent = Agent::start(socket, port, 2, Some(r#"[{"path":"/x"}]"#));
    agent.wait_for(&proxy, 2);
    assert_eq!(get(address), Some(403));
    let next = Process::told(folder.path(), &told);
    agent.wait_for(&next, 2);
    eventually("the first one ends", || proxy.has_ended());
    assert_eq!(get(address), Some(403));
}

#[test]
fn with_few_files_new_connections_are_refused_and_what_there_is_goes_on() {
    let (folder, origin, port, address) = bed();
    let agent = Agent::start(folder.path().join("agent.sock"), port, 1, Some("[{}]"));
    let proxy = Process::told(folder.path(), &format!("{} 104", origin.address));
    agent.wait_for(&proxy, 1);
    let request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut kept: Vec<Peer> = Vec::new();
    for _ in 0..20 {
        let mut client = Peer::new(TcpStream::connect(address).unwrap());
        client.write(request);
        assert_eq!(client.answer().0, 200);
        kept.push(client);
    }
    for _ in 0..100 {
        assert!(Peer::new(TcpStream::connect(address).unwrap()).is_reset());
    }
    for client in &mut kept {
        client.write(request);
        assert_eq!(client.answer().0, 200);
    }
    kept.truncate(10);
    eventually("places are free again", || get(address) == Some(200));
}
