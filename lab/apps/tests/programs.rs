//! Do programs start, end at once when told to, and say by their code how it went? Each runs in a process of its own.
#![allow(clippy::unwrap_used)]

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const NAME: &str = "LAB_APP_NAME";
const ARGS: &str = "LAB_APP_ARGS";

/// In the process of a program: the program. Else nothing.
#[test]
fn program() {
    let Ok(name) = std::env::var(NAME) else { return };
    let args = std::env::var(ARGS).unwrap().split_whitespace().map(String::from).collect();
    let code = apps::main_with(&name, args);
    std::process::exit(if code == std::process::ExitCode::SUCCESS { 0 } else { 1 });
}

fn start(name: &str, args: &str) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "program", "--nocapture"]).env(NAME, name).env(ARGS, args);
    command.env_remove("KUBERNETES_SERVICE_HOST").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Tells a program to end; its code and how long it took.
fn end(mut child: Child) -> (Option<i32>, Duration) {
    let since = Instant::now();
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    (child.wait().unwrap().code(), since.elapsed())
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn connected(port: u16) -> TcpStream {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(stream) => return stream,
            Err(e) => assert!(Instant::now() < until, "{port}: {e}"),
        }
        std::thread::yield_now();
    }
}

#[test]
fn a_server_with_open_connections_ends_at_once() {
    let port = free_port();
    let child = start("echo", &format!("--port {port}"));
    let mut stream = connected(port);
    stream.write_all(b"GET /stream?seconds=60 HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut first = [0; 15];
    stream.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200 OK");
    let (code, took) = end(child);
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn echo_sends_datagrams_back() {
    let port = free_port();
    let child = start("echo", &format!("--port {port}"));
    drop(connected(port));
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket.connect(("127.0.0.1", port)).unwrap();
    let mut buffer = [0; 16];
    let until = Instant::now() + Duration::from_secs(10);
    let n = loop {
        // until the socket is bound, a refusal comes back
        socket.send(b"datagram").unwrap();
        match socket.recv(&mut buffer) {
            Ok(n) => break n,
            Err(e) => assert!(Instant::now() < until, "{e}"),
        }
    };
    assert_eq!(&buffer[..n], b"datagram");
    end(child);
}

#[test]
fn every_name_is_a_program_and_others_are_refused() {
    let codes = ["no-such-program", "http-echo", "api-watcher", "agnhost"].map(|name| {
        let args = if name == "agnhost" { "connect 127.0.0.1:1" } else { "" };
        (name, start(name, args).wait().unwrap().code())
    });
    // no such name, no text, no API server, no connection
    assert!(codes.iter().all(|(_, code)| *code == Some(1)), "{codes:?}");
    for name in ["client", "details", "reviews-v3", "productpage", "voting", "web"] {
        let port = free_port();
        let mut child = start(name, &format!("--port {port}"));
        if name != "client" {
            drop(connected(port));
        }
        assert_eq!(child.try_wait().unwrap(), None, "{name}");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
