//! How does a container run: once, again after its end, and until it is told to stop?

mod live;
mod output;

pub use live::Live;
pub use output::{log_folder, log_path, new_pipe, receiver};

use crate::backoff::{Backoff, restarts};
use crate::init::Program;
use crate::kubelet::{Node, lock};
use crate::plan::{self, Places, Refusal};
use crate::pod::{PodState, Prepared, fresh_id};
use crate::prober::{self, Verdict};
use crate::process::{Process, exit_code};
use crate::spawner::{Launch, Processes, Streams};
use crate::status::{Ended, State};
use crate::{Error, Result, While, cgroup, logs};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use output::copy_lines;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;
use tokio::sync::watch;

/// One container of one pod.
pub struct Task {
    /// The node.
    pub node: Arc<Node>,
    /// The pod.
    pub state: Arc<PodState>,
    /// What it is made from.
    pub prepared: Arc<Mutex<Prepared>>,
    /// Its spec.
    pub container: Container,
    /// When it is run again.
    pub policy: String,
    /// Whether the pod waits for its end.
    pub init: bool,
}

/// How one run ended.
enum Run {
    /// It could not begin.
    Refused { reason: &'static str, message: String },
    /// It ran.
    Over(Ended),
    /// The pod shall end.
    Stopped,
}

impl Task {
    /// Runs it until the pod ends, or it has ended for good; returns the last exit code.
    pub async fn run(self) -> Option<i32> {
        let mut backoff = Backoff::default();
        let mut stop = self.state.stopping();
        loop {
            if stop.borrow().is_some() {
                return None;
            }
            let began = Instant::now();
            let (wait, ran) = match self.once(&mut stop).await {
                Run::Stopped => return None,
                Run::Over(ended) => {
                    let code = ended.code;
                    if !restarts(&self.policy, code) {
                        return Some(code);
                    }
                    let wait = backoff.after_run(began.elapsed());
                    self.wait_after(ended, wait);
                    (wait, true)
                }
                Run::Refused { reason, message } => {
                    self.refuse(reason, message);
                    // What is missing may come: ask again soon, then less often.
                    let wait = backoff.after_run(Duration::ZERO);
                    (wait.clamp(Duration::from_secs(1), Duration::from_secs(20)), false)
                }
            };
            tokio::select! {
                biased;
                _ = stop.wait_for(Option::is_some) => return None,
                () = tokio::time::sleep(wait) => {}
            }
            if ran {
                self.state.with_container(&self.container.name, |c| c.restarts += 1);
            }
        }
    }

    fn pod(&self) -> Pod {
        self.state.object()
    }

    fn wait_after(&self, ended: Ended, wait: Duration) {
        let name = &self.container.name;
        let crash = !wait.is_zero();
        if crash {
            let pod = self.pod();
            let message = format!("Back-off restarting failed container {name} in pod {}", label(&pod));
            self.node.events.warning(&pod, "BackOff", message.clone());
        }
        self.state.with_container(name, |c| {
            c.last = Some(ended);
            if crash {
                let message = format!("back-off {} restarting failed container={name}", short(wait));
                c.state = State::Waiting { reason: "CrashLoopBackOff".into(), message: Some(message) };
            }
        });
    }

    fn refuse(&self, reason: &'static str, message: String) {
        let pod = self.pod();
        let (event, shown) = match reason {
            "ErrImagePull" => ("Failed", format!("Failed to pull image {:?}: {message}", self.image())),
            _ => ("Failed", format!("Error: {message}")),
        };
        self.node.events.warning(&pod, event, shown);
        let again = self.state.container(&self.container.name).is_some_and(
            |c| matches!(c.state, State::Waiting { reason, .. } if reason == "ErrImagePull" || reason == "ImagePullBackOff"),
        );
        let reason = if reason == "ErrImagePull" && again { "ImagePullBackOff" } else { reason };
        self.state.with_container(&self.container.name, |c| {
            c.state = State::Waiting { reason: reason.into(), message: Some(message) };
            c.ready = false;
            c.started = false;
        });
    }

    fn image(&self) -> &str {
        self.container.image.as_deref().unwrap_or_default()
    }

