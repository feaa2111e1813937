//! How does a pod get its network from the plugins that the node is configured with?

use crate::{Error, Result, While};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// The longest that one plugin may take.
const LIMIT: Duration = Duration::from_secs(90);

/// A network configuration list.
#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// Version of the specification that it is written for.
    pub version: String,
    /// Whether CHECK is not wanted.
    pub disable_check: bool,
    /// The plugins' configurations, in the order of ADD.
    pub plugins: Vec<Value>,
}

impl Network {
    /// Parses a `.conflist` file, or a `.conf` file of one plugin.
    pub fn parse(text: &str) -> Result<Network> {
        let value: Value = serde_json::from_str(text).map_err(|e| Error::Invalid(format!("not JSON: {e}")))?;
        let word = |key: &str| value.get(key).and_then(Value::as_str).map(String::from);
        let name = word("name").ok_or_else(|| Error::Invalid("`name` is missing".into()))?;
        let plugins = match value.get("plugins") {
            Some(list) => list.as_array().cloned().unwrap_or_default(),
            None => vec![value.clone()],
        };
        if plugins.is_empty() || plugins.iter().any(|p| p.get("type").and_then(Value::as_str).is_none()) {
            return Err(Error::Invalid("`plugins` must be a list of objects that have a `type`".into()));
        }
        Ok(Network {
            name,
            version: word("cniVersion").unwrap_or_else(|| "1.0.0".into()),
            disable_check: value.get("disableCheck").and_then(Value::as_bool).unwrap_or(false),
            plugins,
        })
    }

    /// What a plugin reads from its standard input.
    pub fn request(&self, plugin: &Value, previous: Option<&Value>) -> Value {
        let mut request = plugin.clone();
        request["name"] = json!(self.name);
        request["cniVersion"] = json!(self.version);
        if let Some(previous) = previous {
            request["prevResult"] = previous.clone();
        }
        request
    }
}

/// The first network of a folder, in the order of file names; none if there is no file yet.
pub fn configured(folder: &Path) -> Result<Option<Network>> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(None) };
    let mut files: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "conflist" || e == "conf"));
    files.sort();
    let Some(file) = files.first() else { return Ok(None) };
    let text = fs::read_to_string(file).while_doing(|| format!("read {}", file.display()))?;
    Network::parse(&text).map(Some).map_err(|e| Error::Invalid(format!("{}: {e}", file.display())))
}

/// A pod's place in the network; kept in a file so that a new kubelet can undo what an old one did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Identifies the sandbox.
    pub container_id: String,
    /// A path of the pod's network namespace.
    pub netns: String,
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// UID of the pod.
    pub uid: String,
}

impl Attachment {
    /// Variables that plugins are called with.
    pub fn variables(&self, command: &str, path: &Path) -> Vec<(String, String)> {
        let args = format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID={}",
            self.namespace, self.pod, self.container_id, self.uid
        );
        [
            ("CNI_COMMAND", command.to_string()),
            ("CNI_CONTAINERID", self.container_id.clone()),
            ("CNI_NETNS", self.netns.clone()),
            ("CNI_IFNAME", "eth0".into()),
            ("CNI_ARGS", args),
            ("CNI_PATH", path.display().to_string()),
            ("PATH", crate::catalogue::PATH.into()),
        ]
        .map(|(k, v)| (k.to_string(), v))
        .to_vec()
    }
}

/// The plugins of a node.
#[derive(Debug, Clone)]
pub struct Plugins {
    /// Where configurations are.
    pub configurations: PathBuf,
    /// Where plugins are.
    pub binaries: PathBuf,
}

impl Plugins {
    /// ADD along the chain; returns the last plugin's result.
    pub async fn add(&self, attachment: &Attachment) -> Result<Value> {
        let network = self.network()?;
        let mut result = None;
        for plugin in &network.plugins {
            let answer = self.call("ADD", &network, plugin, result.as_ref(), attachment).await?;
            result = Some(answer.unwrap_or_else(|| json!({"cniVersion": network.version})));
        }
        result.ok_or_else(|| Error::Invalid("the network has no plugins".into()))
    }

    /// CHECK along the chain with the result of ADD.
    pub async fn check(&self, attachment: &Attachment, result: &Value) -> Result<()> {
        let network = self.network()?;
        if network.disable_check {
            return Ok(());
        }
        for plugin in &network.plugins {
            self.call("CHECK", &network, plugin, Some(result), attachment).await?;
        }
        Ok(())
    }

