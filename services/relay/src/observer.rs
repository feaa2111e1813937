//! What do all nodes together answer?

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use flow::{
    proto::{
        observer::{
            self, GetAgentEventsRequest, GetAgentEventsResponse, GetDebugEventsRequest, GetDebugEventsResponse,
            GetFlowsRequest, GetFlowsResponse, GetNamespacesRequest, GetNamespacesResponse, GetNodesRequest,
            GetNodesResponse, Namespace, ServerStatusRequest, ServerStatusResponse, get_flows_response::ResponseTypes,
        },
        relay::{NodeState, NodeStatusEvent},
    },
    wkt::{Timestamp, UInt32Value},
};
use futures::{StreamExt, future::join_all, stream::BoxStream};
use hubble::rpc::observer::{observer_client::ObserverClient, observer_server::Observer};
use tokio::{
    sync::mpsc,
    time::{interval, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, transport::Channel};
use tracing::warn;

use crate::{
    args::Serve,
    merge::{self, Client},
    pool::{Node, Pool},
};

/// How relay answers.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `cluster/host`, under which relay speaks of nodes.
    pub name: String,
    /// Name and version.
    pub version: String,
    /// At most so many flows wait to be sorted in follow mode.
    pub sort_buffer: usize,
    /// So long they wait.
    pub sort_window: Duration,
    /// New nodes join requests in follow mode this often.
    pub join_interval: Duration,
    /// A node that does not answer a simple question for so long is unavailable.
    pub answer_timeout: Duration,
}

impl From<&Serve> for Settings {
    fn from(options: &Serve) -> Self {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host = host.trim();
        Self {
            name: format!("{}/{}", options.cluster_name, if host.is_empty() { "hubble-relay" } else { host }),
            version: concat!("hubble-relay v", env!("CARGO_PKG_VERSION")).to_owned(),
            sort_buffer: options.sort_buffer_len_max,
            sort_window: options.sort_buffer_drain_timeout,
            join_interval: Duration::from_secs(2),
            answer_timeout: Duration::from_secs(5),
        }
    }
}

/// See the module. Clones are the same relay.
#[derive(Clone)]
pub struct Relay {
    pool: Pool,
    settings: Arc<Settings>,
}

/// How many answers of a node, or for a client, wait in between.
const BACKLOG: usize = 64;
/// So many unavailable nodes are named.
const NAMED_NODES: usize = 10;

impl Relay {
    /// A relay over a pool of nodes.
    pub fn new(pool: Pool, settings: Settings) -> Self {
        Self { pool, settings: Arc::new(settings) }
    }

