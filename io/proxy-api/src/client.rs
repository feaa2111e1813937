//! How does the proxy stay in touch with the agent?

use std::path::PathBuf;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::mpsc;

use crate::VERSION;
use crate::error::Error;
use crate::frame::{Reader, Writer, halves};
use crate::message::{AgentHello, FromAgent, FromProxy, NamesHeld, ProxyHello};
use crate::rules::RulesUpdate;
use crate::server::{PATIENCE, check_peer, check_version};

/// The first and the longest pause before the proxy tries again. What answers of DNS teach waits for the agent, so that it
/// is not to wait for long once there is one.
const PAUSES: (Duration, Duration) = (Duration::from_millis(25), Duration::from_millis(200));

/// What the proxy hears.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The agent is there, or its settings changed.
    Hello(AgentHello),
    /// A whole change of rules, all parts of it.
    Rules(RulesUpdate),
    /// Names that its tables hold.
    NamesHeld(NamesHeld),
    /// What it has held before may be gone.
    NamesForgotten,
    /// The agent is away; the last rules go on.
    Away(String),
}

/// The proxy's side.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    program: String,
}

impl Client {
    /// For the agent behind this socket, which is root's or our own user's. `program` is our version.
    pub fn new(socket: impl Into<PathBuf>, program: &str) -> Client {
        Client { socket: socket.into(), program: program.to_owned() }
    }

    /// Connects, and again for ever, until nobody listens to events or nobody has anything to send.
    ///
    /// While the agent is away nothing is taken from `outgoing`: who sends there decides what to do when it is full.
    pub async fn run(self, mut outgoing: mpsc::Receiver<FromProxy>, events: mpsc::Sender<Event>) {
        let mut pause = PAUSES.0;
        while !events.is_closed() {
            let why = match self.connect().await {
                Ok((hello, reader, writer)) => {
                    pause = PAUSES.0;
                    if events.send(Event::Hello(hello)).await.is_err() {
                        return;
                    }
                    match talk(reader, writer, &mut outgoing, &events).await {
                        Ok(Over::Here) => return,
                        Ok(Over::There) => "the agent closed the connection".to_owned(),
                        Err(error) => error.to_string(),
                    }
                }
                Err(error) => error.to_string(),
            };
            tracing::debug!(why, "the agent is away");
            if events.send(Event::Away(why)).await.is_err() {
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    async fn connect(&self) -> Result<(AgentHello, Reader<FromAgent>, Writer<FromProxy>), Error> {
        let stream = UnixStream::connect(&self.socket).await;
        let stream = stream.map_err(|source| Error::Connect { path: self.socket.clone(), source })?;
        check_peer(&stream, None)?;
        let (mut reader, mut writer) = halves::<FromAgent, FromProxy>(stream);
        let hello = ProxyHello { version: VERSION, pid: std::process::id(), program: self.program.clone() };
        writer.send(&FromProxy::Hello(hello)).await?;
        let first = tokio::time::timeout(PATIENCE, reader.next()).await;
        let hello = match first.map_err(|_| Error::Silent(PATIENCE.as_secs()))?? {
            Some(FromAgent::Hello(hello)) => hello,
            Some(_) => return Err(Error::NoHello("another message")),
            None => return Err(Error::NoHello("the end")),
        };
        check_version(hello.version)?;
        Ok((hello, reader, writer))
    }
}

/// Whose end it was.
enum Over {
    Here,
    There,
}

/// Until one side ends. Reading and writing do not wait for each other, or two full sockets would.
async fn talk(
    mut reader: Reader<FromAgent>,
    mut writer: Writer<FromProxy>,
    outgoing: &mut mpsc::Receiver<FromProxy>,
    events: &mpsc::Sender<Event>,
) -> Result<Over, Error> {
    let send = async {
        while let Some(message) = outgoing.recv().await {
            match writer.send(&message).await {
                // A record too long is lost, the connection is not.
                Err(error @ Error::TooLong { .. }) => tracing::warn!(%error, "a message to the agent is lost"),
                other => other?,
            }
        }
        Ok(Over::Here)
    };
    let receive = async {
        let mut gathered: Option<RulesUpdate> = None;
        while let Some(message) = reader.next().await? {
            let event = match message {
                FromAgent::Hello(hello) => {
                    check_version(hello.version)?;
                    Event::Hello(hello)
                }
                FromAgent::NamesHeld(names) => Event::NamesHeld(names),
                FromAgent::NamesForgotten => Event::NamesForgotten,
                FromAgent::Rules(part) => {
                    let update = match gathered.take() {
                        Some(first) => first.join(part),
                        None => part,
                    };
                    if !update.last {
                        gathered = Some(update);
                        continue;
                    }
                    Event::Rules(update)
                }
            };
            if events.send(event).await.is_err() {
                return Ok(Over::Here);
            }
        }
        Ok(Over::There)
    };
    tokio::select! {
        over = send => over,
        over = receive => over,
    }
}
