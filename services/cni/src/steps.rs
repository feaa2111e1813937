//! In which order are the agent and the kernel asked?

use std::time::{Duration, Instant};

use agent_api::{Client, ClientError, EndpointChangeRequest, IpamResponse};

use crate::container::{self, Devices, mac_text};
use crate::request::ValidAttachment;
use crate::{Attachment, CniError, Code, Command, NetworkResult, Queue, QueuedDelete, Request, SUPPORTED_VERSIONS};

const RETRY_EVERY: Duration = Duration::from_millis(200);

/// Does what is asked; the text to print.
pub async fn run(request: &Request) -> Result<String, CniError> {
    let plugin = Plugin::new(request);
    match &request.command {
        Command::Add(attachment) => plugin.add(attachment).await,
        Command::Del(attachment) => plugin.delete(attachment).await.map(|()| String::new()),
        Command::Check(attachment) => plugin.check(attachment).await.map(|()| String::new()),
        Command::Gc => plugin.collect().await.map(|()| String::new()),
        Command::Status => plugin.status().await.map(|()| String::new()),
        Command::Version => Ok(versions(&request.configuration.cni_version)),
    }
}

fn versions(asked: &str) -> String {
    let newest = SUPPORTED_VERSIONS[SUPPORTED_VERSIONS.len() - 1];
    let version = if asked.is_empty() { newest } else { asked };
    serde_json::json!({ "cniVersion": version, "supportedVersions": SUPPORTED_VERSIONS }).to_string()
}

struct Plugin<'a> {
    request: &'a Request,
    client: Client,
    queue: Queue,
}

impl<'a> Plugin<'a> {
    fn new(request: &'a Request) -> Self {
        let configuration = &request.configuration;
        let socket = configuration.agent_socket.clone().unwrap_or_else(agent_api::socket_path);
        let queue = configuration.delete_queue.clone().unwrap_or_else(|| crate::DEFAULT_QUEUE.into());
        Plugin { request, client: Client::new(socket), queue: Queue::new(queue) }
    }

    async fn add(&self, attachment: &Attachment) -> Result<String, CniError> {
        let ipam = self.allocate(attachment).await?;
        match self.attach(attachment, &ipam).await {
            Ok(result) => Ok(result),
            Err(error) => {
                self.undo(attachment, &ipam).await;
                Err(error)
            }
        }
    }

    async fn attach(&self, attachment: &Attachment, ipam: &IpamResponse) -> Result<String, CniError> {
        let devices = container::set_up(attachment, ipam).await?;
        let endpoint = endpoint(attachment, ipam, &devices)?;
        self.client.create_endpoint(&endpoint).await.map_err(refused)?;
        container::open_gate(&devices).await?;
        let version = &self.request.configuration.cni_version;
        let result = NetworkResult::new(version, attachment, &devices.pair(), ipam);
        serde_json::to_string(&result).map_err(|e| CniError::new(Code::Io, "write the result", e))
    }

