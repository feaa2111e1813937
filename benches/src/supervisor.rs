//! Who cleans up? A worker measures in namespaces and mounts of its own, which the kernel removes with it; the supervisor
//! outlives the worker, however that ends, and removes the one thing that would stay: its cgroups.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, CpuSet, sched_getaffinity, sched_setaffinity, unshare};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Pid, Uid, getpid, setsid};

/// Tells the worker its cgroup.
const WORKER: &str = "AXBENCH_CGROUP";
const PREFIX: &str = "axbench-";

/// Where the worker may put what lives as long as it does.
pub const BPFFS: &str = "/sys/fs/bpf";
/// A file system in memory of the worker's own.
pub const SCRATCH: &str = "/run";

/// Runs this command again as a worker and waits for it; in the worker, returns its cgroup.
pub fn split() -> Result<Role> {
    if let Some(cgroup) = std::env::var_os(WORKER) {
        let cgroup = PathBuf::from(cgroup);
        become_worker(&cgroup)?;
        return Ok(Role::Worker(cgroup));
    }
    if !Uid::effective().is_root() {
        bail!("network namespaces and BPF programs need root");
    }
    supervise().map(Role::Supervisor)
}

/// What this process is.
pub enum Role {
    /// The worker is done; this is how it ended.
    Supervisor(ExitCode),
    /// Measures; its cgroup.
    Worker(PathBuf),
}

fn supervise() -> Result<ExitCode> {
    let cgroup = Cgroup::create()?;
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGCHLD] {
        signals.add(signal);
    }
    signals.thread_block()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(std::env::args_os().skip(1)).env(WORKER, &cgroup.0);
    // SAFETY: between fork and exec only two system calls are made; neither allocates or takes locks.
    unsafe {
        command.pre_exec(|| {
            // A session of its own is a scheduling group of its own.
            setsid()?;
            Ok(nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?)
        })
    };
    let mut worker = command.spawn().context("start the worker")?;
    loop {
        match signals.wait()? {
            Signal::SIGCHLD => {
                if let Some(status) = worker.try_wait()? {
                    return Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
                }
            }
            _ => worker.kill()?,
        }
    }
}

/// The worker's cgroup in the unified hierarchy, with the threaded children that [`threaded_child`] makes.
struct Cgroup(PathBuf);

impl Cgroup {
    fn create() -> Result<Cgroup> {
        let root = unified_root()?;
        remove_abandoned(&root);
        let path = root.join(format!("{PREFIX}{}", getpid()));
        fs::create_dir(&path).with_context(|| format!("make cgroup {}", path.display()))?;
        Ok(Cgroup(path))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A process that was just reaped may still be counted for a moment.
        for _ in 0..50 {
            if remove_tree(&self.0) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        eprintln!("benches: cgroup {} is still in use and stays", self.0.display());
    }
}

/// Cgroups of supervisors that were killed: empty ones can be removed, others belong to a run that goes on.
fn remove_abandoned(root: &Path) {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    entries.filter(|e| e.file_name().to_string_lossy().starts_with(PREFIX)).for_each(|e| {
        let _ = remove_tree(&e.path());
    });
}

fn remove_tree(cgroup: &Path) -> bool {
    let children = fs::read_dir(cgroup).into_iter().flatten().flatten().filter(|e| e.path().is_dir());
    children.for_each(|child| {
        let _ = fs::remove_dir(child.path());
    });
    fs::remove_dir(cgroup).is_ok()
}

fn unified_root() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts")?;
    let found = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        words.next().zip(words.next())
    });
    let root = found.filter(|(_, kind)| *kind == "cgroup2").map(|(path, _)| PathBuf::from(path)).next();
    root.context("no cgroup2 file system is mounted")
}

fn become_worker(cgroup: &Path) -> Result<()> {
    fs::write(cgroup.join("cgroup.procs"), "0").context("enter the cgroup")?;
    // Where processors are shared out by cgroup, take as much as one can get.
    let _ = fs::write(cgroup.join("cpu.weight"), "10000");
    if let Err(e) = fs::write("/proc/self/autogroup", "-20") {
        eprintln!("benches: no priority over other sessions ({e}); expect more noise");
    }
    unshare(CloneFlags::CLONE_NEWNS).context("make a mount namespace")?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("make mounts private")?;
    mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), none).context("mount a BPF file system")?;
    mount(Some("tmpfs"), SCRATCH, Some("tmpfs"), MsFlags::empty(), none).context("mount a scratch file system")
}

/// A child of the worker's cgroup in which single threads can live.
pub fn threaded_child(cgroup: &Path, name: &str) -> Result<PathBuf> {
    let child = cgroup.join(name);
    fs::create_dir(&child).with_context(|| format!("make cgroup {}", child.display()))?;
    fs::write(child.join("cgroup.type"), "threaded").with_context(|| format!("make {} threaded", child.display()))?;
    Ok(child)
}

/// Moves the calling thread into a cgroup of the worker's.
pub fn enter_cgroup(cgroup: &Path) -> Result<()> {
    fs::write(cgroup.join("cgroup.threads"), "0").with_context(|| format!("enter {}", cgroup.display()))
}

/// Binds the calling thread to the last processor that it may use: both ends of every connection run there.
pub fn pin() -> Result<()> {
    let this = Pid::from_raw(0);
    let allowed = sched_getaffinity(this)?;
    let last = (0..CpuSet::count()).rev().find(|cpu| allowed.is_set(*cpu).unwrap_or(false));
    let mut one = CpuSet::new();
    one.set(last.context("no processor is allowed")?)?;
    Ok(sched_setaffinity(this, &one)?)
}
