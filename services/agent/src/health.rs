//! How does a node's health endpoint come to be, and what does it answer?

use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode};

use ipnet::IpNet;
use netlink::{Namespace, Netlink, Route, Veth};

use crate::core::{EndpointRecord, Kind};

/// TCP port of the responder.
pub const PORT: u16 = 4240;

const DEVICE: &str = "lxc_health";
const INNER: &str = "cilium";

/// The name under which our binary answers health probes.
pub const RESPONDER: &str = "cilium-health-responder";

/// A running health endpoint; dropping it ends the responder.
pub struct Health {
    responder: Child,
    _namespace: Namespace,
}

impl Health {
    /// The responder still runs.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.responder.try_wait(), Ok(None))
    }
}

impl Drop for Health {
    fn drop(&mut self) {
        // It may have ended by itself; there is nobody to tell.
        let _ = self.responder.kill();
        let _ = self.responder.wait();
    }
}

/// Makes namespace and devices (an earlier run's are replaced); the host's side is down. The record still lacks its number.
pub async fn devices(
    netlink: &Netlink,
    addresses: &[IpAddr],
    gateways: &[IpAddr],
    mtu: u32,
) -> netlink::Result<(Namespace, EndpointRecord)> {
    netlink.delete_link(DEVICE).await?;
    let namespace = Namespace::anonymous()?;
    let veth = Veth {
        name: DEVICE.into(),
        peer_name: INNER.into(),
        peer_namespace: Some(namespace.clone()),
        mtu: Some(mtu),
        ..Veth::default()
    };
    netlink.add_veth(&veth).await?;
    let inside = Netlink::open_in(&namespace)?;
    let (outer, inner) = (netlink.link(DEVICE).await?, inside.link(INNER).await?);
    netlink::prepare_node_side(DEVICE, addresses.iter().any(IpAddr::is_ipv6))?;
    inside.set_up("lo").await?;
    inside.set_up(INNER).await?;
    for address in addresses {
        inside.add_address(INNER, IpNet::from(*address)).await?;
        let Some(gateway) = gateways.iter().find(|g| g.is_ipv4() == address.is_ipv4()) else { continue };
        if let Some(mac) = outer.mac {
            inside.replace_neighbour(INNER, *gateway, mac).await?;
        }
        inside.replace_route(&Route::new(IpNet::from(*gateway), inner.index)).await?;
        let everywhere = if address.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
        if let Ok(everywhere) = everywhere.parse() {
            inside.replace_route(&Route::new(everywhere, inner.index).via(*gateway)).await?;
        }
    }
    let record = EndpointRecord {
        kind: Kind::Health,
        device: outer.name,
        container_device: INNER.into(),
        ifindex: outer.index,
        mac: inner.mac.unwrap_or_default(),
        node_mac: outer.mac.unwrap_or_default(),
        ipv4: addresses.iter().find_map(|a| if let IpAddr::V4(a) = a { Some(*a) } else { None }),
        ipv6: addresses.iter().find_map(|a| if let IpAddr::V6(a) = a { Some(*a) } else { None }),
        ..EndpointRecord::default()
    };
    Ok((namespace, record))
}

/// Starts the responder inside and lets packets flow.
pub async fn open(netlink: &Netlink, namespace: Namespace) -> io::Result<Health> {
    netlink.set_up(DEVICE).await.map_err(io::Error::other)?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0(RESPONDER).arg("--port").arg(PORT.to_string());
    let descriptor = namespace.as_raw_fd();
    // SAFETY: between fork and exec only async-signal-safe system calls are made: setns, prctl. The descriptor is open
    // for as long as `namespace` lives, which is longer than the call of `spawn`.
    unsafe {
        command.pre_exec(move || {
            if libc::setns(descriptor, libc::CLONE_NEWNET) != 0
                || libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0
            {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
    Ok(Health { responder: command.spawn()?, _namespace: namespace })
}

/// The command that answers probes: any request on the port gets an empty answer with status 200.
pub fn responder_main<I: IntoIterator<Item = String>>(arguments: I) -> ExitCode {
    let arguments: Vec<String> = arguments.into_iter().collect();
    let given = arguments.iter().position(|a| a == "--port").and_then(|at| arguments.get(at + 1));
    let port = given.map_or(Ok(PORT), |text| text.parse());
    let Ok(port) = port else {
        eprintln!("{RESPONDER}: --port wants a port number");
        return ExitCode::FAILURE;
    };
    match respond(port) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{RESPONDER}: listen on port {port}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn respond(port: u16) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = match tokio::net::TcpListener::bind(("::", port)).await {
            Ok(listener) => listener,
            // No IPv6 in this kernel or namespace.
            Err(_) => tokio::net::TcpListener::bind(("0.0.0.0", port)).await?,
        };
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(answer(stream));
        }
    })
}

async fn answer(stream: tokio::net::TcpStream) {
    answer_with(stream, "200 OK").await;
}

/// Answers one HTTP request with a status and nothing else.
pub(crate) async fn answer_with(mut stream: tokio::net::TcpStream, status: &str) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut request = [0; 4096];
    let mut length = 0;
    let whole = |bytes: &[u8]| bytes.windows(4).any(|four| four == b"\r\n\r\n");
    while length < request.len() && !whole(&request[..length]) {
        let read = tokio::time::timeout(std::time::Duration::from_secs(5), stream.read(&mut request[length..])).await;
        match read {
            Ok(Ok(count)) if count > 0 => length += count,
            _ => return,
        }
    }
    // The prober may be gone; there is nobody to tell.
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    let _ = stream.write_all(head.as_bytes()).await;
}
