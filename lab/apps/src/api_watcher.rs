//! Does the API server answer? The program that ends if it does not.

use crate::Error;
use kube::{Client, Config};
use std::time::Duration;
use tracing::info;

/// How long the API server may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks once for the server's version by the pod's service account; ends with an error after five seconds, else sleeps.
pub async fn run() -> Result<(), Error> {
    let asked = tokio::time::timeout(PATIENCE, version()).await;
    let version = asked.map_err(|_| Error::Api(format!("the API server did not answer within {PATIENCE:?}")))??;
    info!(version, "the API server answers");
    std::future::pending().await
}

async fn version() -> Result<String, Error> {
    let api = |e: kube::Error| Error::Api(format!("ask the API server for its version: {e}"));
    let config = Config::incluster_env().map_err(|e| Error::Api(format!("find the API server: {e}")))?;
    let info = Client::try_from(config).map_err(api)?.apiserver_version().await.map_err(api)?;
    Ok(info.git_version)
}
