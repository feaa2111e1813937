//! How many pods must a job still run, and is it done?

use std::sync::Arc;

use serde_json::{Value, json};

use crate::action::{Action, delete, tell, warn};
use crate::view::{Kind, View};
use crate::{pods, read, template};

const COMPONENT: &str = "job-controller";
/// Pause after the first failed pod; each further one doubles it.
const FIRST_PAUSE: i64 = 10;
const LONGEST_PAUSE: i64 = 360;

pub fn plan(view: &View, now: jiff::Timestamp) -> Vec<Action> {
    let owned = view.by_controller(Kind::Pod);
    let empty = Vec::new();
    let jobs = view.all(Kind::Job).filter(|job| !read::is_deleting(job));
    jobs.flat_map(|job| of_job(job, owned.get(read::uid(job)).unwrap_or(&empty), now)).collect()
}

/// What became of a job's pods.
struct Tally<'a> {
    active: Vec<&'a Arc<Value>>,
    succeeded: i64,
    failed: i64,
    last_failure: i64,
}

impl<'a> Tally<'a> {
    fn new(job: &Value, owned: &[&'a Arc<Value>]) -> Self {
        let ended = |phase: &str| owned.iter().filter(move |pod| read::text(pod, "/status/phase") == phase).count();
        // Pods that were counted may have been removed since.
        let count = |phase, field| i64::try_from(ended(phase)).unwrap_or(0).max(read::number(job, field, 0));
        let failures = owned.iter().filter(|pod| read::text(pod, "/status/phase") == "Failed");
        Tally {
            active: owned.iter().copied().filter(|pod| pods::is_active(pod)).collect(),
            succeeded: count("Succeeded", "/status/succeeded"),
            failed: count("Failed", "/status/failed"),
            last_failure: failures.map(|pod| ended_at(pod)).max().unwrap_or(0),
        }
    }
}

fn ended_at(pod: &Value) -> i64 {
    let statuses = read::list(pod, "/status/containerStatuses").iter();
    let times = statuses.filter_map(|one| read::time(one, "/state/terminated/finishedAt"));
    times.map(jiff::Timestamp::as_second).max().unwrap_or(0)
}

/// How a job ended: condition, reason, message.
type End = (&'static str, &'static str, &'static str);

fn of_job(job: &Value, owned: &[&Arc<Value>], now: jiff::Timestamp) -> Vec<Action> {
    let tally = Tally::new(job, owned);
    if is_over(job) {
        return after_the_end(job, &tally, now);
    }
    let end = end(job, &tally, now);
    let mut actions = Vec::new();
    if end.is_some() || job["spec"]["suspend"] == true {
        actions.extend(tally.active.iter().map(|pod| delete(Kind::Pod, pod)));
    } else {
        actions.extend(missing(job, &tally, now));
    }
    match end {
        Some(("Complete", ..)) => actions.push(tell(COMPONENT, job, "Completed", "Job completed".into())),
        Some((_, reason, message)) => actions.push(warn(COMPONENT, job, reason, message.into())),
        None => {}
    }
    actions.extend(status(job, &tally, end, now));
    actions
}

fn is_over(job: &Value) -> bool {
    ["Complete", "Failed"].iter().any(|kind| read::condition(job, kind).is_some_and(|one| one["status"] == "True"))
}

fn after_the_end(job: &Value, tally: &Tally<'_>, now: jiff::Timestamp) -> Vec<Action> {
    let ended = read::list(job, "/status/conditions").iter().filter_map(|one| read::time(one, "/lastTransitionTime"));
    let over = |limit: i64| ended.max().is_some_and(|ended| now.as_second() - ended.as_second() >= limit);
    match job["spec"]["ttlSecondsAfterFinished"].as_i64() {
        Some(limit) if over(limit) => vec![delete(Kind::Job, job)],
        _ => tally.active.iter().map(|pod| delete(Kind::Pod, pod)).collect(),
    }
}

fn end(job: &Value, tally: &Tally<'_>, now: jiff::Timestamp) -> Option<End> {
    let deadline = job["spec"]["activeDeadlineSeconds"].as_i64();
    let started = read::time(job, "/status/startTime");
    let late = deadline.zip(started).is_some_and(|(limit, start)| now.as_second() - start.as_second() >= limit);
    if late {
        return Some(("Failed", "DeadlineExceeded", "Job was active longer than specified deadline"));
    }
    if tally.failed > read::number(job, "/spec/backoffLimit", 6) {
        return Some(("Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit"));
    }
    let done = match job["spec"]["completions"].as_i64() {
        Some(wanted) => tally.succeeded >= wanted,
        // Without a number the first success ends it, when the others have ended too.
        None => tally.succeeded > 0 && tally.active.is_empty(),
    };
    done.then_some(("Complete", "CompletionsReached", "Reached expected number of succeeded pods"))
}

fn missing(job: &Value, tally: &Tally<'_>, now: jiff::Timestamp) -> Vec<Action> {
    let active = i64::try_from(tally.active.len()).unwrap_or(i64::MAX);
    let parallel = read::number(job, "/spec/parallelism", 1);
    let wanted = match job["spec"]["completions"].as_i64() {
        Some(completions) => parallel.min(completions - tally.succeeded),
        None if tally.succeeded > 0 => active,
        None => parallel,
    };
    if active > wanted {
        let surplus = usize::try_from(active - wanted.max(0)).unwrap_or(0);
        return tally.active.iter().rev().take(surplus).map(|pod| delete(Kind::Pod, pod)).collect();
    }
    if tally.failed > 0 && now.as_second() < tally.last_failure + pause(tally.failed) {
        return Vec::new();
    }
    let pod = template::pod(job, &job["spec"]["template"]);
    (active..wanted).map(|_| Action::Create(Kind::Pod, pod.clone())).collect()
}

fn pause(failures: i64) -> i64 {
    let doublings = u32::try_from(failures - 1).unwrap_or(0).min(10);
    FIRST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE)
}

fn status(job: &Value, tally: &Tally<'_>, end: Option<End>, now: jiff::Timestamp) -> Option<Action> {
    let stamp = read::stamp(now);
    let active = if end.is_some() { 0 } else { tally.active.len() };
    let mut wanted = json!({
        "ready": tally.active.iter().filter(|pod| pods::is_ready(pod)).count(),
        "startTime": job["status"].get("startTime").cloned().unwrap_or_else(|| stamp.as_str().into()),
        "terminating": 0,
    });
    let counts = [("active", active as i64), ("succeeded", tally.succeeded), ("failed", tally.failed)];
    for (field, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
        wanted[field] = count.into();
    }
    let condition = |kind: &str, reason: &str, message: &str| {
        json!({"type": kind, "status": "True", "reason": reason, "message": message,
            "lastProbeTime": stamp, "lastTransitionTime": stamp})
    };
    if let Some((kind, reason, message)) = end {
        wanted["conditions"] = json!([condition(kind, reason, message)]);
        wanted["ready"] = 0.into();
        if kind == "Complete" {
            wanted["completionTime"] = stamp.as_str().into();
        }
    } else if job["spec"]["suspend"] == true {
        let known = read::condition(job, "Suspended").cloned();
        wanted["conditions"] =
            json!([known.unwrap_or_else(|| condition("Suspended", "JobSuspended", "Job suspended"))]);
    }
    (job.get("status") != Some(&wanted)).then(|| {
        let mut changed = job.clone();
        changed["status"] = wanted;
        Action::ReplaceStatus(Kind::Job, changed)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(spec: Value) -> Value {
        let mut job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"namespace": "n", "name": "j", "uid": "j"},
            "spec": {"parallelism": 1, "completions": 1, "backoffLimit": 1, "template": {"metadata": {}, "spec": {}}}});
        for (field, value) in spec.as_object().into_iter().flatten() {
            job["spec"][field] = value.clone();
        }
        job
    }

