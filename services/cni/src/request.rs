//! What does the runtime ask for?

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::{CniError, Code, NetworkResult};

/// Versions of the specification that are spoken, oldest first.
pub const SUPPORTED_VERSIONS: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];

const DEFAULT_PATIENCE_SECONDS: u64 = 30;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Give a container a network.
    Add(Attachment),
    /// Take it away.
    Del(Attachment),
    /// Is it as it was made?
    Check(Attachment),
    /// Remove what belongs to no valid attachment.
    Gc,
    /// Could a container be added now?
    Status,
    /// Which versions are spoken?
    Version,
}

/// A device in a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attachment {
    /// The runtime's name of the container.
    pub container_id: String,
    /// Path of its network namespace; may be gone when it is deleted.
    pub netns: Option<PathBuf>,
    /// The device's name in it.
    pub ifname: String,
    /// The pod's namespace, name and UID, where the runtime says so.
    pub pod: Pod,
}

/// Names of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
}

impl Attachment {
    /// Name of the attachment, unique on the node.
    pub fn id(&self) -> String {
        format!("{}:{}", self.container_id, self.ifname)
    }

    /// Name of the device's host side: the same for the same attachment, at most 15 bytes.
    pub fn host_device(&self) -> String {
        format!("lxc{:012x}", fnv1a(self.id().as_bytes()) & 0xffff_ffff_ffff)
    }
}

/// FNV-1a, 64 bits: spreads well and is the same everywhere.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

/// The network configuration from standard input.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Configuration {
    /// Version of the specification in which to answer.
    #[serde(default)]
    pub cni_version: String,
    /// Name of the network.
    #[serde(default)]
    pub name: String,
    /// The result of ADD, for CHECK and DEL.
    pub prev_result: Option<NetworkResult>,
    /// GC: what is still there.
    #[serde(default, rename = "cni.dev/valid-attachments", alias = "cni.dev/attachments")]
    pub valid_attachments: Option<Vec<ValidAttachment>>,
    /// The agent's socket, if it is not the usual one.
    #[serde(rename = "agent-socket")]
    pub agent_socket: Option<PathBuf>,
    /// How long ADD waits for an agent that does not answer.
    #[serde(rename = "agent-wait-seconds")]
    pub agent_wait_seconds: Option<u64>,
    /// Where deletions wait for an agent that is down.
    #[serde(rename = "delete-queue")]
    pub delete_queue: Option<PathBuf>,
}

impl Configuration {
    /// How long ADD waits for an agent that does not answer.
    pub fn patience(&self) -> Duration {
        Duration::from_secs(self.agent_wait_seconds.unwrap_or(DEFAULT_PATIENCE_SECONDS))
    }
}

/// An attachment that the runtime knows.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ValidAttachment {
    /// The container.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// The device in it.
    pub ifname: String,
}

/// A parsed request.
#[derive(Clone, Debug)]
pub struct Request {
    /// What to do.
    pub command: Command,
    /// With which settings.
    pub configuration: Configuration,
}

/// The version that the configuration asks for, or the newest; for error messages.
pub fn version_of(input: &[u8]) -> String {
    let newest = SUPPORTED_VERSIONS[SUPPORTED_VERSIONS.len() - 1];
    let configuration = serde_json::from_slice::<Configuration>(input).unwrap_or_default();
    if configuration.cni_version.is_empty() { newest.into() } else { configuration.cni_version }
}

impl Request {
    /// From the environment (by name) and standard input.
    pub fn parse(environment: impl Fn(&str) -> Option<String>, input: &[u8]) -> Result<Self, CniError> {
        let get = |name: &str| environment(name).filter(|value| !value.is_empty());
        let command = get("CNI_COMMAND").ok_or_else(|| missing("CNI_COMMAND"))?;
        let configuration = if command == "VERSION" && input.is_empty() {
            Configuration::default()
        } else {
            serde_json::from_slice(input)
                .map_err(|e| CniError::new(Code::Decode, "parse the network configuration", e))?
        };
        let command = match command.as_str() {
            "ADD" => Command::Add(attachment(&get, true)?),
            "CHECK" => Command::Check(attachment(&get, true)?),
            "DEL" => Command::Del(attachment(&get, false)?),
            "GC" => Command::Gc,
            "STATUS" => Command::Status,
            "VERSION" => Command::Version,
            other => {
                let details = format!("{other:?}; known are ADD, DEL, CHECK, GC, STATUS and VERSION");
                return Err(CniError::new(Code::Environment, "unknown CNI_COMMAND", details));
            }
        };
        check_version(&command, &configuration)?;
        Ok(Request { command, configuration })
    }
}

fn check_version(command: &Command, configuration: &Configuration) -> Result<(), CniError> {
    let version = configuration.cni_version.as_str();
    if *command == Command::Version || SUPPORTED_VERSIONS.contains(&version) {
        return Ok(());
    }
    let details = format!("the configuration has {version:?}; spoken are {}", SUPPORTED_VERSIONS.join(", "));
    Err(CniError::new(Code::IncompatibleVersion, "incompatible CNI version", details))
}

