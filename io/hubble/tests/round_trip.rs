//! Does a client get what the agent pushed, by every way of asking?
#![allow(clippy::unwrap_used)]

use std::{net::IpAddr, sync::Arc, time::Duration};

use abi::{
    Addr, Port, V4,
    event::{self, Event},
};
use flow::{
    Directory, Node, Peer,
    proto::{
        flow::{AgentEvent, LostEventSource},
        observer::{
            GetAgentEventsRequest, GetFlowsRequest, GetFlowsResponse, GetNamespacesRequest, GetNodesRequest,
            ServerStatusRequest, get_flows_response::ResponseTypes,
        },
        peer::NotifyRequest,
    },
    wkt::FieldMask,
};
use futures::StreamExt;
use hubble::{
    Capacity, Config, Hubble, Listeners, PeerAddress,
    client::{self, Options},
    rpc::{observer::observer_client::ObserverClient, peer::peer_client::PeerClient},
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

/// Pods 10.0.0.N, of which the first is on this node.
struct World;

impl Directory for World {
    fn node(&self) -> Arc<Node> {
        Arc::new(Node { cluster: "kind".into(), name: "worker".into(), labels: Vec::new() })
    }
    fn peer(&self, address: IpAddr) -> Option<Arc<Peer>> {
        let IpAddr::V4(v4) = address else { return None };
        let number = u32::from(v4.octets()[3]);
        Some(Arc::new(Peer {
            endpoint: u32::from(number == 1),
            identity: 1000 + number,
            namespace: format!("ns-{number}"),
            pod: format!("pod-{number}"),
            ..Peer::default()
        }))
    }
}

/// From pod 1 to pod 2, with the number as source port.
fn event(number: u16) -> Event {
    Event {
        time: u64::from(number),
        source: V4::from(std::net::Ipv4Addr::new(10, 0, 0, 1)).widen(),
        destination: V4::from(std::net::Ipv4Addr::new(10, 0, 0, 2)).widen(),
        source_port: Port::new(number),
        destination_port: Port::new(80),
        ip_version: 4,
        protocol: 17,
        endpoint: 1,
        kind: event::KIND_TRACE,
        code: event::TRACE_TO_LXC,
        direction: event::DIR_UNKNOWN,
        ..Event::default()
    }
}

async fn serve(capacity: u64) -> (Hubble, Channel, CancellationToken) {
    let config = Config {
        capacity: Capacity::new(capacity).unwrap(),
        lost_interval: Duration::from_millis(10),
        ..Config::default()
    };
    let hubble = Hubble::new(config, Arc::new(World));
    let stop = CancellationToken::new();
    let listeners = Listeners::new().with_tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listeners.tcp[0].local_addr().unwrap().to_string();
    let (server, stopped) = (hubble.clone(), stop.clone());
    tokio::spawn(async move { server.serve(listeners, stopped).await });
    let channel = client::connect(&address.parse().unwrap(), &Options::default()).await.unwrap();
    (hubble, channel, stop)
}

/// Source ports of flows; `-n` for n lost events.
fn told(response: &GetFlowsResponse) -> i64 {
    match response.response_types.as_ref().unwrap() {
        ResponseTypes::Flow(flow) => {
            let l4 = serde_json::to_value(flow.l4.as_ref().unwrap()).unwrap();
            l4["UDP"]["source_port"].as_i64().unwrap()
        }
        ResponseTypes::LostEvents(lost) => -i64::try_from(lost.num_events_lost).unwrap(),
        ResponseTypes::NodeStatus(status) => panic!("{status:?}"),
    }
}

async fn ask(channel: &Channel, request: GetFlowsRequest) -> Vec<i64> {
    let answers = ObserverClient::new(channel.clone()).get_flows(request).await.unwrap().into_inner();
    answers.map(|answer| told(&answer.unwrap())).collect().await
}

#[tokio::test]
async fn selections_of_flows() {
    let (hubble, channel, _stop) = serve(15).await;
    hubble.push_batch(&(1..=20).map(event).collect::<Vec<_>>());
    let request = GetFlowsRequest::default;
    assert_eq!(ask(&channel, GetFlowsRequest { number: 3, ..request() }).await, [18, 19, 20]);
    assert_eq!(ask(&channel, GetFlowsRequest { number: 2, first: true, ..request() }).await, [6, 7]);
    assert_eq!(ask(&channel, request()).await.len(), 15);

    let port = |port: &str| serde_json::from_str(&format!(r#"[{{"source_port":["{port}"]}}]"#)).unwrap();
    assert_eq!(ask(&channel, GetFlowsRequest { whitelist: port("9"), number: 5, ..request() }).await, [9]);
    assert_eq!(ask(&channel, GetFlowsRequest { blacklist: port("20"), number: 1, ..request() }).await, [19]);

    let newest = ObserverClient::new(channel.clone())
        .get_flows(GetFlowsRequest { number: 1, ..request() })
        .await
        .unwrap()
        .into_inner()
        .next()
        .await
        .unwrap()
        .unwrap();
    let since = newest.time;
    assert_eq!(ask(&channel, GetFlowsRequest { since, ..request() }).await, [20]);
}

#[tokio::test]
async fn masks_names_and_errors() {
    let (hubble, channel, _stop) = serve(15).await;
    hubble.push(event(7));
    let mut client = ObserverClient::new(channel.clone());
    let field_mask = Some(FieldMask { paths: vec!["source.pod_name".into(), "l4".into(), "node_name".into()] });
    let request = GetFlowsRequest { field_mask, ..GetFlowsRequest::default() };
    let answer = client.get_flows(request).await.unwrap().into_inner().next().await.unwrap().unwrap();
    assert_eq!(answer.node_name, "kind/worker");
    let Some(ResponseTypes::Flow(flow)) = answer.response_types else { panic!() };
    let source = flow.source.unwrap();
    assert_eq!((source.pod_name.as_str(), source.identity, flow.destination), ("pod-1", 0, None));

    for wrong in [
        GetFlowsRequest { first: true, follow: true, ..GetFlowsRequest::default() },
        GetFlowsRequest { field_mask: Some(FieldMask { paths: vec!["nope".into()] }), ..GetFlowsRequest::default() },
        GetFlowsRequest {
            whitelist: serde_json::from_str(r#"[{"source_ip":["nope"]}]"#).unwrap(),
            ..GetFlowsRequest::default()
        },
    ] {
        assert_eq!(client.get_flows(wrong).await.unwrap_err().code(), tonic::Code::InvalidArgument);
    }
    assert_eq!(client.get_nodes(GetNodesRequest {}).await.unwrap_err().code(), tonic::Code::Unimplemented);
    let namespaces = client.get_namespaces(GetNamespacesRequest {}).await.unwrap().into_inner().namespaces;
    assert_eq!(namespaces.iter().map(|n| n.namespace.as_str()).collect::<Vec<_>>(), ["ns-1", "ns-2"]);
    let status = client.server_status(ServerStatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.num_flows, status.max_flows, status.seen_flows), (1, 15, 1));
}

/// What a follower gets and what it is told to have missed are together all that was pushed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_lose_nothing_silently() {
    let (hubble, channel, _stop) = serve(63).await;
    let mut answers = ObserverClient::new(channel)
        .get_flows(GetFlowsRequest { follow: true, ..GetFlowsRequest::default() })
        .await
        .unwrap()
        .into_inner();
    let pusher = tokio::task::spawn_blocking(move || {
        for batch in (0..20_000_u16).collect::<Vec<_>>().chunks(500) {
            hubble.push_batch(&batch.iter().copied().map(event).collect::<Vec<_>>());
        }
        hubble
    });
    let (mut seen, mut lost) = (0, 0);
    while seen + lost < 20_000 {
        match told(&timeout(Duration::from_secs(20), answers.next()).await.unwrap().unwrap().unwrap()) {
            missed if missed < 0 => lost -= missed,
            _ => seen += 1,
        }
    }
    assert_eq!(seen + lost, 20_000);
    assert!(seen > 0);
    pusher.await.unwrap();
}

#[tokio::test]
async fn losses_before_the_ring_and_agent_events() {
    let (hubble, channel, _stop) = serve(15).await;
    hubble.push_lost(LostEventSource::PerfEventRingBuffer, 12);
    hubble.push_agent_event(AgentEvent { r#type: 2, ..AgentEvent::default() });
    hubble.push(event(1));
    assert_eq!(ask(&channel, GetFlowsRequest::default()).await, [-12, 1]);
    let events = ObserverClient::new(channel)
        .get_agent_events(GetAgentEventsRequest { number: 5, ..GetAgentEventsRequest::default() })
        .await
        .unwrap();
    let events: Vec<_> = events.into_inner().collect().await;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].as_ref().unwrap().agent_event.as_ref().unwrap().r#type, 2);
}

#[tokio::test]
async fn a_unix_socket_serves_peers_and_replaces_a_dead_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run/hubble.sock");
    let address = format!("unix://{}", path.display()).parse().unwrap();
    assert!(client::connect(&address, &Options::default()).await.is_err());
    let hubble = Hubble::new(Config::default(), Arc::new(World));
    hubble.peers().set([PeerAddress { name: "kind/a".into(), address: "10.0.0.1:4244".into(), tls_server_name: None }]);
    for _ in 0..2 {
        let stop = CancellationToken::new();
        let listeners = Listeners::new().with_unix(&path).unwrap();
        assert!(Listeners::new().with_unix(&path).is_err(), "it is in use");
        let (server, stopped) = (hubble.clone(), stop.clone());
        let serving = tokio::spawn(async move { server.serve(listeners, stopped).await });
        let channel = client::connect(&address, &Options::default()).await.unwrap();
        let mut peers = PeerClient::new(channel).notify(NotifyRequest {}).await.unwrap().into_inner();
        assert_eq!(peers.next().await.unwrap().unwrap().name, "kind/a");
        drop(peers);
        stop.cancel();
        timeout(Duration::from_secs(5), serving).await.unwrap().unwrap().unwrap();
    }
}
