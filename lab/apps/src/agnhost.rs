//! What does the image for network tests do: `netexec`, `serve-hostname`, `connect`, `pause`?

use crate::{Error, arguments, listening, sleeper};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use world::datagram::Datagrams;
use world::http::{Body, Ends, text};

/// Runs the subcommand, `pause` if there is none.
pub async fn run(args: Vec<String>) -> Result<(), Error> {
    let (word, rest) = match args.split_first() {
        Some((word, rest)) => (word.as_str(), rest),
        None => ("pause", &[][..]),
    };
    match word {
        "pause" => sleeper::run().await,
        "netexec" => netexec(rest).await,
        "serve-hostname" => {
            let port = number(rest, "port", 9376)?;
            listening::all(vec![listening::http(port, |_, _| async { text(StatusCode::OK, listening::own_name()) })?])
                .await
        }
        "connect" => connect(rest).await,
        other => {
            Err(Error::Usage(format!("agnhost has no {other:?}; there are: connect, netexec, pause, serve-hostname")))
        }
    }
}

fn number(args: &[String], name: &str, default: u16) -> Result<u16, Error> {
    match arguments::option(args, name) {
        None => Ok(default),
        Some(text) => text.parse().map_err(|_| Error::Usage(format!("--{name} {text:?} is not a port"))),
    }
}

async fn netexec(args: &[String]) -> Result<(), Error> {
    let mut tasks = vec![listening::http(number(args, "http-port", 8080)?, respond)?];
    let port = number(args, "udp-port", 8081)?;
    for socket in Datagrams::bind_everywhere(port).map_err(|error| Error::Listen { port, error })? {
        tasks.push(Box::pin(commands(socket)));
    }
    listening::all(tasks).await
}

async fn respond(request: Request<Incoming>, ends: Ends) -> Response<Body> {
    let uri = request.uri();
    match uri.path() {
        "/" | "/healthz" => text(StatusCode::OK, "ok\n"),
        "/hostname" | "/hostName" => text(StatusCode::OK, listening::own_name()),
        "/clientip" => text(StatusCode::OK, ends.peer.to_string()),
        "/echo" => {
            let query = uri.query().unwrap_or_default();
            let message = query.split('&').find_map(|pair| pair.strip_prefix("msg=")).unwrap_or_default();
            text(StatusCode::OK, decoded(message))
        }
        other => text(StatusCode::NOT_FOUND, format!("{other} is not served\n")),
    }
}

/// `hostname`, `clientip`, `echo TEXT` by UDP.
async fn commands(socket: Datagrams) -> std::io::Result<()> {
    let mut buffer = vec![0; 65_535];
    loop {
        let Ok((n, exchange)) = socket.receive(&mut buffer).await else { continue };
        let reply = said(&String::from_utf8_lossy(&buffer[..n]), exchange.peer);
        let _ = socket.answer(reply.as_bytes(), exchange).await;
    }
}

fn said(command: &str, peer: SocketAddr) -> String {
    let command = command.trim_end_matches(['\r', '\n']);
    match command.split_once(' ').unwrap_or((command, "")) {
        ("hostname" | "hostName", _) => listening::own_name(),
        ("clientip", _) => peer.to_string(),
        ("echo", message) => message.to_string(),
        _ => String::new(),
    }
}

/// `connect HOST:PORT [--timeout 5s]`: ends well if a connection can be made.
async fn connect(args: &[String]) -> Result<(), Error> {
    let target = args.iter().find(|w| !w.starts_with('-') && w.contains(':'));
    let target = target.ok_or_else(|| Error::Usage("usage: agnhost connect HOST:PORT [--timeout 5s]".into()))?;
    let patience = match arguments::option(args, "timeout") {
        None => Duration::from_secs(5),
        Some(text) => seconds(&text).ok_or_else(|| Error::Usage(format!("--timeout {text:?}: write 5s or 500ms")))?,
    };
    match tokio::time::timeout(patience, TcpStream::connect(target)).await {
        Ok(connected) => {
            connected?;
            Ok(())
        }
        Err(_) => Err(Error::Api("TIMEOUT".into())),
    }
}

fn seconds(text: &str) -> Option<Duration> {
    if let Some(n) = text.strip_suffix("ms") {
        return n.parse().ok().map(Duration::from_millis);
    }
    text.strip_suffix('s').and_then(|n| n.parse().ok()).map(Duration::from_secs)
}

fn decoded(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let pair = tail.get(..2).and_then(|p| std::str::from_utf8(p).ok());
        match (first, pair.and_then(|p| u8::from_str_radix(p, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
                continue;
            }
            (b'+', _) => bytes.push(b' '),
            _ => bytes.push(*first),
        }
        rest = tail;
    }
    bytes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn commands_by_datagram() {
        let peer = "10.0.0.1:5".parse().unwrap();
        assert_eq!(said("echo a b\n", peer), "a b");
        assert_eq!(said("clientip", peer), "10.0.0.1:5");
        assert_eq!(said("reboot", peer), "");
    }

    #[test]
    fn escapes_and_times() {
        assert_eq!(decoded("a%20b+c%"), b"a b c%");
        assert_eq!(decoded("%zz%41"), b"%zzA");
        assert_eq!(seconds("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(seconds("3s"), Some(Duration::from_secs(3)));
        assert_eq!(seconds("3"), None);
    }
}