fn missing(name: &str) -> CniError {
    CniError::new(Code::Environment, format!("{name} is missing"), "the runtime must set it")
}

fn attachment(get: &impl Fn(&str) -> Option<String>, needs_netns: bool) -> Result<Attachment, CniError> {
    let container_id = get("CNI_CONTAINERID").ok_or_else(|| missing("CNI_CONTAINERID"))?;
    if !container_id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
        let details = format!("{container_id:?} has other characters than letters, digits, '.', '_' and '-'");
        return Err(CniError::new(Code::Environment, "CNI_CONTAINERID is invalid", details));
    }
    let ifname = get("CNI_IFNAME").ok_or_else(|| missing("CNI_IFNAME"))?;
    if ifname.len() > 15 || ifname.contains(['/', ':', ' ', '\t', '\n']) || ifname == "." || ifname == ".." {
        return Err(CniError::new(Code::Environment, "CNI_IFNAME is invalid", format!("{ifname:?} is no device name")));
    }
    let netns = get("CNI_NETNS").map(PathBuf::from);
    if needs_netns && netns.is_none() {
        return Err(missing("CNI_NETNS"));
    }
    Ok(Attachment { container_id, netns, ifname, pod: pod(&get("CNI_ARGS").unwrap_or_default()) })
}

/// `CNI_ARGS` is `KEY=VALUE;KEY=VALUE`; what is not known is ignored.
fn pod(args: &str) -> Pod {
    let mut pod = Pod::default();
    for (key, value) in args.split(';').filter_map(|pair| pair.split_once('=')) {
        match key {
            "K8S_POD_NAMESPACE" => pod.namespace = value.into(),
            "K8S_POD_NAME" => pod.name = value.into(),
            "K8S_POD_UID" => pod.uid = value.into(),
            _ => {}
        }
    }
    pod
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn parse(environment: &[(&str, &str)], input: &str) -> Result<Request, CniError> {
        let get = |name: &str| environment.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        Request::parse(get, input.as_bytes())
    }

    const ADD: [(&str, &str); 5] = [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "abc"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_NETNS", "/n"),
        ("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-1;K8S_POD_UID=u"),
    ];

    #[test]
    fn add_names_the_pod() {
        let request = parse(&ADD, r#"{"cniVersion":"1.1.0","name":"cilium","type":"cilium-cni"}"#).unwrap();
        let Command::Add(attachment) = request.command else { panic!("{request:?}") };
        assert_eq!(attachment.pod, Pod { namespace: "default".into(), name: "web-1".into(), uid: "u".into() });
        assert_eq!((attachment.id().as_str(), attachment.host_device().len()), ("abc:eth0", 15));
    }

    #[test]
    fn refusals_say_why() {
        let config = r#"{"cniVersion":"1.1.0"}"#;
        let without = |name: &str| ADD.into_iter().filter(|(n, _)| *n != name).collect::<Vec<_>>();
        let with =
            |name, value| ADD.into_iter().map(|(n, v)| if n == name { (n, value) } else { (n, v) }).collect::<Vec<_>>();
        for (environment, input, code, text) in [
            (without("CNI_NETNS"), config, Code::Environment, "CNI_NETNS is missing: the runtime must set it"),
            (
                with("CNI_COMMAND", "ad"),
                config,
                Code::Environment,
                "unknown CNI_COMMAND: \"ad\"; known are ADD, DEL, CHECK, GC, STATUS and VERSION",
            ),
            (
                with("CNI_CONTAINERID", "../x"),
                config,
                Code::Environment,
                "CNI_CONTAINERID is invalid: \"../x\" has other characters than letters, digits, '.', '_' and '-'",
            ),
            (with("CNI_IFNAME", "a/b"), config, Code::Environment, "CNI_IFNAME is invalid: \"a/b\" is no device name"),
            (
                ADD.to_vec(),
                r#"{"cniVersion":"0.2.0"}"#,
                Code::IncompatibleVersion,
                "incompatible CNI version: the configuration has \"0.2.0\"; spoken are 0.3.1, 0.4.0, 1.0.0, 1.1.0",
            ),
        ] {
            let error = parse(&environment, input).unwrap_err();
            assert_eq!((error.code, error.to_string().as_str()), (code, text));
        }
        assert_eq!(parse(&ADD, "{").unwrap_err().code, Code::Decode);
    }

    #[test]
    fn del_works_without_a_namespace() {
        let mut environment = ADD.into_iter().filter(|(n, _)| *n != "CNI_NETNS").collect::<Vec<_>>();
        environment[0].1 = "DEL";
        assert!(matches!(parse(&environment, r#"{"cniVersion":"0.4.0"}"#).unwrap().command, Command::Del(_)));
    }
}
