//! How does a process begin inside the namespaces and the cgroup that it belongs to?
//!
//! One thread starts every process: a child's "parent died" signal and the namespace of its process number belong to
//! the thread that forked it, and threads of the runtime come and go.

use crate::namespaces::{Kind, Namespace};
use crate::{Error, Result, While};
use nix::sched::{CloneFlags, unshare};
use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use tokio::sync::oneshot;

/// The namespace of process numbers that a new process is in.
#[derive(Debug)]
pub enum Processes {
    /// The kubelet's.
    Inherit,
    /// A new one, in which it is the first process.
    New,
    /// That of a running container.
    Of(Namespace),
}

/// Where standard streams go.
#[derive(Debug)]
pub struct Streams {
    /// Standard input; none is `/dev/null`.
    pub input: Option<OwnedFd>,
    /// Standard output.
    pub output: Option<OwnedFd>,
    /// Standard error.
    pub error: Option<OwnedFd>,
}

/// A process to start.
#[derive(Debug)]
pub struct Launch {
    /// What to execute.
    pub program: PathBuf,
    /// Its arguments, without the name.
    pub args: Vec<OsString>,
    /// Its whole environment; none inherits the kubelet's.
    pub env: Option<Vec<(String, String)>>,
    /// Working directory, looked up inside its namespaces.
    pub directory: Option<PathBuf>,
    /// Standard streams.
    pub streams: Streams,
    /// A descriptor that it gets under number 3.
    pub extra: Option<OwnedFd>,
    /// The cgroup that it joins before it executes.
    pub cgroup: Option<PathBuf>,
    /// Namespaces that it enters, in this order.
    pub enter: Vec<Namespace>,
    /// Its namespace of process numbers.
    pub processes: Processes,
    /// Whether it gets mounts of its own.
    pub own_mounts: bool,
    /// Whether standard input is its controlling terminal.
    pub terminal: bool,
    /// User and group that it becomes.
    pub user: Option<(u32, u32)>,
}

impl Launch {
    /// A process like the kubelet itself.
    pub fn new(program: impl Into<PathBuf>) -> Launch {
        Launch {
            program: program.into(),
            args: Vec::new(),
            env: None,
            directory: None,
            streams: Streams { input: None, output: None, error: None },
            extra: None,
            cgroup: None,
            enter: Vec::new(),
            processes: Processes::Inherit,
            own_mounts: false,
            terminal: false,
            user: None,
        }
    }
}

type Job = (Box<Launch>, oneshot::Sender<Result<Child>>);

/// Handle of the thread that starts processes.
#[derive(Debug, Clone)]
pub struct Spawner {
    jobs: mpsc::Sender<Job>,
}

impl Spawner {
    /// Starts the thread; it lives as long as the kubelet.
    pub fn start() -> Result<Spawner> {
        let (jobs, queue) = mpsc::channel::<Job>();
        std::thread::Builder::new()
            .name("spawner".into())
            .spawn(move || {
                for (launch, reply) in queue {
                    // The asker may have gone; then the dropped handle leaves the process to its container's end.
                    let _ = reply.send(launch_here(*launch));
                }
            })
            .while_doing(|| "start the spawner's thread".into())?;
        Ok(Spawner { jobs })
    }

