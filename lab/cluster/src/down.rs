//! How does a lab end?

use crate::layout::{self, Layout, OWNERS, Owners};
use crate::reaper;
use anyhow::{Context, Result, bail};
use std::time::{Duration, Instant};

/// How long the kernel and the reaper may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Ends a lab and waits until nothing of it is left. False if there was none.
pub fn down(name: &str) -> Result<bool> {
    clear_stale(Some(name));
    let layout = Layout::of(name);
    if !layout.folder.is_dir() {
        return Ok(false);
    }
    let limit = Instant::now() + PATIENCE;
    let mut owners = None;
    while layout.folder.is_dir() {
        match layout.lock() {
            // Nobody clears it: we do.
            Ok(Some(_lock)) => reaper::clear(&layout)?,
            Ok(None) => owners = end(&layout).or(owners),
            // The folder went meanwhile.
            Err(_) if !layout.folder.is_dir() => {}
            Err(error) => return Err(error),
        }
        pause(name, limit)?;
    }
    // The reaper removes the folder and then ends.
    while owners.as_ref().is_some_and(|o: &Owners| o.reaper.runs()) {
        pause(name, limit)?;
    }
    Ok(true)
}

fn pause(name: &str, limit: Instant) -> Result<()> {
    if Instant::now() > limit {
        bail!("lab {name:?} has not ended after {} s", PATIENCE.as_secs());
    }
    std::thread::sleep(Duration::from_millis(20));
    Ok(())
}

/// Ends the supervisor, if it still is that process. None for a lab that has just begun.
fn end(layout: &Layout) -> Option<Owners> {
    let owners: Owners = layout.read(OWNERS).ok()?;
    if owners.supervisor.pid > 1 && owners.supervisor.runs() {
        kubelet::process::signal_number(owners.supervisor.pid, libc::SIGKILL);
    }
    Some(owners)
}

/// Clears what dead labs left: folders whose lock is free, and cgroups without folder.
pub fn clear_stale(except: Option<&str>) {
    for name in layout::names().iter().filter(|n| Some(n.as_str()) != except) {
        let layout = Layout::of(name);
        // A folder that was made just now belongs to an `up` that has not taken its lock yet.
        let young = std::fs::metadata(&layout.folder)
            .and_then(|m| m.modified())
            .is_ok_and(|t| t.elapsed().is_ok_and(|age| age < Duration::from_secs(10)));
        if !young && let Ok(Some(_lock)) = layout.lock() {
            let _ = reaper::clear(&layout);
        }
    }
    let Ok(root) = kubelet::cgroup::mounted() else { return };
    let Ok(entries) = std::fs::read_dir(root) else { return };
    for entry in entries.flatten() {
        let file = entry.file_name();
        let Some(name) = file.to_str().and_then(|n| n.strip_prefix("axoneme-lab-")) else { continue };
        if !Layout::of(name).folder.exists() {
            let _ = kubelet::cgroup::remove(&entry.path());
        }
    }
}

/// Fails if the lab cannot be made because it is there.
pub fn expect_free(name: &str) -> Result<()> {
    let layout = Layout::of(name);
    if !layout.folder.is_dir() {
        return Ok(());
    }
    let lock = layout.lock().context("look at the lab of that name")?;
    if lock.is_none() {
        bail!("lab {name:?} is up already; `axoneme lab down --name {name}` ends it");
    }
    reaper::clear(&layout)
}
