//! How does a test get network namespaces of its own that vanish with it?

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A network namespace; it ends when nobody is in it and this is dropped.
#[derive(Debug)]
pub struct Space(File);

impl Space {
    /// A new one, with its loopback up.
    pub fn new() -> Space {
        let file = on_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let path = format!("/proc/self/task/{}/ns/net", nix::unistd::gettid());
            File::open(path).unwrap()
        });
        let space = Space(file);
        space.ip("link set lo up");
        space.ip("addr add 127.0.0.1/8 dev lo").then_ignore();
        space
    }

    /// Runs something inside, on a thread of its own.
    pub fn run<T: Send>(&self, what: impl FnOnce() -> T + Send) -> T {
        on_thread(|| {
            setns(&self.0, CloneFlags::CLONE_NEWNET).unwrap();
            what()
        })
    }

    /// Runs something inside that goes on by itself, on a thread of its own.
    pub fn spawn(&self, what: impl FnOnce() + Send + 'static) {
        let space = self.0.try_clone().unwrap();
        thread::spawn(move || {
            setns(&space, CloneFlags::CLONE_NEWNET).unwrap();
            what();
        });
    }

    /// Runs `ip` inside.
    pub fn ip(&self, arguments: &str) -> Done {
        let words: Vec<&str> = arguments.split_whitespace().collect();
        let output = self.run(|| Command::new("ip").args(&words).output().unwrap());
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        let harmless = error.contains("already assigned") || error.contains("File exists");
        assert!(output.status.success() || harmless, "ip {arguments}: {error}");
        Done
    }

    /// Waits until every address can be used. The kernel makes IPv6 addresses ready, and joins the groups in which their
    /// neighbours ask for them, in the background, also where nobody looks for duplicates.
    pub fn settle(&self) {
        let started = Instant::now();
        loop {
            let output =
                self.run(|| Command::new("ip").args(["-6", "-o", "addr", "show", "tentative"]).output().unwrap());
            if output.stdout.is_empty() {
                return;
            }
            let left = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(started.elapsed() < Duration::from_secs(10), "addresses that do not get ready: {left}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Writes a setting under `/proc/sys/net`.
    pub fn set(&self, name: &str, value: &str) {
        let path = format!("/proc/sys/net/{name}");
        self.run(|| std::fs::write(&path, value)).unwrap_or_else(|e| panic!("{path}: {e}"));
    }

    /// Number of an interface inside.
    pub fn ifindex(&self, name: &str) -> u32 {
        self.run(|| nix::net::if_::if_nametoindex(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// Moves an interface of this one to another.
    pub fn give(&self, interface: &str, to: &Space) {
        let target = to.0.try_clone().unwrap();
        self.run(|| {
            // a thread in the other namespace is how `ip` is told of it
            let (tell, told) = std::sync::mpsc::channel();
            let (end, ended) = std::sync::mpsc::channel::<()>();
            thread::scope(|scope| {
                scope.spawn(move || {
                    setns(&target, CloneFlags::CLONE_NEWNET).unwrap();
                    tell.send(nix::unistd::gettid()).unwrap();
                    let _ = ended.recv();
                });
                let thread = told.recv().unwrap();
                let moved = Command::new("ip").args(["link", "set", interface, "netns", &thread.to_string()]).output();
                drop(end);
                let moved = moved.unwrap();
                assert!(moved.status.success(), "{}", String::from_utf8_lossy(&moved.stderr));
            });
        });
    }
}

/// `ip` has done its work.
pub struct Done;

impl Done {
    /// For what may have been there before.
    pub fn then_ignore(self) {}
}

fn on_thread<T: Send>(what: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(what).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// A BPF file system that only this thread, and those that it starts, see.
#[derive(Debug)]
pub struct PrivateBpffs(TempDir);

impl PrivateBpffs {
    /// In a mount namespace of its own.
    pub fn new() -> PrivateBpffs {
        let folder = TempDir::with_prefix("bpf-node").unwrap();
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        mount(Some("bpf"), folder.path(), Some("bpf"), MsFlags::empty(), none).unwrap();
        PrivateBpffs(folder)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for PrivateBpffs {
    fn drop(&mut self) {
        // a folder on which something is mounted cannot be removed
        let _ = umount2(self.0.path(), MntFlags::MNT_DETACH);
    }
}
