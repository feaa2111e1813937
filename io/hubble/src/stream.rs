//! How does an answer flow? A task walks the ring and sends what is asked for, until there is no more or nobody listens.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use flow::{
    filter::Filters,
    mask::Mask,
    proto::{
        flow::{Flow, LostEvent, LostEventSource},
        observer::{GetFlowsResponse, get_flows_response::ResponseTypes},
    },
    wkt::Timestamp,
};
use futures::stream::BoxStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::{
    query::Query,
    ring::{Entry, Read},
    store::{Inner, now},
};

/// The stream of one answer.
pub(crate) type Answers<T> = BoxStream<'static, Result<T, Status>>;

/// How many answers wait for a slow client before the walk pauses.
const BACKLOG: usize = 128;

/// The client has gone.
struct Gone;

type Sender<T> = mpsc::Sender<Result<T, Status>>;

/// What the walk finds next.
enum Step {
    Entry(Entry),
    Lost(u64),
    End,
}

/// A reader's place in the ring.
struct Walk {
    inner: Arc<Inner>,
    query: Query,
    position: u64,
}

impl Walk {
    fn new(inner: Arc<Inner>, query: Query, wanted: impl Fn(&Entry) -> bool) -> Self {
        let position = query.start(&inner.ring, wanted);
        Self { inner, query, position }
    }

    /// None: nothing is there yet, but will be.
    fn step(&mut self) -> Option<Step> {
        match self.inner.ring.read(self.position) {
            Read::Entry(entry) => {
                self.position += 1;
                Some(Step::Entry(entry))
            }
            Read::Overwritten { oldest } => {
                let lost = oldest - self.position;
                self.position = oldest;
                Some(Step::Lost(lost))
            }
            Read::NotYet if self.query.follow => None,
            Read::NotYet => Some(Step::End),
        }
    }

    /// Waits for the next entry, at most until the deadline.
    async fn wait(&self, until: Option<Instant>) {
        let written = self.inner.ring.wait(self.position);
        match until {
            Some(until) => {
                // Too late is as good as written: the caller looks again.
                let _ = tokio::time::timeout_at(until.into(), written).await;
            }
            None => written.await,
        }
    }
}

/// The flows that a question asks for.
pub(crate) fn flows(
    inner: Arc<Inner>,
    query: Query,
    filters: Filters,
    mask: Option<Mask>,
) -> Answers<GetFlowsResponse> {
    let (sender, receiver) = mpsc::channel(BACKLOG);
    // Found here and not in the task, so that whoever has the answer's head misses nothing that happens after it.
    let wanted = |entry: &Entry| match filters.is_empty() {
        true => entry.is_flow(),
        false => inner.flow(entry).is_some_and(|flow| filters.pass(&flow)),
    };
    let walk = Walk::new(inner.clone(), query, wanted);
    tokio::spawn(async move {
        tokio::select! {
            () = sender.closed() => {}
            _ = send_flows(walk, filters, mask, &sender) => {}
        }
    });
    Box::pin(ReceiverStream::new(receiver))
}

async fn send_flows(
    mut walk: Walk,
    filters: Filters,
    mask: Option<Mask>,
    sender: &Sender<GetFlowsResponse>,
) -> Result<(), Gone> {
    let (inner, query) = (walk.inner.clone(), walk.query);
    let mut losses = Losses::new(inner.config.lost_interval);
    let mut sent = 0;
    while !query.satisfied(sent) {
        if let Some(lost) = losses.due(Instant::now()) {
            send(sender, lost_response(&inner, now(), lost)).await?;
        }
        let entry = match walk.step() {
            None => {
                walk.wait(losses.deadline()).await;
                continue;
            }
            Some(Step::End) => break,
            Some(Step::Lost(count)) => {
                losses.add(count, Instant::now());
                continue;
            }
            Some(Step::Entry(entry)) => entry,
        };
        if let Entry::Lost(time, lost) = entry {
            send(sender, lost_response(&inner, Timestamp::from_nanos(time), lost)).await?;
            continue;
        }
        if query.is_over(&entry) {
            break;
        }
        if query.is_too_old(&entry) {
            continue;
        }
        let Some(flow) = inner.flow(&entry).filter(|flow| filters.pass(flow)) else { continue };
        sent += 1;
        send(sender, flow_response(flow, &mask)).await?;
    }
    match losses.rest() {
        Some(lost) => send(sender, lost_response(&inner, now(), lost)).await,
        None => Ok(()),
    }
}

