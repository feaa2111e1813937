//! What does the server know? `list`, `status` and `watch`.

use std::io::{self, Write as _};

use flow::{
    print::{Options, Output, Printer, Tabs, clean},
    proto::{
        observer::{GetNamespacesRequest, GetNodesRequest, Namespace, Node, ServerStatusRequest},
        peer::NotifyRequest,
        relay::NodeState,
    },
    time::print_duration,
};
use futures::StreamExt;
use hubble::server::HEALTH_SERVICE;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};

use crate::{connect::connect, error::Error, parse::Line, settings::Settings};

fn write(text: &str) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

fn pretty(value: &impl serde::Serialize) -> Result<String, Error> {
    let text = serde_json::to_string_pretty(value).map_err(flow::print::JsonError::from)?;
    Ok(text + "\n")
}

fn unknown_format(format: &str, known: &str) -> Error {
    Error::Usage(format!("unknown output format: {format}: want {known}"))
}

/// `hubble list nodes`
pub(crate) async fn nodes(line: &Line, settings: &Settings) -> Result<(), Error> {
    let format = line.text("output");
    if !["json", "table", "wide"].contains(&format.as_str()) {
        return Err(unknown_format(&format, "json, table or wide"));
    }
    let server = connect(settings).await?;
    let mut nodes = server.observer().get_nodes(server.timed(GetNodesRequest {})).await?.into_inner().nodes;
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    write(&if format == "json" { pretty(&nodes)? } else { node_table(&nodes, format == "wide") })
}

fn node_table(nodes: &[Node], wide: bool) -> String {
    let mut tabs = Tabs::default();
    let mut header = vec!["NAME", "STATUS", "AGE", "FLOWS/S", "CURRENT/MAX-FLOWS"];
    if wide {
        header.extend(["VERSION", "ADDRESS", "TLS"]);
    }
    tabs.row(header);
    for node in nodes {
        let cells = node_cells(node, wide);
        tabs.row(cells.iter().map(String::as_str));
    }
    tabs.align()
}

fn node_cells(node: &Node, wide: bool) -> Vec<String> {
    let missing = || "N/A".to_owned();
    let state = match node.state() {
        NodeState::NodeConnected => "Connected",
        NodeState::NodeUnavailable => "Unavailable",
        NodeState::NodeGone => "Gone",
        NodeState::NodeError => "Error",
        NodeState::UnknownNodeState => "Unknown",
    };
    let seconds = node.uptime_ns.saturating_add(500_000_000) / 1_000_000_000;
    let (age, rate) = match seconds {
        0 => (missing(), missing()),
        _ => (print_duration(seconds * 1_000_000_000), format!("{:.2}", node.seen_flows as f64 / seconds as f64)),
    };
    let fill = match node.max_flows {
        0 => missing(),
        max => format!("{}/{max} ({:6.2}%)", node.num_flows, node.num_flows as f64 / max as f64 * 100.0),
    };
    let mut cells = vec![clean(&node.name).into_owned(), state.to_owned(), age, rate, fill];
    if wide {
        let version = if node.version.is_empty() { missing() } else { clean(&node.version).into_owned() };
        let tls = match &node.tls {
            None => missing(),
            Some(tls) if tls.enabled => "Enabled".to_owned(),
            Some(_) => "Disabled".to_owned(),
        };
        cells.extend([version, clean(&node.address).into_owned(), tls]);
    }
    cells
}

/// `hubble list namespaces`
pub(crate) async fn namespaces(line: &Line, settings: &Settings) -> Result<(), Error> {
    let format = line.text("output");
    if !["json", "table", "wide"].contains(&format.as_str()) {
        return Err(unknown_format(&format, "json, table or wide"));
    }
    let server = connect(settings).await?;
    let answer = server.observer().get_namespaces(server.timed(GetNamespacesRequest {})).await?.into_inner();
    write(&match format.as_str() {
        "json" => pretty(&answer.namespaces)?,
        format => namespace_table(&answer.namespaces, format == "wide"),
    })
}

