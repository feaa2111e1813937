//! How is an observer reached? By TCP, by TLS or by a Unix socket.

use std::{fmt, path::PathBuf, str::FromStr, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use rustls::{
    DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::net::UnixStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Uri};
use tower::service_fn;

/// Where an observer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `host:port`, in the clear or by TLS.
    Tcp {
        /// `host:port`.
        authority: String,
        /// Written with `tls://`.
        tls: bool,
    },
    /// A Unix socket.
    Unix(PathBuf),
}

/// An address that cannot be understood.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("invalid server address {0:?}: want host:port, tls://host:port or unix:///path/to/socket")]
pub struct InvalidAddress(String);

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let invalid = || InvalidAddress(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() { Err(invalid()) } else { Ok(Address::Unix(path.into())) };
        }
        let (rest, tls) = match text.strip_prefix("tls://") {
            Some(rest) => (rest, true),
            None => (text.strip_prefix("dns:///").or(text.strip_prefix("passthrough:///")).unwrap_or(text), false),
        };
        let (host, port) = rest.rsplit_once(':').ok_or_else(invalid)?;
        let bare_v6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
        if port.parse::<u16>().is_err() || bare_v6 || host.contains('/') {
            return Err(invalid());
        }
        let host = if host.is_empty() { "localhost" } else { host };
        Ok(Address::Tcp { authority: format!("{host}:{port}"), tls })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp { authority, tls: false } => f.write_str(authority),
            Address::Tcp { authority, tls: true } => write!(f, "tls://{authority}"),
            Address::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// What TLS needs. All certificates and keys are PEM.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// Certificates of authorities; the machine's if there are none.
    pub authorities: Vec<Vec<u8>>,
    /// The client's certificate and key.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
    /// The name that the server's certificate must have.
    pub server_name: Option<String>,
    /// Accept any certificate.
    pub insecure: bool,
}

/// How to connect.
#[derive(Clone, Debug)]
pub struct Options {
    /// Give up after this time.
    pub timeout: Duration,
    /// Use TLS, also where the address does not say so.
    pub tls: Option<Tls>,
}

impl Default for Options {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(5), tls: None }
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Refused, unreachable, wrong certificate, too slow.
    #[error("failed to connect to '{address}': {why}")]
    Failed {
        /// Where to.
        address: Address,
        /// Why.
        why: String,
    },
    /// A certificate or key is unusable.
    #[error("TLS to '{address}': {why}")]
    Tls {
        /// Where to.
        address: Address,
        /// Why.
        why: String,
    },
}

/// Connects.
pub async fn connect(address: &Address, options: &Options) -> Result<Channel, ConnectError> {
    let connecting = async {
        match address {
            Address::Tcp { .. } => tcp(address, options)?.connect().await.map_err(|error| failed(address, &error)),
            Address::Unix(path) => unix(address, path.clone(), options).await,
        }
    };
    match tokio::time::timeout(options.timeout, connecting).await {
        Ok(connected) => connected,
        Err(_) => Err(ConnectError::Failed {
            address: address.clone(),
            why: format!("no answer within {:?}", options.timeout),
        }),
    }
}

/// The innermost cause says what happened, the outer ones only that it did.
fn failed(address: &Address, error: &dyn std::error::Error) -> ConnectError {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    ConnectError::Failed { address: address.clone(), why: cause.to_string() }
}

fn tcp(address: &Address, options: &Options) -> Result<Endpoint, ConnectError> {
    let Address::Tcp { authority, tls } = address else { unreachable!("only called for TCP") };
    let scheme = if *tls || options.tls.is_some() { "https" } else { "http" };
    let endpoint = Endpoint::from_shared(format!("{scheme}://{authority}")).map_err(|error| failed(address, &error))?;
    let endpoint = endpoint
        .connect_timeout(options.timeout)
        .http2_keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20))
        .tcp_nodelay(true);
    if scheme == "http" {
        return Ok(endpoint);
    }
    let settings = options.tls.clone().unwrap_or_default();
    let secured = match settings.insecure {
        true => endpoint.tls_config_with_verifier(tls_config(&settings), Arc::new(AcceptAny::default())),
        false => endpoint.tls_config(tls_config(&settings)),
    };
    secured.map_err(|error| ConnectError::Tls { address: address.clone(), why: error.to_string() })
}

fn tls_config(tls: &Tls) -> ClientTlsConfig {
    let mut config = ClientTlsConfig::new();
    config = match tls.authorities.is_empty() {
        true => config.with_enabled_roots(),
        false => config.ca_certificates(tls.authorities.iter().map(Certificate::from_pem)),
    };
    if let Some((certificate, key)) = &tls.identity {
        config = config.identity(Identity::from_pem(certificate, key));
    }
    match &tls.server_name {
        Some(name) => config.domain_name(name),
        None => config,
    }
}

async fn unix(address: &Address, path: PathBuf, options: &Options) -> Result<Channel, ConnectError> {
    // The URI only fills the header; the connector knows the way.
    let endpoint = Endpoint::from_static("http://localhost").connect_timeout(options.timeout);
    let connector = service_fn(move |_: Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    endpoint.connect_with_connector(connector).await.map_err(|error| failed(address, &error))
}

/// For users who asked for it: encryption without authentication.
#[derive(Debug)]
struct AcceptAny {
    algorithms: WebPkiSupportedAlgorithms,
}

impl Default for AcceptAny {
    fn default() -> Self {
        Self { algorithms: ring::default_provider().signature_verification_algorithms }
    }
}

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<&str>) {
        let parsed = text.parse::<Address>().map(|address| address.to_string());
        assert_eq!(parsed.ok().as_deref(), expected, "{text}");
    }

    #[test]
    fn addresses() {
        check("localhost:4245", Some("localhost:4245"));
        check(":4245", Some("localhost:4245"));
        check("[fd00::1]:4244", Some("[fd00::1]:4244"));
        check("tls://relay:443", Some("tls://relay:443"));
        check("dns:///relay:80", Some("relay:80"));
        check("unix:///var/run/cilium/hubble.sock", Some("unix:///var/run/cilium/hubble.sock"));
        check("unix:/var/run/x", Some("unix:///var/run/x"));
        for invalid in ["localhost", "unix:", "fd00::1:4244", "host:port", "http://a:1", "a:99999", ""] {
            check(invalid, None);
        }
    }
}