    /// Asks all nodes that can be reached; the others, and those that do not answer, come back as unavailable.
    async fn ask<T, F>(&self, question: impl Fn(ObserverClient<Channel>) -> F) -> Vec<(Node, Result<T, String>)>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let asking = self.pool.nodes().into_iter().map(|node| {
            let answer = node.channel.clone().map(|channel| question(ObserverClient::new(channel)));
            async move {
                let Some(answer) = answer else { return (node, Err("no connection".to_owned())) };
                let answer = match timeout(self.settings.answer_timeout, answer).await {
                    Ok(Ok(answer)) => Ok(answer.into_inner()),
                    Ok(Err(status)) => Err(status.message().to_owned()),
                    Err(_) => Err(format!("no answer within {:?}", self.settings.answer_timeout)),
                };
                if let Err(error) = &answer {
                    warn!(node = node.name, error, "node does not answer");
                }
                (node, answer)
            }
        });
        join_all(asking).await
    }

    fn status(&self, state: NodeState, nodes: Vec<String>, message: String) -> GetFlowsResponse {
        let event = NodeStatusEvent { state_change: state.into(), node_names: nodes, message };
        GetFlowsResponse {
            response_types: Some(ResponseTypes::NodeStatus(event)),
            node_name: self.settings.name.clone(),
            time: Some(Timestamp::from(jiff::Timestamp::now())),
        }
    }

    /// Tells the client of which nodes it will hear.
    async fn introduce(&self, nodes: &[Node], client: &Client) -> Result<(), merge::Gone> {
        let names = |reachable: bool| -> Vec<String> {
            let chosen = nodes.iter().filter(|node| node.channel.is_some() == reachable);
            chosen.map(|node| node.name.clone()).collect()
        };
        for (state, names) in [(NodeState::NodeConnected, names(true)), (NodeState::NodeUnavailable, names(false))] {
            if !names.is_empty() {
                let status = self.status(state, names, String::new());
                client.send(Ok(status)).await.map_err(|_| merge::Gone)?;
            }
        }
        Ok(())
    }

    /// Sends a node's answers on; a failure becomes a message about the node.
    async fn forward(self, node: Node, request: GetFlowsRequest, sink: mpsc::Sender<GetFlowsResponse>) {
        let Some(channel) = node.channel.clone() else { return };
        let mut answers = match ObserverClient::new(channel).get_flows(request).await {
            Ok(answers) => answers.into_inner(),
            Err(status) => return self.report(&node, &status, &sink).await,
        };
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(answer) => {
                    if sink.send(answer).await.is_err() {
                        return;
                    }
                }
                Err(status) => return self.report(&node, &status, &sink).await,
            }
        }
    }

    async fn report(&self, node: &Node, status: &Status, sink: &mpsc::Sender<GetFlowsResponse>) {
        warn!(node = node.name, %status, "flows of the node end");
        let message = self.status(NodeState::NodeError, vec![node.name.clone()], status.message().to_owned());
        // Whoever does not listen any more need not know.
        let _ = sink.send(message).await;
    }

    async fn flows_once(&self, nodes: Vec<Node>, request: GetFlowsRequest, client: &Client) -> Result<(), merge::Gone> {
        let reachable = nodes.into_iter().filter(|node| node.channel.is_some());
        let sources = reachable.map(|node| {
            let (sink, source) = mpsc::channel(BACKLOG);
            tokio::spawn(self.clone().forward(node, request.clone(), sink));
            source
        });
        merge::ordered(sources.collect(), client, self.settings.sort_window).await
    }

    /// Nodes that join, or come back, are asked as well, but not again for what was before.
    async fn flows_follow(
        &self,
        nodes: Vec<Node>,
        request: GetFlowsRequest,
        client: &Client,
    ) -> Result<(), merge::Gone> {
        let (sink, source) = mpsc::channel(BACKLOG);
        let asked = Arc::new(Mutex::new(BTreeSet::new()));
        self.follow_nodes(nodes, &request, &sink, &asked);
        let later = GetFlowsRequest { number: 0, since: request.since.map(|_| now()), ..request };
        let joining = async {
            let mut tick = interval(self.settings.join_interval);
            tick.tick().await;
            loop {
                tick.tick().await;
                self.follow_nodes(self.pool.nodes(), &later, &sink, &asked);
            }
        };
        tokio::select! {
            merged = merge::windowed(source, client, self.settings.sort_buffer, self.settings.sort_window) => merged,
            () = joining => Ok(()),
        }
    }

    fn follow_nodes(
        &self,
        nodes: Vec<Node>,
        request: &GetFlowsRequest,
        sink: &mpsc::Sender<GetFlowsResponse>,
        asked: &Arc<Mutex<BTreeSet<String>>>,
    ) {
        for node in nodes.into_iter().filter(|node| node.channel.is_some()) {
            let name = node.name.clone();
            if !asked.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone()) {
                continue;
            }
            let forwarding = self.clone().forward(node, request.clone(), sink.clone());
            let asked = asked.clone();
            tokio::spawn(async move {
                forwarding.await;
                asked.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
            });
        }
    }
}

fn now() -> Timestamp {
    jiff::Timestamp::now().into()
}

type Answers<T> = BoxStream<'static, Result<T, Status>>;

#[tonic::async_trait]
impl Observer for Relay {
    type GetFlowsStream = Answers<GetFlowsResponse>;
    type GetAgentEventsStream = Answers<GetAgentEventsResponse>;
    type GetDebugEventsStream = Answers<GetDebugEventsResponse>;

