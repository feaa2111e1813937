//! How does the agent hear of proxies?

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::{Gid, Uid, chown};
use tokio::net::{UnixListener, UnixStream};

use crate::VERSION;
use crate::error::Error;
use crate::frame::{Reader, Writer, halves};
use crate::message::{AgentHello, FromAgent, FromProxy, ProxyHello};

/// How long the other side may take for its hello.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// The agent's socket for proxies. The file goes with it.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    group: Option<u32>,
}

/// A proxy that has connected and not yet said hello.
#[derive(Debug)]
pub struct Greeting {
    stream: UnixStream,
}

/// A proxy that is connected. Two may be at a time, when a new one takes over.
#[derive(Debug)]
pub struct Session {
    /// What it said of itself.
    pub hello: ProxyHello,
    /// What comes from it.
    pub reader: Reader<FromProxy>,
    /// What goes to it.
    pub writer: Writer<FromAgent>,
}

impl Server {
    /// Listens there. Besides the agent's own user and root only who is of the proxy's group can connect.
    pub fn bind(path: &Path, group: Option<u32>) -> Result<Server, Error> {
        let wrong = |source| Error::Bind { path: path.to_owned(), source };
        // Bound under another name and with the right mode before it is there: nobody connects in between.
        let hidden = path.with_extension(format!("{}.new", std::process::id()));
        remove(&hidden).map_err(wrong)?;
        let listener = UnixListener::bind(&hidden).map_err(wrong)?;
        std::fs::set_permissions(&hidden, std::fs::Permissions::from_mode(0o600)).map_err(wrong)?;
        if let Some(group) = group {
            chown(&hidden, None, Some(Gid::from_raw(group))).map_err(|e| wrong(e.into()))?;
            std::fs::set_permissions(&hidden, std::fs::Permissions::from_mode(0o660)).map_err(wrong)?;
        }
        std::fs::rename(&hidden, path).map_err(wrong)?;
        Ok(Server { listener, path: path.to_owned(), group })
    }

    /// The next proxy. Safe to cancel.
    pub async fn accept(&self) -> Result<Greeting, Error> {
        let (stream, _) = self.listener.accept().await?;
        check_peer(&stream, self.group)?;
        Ok(Greeting { stream })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Greeting {
    /// Says hello and waits for the proxy's.
    pub async fn greet(self, hello: AgentHello) -> Result<Session, Error> {
        let (mut reader, mut writer) = halves::<FromProxy, FromAgent>(self.stream);
        writer.send(&FromAgent::Hello(hello)).await?;
        let first = tokio::time::timeout(PATIENCE, reader.next()).await;
        let hello = match first.map_err(|_| Error::Silent(PATIENCE.as_secs()))?? {
            Some(FromProxy::Hello(hello)) => hello,
            Some(_) => return Err(Error::NoHello("another message")),
            None => return Err(Error::NoHello("the end")),
        };
        check_version(hello.version)?;
        Ok(Session { hello, reader, writer })
    }
}

pub(crate) fn check_version(found: u32) -> Result<(), Error> {
    if found == VERSION { Ok(()) } else { Err(Error::Version { found, expected: VERSION }) }
}

/// The other side is root's, of this process' own user, or of this group.
pub(crate) fn check_peer(stream: &UnixStream, group: Option<u32>) -> Result<(), Error> {
    let (found, users) = (stream.peer_cred()?, vec![Uid::effective().as_raw(), 0]);
    let known = users.contains(&found.uid()) || group == Some(found.gid());
    if known { Ok(()) } else { Err(Error::Stranger { found: found.uid(), expected: users }) }
}

fn remove(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
