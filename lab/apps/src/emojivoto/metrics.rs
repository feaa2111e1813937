//! What does Prometheus read of a service?

use super::environment;
use crate::{Error, listening};
use hyper::StatusCode;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use world::http::text;

/// A counter with one label.
#[derive(Clone)]
pub struct Counts {
    name: &'static str,
    label: &'static str,
    counts: Arc<Mutex<BTreeMap<&'static str, u64>>>,
}

impl Counts {
    /// Nothing was counted yet.
    pub fn new(name: &'static str, label: &'static str) -> Counts {
        Counts { name, label, counts: Arc::default() }
    }

    /// One more of these.
    pub fn add(&self, value: &'static str) {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner).entry(value).or_default() += 1;
    }

    /// What was counted, by the label's value.
    pub fn all(&self) -> BTreeMap<&'static str, u64> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn page(&self) -> String {
        let head = format!("# TYPE {} counter\n", self.name);
        let line = |(value, count): (&str, u64)| format!("{}{{{}=\"{value}\"}} {count}\n", self.name, self.label);
        head + &self.all().into_iter().map(line).collect::<String>()
    }
}

/// Serves `/metrics` at the port that `PROM_PORT` says; nowhere without it.
pub fn task(counts: Counts) -> Result<Option<listening::Task>, Error> {
    let Some(port) = environment("PROM_PORT") else { return Ok(None) };
    let serving = listening::http(port, move |request, _| {
        let answer = match request.uri().path() {
            "/metrics" => text(StatusCode::OK, counts.page()),
            _ => text(StatusCode::NOT_FOUND, "not found\n"),
        };
        async move { answer }
    })?;
    Ok(Some(serving))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_a_line_for_each_value() {
        let counts = Counts::new("votes_total", "emoji");
        counts.add(":b:");
        counts.add(":a:");
        counts.add(":b:");
        assert_eq!(
            counts.page(),
            "# TYPE votes_total counter\nvotes_total{emoji=\":a:\"} 1\nvotes_total{emoji=\":b:\"} 2\n"
        );
    }
}
