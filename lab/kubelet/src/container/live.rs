//! Where is a running container, and how is a further process started in it?

use std::path::{Path, PathBuf};

use crate::namespaces::{Kind, Namespace};
use crate::spawner::{Launch, Processes};
use crate::{Error, Result, While};

/// A running container, for those who enter it.
#[derive(Debug, Clone)]
pub struct Live {
    /// Its first process, as the kubelet counts.
    pub pid: u32,
    /// Its cgroup.
    pub cgroup: PathBuf,
    /// Its environment.
    pub env: Vec<(String, String)>,
    /// Its working directory.
    pub directory: PathBuf,
    /// User and group.
    pub user: Option<(u32, u32)>,
}

impl Live {
    /// A further process in the container.
    pub fn launch(&self, argv: &[String], terminal: bool) -> Result<Launch> {
        let Some((program, args)) = argv.split_first() else {
            return Err(Error::Invalid("you must specify at least one command for the container".into()));
        };
        let kinds = [Kind::Net, Kind::Uts, Kind::Ipc, Kind::Cgroup, Kind::Mount];
        let enter = kinds.iter().map(|k| Namespace::of(self.pid, *k)).collect::<Result<Vec<_>>>()?;
        let path = self.env.iter().find(|(k, _)| k == "PATH").map(|(_, v)| v.as_str()).unwrap_or_default();
        // Looked up where the process will run; the path of the found file is good there only.
        let [.., mounts] = enter.as_slice() else { return Err(Error::Invalid("no namespaces".into())) };
        let found = lookup(mounts, program, path, &self.directory)?;
        let mut env = self.env.clone();
        if terminal && !env.iter().any(|(k, _)| k == "TERM") {
            env.push(("TERM".into(), "xterm".into()));
        }
        Ok(Launch {
            args: args.iter().map(Into::into).collect(),
            env: Some(env),
            directory: Some(self.directory.clone()),
            cgroup: Some(self.cgroup.clone()),
            enter,
            processes: Processes::Of(Namespace::of(self.pid, Kind::Pid)?),
            terminal,
            user: self.user,
            ..Launch::new(found)
        })
    }
}

fn lookup(mounts: &Namespace, program: &str, path: &str, directory: &Path) -> Result<PathBuf> {
    let found = mounts.share().and_then(|mounts| {
        std::thread::scope(|scope| {
            let search = scope.spawn(|| {
                // A thread shares its file system view with the others until it says otherwise.
                nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS).while_doing(|| "leave the shared root".into())?;
                mounts.enter()?;
                Ok(crate::init::search(program, path, directory))
            });
            search.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })?;
    found.ok_or_else(|| Error::Invalid(format!("exec: {program:?}: executable file not found in $PATH")))
}
