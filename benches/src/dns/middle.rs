//! What is between clients and name server, in a process of its own?

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use proxy_api::*;
use tokio::net::UdpSocket;

use super::load;
use crate::http::middle::{Middle, agent, free_port, role};

/// Passes questions on and answers back, with numbers of its own, and reads nothing else of them.
pub fn raw(server: SocketAddr) -> Result<Middle> {
    let port = free_port()?;
    answering(Middle::new(role(&format!("forward {port} {server}"))?, at(port), None))
}

/// The proxy, with its agent in this process, which holds names at once.
pub fn ours(server: SocketAddr, records: bool) -> Result<Middle> {
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("proxy.sock");
    let port = free_port()?;
    let rule = |number: u32| crds::DnsRule {
        match_name: None,
        match_pattern: Some(format!("*.service-{number}.shop.example")),
    };
    let set = RuleSet { dns: Some((0..100).map(rule).collect()), ..RuleSet::open(1, Parser::Dns) };
    let listener = Listener { traffic: Traffic::Dns, direction: Direction::Ingress, port };
    agent(socket.clone(), listener, set, Settings { records, ..Settings::default() })?;
    let child = role(&format!("ours {} {server}", socket.display()))?;
    answering(Middle::new(child, at(port), Some(folder)))
}

/// dnsmasq without its cache, where the machine has it.
pub fn dnsmasq(server: SocketAddr) -> Result<Middle> {
    let port = free_port()?;
    let mut command = Command::new("dnsmasq");
    command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--cache-size=0"]);
    command.args(["--pid-file=", "--user=root", "--bind-interfaces", "--listen-address=127.0.0.1"]);
    command.args([format!("--port={port}"), format!("--server={}#{}", server.ip(), server.port())]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().context("start dnsmasq")?;
    answering(Middle::new(child, at(port), None))
}

fn at(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

/// Waits until questions are answered.
fn answering(middle: Middle) -> Result<Middle> {
    let until = Instant::now() + Duration::from_secs(20);
    while load::connect(middle.address, 1)?.each_once().is_err() {
        if Instant::now() > until {
            bail!("it does not answer");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(middle)
}

/// The process of [`raw`].
pub fn forwards(port: &str, server: &str) -> Result<()> {
    let (port, server): (u16, SocketAddr) = (port.parse()?, server.parse()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (down, up) = (UdpSocket::bind(at(port)).await?, UdpSocket::bind(at(0)).await?);
        up.connect(server).await?;
        let (mut question, mut answer) = ([0; 4_096], [0; 4_096]);
        let mut asked = vec![None; 1 << 16];
        let mut next = 0u16;
        loop {
            tokio::select! {
                got = down.recv_from(&mut question) => {
                    let (length, client) = got?;
                    asked[usize::from(next)] = Some((client, [question[0], question[1]]));
                    question[..2].copy_from_slice(&next.to_be_bytes());
                    next = next.wrapping_add(1);
                    up.send(&question[..length]).await?;
                }
                got = up.recv(&mut answer) => {
                    let length = got?;
                    let number = usize::from(u16::from_be_bytes([answer[0], answer[1]]));
                    if let Some((client, id)) = asked[number].take() {
                        answer[..2].copy_from_slice(&id);
                        down.send_to(&answer[..length], client).await?;
                    }
                }
            }
        }
    })
}
