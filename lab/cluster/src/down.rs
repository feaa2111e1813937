//! How does a lab end?

use crate::layout::{self, Layout, Supervisor, start_time};
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
    loop {
        if !layout.folder.is_dir() {
            return Ok(true);
        }
        if let Some(_lock) = layout.lock()? {
            // Nobody clears it: we do.
            reaper::clear(&layout)?;
            return Ok(true);
        }
        // A lab that is just beginning has not written its supervisor yet.
        if let Ok(supervisor) = layout.read::<Supervisor>("supervisor.json") {
            end(&supervisor);
        }
        if Instant::now() > limit {
            bail!("lab {name:?} has not ended after {} s", PATIENCE.as_secs());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Ends the process, if it is still that one.
fn end(supervisor: &Supervisor) {
    if supervisor.pid > 1 && start_time(supervisor.pid) == Some(supervisor.started) {
        kubelet::process::signal_number(supervisor.pid, libc::SIGKILL);
    }
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