    /// Waits for an agent that is down or starting, up to the bound.
    async fn allocate(&self, attachment: &Attachment) -> Result<IpamResponse, CniError> {
        let (patience, started) = (self.request.configuration.patience(), Instant::now());
        let owner = format!("{}/{}", attachment.pod.namespace, attachment.pod.name);
        loop {
            let left = patience.saturating_sub(started.elapsed());
            match tokio::time::timeout(left, self.client.allocate(&owner)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) if !error.is_transient() => return Err(refused(error)),
                Ok(Err(error)) if started.elapsed() >= patience => {
                    let message = format!("the agent was not ready within {} seconds", patience.as_secs());
                    return Err(CniError::new(Code::TryAgain, message, error));
                }
                Ok(Err(_)) => tokio::time::sleep(RETRY_EVERY).await,
                // it took the connection and says nothing
                Err(silent) => {
                    let message = format!("the agent did not answer within {} seconds", patience.as_secs());
                    return Err(CniError::new(Code::TryAgain, message, silent));
                }
            }
        }
    }

    /// After a failed ADD nothing may stay; the ADD's own error is the one to report.
    async fn undo(&self, attachment: &Attachment, ipam: &IpamResponse) {
        let _ = self.client.delete_endpoint(&format!("cni-attachment-id:{}", attachment.id())).await;
        let _ = container::tear_down(attachment).await;
        for address in [&ipam.address.ipv4, &ipam.address.ipv6].into_iter().filter(|a| !a.is_empty()) {
            let _ = self.client.release(address).await;
        }
    }

    async fn delete(&self, attachment: &Attachment) -> Result<(), CniError> {
        self.forget(&attachment.id()).await?;
        container::tear_down(attachment).await
    }

    /// Tells the agent, or leaves word for it.
    async fn forget(&self, id: &str) -> Result<(), CniError> {
        match self.client.delete_endpoint(&format!("cni-attachment-id:{id}")).await {
            Ok(()) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) if error.is_transient() => {
                let queued = self.queue.push(&QueuedDelete { cni_attachment_id: id.to_owned() });
                queued.map_err(|e| CniError::new(Code::TryAgain, "queue the deletion for the agent", e))
            }
            Err(error) => Err(refused(error)),
        }
    }

    async fn check(&self, attachment: &Attachment) -> Result<(), CniError> {
        let path = format!("/v1/endpoint/cni-attachment-id:{}", attachment.id());
        self.client.get::<agent_api::Endpoint>(&path).await.map_err(|error| {
            let code = if error.is_not_found() { Code::UnknownContainer } else { Code::TryAgain };
            CniError::new(code, "look for the endpoint", error)
        })?;
        let previous = self.request.configuration.prev_result.as_ref();
        let addresses: Vec<String> =
            previous.map(|r| r.ips.iter().map(|ip| ip.address.clone()).collect()).unwrap_or_default();
        container::check(attachment, &addresses).await
    }

    async fn collect(&self) -> Result<(), CniError> {
        let Some(valid) = &self.request.configuration.valid_attachments else {
            return Err(CniError::new(Code::Configuration, "GC needs cni.dev/valid-attachments", "it is not there"));
        };
        let endpoints: Vec<agent_api::Endpoint> = self.client.get("/v1/endpoint").await.map_err(refused)?;
        for endpoint in endpoints {
            let id = endpoint.status.external_identifiers.cni_attachment_id;
            if is_stale(&id, valid) {
                self.forget(&id).await?;
                let (container_id, ifname) = id.split_once(':').unwrap_or((&id, ""));
                let attachment =
                    Attachment { container_id: container_id.into(), ifname: ifname.into(), ..Attachment::default() };
                container::tear_down(&attachment).await?;
            }
        }
        Ok(())
    }

    async fn status(&self) -> Result<(), CniError> {
        let client = self.client.clone().with_patience(Duration::from_secs(5));
        let answer = client.get::<agent_api::StatusResponse>("/v1/healthz").await;
        answer.map(drop).map_err(|e| CniError::new(Code::NotAvailable, "the agent is not ready", e))
    }
}

/// Endpoints that no runtime made (health, host) have no attachment and are never stale.
fn is_stale(id: &str, valid: &[ValidAttachment]) -> bool {
    !id.is_empty() && !valid.iter().any(|v| format!("{}:{}", v.container_id, v.ifname) == id)
}

fn refused(error: ClientError) -> CniError {
    let code = if error.is_transient() { Code::TryAgain } else { Code::Agent };
    CniError::new(code, "ask the agent", error)
}

fn endpoint(
    attachment: &Attachment,
    ipam: &IpamResponse,
    devices: &Devices,
) -> Result<EndpointChangeRequest, CniError> {
    let cookie = devices.namespace.cookie();
    let cookie = cookie.map_err(|e| CniError::new(Code::Kernel, "read the container's namespace", e))?;
    Ok(EndpointChangeRequest {
        addressing: ipam.address.clone(),
        container_id: attachment.container_id.clone(),
        container_interface_name: attachment.ifname.clone(),
        cni_attachment_id: attachment.id(),
        host_mac: mac_text(&devices.host),
        mac: mac_text(&devices.container),
        interface_index: devices.host.index,
        interface_name: devices.host.name.clone(),
        netns_cookie: cookie.to_string(),
        k8s_namespace: attachment.pod.namespace.clone(),
        k8s_pod_name: attachment.pod.name.clone(),
        k8s_uid: attachment.pod.uid.clone(),
    })
}
