//! What does the first process of a container do?
//!
//! It builds the container's file system, starts the one program, passes signals on, collects orphans and ends with
//! the program's exit code; the kernel then ends whatever the container left.

use crate::root::Root;
use crate::{Error, Result, While};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Write;
use std::os::fd::FromRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// The program of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// The file system that it sees.
    pub root: Root,
    /// Command and arguments.
    pub argv: Vec<String>,
    /// Environment, whole.
    pub env: Vec<(String, String)>,
    /// Working directory.
    pub directory: PathBuf,
    /// User and group.
    pub user: Option<(u32, u32)>,
}

/// `lab-init FILE`: the file holds a [`Program`] as JSON; descriptor 3 takes `ok` or the reason of a failure.
pub fn main(args: &[String]) -> ExitCode {
    // SAFETY: the kubelet hands this descriptor over, and nothing else in this process owns it.
    let mut report = unsafe { File::from_raw_fd(3) };
    let _ = nix::fcntl::fcntl(&report, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC));
    let signals = SigSet::all();
    match signals.thread_block().while_doing(|| "block signals".into()).and_then(|()| start(args)) {
        Ok(pid) => {
            let _ = report.write_all(b"ok");
            drop(report);
            ExitCode::from(supervise(&signals, pid))
        }
        Err(e) => {
            let _ = report.write_all(e.to_string().as_bytes());
            ExitCode::from(128)
        }
    }
}

fn start(args: &[String]) -> Result<Pid> {
    let [path] = args else { return Err(Error::Invalid("one file name is expected".into())) };
    let text = std::fs::read(path).while_doing(|| format!("read {path}"))?;
    let program: Program = serde_json::from_slice(&text).map_err(|e| Error::Invalid(format!("{path}: {e}")))?;
    program.root.enter()?;
    std::fs::create_dir_all(&program.directory)
        .while_doing(|| format!("create the working directory {}", program.directory.display()))?;
    execute(&program)
}

fn execute(program: &Program) -> Result<Pid> {
    let Some((name, args)) = program.argv.split_first() else {
        return Err(Error::Invalid("the command is empty".into()));
    };
    let path = program.env.iter().find(|(k, _)| k == "PATH").map(|(_, v)| v.as_str()).unwrap_or_default();
    let found = search(name, path, &program.directory)
        .ok_or_else(|| Error::Invalid(format!("exec: {name:?}: executable file not found in $PATH ({path})")))?;
    let mut command = Command::new(found);
    command.arg0(name).args(args).env_clear().envs(program.env.iter().map(|(k, v)| (k, v)));
    command.current_dir(&program.directory);
    let user = program.user;
    // SAFETY: only system calls without allocation run between fork and exec.
    unsafe {
        command.pre_exec(move || {
            nix::unistd::setsid().map_err(std::io::Error::from)?;
            // This process waits for signals with all of them blocked; the program must not inherit that.
            SigSet::empty().thread_set_mask().map_err(std::io::Error::from)?;
            user.map_or(Ok(()), |(user, group)| crate::spawner::become_user(user, group))
        })
    };
    let child = command.spawn().while_doing(|| format!("exec {name:?}"))?;
    Ok(Pid::from_raw(child.id() as i32))
}

/// The file that a command name stands for.
pub fn search(name: &str, path: &str, directory: &Path) -> Option<PathBuf> {
    if name.contains('/') {
        let file = directory.join(name);
        return file.exists().then_some(file);
    }
    path.split(':').filter(|d| !d.is_empty()).map(|d| Path::new(d).join(name)).find(|file| executable(file))
}

fn executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(file).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// Passes signals on and collects children until the program has ended; returns its exit code.
fn supervise(signals: &SigSet, program: Pid) -> u8 {
    loop {
        match signals.wait() {
            Ok(Signal::SIGCHLD) => {
                if let Some(code) = reap(program) {
                    return code;
                }
            }
            Ok(signal) => {
                let _ = nix::sys::signal::kill(program, signal);
            }
            Err(_) => return 255,
        }
    }
}

fn reap(program: Pid) -> Option<u8> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == program => return Some(code as u8),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == program => return Some(128 + signal as u8),
            Ok(WaitStatus::StillAlive) => return None,
            Ok(_) => {}
            Err(nix::errno::Errno::EINTR) => {}
            Err(_) => return Some(255),
        }
    }
}
