//! Does relay answer for two nodes as for one, in order, and say so when one is away?
#![allow(clippy::unwrap_used)]

use std::{sync::Arc, time::Duration};

use flow::{
    Directory, Node,
    proto::{
        flow::Flow,
        observer::{
            GetFlowsRequest, GetFlowsResponse, GetNamespacesRequest, GetNodesRequest, ServerStatusRequest,
            get_flows_response::ResponseTypes,
        },
        relay::NodeState,
    },
    wkt::Timestamp,
};
use futures::StreamExt;
use hubble::{
    Config, Hubble, Listeners, PeerAddress,
    client::{self, Options},
    rpc::observer::{observer_client::ObserverClient, observer_server::ObserverServer},
    server::{serve_routes, with_health},
};
use relay::{Pool, PoolSettings, Relay, Settings};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{service::Routes, transport::Channel};

struct World(&'static str);

impl Directory for World {
    fn node(&self) -> Arc<Node> {
        Arc::new(Node { cluster: "kind".into(), name: self.0.into(), labels: Vec::new() })
    }
}

struct Served {
    hubble: Hubble,
    address: String,
    stop: CancellationToken,
}

async fn node(name: &'static str) -> Served {
    let hubble = Hubble::new(Config::default(), Arc::new(World(name)));
    let listeners = Listeners::new().with_tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listeners.tcp[0].local_addr().unwrap().to_string();
    let stop = CancellationToken::new();
    let (server, stopped) = (hubble.clone(), stop.clone());
    tokio::spawn(async move { server.serve(listeners, stopped).await });
    Served { hubble, address, stop }
}

fn push(node: &Served, seconds: i64) {
    node.hubble.push_flow(Flow { time: Some(Timestamp { seconds, nanos: 0 }), ..Flow::default() });
}

/// A relay over the nodes that the first one names.
async fn relay(first: &Served) -> (Channel, CancellationToken) {
    let stop = CancellationToken::new();
    let settings =
        PoolSettings { peer_service: first.address.parse().unwrap(), retry: Duration::from_secs(1), tls: None };
    let pool = Pool::start(settings, stop.clone());
    let settings = Settings {
        name: "kind/relay".into(),
        version: "v1".into(),
        sort_buffer: 100,
        sort_window: Duration::from_millis(200),
        join_interval: Duration::from_millis(50),
        answer_timeout: Duration::from_secs(5),
    };
    let (routes, _health) = with_health(Routes::new(ObserverServer::new(Relay::new(pool, settings)))).await.unwrap();
    let listeners = Listeners::new().with_tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listeners.tcp[0].local_addr().unwrap().to_string();
    tokio::spawn(serve_routes(routes, listeners, stop.clone()));
    (client::connect(&address.parse().unwrap(), &Options::default()).await.unwrap(), stop)
}

/// Waits until relay has so many connections.
async fn connected(channel: &Channel, nodes: u32) {
    let mut client = ObserverClient::new(channel.clone());
    for _ in 0..400 {
        let status = client.server_status(ServerStatusRequest {}).await.unwrap().into_inner();
        if status.num_connected_nodes.unwrap().value == nodes {
            return;
        }
        sleep(Duration::from_millis(25)).await;
    }
    panic!("relay did not get {nodes} connections");
}

/// `node@second`, or what became of nodes.
fn told(response: &GetFlowsResponse) -> String {
    match response.response_types.as_ref().unwrap() {
        ResponseTypes::Flow(flow) => format!("{}@{}", flow.node_name, response.time.unwrap().seconds),
        ResponseTypes::NodeStatus(status) => format!("{:?} {}", status.state_change(), status.node_names.join(" ")),
        ResponseTypes::LostEvents(lost) => format!("{lost:?}"),
    }
}

async fn ask(channel: &Channel, request: GetFlowsRequest) -> Vec<String> {
    let answers = ObserverClient::new(channel.clone()).get_flows(request).await.unwrap().into_inner();
    answers.map(|answer| told(&answer.unwrap())).collect().await
}

fn peer(name: &str, address: &str) -> PeerAddress {
    PeerAddress { name: name.into(), address: address.into(), tls_server_name: None }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_answer_as_one() {
    let (a, b) = (node("a").await, node("b").await);
    a.hubble.peers().set([peer("kind/a", &a.address), peer("kind/b", &b.address)]);
    let (channel, _stop) = relay(&a).await;
    connected(&channel, 2).await;
    for seconds in 0..10 {
        push(if seconds % 3 == 0 { &a } else { &b }, seconds);
    }

    let all = ask(&channel, GetFlowsRequest::default()).await;
    assert_eq!(all[0], "NodeConnected kind/a kind/b");
    assert_eq!(
        all[1..].join(" "),
        "kind/a@0 kind/b@1 kind/b@2 kind/a@3 kind/b@4 kind/b@5 kind/a@6 kind/b@7 kind/b@8 kind/a@9"
    );
    // So many of each node.
    let last = ask(&channel, GetFlowsRequest { number: 2, ..GetFlowsRequest::default() }).await;
    assert_eq!(last[1..].join(" "), "kind/a@6 kind/b@7 kind/b@8 kind/a@9");

    let mut client = ObserverClient::new(channel.clone());
    let status = client.server_status(ServerStatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.num_flows, status.seen_flows, status.max_flows), (10, 10, 2 * 4095));
    let nodes = client.get_nodes(GetNodesRequest {}).await.unwrap().into_inner().nodes;
    assert!(nodes.iter().all(|node| node.state() == NodeState::NodeConnected && node.num_flows > 0));
    assert!(client.get_namespaces(GetNamespacesRequest {}).await.unwrap().into_inner().namespaces.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_hear_of_nodes_that_join_later() {
    let (a, b) = (node("a").await, node("b").await);
    a.hubble.peers().set([peer("kind/a", &a.address)]);
    let (channel, _stop) = relay(&a).await;
    connected(&channel, 1).await;
    let mut answers = ObserverClient::new(channel.clone())
        .get_flows(GetFlowsRequest { follow: true, ..GetFlowsRequest::default() })
        .await
        .unwrap()
        .into_inner();
    let mut next = async || told(&timeout(Duration::from_secs(10), answers.next()).await.unwrap().unwrap().unwrap());
    assert_eq!(next().await, "NodeConnected kind/a");
    a.hubble.peers().set([peer("kind/a", &a.address), peer("kind/b", &b.address)]);
    connected(&channel, 2).await;
    sleep(Duration::from_millis(500)).await;
    push(&b, 2);
    push(&a, 1);
    // Sorted, although the later one came first.
    assert_eq!(next().await, "kind/a@1");
    assert_eq!(next().await, "kind/b@2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_away_is_named() {
    let (a, b) = (node("a").await, node("b").await);
    a.hubble.peers().set([peer("kind/a", &a.address), peer("kind/b", &b.address), peer("kind/c", "127.0.0.1:1")]);
    let (channel, _stop) = relay(&a).await;
    connected(&channel, 2).await;
    push(&a, 1);
    let told = ask(&channel, GetFlowsRequest::default()).await;
    assert_eq!(told.join("; "), "NodeConnected kind/a kind/b; NodeUnavailable kind/c; kind/a@1");

    b.stop.cancel();
    connected(&channel, 1).await;
    let status = ObserverClient::new(channel.clone()).server_status(ServerStatusRequest {}).await.unwrap().into_inner();
    let mut away = status.unavailable_nodes;
    away.sort();
    assert_eq!((status.num_unavailable_nodes.unwrap().value, away.join(" ")), (2, "kind/b kind/c".into()));
    let told = ask(&channel, GetFlowsRequest::default()).await;
    assert!(told.contains(&"kind/a@1".to_owned()), "{told:?}");
}
