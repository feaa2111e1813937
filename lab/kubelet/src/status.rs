//! What does the API show of a pod, given how its containers are?

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus, HostIP,
    Pod, PodCondition, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::collections::BTreeMap;

/// A run that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Exit code, or 128 + signal.
    pub code: i32,
    /// One word.
    pub reason: String,
    /// More, if there is more to say.
    pub message: Option<String>,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Timestamp,
    /// Identifies the run.
    pub id: String,
}

/// How a container is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Not running yet or again.
    Waiting {
        /// One word.
        reason: String,
        /// More, if there is more to say.
        message: Option<String>,
    },
    /// Running since then.
    Running(Timestamp),
    /// Over.
    Ended(Ended),
}

/// A container as the kubelet knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runtime {
    /// How it is.
    pub state: State,
    /// The run before.
    pub last: Option<Ended>,
    /// How often it was started again.
    pub restarts: i32,
    /// Whether its readiness probe is good (or it has none and runs).
    pub ready: bool,
    /// Whether its startup probe was good (or it has none and runs).
    pub started: bool,
    /// Identifies the run.
    pub id: String,
}

impl Runtime {
    /// Before the first run.
    pub fn new(reason: &str) -> Runtime {
        Runtime {
            state: State::Waiting { reason: reason.into(), message: None },
            last: None,
            restarts: 0,
            ready: false,
            started: false,
            id: String::new(),
        }
    }

    fn ended(&self) -> Option<&Ended> {
        match &self.state {
            State::Ended(ended) => Some(ended),
            State::Waiting { .. } | State::Running(_) => None,
        }
    }
}

/// Everything that a pod's status is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Containers and init containers by name.
    pub containers: BTreeMap<String, Runtime>,
    /// Whether all init containers are done.
    pub initialized: bool,
    /// Whether namespaces and network are there.
    pub sandbox: bool,
    /// The pod's addresses.
    pub pod_ips: Vec<String>,
    /// The node's addresses.
    pub host_ips: Vec<String>,
    /// When the kubelet took the pod.
    pub start: Option<Timestamp>,
    /// Set if the pod ended as a whole: phase, reason, message.
    pub finished: Option<(String, String, String)>,
}

/// The status of a pod; conditions that did not change keep their times.
pub fn of(pod: &Pod, facts: &Facts, now: Timestamp) -> PodStatus {
    let spec = pod.spec.clone().unwrap_or_default();
    let old = pod.status.clone().unwrap_or_default();
    let inits = spec.init_containers.clone().unwrap_or_default();
    let status_of = |c: &k8s_openapi::api::core::v1::Container, init: bool| {
        let runtime = facts.containers.get(&c.name).cloned().unwrap_or_else(|| Runtime::new("PodInitializing"));
        container(&c.name, c.image.as_deref().unwrap_or_default(), &runtime, init)
    };
    let containers: Vec<ContainerStatus> = spec.containers.iter().map(|c| status_of(c, false)).collect();
    let init: Vec<ContainerStatus> = inits.iter().map(|c| status_of(c, true)).collect();
    let phase = phase(&spec.containers, facts, spec.restart_policy.as_deref().unwrap_or("Always"));
    let over = phase == "Succeeded" || phase == "Failed";
    let unready: Vec<&str> = containers.iter().filter(|c| !c.ready).map(|c| c.name.as_str()).collect();
    let ready = if over { Err(("PodCompleted", String::new())) } else { all_ready(&unready) };
    let uninitialized: Vec<&str> = init.iter().filter(|c| !c.ready).map(|c| c.name.as_str()).collect();
    let initialized = if facts.initialized {
        Ok(())
    } else {
        Err(("ContainersNotInitialized", format!("containers with incomplete status: [{}]", uninitialized.join(" "))))
    };
    let sandbox = if facts.sandbox && !over { Ok(()) } else { Err(("", String::new())) };
    let mut conditions = vec![
        condition(&old, "PodReadyToStartContainers", sandbox, now),
        condition(&old, "Initialized", initialized, now),
        condition(&old, "Ready", ready.clone(), now),
        condition(&old, "ContainersReady", ready, now),
    ];
    conditions.push(condition(&old, "PodScheduled", Ok(()), now));
    let ip = |list: &[String]| list.first().cloned();
    PodStatus {
        phase: Some(phase),
        conditions: Some(conditions),
        container_statuses: Some(containers),
        init_container_statuses: (!init.is_empty()).then_some(init),
        pod_ip: ip(&facts.pod_ips),
        pod_ips: (!facts.pod_ips.is_empty()).then(|| facts.pod_ips.iter().map(|i| PodIP { ip: i.clone() }).collect()),
        host_ip: ip(&facts.host_ips),
        host_ips: Some(facts.host_ips.iter().map(|i| HostIP { ip: i.clone() }).collect()),
        start_time: facts.start.map(Time),
        qos_class: Some(old.qos_class.clone().unwrap_or_else(|| "BestEffort".into())),
        reason: facts.finished.as_ref().map(|(_, reason, _)| reason.clone()),
        message: facts.finished.as_ref().map(|(_, _, message)| message.clone()),
        ..PodStatus::default()
    }
}