    fn pod(name: &str, phase: &str) -> Value {
        json!({"metadata": {"namespace": "n", "name": name, "uid": name, "ownerReferences": [{"uid": "j", "controller": true}]},
            "status": {"phase": phase, "containerStatuses": [{"state": {"terminated": {"finishedAt": "1970-01-01T00:01:40Z"}}}]}})
    }

    /// Pods made, pods deleted, and the condition that the job gets, at a second.
    fn run(job: &Value, pods: &[Value], second: i64) -> (usize, usize, String) {
        let mut view = View::default();
        view.put(Kind::Job, job.clone());
        for pod in pods {
            view.put(Kind::Pod, pod.clone());
        }
        let (mut made, mut gone, mut condition) = (0, 0, String::new());
        for action in plan(&view, jiff::Timestamp::from_second(second).unwrap_or_default()) {
            match action {
                Action::Create(..) => made += 1,
                Action::Delete { .. } => gone += 1,
                Action::ReplaceStatus(_, job) => condition = read::text(&job, "/status/conditions/0/type").to_owned(),
                _ => {}
            }
        }
        (made, gone, condition)
    }

    #[test]
    fn pods_run_until_enough_have_succeeded() {
        let three = job(json!({"parallelism": 2, "completions": 3}));
        assert_eq!(run(&three, &[], 0), (2, 0, String::new()));
        assert_eq!(run(&three, &[pod("a", "Running"), pod("b", "Succeeded")], 0), (1, 0, String::new()));
        let (a, b) = (pod("a", "Succeeded"), pod("b", "Succeeded"));
        assert_eq!(run(&three, &[a.clone(), b.clone()], 0), (1, 0, String::new()));
        assert_eq!(run(&three, &[a, b, pod("c", "Succeeded")], 0), (0, 0, "Complete".into()));
    }

    #[test]
    fn failures_are_tried_again_later_and_too_many_end_it() {
        let one = job(json!({}));
        assert_eq!(run(&one, &[pod("a", "Failed")], 105), (0, 0, String::new()));
        assert_eq!(run(&one, &[pod("a", "Failed")], 111), (1, 0, String::new()));
        assert_eq!(run(&one, &[pod("a", "Failed"), pod("b", "Failed")], 500), (0, 0, "Failed".into()));
        assert_eq!([1, 2, 3, 9].map(pause), [10, 20, 40, 360]);
    }

    #[test]
    fn a_suspended_job_runs_nothing_and_one_that_is_over_goes_after_its_time() {
        let suspended = job(json!({"suspend": true}));
        assert_eq!(run(&suspended, &[pod("a", "Running")], 0), (0, 1, "Suspended".into()));
        let mut over = job(json!({"ttlSecondsAfterFinished": 60}));
        let time = "1970-01-01T00:00:10Z";
        over["status"] = json!({"conditions": [{"type": "Complete", "status": "True", "lastTransitionTime": time}]});
        assert_eq!(run(&over, &[], 30), (0, 0, String::new()));
        assert_eq!(run(&over, &[], 70), (0, 1, String::new()));
        let late = job(json!({"activeDeadlineSeconds": 5}));
        let mut late = late.clone();
        late["status"] = json!({"startTime": "1970-01-01T00:00:00Z"});
        assert_eq!(run(&late, &[pod("a", "Running")], 6), (0, 1, "Failed".into()));
    }
}
