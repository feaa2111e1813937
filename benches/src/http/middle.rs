//! What is between clients and server, in a process of its own?

use std::net::{SocketAddr, TcpListener};
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use proxy_api::*;

/// Tells a process of this program that it is such a one: `copy PORT SERVER`, `forward PORT SERVER` or `ours SOCKET SERVER`.
const ROLE: &str = "AXBENCH_HTTP";

/// A process between clients and server. It ends with this.
pub struct Middle {
    /// Where clients connect.
    pub address: SocketAddr,
    child: Child,
    _folder: Option<tempfile::TempDir>,
}

impl Drop for Middle {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Middle {
    /// At this address.
    pub fn new(child: Child, address: SocketAddr, folder: Option<tempfile::TempDir>) -> Middle {
        Middle { address, child, _folder: folder }
    }

    /// Once it takes connections.
    pub fn started(child: Child, address: SocketAddr, folder: Option<tempfile::TempDir>) -> Result<Middle> {
        let mut middle = Middle::new(child, address, folder);
        let until = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(address).is_err() {
            if let Some(status) = middle.child.try_wait()? {
                bail!("it ended: {status}");
            }
            if Instant::now() > until {
                bail!("it takes no connections");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(middle)
    }

    /// Processor time of all its threads since it started.
    pub fn cpu(&self) -> Result<Duration> {
        let folder = format!("/proc/{}/task", self.child.id());
        let mut all = 0;
        for task in std::fs::read_dir(&folder).with_context(|| folder.clone())?.flatten() {
            // A thread may have ended in between.
            let text = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            all += text.split(' ').next().and_then(|number| number.parse::<u64>().ok()).unwrap_or(0);
        }
        Ok(Duration::from_nanos(all))
    }

    /// Bytes that it has in memory.
    pub fn resident(&self) -> Result<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
    }
}

/// A port that nobody has.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Copies bytes both ways, with the runtime's own means.
pub fn copy(server: SocketAddr) -> Result<Middle> {
    let port = free_port()?;
    let child = role(&format!("copy {port} {server}"))?;
    Middle::started(child, SocketAddr::from(([127, 0, 0, 1], port)), None)
}

/// The proxy, with its agent in this process.
pub fn ours(server: SocketAddr, records: bool) -> Result<Middle> {
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("proxy.sock");
    let port = free_port()?;
    let rule = |number: u32| crds::HttpRule {
        method: Some("GET".into()),
        path: Some(format!("/api/v1/items/{number}/[0-9]+(\\?.*)?")),
        ..Default::default()
    };
    let http = Some(Hidden((0..100).map(rule).collect()));
    let set = RuleSet { http, ..RuleSet::open(1, Parser::Http) };
    let listener = Listener { traffic: Traffic::Tcp, direction: Direction::Ingress, port };
    agent(socket.clone(), listener, set, Settings { records, ..Settings::default() })?;
    let child = role(&format!("ours {} {server}", socket.display()))?;
    let middle = Middle::started(child, SocketAddr::from(([127, 0, 0, 1], port)), Some(folder))?;
    // It refuses until it has rules.
    let until = Instant::now() + Duration::from_secs(20);
    while super::load::connect(middle.address, 1)?.each_once().is_err() {
        if Instant::now() > until {
            bail!("it does not serve");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(middle)
}

/// An agent that sends these rules, reads what comes, and holds names at once.
pub fn agent(socket: PathBuf, listener: Listener, set: RuleSet, settings: Settings) -> Result<()> {
    let serve = async move {
        let hello = AgentHello { version: VERSION, epoch: 1, listeners: vec![listener], settings };
        let server = Server::bind(&socket, None)?;
        let mut session = server.accept().await?.greet(hello).await?;
        let rules = RulesUpdate { revision: 1, whole: true, last: true, set: vec![set], removed: Vec::new() };
        session.writer.send_rules(rules).await?;
        while let Some(message) = session.reader.next().await? {
            if let FromProxy::Learned(learned) = message {
                let held = NamesHeld { numbers: vec![learned.number] };
                session.writer.send(&FromAgent::NamesHeld(held)).await?;
            }
        }
        Ok::<_, anyhow::Error>(())
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("agent".into()).spawn(move || {
        if let Err(error) = runtime.block_on(serve) {
            eprintln!("benches: the proxy's agent: {error:#}");
        }
    })?;
    Ok(())
}

/// A process that plays such a role.
pub fn role(role: &str) -> Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    Ok(command.env(ROLE, role).spawn()?)
}

/// In such a process: runs as long as its parent lets it.
pub fn main() -> Option<ExitCode> {
    let role = std::env::var(ROLE).ok()?;
    let _ = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL);
    let done = match *role.split(' ').collect::<Vec<_>>() {
        ["copy", port, server] => copies(port, server),
        ["forward", port, server] => crate::dns::middle::forwards(port, server),
        ["ours", socket, server] => return Some(proxies(socket, server)),
        _ => Err(anyhow::anyhow!("{ROLE}={role} is no role")),
    };
    Some(done.map_or_else(
        |error| {
            eprintln!("benches: {error:#}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    ))
}

fn copies(port: &str, server: &str) -> Result<()> {
    let (port, server): (u16, SocketAddr) = (port.parse()?, server.parse()?);
    super::raise_file_limit()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::from(([127, 0, 0, 1], port)))?;
        let listener = socket.listen(4_096)?;
        loop {
            let (mut client, _) = listener.accept().await?;
            tokio::spawn(async move {
                let mut server = tokio::net::TcpStream::connect(server).await?;
                client.set_nodelay(true)?;
                server.set_nodelay(true)?;
                tokio::io::copy_bidirectional(&mut client, &mut server).await
            });
        }
    })
}

/// Every connection is of one endpoint and one rule set.
struct Always;

impl Redirected for Always {
    fn facts(&self, _: Protocol, _: SocketAddr, _: SocketAddr) -> Option<Facts> {
        let direction = Direction::Ingress;
        Some(Facts { endpoint: 1, direction, source_identity: 1, destination_identity: 2, rule_set: 1, revision: 1 })
    }

    fn speak_for(&self, _: BorrowedFd<'_>, _: &Facts) -> std::io::Result<()> {
        Ok(())
    }
}

fn proxies(socket: &str, server: &str) -> ExitCode {
    let Ok(server) = server.parse() else { return ExitCode::FAILURE };
    let words = ["--socket", socket, "--handover", &format!("{socket}.handover")].map(str::to_owned).to_vec();
    proxy::main_with(words, proxy::Upstream::Fixed(server), || Ok(Box::new(Always)))
}
