//! Which network namespace is meant, and how does one work inside it?

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use crate::{Error, Result};

/// A handle on a network namespace; it lives at least as long as the handle.
#[derive(Clone, Debug)]
pub struct Namespace {
    file: Arc<File>,
    origin: String,
}

impl Namespace {
    /// The namespace behind a path such as `/run/netns/x` or `/proc/1/ns/net`.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let origin = path.as_ref().display().to_string();
        let file = File::open(&path).map_err(|e| Error::io(format!("open network namespace {origin}"), e))?;
        Ok(Namespace { file: Arc::new(file), origin })
    }

    /// The calling thread's namespace.
    pub fn current() -> Result<Self> {
        Self::open("/proc/thread-self/ns/net")
    }

    /// A process's namespace.
    pub fn of_process(pid: u32) -> Result<Self> {
        Self::open(format!("/proc/{pid}/ns/net"))
    }

    /// A new, empty namespace that lives as long as the handle (or something in it).
    pub fn anonymous() -> Result<Self> {
        on_own_thread("create network namespace", || {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|e| Error::errno("create network namespace", e))?;
            Self::current()
        })?
    }

    /// A new namespace with a name in the file system: `path` is created and the namespace mounted on it.
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_owned();
        let operation = format!("create network namespace {}", path.display());
        File::options().write(true).create_new(true).open(&path).map_err(|e| Error::io(&operation, e))?;
        let mounted = on_own_thread("create network namespace", {
            let (path, operation) = (path.clone(), operation.clone());
            move || {
                unshare(CloneFlags::CLONE_NEWNET).map_err(|e| Error::errno(&operation, e))?;
                let none: Option<&str> = None;
                mount(Some("/proc/thread-self/ns/net"), &path, none, MsFlags::MS_BIND, none)
                    .map_err(|e| Error::errno(&operation, e))
            }
        })?;
        if let Err(error) = mounted {
            // Nothing is mounted there, so the name alone would only mislead.
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
        Self::open(path)
    }

    /// Removes the name that [`Namespace::create`] gave; gone already is success.
    pub fn remove(path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let operation = format!("remove network namespace {}", path.display());
        match nix::mount::umount2(path, nix::mount::MntFlags::MNT_DETACH) {
            Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => {}
            Err(error) => return Err(Error::errno(operation, error)),
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io(operation, error)),
            _ => Ok(()),
        }
    }

    /// Runs a closure inside the namespace, on a thread of its own, and waits for it.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let operation = format!("enter network namespace {}", self.origin);
        on_own_thread(&operation, || {
            setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET).map_err(|e| Error::errno(&operation, e))?;
            Ok(work())
        })?
    }

    /// Runs a future inside the namespace, with a runtime and a thread of its own, and waits for it. The closure makes
    /// the future on that thread, so that sockets which it opens belong to the namespace.
    pub fn run_async<T: Send, F: Future<Output = T>>(&self, work: impl FnOnce() -> F + Send) -> Result<T> {
        self.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|e| Error::io("start a runtime", e))?;
            Ok(runtime.block_on(work()))
        })?
    }

    /// The number that tells namespaces apart while they live (`stat`'s inode).
    pub fn inode(&self) -> Result<u64> {
        self.file.metadata().map(|m| m.ino()).map_err(|e| Error::io(format!("stat {}", self.origin), e))
    }

    /// The number that tells namespaces apart for as long as the machine is up (`SO_NETNS_COOKIE`).
    pub fn cookie(&self) -> Result<u64> {
        self.run(|| {
            let operation = "read network namespace cookie";
            let socket = std::net::UdpSocket::bind(("0.0.0.0", 0)).map_err(|e| Error::io(operation, e))?;
            netns_cookie(socket.as_fd()).map_err(|e| Error::io(operation, e))
        })?
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl AsRawFd for Namespace {
    fn as_raw_fd(&self) -> i32 {
        self.file.as_raw_fd()
    }
}

fn netns_cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    const SO_NETNS_COOKIE: libc::c_int = 71;
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, the size of `cookie`, and both outlive the call.
    let answer = unsafe {
        let value = (&raw mut cookie).cast::<libc::c_void>();
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, SO_NETNS_COOKIE, value, &raw mut length)
    };
    if answer == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

/// A thread that changes its namespace must end with its work, so that nobody else finds itself elsewhere.
fn on_own_thread<T: Send>(operation: &str, work: impl FnOnce() -> T + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netns".into()).spawn_scoped(scope, work);
        let thread = thread.map_err(|e| Error::io(operation, e))?;
        thread.join().map_err(|_| Error::Protocol { operation: operation.into(), reason: "the work panicked".into() })
    })
}
