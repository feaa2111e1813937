//! How does TLS go from client to server?
//!
//! Server names are read from what the client says first. With contexts, TLS ends and begins here, and HTTP or Kafka inside
//! is judged; without, nothing is decrypted.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;

use l7::tls::{ClientHello, HelloError, Progress, client_hello};
use proxy_api::{Application, Parser, Protocol, Record, Tls, Verdict};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::recorder;
use crate::rules::Rules;
use crate::shared::{Connection, millis};
use crate::wire::{Buffer, Fronted, Wire};
use crate::{copy, http1, kafka};

/// A connection on which TLS is spoken.
pub async fn serve(connection: Connection, client: TcpStream) {
    let Ok((_, rules)) = connection.now() else { return crate::sockets::reset(client) };
    if rules.server_names.is_none() && rules.terminate.is_none() {
        // Nothing is asked of the hello; only the server's side may be TLS.
        return match rules.originate {
            Some(_) => plain_to_tls(connection, &rules, client).await,
            None => copy::serve(connection, client).await,
        };
    }
    let mut client = client;
    let patience = millis(connection.shared.settings.load().timeouts.head);
    let mut front = Buffer::default();
    let hello = match timeout(patience, read_hello(&mut client, &mut front)).await {
        Ok(Ok(hello)) => hello,
        Ok(Err(why)) => return refuse(&connection, client, None, &why),
        Err(_) => return refuse(&connection, client, None, "no ClientHello came in time"),
    };
    let name = hello.server_name.clone();
    // What holds now, and not when the connection came.
    let Ok((_, rules)) = connection.now() else { return crate::sockets::reset(client) };
    if rules.server_names.as_ref().is_some_and(|names| !names.allows(name.as_deref())) {
        return refuse(&connection, client, name, "no rule allows the server name");
    }
    record(&connection, Verdict::Forwarded, name, "");
    let client = Fronted::new(front, client);
    let connection = Connection { server_name: hello.server_name.clone(), ..connection };
    match &rules.terminate {
        Some(acceptor) => Box::pin(terminate(connection, &rules, acceptor, client, hello)).await,
        None => match connection.connect().await {
            Ok(server) => {
                let (client, front) = client.into_parts();
                copy::both(&connection, Wire::Tcp(client), Wire::Tcp(server), front, Buffer::default()).await;
            }
            Err(error) => {
                unreachable(&connection, connection.server_name.clone(), &error);
                Wire::Tcp(client.into_parts().0).reset();
            }
        },
    }
}

