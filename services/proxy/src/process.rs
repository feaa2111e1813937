//! How does the proxy start, follow the agent, hand over and end?

use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use proxy_api::{Client, Event, FromProxy, Listener, Realised, Redirected};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::datapath::Datapath;
use crate::dns::{Dns, Replies};
use crate::handover::{self, Taking};
use crate::listeners::Listeners;
use crate::privileges;
use crate::shared::{Shared, millis};
use crate::sockets::Upstream;

/// Messages to the agent that wait at most, beside the records, which wait in their own place.
const WAITING: usize = 64;
/// How often counters are sent.
const COUNTERS: Duration = Duration::from_secs(5);

/// Judges what is said on connections that the datapath redirects to it, by the agent's rules.
#[derive(Parser, Debug)]
#[command(name = "axoneme proxy")]
struct Arguments {
    /// Socket of the agent.
    #[arg(long, default_value = proxy_api::DEFAULT_SOCKET)]
    socket: PathBuf,
    /// Socket by which the next proxy takes over.
    #[arg(long, default_value = "/var/run/cilium/proxy-handover.sock")]
    handover: PathBuf,
    /// Folder in which the datapath's tables are pinned.
    #[arg(long, default_value = "/sys/fs/bpf/tc/globals")]
    tables: PathBuf,
    /// User and group to be after the start. The agent lets the group in that is its `proxy-gid`.
    #[arg(long, default_value_t = 0)]
    user: u32,
    /// Threads; as many as processors, if nothing is said.
    #[arg(long)]
    threads: Option<usize>,
}

/// The proxy of a node: runs until it is told to end.
pub fn main(words: Vec<String>) -> ExitCode {
    start(words, Upstream::Transparent, |arguments| Ok(Box::new(Datapath::open(&arguments.tables)?)))
}

/// The same without a datapath, to measure and to test: `open` finds who knows whose connections are.
pub fn main_with(
    words: Vec<String>,
    upstream: Upstream,
    open: impl FnOnce() -> Result<Box<dyn Redirected>>,
) -> ExitCode {
    start(words, upstream, |_| open())
}

