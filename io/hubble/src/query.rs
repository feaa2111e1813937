//! Which entries of the ring does a question mean, and from where on are they read?

use flow::{
    proto::observer::{GetAgentEventsRequest, GetDebugEventsRequest, GetFlowsRequest},
    wkt::Timestamp,
};
use tonic::Status;

use crate::ring::{Entry, Read, Ring};

/// What the questions for flows, agent events and debug events have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Query {
    pub number: u64,
    pub first: bool,
    pub follow: bool,
    /// Nanoseconds since 1970.
    pub since: Option<i64>,
    /// See `since`.
    pub until: Option<i64>,
}

macro_rules! query_from {
    ($($request:ty),*) => {$(
        impl TryFrom<&$request> for Query {
            type Error = Status;

            fn try_from(request: &$request) -> Result<Self, Status> {
                Query {
                    number: request.number,
                    first: request.first,
                    follow: request.follow,
                    since: nanos("since", request.since.as_ref())?,
                    until: nanos("until", request.until.as_ref())?,
                }
                .checked()
            }
        }
    )*};
}

query_from!(GetFlowsRequest, GetAgentEventsRequest, GetDebugEventsRequest);

fn nanos(name: &str, time: Option<&Timestamp>) -> Result<Option<i64>, Status> {
    match time {
        Some(time) if time.moment().is_none() => {
            Err(Status::invalid_argument(format!("{name} is no valid time: {time:?}")))
        }
        time => Ok(time.map(Timestamp::as_nanos)),
    }
}

impl Query {
    fn checked(self) -> Result<Self, Status> {
        if self.first && self.follow {
            return Err(Status::invalid_argument("first cannot be specified with follow"));
        }
        Ok(self)
    }

    /// Where to begin. `wanted` tells whether an entry counts.
    pub(crate) fn start(&self, ring: &Ring, wanted: impl Fn(&Entry) -> bool) -> u64 {
        let next = ring.next();
        match (self.since, self.first, self.follow, self.number) {
            (None, true, _, _) => ring.oldest(),
            (None, _, true, 0) => next,
            _ => self.rewind(ring, next, wanted),
        }
    }

    /// Back to the first entry that is too old, or to the last that is still needed.
    fn rewind(&self, ring: &Ring, next: u64, wanted: impl Fn(&Entry) -> bool) -> u64 {
        let mut position = next;
        let mut count = 0;
        while position > 0 {
            let Read::Entry(entry) = ring.read(position - 1) else { break };
            if wanted(&entry) {
                count += 1;
                match self.since {
                    Some(since) if entry.time() < since => break,
                    None if count == self.number => return position - 1,
                    _ => {}
                }
            }
            position -= 1;
        }
        position
    }

    /// True once enough was sent.
    pub(crate) fn satisfied(&self, sent: u64) -> bool {
        !self.follow && self.number > 0 && sent >= self.number
    }

    pub(crate) fn is_over(&self, entry: &Entry) -> bool {
        self.until.is_some_and(|until| entry.time() > until)
    }

    pub(crate) fn is_too_old(&self, entry: &Entry) -> bool {
        self.since.is_some_and(|since| entry.time() < since)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use flow::proto::flow::{AgentEvent, Flow};

    use super::*;
    use crate::ring::Capacity;

    /// Flows at times 10, 20, ... 70, of which 20 and 50 are agent events; the first of all was overwritten.
    fn ring() -> Ring {
        let ring = Ring::new(Capacity::new(7).unwrap());
        ring.write(0..8, |_, n| match n {
            2 | 5 => Entry::Agent(n * 10, Arc::new(AgentEvent::default())),
            _ => Entry::Flow(n * 10, Arc::new(Flow::default())),
        });
        ring
    }

    #[track_caller]
    fn check(query: Query, expected: u64) {
        assert_eq!(query.start(&ring(), Entry::is_flow), expected);
    }

    #[test]
    fn where_reading_begins() {
        let query = Query::default();
        check(query, 1);
        check(Query { number: 1, ..query }, 7);
        check(Query { number: 3, ..query }, 4);
        check(Query { number: 4, ..query }, 3);
        check(Query { number: 100, ..query }, 1);
        check(Query { number: 2, first: true, ..query }, 1);
        check(Query { follow: true, ..query }, 8);
        check(Query { follow: true, number: 2, ..query }, 6);
        check(Query { since: Some(60), ..query }, 5);
        check(Query { since: Some(60), number: 1, first: true, ..query }, 5);
        check(Query { since: Some(61), follow: true, ..query }, 7);
        check(Query { since: Some(0), ..query }, 1);
        check(Query { since: Some(1000), ..query }, 8);
    }

    #[test]
    fn contradictions_are_refused() {
        let request = GetFlowsRequest { first: true, follow: true, ..GetFlowsRequest::default() };
        assert!(Query::try_from(&request).unwrap_err().message().contains("first"));
        let since = Some(Timestamp { seconds: i64::MAX, nanos: 0 });
        let request = GetFlowsRequest { since, ..GetFlowsRequest::default() };
        assert!(Query::try_from(&request).unwrap_err().message().contains("since"));
    }
}
