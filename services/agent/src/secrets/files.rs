//! What do files on the node hold in a Secret's place?
//!
//! As in Cilium, `certificates-directory` has a folder for each namespace, in it one for each Secret, and in that a file
//! for each item. Nothing outside of the directory is read, whatever links are in it; links within are what kubelet
//! makes of a Secret that it mounts.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use proxy_api::Hidden;

use crate::proxy::secrets::{Items, Reference};

/// No Secret is larger.
const MOST: u64 = 1 << 20;

/// The items of a Secret, whose names were looked at. `None`: there is no folder for it.
pub fn read(root: &Path, of: &Reference) -> Option<Result<Items, String>> {
    let root = File::open(root).ok()?;
    match beneath(&root, &Path::new(&of.namespace).join(&of.name), OFlag::O_DIRECTORY) {
        Ok(folder) => Some(items(&folder).map_err(|why| format!("its files cannot be read: {why}"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => Some(Err(format!("its files cannot be read: {error}"))),
    }
}

fn items(folder: &File) -> io::Result<Items> {
    let (mut items, mut left, mut failed) = (BTreeMap::new(), MOST, None);
    for entry in std::fs::read_dir(format!("/proc/self/fd/{}", folder.as_raw_fd()))? {
        let name = entry?.file_name();
        match item(folder, Path::new(&name), &mut left) {
            Ok(Some(value)) => drop(items.insert(name.to_string_lossy().into_owned(), value)),
            Ok(None) => {}
            Err(error) => failed = Some(error),
        }
    }
    match failed {
        Some(error) if items.is_empty() => Err(error),
        _ => Ok(Hidden(items)),
    }
}

/// A file's content; `None`: it is no file.
fn item(folder: &File, name: &Path, left: &mut u64) -> io::Result<Option<Vec<u8>>> {
    let file = beneath(folder, name, OFlag::O_NONBLOCK)?;
    if !file.metadata()?.is_file() {
        return Ok(None);
    }
    let mut value = Vec::new();
    file.take(*left + 1).read_to_end(&mut value)?;
    *left = left.checked_sub(value.len() as u64).ok_or(io::ErrorKind::FileTooLarge)?;
    Ok(Some(value))
}

fn beneath(folder: &File, path: &Path, more: OFlag) -> io::Result<File> {
    let how = OpenHow::new().flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | more);
    let how = how.resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    Ok(openat2(folder.as_fd(), path, how)?.into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn of(namespace: &str, name: &str) -> Reference {
        Reference { namespace: namespace.into(), name: name.into() }
    }

    #[test]
    fn files_are_items_also_where_kubelet_mounts_a_secret() {
        let root = tempfile::tempdir().unwrap();
        assert!(read(root.path(), &of("a", "s")).is_none());
        assert!(read(&root.path().join("absent"), &of("a", "s")).is_none());
        let folder = root.path().join("a/s");
        fs::create_dir_all(folder.join("..2026")).unwrap();
        symlink("..2026", folder.join("..data")).unwrap();
        fs::write(folder.join("..2026/tls.crt"), "C").unwrap();
        symlink("..data/tls.crt", folder.join("tls.crt")).unwrap();
        fs::write(folder.join("tls.key"), "K").unwrap();
        let items = read(root.path(), &of("a", "s")).unwrap().unwrap().0;
        assert_eq!(items, BTreeMap::from([("tls.crt".into(), b"C".to_vec()), ("tls.key".into(), b"K".to_vec())]));
    }

    #[test]
    fn nothing_outside_is_read_and_nothing_too_long() {
        let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(outside.path().join("tls.key"), "hunter2").unwrap();
        fs::create_dir_all(root.path().join("a/s")).unwrap();
        symlink(outside.path().join("tls.key"), root.path().join("a/s/tls.key")).unwrap();
        symlink(outside.path(), root.path().join("a/t")).unwrap();
        for name in ["s", "t"] {
            let error = read(root.path(), &of("a", name)).unwrap().unwrap_err();
            assert!(error.starts_with("its files cannot be read: ") && !error.contains("hunter2"), "{error}");
        }
        fs::create_dir_all(root.path().join("a/long")).unwrap();
        fs::write(root.path().join("a/long/tls.crt"), vec![b'x'; (1 << 20) + 1]).unwrap();
        read(root.path(), &of("a", "long")).unwrap().unwrap_err();
        // One that waits for a writer is no file.
        fs::create_dir_all(root.path().join("a/pipe")).unwrap();
        nix::unistd::mkfifo(&root.path().join("a/pipe/tls.crt"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert!(read(root.path(), &of("a", "pipe")).unwrap().unwrap().0.is_empty());
    }
}
