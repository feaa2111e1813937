//! Which cgroup does a process belong to, and how is one made and removed?

use crate::{Error, Result, While};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the cgroup v2 tree is mounted, unified or hybrid.
pub fn mounted() -> Result<PathBuf> {
    let info = fs::read_to_string("/proc/self/mountinfo").while_doing(|| "read /proc/self/mountinfo".into())?;
    find_mount(&info).ok_or_else(|| Error::Invalid("no cgroup2 file system is mounted".into()))
}

/// The first cgroup2 mount that shows the root of the tree.
fn find_mount(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (fixed, rest) = line.split_once(" - ")?;
        let mut fields = fixed.split(' ').skip(3);
        let (root, target) = (fields.next()?, fields.next()?);
        (rest.starts_with("cgroup2 ") && root == "/").then(|| PathBuf::from(target))
    })
}

/// Makes a cgroup.
pub fn create(path: &Path) -> Result<()> {
    fs::create_dir_all(path).while_doing(|| format!("create cgroup {}", path.display()))
}

/// Moves a process (all its threads) into a cgroup.
pub fn join(path: &Path, pid: u32) -> Result<()> {
    fs::write(path.join("cgroup.procs"), pid.to_string())
        .while_doing(|| format!("move process {pid} into cgroup {}", path.display()))
}

/// Kills every process of a cgroup and those below.
pub fn kill(path: &Path) {
    // Kernels before 5.14 have no such file; then the processes' namespaces end them.
    let _ = fs::write(path.join("cgroup.kill"), "1");
}

/// Removes a cgroup and those below it, waiting shortly for processes that are still ending.
pub fn remove(path: &Path) -> Result<()> {
    for _ in 0..100 {
        match remove_once(path) {
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) => std::thread::sleep(Duration::from_millis(20)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            other => return other.while_doing(|| format!("remove cgroup {}", path.display())),
        }
    }
    remove_once(path).while_doing(|| format!("remove cgroup {}", path.display()))
}

fn remove_once(path: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_once(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn hybrid_and_unified_trees_are_found() {
        let hybrid = "34 30 0:28 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n35 34 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        assert_eq!(find_mount(hybrid).unwrap(), Path::new("/sys/fs/cgroup/unified"));
        let unified = "35 34 0:29 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n";
        assert_eq!(find_mount(unified).unwrap(), Path::new("/sys/fs/cgroup"));
        assert_eq!(find_mount("25 1 254:0 / / rw - ext4 /dev/vda rw\n"), None);
    }
}
