//! Where does what a container writes go?

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::unix::pipe;

use crate::kubelet::lock;
use crate::{Result, While, logs};

pub(super) async fn copy_lines(fd: OwnedFd, stream: &'static str, writer: Arc<Mutex<logs::Writer>>) {
    let Ok(receiver) = receiver(fd) else { return };
    // A line without end must not fill the memory.
    const LIMIT: u64 = 256 << 10;
    let mut reader = BufReader::new(receiver);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut reader).take(LIMIT).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        if let Err(error) = lock(&writer).line(Timestamp::now(), stream, text) {
            tracing::warn!(%error, "log line lost");
        }
    }
}

/// The log of one run of a container.
pub fn log_path(pod: &Pod, container: &str, run: i32) -> PathBuf {
    log_folder(pod).join(container).join(format!("{run}.log"))
}

/// Where all logs of a pod are.
pub fn log_folder(pod: &Pod) -> PathBuf {
    let part = |value: &Option<String>| value.clone().unwrap_or_default();
    let folder = format!("{}_{}_{}", part(&pod.metadata.namespace), part(&pod.metadata.name), part(&pod.metadata.uid));
    Path::new("/var/log/pods").join(folder)
}

/// A pipe: what is read, what is written to.
pub fn new_pipe() -> Result<(OwnedFd, OwnedFd)> {
    nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).while_doing(|| "make a pipe".into())
}

/// The reading end of a pipe, for the runtime.
pub fn receiver(fd: OwnedFd) -> Result<pipe::Receiver> {
    pipe::Receiver::from_owned_fd(fd).while_doing(|| "watch a pipe".into())
}
