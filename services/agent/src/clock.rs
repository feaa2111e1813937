//! How late is it, for what must end neither sooner nor later because somebody sets the node's clock?

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Seconds since 1970 as the node's clock said when the agent started, and from then on as time passes.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// Seconds since 1970 when the node started, as far as the clock was right.
    booted: u64,
}

impl Clock {
    /// With the node's clock as it is now.
    pub fn start() -> Clock {
        let today = u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0);
        Clock { booted: today.saturating_sub(since_boot().as_secs()) }
    }

    /// Now.
    pub fn now(self) -> u64 {
        self.at(since_boot())
    }

    /// So long after the node has started.
    pub fn at(self, since_boot: Duration) -> u64 {
        self.booted.saturating_add(since_boot.as_secs())
    }
}

fn since_boot() -> Duration {
    // The kernel has this clock since 2.6.39.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_with_the_time_since_boot_whatever_the_node_s_clock_says_later() {
        let clock = Clock { booted: 1_000_000 };
        assert_eq!(clock.at(Duration::from_secs(30)) - clock.at(Duration::from_secs(10)), 20);
        let today = u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0);
        assert!(Clock::start().now().abs_diff(today) <= 1);
    }
}
