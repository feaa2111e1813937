//! Which addresses have the names of services and pods? The program of the cluster's DNS pods.
//!
//! Names below the cluster's domain are answered from what the API server says (see [`records`] and [`lookup`]), all others
//! by the name servers of `/etc/resolv.conf`. The program goes on, not ready, while the API server cannot be reached.

pub mod forward;
pub mod lookup;
pub mod records;
mod watch;

use crate::datagram::Datagrams;
use crate::message::{self, Reply, Request, Transport};
use crate::name_server::{self, NameServer};
use crate::outside::constant;
use crate::program;
use crate::sockets::listen_everywhere;
use forward::Forwarder;
use futures::future::try_join_all;
use hickory_proto::op::{Query, ResponseCode};
use hickory_proto::rr::Name;
use hyper::StatusCode;
use lookup::Outcome;
use records::Cluster;
use std::io;
use std::process::ExitCode;
use std::sync::{Arc, PoisonError, RwLock};
use tracing::info;

const RESOLVERS: &str = "/etc/resolv.conf";
const DOMAIN: &str = "cluster.local";

/// The ports that the pods of a cluster expect.
#[derive(Debug, Clone, Copy)]
struct Ports {
    names: u16,
    health: u16,
    ready: u16,
}

const PORTS: Ports = Ports { names: 53, health: 8080, ready: 8181 };

/// Runs the cluster's DNS until it is told to end. `--domain NAME` in place of `cluster.local`; the arguments that the
/// original has (`-conf FILE`) are taken and mean nothing.
pub fn main_with(args: Vec<String>) -> ExitCode {
    let domain = args.iter().skip_while(|w| *w != "--domain").nth(1).map_or(DOMAIN, String::as_str);
    let Ok(domain) = Name::from_ascii(domain) else {
        return program::refuse("coredns", &format!("--domain {domain:?} is not a domain name"));
    };
    program::run("coredns", run(domain))
}

async fn run(domain: Name) -> io::Result<()> {
    let text = std::fs::read_to_string(RESOLVERS)?;
    let server = Arc::new(ClusterDns::new(domain, Forwarder::new(forward::name_servers(&text))));
    info!(servers = ?server.forwarder.servers(), "other names are asked of");
    let cluster = server.cluster.clone();
    tokio::select! {
        ended = serve(server, PORTS) => ended,
        () = watch::keep(cluster) => Ok(()),
    }
}

async fn serve(server: Arc<ClusterDns>, ports: Ports) -> io::Result<()> {
    let streams = tokio::spawn(name_server::streams(listen_everywhere(ports.names)?, server.clone()));
    let mut tasks = vec![streams];
    for socket in Datagrams::bind_everywhere(ports.names)? {
        tasks.push(tokio::spawn(name_server::datagrams(socket, server.clone())));
    }
    tasks.push(tokio::spawn(constant(listen_everywhere(ports.health)?, || (StatusCode::OK, "OK"))));
    let readiness = move || match server.ready() {
        true => (StatusCode::OK, "OK"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "kubernetes"),
    };
    tasks.push(tokio::spawn(constant(listen_everywhere(ports.ready)?, readiness)));
    for ended in try_join_all(tasks).await? {
        ended?;
    }
    Ok(())
}

/// The cluster's names and who knows the others.
struct ClusterDns {
    cluster: Arc<RwLock<Cluster>>,
    domain: Name,
    forwarder: Forwarder,
}

impl ClusterDns {
    fn new(domain: Name, forwarder: Forwarder) -> ClusterDns {
        let cluster = Cluster::new(domain);
        let domain = cluster.domain().clone();
        ClusterDns { cluster: Arc::new(RwLock::new(cluster)), domain, forwarder }
    }

    /// Whether the API server has told all that there is, at least once.
    fn ready(&self) -> bool {
        self.cluster.read().unwrap_or_else(PoisonError::into_inner).complete()
    }

    fn look_up(&self, query: &Query, turn: u16) -> Outcome {
        let cluster = self.cluster.read().unwrap_or_else(PoisonError::into_inner);
        if !cluster.complete() && self.domain.zone_of(query.name()) {
            return Outcome::Reply(Reply::of(ResponseCode::ServFail));
        }
        cluster.look_up(query, turn)
    }

    async fn reply(&self, query: &Query, turn: u16) -> Reply {
        match self.look_up(query, turn) {
            Outcome::Reply(reply) => reply,
            Outcome::Elsewhere => self.forwarder.ask(query).await,
            Outcome::Alias(mut reply, target) => {
                let mut next = query.clone();
                next.set_name(target);
                let end = match self.look_up(&next, turn) {
                    Outcome::Reply(end) | Outcome::Alias(end, _) => end,
                    Outcome::Elsewhere => self.forwarder.ask(&next).await,
                };
                reply.code = end.code;
                reply.answers.extend(end.answers);
                reply
            }
        }
    }
}

impl NameServer for ClusterDns {
    async fn answer(&self, bytes: &[u8], transport: Transport) -> Option<Vec<u8>> {
        match message::read(bytes, transport) {
            Request::Question(question) => {
                let reply = self.reply(&question.query, question.id).await;
                Some(question.answer(reply))
            }
            Request::Refused(answer) => Some(answer),
            Request::Ignored => None,
        }
    }
}

#[cfg(test)]
mod tests;