/// Reads until the hello is whole; all of it stays in the buffer.
async fn read_hello(client: &mut TcpStream, front: &mut Buffer) -> Result<ClientHello, String> {
    let mut needs = 1;
    loop {
        while front.len() < needs {
            match poll_fn(|cx| front.poll_fill(client, cx)).await {
                Ok(0) => return Err("the connection ended within the ClientHello".into()),
                Ok(_) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        match client_hello(front.data()).map_err(|error: HelloError| error.to_string())? {
            Progress::Whole(hello) => return Ok(hello),
            Progress::Needs(count) => needs = count,
        }
    }
}

/// TLS with the client ends here. What goes on is judged if it is HTTP or Kafka.
async fn terminate(
    connection: Connection,
    rules: &Arc<Rules>,
    acceptor: &TlsAcceptor,
    client: Fronted<TcpStream>,
    hello: ClientHello,
) {
    let stream = match connection.connect().await {
        Ok(stream) => stream,
        Err(error) => {
            unreachable(&connection, hello.server_name, &error);
            return crate::sockets::reset(client.into_parts().0);
        }
    };
    // The server chooses what is spoken inside, if it is TLS too; else it is what is spoken without TLS.
    let (server, protocol) = match &rules.originate {
        None => (Ok(Wire::Tcp(stream)), plain_protocol(&hello)),
        Some(connector) => {
            let ours = |protocol: &&Vec<u8>| [&b"h2"[..], b"http/1.1"].contains(&protocol.as_slice());
            let wanted = hello.protocols.iter().filter(ours).cloned().collect();
            let server = originate(&connection, connector, stream, hello.server_name.as_deref(), wanted).await;
            let chosen = server.as_ref().ok().and_then(chosen_protocol);
            (server, chosen)
        }
    };
    let server = match server {
        Ok(server) => server,
        Err(error) => {
            record(&connection, Verdict::Error, hello.server_name, &format!("TLS with the server: {error}"));
            return crate::sockets::reset(client.into_parts().0);
        }
    };
    let mut config = rustls::ServerConfig::clone(acceptor.config());
    config.alpn_protocols = protocol.into_iter().collect();
    let patience = millis(connection.shared.settings.load().timeouts.head);
    let accepting = TlsAcceptor::from(Arc::new(config)).accept(client);
    let client = match timeout(patience, accepting).await {
        Ok(Ok(client)) => Wire::Tls(Box::new(client.into())),
        Ok(Err(error)) => {
            return record(&connection, Verdict::Error, hello.server_name, &format!("TLS with the client: {error}"));
        }
        Err(_) => return record(&connection, Verdict::Error, hello.server_name, "TLS with the client: too late"),
    };
    match rules.parser {
        Parser::Http => http1::run(connection, client, Some(server)).await,
        Parser::Kafka => kafka::run(connection, client, Some(server)).await,
        _ => copy::both(&connection, client, server, Buffer::default(), Buffer::default()).await,
    }
}

/// What a client that offers these speaks with a server that knows no TLS.
fn plain_protocol(hello: &ClientHello) -> Option<Vec<u8>> {
    let offers = |name: &[u8]| hello.protocols.iter().any(|protocol| protocol == name);
    [&b"http/1.1"[..], b"h2"].into_iter().find(|name| offers(name)).map(<[u8]>::to_vec)
}

fn chosen_protocol(server: &Wire) -> Option<Vec<u8>> {
    match server {
        Wire::Tls(stream) => stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec),
        Wire::Tcp(_) => None,
    }
}

async fn plain_to_tls(connection: Connection, rules: &Rules, client: TcpStream) {
    let Some(connector) = &rules.originate else { return crate::sockets::reset(client) };
    let server = match connection.connect().await {
        Ok(stream) => originate(&connection, connector, stream, None, Vec::new()).await,
        Err(error) => Err(error),
    };
    match server {
        Ok(server) => copy::both(&connection, Wire::Tcp(client), server, Buffer::default(), Buffer::default()).await,
        Err(error) => {
            unreachable(&connection, None, &error);
            crate::sockets::reset(client);
        }
    }
}

/// TLS with the server begins here. Without a name its certificate has to be for its address.
pub async fn originate(
    connection: &Connection,
    connector: &TlsConnector,
    stream: TcpStream,
    name: Option<&str>,
    protocols: Vec<Vec<u8>>,
) -> io::Result<Wire> {
    let address = || ServerName::IpAddress(connection.local.ip().into());
    let name = match name {
        Some(name) => ServerName::try_from(name.to_owned()).map_err(io::Error::other)?,
        None => address(),
    };
    let mut config = rustls::ClientConfig::clone(connector.config());
    config.alpn_protocols = protocols;
    let patience = millis(connection.shared.settings.load().timeouts.head);
    let connecting = TlsConnector::from(Arc::new(config)).connect(name, Fronted::new(Buffer::default(), stream));
    let stream = timeout(patience, connecting).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
    Ok(Wire::Tls(Box::new(stream.into())))
}

/// The name in `name:port`, if there is one.
pub fn host_of(authority: &str) -> Option<&str> {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    (!host.is_empty()).then_some(host)
}

fn refuse(connection: &Connection, client: TcpStream, name: Option<String>, why: &str) {
    connection.shared.counters.refused_policy.add();
    record(connection, Verdict::Denied, name, why);
    crate::sockets::reset(client);
}

fn unreachable(connection: &Connection, name: Option<String>, error: &io::Error) {
    record(connection, Verdict::Error, name, &format!("the server cannot be reached: {error}"));
}

fn record(connection: &Connection, verdict: Verdict, server_name: Option<String>, info: &str) {
    if !connection.shared.settings.load().records {
        return;
    }
    let ends = (connection.peer, connection.local);
    let about = recorder::record(&connection.first, Protocol::Tcp, ends, Application::Tls(Tls { server_name }));
    connection.shared.recorder.push(Record { verdict, info: info.to_owned(), ..about });
}
