//! How long does a container that ended wait before it runs again?

use std::time::Duration;

/// The first wait; each further one is twice as long.
const FIRST: Duration = Duration::from_secs(10);
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(300);
/// A run of this length starts the count anew.
const HEALTHY: Duration = Duration::from_secs(600);

/// Waits between runs of one container.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// A run has ended after `ran`: how long to wait before the next one. The first time there is no wait.
    pub fn after_run(&mut self, ran: Duration) -> Duration {
        if ran >= HEALTHY {
            self.failures = 0;
        }
        let wait = match self.failures {
            0 => Duration::ZERO,
            n => FIRST.saturating_mul(2u32.saturating_pow(n - 1)).min(LONGEST),
        };
        self.failures = self.failures.saturating_add(1);
        wait
    }
}

/// Whether a container that ended with `code` runs again.
pub fn restarts(policy: &str, code: i32) -> bool {
    match policy {
        "Never" => false,
        "OnFailure" => code != 0,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_five_minutes_and_a_long_run_forgives() {
        let mut backoff = Backoff::default();
        let waits: Vec<u64> = (0..8).map(|_| backoff.after_run(Duration::from_secs(1)).as_secs()).collect();
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(backoff.after_run(Duration::from_secs(700)), Duration::ZERO);
        assert_eq!(backoff.after_run(Duration::from_secs(1)), FIRST);
    }

    #[test]
    fn policies_decide_by_the_exit_code() {
        let restarted: Vec<bool> =
            [("Always", 0), ("Always", 1), ("OnFailure", 0), ("OnFailure", 1), ("Never", 0), ("Never", 1)]
                .iter()
                .map(|(policy, code)| restarts(policy, *code))
                .collect();
        assert_eq!(restarted, [true, true, false, true, false, false]);
    }
}
