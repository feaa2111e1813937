//! What may the process do once it has started?

use anyhow::{Context, Result};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities, set_keep_capabilities};

/// Gives up everything but CAP_NET_ADMIN, which marks and foreign addresses need. Before the first thread is there.
pub fn drop_all_but_net_admin(user: u32) -> Result<()> {
    prctl::set_no_new_privs().context("no_new_privs")?;
    if !Uid::effective().is_root() {
        return Ok(());
    }
    if user != 0 {
        set_keep_capabilities(true).context("keep capabilities")?;
        setgroups(&[]).context("groups")?;
        let group = Gid::from_raw(user);
        setresgid(group, group, group).with_context(|| format!("group {user}"))?;
        let user = Uid::from_raw(user);
        setresuid(user, user, user).with_context(|| format!("user {user}"))?;
        set_keep_capabilities(false).context("keep capabilities")?;
    }
    let kept = CapabilitySet::NET_ADMIN;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets).context("capabilities")?;
    // Its memory has keys.
    prctl::set_dumpable(false).context("not dumpable")?;
    Ok(())
}

/// Two files for each connection.
const FILES: u64 = 1 << 20;

/// As many files as may be.
pub fn raise_file_limit() -> Result<u64> {
    if setrlimit(Resource::RLIMIT_NOFILE, FILES, FILES).is_ok() {
        return Ok(FILES);
    }
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("limit of files")?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("limit of files")?;
    Ok(hard)
}
