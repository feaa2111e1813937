//! Who clears what a lab leaves when its supervisor has died?
//!
//! The kernel ends the processes, namespaces, links, pins and mounts. Cgroups and files are left; this process, outside
//! of the lab, waits for the end and removes them.

use crate::layout::{LOCK, Layout, OWNERS, Owners, Process};
use anyhow::{Context, Result};
use nix::sched::{CloneFlags, unshare};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::{fs, io};

/// `lab-reaper NAME`: starts the supervisor and stays until it has ended. Descriptor 3 leads to `up`.
pub fn main(args: &[String]) -> Result<()> {
    let [name] = args else { anyhow::bail!("one lab name is expected") };
    let layout = Layout::of(name);
    let lock = layout.lock()?.with_context(|| format!("lab {name:?} belongs to another process"))?;
    let ended = supervise(&layout);
    let cleared = clear(&layout);
    drop(lock);
    ended.and(cleared)
}

fn supervise(layout: &Layout) -> Result<()> {
    let group = layout.cgroup()?;
    kubelet::cgroup::create(&group)?;
    let procs = fs::File::options().write(true).open(group.join("cgroup.procs")).context("open the lab's cgroup")?;
    unshare(CloneFlags::CLONE_NEWPID).context("make a namespace of process numbers")?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0("axoneme").args(["lab-supervisor", &layout.name]);
    // SAFETY: between fork and exec only system calls are made, on values that were allocated before.
    unsafe {
        command.pre_exec(move || {
            kubelet::spawner::die_with_parent()?;
            std::io::Write::write_all(&mut &procs, b"0")?;
            // Descriptor 3 is the stream to `up`; it was opened to be inherited.
            kubelet::spawner::hand_over(3, 3)
        })
    };
    let mut child = command.spawn().context("start the supervisor")?;
    let pid = child.id();
    let process = |pid| Process::of(pid).with_context(|| format!("look at process {pid}"));
    layout.write(OWNERS, &Owners { supervisor: process(pid)?, reaper: process(std::process::id())? })?;
    child.wait().context("wait for the supervisor")?;
    Ok(())
}

/// Removes the cgroups and files of a lab without processes.
pub fn clear(layout: &Layout) -> Result<()> {
    let group = layout.cgroup()?;
    if group.exists() {
        kubelet::cgroup::kill(&group);
        kubelet::cgroup::remove(&group)?;
    }
    if layout.folder.exists() {
        remove(layout).with_context(|| format!("remove {}", layout.folder.display()))?;
    }
    // Other labs keep these folders.
    let _ = fs::remove_dir(crate::layout::LABS);
    let _ = fs::remove_dir("/run/axoneme");
    Ok(())
}

/// Removes the folder, the lock last: until then nobody else takes the folder for theirs.
fn remove(layout: &Layout) -> io::Result<()> {
    for entry in fs::read_dir(&layout.folder)? {
        let entry = entry?;
        if entry.file_name() == LOCK {
            continue;
        }
        if entry.file_type()?.is_dir() { fs::remove_dir_all(entry.path())? } else { fs::remove_file(entry.path())? }
    }
    let gone = |result: io::Result<()>| match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    gone(fs::remove_file(layout.file(LOCK)))?;
    match gone(fs::remove_dir(&layout.folder)) {
        // Somebody has taken a lock that is new, and with it the duty to clear.
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        other => other,
    }
}
