//! Who answers? A connection to the server, with what every request carries.

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use hubble::{
    client::{self, Address},
    rpc::{observer::observer_client::ObserverClient, peer::peer_client::PeerClient},
};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};
use tonic_health::pb::health_client::HealthClient;

use crate::{error::Error, forward::Forward, settings::Settings};

/// A connection.
pub(crate) struct Server {
    pub address: Address,
    pub request_timeout: Duration,
    channel: Channel,
    credentials: Credentials,
    _forward: Option<Forward>,
}

type Service = InterceptedService<Channel, Credentials>;

impl Server {
    pub(crate) fn observer(&self) -> ObserverClient<Service> {
        ObserverClient::with_interceptor(self.channel.clone(), self.credentials.clone())
    }

    pub(crate) fn peer(&self) -> PeerClient<Service> {
        PeerClient::with_interceptor(self.channel.clone(), self.credentials.clone())
    }

    pub(crate) fn health(&self) -> HealthClient<Service> {
        HealthClient::with_interceptor(self.channel.clone(), self.credentials.clone())
    }

    /// A request whose answer may not take too long.
    pub(crate) fn timed<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.request_timeout);
        request
    }
}

/// Connects to the server of the settings.
pub(crate) async fn connect(settings: &Settings) -> Result<Server, Error> {
    let forward = Forward::of(settings).await?;
    let (address, options) = settings.server(forward.as_ref().map(|forward| forward.port))?;
    let credentials = Credentials::new(settings, options.tls.is_some())?;
    let channel = client::connect(&address, &options).await?;
    let request_timeout = settings.duration("request-timeout");
    Ok(Server { address, request_timeout, channel, credentials, _forward: forward })
}

/// Basic authentication, if it is asked for.
#[derive(Clone)]
pub(crate) struct Credentials {
    header: Option<MetadataValue<Ascii>>,
}

impl Credentials {
    fn new(settings: &Settings, encrypted: bool) -> Result<Self, Error> {
        let (user, password) = (settings.text("basic-auth-username"), settings.text("basic-auth-password"));
        if user.is_empty() || password.is_empty() {
            return Ok(Self { header: None });
        }
        if !encrypted {
            return Err(Error::Usage(
                "basic authentication needs TLS, or the password could be read: use --tls".to_owned(),
            ));
        }
        let text = format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")));
        let mut header: MetadataValue<Ascii> = text.parse().expect("base64 is ASCII");
        header.set_sensitive(true);
        Ok(Self { header: Some(header) })
    }
}

impl Interceptor for Credentials {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(header) = &self.header {
            request.metadata_mut().insert("authorization", header.clone());
        }
        Ok(request)
    }
}
