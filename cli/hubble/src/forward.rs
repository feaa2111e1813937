//! How does relay's port come to this machine? By kubectl, which forwards as long as this command runs.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::{error::Error, settings::Settings};

/// Ends with the command that it was made for.
#[derive(Debug)]
pub(crate) struct Forward {
    /// Where the port is on this machine.
    pub port: u16,
    _kubectl: Child,
}

const SERVICE: &str = "service/hubble-relay";
/// The service's port.
const PORT: u16 = 80;
/// How long kubectl may take to find cluster and pod.
const PATIENCE: Duration = Duration::from_secs(30);

impl Forward {
    /// Forwards a port, if that is asked for.
    pub(crate) async fn of(settings: &Settings) -> Result<Option<Self>, Error> {
        if !settings.is_set("port-forward") {
            return Ok(None);
        }
        let mut command = Command::new("kubectl");
        command.args(arguments(settings));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut kubectl =
            command.spawn().map_err(|e| failed(&format!("run kubectl: {e}; without it, forward the port yourself")))?;
        let (Some(out), Some(err)) = (kubectl.stdout.take(), kubectl.stderr.take()) else {
            return Err(failed("kubectl has no output"));
        };
        match tokio::time::timeout(PATIENCE, said(out)).await {
            Ok(Some(port)) => Ok(Some(Forward { port, _kubectl: kubectl })),
            Ok(None) => Err(failed(&complaint(err).await)),
            Err(_) => Err(failed(&format!("kubectl said nothing for {} seconds", PATIENCE.as_secs()))),
        }
    }
}

fn arguments(settings: &Settings) -> Vec<String> {
    let mut words = Vec::new();
    for (flag, name) in [("kubeconfig", "--kubeconfig"), ("kube-context", "--context")] {
        let value = settings.text(flag);
        if !value.is_empty() {
            words.extend([name.to_owned(), value]);
        }
    }
    let local = settings.value("port-forward-port").as_u64().filter(|port| *port != 0);
    let ports = format!("{}:{PORT}", local.map(|port| port.to_string()).unwrap_or_default());
    let rest = ["-n", &settings.text("kube-namespace"), "port-forward", "--address", "127.0.0.1", SERVICE, &ports];
    words.extend(rest.map(str::to_owned));
    words
}

/// The port that kubectl says it forwards from; none: it ended without.
async fn said(out: impl AsyncRead + Unpin + Send + 'static) -> Option<u16> {
    let mut lines = BufReader::new(out).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        // What it says later of each connection is not read: it must not block on that.
        if let Some(port) = forwarded(&line) {
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return Some(port);
        }
    }
    None
}

/// `Forwarding from 127.0.0.1:4245 -> 4245`
fn forwarded(line: &str) -> Option<u16> {
    let (from, _) = line.strip_prefix("Forwarding from ")?.split_once(" -> ")?;
    from.rsplit_once(':')?.1.parse().ok()
}

async fn complaint(mut err: impl AsyncRead + Unpin) -> String {
    let mut bytes = Vec::new();
    // What was read before an error is all that there is to tell.
    let _ = (&mut err).take(4096).read_to_end(&mut bytes).await;
    let text = String::from_utf8_lossy(&bytes);
    flow::print::clean(text.trim()).into_owned()
}

fn failed(why: &str) -> Error {
    Error::Usage(format!("--port-forward: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_port_is_read_from_what_kubectl_says() {
        for (text, port) in [
            ("Forwarding from 127.0.0.1:4245 -> 4245\n", Some(4245)),
            ("warning: x\nForwarding from 127.0.0.1:40123 -> 4245\nHandling connection for 40123\n", Some(40123)),
            ("Forwarding from [::1]:7 -> 4245\n", Some(7)),
            ("Forwarding from nowhere\n", None),
            ("", None),
        ] {
            assert_eq!(said(text.as_bytes()).await, port, "{text}");
        }
        assert_eq!(complaint(&b"error: \x1b[31mno such service\n"[..]).await, "error: ^[[31mno such service");
    }
}
