//! Names that clients ask for: by UDP on a thread of its own, by TCP on the runtime.
//!
//! A question that a rule allows goes on to the server that the client meant, from the client's address. The answer is
//! given to the client once the agent has said that the datapath knows its addresses, or after a short while without
//! that: then the client's first packet may come too early and is sent again, which is better than no answer.

mod datagrams;
mod forwarder;
mod learned;
mod names;
mod reply;
mod streams;
mod thread;
mod upstream;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use proxy_api::{Direction, FromProxy};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

pub use datagrams::bind;
pub use forwarder::Listening;
pub use reply::Replies;
pub use streams::serve;

use crate::shared::Shared;
use forwarder::Forwarder;
use names::Names;

/// All that DNS needs beside what every connection needs.
pub struct Dns {
    names: Arc<Names>,
    forwarder: Forwarder,
}

impl Dns {
    /// Starts the thread for questions by UDP. `agent` gets what answers teach; `tasks` ends no sooner than questions
    /// that wait.
    pub fn start(
        shared: Arc<Shared>,
        agent: mpsc::Sender<FromProxy>,
        replies: Replies,
        tasks: &TaskTracker,
    ) -> io::Result<Arc<Dns>> {
        let names = Arc::new(Names::new(shared, agent));
        let forwarder = Forwarder::start(Arc::clone(&names), replies, tasks.clone())?;
        Ok(Arc::new(Dns { names, forwarder }))
    }

    /// What all connections have in common.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.names.shared
    }

    /// Takes questions from a socket of `bind` until the result is dropped.
    pub fn listen(&self, socket: OwnedFd, direction: Direction) -> io::Result<Listening> {
        self.forwarder.listen(socket, direction)
    }

    /// The agent has said that the datapath knows the addresses of these answers.
    pub fn held(&self, numbers: &[u64]) {
        let others = self.names.learnings.held(numbers);
        if !others.is_empty() {
            self.forwarder.held(others);
        }
    }

    /// Another run of the agent is there, or none.
    pub fn forget_held(&self) {
        self.names.learnings.forget();
    }
}
