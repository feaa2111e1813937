//! Which certificates and keys does TLS that ends or begins here have?

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use proxy_api::{TlsClient, TlsServer};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Protocols that are spoken inside.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// For connections that clients open.
pub fn server(context: &TlsServer) -> Result<TlsAcceptor> {
    let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let builder = match &context.trusted {
        None => builder.with_no_client_auth(),
        Some(trusted) => {
            let roots = Arc::new(roots(trusted)?);
            builder.with_client_cert_verifier(WebPkiClientVerifier::builder_with_provider(roots, provider()).build()?)
        }
    };
    let certificates = certificates(&context.certificates).context("certificate")?;
    let mut config = builder.with_single_cert(certificates, key(&context.key.0)?)?;
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    config.max_early_data_size = 0;
    Ok(Arc::new(config).into())
}

/// For connections to servers.
pub fn client(context: &TlsClient) -> Result<TlsConnector> {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let builder = builder.with_root_certificates(roots(&context.trusted)?);
    let config = match &context.own {
        None => builder.with_no_client_auth(),
        Some((own, secret)) => {
            builder.with_client_auth_cert(certificates(own).context("certificate")?, key(&secret.0)?)?
        }
    };
    Ok(Arc::new(config).into())
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>> {
    // An error would quote what it found, and a key may stand where a certificate is to be.
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let all = all.map_err(|_| anyhow::anyhow!("not PEM"))?;
    ensure!(!all.is_empty(), "no certificate in it");
    Ok(all)
}

fn key(pem: &str) -> Result<PrivateKeyDer<'static>> {
    // The error has no part of the text, but nothing of a key is worth the risk.
    PrivateKeyDer::from_pem_slice(pem.as_bytes())
        .map_err(|_| anyhow::anyhow!("private key: not PEM, or of no known kind"))
}

fn roots(pem: &str) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem).context("trusted certificates")? {
        roots.add(certificate)?;
    }
    Ok(roots)
}
