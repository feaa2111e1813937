//! Where on the machine are the files of a lab?

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// The folder of all labs.
pub const LABS: &str = "/run/axoneme/lab";
/// The file whose lock says that a lab is somebody's.
pub const LOCK: &str = "lock";
/// The file that names the lab's [`Owners`].
pub const OWNERS: &str = "owners.json";
/// Names of the commands that users and pods find beside each other.
pub const COMMANDS: [&str; 10] = [
    "axoneme",
    "cilium",
    "cilium-agent",
    "cilium-cni",
    "cilium-dbg",
    "cilium-health-responder",
    "cilium-operator",
    // in the image of emojivoto's web, by name
    "emojivoto-vote-bot",
    "hubble",
    "hubble-relay",
];

/// Ports on 127.0.0.1 of the machine that lead into a lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    /// The API server.
    pub api: u16,
    /// Hubble relay.
    pub hubble: u16,
}

/// One process, told from later ones of the same number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number, as the machine counts.
    pub pid: u32,
    /// When it started, in clock ticks since boot.
    pub started: u64,
}

impl Process {
    /// The process that has this number now.
    pub fn of(pid: u32) -> Option<Process> {
        Some(Process { pid, started: stat(pid)?.1 })
    }

    /// Whether it still runs; one that only waits to be reaped does not.
    pub fn runs(&self) -> bool {
        stat(self.pid).is_some_and(|(state, started)| started == self.started && !matches!(state, 'Z' | 'X'))
    }
}

/// The processes that a lab depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owners {
    /// The first process inside of the lab.
    pub supervisor: Process,
    /// The process outside of it that clears what it leaves.
    pub reaper: Process,
}

/// Paths of one lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Name of the lab.
    pub name: String,
    /// Its folder.
    pub folder: PathBuf,
}

impl Layout {
    /// Of a lab by name.
    pub fn of(name: &str) -> Layout {
        Layout { name: name.into(), folder: Path::new(LABS).join(name) }
    }

    /// A file of the lab.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// What users give to `kubectl`.
    pub fn kubeconfig(&self) -> PathBuf {
        self.file("kubeconfig")
    }

    /// The folder with links of all commands.
    pub fn commands(&self) -> PathBuf {
        self.file("bin")
    }

    /// A node's folder, which the node sees as `/run/axoneme/lab`.
    pub fn node(&self, node: &str) -> PathBuf {
        self.file("nodes").join(node)
    }

    /// A process's log.
    pub fn log(&self, name: &str) -> PathBuf {
        self.file("log").join(format!("{name}.log"))
    }

    /// The lab's cgroup.
    pub fn cgroup(&self) -> Result<PathBuf> {
        Ok(kubelet::cgroup::mounted()?.join(format!("axoneme-lab-{}", self.name)))
    }

    /// Makes the folder and the links of the commands.
    pub fn create(&self, program: &Path) -> Result<()> {
        for folder in ["bin", "nodes", "log", "node"] {
            let folder = self.file(folder);
            fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        }
        for name in COMMANDS {
            let link = self.commands().join(name);
            std::os::unix::fs::symlink(program, &link).with_context(|| format!("link {}", link.display()))?;
        }
        Ok(())
    }

    /// Takes the lock that says: this lab is somebody's. None if it is taken.
    pub fn lock(&self) -> Result<Option<Flock<File>>> {
        let path = self.file(LOCK);
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .with_context(|| format!("open {}", path.display()))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(lock)),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, error)) => Err(error).with_context(|| format!("lock {}", path.display())),
        }
    }

    /// Reads one of the lab's JSON files.
    pub fn read<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<T> {
        let path = self.file(name);
        let text = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} is not what a lab writes", path.display()))
    }

    /// Writes one of the lab's JSON files.
    pub fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<()> {
        let path = self.file(name);
        let text = serde_json::to_vec_pretty(value)?;
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    }

    /// Fails unless the lab is up.
    pub fn expect_up(&self) -> Result<()> {
        if !self.folder.is_dir() {
            bail!("there is no lab named {:?}; `axoneme lab up --name {}` makes one", self.name, self.name);
        }
        if self.lock()?.is_some() {
            bail!("lab {:?} has died; `axoneme lab down --name {}` clears what it left", self.name, self.name);
        }
        Ok(())
    }
}

/// Names of all labs that have a folder.
pub fn names() -> Vec<String> {
    let Ok(entries) = fs::read_dir(LABS) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.flatten().filter(|e| e.path().is_dir()).map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// A process's state and when it started, in clock ticks since boot (proc(5)).
fn stat(pid: u32) -> Option<(char, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; fields are counted after the last one.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_process_is_told_from_a_later_one_of_its_number() {
        let own = Process::of(std::process::id()).unwrap();
        assert!(own.started > 0 && own.runs());
        assert!(!Process { started: own.started - 1, ..own }.runs());
        assert_eq!(Process::of(u32::MAX), None);
    }

    #[test]
    fn a_process_that_waits_to_be_reaped_does_not_run() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let process = Process::of(child.id()).unwrap();
        while process.runs() {
            std::thread::yield_now();
        }
        assert!(child.wait().unwrap().success());
        assert!(!process.runs());
    }
}