    async fn get_flows(&self, request: Request<GetFlowsRequest>) -> Result<Response<Self::GetFlowsStream>, Status> {
        let request = request.into_inner();
        if request.first && request.follow {
            return Err(Status::invalid_argument("first cannot be specified with follow"));
        }
        let (client, receiver) = mpsc::channel(BACKLOG);
        let relay = self.clone();
        tokio::spawn(async move {
            let nodes = relay.pool.nodes();
            let answering = async {
                relay.introduce(&nodes, &client).await?;
                match request.follow {
                    true => relay.flows_follow(nodes, request, &client).await,
                    false => relay.flows_once(nodes, request, &client).await,
                }
            };
            tokio::select! {
                () = client.closed() => {}
                _ = answering => {}
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver).boxed()))
    }

    async fn get_agent_events(
        &self,
        _: Request<GetAgentEventsRequest>,
    ) -> Result<Response<Self::GetAgentEventsStream>, Status> {
        Err(Status::unimplemented(
            "GetAgentEvents: ask a node's agent (unix:///var/run/cilium/hubble.sock) instead of relay",
        ))
    }

    async fn get_debug_events(
        &self,
        _: Request<GetDebugEventsRequest>,
    ) -> Result<Response<Self::GetDebugEventsStream>, Status> {
        Err(Status::unimplemented(
            "GetDebugEvents: ask a node's agent (unix:///var/run/cilium/hubble.sock) instead of relay",
        ))
    }

    async fn get_nodes(&self, _: Request<GetNodesRequest>) -> Result<Response<GetNodesResponse>, Status> {
        let answers = self.ask(|mut client| async move { client.server_status(ServerStatusRequest {}).await }).await;
        let nodes = answers.into_iter().map(|(node, answer)| {
            let state = match (&answer, &node.channel) {
                (Ok(_), _) => NodeState::NodeConnected,
                (Err(_), Some(_)) => NodeState::NodeError,
                (Err(_), None) => NodeState::NodeUnavailable,
            };
            let status = answer.unwrap_or_default();
            let server_name = node.tls_server_name.clone().unwrap_or_default();
            observer::Node {
                name: node.name,
                version: status.version,
                address: node.address,
                state: state.into(),
                tls: Some(observer::Tls { enabled: node.tls_server_name.is_some(), server_name }),
                uptime_ns: status.uptime_ns,
                num_flows: status.num_flows,
                max_flows: status.max_flows,
                seen_flows: status.seen_flows,
            }
        });
        Ok(Response::new(GetNodesResponse { nodes: nodes.collect() }))
    }

    async fn get_namespaces(
        &self,
        _: Request<GetNamespacesRequest>,
    ) -> Result<Response<GetNamespacesResponse>, Status> {
        let answers = self.ask(|mut client| async move { client.get_namespaces(GetNamespacesRequest {}).await }).await;
        let all = answers.into_iter().filter_map(|(_, answer)| answer.ok()).flat_map(|answer| answer.namespaces);
        let sorted: BTreeMap<(String, String), Namespace> =
            all.map(|n| ((n.cluster.clone(), n.namespace.clone()), n)).collect();
        Ok(Response::new(GetNamespacesResponse { namespaces: sorted.into_values().collect() }))
    }

    async fn server_status(&self, _: Request<ServerStatusRequest>) -> Result<Response<ServerStatusResponse>, Status> {
        let answers = self.ask(|mut client| async move { client.server_status(ServerStatusRequest {}).await }).await;
        let mut total = ServerStatusResponse { version: self.settings.version.clone(), ..Default::default() };
        let (mut connected, mut unavailable) = (0, 0);
        for (node, answer) in answers {
            let Ok(status) = answer else {
                unavailable += 1;
                if total.unavailable_nodes.len() < NAMED_NODES {
                    total.unavailable_nodes.push(node.name);
                }
                continue;
            };
            connected += 1;
            total.num_flows += status.num_flows;
            total.max_flows += status.max_flows;
            total.seen_flows += status.seen_flows;
            total.uptime_ns = total.uptime_ns.max(status.uptime_ns);
            total.flows_rate += status.flows_rate;
        }
        total.num_connected_nodes = Some(UInt32Value::from(connected));
        total.num_unavailable_nodes = Some(UInt32Value::from(unavailable));
        Ok(Response::new(total))
    }
}
