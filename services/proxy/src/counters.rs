//! How often did what happen?

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// Counts since the start of the process.
        #[derive(Debug, Default)]
        pub struct Counters { $($(#[doc = $doc])* pub $name: Count,)* }

        impl Counters {
            /// By name.
            pub fn all(&self) -> proxy_api::Counters {
                proxy_api::Counters(BTreeMap::from([$((stringify!($name).to_owned(), self.$name.get()),)*]))
            }
        }
    };
}

counters! {
    /// Connections taken.
    connections,
    /// Connections refused because nothing is known of them, or no rules.
    refused_unknown,
    /// Connections refused because there were too many.
    refused_overload,
    /// Connections refused because of their rules: nothing can pass, or another server name.
    refused_policy,
    /// Upstream connections that failed.
    upstream_failed,
    /// Requests that went on.
    requests_forwarded,
    /// Requests that were denied.
    requests_denied,
    /// Requests that were none, or failed.
    requests_error,
    /// Questions of DNS that went on.
    dns_forwarded,
    /// Questions of DNS that were denied.
    dns_denied,
    /// Messages that are no question, or several.
    dns_unreadable,
    /// Questions of endpoints that had too many waiting.
    dns_overload,
    /// Questions whose server could not be asked, or whose answer could not be sent.
    dns_failed,
    /// Questions whose server did not answer in time.
    dns_timeout,
    /// Messages of servers that answer no question that waits.
    dns_mismatched,
    /// Answers that were given before the datapath was known to know their addresses.
    dns_released_early,
    /// Access records that were lost.
    records_lost,
}

/// A number that grows.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// One more.
    pub fn add(&self) {
        self.add_many(1);
    }

    /// More.
    pub fn add_many(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// Now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
