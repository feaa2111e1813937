//! Which policies and which cluster, out of files or as they are now?

mod agent;
mod kubernetes;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;

use crate::case::{Case, Config};
use crate::objects::Objects;

/// Where policies and the cluster are read, if not from files.
#[derive(Clone, Debug, Default, Args)]
pub struct Live {
    /// Policies and the cluster as they are now, by the current kubeconfig
    #[arg(long)]
    live: bool,
    /// The same by this kubeconfig
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The same as an agent knows them, by its socket
    #[arg(long, value_name = "SOCKET", conflicts_with_all = ["live", "kubeconfig"])]
    agent: Option<PathBuf>,
}

/// A cluster, from a file or as it is now.
#[derive(Clone, Debug, Default, Args)]
pub struct Cluster {
    /// Who is there: a case without policies and flows
    #[arg(long)]
    cluster: Option<PathBuf>,
    #[command(flatten)]
    live: Live,
    /// default, always or never, whatever the cluster's file or the case says
    #[arg(long)]
    pub enforcement: Option<String>,
}

/// Policies and a cluster, from files or as they are now.
#[derive(Clone, Debug, Default, Args)]
pub struct Sources {
    /// Policies from files, or from all files of folders
    #[arg(long, num_args = 1..)]
    policies: Vec<PathBuf>,
    #[command(flatten)]
    pub cluster: Cluster,
}

impl Sources {
    /// True if nothing is named, neither policies nor a cluster.
    pub fn is_empty(&self) -> bool {
        self.policies.is_empty() && self.cluster.cluster.is_none() && !self.cluster.is_live()
    }

    /// What they hold.
    pub fn given(&self) -> Result<Given> {
        self.cluster.given(&self.policies)
    }
}

impl Cluster {
    /// True if a cluster is read as it is now.
    pub fn is_live(&self) -> bool {
        !self.live.is_off()
    }

    /// The cluster: from a file, as it is now if that is asked for, or an empty one.
    pub fn case(&self) -> Result<Case> {
        let mut case = match &self.cluster {
            Some(file) => crate::eval::cluster(file)?,
            None => self.live.case()?.unwrap_or_default(),
        };
        if let Some(mode) = &self.enforcement {
            mode.clone_into(&mut case.config.mode);
        }
        Ok(case)
    }

    /// The cluster, with the policies of these files, and without files those that are there now.
    pub fn given(&self, files: &[PathBuf]) -> Result<Given> {
        let mut case = self.case()?;
        let settings = crate::world::settings(&case.config).map_err(anyhow::Error::msg)?;
        let mut objects = Objects::default();
        if self.is_live() {
            case = case.with_policies(files.is_empty());
        }
        objects.add_value(&std::mem::take(&mut case.policies), &settings);
        crate::files::read(files, |name, text| objects.add_file(name, text, &settings))?;
        Ok(Given { case, objects })
    }
}

/// Policies and who is there.
pub struct Given {
    /// Who is there, without policies.
    pub case: Case,
    /// Policies and what goes with them.
    pub objects: Objects,
}

impl Live {
    fn is_off(&self) -> bool {
        !self.live && self.kubeconfig.is_none() && self.agent.is_none()
    }

    /// The cluster as it is now with its policies, if that is asked for.
    pub fn case(&self) -> Result<Option<Case>> {
        if self.is_off() {
            return Ok(None);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
        runtime
            .block_on(async {
                match &self.agent {
                    Some(socket) => agent::read(socket).await,
                    None => kubernetes::read(self.kubeconfig.as_deref()).await,
                }
            })
            .map(Some)
    }
}

/// The settings of agents, by the names that they have in `cilium-config`.
fn config<'a>(value: impl Fn(&str) -> Option<&'a str>) -> Config {
    let is = |name: &str, default: bool| value(name).map_or(default, |text| text == "true");
    let text = |name: &str, default: &str| value(name).filter(|text| !text.is_empty()).unwrap_or(default).to_owned();
    let allow_localhost = match text("allow-localhost", "always").as_str() {
        "policy" => "policy",
        _ => "always",
    };
    Config {
        mode: text("enable-policy", "default"),
        audit: is("policy-audit-mode", false),
        ipv4: is("enable-ipv4", true),
        ipv6: is("enable-ipv6", false),
        host_firewall: is("enable-host-firewall", false),
        node_selector_labels: is("enable-node-selector-labels", false),
        cidr_match_mode: text("policy-cidr-match-mode", "")
            .split([',', ' '])
            .filter(|one| !one.is_empty())
            .map(str::to_owned)
            .collect(),
        allow_localhost: allow_localhost.to_owned(),
        cluster_name: text("cluster-name", "default"),
        cluster_id: text("cluster-id", "0").parse().unwrap_or(0),
        extended_ip_protocols: is("enable-extended-ip-protocols", false),
        no_l7_proxy: !is("enable-l7-proxy", true),
        no_icmp_rules: !is("enable-icmp-rules", true),
        ..Config::default()
    }
}
