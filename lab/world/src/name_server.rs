//! How do questions reach a name server, and answers the asker?

use crate::datagram::Datagrams;
use crate::http::accept;
use crate::message::{Transport, framed};
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::debug;

/// Questions, and streams, that are served at a time; more have to wait.
const AT_A_TIME: usize = 1024;
/// How long a stream may be silent.
const IDLE: Duration = Duration::from_secs(10);
const LONGEST_QUESTION: usize = 4096;

/// Who knows the answers.
pub trait NameServer: Send + Sync + 'static {
    /// The bytes that answer the message `bytes`; none if it must not be answered.
    fn answer(&self, bytes: &[u8], transport: Transport) -> impl Future<Output = Option<Vec<u8>>> + Send;
}

/// Answers datagrams for ever.
pub async fn datagrams<S: NameServer>(socket: Datagrams, server: Arc<S>) -> io::Result<()> {
    let socket = Arc::new(socket);
    let places = Arc::new(Semaphore::new(AT_A_TIME));
    let mut buffer = vec![0; LONGEST_QUESTION];
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return Ok(()) };
        let (length, exchange) = match socket.receive(&mut buffer).await {
            Ok(received) => received,
            Err(e) => {
                // an ICMP error of an earlier answer
                debug!(error = %e, "receive");
                continue;
            }
        };
        let question = buffer[..length].to_vec();
        let (socket, server) = (socket.clone(), server.clone());
        tokio::spawn(async move {
            let _place = place;
            let Some(answer) = server.answer(&question, Transport::Udp).await else { return };
            if let Err(e) = socket.answer(&answer, exchange).await {
                debug!(peer = %exchange.peer, error = %e, "answer");
            }
        });
    }
}

/// Answers streams for ever.
pub async fn streams<S: NameServer>(listener: TcpListener, server: Arc<S>) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(AT_A_TIME));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return Ok(()) };
        let stream = accept(&listener).await;
        let server = server.clone();
        tokio::spawn(async move {
            let _place = place;
            if let Err(e) = conversation(stream, &*server).await {
                debug!(error = %e, "stream");
            }
        });
    }
}

async fn conversation<S: NameServer>(mut stream: TcpStream, server: &S) -> io::Result<()> {
    let _ = stream.set_nodelay(true);
    while let Some(question) = timeout(IDLE, frame(&mut stream)).await?? {
        let Some(answer) = server.answer(&question, Transport::Tcp).await else { return Ok(()) };
        timeout(IDLE, stream.write_all(&framed(&answer))).await??;
    }
    Ok(())
}

/// The next message of a stream; none at its end.
pub async fn frame(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 2];
    match stream.read_exact(&mut length).await {
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(e) => return Err(e),
    }
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message).await?;
    Ok(Some(message))
}
