//! What do the Secrets that rules name hold, as rules ask for it?
//!
//! An item that is not there, or of no use, is an error with the Secret's name and the item's, and never with its content.

use std::collections::BTreeMap;

use proxy_api::{Hidden, TlsClient, TlsServer};

/// The items that Cilium 1.20 looks for if a policy names no others.
const CERTIFICATES: &str = "tls.crt";
const KEY: &str = "tls.key";
const TRUSTED: &str = "ca.crt";

/// A Secret that rules name: namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Reference {
    /// Of a policy. Policies name the namespace, or have one themselves.
    pub fn of(secret: &crds::SecretRef) -> Reference {
        Reference { namespace: secret.namespace.clone().unwrap_or_default(), name: secret.name.clone() }
    }
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The items of a Secret by their names.
pub type Items = Hidden<BTreeMap<String, Vec<u8>>>;

/// What is known of Secrets: their items, or why there are none.
pub type Known = BTreeMap<Reference, Result<Items, String>>;

/// Secrets as rules ask for them.
#[derive(Clone, Copy)]
pub struct Secrets<'a> {
    /// What is known.
    pub known: &'a Known,
    /// Items of a Secret that the other side of TLS would use count too (`use-full-tls-context`).
    pub full: bool,
}

impl Secrets<'_> {
    fn items(&self, secret: &crds::SecretRef) -> Result<&BTreeMap<String, Vec<u8>>, String> {
        let reference = Reference::of(secret);
        match self.known.get(&reference) {
            Some(Ok(items)) => Ok(&items.0),
            Some(Err(why)) => Err(format!("Secret {reference}: {why}")),
            None => Err(format!("Secret {reference}: not read yet")),
        }
    }

    /// The value that a header is compared with: the Secret's only item, or the one that is called `generic`.
    pub fn header_value(&self, secret: &crds::SecretRef) -> Result<Hidden<String>, String> {
        let wrong = |why: &str| format!("Secret {}: {why}", Reference::of(secret));
        let items = self.items(secret)?;
        let only = if items.len() == 1 { items.values().next() } else { items.get("generic") };
        let value = only.ok_or_else(|| wrong("expected one item, or one that is called generic"))?;
        match std::str::from_utf8(value) {
            Ok("") => Err(wrong("its value is empty")),
            Ok(text) if text.bytes().all(|byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f)) => {
                Ok(Hidden(text.to_owned()))
            }
            Ok(_) | Err(_) => Err(wrong("its value cannot be a header's: expected text without control characters")),
        }
    }

    /// What TLS that clients begin ends with.
    pub fn server(&self, context: &crds::TlsContext) -> Result<TlsServer, String> {
        let item = |given: &Option<String>, usual| self.item(&context.secret, given.as_deref(), usual);
        let (certificates, key) = (item(&context.certificate, CERTIFICATES)?, item(&context.private_key, KEY)?);
        let (Some(certificates), Some(key)) = (certificates, key) else {
            let reference = Reference::of(&context.secret);
            return Err(format!("Secret {reference}: expected the items {CERTIFICATES} and {KEY}"));
        };
        let trusted = if self.full { item(&context.trusted_ca, TRUSTED)? } else { None };
        Ok(TlsServer { certificates, key: Hidden(key), trusted })
    }

    /// What TLS with servers begins with.
    pub fn client(&self, context: &crds::TlsContext) -> Result<TlsClient, String> {
        let item = |given: &Option<String>, usual| self.item(&context.secret, given.as_deref(), usual);
        let trusted = item(&context.trusted_ca, TRUSTED)?;
        let trusted = trusted.ok_or_else(|| {
            let reference = Reference::of(&context.secret);
            format!("Secret {reference}: expected the item {TRUSTED}")
        })?;
        let own = match self.full {
            true => item(&context.certificate, CERTIFICATES)?.zip(item(&context.private_key, KEY)?),
            false => None,
        };
        Ok(TlsClient { trusted, own: own.map(|(certificates, key)| (certificates, Hidden(key))) })
    }

    /// An item as text. One that a policy gives a name has to be there.
    fn item(&self, secret: &crds::SecretRef, given: Option<&str>, usual: &str) -> Result<Option<String>, String> {
        let name = given.filter(|name| !name.is_empty());
        let wrong = |why: &str| format!("Secret {}: item {}: {why}", Reference::of(secret), name.unwrap_or(usual));
        match self.items(secret)?.get(name.unwrap_or(usual)) {
            None if name.is_some() => Err(wrong("not found")),
            None => Ok(None),
            Some(value) => String::from_utf8(value.clone()).map(Some).map_err(|_| wrong("expected PEM")),
        }
    }
}

