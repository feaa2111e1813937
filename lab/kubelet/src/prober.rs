//! How are probes asked, and what follows from their answers?

use crate::container::{new_pipe, receiver};
use crate::kubelet::Node;
use crate::pod::PodState;
use crate::probe::{Judgement, Series, Timing};
use crate::process::{Process, exit_code};
use crate::spawner::Streams;
use k8s_openapi::api::core::v1::{Container, ContainerPort, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::net::IpAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Why a container must be restarted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// `liveness` or `startup`.
    pub kind: &'static str,
    /// What the last answer was.
    pub reason: String,
}

/// An answer: good, or why not.
type Answer = Result<(), String>;

/// Asks all probes of a container as long as it runs; returns when it must be restarted.
pub async fn watch(node: &Node, state: &PodState, container: &Container) -> Verdict {
    let asker = Asker { node, state, container };
    if let Some(probe) = &container.startup_probe {
        if let Some(verdict) = asker.until_bad(probe, "startup").await {
            return verdict;
        }
        let ready = container.readiness_probe.is_none();
        state.with_container(&container.name, |c| {
            c.started = true;
            c.ready = ready;
        });
    }
    tokio::select! {
        verdict = asker.liveness() => verdict,
        never = asker.readiness() => never,
    }
}

struct Asker<'a> {
    node: &'a Node,
    state: &'a PodState,
    container: &'a Container,
}

impl Asker<'_> {
    /// Asks until it is known: bad gives a verdict, good none.
    async fn until_bad(&self, probe: &Probe, kind: &'static str) -> Option<Verdict> {
        let timing = Timing::from(probe);
        let mut series = Series::new(&timing);
        tokio::time::sleep(timing.initial_delay).await;
        loop {
            let answer = self.ask(probe, &timing).await;
            self.note(kind, &answer);
            match series.answer(answer.is_ok()) {
                Judgement::Good => return None,
                Judgement::Bad => return Some(Verdict { kind, reason: answer.err().unwrap_or_default() }),
                Judgement::Open => {}
            }
            tokio::time::sleep(timing.period).await;
        }
    }

    async fn liveness(&self) -> Verdict {
        let Some(probe) = &self.container.liveness_probe else { return std::future::pending().await };
        let timing = Timing::from(probe);
        let mut series = Series::new(&timing);
        tokio::time::sleep(timing.initial_delay).await;
        loop {
            let answer = self.ask(probe, &timing).await;
            self.note("Liveness", &answer);
            if series.answer(answer.is_ok()) == Judgement::Bad {
                return Verdict { kind: "liveness", reason: answer.err().unwrap_or_default() };
            }
            tokio::time::sleep(timing.period).await;
        }
    }

    async fn readiness(&self) -> Verdict {
        let Some(probe) = &self.container.readiness_probe else { return std::future::pending().await };
        let timing = Timing::from(probe);
        let mut series = Series::new(&timing);
        tokio::time::sleep(timing.initial_delay).await;
        let mut known = false;
        loop {
            let answer = self.ask(probe, &timing).await;
            self.note("Readiness", &answer);
            match series.answer(answer.is_ok()) {
                Judgement::Good => known = self.ready(true),
                Judgement::Bad => known = self.ready(false) || known,
                Judgement::Open => {}
            }
            // Until the first good answer the question is cheap and its answer awaited.
            let soon = std::time::Duration::from_millis(500);
            tokio::time::sleep(if known { timing.period } else { timing.period.min(soon) }).await;
        }
    }

    /// Returns whether it has become ready.
    fn ready(&self, ready: bool) -> bool {
        let now = self.state.container(&self.container.name).map(|c| c.ready);
        if now != Some(ready) {
            self.state.with_container(&self.container.name, |c| c.ready = ready);
        }
        ready
    }

    fn note(&self, kind: &str, answer: &Answer) {
        if let Err(reason) = answer {
            self.node.events.warning(&self.state.object(), "Unhealthy", format!("{kind} probe failed: {reason}"));
        }
    }

    async fn ask(&self, probe: &Probe, timing: &Timing) -> Answer {
        match tokio::time::timeout(timing.timeout, self.ask_once(probe)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {} s", timing.timeout.as_secs())),
        }
    }

    async fn ask_once(&self, probe: &Probe) -> Answer {
        if let Some(exec) = &probe.exec {
            return self.exec(exec.command.as_deref().unwrap_or_default()).await;
        }
        if let Some(http) = &probe.http_get {
            return self.http(http).await;
        }
        if let Some(tcp) = &probe.tcp_socket {
            let port = number(&tcp.port, self.container.ports.as_deref().unwrap_or_default())?;
            let host = self.host(tcp.host.as_deref())?;
            return TcpStream::connect((host, port))
                .await
                .map(drop)
                .map_err(|e| format!("dial tcp {host}:{port}: {e}"));
        }
        Err("this kind of probe is not supported: exec, httpGet and tcpSocket are".into())
    }

    fn host(&self, given: Option<&str>) -> Result<IpAddr, String> {
        let own = self.state.addresses();
        let host = given.filter(|h| !h.is_empty()).or(own.first().map(String::as_str));
        let host = host.ok_or("the pod has no address")?;
        host.parse().map_err(|_| format!("host {host:?} is no IP address"))
    }

    async fn http(&self, action: &HTTPGetAction) -> Answer {
        if action.scheme.as_deref() == Some("HTTPS") {
            return Err("scheme HTTPS is not supported by this kubelet's probes".into());
        }
        let port = number(&action.port, self.container.ports.as_deref().unwrap_or_default())?;
        let host = self.host(action.host.as_deref())?;
        let path = action.path.as_deref().filter(|p| !p.is_empty()).unwrap_or("/");
        let url = format!("Get \"http://{}{path}\"", std::net::SocketAddr::new(host, port));
        let headers: Vec<(String, String)> =
            action.http_headers.iter().flatten().map(|h| (h.name.clone(), h.value.clone())).collect();
        let code = get(host, port, path, &headers).await.map_err(|e| format!("{url}: {e}"))?;
        if (200..400).contains(&code) { Ok(()) } else { Err(format!("HTTP probe failed with statuscode: {code}")) }
    }

    async fn exec(&self, command: &[String]) -> Answer {
        let live = self.state.live(&self.container.name).ok_or("the container does not run")?;
        let mut launch = live.launch(command, false).map_err(|e| e.to_string())?;
        let (output, end) = new_pipe().map_err(|e| e.to_string())?;
        let other = end.try_clone().map_err(|e| e.to_string())?;
        launch.streams = Streams { input: None, output: Some(end), error: Some(other) };
        let child = self.node.spawner.spawn(launch).await.map_err(|e| e.to_string())?;
        let mut process = Killed(Process::new(child).map_err(|e| e.to_string())?);
        let mut said = Vec::new();
        let mut output = receiver(output).map_err(|e| e.to_string())?.take(4096);
        let _ = output.read_to_end(&mut said).await;
        match process.0.wait().await.map(exit_code) {
            Ok(0) => Ok(()),
            Ok(_) => Err(String::from_utf8_lossy(&said).trim().to_string()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// A process that does not outlive the question.
struct Killed(Process);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.signal_if_running(libc::SIGKILL);
    }
}

/// One request; the answer's status code.
async fn get(host: IpAddr, port: u16, path: &str, headers: &[(String, String)]) -> Result<u16, String> {
    let mut stream = TcpStream::connect((host, port)).await.map_err(|e| e.to_string())?;
    let address = std::net::SocketAddr::new(host, port);
    let mut request = format!("GET {path} HTTP/1.1\r\nConnection: close\r\nUser-Agent: kube-probe/1.34\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        request.push_str(&format!("Host: {address}\r\n"));
    }
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).await.map_err(|e| e.to_string())?;
    let mut answer = Vec::new();
    let mut part = [0u8; 512];
    while !answer.contains(&b'\n') && answer.len() < 8192 {
        match stream.read(&mut part).await.map_err(|e| e.to_string())? {
            0 => break,
            n => answer.extend_from_slice(&part[..n]),
        }
    }
    status_code(&answer).ok_or_else(|| "the answer is not HTTP".to_string())
}

