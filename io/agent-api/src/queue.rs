//! Where do deletions wait while the agent is down?

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The folder that plugin and agent agree on.
pub const DEFAULT_QUEUE: &str = "/var/run/cilium/deleteQueue";

/// An agent that comes back later than this many deletions ago would find its endpoints by other means.
const MOST_QUEUED: usize = 256;

/// A deletion that the agent has not heard of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct QueuedDelete {
    /// Container and device.
    pub cni_attachment_id: String,
}

/// The folder of waiting deletions.
#[derive(Clone, Debug)]
pub struct Queue {
    folder: PathBuf,
}

impl Queue {
    /// In this folder; it is made when it is needed.
    pub fn new(folder: impl AsRef<Path>) -> Self {
        Queue { folder: folder.as_ref().to_owned() }
    }

    /// Remembers a deletion; the same one twice is one.
    pub fn push(&self, delete: &QueuedDelete) -> std::io::Result<()> {
        std::fs::create_dir_all(&self.folder)?;
        if self.files()?.len() >= MOST_QUEUED {
            return Err(std::io::Error::other(format!(
                "{MOST_QUEUED} deletions wait in {} already",
                self.folder.display()
            )));
        }
        let name = format!("{:016x}.delete", fnv1a(delete.cni_attachment_id.as_bytes()));
        let aside = self.folder.join(format!(".{name}.{}", std::process::id()));
        let mut file = std::fs::File::create(&aside)?;
        file.write_all(&serde_json::to_vec(delete)?)?;
        file.sync_all()?;
        std::fs::rename(aside, self.folder.join(name))
    }

    /// Takes all deletions; those that cannot be read are removed and reported by file name.
    pub fn drain(&self) -> std::io::Result<(Vec<QueuedDelete>, Vec<String>)> {
        let (mut deletes, mut unreadable) = (Vec::new(), Vec::new());
        for path in self.files()? {
            match std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()) {
                Some(delete) => deletes.push(delete),
                None => unreadable.push(path.display().to_string()),
            }
            std::fs::remove_file(path)?;
        }
        Ok((deletes, unreadable))
    }

    fn files(&self) -> std::io::Result<Vec<PathBuf>> {
        let entries = match std::fs::read_dir(&self.folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
        paths.retain(|path| path.extension().is_some_and(|e| e == "delete"));
        paths.sort();
        Ok(paths)
    }
}

/// FNV-1a, 64 bits: one file for one name.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn deletions_wait_once_and_come_out_once() {
        let folder = std::env::temp_dir().join(format!("agent-api-queue-{}", std::process::id()));
        let queue = Queue::new(&folder);
        assert_eq!(queue.drain().unwrap(), (Vec::new(), Vec::new()));
        let delete = QueuedDelete { cni_attachment_id: "c1:eth0".into() };
        queue.push(&delete).unwrap();
        queue.push(&delete).unwrap();
        std::fs::write(folder.join("torn.delete"), b"{\"cni-").unwrap();
        let (deletes, unreadable) = queue.drain().unwrap();
        assert_eq!((deletes, unreadable.len()), (vec![delete], 1));
        assert_eq!(queue.drain().unwrap(), (Vec::new(), Vec::new()));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
