//! One thread takes questions by UDP, asks the servers and gives the answers back.
//!
//! A question costs the system calls that it needs and nothing more: no task, no timer and no other thread to wake. The
//! thread sleeps until something comes or until somebody has waited for too long.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};

use proxy_api::Direction;
use rustix::event::{EventfdFlags, eventfd};
use tokio_util::task::TaskTracker;

use super::names::Names;
use super::reply::Replies;
use super::thread::Thread;

/// The number of the bell among the sockets.
pub const BELL: u64 = 0;

/// What the thread is told.
pub enum Command {
    /// To take questions from this socket, which has this number.
    Listen(u64, OwnedFd, Direction),
    /// To take none from it any more.
    Close(u64),
    /// The agent holds what it was told under these numbers.
    Held(Vec<u64>),
}

/// To the thread, which ends once there is none of these any more.
#[derive(Clone)]
struct Way {
    commands: Sender<Command>,
    /// Behind the sender: the last ring comes when that is gone.
    bell: Bell,
}

/// Wakes the thread, also when it goes.
#[derive(Clone)]
struct Bell(Arc<OwnedFd>);

impl Bell {
    fn ring(&self) {
        let _ = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        self.ring();
    }
}

impl Way {
    fn tell(&self, command: Command) {
        // A thread that is gone has ended the process with it.
        let _ = self.commands.send(command);
        self.bell.ring();
    }
}

/// The thread.
pub struct Forwarder {
    way: Way,
    next: AtomicU64,
}

/// A socket that questions are taken from.
pub struct Listening {
    way: Way,
    number: u64,
    socket: OwnedFd,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.way.tell(Command::Close(self.number));
    }
}

impl Listening {
    /// The socket, for the next process.
    pub fn copy(&self) -> io::Result<OwnedFd> {
        self.socket.try_clone()
    }
}

impl Forwarder {
    /// Starts it.
    pub fn start(names: Arc<Names>, replies: Replies, tasks: TaskTracker) -> io::Result<Forwarder> {
        let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let (commands, told) = channel();
        let mut thread = Thread::new(names, replies, tasks, told, Arc::clone(&bell))?;
        std::thread::Builder::new().name("names".into()).spawn(move || {
            // Without it every question would wait for ever: the process ends and is started again.
            if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| thread.run())).is_err() {
                tracing::error!("the thread that asks for names broke");
                std::process::abort();
            }
        })?;
        Ok(Forwarder { way: Way { commands, bell: Bell(bell) }, next: AtomicU64::new(BELL + 1) })
    }

    /// Takes questions from this socket until the result is dropped.
    pub fn listen(&self, socket: OwnedFd, direction: Direction) -> io::Result<Listening> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.way.tell(Command::Listen(number, socket.try_clone()?, direction));
        Ok(Listening { way: self.way.clone(), number, socket })
    }

    /// The agent holds what it was told under these numbers.
    pub fn held(&self, numbers: Vec<u64>) {
        self.way.tell(Command::Held(numbers));
    }
}