fn start(
    words: Vec<String>,
    upstream: Upstream,
    open: impl FnOnce(&Arguments) -> Result<Box<dyn Redirected>>,
) -> ExitCode {
    let arguments = match Arguments::try_parse_from(std::iter::once("axoneme proxy".to_owned()).chain(words)) {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match run(&arguments, upstream, open) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(
    arguments: &Arguments,
    upstream: Upstream,
    open: impl FnOnce(&Arguments) -> Result<Box<dyn Redirected>>,
) -> Result<()> {
    // Before privileges go.
    let redirected = open(arguments)?;
    let replies = Replies::open().context("a raw socket for answers of DNS")?;
    let path = &arguments.handover;
    let taking = handover::ask(path).unwrap_or_else(|error| {
        tracing::warn!(%error, "the proxy before this one gives nothing");
        None
    });
    let giving = handover::listen(path).with_context(|| format!("listen on {}", path.display()))?;
    let files = privileges::raise_file_limit()?;
    privileges::drop_all_but_net_admin(arguments.user).context("give up privileges")?;
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = arguments.threads {
        runtime.worker_threads(threads.max(1));
    }
    let runtime = runtime.enable_all().thread_name("proxy").build().context("runtime")?;
    let shared = Shared::new(redirected, upstream);
    shared.bound_by_files(files);
    runtime.block_on(serve(shared, replies, arguments, taking, giving))?;
    // What still runs after its time is cut.
    runtime.shutdown_background();
    Ok(())
}

/// Follows the agent until a signal comes or another proxy has taken over; then ends what there is.
async fn serve(
    shared: Arc<Shared>,
    replies: Replies,
    arguments: &Arguments,
    mut taking: Option<Taking>,
    giving: UnixListener,
) -> Result<()> {
    let tasks = TaskTracker::new();
    let given = taking.as_mut().map(|taking| std::mem::take(&mut taking.sockets)).unwrap_or_default();
    let (agent, outgoing) = mpsc::channel(WAITING);
    let dns =
        Dns::start(Arc::clone(&shared), agent.clone(), replies, &tasks).context("the thread that asks for names")?;
    let listeners = Listeners::new(Arc::clone(&dns), tasks.clone(), given);
    let (heard, events) = mpsc::channel(WAITING);
    let version = env!("CARGO_PKG_VERSION");
    tokio::spawn(Client::new(&arguments.socket, version).run(outgoing, heard));
    tokio::spawn(records(Arc::clone(&shared), agent.clone()));
    tokio::spawn(counters(Arc::clone(&shared), agent.clone()));
    let (successors, successor) = mpsc::channel(1);
    std::thread::Builder::new().name("handover".into()).spawn(move || {
        for stream in giving.incoming().flatten() {
            if successors.blocking_send(stream).is_err() {
                return;
            }
        }
    })?;
    let (wanted, epoch, listening) = (Vec::new(), 0, false);
    let mut follower =
        Follower { shared: Arc::clone(&shared), dns, listeners, agent, taking, wanted, epoch, listening };
    follower.follow(events, successor).await?;
    follower.listeners.close();
    shared.begin_drain();
    tasks.close();
    let patience = millis(shared.settings.load().timeouts.drain);
    tracing::info!(connections = shared.open(), "no more connections are taken");
    if tokio::time::timeout(patience, tasks.wait()).await.is_err() {
        tracing::warn!(connections = shared.open(), "connections are cut off");
    }
    // The last records.
    tokio::time::sleep(Duration::from_millis(100)).await;
    Ok(())
}

async fn records(shared: Arc<Shared>, agent: mpsc::Sender<FromProxy>) {
    shared.recorder.run(agent, &shared.counters.records_lost).await;
}

async fn counters(shared: Arc<Shared>, agent: mpsc::Sender<FromProxy>) {
    let mut ticks = tokio::time::interval(COUNTERS);
    loop {
        ticks.tick().await;
        let mut all = shared.counters.all();
        all.0.insert("open_connections".into(), shared.open().into());
        all.0.insert("rule_sets".into(), shared.rules.load().len() as u64);
        if let Err(mpsc::error::TrySendError::Closed(_)) = agent.try_send(FromProxy::Counters(all)) {
            return;
        }
    }
}

/// What the agent and other processes change.
struct Follower {
    shared: Arc<Shared>,
    dns: Arc<Dns>,
    listeners: Listeners,
    agent: mpsc::Sender<FromProxy>,
    taking: Option<Taking>,
    wanted: Vec<Listener>,
    epoch: u64,
    listening: bool,
}

impl Follower {
    async fn follow(
        &mut self,
        mut events: mpsc::Receiver<Event>,
        mut successor: mpsc::Receiver<std::os::unix::net::UnixStream>,
    ) -> Result<()> {
        let (mut term, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let taken = CancellationToken::new();
        loop {
            tokio::select! {
                _ = term.recv() => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
                () = taken.cancelled() => return Ok(()),
                event = events.recv() => match event {
                    Some(event) => self.hear(event).await?,
                    None => anyhow::bail!("the connection to the agent is given up"),
                },
                Some(stream) = successor.recv() => self.give(stream, taken.clone()),
            }
        }
    }

    async fn hear(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Hello(hello) => {
                if let Err(error) = self.shared.redirected.renew() {
                    tracing::error!(%error, "tables cannot be opened again: if the agent made them anew, all is refused");
                }
                self.epoch = hello.epoch;
                self.dns.forget_held();
                self.shared.settings.store(Arc::new(hello.settings));
                tracing::info!(epoch = hello.epoch, listeners = hello.listeners.len(), "the agent is there");
                self.wanted = hello.listeners;
                // The proxy before this one serves until there are rules here.
                if self.taking.is_none() {
                    self.listening = self.listeners.set(&self.wanted);
                }
            }
            Event::Rules(update) => self.realise(update).await?,
            Event::NamesHeld(names) => self.dns.held(&names.numbers),
            Event::NamesForgotten => self.dns.forget_held(),
            Event::Away(why) => {
                tracing::debug!(why, "the agent is away, the last rules go on");
                self.dns.forget_held();
            }
        }
        Ok(())
    }

    async fn realise(&mut self, update: proxy_api::RulesUpdate) -> Result<()> {
        let revision = update.revision;
        let last = self.shared.rules.load_full();
        // Patterns take time, which requests must not wait for.
        let table = tokio::task::spawn_blocking(move || last.with(update)).await.context("compile rules")?;
        self.shared.rules.store(Arc::new(table));
        if self.taking.is_some() {
            self.listening = self.listeners.set(&self.wanted);
        }
        let realised = Realised { epoch: self.epoch, revision, listening: self.listening };
        // The agent may be away; nothing else waits for it. What comes too late has another epoch or a lower revision.
        let agent = self.agent.clone();
        tokio::spawn(async move { agent.send(FromProxy::Realised(realised)).await });
        if let Some(taking) = self.taking.take()
            && let Err(error) = taking.taken()
        {
            tracing::warn!(%error, "the proxy before this one went away");
        }
        Ok(())
    }

    /// Gives copies of the sockets away. This process goes on until the other one serves.
    fn give(&self, stream: std::os::unix::net::UnixStream, taken: CancellationToken) {
        let copies = match self.listeners.copies() {
            Ok(copies) => copies,
            Err(error) => return tracing::warn!(%error, "sockets cannot be handed over"),
        };
        tokio::task::spawn_blocking(move || match handover::give(stream, &copies) {
            Ok(true) => {
                tracing::info!("another proxy has taken over");
                taken.cancel();
            }
            Ok(false) => tracing::warn!("another proxy asked for the sockets and went away"),
            Err(error) => tracing::warn!(%error, "sockets were not handed over"),
        });
    }
}