/// The code of `HTTP/1.1 200 OK`.
fn status_code(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|b| *b == b'\n').next()?;
    let text = std::str::from_utf8(line).ok()?.strip_prefix("HTTP/1.")?;
    text.split(' ').nth(1)?.trim().parse().ok()
}

/// A port given by number or by name.
pub fn number(port: &IntOrString, named: &[ContainerPort]) -> Result<u16, String> {
    let value = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => match name.parse() {
            Ok(number) => number,
            Err(_) => named
                .iter()
                .find(|p| p.name.as_deref() == Some(name))
                .map(|p| p.container_port)
                .ok_or_else(|| format!("the container has no port named {name:?}"))?,
        },
    };
    u16::try_from(value).map_err(|_| format!("{value} is no port"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_lines_are_read_and_others_refused() {
        assert_eq!(status_code(b"HTTP/1.1 204 No Content\r\n"), Some(204));
        assert_eq!(status_code(b"HTTP/1.0 500\r\n"), Some(500));
        assert_eq!(status_code(b"SSH-2.0-x\r\n"), None);
        assert_eq!(status_code(b""), None);
    }

    #[test]
    fn ports_have_numbers_or_names() {
        let named = [ContainerPort { name: Some("http".into()), container_port: 9080, ..ContainerPort::default() }];
        assert_eq!(number(&IntOrString::Int(80), &named), Ok(80));
        assert_eq!(number(&IntOrString::String("http".into()), &named), Ok(9080));
        assert!(number(&IntOrString::String("x".into()), &named).is_err());
        assert!(number(&IntOrString::Int(70000), &named).is_err());
    }
}
