//! Which processes make up a lab, and what happens when one of them ends?

mod place;
mod service;

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use kubelet::namespaces::Namespace;
use kubelet::{cgroup, mounts};
use nix::mount::MsFlags;
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

use crate::layout::{Layout, Ports};
use crate::network::{self, Network};
use crate::node::RUNTIME;
use crate::options::Options;
use crate::plan;
use crate::progress::{Line, Reporter};
use place::{Place, places, settings};
use service::{ChildSetup, Service, Whereabouts, high_copy};

/// `lab-supervisor NAME`: the first process of a lab. Descriptor 3 leads to `up`.
pub fn main(args: &[String]) -> Result<()> {
    let [name] = args else { bail!("one lab name is expected") };
    // SAFETY: the reaper hands this descriptor over for this process alone.
    let stream = UnixStream::from(unsafe { OwnedFd::from_raw_fd(3) });
    nix::fcntl::fcntl(&stream, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
    let reporter = Reporter::new(stream.try_clone()?);
    let kept = live_with(stream.try_clone()?);
    let layout = Layout::of(name);
    let outcome = layout.read("options.json").and_then(|options| Lab::build(layout, options, &reporter));
    let outcome = outcome.and_then(|mut lab| lab.run(&reporter, stream, &kept));
    if let Err(error) = &outcome {
        reporter.send(&Line::Failed(format!("{error:#}")));
    }
    outcome
}

/// Until `up` says `keep`, its end is ours.
fn live_with(stream: UnixStream) -> std::sync::mpsc::Receiver<()> {
    let (kept, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = BufReader::new(stream).read_line(&mut line);
        if read.is_err() || line != "keep\n" {
            std::process::exit(1);
        }
        let _ = kept.send(());
    });
    receiver
}

struct Lab {
    layout: Layout,
    world: netlink::Namespace,
    nodes: Vec<Place>,
    services: Vec<Service>,
    cgroup: PathBuf,
    log: String,
}

