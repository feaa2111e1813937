//! Does a pod count: is it active, ready, available, and which one goes first?

use serde_json::Value;

use crate::read;

/// Neither ended nor on its way out.
pub fn is_active(pod: &Value) -> bool {
    !read::is_deleting(pod) && !has_ended(pod)
}

pub fn has_ended(pod: &Value) -> bool {
    matches!(read::text(pod, "/status/phase"), "Succeeded" | "Failed")
}

pub fn is_ready(pod: &Value) -> bool {
    read::condition(pod, "Ready").is_some_and(|one| one["status"] == "True")
}

/// Ready for at least that many seconds.
pub fn is_available(pod: &Value, seconds: i64, now: jiff::Timestamp) -> bool {
    if !is_ready(pod) || seconds == 0 {
        return is_ready(pod);
    }
    let since = read::condition(pod, "Ready").and_then(|one| read::time(one, "/lastTransitionTime"));
    since.is_some_and(|since| now.as_second() - since.as_second() >= seconds)
}

/// Smaller ones are deleted first: without node, not running, not ready, younger.
pub fn worth(pod: &Value) -> (bool, u8, bool, std::cmp::Reverse<String>) {
    let phase = match read::text(pod, "/status/phase") {
        "Running" => 2,
        "Unknown" => 1,
        _ => 0,
    };
    let created = read::text(pod, "/metadata/creationTimestamp").to_owned();
    (!read::text(pod, "/spec/nodeName").is_empty(), phase, is_ready(pod), std::cmp::Reverse(created))
}
