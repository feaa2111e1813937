//! How do connections to a port of the machine reach a server inside a lab?

use anyhow::{Context, Result, bail};
use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::fd::{FromRawFd, OwnedFd};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

/// `lab-forward ADDRESS`: descriptor 3 is a listening socket of the machine; this process runs in the network namespace
/// in which the address is.
pub fn main(args: &[String]) -> Result<()> {
    let [address] = args else { bail!("one address is expected") };
    let address: SocketAddr = address.parse().with_context(|| format!("{address:?} is no address with port"))?;
    let listener = inherited(3)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    runtime.block_on(async {
        let listener = TcpListener::from_std(listener).context("take the listening socket over")?;
        loop {
            match listener.accept().await {
                Ok((client, _)) => drop(tokio::spawn(forward(client, address))),
                // Out of descriptors: what is open may end.
                Err(error) => {
                    tracing::warn!(%error, "accept");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    })
}

/// A listening socket that the parent has opened.
pub fn inherited(number: i32) -> Result<StdListener> {
    // SAFETY: the supervisor hands this descriptor over for this process alone.
    let listener = StdListener::from(unsafe { OwnedFd::from_raw_fd(number) });
    listener.local_addr().with_context(|| format!("descriptor {number} is no listening socket"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

async fn forward(mut client: TcpStream, address: SocketAddr) {
    match TcpStream::connect(address).await {
        Ok(mut server) => {
            let _ = client.set_nodelay(true);
            let _ = server.set_nodelay(true);
            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        }
        Err(error) => tracing::debug!(%error, %address, "connection refused"),
    }
}