impl Lab {
    fn build(layout: Layout, options: Options, reporter: &Reporter) -> Result<Lab> {
        own_mounts()?;
        let plan = plan::nodes(&options);
        let what = format!("network of {} nodes", plan.len());
        let network = reporter.step(&what, || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(network::build(&plan, options.ipv6))
        })?;
        let cgroup = layout.cgroup()?;
        let Network { world, nodes } = network;
        let nodes = reporter.step("nodes' file systems", || places(&layout, &cgroup, plan, nodes))?;
        let mut lab = Lab { layout, world, nodes, services: Vec::new(), cgroup, log: options.log.clone() };
        reporter.step("keys and sockets", || lab.plan_services(&options))?;
        Ok(lab)
    }

    /// Opens the sockets that outlive their servers and lists the processes.
    fn plan_services(&mut self, options: &Options) -> Result<()> {
        let api = listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let hubble = listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let ports = Ports { api: api.local_addr()?.port(), hubble: hubble.local_addr()?.port() };
        crate::apiserver_process::prepare(&self.layout, options, ports.api)?;
        let mut sockets = vec![OwnedFd::from(api)];
        let inside = self.nodes[0].network.run(|| -> Result<Vec<OwnedFd>> {
            let v4 = listen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, plan::API_PORT)))?;
            let mut all = vec![OwnedFd::from(v4)];
            if options.ipv6 {
                all.push(listen_v6_only(plan::API_PORT)?);
            }
            Ok(all)
        })??;
        sockets.extend(inside);
        let name = &self.layout.name;
        let count = sockets.len().to_string();
        let first = Whereabouts::NetworkOf(0);
        let mut services = vec![
            Service::new("apiserver", &["lab-apiserver", name, &count], first, sockets),
            Service::new("controllers", &["lab-controllers", name], first, Vec::new()),
        ];
        let mut world = vec!["lab-world".to_string()];
        if let Some(file) = &options.world {
            world.extend(["--config".to_string(), file.display().to_string()]);
        }
        services.push(Service::new("world", &world, Whereabouts::World, Vec::new()));
        for (index, place) in self.nodes.iter().enumerate() {
            let settings = settings(place, options)?;
            let file = self.layout.node(&place.node.name).join("kubelet.json");
            fs::write(&file, serde_json::to_vec(&settings)?).with_context(|| format!("write {}", file.display()))?;
            let seen = format!("{RUNTIME}/lab/kubelet.json");
            let name = format!("kubelet-{}", place.node.name);
            services.push(Service::new(&name, &["lab-kubelet", &seen], Whereabouts::Node(index), Vec::new()));
        }
        let peers = format!("{}:4244", self.nodes[0].node.addresses[0]);
        services.push(Service::new("relay", &relay_args(&peers), first, Vec::new()));
        services.push(Service::new("forward", &["lab-forward", "127.0.0.1:4245"], first, vec![hubble.into()]));
        self.services = services;
        self.layout.write("ports.json", &ports)
    }

    /// Starts everything and keeps it running; ends only with an error, or with the lab.
    fn run(&mut self, reporter: &Reporter, up: UnixStream, kept: &std::sync::mpsc::Receiver<()>) -> Result<()> {
        for index in 0..self.services.len() {
            self.start(index)?;
        }
        let mut bootstrap =
            Service::new("bootstrap", &["lab-bootstrap", &self.layout.name], Whereabouts::Machine, vec![up.into()]);
        bootstrap.lasting = false;
        self.services.push(bootstrap);
        let bootstrap = self.services.len() - 1;
        self.start(bootstrap)?;
        let mut ready = false;
        loop {
            for (index, status) in self.reap() {
                let fine = matches!(status, WaitStatus::Exited(_, 0));
                if index == bootstrap && !fine {
                    bail!("setting the cluster up failed: {}", tail(&self.layout.log("bootstrap")));
                }
                if index == bootstrap {
                    ready = true;
                    reporter.send(&Line::Ready);
                    // The stream to `up` must end with it, and the answer tells it so.
                    self.services[bootstrap].sockets.clear();
                }
            }
            if ready && kept.try_recv().is_ok() {
                reporter.send(&Line::Note("kept".into()));
            }
            self.restart_due()?;
            std::thread::sleep(Duration::from_millis(25));
        }
    }

    /// Collects ended processes, those of dead kubelets included.
    fn reap(&mut self) -> Vec<(usize, WaitStatus)> {
        let mut ended = Vec::new();
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            let pid = match status {
                WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _) => pid.as_raw(),
                _ => return ended,
            };
            let found = self.services.iter_mut().enumerate().find(|(_, s)| s.running.is_some_and(|(p, _)| p == pid));
            if let Some((index, service)) = found {
                service.ended();
                if service.lasting {
                    tracing::warn!(service = service.name, ?status, "process ended");
                }
                ended.push((index, status));
            }
        }
        ended
    }

    fn restart_due(&mut self) -> Result<()> {
        let now = Instant::now();
        for index in 0..self.services.len() {
            let service = &self.services[index];
            if service.lasting && service.running.is_none() && service.next_start <= now {
                self.start(index)?;
            }
        }
        Ok(())
    }

    fn start(&mut self, index: usize) -> Result<()> {
        let service = &self.services[index];
        let log = self.layout.log(&service.name);
        let log =
            File::options().create(true).append(true).open(&log).with_context(|| format!("open {}", log.display()))?;
        let mut command = Command::new("/proc/self/exe");
        command.arg0("axoneme").args(&service.args).current_dir("/").env("RUST_LOG", &self.log);
        command.env_remove("KUBECONFIG");
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = ChildSetup {
            network: self.network(service.place).cloned(),
            others: self.others(service.place)?,
            cgroup: self.group(service.place)?,
            sockets: service.sockets.iter().map(high_copy).collect::<Result<Vec<_>>>()?,
        };
        // SAFETY: between fork and exec only system calls are made, on values that were allocated before.
        unsafe { command.pre_exec(move || child.run()) };
        let child = command.spawn().with_context(|| format!("start {}", service.name))?;
        self.services[index].running = Some((child.id() as i32, Instant::now()));
        Ok(())
    }

    fn network(&self, place: Whereabouts) -> Option<&netlink::Namespace> {
        match place {
            Whereabouts::Machine => None,
            Whereabouts::World => Some(&self.world),
            Whereabouts::NetworkOf(index) | Whereabouts::Node(index) => Some(&self.nodes[index].network),
        }
    }

    fn others(&self, place: Whereabouts) -> Result<Vec<Namespace>> {
        match place {
            Whereabouts::Node(index) => {
                Ok(self.nodes[index].others.iter().map(Namespace::share).collect::<Result<_, _>>()?)
            }
            Whereabouts::Machine | Whereabouts::World | Whereabouts::NetworkOf(_) => Ok(Vec::new()),
        }
    }

    fn group(&self, place: Whereabouts) -> Result<File> {
        let group = match place {
            Whereabouts::Node(index) => self.nodes[index].cgroup.join("kubelet"),
            Whereabouts::Machine | Whereabouts::World | Whereabouts::NetworkOf(_) => self.cgroup.join("system"),
        };
        cgroup::create(&group)?;
        let procs = group.join("cgroup.procs");
        File::options().write(true).open(&procs).with_context(|| format!("open {}", procs.display()))
    }
}

fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).with_context(|| format!("listen on {address}"))
}

/// Beside a socket for all IPv4 addresses, one for IPv6 alone.
fn listen_v6_only(port: u16) -> Result<OwnedFd> {
    use nix::sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, SockaddrIn6, bind, listen, setsockopt, socket, sockopt,
    };
    let fd =
        socket(AddressFamily::Inet6, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).context("open an IPv6 socket")?;
    setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    let address = std::net::SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0);
    bind(fd.as_raw_fd(), &SockaddrIn6::from(address)).with_context(|| format!("listen on {address}"))?;
    listen(&fd, Backlog::MAXCONN)?;
    Ok(fd)
}

/// Mounts of our own, with a `/proc` that shows the lab's processes.
fn own_mounts() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("make a mount namespace")?;
    mounts::propagation(Path::new("/"), MsFlags::MS_PRIVATE | MsFlags::MS_REC)?;
    let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mounts::virtual_fs("proc", Path::new("/proc"), safe, None)?;
    Ok(())
}

fn relay_args(peers: &str) -> Vec<String> {
    [
        "hubble-relay",
        "serve",
        "--disable-server-tls",
        "--disable-client-tls",
        "--listen-address",
        "127.0.0.1:4245",
        "--peer-service",
        peers,
    ]
    .map(String::from)
    .to_vec()
}

/// The last lines of a log.
fn tail(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
