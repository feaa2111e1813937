//! How are namespaces made, held without a name, and entered?

use crate::{Result, While};
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

/// Kinds of namespaces, by their names below `/proc/PID/ns`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Network.
    Net,
    /// Mounts.
    Mount,
    /// Host name.
    Uts,
    /// System V IPC and POSIX message queues.
    Ipc,
    /// Processes, as children get it.
    Pid,
    /// The root that a process sees of the cgroup tree.
    Cgroup,
}

impl Kind {
    /// Name below `/proc/PID/ns`.
    pub fn file(self) -> &'static str {
        match self {
            Kind::Net => "net",
            Kind::Mount => "mnt",
            Kind::Uts => "uts",
            Kind::Ipc => "ipc",
            Kind::Pid => "pid",
            Kind::Cgroup => "cgroup",
        }
    }

    /// The flag that makes one or enters one.
    pub fn flag(self) -> CloneFlags {
        match self {
            Kind::Net => CloneFlags::CLONE_NEWNET,
            Kind::Mount => CloneFlags::CLONE_NEWNS,
            Kind::Uts => CloneFlags::CLONE_NEWUTS,
            Kind::Ipc => CloneFlags::CLONE_NEWIPC,
            Kind::Pid => CloneFlags::CLONE_NEWPID,
            Kind::Cgroup => CloneFlags::CLONE_NEWCGROUP,
        }
    }
}

/// A namespace that lives as long as this value (or a process in it).
#[derive(Debug)]
pub struct Namespace {
    kind: Kind,
    file: OwnedFd,
}

impl Namespace {
    /// The namespace of the calling thread.
    pub fn own(kind: Kind) -> Result<Namespace> {
        Namespace::at(kind, Path::new(&format!("/proc/thread-self/ns/{}", kind.file())))
    }

    /// The namespace of a process.
    pub fn of(pid: u32, kind: Kind) -> Result<Namespace> {
        Namespace::at(kind, Path::new(&format!("/proc/{pid}/ns/{}", kind.file())))
    }

    /// The namespace that a file stands for.
    pub fn at(kind: Kind, path: &Path) -> Result<Namespace> {
        let file = File::open(path).while_doing(|| format!("open namespace {}", path.display()))?;
        Ok(Namespace { kind, file: file.into() })
    }

    /// Another handle of the same namespace.
    pub fn share(&self) -> Result<Namespace> {
        let file = self.file.try_clone().while_doing(|| format!("duplicate the {} namespace", self.kind.file()))?;
        Ok(Namespace { kind: self.kind, file })
    }

    /// Its kind.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Moves the calling thread into it.
    pub fn enter(&self) -> Result<()> {
        setns(self.file.as_fd(), self.kind.flag()).while_doing(|| format!("enter a {} namespace", self.kind.file()))
    }

    /// As [`Namespace::enter`], without allocation: for use between fork and exec.
    pub fn enter_raw(&self) -> std::io::Result<()> {
        setns(self.file.as_fd(), self.kind.flag()).map_err(std::io::Error::from)
    }

    /// A path by which this process (and only it) can name the namespace.
    pub fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.file.as_raw_fd())
    }

    /// Runs `work` in a thread that has entered this namespace.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.enter()?;
                Ok(work())
            });
            match thread.join() {
                Ok(done) => done,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Makes namespaces of these kinds, runs `work` inside and returns handles of them; no process is left in them.
pub fn create<T: Send>(kinds: &[Kind], work: impl FnOnce() -> Result<T> + Send) -> Result<(Vec<Namespace>, T)> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let flags = kinds.iter().fold(CloneFlags::empty(), |all, kind| all | kind.flag());
            unshare(flags).while_doing(|| format!("make namespaces {kinds:?}"))?;
            let made = kinds.iter().map(|k| Namespace::own(*k)).collect::<Result<Vec<_>>>()?;
            Ok((made, work()?))
        });
        match thread.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
