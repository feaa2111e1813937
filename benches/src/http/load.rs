//! Who asks, and who answers?

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::clients::{self, Load};

/// A request as a browser or a service might send it. The last of a hundred rules allows it.
const REQUEST: &[u8] = b"GET /api/v1/items/99/12345?view=full HTTP/1.1\r\nHost: shop.example\r\n\
User-Agent: bench/1.0\r\nAccept: application/json\r\nAccept-Encoding: gzip\r\nX-Request-Id: 4711-0815\r\n\r\n";

/// Bytes of an answer's body.
const BODY: usize = 256;

/// A connection on which one request follows the other.
pub struct Client(TcpStream);

/// So many connections to this address.
pub fn connect(address: SocketAddr, count: usize) -> Result<Load<Client>> {
    Load::connect(count, |_| {
        let stream = TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(Client(stream))
    })
}

impl clients::Client for Client {
    fn ask(&mut self, _number: usize) -> Result<()> {
        let Client(client) = self;
        client.write_all(REQUEST)?;
        let (mut buffer, mut filled) = ([0; 2_048], 0);
        loop {
            let count = client.read(&mut buffer[filled..]).context("no answer")?;
            ensure!(count > 0, "the connection ended");
            filled += count;
            ensure!(buffer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&buffer[..filled]));
            let head = buffer[..filled].windows(4).position(|four| four == b"\r\n\r\n");
            if head.is_some_and(|head| filled >= head + 4 + BODY) {
                return Ok(());
            }
        }
    }
}

/// A server that answers everything with the same.
pub async fn origin() -> Result<SocketAddr> {
    let listener = tokio::net::TcpSocket::new_v4()?;
    listener.bind("127.0.0.1:0".parse()?)?;
    let listener = listener.listen(4_096)?;
    let address = listener.local_addr()?;
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {BODY}\r\n\r\n");
    let answer: &'static [u8] = Vec::leak([head.as_bytes(), &[b'x'; BODY]].concat());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            tokio::spawn(async move {
                let mut buffer = [0; 1_024];
                let mut filled = 0;
                while let Ok(count @ 1..) = stream.read(&mut buffer[filled..]).await {
                    filled += count;
                    // Requests have no body and come one at a time.
                    if buffer[..filled].ends_with(b"\r\n\r\n") {
                        filled = 0;
                        if stream.write_all(answer).await.is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    Ok(address)
}