/// What tests of rules and of Secrets have in common.
#[cfg(test)]
pub(super) mod fixtures {
    use super::{Hidden, Known, Reference};

    /// What no output may hold.
    pub const MARKER: &str = "hunter2";

    /// A Secret as policies name it.
    pub fn secret(name: &str) -> crds::SecretRef {
        crds::SecretRef { name: name.into(), namespace: Some("ns".into()) }
    }

    /// Of this Secret these items are known.
    pub fn known(name: &str, items: &[(&str, &[u8])]) -> Known {
        let items = items.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec())).collect();
        Known::from([(Reference::of(&secret(name)), Ok(Hidden(items)))])
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::fixtures::{MARKER, known, secret};
    use super::*;

    fn header(items: &[(&str, &[u8])]) -> Result<String, String> {
        let known = known("s", items);
        Secrets { known: &known, full: false }.header_value(&secret("s")).map(|value| value.0)
    }

    #[test]
    fn a_header_s_value_is_the_only_item() {
        assert_eq!(header(&[("token", b"hunter2")]).unwrap(), MARKER);
        assert_eq!(header(&[("generic", b"hunter2"), ("more", b"x")]).unwrap(), MARKER);
        for wrong in
            [&[("a", &b"hunter2"[..]), ("b", b"hunter2")][..], &[("a", b"hunter2\n")], &[("a", b"\xffhunter2")]]
        {
            let error = header(wrong).unwrap_err();
            assert!(error.starts_with("Secret ns/s: ") && !error.contains(MARKER), "{error}");
        }
        assert!(header(&[]).is_err() && header(&[("a", b"")]).is_err());
        let none = Known::new();
        let error = Secrets { known: &none, full: false }.header_value(&secret("s")).unwrap_err();
        assert_eq!(error, "Secret ns/s: not read yet");
    }

    #[test]
    fn a_server_needs_certificate_and_key_and_a_client_whom_to_trust() {
        let all = known("s", &[("tls.crt", b"C"), ("tls.key", b"K"), ("ca.crt", b"T"), ("other", b"O")]);
        let context = crds::TlsContext { secret: secret("s"), ..Default::default() };
        let plain = Secrets { known: &all, full: false };
        let server = plain.server(&context).unwrap();
        assert_eq!((server.certificates.as_str(), server.key.0.as_str(), server.trusted), ("C", "K", None));
        let client = plain.client(&context).unwrap();
        assert_eq!((client.trusted.as_str(), client.own), ("T", None));
        let full = Secrets { known: &all, full: true };
        assert_eq!(full.server(&context).unwrap().trusted.as_deref(), Some("T"));
        assert_eq!(full.client(&context).unwrap().own.unwrap().0, "C");
        let named = crds::TlsContext { trusted_ca: Some("other".into()), ..context.clone() };
        assert_eq!(plain.client(&named).unwrap().trusted, "O");
        let absent = crds::TlsContext { private_key: Some("mine".into()), ..context.clone() };
        assert_eq!(plain.server(&absent).unwrap_err(), "Secret ns/s: item mine: not found");
        let half = known("s", &[("tls.crt", b"C")]);
        assert!(Secrets { known: &half, full: false }.server(&context).is_err());
        assert!(Secrets { known: &half, full: false }.client(&context).is_err());
    }
}
