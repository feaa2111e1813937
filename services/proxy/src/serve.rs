//! What happens to a connection that comes in?

use std::net::SocketAddr;
use std::sync::Arc;

use proxy_api::{Direction, Parser, Protocol};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::dns::{self, Dns};
use crate::shared::{Connection, Shared, fits};
use crate::sockets::reset;
use crate::{copy, http1, kafka, tls};

/// Takes connections until it is told to stop; with `dns`, only questions of DNS.
pub async fn accept(
    shared: Arc<Shared>,
    listener: Arc<TcpListener>,
    direction: Direction,
    dns: Option<Arc<Dns>>,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    loop {
        let taken = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            taken = listener.accept() => taken,
        };
        match taken {
            Ok((stream, peer)) => {
                tasks.spawn(serve(Arc::clone(&shared), stream, peer, direction, dns.clone()));
            }
            Err(error) => {
                // Out of files, as a rule: what there is goes on, and others wait.
                tracing::warn!(%error, "a connection could not be taken");
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        }
    }
}

/// One connection, from the first byte to the last.
fn serve(
    shared: Arc<Shared>,
    stream: TcpStream,
    peer: SocketAddr,
    direction: Direction,
    dns: Option<Arc<Dns>>,
) -> impl Future<Output = ()> + Send {
    // What refuses needs no task of its own size.
    let admitted = admit(shared, stream, peer, direction);
    async move {
        if let Some((connection, stream, parser)) = admitted {
            match (parser, dns) {
                (Parser::Http, None) => http1::serve(connection, stream).await,
                (Parser::Dns, Some(dns)) => Box::pin(dns::serve(dns, connection, stream)).await,
                (Parser::Kafka, None) => Box::pin(kafka::serve(connection, stream)).await,
                (Parser::Tls, None) => Box::pin(tls::serve(connection, stream)).await,
                (Parser::Tcp, None) => Box::pin(copy::serve(connection, stream)).await,
                // Sent to the wrong listener.
                (Parser::Dns, None) | (_, Some(_)) => reset(stream),
            }
        }
    }
}

/// Refuses what nothing is known of, what nothing may pass of, and what is too much.
fn admit(
    shared: Arc<Shared>,
    stream: TcpStream,
    peer: SocketAddr,
    direction: Direction,
) -> Option<(Connection, TcpStream, Parser)> {
    let Ok(local) = stream.local_addr() else {
        reset(stream);
        return None;
    };
    let facts = shared.redirected.facts(Protocol::Tcp, peer, local).filter(|facts| fits(facts, direction));
    let rules = facts.and_then(|facts| shared.rules.load().get(facts.rule_set).cloned());
    let (Some(first), Some(rules)) = (facts, rules) else {
        tracing::debug!(%peer, %local, known = facts.is_some(), "a connection is refused: no rules");
        shared.counters.refused_unknown.add();
        reset(stream);
        return None;
    };
    if rules.broken.is_some() {
        shared.counters.refused_policy.add();
        reset(stream);
        return None;
    }
    let Some(place) = shared.enter(first.endpoint) else {
        tracing::debug!(%peer, endpoint = first.endpoint, "a connection is refused: too many");
        shared.counters.refused_overload.add();
        reset(stream);
        return None;
    };
    shared.counters.connections.add();
    let _ = stream.set_nodelay(true);
    let tls = (rules.terminate.is_some(), rules.originate.is_some());
    let connection = Connection { shared, peer, local, first, tls, server_name: None, _place: place };
    Some((connection, stream, rules.parser))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::sockets::Upstream;
    use proxy_api::{Facts, Redirected, RuleSet, RulesUpdate};

    struct Nobody;

    impl Redirected for Nobody {
        fn facts(&self, _: Protocol, _: SocketAddr, _: SocketAddr) -> Option<Facts> {
            None
        }

        fn speak_for(&self, _: std::os::fd::BorrowedFd<'_>, _: &Facts) -> std::io::Result<()> {
            Err(std::io::ErrorKind::PermissionDenied.into())
        }
    }

    #[tokio::test]
    async fn a_connection_s_task_is_small() {
        let shared = Shared::new(Box::new(Nobody), Upstream::Transparent);
        let set = vec![RuleSet::open(1, Parser::Http)];
        let update = RulesUpdate { revision: 1, whole: true, last: true, set, removed: vec![] };
        shared.rules.store(Arc::new(crate::rules::Table::default().with(update)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let peer = stream.local_addr().unwrap();
        let size = size_of_val(&serve(shared, stream, peer, Direction::Ingress, None));
        assert!(size <= 3_584, "{size} bytes");
    }
}
