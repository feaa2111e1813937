//! Who is trusted: the cluster's authority, certificates of servers and clients, kubeconfig files.

use std::net::IpAddr;
use std::path::Path;

use base64::Engine as _;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

use crate::Error;

/// A certificate and its key, as PEM.
#[derive(Clone)]
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// The private key (PKCS#8).
    pub key: String,
}

/// The cluster's certificate authority.
#[derive(Clone)]
pub struct Authority {
    /// Its certificate and key.
    pub identity: Identity,
    /// The key that signs service accounts' tokens (PKCS#8 PEM).
    pub token_key: String,
}

/// How a kubeconfig's user proves who they are.
pub enum Credential<'a> {
    /// A client certificate.
    Certificate(&'a Identity),
    /// A bearer token.
    Token(&'a str),
}

const NAME: &str = "kubernetes";

fn fault(error: impl std::fmt::Display) -> Error {
    Error::Tls(error.to_string())
}

impl Authority {
    /// A new authority with keys of its own.
    ///
    /// # Errors
    /// If no key can be made.
    pub fn generate() -> Result<Self, Error> {
        let key = KeyPair::generate().map_err(fault)?;
        let certificate = authority_params().self_signed(&key).map_err(fault)?;
        let token_key = KeyPair::generate().map_err(fault)?.serialize_pem();
        Ok(Self { identity: Identity { certificate: certificate.pem(), key: key.serialize_pem() }, token_key })
    }

    /// The authority in `folder` (`ca.crt`, `ca.key`, `sa.key`), made there if the folder has none.
    ///
    /// # Errors
    /// If files cannot be read or written, or do not hold keys.
    pub fn open_or_create(folder: &Path) -> Result<Self, Error> {
        let [certificate, key, token] = ["ca.crt", "ca.key", "sa.key"].map(|name| folder.join(name));
        if certificate.exists() && key.exists() && token.exists() {
            let read = |path: &Path| {
                std::fs::read_to_string(path).map_err(|error| Error::Tls(format!("{}: {error}", path.display())))
            };
            let loaded = Self {
                identity: Identity { certificate: read(&certificate)?, key: read(&key)? },
                token_key: read(&token)?,
            };
            KeyPair::from_pem(&loaded.identity.key).map_err(fault)?;
            KeyPair::from_pem(&loaded.token_key).map_err(fault)?;
            return Ok(loaded);
        }
        std::fs::create_dir_all(folder)?;
        let made = Self::generate()?;
        write_private(&certificate, &made.identity.certificate)?;
        write_private(&key, &made.identity.key)?;
        write_private(&token, &made.token_key)?;
        Ok(made)
    }

    /// A server certificate for the given DNS names and addresses.
    ///
    /// # Errors
    /// If a name is not valid in a certificate.
    pub fn server(&self, common_name: &str, names: &[String]) -> Result<Identity, Error> {
        let mut params = leaf_params(common_name, None, ExtendedKeyUsagePurpose::ServerAuth);
        for name in names {
            params.subject_alt_names.push(match name.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(name.as_str().try_into().map_err(fault)?),
            });
        }
        self.issue(&params)
    }

    /// A client certificate: the common name is the user, the organisation is the group.
    ///
    /// # Errors
    /// If no key can be made.
    pub fn client(&self, user: &str, group: &str) -> Result<Identity, Error> {
        self.issue(&leaf_params(user, Some(group), ExtendedKeyUsagePurpose::ClientAuth))
    }

    /// A kubeconfig (YAML) that reaches `server`, for example `https://127.0.0.1:6443`.
    #[must_use]
    pub fn kubeconfig(&self, cluster: &str, server: &str, user: &str, credential: &Credential<'_>) -> String {
        let encode = |pem: &str| base64::engine::general_purpose::STANDARD.encode(pem);
        let proof = match credential {
            Credential::Certificate(identity) => format!(
                "    client-certificate-data: {}\n    client-key-data: {}\n",
                encode(&identity.certificate),
                encode(&identity.key)
            ),
            Credential::Token(token) => format!("    token: {token}\n"),
        };
        let authority = encode(&self.identity.certificate);
        format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: {cluster}\n  cluster:\n    \
             certificate-authority-data: {authority}\n    server: {server}\ncontexts:\n- name: {cluster}\n  context:\n    \
             cluster: {cluster}\n    user: {user}\ncurrent-context: {cluster}\nusers:\n- name: {user}\n  user:\n{proof}"
        )
    }

    fn issue(&self, params: &CertificateParams) -> Result<Identity, Error> {
        let authority_key = KeyPair::from_pem(&self.identity.key).map_err(fault)?;
        let issuer = Issuer::new(authority_params(), authority_key);
        let key = KeyPair::generate().map_err(fault)?;
        let certificate = params.signed_by(&key, &issuer).map_err(fault)?;
        Ok(Identity { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

/// Written for the owner only, and never half: a crash leaves the old file or the new one.
fn write_private(path: &Path, text: &str) -> Result<(), Error> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let staged = path.with_extension("new");
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&staged)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&staged, path)?;
    Ok(())
}

fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, NAME);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    params
}

fn leaf_params(common_name: &str, organisation: Option<&str>, usage: ExtendedKeyUsagePurpose) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    if let Some(organisation) = organisation {
        params.distinguished_name.push(DnType::OrganizationName, organisation);
    }
    params.is_ca = IsCa::NoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = vec![usage];
    params
}
