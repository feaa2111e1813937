//! May this request to a Kafka broker pass?
//!
//! [`Request`] reads what stands before every request's body. [`Rules`] judge it: they walk through the body by the
//! message's schema, so that records, which can be large, are stepped over and nothing is copied. What cannot be read
//! is refused.

mod apis;
mod offer;
mod request;
mod rules;
mod schema;
mod walk;

pub use apis::{Api, all, by_name, name_of};
pub use offer::offer;
pub use request::{Malformed, Request};
pub use rules::{Judgement, Rule, Rules, Verdict};
pub use walk::{Facts, Said};

/// Kafka's error for a topic that somebody may not use (`TOPIC_AUTHORIZATION_FAILED`).
pub const TOPIC_AUTHORIZATION_FAILED: i16 = 29;
/// The same for a group of consumers.
pub const GROUP_AUTHORIZATION_FAILED: i16 = 30;
/// The same for the cluster.
pub const CLUSTER_AUTHORIZATION_FAILED: i16 = 31;
/// The broker does not know the fetch session: clients begin a new one with all their topics.
pub const FETCH_SESSION_ID_NOT_FOUND: i16 = 70;