    async fn once(&self, stop: &mut watch::Receiver<Option<Duration>>) -> Run {
        let id = fresh_id();
        let scratch = self.node.settings.runtime.join("containers").join(&id);
        let run = self.once_in(&id, &scratch, stop).await;
        // The file system went with the container's mount namespace; only what it wrote is left.
        if let Err(error) = std::fs::remove_dir_all(&scratch)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, folder = %scratch.display(), "what a container wrote is not removed");
        }
        run
    }

    async fn once_in(&self, id: &str, scratch: &Path, stop: &mut watch::Receiver<Option<Duration>>) -> Run {
        let program = match self.program(scratch) {
            Ok(program) => program,
            Err(Refusal::Image(message)) => return Run::Refused { reason: "ErrImagePull", message },
            Err(Refusal::Configuration(message)) => {
                return Run::Refused { reason: "CreateContainerConfigError", message };
            }
        };
        match self.start(&program, scratch).await {
            Ok((process, output)) => self.running(id, &program, process, output, stop).await,
            Err(error) => Run::Refused { reason: "RunContainerError", message: error.to_string() },
        }
    }

    fn program(&self, scratch: &Path) -> std::result::Result<Program, Refusal> {
        let pod = self.pod();
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let folder = self.node.folder(&uid);
        let places = Places {
            lower: self.node.settings.lower.clone(),
            disks: self.node.settings.disks.clone(),
            commands: self.node.settings.runtime.join("bin"),
            volumes: folder.join("volumes"),
            etc: folder.join("etc"),
            scratch: scratch.into(),
        };
        let prepared = lock(&self.prepared).clone();
        let source = plan::Source {
            pod: &pod,
            container: &self.container,
            objects: &prepared.objects,
            facts: &prepared.facts,
            contents: &prepared.contents,
        };
        plan::program(&source, &places)
    }

    fn cgroup(&self) -> PathBuf {
        let uid = self.pod().metadata.uid.unwrap_or_default();
        plan::cgroup(&self.node.settings.cgroup, &uid, &self.container.name)
    }

    /// Starts the first process and waits until it has started the program.
    async fn start(&self, program: &Program, scratch: &Path) -> Result<(Process, Vec<OwnedFd>)> {
        std::fs::create_dir_all(scratch).while_doing(|| format!("create {}", scratch.display()))?;
        let file = scratch.join("program.json");
        let text = serde_json::to_vec(program).map_err(|e| Error::Invalid(e.to_string()))?;
        std::fs::write(&file, text).while_doing(|| format!("write {}", file.display()))?;
        let group = self.cgroup();
        cgroup::create(&group)?;
        let (output, output_end) = new_pipe()?;
        let (error, error_end) = new_pipe()?;
        let (report, report_end) = new_pipe()?;
        let host_pid = self.pod().spec.and_then(|s| s.host_pid) == Some(true);
        let child = self
            .node
            .spawner
            .spawn(Launch {
                args: vec!["lab-init".into(), file.into()],
                streams: Streams { input: None, output: Some(output_end), error: Some(error_end) },
                extra: Some(report_end),
                cgroup: Some(group),
                enter: self.state.namespaces()?,
                processes: if host_pid { Processes::Inherit } else { Processes::New },
                own_mounts: true,
                ..Launch::new(&self.node.settings.program)
            })
            .await?;
        let mut process = Process::new(child)?;
        let mut said = Vec::new();
        let mut report = receiver(report)?;
        report.read_to_end(&mut said).await.while_doing(|| "hear from a container's first process".into())?;
        if said == b"ok" {
            return Ok((process, vec![output, error]));
        }
        let status = process.wait().await?;
        let said = String::from_utf8_lossy(&said).into_owned();
        Err(Error::Invalid(if said.is_empty() { format!("its first process ended: {status}") } else { said }))
    }

    async fn running(
        &self,
        id: &str,
        program: &Program,
        mut process: Process,
        output: Vec<OwnedFd>,
        stop: &mut watch::Receiver<Option<Duration>>,
    ) -> Run {
        let pod = self.pod();
        let name = &self.container.name;
        let started = Timestamp::now();
        let live = Live {
            pid: process.id(),
            cgroup: self.cgroup(),
            env: program.env.clone(),
            directory: program.directory.clone(),
            user: program.user,
        };
        self.state.set_live(name, Some(live));
        let image = self.image();
        self.node.events.normal(&pod, "Pulled", format!("Container image {image:?} already present on machine"));
        self.node.events.normal(&pod, "Created", format!("Created container: {name}"));
        self.node.events.normal(&pod, "Started", format!("Started container {name}"));
        let no_probe = |probe: &Option<_>| probe.is_none();
        let starts_at_once = no_probe(&self.container.startup_probe);
        let ready_at_once = !self.init && starts_at_once && no_probe(&self.container.readiness_probe);
        self.state.with_container(name, |c| {
            c.state = State::Running(started);
            c.id = id.into();
            c.started = starts_at_once;
            c.ready = ready_at_once;
        });
        let pumps = self.pump(output);
        let reason = self.until_end(&mut process, stop).await;
        let status = process.wait().await;
        for pump in pumps {
            let _ = tokio::time::timeout(Duration::from_secs(2), pump).await;
        }
        self.state.set_live(name, None);
        let code = status.map_or(255, exit_code);
        let ended = Ended {
            code,
            reason: if code == 0 { "Completed" } else { "Error" }.into(),
            message: None,
            started,
            finished: Timestamp::now(),
            id: id.into(),
        };
        self.state.with_container(name, |c| {
            c.state = State::Ended(ended.clone());
            c.ready = false;
            c.started = false;
        });
        if reason == Stop::Pod { Run::Stopped } else { Run::Over(ended) }
    }

    /// Waits for the end, by itself or by us.
    async fn until_end(&self, process: &mut Process, stop: &mut watch::Receiver<Option<Duration>>) -> Stop {
        let probes = prober::watch(&self.node, &self.state, &self.container);
        tokio::pin!(probes);
        let liveness = tokio::select! {
            biased;
            _ = process.wait() => return Stop::Itself,
            _ = stop.wait_for(Option::is_some) => None,
            verdict = &mut probes => Some(verdict),
        };
        let pod = self.pod();
        let name = &self.container.name;
        let why = match &liveness {
            None => format!("Stopping container {name}"),
            Some(Verdict { kind, .. }) => format!("Container {name} failed {kind} probe, will be restarted"),
        };
        self.node.events.normal(&pod, "Killing", why);
        process.signal(libc::SIGTERM);
        let own = pod.spec.as_ref().and_then(|s| s.termination_grace_period_seconds).unwrap_or(30);
        let mut grace = Duration::from_secs(u64::try_from(own).unwrap_or(0));
        let began = tokio::time::Instant::now();
        loop {
            if let Some(wanted) = *stop.borrow_and_update() {
                grace = grace.min(wanted);
            }
            tokio::select! {
                _ = process.wait() => break,
                () = tokio::time::sleep_until(began + grace) => {
                    process.signal(libc::SIGKILL);
                    cgroup::kill(&self.cgroup());
                    break;
                }
                changed = stop.changed() => if changed.is_err() { break },
            }
        }
        if liveness.is_some() && stop.borrow().is_none() { Stop::Probe } else { Stop::Pod }
    }

    /// Copies what it writes into its log.
    fn pump(&self, output: Vec<OwnedFd>) -> Vec<tokio::task::JoinHandle<()>> {
        let restarts = self.state.container(&self.container.name).map_or(0, |c| c.restarts);
        let path = log_path(&self.pod(), &self.container.name, restarts);
        let writer = match logs::Writer::create(&path) {
            Ok(writer) => Arc::new(Mutex::new(writer)),
            Err(error) => {
                tracing::error!(%error, "container without log");
                return Vec::new();
            }
        };
        ["stdout", "stderr"]
            .into_iter()
            .zip(output)
            .map(|(stream, fd)| tokio::spawn(copy_lines(fd, stream, writer.clone())))
            .collect()
    }
}

#[derive(PartialEq, Eq)]
enum Stop {
    Itself,
    Probe,
    Pod,
}

fn label(pod: &Pod) -> String {
    let part = |value: &Option<String>| value.clone().unwrap_or_default();
    format!("{}_{}({})", part(&pod.metadata.name), part(&pod.metadata.namespace), part(&pod.metadata.uid))
}

/// `1m20s`.
fn short(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 60, seconds % 60) {
        (0, s) => format!("{s}s"),
        (m, s) => format!("{m}m{s}s"),
    }
}
