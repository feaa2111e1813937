//! What does the file system of a container consist of?

use crate::mounts::{self, bind, place, propagation, virtual_fs};
use crate::{Result, While};
use nix::mount::MsFlags;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

/// How mounts below a volume travel between node and container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    /// Not at all.
    None,
    /// New mounts on the node show in the container.
    HostToContainer,
    /// And mounts that the container makes show on the node.
    Bidirectional,
}

/// A file or directory of the node that the container sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// Path on the node.
    pub source: PathBuf,
    /// Path in the container.
    pub target: PathBuf,
    /// Whether writing is refused.
    pub read_only: bool,
    /// Travel of mounts below.
    pub propagation: Propagation,
}

/// The file system of one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// What is below everything: the machine's own root.
    pub lower: PathBuf,
    /// Where writes go, on a tmpfs.
    pub scratch: PathBuf,
    /// Other disks of the machine, shown read-only.
    pub disks: Vec<PathBuf>,
    /// Volumes and the files that the kubelet writes.
    pub binds: Vec<Bind>,
    /// Whether `/sys` shows the pod's own network.
    pub own_network: bool,
}

impl Root {
    /// Makes it the calling process's root. The process must be alone in its mount namespace.
    pub fn enter(&self) -> Result<()> {
        if !self.shares_back() {
            propagation(Path::new("/"), MsFlags::MS_SLAVE | MsFlags::MS_REC)?;
        }
        let root = mounts::overlay(&self.lower, &self.scratch)?;
        for disk in &self.disks {
            self.show(&root, &Bind::hidden_from_node(disk))?;
        }
        self.kernel(&root)?;
        for bind in &self.binds {
            self.show(&root, bind)?;
        }
        mounts::pivot(&root)
    }

    fn shares_back(&self) -> bool {
        self.binds.iter().any(|b| b.propagation == Propagation::Bidirectional)
    }

    /// `/proc`, `/sys`, `/dev` and `/run`.
    fn kernel(&self, root: &Path) -> Result<()> {
        let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        virtual_fs("proc", &place(root, Path::new("/proc"), true)?, safe | MsFlags::MS_NOEXEC, None)?;
        if self.own_network {
            let flags = safe | MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY;
            virtual_fs("sysfs", &place(root, Path::new("/sys"), true)?, flags, None)?;
        } else {
            private_copy(Path::new("/sys"), &place(root, Path::new("/sys"), true)?)?;
        }
        private_copy(Path::new("/dev"), &place(root, Path::new("/dev"), true)?)?;
        let shm = root.join("dev/shm");
        if shm.is_dir() {
            virtual_fs("tmpfs", &shm, safe, Some("mode=1777"))?;
        }
        virtual_fs("tmpfs", &place(root, Path::new("/run"), true)?, safe, Some("mode=755"))
    }

    fn show(&self, root: &Path, wanted: &Bind) -> Result<()> {
        let directory = fs::metadata(&wanted.source).while_doing(|| format!("look at {}", wanted.source.display()))?;
        let target = place(root, &wanted.target, directory.is_dir())?;
        bind(&wanted.source, &target, true)?;
        match wanted.propagation {
            Propagation::None => propagation(&target, MsFlags::MS_PRIVATE | MsFlags::MS_REC)?,
            Propagation::HostToContainer => propagation(&target, MsFlags::MS_SLAVE | MsFlags::MS_REC)?,
            Propagation::Bidirectional => {}
        }
        if wanted.read_only { mounts::read_only(&target) } else { Ok(()) }
    }
}

impl Bind {
    /// The same path as on the node, read-only.
    pub fn hidden_from_node(path: &Path) -> Bind {
        Bind { source: path.into(), target: path.into(), read_only: true, propagation: Propagation::None }
    }
}

/// A copy of a tree of mounts that changes nothing elsewhere.
fn private_copy(source: &Path, target: &Path) -> Result<()> {
    bind(source, target, true)?;
    propagation(target, MsFlags::MS_PRIVATE | MsFlags::MS_REC)
}