    /// DEL along the chain backwards.
    pub async fn del(&self, attachment: &Attachment, result: Option<&Value>) -> Result<()> {
        let Some(network) = configured(&self.configurations)? else { return Ok(()) };
        for plugin in network.plugins.iter().rev() {
            self.call("DEL", &network, plugin, result, attachment).await?;
        }
        Ok(())
    }

    fn network(&self) -> Result<Network> {
        configured(&self.configurations)?.ok_or_else(|| Error::Invalid("cni plugin not initialized".into()))
    }

    async fn call(
        &self,
        verb: &str,
        network: &Network,
        plugin: &Value,
        previous: Option<&Value>,
        attachment: &Attachment,
    ) -> Result<Option<Value>> {
        let kind = plugin.get("type").and_then(Value::as_str).unwrap_or_default();
        if kind.is_empty() || kind.contains('/') {
            return Err(Error::Invalid(format!("plugin type {kind:?} is no file name")));
        }
        let binary = self.binaries.join(kind);
        let request = network.request(plugin, previous).to_string();
        let run = execute(&binary, attachment.variables(verb, &self.binaries), request);
        let output = tokio::time::timeout(LIMIT, run).await;
        let output = output.map_err(|_| Error::Invalid(format!("plugin {kind} {verb}: no answer in {LIMIT:?}")))??;
        if output.status.success() {
            return Ok(serde_json::from_slice(&output.stdout).ok());
        }
        Err(Error::Invalid(format!("plugin type={kind:?} failed ({verb}): {}", failure(&output))))
    }
}

async fn execute(binary: &Path, variables: Vec<(String, String)>, input: String) -> Result<std::process::Output> {
    let mut command = tokio::process::Command::new(binary);
    command.env_clear().envs(variables).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().while_doing(|| format!("start CNI plugin {}", binary.display()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A plugin may fail before it reads; its error is what counts.
        let _ = stdin.write_all(input.as_bytes()).await;
    }
    child.wait_with_output().await.while_doing(|| format!("wait for CNI plugin {}", binary.display()))
}

/// What a failed plugin says, in the specification's form or not.
fn failure(output: &std::process::Output) -> String {
    let structured = serde_json::from_slice::<Value>(&output.stdout).ok().and_then(|v| {
        let message = v.get("msg")?.as_str()?.to_string();
        let details = v.get("details").and_then(Value::as_str).filter(|d| !d.is_empty());
        Some(details.map_or(message.clone(), |d| format!("{message}: {d}")))
    });
    structured.unwrap_or_else(|| {
        let said = [&output.stderr[..], &output.stdout[..]].concat();
        format!("{} {}", output.status, String::from_utf8_lossy(&said).trim())
    })
}

/// The pod's addresses in a result.
pub fn addresses(result: &Value) -> Vec<IpAddr> {
    let ips = result.get("ips").and_then(Value::as_array).into_iter().flatten();
    let text = ips.filter_map(|ip| ip.get("address")?.as_str());
    text.filter_map(|a| a.split('/').next()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_list_becomes_one_request_for_each_plugin() {
        let network = Network::parse(
            r#"{"cniVersion":"1.1.0","name":"cilium","plugins":[{"type":"cilium-cni","log-file":"/x"},{"type":"portmap"}]}"#,
        )
        .unwrap();
        let request = network.request(&network.plugins[1], Some(&json!({"ips": []})));
        assert_eq!(request, json!({"type":"portmap","name":"cilium","cniVersion":"1.1.0","prevResult":{"ips":[]}}));
    }

    #[test]
    fn half_written_files_are_errors() {
        for text in
            ["", "{", r#"{"name":"x","plugins":[]}"#, r#"{"plugins":[{"type":"a"}]}"#, r#"{"name":"x","plugins":[{}]}"#]
        {
            assert!(Network::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_of_both_families_are_read() {
        let result =
            json!({"ips": [{"address": "10.244.1.7/32"}, {"address": "fd00:10:244:1::7/128"}, {"address": "x"}]});
        let expected: Vec<IpAddr> = vec!["10.244.1.7".parse().unwrap(), "fd00:10:244:1::7".parse().unwrap()];
        assert_eq!(addresses(&result), expected);
    }
}