fn all_ready(unready: &[&str]) -> Result<(), (&'static str, String)> {
    if unready.is_empty() {
        return Ok(());
    }
    Err(("ContainersNotReady", format!("containers with unready status: [{}]", unready.join(" "))))
}

fn phase(containers: &[k8s_openapi::api::core::v1::Container], facts: &Facts, policy: &str) -> String {
    if let Some((phase, _, _)) = &facts.finished {
        return phase.clone();
    }
    let states: Vec<Option<&Runtime>> = containers.iter().map(|c| facts.containers.get(&c.name)).collect();
    let final_codes: Vec<i32> = states
        .iter()
        .filter_map(|r| r.and_then(Runtime::ended))
        .map(|e| e.code)
        .filter(|code| !crate::backoff::restarts(policy, *code))
        .collect();
    if !states.is_empty() && final_codes.len() == states.len() {
        return if final_codes.iter().all(|c| *c == 0) { "Succeeded" } else { "Failed" }.into();
    }
    let ran = |r: &&Option<&Runtime>| r.is_some_and(|r| r.last.is_some() || !matches!(r.state, State::Waiting { .. }));
    if facts.initialized && states.iter().any(|r| ran(&r)) { "Running".into() } else { "Pending".into() }
}

fn container(name: &str, image: &str, runtime: &Runtime, init: bool) -> ContainerStatus {
    let done = init && runtime.ended().is_some_and(|e| e.code == 0);
    ContainerStatus {
        name: name.into(),
        image: image.into(),
        image_id: if runtime.id.is_empty() { String::new() } else { image.into() },
        container_id: (!runtime.id.is_empty()).then(|| format!("axoneme://{}", runtime.id)),
        ready: runtime.ready || done,
        started: Some(runtime.started),
        restart_count: runtime.restarts,
        state: Some(state(&runtime.state)),
        last_state: runtime.last.as_ref().map(|e| state(&State::Ended(e.clone()))),
        ..ContainerStatus::default()
    }
}

fn state(state: &State) -> ContainerState {
    match state {
        State::Waiting { reason, message } => ContainerState {
            waiting: Some(ContainerStateWaiting { reason: Some(reason.clone()), message: message.clone() }),
            ..ContainerState::default()
        },
        State::Running(since) => ContainerState {
            running: Some(ContainerStateRunning { started_at: Some(Time(*since)) }),
            ..ContainerState::default()
        },
        State::Ended(ended) => ContainerState {
            terminated: Some(ContainerStateTerminated {
                exit_code: ended.code,
                reason: Some(ended.reason.clone()),
                message: ended.message.clone(),
                started_at: Some(Time(ended.started)),
                finished_at: Some(Time(ended.finished)),
                container_id: Some(format!("axoneme://{}", ended.id)),
                signal: None,
            }),
            ..ContainerState::default()
        },
    }
}