    /// Starts a process.
    pub async fn spawn(&self, launch: Launch) -> Result<Child> {
        let (reply, answer) = oneshot::channel();
        let gone = || Error::Invalid("the spawner's thread has ended".into());
        self.jobs.send((Box::new(launch), reply)).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

fn launch_here(launch: Launch) -> Result<Child> {
    let own = Namespace::own(Kind::Pid)?;
    match &launch.processes {
        Processes::Inherit => {}
        Processes::New => {
            unshare(CloneFlags::CLONE_NEWPID).while_doing(|| "make a namespace of process numbers".into())?;
        }
        Processes::Of(namespace) => namespace.enter()?,
    }
    let started = start(launch);
    // Also after a failure: the next child must not land in this one's namespace.
    own.enter()?;
    started
}

fn start(launch: Launch) -> Result<Child> {
    let mut command = Command::new(&launch.program);
    command.args(&launch.args);
    if let Some(env) = &launch.env {
        command.env_clear().envs(env.iter().map(|(k, v)| (k, v)));
    }
    let Streams { input, output, error } = launch.streams;
    let stdio = |fd: Option<OwnedFd>| fd.map_or_else(Stdio::null, Stdio::from);
    command.stdin(stdio(input)).stdout(stdio(output)).stderr(stdio(error));
    let cgroup = match &launch.cgroup {
        Some(path) => {
            let procs = path.join("cgroup.procs");
            Some(File::options().write(true).open(&procs).while_doing(|| format!("open {}", procs.display()))?)
        }
        None => None,
    };
    let setup = ChildSetup {
        cgroup,
        enter: launch.enter,
        own_mounts: launch.own_mounts,
        terminal: launch.terminal,
        user: launch.user,
        extra: launch.extra,
        directory: launch
            .directory
            .map(|d| std::ffi::CString::new(d.into_os_string().into_encoded_bytes()))
            .transpose(),
    };
    let setup = ChildSetup { directory: setup.directory, ..setup };
    // SAFETY: between fork and exec only system calls are made, on values that were allocated before.
    unsafe { command.pre_exec(move || setup.run()) };
    command.spawn().while_doing(|| format!("start {}", launch.program.display()))
}

/// What the child does between fork and exec.
struct ChildSetup {
    cgroup: Option<File>,
    enter: Vec<Namespace>,
    own_mounts: bool,
    terminal: bool,
    user: Option<(u32, u32)>,
    extra: Option<OwnedFd>,
    directory: std::result::Result<Option<std::ffi::CString>, std::ffi::NulError>,
}

impl ChildSetup {
    fn run(&self) -> std::io::Result<()> {
        die_with_parent()?;
        if let Some(mut cgroup) = self.cgroup.as_ref() {
            std::io::Write::write_all(&mut cgroup, b"0")?;
        }
        for namespace in &self.enter {
            namespace.enter_raw()?;
        }
        if self.own_mounts {
            unshare(CloneFlags::CLONE_NEWNS).map_err(std::io::Error::from)?;
        }
        nix::unistd::setsid().map_err(std::io::Error::from)?;
        if self.terminal {
            // SAFETY: an ioctl on standard input without pointers.
            check(unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) })?;
        }
        if let Ok(Some(directory)) = &self.directory {
            // SAFETY: a NUL-terminated string that outlives the call.
            check(unsafe { libc::chdir(directory.as_ptr()) })?;
        }
        if let Some((user, group)) = self.user {
            become_user(user, group)?;
        }
        if let Some(extra) = &self.extra {
            hand_over(extra.as_raw_fd(), 3)?;
        }
        Ok(())
    }
}

/// The kernel ends this process when the thread that started it ends.
pub fn die_with_parent() -> std::io::Result<()> {
    // SAFETY: plain numbers.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })
}

/// Drops to a user and group, without supplementary groups.
pub fn become_user(user: u32, group: u32) -> std::io::Result<()> {
    // SAFETY: plain numbers, and no groups are read.
    check(unsafe { libc::setgroups(0, std::ptr::null()) })?;
    // SAFETY: plain numbers.
    check(unsafe { libc::setgid(group) })?;
    // SAFETY: plain numbers.
    check(unsafe { libc::setuid(user) })
}

/// Gives a descriptor a number that survives exec.
pub fn hand_over(from: RawFd, to: RawFd) -> std::io::Result<()> {
    if from == to {
        // SAFETY: plain numbers; clears close-on-exec.
        return check(unsafe { libc::fcntl(from, libc::F_SETFD, 0) });
    }
    // SAFETY: plain numbers.
    check(unsafe { libc::dup2(from, to) })
}

fn check(returned: libc::c_int) -> std::io::Result<()> {
    if returned < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}
