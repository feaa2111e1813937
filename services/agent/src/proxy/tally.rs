//! How often was what said through the proxy, with which result, and how long did servers take?

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use agent_api::{MessageForwardingStatistics, RequestResponseStatistics};
use proxy_api::{Application, Direction, Kind, Record, Verdict};

/// Shared by who counts and who tells.
#[derive(Clone, Debug, Default)]
pub struct Tally(Arc<Mutex<Counts>>);

/// Ports of endpoints of which more than this many were seen are not counted: a rule may be for all of them.
const MOST: usize = 16_384;
/// Upper ends of a histogram's parts, in seconds: Prometheus' own.
const ENDS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// What was counted.
#[derive(Debug, Default)]
pub struct Counts {
    /// By proxy type and result (`received`, `forwarded`, `denied`, `parse_errors`).
    pub results: BTreeMap<(&'static str, &'static str), u64>,
    /// How long servers took to answer, by protocol and error.
    pub replies: BTreeMap<(&'static str, &'static str), Histogram>,
    redirects: BTreeMap<Redirect, RequestResponseStatistics>,
}

/// Endpoint, direction (egress or not) and port.
type Redirect = (u32, bool, u16);

/// How many took how long.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Histogram {
    parts: [u64; ENDS.len()],
    /// All.
    pub count: u64,
    /// In seconds.
    pub sum: f64,
}

impl Histogram {
    fn add(&mut self, seconds: f64) {
        if let Some(part) = ENDS.iter().position(|end| seconds <= *end) {
            self.parts[part] += 1;
        }
        self.count += 1;
        self.sum += seconds;
    }

    /// How many took at most so long.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> {
        let mut sum = 0;
        let finite = ENDS.into_iter().zip(self.parts).map(move |(end, count)| {
            sum += count;
            (end, sum)
        });
        finite.chain([(f64::INFINITY, self.count)])
    }
}

impl Tally {
    /// What was counted so far.
    pub fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    /// One more.
    pub fn add(&mut self, record: &Record) {
        let (kind, protocol) = match &record.application {
            Application::Http(_) => ("envoy", "http"),
            Application::Kafka(_) => ("envoy", "kafka"),
            Application::Dns(_) => ("fqdn", "dns"),
            Application::Tls(_) => ("envoy", "tls"),
        };
        if record.kind == Kind::Request {
            let result = match record.verdict {
                Verdict::Forwarded => "forwarded",
                Verdict::Denied => "denied",
                Verdict::Error => "parse_errors",
            };
            for rule in ["received", result] {
                *self.results.entry((kind, rule)).or_default() += 1;
            }
        }
        self.add_reply(protocol, record);
        self.add_to_redirect(record);
    }

    fn add_reply(&mut self, protocol: &'static str, record: &Record) {
        let latency = match &record.application {
            Application::Http(http) => http.latency,
            Application::Kafka(kafka) => kafka.latency,
            Application::Dns(dns) => dns.latency,
            Application::Tls(_) => None,
        };
        let error = match record.verdict {
            Verdict::Forwarded => "allow",
            Verdict::Denied => "denied",
            Verdict::Error => "proxyErr",
        };
        if let Some(nanoseconds) = latency.filter(|_| record.kind == Kind::Response) {
            self.replies.entry((protocol, error)).or_default().add(nanoseconds as f64 / 1e9);
        }
    }

    fn add_to_redirect(&mut self, record: &Record) {
        let key = (record.endpoint, record.direction == Direction::Egress, record.destination.address.port());
        if !self.redirects.contains_key(&key) && self.redirects.len() >= MOST {
            return;
        }
        let counts = self.redirects.entry(key).or_default();
        let counts = match record.kind {
            Kind::Request => &mut counts.requests,
            Kind::Response => &mut counts.responses,
        };
        counts.received += 1;
        match record.verdict {
            Verdict::Forwarded => counts.forwarded += 1,
            Verdict::Denied => counts.denied += 1,
            Verdict::Error => counts.error += 1,
        }
    }

    /// Forgets endpoints that are gone.
    pub fn keep(&mut self, is_there: impl Fn(u32) -> bool) {
        self.redirects.retain(|(endpoint, ..), _| is_there(*endpoint));
    }

    /// What was said at these ports of an endpoint.
    pub fn of(&self, endpoint: u32, egress: bool, ports: std::ops::RangeInclusive<u16>) -> RequestResponseStatistics {
        let found = self.redirects.range((endpoint, egress, *ports.start())..=(endpoint, egress, *ports.end()));
        let add = |one: MessageForwardingStatistics, two: &MessageForwardingStatistics| MessageForwardingStatistics {
            denied: one.denied + two.denied,
            error: one.error + two.error,
            forwarded: one.forwarded + two.forwarded,
            received: one.received + two.received,
        };
        found.fold(RequestResponseStatistics::default(), |sum, (_, one)| RequestResponseStatistics {
            requests: add(sum.requests, &one.requests),
            responses: add(sum.responses, &one.responses),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::flows::tests::record;
    use super::*;

    #[test]
    fn what_is_said_is_counted_once_for_all_and_for_its_port() {
        let http = |latency| Application::Http(proxy_api::Http { latency, ..Default::default() });
        let mut counts = Counts::default();
        for record in [
            record(Kind::Request, Verdict::Forwarded, http(None)),
            record(Kind::Response, Verdict::Forwarded, http(Some(20_000_000))),
            record(Kind::Request, Verdict::Denied, http(None)),
        ] {
            counts.add(&record);
        }
        assert_eq!(counts.results[&("envoy", "received")], 2);
        assert_eq!((counts.results[&("envoy", "forwarded")], counts.results[&("envoy", "denied")]), (1, 1));
        let said = counts.of(7, false, 80..=80);
        assert_eq!((said.requests.received, said.requests.denied, said.responses.forwarded), (2, 1, 1));
        assert_eq!(counts.of(7, false, 0..=u16::MAX), said);
        assert_eq!((counts.of(7, true, 80..=80), counts.of(7, false, 81..=90)), Default::default());
        counts.keep(|endpoint| endpoint != 7);
        assert_eq!(counts.of(7, false, 80..=80), Default::default());
        let replies = counts.replies[&("http", "allow")];
        let buckets: Vec<u64> = replies.buckets().map(|(_, count)| count).collect();
        assert_eq!(buckets, [0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
        assert_eq!((replies.count, replies.sum), (1, 0.02));
    }
}
