//! What survives a restart of the agent: one file for each endpoint.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use abi::identity::Identity;
use labels::Labels;
use serde::de::DeserializeOwned;

use crate::core::EndpointRecord;

const FILE: &str = "ep_config.json";
const NAMES: &str = "names.json";
const NUMBERS: &str = "local_identities.json";

/// Identities of this node with their labels.
pub type LocalNumbers = BTreeMap<Identity, Labels>;

/// The folder of remembered endpoints.
#[derive(Clone, Debug)]
pub struct StateDir(PathBuf);

impl StateDir {
    /// `state` within the agent's folder.
    pub fn new(folder: &Path) -> Self {
        StateDir(folder.join("state"))
    }

    /// Remembers an endpoint: the old file or the new one is there, never half of one.
    pub fn save(&self, record: &EndpointRecord) -> io::Result<()> {
        let folder = self.0.join(record.id.to_string());
        std::fs::create_dir_all(&folder)?;
        write_atomically(&folder.join(FILE), &serde_json::to_vec(record)?)
    }

    /// Forgets an endpoint; forgotten already is success.
    pub fn remove(&self, id: u32) -> io::Result<()> {
        match std::fs::remove_dir_all(self.0.join(id.to_string())) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Remembers which addresses names stand for.
    pub fn save_names(&self, names: &fqdn::Saved) -> io::Result<()> {
        write_atomically(&self.0.join(NAMES), &serde_json::to_vec(names)?)
    }

    /// The names of the earlier run; none if there was none.
    pub fn load_names(&self) -> io::Result<fqdn::Saved> {
        self.load_or_default(NAMES)
    }

    /// Remembers the identities of this node.
    pub fn save_numbers(&self, numbers: &LocalNumbers) -> io::Result<()> {
        write_atomically(&self.0.join(NUMBERS), &serde_json::to_vec(numbers)?)
    }

    /// The identities of this node that an earlier run had; none if there was none.
    pub fn load_numbers(&self) -> io::Result<LocalNumbers> {
        self.load_or_default(NUMBERS)
    }

    fn load_or_default<T: DeserializeOwned + Default>(&self, name: &str) -> io::Result<T> {
        match std::fs::read(self.0.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(T::default()),
            Err(error) => Err(error),
            Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
        }
    }

    /// All endpoints; files that cannot be read are named.
    pub fn load(&self) -> io::Result<(Vec<EndpointRecord>, Vec<String>)> {
        let (mut records, mut unreadable) = (Vec::new(), Vec::new());
        let entries = match std::fs::read_dir(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((records, unreadable)),
            other => other?,
        };
        for entry in entries {
            let folder = entry?.path();
            if folder.file_name().is_some_and(|name| name == NAMES || name == NUMBERS) {
                continue;
            }
            let record = std::fs::read(folder.join(FILE)).ok();
            let record = record.and_then(|bytes| serde_json::from_slice::<EndpointRecord>(&bytes).ok());
            let name = folder.file_name().and_then(|n| n.to_str()).and_then(|n| n.parse::<u32>().ok());
            match record.filter(|record| Some(record.id) == name && record.id != 0) {
                Some(record) => records.push(record),
                None => unreadable.push(folder.display().to_string()),
            }
        }
        records.sort_by_key(|record| record.id);
        Ok((records, unreadable))
    }
}

/// Writes aside and renames.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::io::Write;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".{}", std::process::id()));
    let mut file = std::fs::File::create(&aside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(aside, path)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn half_written_state_is_named_and_does_no_harm() {
        let folder = std::env::temp_dir().join(format!("agent-state-{}", std::process::id()));
        let state = StateDir::new(&folder);
        assert_eq!(state.load().unwrap(), (Vec::new(), Vec::new()));
        let labels = labels::Labels::parse(["k8s:app=web"]).unwrap();
        let record = EndpointRecord { id: 7, pod: "web".into(), identity: 4711, labels, ..EndpointRecord::default() };
        state.save(&record).unwrap();
        std::fs::create_dir_all(folder.join("state/8")).unwrap();
        std::fs::write(folder.join("state/8/ep_config.json"), b"{\"id\":8,\"ki").unwrap();
        let (records, unreadable) = state.load().unwrap();
        assert_eq!((records, unreadable.len()), (vec![record], 1));
        state.remove(7).unwrap();
        state.remove(7).unwrap();
        let mut names = fqdn::Cache::default();
        let addresses = vec![[1, 1, 1, 1].into()];
        names.learn(7, &fqdn::Answer { name: "a.example".into(), addresses, ttl: 30 }, 100);
        assert_eq!(state.load_names().unwrap(), fqdn::Saved::default());
        state.save_names(&names.save()).unwrap();
        assert_eq!(state.load_names().unwrap(), names.save());
        let numbers =
            LocalNumbers::from([(1 << 24, labels::Labels::parse(["cidr:10.0.0.0/8", "fqdn:*.a.b"]).unwrap())]);
        assert_eq!(state.load_numbers().unwrap(), LocalNumbers::new());
        state.save_numbers(&numbers).unwrap();
        assert_eq!(state.load_numbers().unwrap(), numbers);
        assert_eq!(state.load().unwrap().1.len(), 1, "names and numbers are no endpoints");
        std::fs::write(folder.join("state/names.json"), b"{\"7\":").unwrap();
        assert!(state.load_names().is_err());
        std::fs::remove_dir_all(folder).unwrap();
    }
}