/// A condition; its time moves only when its status does.
fn condition(old: &PodStatus, kind: &str, met: Result<(), (&str, String)>, now: Timestamp) -> PodCondition {
    let status = if met.is_ok() { "True" } else { "False" };
    let before = old.conditions.iter().flatten().find(|c| c.type_ == kind);
    let since = before.filter(|c| c.status == status).and_then(|c| c.last_transition_time.clone());
    let (reason, message) = met.err().unwrap_or(("", String::new()));
    PodCondition {
        type_: kind.into(),
        status: status.into(),
        reason: (!reason.is_empty()).then(|| reason.into()),
        message: (!message.is_empty()).then_some(message),
        last_transition_time: Some(since.unwrap_or(Time(now))),
        ..PodCondition::default()
    }
}

/// What to take over from the status that an earlier kubelet left: its containers are gone with it.
pub fn inherited(pod: &Pod, now: Timestamp) -> BTreeMap<String, Runtime> {
    let statuses = pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten());
    statuses
        .filter(|s| s.container_id.is_some())
        .map(|s| {
            let id = s.container_id.clone().unwrap_or_default().trim_start_matches("axoneme://").to_string();
            let started = s.state.as_ref().and_then(|s| s.running.as_ref()?.started_at.as_ref()).map_or(now, |t| t.0);
            let message = Some("the kubelet that ran it has ended".to_string());
            let last = Ended { code: 137, reason: "Error".into(), message, started, finished: now, id };
            let runtime =
                Runtime { last: Some(last), restarts: s.restart_count + 1, ..Runtime::new("ContainerCreating") };
            (s.name.clone(), runtime)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn pod(policy: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p"},
            "spec": {"restartPolicy": policy, "containers": [{"name": "a", "image": "web"}]}
        }))
        .unwrap()
    }

    fn facts(state: State, ready: bool) -> Facts {
        let runtime = Runtime { state, ready, started: ready, id: "x".into(), ..Runtime::new("") };
        Facts { containers: [("a".to_string(), runtime)].into(), initialized: true, sandbox: true, ..Facts::default() }
    }

    fn ended(code: i32) -> State {
        let at = Timestamp::UNIX_EPOCH;
        State::Ended(Ended { code, reason: "x".into(), message: None, started: at, finished: at, id: "x".into() })
    }

    fn condition_of(status: &PodStatus, kind: &str) -> String {
        status.conditions.iter().flatten().find(|c| c.type_ == kind).unwrap().status.clone()
    }

    #[test]
    fn phases_follow_containers_and_policy() {
        let now = Timestamp::UNIX_EPOCH;
        let phase = |policy, state, ready| of(&pod(policy), &facts(state, ready), now).phase.unwrap();
        assert_eq!(phase("Always", State::Running(now), true), "Running");
        assert_eq!(phase("Always", ended(1), false), "Running");
        assert_eq!(phase("Never", ended(1), false), "Failed");
        assert_eq!(phase("OnFailure", ended(0), false), "Succeeded");
        assert_eq!(phase("OnFailure", ended(1), false), "Running");
        let waiting = State::Waiting { reason: "ContainerCreating".into(), message: None };
        assert_eq!(phase("Always", waiting, false), "Pending");
    }

    #[test]
    fn readiness_is_the_containers_and_keeps_its_time() {
        let first = Timestamp::UNIX_EPOCH;
        let mut subject = pod("Always");
        let status = of(&subject, &facts(State::Running(first), true), first);
        assert_eq!(condition_of(&status, "Ready"), "True");
        subject.status = Some(status.clone());
        let later = Timestamp::from_second(100).unwrap();
        assert_eq!(of(&subject, &facts(State::Running(first), true), later), PodStatus { ..status });
        let unready = of(&subject, &facts(State::Running(first), false), later);
        let ready = unready.conditions.iter().flatten().find(|c| c.type_ == "Ready").unwrap();
        assert_eq!(ready.last_transition_time, Some(Time(later)));
        assert_eq!(ready.message.as_deref(), Some("containers with unready status: [a]"));
    }

    #[test]
    fn a_new_kubelet_counts_the_lost_run() {
        let now = Timestamp::UNIX_EPOCH;
        let mut subject = pod("Always");
        subject.status = Some(of(&subject, &facts(State::Running(now), true), now));
        let taken = inherited(&subject, now);
        assert_eq!(taken["a"].restarts, 1);
        assert_eq!(taken["a"].last.as_ref().unwrap().code, 137);
    }
}
