//! Do questions get their answers over sockets: the cluster's own, forwarded ones, long ones, and none?
#![allow(clippy::unwrap_used)]

mod with_api_server;

use super::*;
use crate::message::{answer_to, ask, framed};
use crate::zone::{Records, Zone};
use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;
use records::{Key, Source};
use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UdpSocket};

/// An upstream: a zone on loopback, by UDP and TCP.
struct Upstream(Zone);

impl NameServer for Upstream {
    async fn answer(&self, bytes: &[u8], transport: Transport) -> Option<Vec<u8>> {
        match message::read(bytes, transport) {
            Request::Question(question) => Some(question.answer(self.0.reply(&question.query))),
            other => panic!("{other:?}"),
        }
    }
}

/// Both sockets of a server at one port of loopback.
async fn started<S: NameServer>(server: S) -> SocketAddr {
    let server = Arc::new(server);
    let (listener, socket) = loop {
        let listener = crate::sockets::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        if let Ok(socket) = Datagrams::bind(listener.local_addr().unwrap()) {
            break (listener, socket);
        }
    };
    let address = listener.local_addr().unwrap();
    tokio::spawn(name_server::streams(listener, server.clone()));
    tokio::spawn(name_server::datagrams(socket, server));
    address
}

async fn upstream() -> SocketAddr {
    let many = Records { a: (0..200).map(|i| [192, 0, 2, i].into()).collect(), ..Records::default() };
    let names = [("many.org", many), ("one.org", Records { a: vec![[192, 0, 2, 1].into()], ..Records::default() })];
    started(Upstream(Zone::new(&names.map(|(n, r)| (n.to_string(), r)).into(), 30).unwrap())).await
}

/// A cluster with one service and an alias.
async fn cluster(upstream: Vec<SocketAddr>, complete: bool) -> SocketAddr {
    let server = ClusterDns::new(Name::from_ascii("cluster.local").unwrap(), Forwarder::new(upstream));
    {
        let mut cluster = server.cluster.write().unwrap();
        cluster.set_namespace("default");
        let key = |name: &str| Key { namespace: "default".into(), name: name.into() };
        let object = |spec| records::service(&serde_json::from_value(serde_json::json!({ "spec": spec })).unwrap());
        let names = [
            ("details", serde_json::json!({"clusterIP": "10.96.222.2"})),
            ("alias", serde_json::json!({"type": "ExternalName", "externalName": "one.org"})),
        ];
        let keys: HashSet<Key> = names.iter().map(|(name, _)| key(name)).collect();
        names.into_iter().for_each(|(name, spec)| cluster.set_service(key(name), object(spec)));
        if complete {
            let namespaces = [Key { namespace: String::new(), name: "default".into() }].into();
            cluster.listed(Source::Namespaces, &namespaces);
            cluster.listed(Source::Services, &keys);
            cluster.listed(Source::Slices, &HashSet::new());
        }
        assert_eq!(cluster.complete(), complete);
    }
    started(server).await
}

fn query(name: &str) -> Query {
    Query::query(Name::from_ascii(name).unwrap(), RecordType::A)
}

async fn by_udp(server: SocketAddr, name: &str) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(server).await.unwrap();
    socket.send(&ask(99, &query(name))).await.unwrap();
    let mut buffer = [0; 4096];
    let n = tokio::time::timeout(Duration::from_secs(10), socket.recv(&mut buffer)).await.unwrap().unwrap();
    answer_to(&buffer[..n], 99, &query(name)).unwrap()
}

async fn by_tcp(server: SocketAddr, names: &[&str]) -> Vec<Message> {
    let mut stream = TcpStream::connect(server).await.unwrap();
    for (id, name) in (0..).zip(names) {
        stream.write_all(&framed(&ask(id, &query(name)))).await.unwrap();
    }
    let mut answers = Vec::new();
    for (id, name) in (0..).zip(names) {
        let bytes = name_server::frame(&mut stream).await.unwrap().unwrap();
        answers.push(answer_to(&bytes, id, &query(name)).unwrap());
    }
    answers
}

fn data(message: &Message) -> Vec<String> {
    message.answers.iter().map(|r| r.data.to_string()).collect()
}

#[tokio::test]
async fn names_of_the_cluster_and_of_the_world() {
    let server = cluster(vec![upstream().await], true).await;
    let own = by_udp(server, "details.default.svc.cluster.local.").await;
    assert_eq!((data(&own), own.answers[0].ttl), (vec!["10.96.222.2".to_string()], 30));
    assert_eq!(data(&by_udp(server, "one.org.").await), ["192.0.2.1"]);
    assert_eq!(data(&by_udp(server, "alias.default.svc.cluster.local.").await), ["one.org.", "192.0.2.1"]);
    for name in ["one.org.default.svc.cluster.local.", "nobody.org."] {
        let nothing = by_udp(server, name).await;
        assert_eq!(nothing.metadata.response_code, ResponseCode::NXDomain, "{name}");
        assert_eq!(nothing.authorities[0].record_type(), RecordType::SOA);
    }
}

#[tokio::test]
async fn long_answers_come_whole_by_stream_one_after_the_other() {
    let server = cluster(vec![upstream().await], true).await;
    assert!(by_udp(server, "many.org.").await.metadata.truncation);
    let answers = by_tcp(server, &["many.org.", "details.default.svc.cluster.local."]).await;
    assert_eq!((answers[0].answers.len(), answers[1].answers.len()), (200, 1));
}

#[tokio::test]
async fn a_server_that_is_silent_or_lies_is_passed_over() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let silent_at = silent.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        loop {
            let (n, from) = silent.recv_from(&mut buffer).await.unwrap();
            // answers another question, and this one under another number
            buffer[2] |= 0x80;
            buffer[0] ^= 0xff;
            silent.send_to(&buffer[..n], from).await.unwrap();
        }
    });
    let server = cluster(vec![silent_at, upstream().await], true).await;
    assert_eq!(data(&by_udp(server, "one.org.").await), ["192.0.2.1"]);
}

#[tokio::test]
async fn without_servers_or_knowledge_the_answer_is_failure() {
    let server = cluster(Vec::new(), false).await;
    for name in ["one.org.", "details.default.svc.cluster.local."] {
        assert_eq!(by_udp(server, name).await.metadata.response_code, ResponseCode::ServFail, "{name}");
    }
}
