//! How does a process get the file system that it should see?

use crate::{Error, Result, While};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::fs;
use std::path::{Path, PathBuf};

const NONE: Option<&str> = None;

/// Mounts a file system of the kernel's own (`tmpfs`, `proc`, `sysfs`, `bpf`, `cgroup2`).
pub fn virtual_fs(kind: &str, target: &Path, flags: MsFlags, data: Option<&str>) -> Result<()> {
    mount(Some(kind), target, Some(kind), flags, data).while_doing(|| format!("mount {kind} on {}", target.display()))
}

/// Shows `source` at `target` as well.
pub fn bind(source: &Path, target: &Path, recursive: bool) -> Result<()> {
    let flags = if recursive { MsFlags::MS_BIND | MsFlags::MS_REC } else { MsFlags::MS_BIND };
    mount(Some(source), target, NONE, flags, NONE)
        .while_doing(|| format!("bind {} to {}", source.display(), target.display()))
}

/// Makes a bind mount read-only.
pub fn read_only(target: &Path) -> Result<()> {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(NONE, target, NONE, flags, NONE).while_doing(|| format!("make {} read-only", target.display()))
}

/// How mounts below a mount reach other namespaces.
pub fn propagation(target: &Path, flags: MsFlags) -> Result<()> {
    mount(NONE, target, NONE, flags, NONE).while_doing(|| format!("set propagation {flags:?} of {}", target.display()))
}

/// A root of one's own over `lower`: what is written goes to `scratch` (on a tmpfs). Returns where it is mounted.
pub fn overlay(lower: &Path, scratch: &Path) -> Result<PathBuf> {
    let [upper, work, merged] = ["upper", "work", "root"].map(|name| scratch.join(name));
    for dir in [&upper, &work, &merged] {
        fs::create_dir_all(dir).while_doing(|| format!("create {}", dir.display()))?;
    }
    let data =
        format!("lowerdir={},upperdir={},workdir={}", option_value(lower), option_value(&upper), option_value(&work));
    mount(Some("overlay"), &merged, Some("overlay"), MsFlags::empty(), Some(data.as_str()))
        .while_doing(|| format!("mount an overlay of {} on {}", lower.display(), merged.display()))?;
    Ok(merged)
}

/// Overlay options separate by comma and colon.
fn option_value(path: &Path) -> String {
    path.display().to_string().replace('\\', "\\\\").replace(':', "\\:").replace(',', "\\,")
}

/// Makes `new_root` the root of this mount namespace and lets go of the old one.
pub fn pivot(new_root: &Path) -> Result<()> {
    let old_root = fs::File::open("/").while_doing(|| "open the old root".into())?;
    std::env::set_current_dir(new_root).while_doing(|| format!("change to {}", new_root.display()))?;
    // The old root is stacked over the new one at the same place: no directory for it is needed.
    nix::unistd::pivot_root(".", ".").while_doing(|| format!("pivot to {}", new_root.display()))?;
    nix::unistd::fchdir(&old_root).while_doing(|| "change to the old root".into())?;
    // The old root's mounts only: those of the new one may have to stay shared.
    propagation(Path::new("."), MsFlags::MS_SLAVE | MsFlags::MS_REC)?;
    umount2(".", MntFlags::MNT_DETACH).while_doing(|| "let go of the old root".into())?;
    std::env::set_current_dir("/").while_doing(|| "change to /".into())
}

/// Lets go of a mount and all below it, also if it is in use.
pub fn detach(target: &Path) -> Result<()> {
    umount2(target, MntFlags::MNT_DETACH).while_doing(|| format!("unmount {}", target.display()))
}

