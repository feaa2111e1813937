//! Who sent this request?

mod certificate;

use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;
use serde_json::{Value, json};

use crate::api::Api;
use crate::status::Status;
use crate::token;

/// A known user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
}

impl User {
    pub fn new(name: &str, groups: &[&str]) -> Self {
        let mut groups: Vec<String> = groups.iter().map(|&group| group.to_owned()).collect();
        groups.push("system:authenticated".to_owned());
        Self { name: name.to_owned(), uid: String::new(), groups }
    }

    pub fn service_account(namespace: &str, name: &str, uid: &str) -> Self {
        let of_namespace = format!("system:serviceaccounts:{namespace}");
        let user = format!("system:serviceaccount:{namespace}:{name}");
        Self { uid: uid.to_owned(), ..Self::new(&user, &["system:serviceaccounts", &of_namespace]) }
    }

    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|one| one == group)
    }

    pub fn to_json(&self) -> Value {
        let mut info = json!({"username": self.name, "groups": self.groups});
        if !self.uid.is_empty() {
            info["uid"] = self.uid.as_str().into();
        }
        info
    }
}

/// The user that a verified client certificate names: common name and organisations.
pub fn from_certificate(der: &[u8]) -> Option<User> {
    let subject = certificate::subject(der)?;
    let groups: Vec<&str> = subject.organisations.iter().map(String::as_str).collect();
    (!subject.common_name.is_empty()).then(|| User::new(&subject.common_name, &groups))
}

/// The user of a request, by bearer token or by the connection's certificate.
///
/// # Errors
/// Unauthorized if neither proves anything.
pub fn authenticate(api: &Api, peer: Option<&User>, headers: &HeaderMap) -> Result<User, Status> {
    let bearer = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    if let Some(token) = bearer.and_then(|text| text.strip_prefix("Bearer ")) {
        return from_token(api, token.trim()).ok_or_else(Status::unauthorized);
    }
    peer.cloned().ok_or_else(Status::unauthorized)
}

/// The user that a bearer token stands for.
pub fn from_token(api: &Api, given: &str) -> Option<User> {
    let fixed = api.tokens.iter().find(|known| same(known.token.as_bytes(), given.as_bytes()));
    if let Some(known) = fixed {
        let groups: Vec<&str> = known.groups.iter().map(String::as_str).collect();
        return Some(User::new(&known.user, &groups));
    }
    token::verify(api, given)
}

/// Compares in a time that does not tell how much was equal.
fn same(known: &[u8], given: &[u8]) -> bool {
    known.len() == given.len() && known.iter().zip(given).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}
