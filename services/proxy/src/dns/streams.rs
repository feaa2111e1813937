//! How are questions by TCP answered, one after the other?

use std::io;
use std::sync::Arc;
use std::time::Instant;

use dns::{Question, Said, read_answer};
use proxy_api::{Facts, Protocol};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Dns;
use super::names::{Ends, Judged, Names};
use crate::rules::Rules;
use crate::shared::{Connection, millis};
use crate::sockets::reset;

/// A connection with questions, each behind its length (RFC 7766). The server's connection is opened with the first
/// question that is allowed, and stays as long as the client's.
pub async fn serve(dns: Arc<Dns>, connection: Connection, mut client: TcpStream) {
    let names = &dns.names;
    let ends = Ends { client: connection.peer, server: connection.local, protocol: Protocol::Tcp };
    let idle = millis(names.shared.settings.load().dns.idle);
    let mut server: Option<TcpStream> = None;
    loop {
        let message = tokio::select! {
            biased;
            () = names.shared.drain.cancelled() => return,
            read = tokio::time::timeout(idle, read(&mut client)) => read,
        };
        let message = match message {
            Ok(Ok(Some(message))) => message,
            // The end, or a client that says nothing for long.
            Ok(Ok(None)) | Err(_) => return,
            Ok(Err(_)) => return reset(client),
        };
        let (facts, rules) = match connection.now() {
            Ok(found) => found,
            Err(unknown) => {
                tracing::debug!(peer = %ends.client, why = unknown.reason(), "a question is refused");
                names.shared.counters.refused_unknown.add();
                return reset(client);
            }
        };
        match answer(names, ends, (facts, &rules), &connection, &mut server, message).await {
            Some(answer) => {
                if write(&mut client, &answer).await.is_err() {
                    return;
                }
            }
            // Without an answer the next one would be taken for it.
            None => return reset(client),
        }
    }
}

/// What the client gets for a message; `None`: nothing.
async fn answer(
    names: &Arc<Names>,
    ends: Ends,
    (facts, rules): (Facts, &Rules),
    connection: &Connection,
    server: &mut Option<TcpStream>,
    message: Vec<u8>,
) -> Option<Vec<u8>> {
    let asked = match names.judge(ends, (facts, rules), &message, Instant::now()) {
        Judged::Ask(asked) => asked,
        Judged::Say(answer) => return answer,
    };
    let patience = millis(names.shared.settings.load().dns.timeout);
    let asking = ask(connection, server, &asked.question, message);
    let (mut bytes, said) = match tokio::time::timeout(patience, asking).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Some(asked.failed(&error)),
        Err(_) => {
            asked.timed_out();
            return None;
        }
    };
    bytes[..2].copy_from_slice(&asked.question.id.to_be_bytes());
    if let Some(telling) = asked.teaches(&said, Instant::now()) {
        let patience = millis(names.shared.settings.load().dns.response_max_delay);
        if !names.learnings.tell(telling, patience).await {
            names.shared.counters.dns_released_early.add();
        }
    }
    asked.answered(said, Instant::now());
    Some(bytes)
}

async fn ask(
    connection: &Connection,
    server: &mut Option<TcpStream>,
    question: &Question,
    mut message: Vec<u8>,
) -> io::Result<(Vec<u8>, Said)> {
    let number: u16 = rand::random();
    message[..2].copy_from_slice(&number.to_be_bytes());
    // One that broke, or whose answer did not come in time, is of no use for the next question.
    if let Some(mut stream) = server.take()
        && let Ok(answer) = exchange(&mut stream, &message).await
    {
        return keep(server, stream, question, number, answer);
    }
    // Servers close what was idle for a while: that is no failure of theirs.
    let mut stream = connection.connect().await?;
    let answer = exchange(&mut stream, &message).await?;
    keep(server, stream, question, number, answer)
}

async fn exchange(stream: &mut TcpStream, message: &[u8]) -> io::Result<Vec<u8>> {
    write(stream, message).await?;
    read(stream).await?.ok_or(io::ErrorKind::UnexpectedEof.into())
}

/// The connection stays for the next question, if this one's answer fits.
fn keep(
    server: &mut Option<TcpStream>,
    stream: TcpStream,
    question: &Question,
    number: u16,
    answer: Vec<u8>,
) -> io::Result<(Vec<u8>, Said)> {
    let said = read_answer(question, number, &answer).map_err(io::Error::other)?;
    *server = Some(stream);
    Ok((answer, said))
}

/// A message, or the end between two.
async fn read(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 2];
    if stream.read(&mut length[..1]).await? == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut length[1..]).await?;
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message).await?;
    Ok(Some(message))
}

async fn write(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    // In one piece: clients that read once are many.
    stream.write_all(&[&length.to_be_bytes(), message].concat()).await
}
