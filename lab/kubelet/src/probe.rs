//! What do the answers of a probe mean over time?

use std::time::Duration;

/// When a probe is asked and how many answers count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Wait after the container's start.
    pub initial_delay: Duration,
    /// Between two questions.
    pub period: Duration,
    /// For one answer.
    pub timeout: Duration,
    /// Successes in a row that make it good.
    pub successes: u32,
    /// Failures in a row that make it bad.
    pub failures: u32,
}

/// What a run of answers makes known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// Not enough answers of one kind in a row.
    Open,
    /// Good.
    Good,
    /// Bad.
    Bad,
}

/// Counts answers in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Series {
    successes_needed: u32,
    failures_needed: u32,
    last: Option<bool>,
    run: u32,
}

impl Series {
    /// A series without answers.
    pub fn new(timing: &Timing) -> Series {
        Series {
            successes_needed: timing.successes.max(1),
            failures_needed: timing.failures.max(1),
            last: None,
            run: 0,
        }
    }

    /// One more answer.
    pub fn answer(&mut self, good: bool) -> Judgement {
        self.run = if self.last == Some(good) { self.run.saturating_add(1) } else { 1 };
        self.last = Some(good);
        match good {
            true if self.run >= self.successes_needed => Judgement::Good,
            false if self.run >= self.failures_needed => Judgement::Bad,
            _ => Judgement::Open,
        }
    }
}

impl From<&k8s_openapi::api::core::v1::Probe> for Timing {
    fn from(probe: &k8s_openapi::api::core::v1::Probe) -> Timing {
        let seconds = |value: Option<i32>, default: u64| {
            Duration::from_secs(value.and_then(|v| u64::try_from(v).ok()).unwrap_or(default))
        };
        let count = |value: Option<i32>, default: u32| value.and_then(|v| u32::try_from(v).ok()).unwrap_or(default);
        Timing {
            initial_delay: seconds(probe.initial_delay_seconds, 0),
            period: seconds(probe.period_seconds, 10).max(Duration::from_secs(1)),
            timeout: seconds(probe.timeout_seconds, 1).max(Duration::from_secs(1)),
            successes: count(probe.success_threshold, 1),
            failures: count(probe.failure_threshold, 3),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Judgement::{Bad, Good, Open};

    fn judged(successes: u32, failures: u32, answers: &[bool]) -> Vec<Judgement> {
        let second = Duration::from_secs(1);
        let timing = Timing { initial_delay: second, period: second, timeout: second, successes, failures };
        let mut series = Series::new(&timing);
        answers.iter().map(|a| series.answer(*a)).collect()
    }

    #[test]
    fn answers_count_in_a_row_only() {
        assert_eq!(
            judged(1, 3, &[true, false, false, true, false, false, false]),
            [Good, Open, Open, Good, Open, Open, Bad]
        );
        assert_eq!(judged(2, 1, &[true, true, false, true]), [Open, Good, Bad, Open]);
    }
}