fn flow_response(mut flow: Flow, mask: &Option<Mask>) -> GetFlowsResponse {
    if let Some(mask) = mask {
        mask.apply(&mut flow);
    }
    GetFlowsResponse {
        node_name: flow.node_name.clone(),
        time: flow.time,
        response_types: Some(ResponseTypes::Flow(Box::new(flow))),
    }
}

fn lost_response(inner: &Inner, time: Timestamp, lost: LostEvent) -> GetFlowsResponse {
    GetFlowsResponse {
        node_name: inner.directory.node().full_name(),
        time: Some(time),
        response_types: Some(ResponseTypes::LostEvents(lost)),
    }
}

/// Other events (of the agent, for debugging) that a question asks for, made by `make` of entries.
pub(crate) fn events<T: Send + 'static>(
    inner: Arc<Inner>,
    query: Query,
    make: impl Fn(&Inner, &Entry) -> Option<T> + Send + Sync + 'static,
) -> Answers<T> {
    let (sender, receiver) = mpsc::channel(BACKLOG);
    let walk = Walk::new(inner.clone(), query, |entry| make(&inner, entry).is_some());
    tokio::spawn(async move {
        tokio::select! {
            () = sender.closed() => {}
            _ = send_events(walk, make, &sender) => {}
        }
    });
    Box::pin(ReceiverStream::new(receiver))
}

async fn send_events<T>(
    mut walk: Walk,
    make: impl Fn(&Inner, &Entry) -> Option<T>,
    sender: &Sender<T>,
) -> Result<(), Gone> {
    let (inner, query) = (walk.inner.clone(), walk.query);
    let mut sent = 0;
    while !query.satisfied(sent) {
        let entry = match walk.step() {
            None => {
                walk.wait(None).await;
                continue;
            }
            Some(Step::End) => break,
            Some(Step::Lost(_)) => continue,
            Some(Step::Entry(entry)) => entry,
        };
        let Some(answer) = make(&inner, &entry) else { continue };
        if query.is_over(&entry) {
            break;
        }
        if !query.is_too_old(&entry) {
            sent += 1;
            send(sender, answer).await?;
        }
    }
    Ok(())
}

async fn send<T>(sender: &Sender<T>, answer: T) -> Result<(), Gone> {
    sender.send(Ok(answer)).await.map_err(|_| Gone)
}

/// What a slow reader missed, told in bundles.
struct Losses {
    interval: Duration,
    count: u64,
    first: Option<(Timestamp, Instant)>,
    last: Timestamp,
}

impl Losses {
    fn new(interval: Duration) -> Self {
        Self { interval, count: 0, first: None, last: Timestamp::default() }
    }

    fn add(&mut self, count: u64, at: Instant) {
        self.last = now();
        self.count += count;
        self.first.get_or_insert((self.last, at));
    }

    fn deadline(&self) -> Option<Instant> {
        self.first.map(|(_, at)| at + self.interval)
    }

    fn due(&mut self, at: Instant) -> Option<LostEvent> {
        self.deadline().filter(|deadline| *deadline <= at)?;
        self.rest()
    }

    fn rest(&mut self) -> Option<LostEvent> {
        let (first, _) = self.first.take()?;
        Some(LostEvent {
            source: LostEventSource::HubbleRingBuffer.into(),
            num_events_lost: std::mem::take(&mut self.count),
            first: Some(first),
            last: Some(self.last),
            cpu: None,
        })
    }
}