/// A place for a bind mount: a directory or an empty file, whatever the source is. Symbolic links on the way are
/// followed inside `root` only.
pub fn place(root: &Path, target: &Path, source_is_dir: bool) -> Result<PathBuf> {
    let at = resolve_below(root, target)?;
    let parent = if source_is_dir { Some(at.as_path()) } else { at.parent() };
    if let Some(dir) = parent {
        fs::create_dir_all(dir).while_doing(|| format!("create {}", dir.display()))?;
    }
    if !source_is_dir && !at.exists() {
        fs::File::create(&at).while_doing(|| format!("create {}", at.display()))?;
    }
    Ok(at)
}

/// Where `target` is when `root` is the root, all symbolic links resolved below it.
pub fn resolve_below(root: &Path, target: &Path) -> Result<PathBuf> {
    let mut pending: Vec<PathBuf> = vec![target.to_path_buf()];
    let mut at = root.to_path_buf();
    let mut links = 0;
    while let Some(path) = pending.pop() {
        let mut components = path.components();
        let Some(component) = components.next() else { continue };
        pending.push(components.as_path().to_path_buf());
        match component {
            std::path::Component::ParentDir => {
                if at != root {
                    at.pop();
                }
            }
            std::path::Component::Normal(name) => {
                let next = at.join(name);
                match fs::read_link(&next) {
                    Ok(link) => {
                        links += 1;
                        if links > 40 {
                            return Err(Error::Invalid(format!("{}: too many symbolic links", target.display())));
                        }
                        if link.is_absolute() {
                            at = root.to_path_buf();
                        }
                        pending.push(link);
                    }
                    Err(_) => at = next,
                }
            }
            std::path::Component::RootDir | std::path::Component::CurDir | std::path::Component::Prefix(_) => {}
        }
    }
    Ok(at)
}

/// Mount points of disks below `/` other than `/` itself, which an overlay of `/` does not show.
pub fn disks(mountinfo: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = mountinfo.lines().filter_map(disk).collect();
    found.sort();
    found.dedup();
    found
}

/// One line of `/proc/self/mountinfo`.
fn disk(line: &str) -> Option<PathBuf> {
    const DISKS: [&str; 12] =
        ["ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "overlay", "9p", "virtiofs", "fuseblk", "squashfs"];
    let (fixed, rest) = line.split_once(" - ")?;
    let kind = rest.split(' ').next()?;
    let target = unescape(fixed.split(' ').nth(4)?);
    let system = ["/proc", "/sys", "/dev", "/run"].iter().any(|s| Path::new(&target).starts_with(s));
    (DISKS.contains(&kind) && target != "/" && !system).then(|| PathBuf::from(target))
}

/// `mountinfo` writes blanks, tabs, newlines and backslashes as octal numbers.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_string(), |text, (octal, plain)| text.replace(octal, plain))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn disks_are_found_and_kernel_file_systems_are_not() {
        let info = "25 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
                    26 25 0:24 / /proc rw - proc proc rw\n\
                    30 25 254:1 / /home\\040x rw,nosuid shared:9 - xfs /dev/vdb rw\n\
                    31 25 254:0 /a /run/x rw - ext4 /dev/vda rw\n";
        assert_eq!(disks(info), [PathBuf::from("/home x")]);
    }

    #[test]
    fn links_stay_below_the_root() {
        let dir = std::env::temp_dir().join(format!("kubelet-links-{}", std::process::id()));
        fs::create_dir_all(dir.join("run")).unwrap();
        fs::create_dir_all(dir.join("var")).unwrap();
        std::os::unix::fs::symlink("/run", dir.join("var/run")).unwrap();
        std::os::unix::fs::symlink("../../../../../etc", dir.join("out")).unwrap();
        assert_eq!(resolve_below(&dir, Path::new("/var/run/x/y")).unwrap(), dir.join("run/x/y"));
        assert_eq!(resolve_below(&dir, Path::new("/out/passwd")).unwrap(), dir.join("etc/passwd"));
        assert_eq!(resolve_below(&dir, Path::new("/../../x")).unwrap(), dir.join("x"));
        fs::remove_dir_all(&dir).unwrap();
    }
}
