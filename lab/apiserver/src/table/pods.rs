//! Pods in tables: what state is a pod in, as one word?

use serde_json::{Value, json};

use super::{AGE, Column, NAME, age, or_none, since};
use crate::meta;

pub fn layout(collection: &str) -> Option<&'static [Column]> {
    (collection == "pods").then_some(&[
        NAME,
        ("Ready", "string", 0),
        ("Status", "string", 0),
        ("Restarts", "string", 0),
        AGE,
        ("IP", "string", 1),
        ("Node", "string", 1),
        ("Nominated Node", "string", 1),
        ("Readiness Gates", "string", 1),
    ])
}

pub fn cells(collection: &str, pod: &Value, now: jiff::Timestamp) -> Option<Vec<Value>> {
    if collection != "pods" {
        return None;
    }
    let statuses = meta::list(pod, "/status/containerStatuses");
    let ready = statuses.iter().filter(|one| one["ready"] == true && !one["state"]["running"].is_null()).count();
    let total = meta::list(pod, "/spec/containers").len();
    let ip = meta::list(pod, "/status/podIPs").first().and_then(|one| one["ip"].as_str());
    let ip = ip.unwrap_or_else(|| meta::text(pod, "/status/podIP"));
    Some(vec![
        json!(meta::name(pod)),
        json!(format!("{ready}/{total}")),
        json!(reason(pod)),
        json!(restarts(pod, now)),
        age(pod, now),
        json!(or_none(ip.to_owned())),
        json!(or_none(meta::text(pod, "/spec/nodeName").to_owned())),
        json!(or_none(meta::text(pod, "/status/nominatedNodeName").to_owned())),
        json!(gates(pod)),
    ])
}

fn gates(pod: &Value) -> String {
    let gates = meta::list(pod, "/spec/readinessGates");
    let holds = |kind: &Value| {
        meta::list(pod, "/status/conditions").iter().any(|one| one["type"] == *kind && one["status"] == "True")
    };
    let held = gates.iter().filter(|gate| holds(&gate["conditionType"])).count();
    if gates.is_empty() { "<none>".to_owned() } else { format!("{held}/{}", gates.len()) }
}

fn restarts(pod: &Value, now: jiff::Timestamp) -> String {
    let mut count = 0;
    let mut last = "";
    let containers = meta::list(pod, "/status/containerStatuses").iter();
    for status in
        containers.chain(meta::list(pod, "/status/initContainerStatuses").iter().filter(|one| one["ready"] != true))
    {
        count += status["restartCount"].as_i64().unwrap_or(0);
        last = last.max(meta::text(status, "/lastState/terminated/finishedAt"));
    }
    if count == 0 || last.is_empty() { count.to_string() } else { format!("{count} ({} ago)", since(last, now)) }
}

/// Why a container is not running, as a word.
fn trouble(state: &Value) -> Option<String> {
    let waiting = meta::text(state, "/waiting/reason");
    if !waiting.is_empty() {
        return Some(waiting.to_owned());
    }
    let ended = state.get("terminated").filter(|ended| ended.is_object())?;
    if let Some(reason) = ended["reason"].as_str().filter(|reason| !reason.is_empty()) {
        return Some(reason.to_owned());
    }
    let signal = ended["signal"].as_i64().unwrap_or(0);
    Some(if signal != 0 { format!("Signal:{signal}") } else { format!("ExitCode:{}", ended["exitCode"]) })
}

fn initializing(pod: &Value) -> Option<String> {
    let total = meta::list(pod, "/spec/initContainers").len();
    let statuses = meta::list(pod, "/status/initContainerStatuses");
    for (index, status) in statuses.iter().enumerate() {
        let state = &status["state"];
        let done = state["terminated"].is_object() && state["terminated"]["exitCode"] == 0;
        if done || (status["started"] == true && status["ready"] == true) {
            continue;
        }
        return Some(match trouble(state) {
            Some(reason) if reason != "PodInitializing" => format!("Init:{reason}"),
            _ => format!("Init:{index}/{total}"),
        });
    }
    None
}

/// The word under STATUS.
pub fn reason(pod: &Value) -> String {
    let phase = meta::text(pod, "/status/phase");
    let own = meta::text(pod, "/status/reason");
    let mut reason = if own.is_empty() { phase } else { own }.to_owned();
    let gated = meta::list(pod, "/status/conditions")
        .iter()
        .any(|one| one["type"] == "PodScheduled" && one["reason"] == "SchedulingGated");
    if gated {
        reason = "SchedulingGated".to_owned();
    }
    let init = initializing(pod);
    if let Some(init) = &init {
        reason.clone_from(init);
    } else {
        let mut running = false;
        for status in meta::list(pod, "/status/containerStatuses").iter().rev() {
            match trouble(&status["state"]) {
                Some(found) => reason = found,
                None => running |= status["ready"] == true && status["state"]["running"].is_object(),
            }
        }
        if reason == "Completed" && running {
            let ready = meta::list(pod, "/status/conditions")
                .iter()
                .any(|one| one["type"] == "Ready" && one["status"] == "True");
            reason = if ready { "Running" } else { "NotReady" }.to_owned();
        }
    }
    if meta::is_deleting(pod) {
        if own == "NodeLost" {
            return "Unknown".to_owned();
        }
        if !matches!(phase, "Succeeded" | "Failed") {
            return "Terminating".to_owned();
        }
    }
    reason
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(status: Value, expected: &str) {
        assert_eq!(reason(&json!({"status": status})), expected);
    }

    #[test]
    fn the_status_word_tells_what_is_wrong() {
        check(json!({"phase": "Pending"}), "Pending");
        check(
            json!({"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}]}),
            "ContainerCreating",
        );
        check(
            json!({"phase": "Running", "containerStatuses": [{"state": {"terminated": {"exitCode": 1, "reason": "Error"}}}]}),
            "Error",
        );
        check(json!({"phase": "Running", "containerStatuses": [{"ready": true, "state": {"running": {}}}]}), "Running");
        check(json!({"phase": "Pending", "initContainerStatuses": [{"state": {"running": {}}}]}), "Init:0/0");
        check(json!({"phase": "Failed", "reason": "Evicted"}), "Evicted");
        assert_eq!(
            reason(&json!({"metadata": {"deletionTimestamp": "x"}, "status": {"phase": "Running"}})),
            "Terminating"
        );
    }

    #[test]
    fn restarts_tell_when_the_last_one_was() {
        let pod = json!({"status": {"containerStatuses": [{"restartCount": 2, "lastState": {"terminated": {"finishedAt": "1970-01-01T00:00:00Z"}}}]}});
        assert_eq!(restarts(&pod, jiff::Timestamp::from_second(47).unwrap_or_default()), "2 (47s ago)");
    }
}