fn namespace_table(namespaces: &[Namespace], wide: bool) -> String {
    let mut tabs = Tabs::default();
    tabs.row(["NAMESPACE"].into_iter().chain(wide.then_some("CLUSTER")));
    for namespace in namespaces {
        let (name, cluster) = (clean(&namespace.namespace), clean(&namespace.cluster));
        let cluster = (wide && !cluster.is_empty()).then_some(&*cluster);
        tabs.row([&*name].into_iter().chain(cluster));
    }
    tabs.align()
}

/// `hubble status`
pub(crate) async fn status(line: &Line, settings: &Settings) -> Result<(), Error> {
    let format = line.text("output");
    let output = match format.as_str() {
        "compact" => Output::Compact,
        "dict" => Output::Dict,
        "json" | "JSON" | "jsonpb" => Output::JsonPb,
        "tab" | "table" => Output::Table,
        other => return Err(unknown_format(other, "compact, dict, json or table")),
    };
    let server = connect(settings).await?;
    let question = HealthCheckRequest { service: HEALTH_SERVICE.to_owned() };
    let health = server.health().check(server.timed(question)).await?.into_inner();
    let healthy = health.status() == ServingStatus::Serving;
    if output == Output::Compact {
        let word = if healthy { "Ok".to_owned() } else { format!("Unavailable: {}", health.status().as_str_name()) };
        write(&format!("Healthcheck (via {}): {word}\n", server.address))?;
    }
    if !healthy {
        return Err(Error::Usage("not healthy: the server runs but does not observe; see its log".to_owned()));
    }
    let answer = server.observer().server_status(server.timed(ServerStatusRequest {})).await?.into_inner();
    let mut printer = Printer::new(Options { output, ..Options::default() });
    let printed = printer.status(&answer)?;
    write(&(printed.out + &printer.close()))
}

/// `hubble watch peers`
pub(crate) async fn peers(settings: &Settings) -> Result<(), Error> {
    let server = connect(settings).await?;
    let mut changes = server.peer().notify(NotifyRequest {}).await?.into_inner();
    loop {
        let change = tokio::select! {
            change = changes.next() => change,
            _ = tokio::signal::ctrl_c() => return Ok(()),
        };
        let Some(change) = change.transpose()? else { return Ok(()) };
        let tls = change.tls.as_ref().map(|tls| format!(" (TLS.ServerName: {})", clean(&tls.server_name)));
        let kind = change.r#type().as_str_name();
        let (address, name) = (clean(&change.address), clean(&change.name));
        write(&format!("{kind:<12} {address} {name}{}\n", tls.unwrap_or_default()))?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables() {
        let node = Node {
            name: "kind/a".into(),
            version: "v1".into(),
            address: "172.18.0.2:4244".into(),
            state: NodeState::NodeConnected.into(),
            tls: Some(flow::proto::observer::Tls::default()),
            uptime_ns: 90_400_000_000,
            num_flows: 1024,
            max_flows: 4095,
            seen_flows: 45,
        };
        let gone = Node { name: "kind/b".into(), state: NodeState::NodeUnavailable.into(), ..Node::default() };
        assert_eq!(
            node_table(&[node.clone(), gone], false),
            "NAME     STATUS        AGE     FLOWS/S   CURRENT/MAX-FLOWS\nkind/a   Connected     1m30s   0.50      1024/4095 ( 25.01%)\nkind/b   Unavailable   N/A     N/A       N/A\n"
        );
        assert!(node_table(&[node], true).ends_with("v1        172.18.0.2:4244   Disabled\n"));
        let namespaces = [Namespace { namespace: "default".into(), cluster: "kind".into() }];
        assert_eq!(namespace_table(&namespaces, false), "NAMESPACE\ndefault\n");
        assert_eq!(namespace_table(&namespaces, true), "NAMESPACE   CLUSTER\ndefault     kind\n");
    }
}
