//! How does a new proxy take over from the one before it, without a connection lost?
//!
//! The old one gives copies of its listening sockets away, with all connections that wait in them, and goes on. Once
//! the new one has rules it says so, and the old one takes no more connections and ends those that it has.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use proxy_api::Listener;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

/// Sockets that can be given away at a time.
const MOST: usize = 32;
/// How long the other process may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// What the new one says once it serves.
const TAKEN: u8 = b'T';

/// A listening socket of another process, or for one.
#[derive(Debug)]
pub struct Given {
    /// What it is for.
    pub listener: Listener,
    /// Its address is IPv6.
    pub v6: bool,
    /// It takes datagrams and no connections.
    pub datagrams: bool,
    /// The socket.
    pub socket: OwnedFd,
}

#[derive(Serialize, Deserialize)]
struct Label {
    listener: Listener,
    v6: bool,
    datagrams: bool,
}

/// The new one's end: what it got, and how it says that it serves.
#[derive(Debug)]
pub struct Taking {
    /// The sockets.
    pub sockets: Vec<Given>,
    stream: UnixStream,
}

impl Taking {
    /// The old one may stop.
    pub fn taken(mut self) -> io::Result<()> {
        self.stream.write_all(&[TAKEN])
    }
}

/// Asks the process that listens there, if there is one.
pub fn ask(path: &Path) -> io::Result<Option<Taking>> {
    let stream = match UnixStream::connect(path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        other => other?,
    };
    stream.set_read_timeout(Some(PATIENCE))?;
    let (mut bytes, mut room) = ([0; 8_192], [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))]);
    let mut control = RecvAncillaryBuffer::new(&mut room);
    let got = recvmsg(&stream, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut files: Vec<OwnedFd> = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            files.extend(rights);
        }
    }
    let labels: Vec<Label> = serde_json::from_slice(&bytes[..got.bytes])?;
    if labels.len() != files.len() {
        return Err(io::Error::other(format!("{} sockets were announced and {} came", labels.len(), files.len())));
    }
    let given = |(label, socket): (Label, OwnedFd)| Given {
        listener: label.listener,
        v6: label.v6,
        datagrams: label.datagrams,
        socket,
    };
    Ok(Some(Taking { sockets: labels.into_iter().zip(files).map(given).collect(), stream }))
}

/// Listens for the next process. Who asked before finds this one from now on.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    let hidden = path.with_extension(format!("{}.new", std::process::id()));
    match std::fs::remove_file(&hidden) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&hidden)?;
    std::fs::set_permissions(&hidden, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&hidden, path)?;
    Ok(listener)
}

/// Gives the sockets to who has connected; true once that one serves.
pub fn give(mut stream: UnixStream, sockets: &[Given]) -> io::Result<bool> {
    let user = getsockopt(&stream.as_fd(), PeerCredentials)?.uid();
    if user != 0 && user != nix::unistd::Uid::effective().as_raw() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("user {user} may not take over")));
    }
    let sockets = &sockets[..sockets.len().min(MOST)];
    let label = |given: &Given| Label { listener: given.listener, v6: given.v6, datagrams: given.datagrams };
    let labels: Vec<Label> = sockets.iter().map(label).collect();
    let files: Vec<BorrowedFd> = sockets.iter().map(|given| given.socket.as_fd()).collect();
    let text = serde_json::to_vec(&labels)?;
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = SendAncillaryBuffer::new(&mut room);
    if !files.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&files)) {
        return Err(io::Error::other("no room for the sockets"));
    }
    sendmsg(&stream, &[IoSlice::new(&text)], &mut control, SendFlags::NOSIGNAL)?;
    // The new one takes as long as the agent takes to send it rules.
    stream.set_read_timeout(None)?;
    let mut answer = [0];
    Ok(stream.read(&mut answer)? == 1 && answer[0] == TAKEN)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proxy_api::{Direction, Traffic};
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn connections_that_wait_pass_to_the_new_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("handover.sock");
        assert!(ask(&path).unwrap().is_none());
        let listener = Listener { traffic: Traffic::Tcp, direction: Direction::Egress, port: 1 };
        let old = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = old.local_addr().unwrap();
        let mut client = TcpStream::connect(address).unwrap();
        let giving = listen(&path).unwrap();
        let giver = std::thread::spawn(move || {
            let given = Given { listener, v6: true, datagrams: false, socket: old.into() };
            give(giving.accept().unwrap().0, &[given]).unwrap()
        });
        let taking = ask(&path).unwrap().unwrap();
        let got = &taking.sockets[0];
        assert_eq!((got.listener, got.v6, got.datagrams), (listener, true, false));
        let new: TcpListener = taking.sockets[0].socket.try_clone().unwrap().into();
        taking.taken().unwrap();
        assert!(giver.join().unwrap());
        new.accept().unwrap().0.write_all(b"x").unwrap();
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"x");
    }

    #[test]
    fn one_that_goes_without_a_word_has_not_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("handover.sock");
        let giving = listen(&path).unwrap();
        let giver = std::thread::spawn(move || give(giving.accept().unwrap().0, &[]).unwrap());
        drop(ask(&path).unwrap().unwrap());
        assert!(!giver.join().unwrap());
    }
}
