//! Who clears what a lab leaves when its supervisor has died?
//!
//! The kernel ends the processes, namespaces, links, pins and mounts. Cgroups and files are left; this process, outside
//! of the lab, waits for the end and removes them.

use crate::layout::{Layout, Supervisor, start_time};
use anyhow::{Context, Result};
use nix::sched::{CloneFlags, unshare};
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;

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
    layout.write("supervisor.json", &Supervisor { pid, started: start_time(pid).unwrap_or(0) })?;
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
        fs::remove_dir_all(&layout.folder).with_context(|| format!("remove {}", layout.folder.display()))?;
    }
    // Other labs keep these folders.
    let _ = fs::remove_dir(crate::layout::LABS);
    let _ = fs::remove_dir("/run/axoneme");
    Ok(())
}
