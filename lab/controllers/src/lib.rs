//! Lab's controllers: what follows from the objects that users write, and who brings it about?
//!
//! Each controller is a function from a view of the cluster to the actions that are missing; one shell watches, calls
//! them after every change and carries their actions out. What an action returns goes into the view at once, so no
//! function decides on what it has changed already.

mod action;
mod daemon_sets;
mod deployments;
mod endpoints;
mod ipam;
mod jobs;
mod namespaces;
mod nodes;
mod placement;
mod pods;
mod read;
mod replica_sets;
mod rolling;
mod scheduler;
mod shell;
mod slices;
mod stateful_sets;
mod template;
mod view;

use std::time::Duration;

use ipnet::IpNet;

/// What the controllers need to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where nodes' pod ranges are cut from, and how long their prefixes are: `(10.244.0.0/16, 24)`.
    pub pod_cidrs: Vec<(IpNet, u8)>,
    /// The cluster authority's certificate (PEM), for `kube-root-ca.crt` in every namespace.
    pub authority: String,
    /// How long a node may be silent before it counts as lost (40 s in a usual cluster).
    pub node_grace: Duration,
}

/// Why the controllers ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A watch could not be set up.
    #[error("watch {kind}: {reason}")]
    Watch { kind: &'static str, reason: String },
}

/// Runs all controllers until it is dropped; it returns only if it cannot go on.
///
/// # Errors
/// If a watch ends for good.
pub async fn run(client: kube::Client, config: Config) -> Result<(), Error> {
    shell::run(client, config).await
}

/// Everything that is missing in the cluster as it is seen now.
fn plan(view: &view::View, config: &Config, now: jiff::Timestamp) -> Vec<action::Action> {
    let mut actions = namespaces::plan(view, config);
    actions.extend(ipam::plan(view, config));
    actions.extend(nodes::plan(view, config, now));
    actions.extend(deployments::plan(view, now));
    actions.extend(replica_sets::plan(view, now));
    actions.extend(daemon_sets::plan(view, now));
    actions.extend(stateful_sets::plan(view, now));
    actions.extend(jobs::plan(view, now));
    actions.extend(scheduler::plan(view, now));
    actions.extend(endpoints::plan(view));
    actions.extend(slices::plan(view));
    actions
}
