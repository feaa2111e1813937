//! In which order do flows of many nodes reach the client? By time, as far as waiting for stragglers is bearable.

use std::{
    cmp::Ordering,
    collections::BinaryHeap,
    time::{Duration, Instant},
};

use flow::proto::observer::{GetFlowsResponse, get_flows_response::ResponseTypes};
use tokio::{
    sync::mpsc,
    time::{interval, timeout},
};
use tonic::Status;

/// Towards the client.
pub(crate) type Client = mpsc::Sender<Result<GetFlowsResponse, Status>>;
/// From a node.
pub(crate) type Source = mpsc::Receiver<GetFlowsResponse>;

/// The client has gone.
pub(crate) struct Gone;

/// Nanoseconds since 1970.
fn time(response: &GetFlowsResponse) -> i64 {
    response.time.as_ref().map_or(0, flow::wkt::Timestamp::as_nanos)
}

async fn send(client: &Client, response: GetFlowsResponse) -> Result<(), Gone> {
    client.send(Ok(response)).await.map_err(|_| Gone)
}

/// Answers that end: each node's are in order, so the oldest of their first ones is the next. A node that hangs longer
/// than `patience` is not waited for.
pub(crate) async fn ordered(sources: Vec<Source>, client: &Client, patience: Duration) -> Result<(), Gone> {
    let mut sources: Vec<(Source, Option<GetFlowsResponse>)> = sources.into_iter().map(|s| (s, None)).collect();
    while !sources.is_empty() {
        let mut ended = Vec::new();
        for (index, (source, head)) in sources.iter_mut().enumerate().filter(|(_, (_, head))| head.is_none()) {
            match timeout(patience, source.recv()).await {
                Ok(None) => ended.push(index),
                Ok(response) => *head = response,
                Err(_) => {}
            }
        }
        for index in ended.into_iter().rev() {
            sources.remove(index);
        }
        let first = sources.iter_mut().filter(|(_, head)| head.is_some());
        let first = first.min_by_key(|(_, head)| head.as_ref().map(rank));
        if let Some(response) = first.and_then(|(_, head)| head.take()) {
            send(client, response).await?;
        }
    }
    Ok(())
}

/// What is not a flow does not wait.
fn rank(response: &GetFlowsResponse) -> i64 {
    match response.response_types {
        Some(ResponseTypes::Flow(_)) => time(response),
        _ => i64::MIN,
    }
}

struct Waiting {
    time: i64,
    sequence: u64,
    since: Instant,
    response: GetFlowsResponse,
}

impl Ord for Waiting {
    /// The oldest is the greatest, for the heap.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.time, other.sequence).cmp(&(self.time, self.sequence))
    }
}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Waiting {}

/// Answers without end: a flow waits at most for `window`, and at most `longest` flows wait.
pub(crate) async fn windowed(
    mut source: Source,
    client: &Client,
    longest: usize,
    window: Duration,
) -> Result<(), Gone> {
    let mut heap = BinaryHeap::with_capacity(longest.min(1024));
    let mut sequence = 0;
    let mut tick = interval((window / 10).max(Duration::from_millis(10)));
    loop {
        tokio::select! {
            _ = tick.tick() => {
                while let Some(next) = due(&mut heap, window) {
                    send(client, next).await?;
                }
            }
            response = source.recv() => {
                let Some(response) = response else { break };
                if !matches!(response.response_types, Some(ResponseTypes::Flow(_))) {
                    send(client, response).await?;
                    continue;
                }
                if heap.len() >= longest.max(1)
                    && let Some(Waiting { response, .. }) = heap.pop()
                {
                    send(client, response).await?;
                }
                sequence += 1;
                heap.push(Waiting { time: time(&response), sequence, since: Instant::now(), response });
            }
        }
    }
    while let Some(Waiting { response, .. }) = heap.pop() {
        send(client, response).await?;
    }
    Ok(())
}

/// The oldest flow, if any of those that wait has waited long enough: it must not overtake older ones.
fn due(heap: &mut BinaryHeap<Waiting>, window: Duration) -> Option<GetFlowsResponse> {
    let long_enough = heap.iter().any(|waiting| waiting.since.elapsed() >= window);
    if !long_enough {
        return None;
    }
    heap.pop().map(|waiting| waiting.response)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use flow::{proto::flow::Flow, wkt::Timestamp};

    use super::*;

    fn flow(nanos: i64) -> GetFlowsResponse {
        GetFlowsResponse {
            time: Some(Timestamp::from_nanos(nanos)),
            response_types: Some(ResponseTypes::Flow(Box::<Flow>::default())),
            ..GetFlowsResponse::default()
        }
    }

    fn source(times: &[i64]) -> Source {
        let (sender, receiver) = mpsc::channel(100);
        times.iter().for_each(|time| sender.try_send(flow(*time)).unwrap());
        receiver
    }

    async fn drain(mut receiver: mpsc::Receiver<Result<GetFlowsResponse, Status>>) -> Vec<i64> {
        let mut times = Vec::new();
        while let Some(response) = receiver.recv().await {
            times.push(time(&response.unwrap()));
        }
        times
    }

    #[tokio::test]
    async fn answers_that_end_are_sorted_exactly() {
        let (client, receiver) = mpsc::channel(100);
        let sources = vec![source(&[1, 5, 9]), source(&[]), source(&[2, 3, 10, 11]), source(&[4])];
        assert!(ordered(sources, &client, Duration::from_secs(5)).await.is_ok());
        drop(client);
        assert_eq!(drain(receiver).await, [1, 2, 3, 4, 5, 9, 10, 11]);
    }

    #[tokio::test]
    async fn a_node_that_hangs_does_not_hold_up_others() {
        let (client, receiver) = mpsc::channel(100);
        let (hanging, stuck) = mpsc::channel::<GetFlowsResponse>(1);
        let sources = vec![stuck, source(&[1, 2])];
        let merging = tokio::spawn(async move { ordered(sources, &client, Duration::from_millis(10)).await.is_ok() });
        let mut receiver = receiver;
        assert_eq!(time(&receiver.recv().await.unwrap().unwrap()), 1);
        assert_eq!(time(&receiver.recv().await.unwrap().unwrap()), 2);
        drop(hanging);
        assert!(merging.await.unwrap());
    }

    #[tokio::test]
    async fn answers_without_end_are_sorted_within_the_buffer() {
        let (client, receiver) = mpsc::channel(100);
        assert!(windowed(source(&[3, 1, 2, 7, 5, 6]), &client, 3, Duration::from_secs(60)).await.is_ok());
        drop(client);
        assert_eq!(drain(receiver).await, [1, 2, 3, 5, 6, 7]);
    }

    #[tokio::test]
    async fn flows_do_not_wait_longer_than_the_window() {
        let (client, mut receiver) = mpsc::channel(100);
        let (sender, source) = mpsc::channel(100);
        tokio::spawn(async move { windowed(source, &client, 100, Duration::from_millis(20)).await.is_ok() });
        sender.send(flow(2)).await.unwrap();
        sender.send(flow(1)).await.unwrap();
        assert_eq!(time(&receiver.recv().await.unwrap().unwrap()), 1);
        assert_eq!(time(&receiver.recv().await.unwrap().unwrap()), 2);
    }
}
