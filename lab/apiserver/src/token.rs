//! Is this a service account's token, and how is one made?
//!
//! Tokens are JWTs signed with ES256. They are bound to the service account's uid, so they end with it, and those made
//! for a pod end with the pod.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use rcgen::{KeyPair, SigningKey as _};
use serde_json::{Value, json};

use crate::Error;
use crate::api::Api;
use crate::auth::User;
use crate::meta;
use crate::status::Status;
use crate::store::Key;

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
const HEADER: &str = r#"{"alg":"ES256","typ":"JWT"}"#;

/// Signs and verifies tokens.
pub struct Signer {
    key: KeyPair,
}

impl Signer {
    pub fn new(pem: &str) -> Result<Self, Error> {
        KeyPair::from_pem(pem).map(|key| Self { key }).map_err(|error| Error::Tls(format!("token key: {error}")))
    }

    fn sign(&self, claims: &Value) -> Result<String, Status> {
        let signed = format!("{}.{}", BASE64.encode(HEADER), BASE64.encode(claims.to_string()));
        let der = self.key.sign(signed.as_bytes()).map_err(Status::internal)?;
        let fixed = fixed_from_der(&der).ok_or_else(|| Status::internal("the token key is not one of P-256"))?;
        Ok(format!("{signed}.{}", BASE64.encode(fixed)))
    }

    /// The claims of a token with a right signature.
    fn verify(&self, token: &str) -> Option<Value> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let header: Value = serde_json::from_slice(&BASE64.decode(header).ok()?).ok()?;
        if header["alg"] != "ES256" {
            return None;
        }
        let der = der_from_fixed(&BASE64.decode(signature).ok()?)?;
        let verifier = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        let schemes = verifier.mapping.iter();
        let right = schemes
            .filter(|(scheme, _)| *scheme == rustls::SignatureScheme::ECDSA_NISTP256_SHA256)
            .flat_map(|(_, algorithms)| algorithms.iter())
            .any(|one| one.verify_signature(self.key.public_key_raw(), signed.as_bytes(), &der).is_ok());
        right.then(|| serde_json::from_slice(&BASE64.decode(claims).ok()?).ok()).flatten()
    }
}

/// ASN.1 `SEQUENCE { r, s }` as the 64 bytes that JWTs carry.
fn fixed_from_der(der: &[u8]) -> Option<[u8; 64]> {
    let mut fixed = [0; 64];
    let mut rest = der.get(2..)?;
    for half in fixed.chunks_mut(32) {
        let length = usize::from(*rest.get(1)?);
        let number = rest.get(2..2 + length)?;
        let number = &number[number.len().saturating_sub(32)..];
        half[32 - number.len()..].copy_from_slice(number);
        rest = &rest[2 + length..];
    }
    Some(fixed)
}

fn der_from_fixed(fixed: &[u8]) -> Option<Vec<u8>> {
    if fixed.len() != 64 {
        return None;
    }
    let mut body = Vec::new();
    for half in fixed.chunks(32) {
        let start = half.iter().position(|byte| *byte != 0).unwrap_or(31);
        let number = &half[start..];
        let padded = number[0] >= 0x80;
        body.extend([0x02, u8::try_from(number.len()).ok()? + u8::from(padded)]);
        body.extend(padded.then_some(0));
        body.extend_from_slice(number);
    }
    let mut der = vec![0x30, u8::try_from(body.len()).ok()?];
    der.extend(body);
    Some(der)
}

/// A token for a service account and when it expires (seconds since 1970).
///
/// # Errors
/// If the account, or the pod that it is bound to, does not exist.
pub fn for_service_account(
    api: &Api,
    namespace: &str,
    name: &str,
    audiences: &[String],
    seconds: u64,
    pod: Option<(&str, &str)>,
) -> Result<(String, i64), Status> {
    let account = api
        .store
        .get(&Key::new("serviceaccounts", namespace, name))
        .ok_or_else(|| Status::not_found("", "serviceaccounts", name))?;
    let now = jiff::Timestamp::now().as_second();
    let expires = now + i64::try_from(seconds.clamp(600, 1 << 32)).unwrap_or(3600);
    let audiences = if audiences.is_empty() { vec![ISSUER.to_owned()] } else { audiences.to_vec() };
    let mut bound = json!({
        "namespace": namespace,
        "serviceaccount": {"name": name, "uid": meta::uid(&account.value)},
    });
    if let Some((pod, uid)) = pod {
        bound["pod"] = json!({"name": pod, "uid": uid});
    }
    let claims = json!({
        "aud": audiences, "exp": expires, "iat": now, "nbf": now, "iss": ISSUER,
        "jti": uuid::Uuid::new_v4().to_string(), "kubernetes.io": bound,
        "sub": format!("system:serviceaccount:{namespace}:{name}"),
    });
    api.signer.sign(&claims).map(|token| (token, expires))
}

/// The service account that a token stands for, if the token is still good.
pub fn verify(api: &Api, token: &str) -> Option<User> {
    let claims = api.signer.verify(token)?;
    let now = jiff::Timestamp::now().as_second();
    if claims["exp"].as_i64()? < now || claims["nbf"].as_i64()? > now + 60 || claims["iss"] != ISSUER {
        return None;
    }
    let audiences = claims["aud"].as_array()?;
    if !audiences.iter().any(|audience| audience == ISSUER) {
        return None;
    }
    let bound = &claims["kubernetes.io"];
    let (namespace, name) = (bound["namespace"].as_str()?, bound["serviceaccount"]["name"].as_str()?);
    let account = api.store.get(&Key::new("serviceaccounts", namespace, name))?;
    let uid = meta::uid(&account.value);
    if bound["serviceaccount"]["uid"] != uid {
        return None;
    }
    if let Some(pod) = bound["pod"]["name"].as_str() {
        let pod = api.store.get(&Key::new("pods", namespace, pod))?;
        if bound["pod"]["uid"] != meta::uid(&pod.value) {
            return None;
        }
    }
    Some(User::service_account(namespace, name, uid))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_signature_is_verified_and_any_change_breaks_it() {
        let signer = Signer::new(&KeyPair::generate().unwrap().serialize_pem()).unwrap();
        for round in 0..50 {
            let claims = json!({"sub": "x", "n": round});
            let token = signer.sign(&claims).unwrap();
            assert_eq!(signer.verify(&token).unwrap(), claims);
            let other = token.replacen('.', ".e", 1);
            assert!(signer.verify(&other).is_none());
        }
        let stranger = Signer::new(&KeyPair::generate().unwrap().serialize_pem()).unwrap();
        assert!(signer.verify(&stranger.sign(&json!({})).unwrap()).is_none());
    }
}
