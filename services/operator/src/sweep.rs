//! Which objects does nobody need any more?

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

/// The annotation that says since when nobody uses an identity. Agents that take the identity over remove it.
pub const UNUSED_SINCE: &str = "io.cilium.heartbeat";

/// An identity as it was listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its number, which is its name.
    pub name: String,
    /// Which object of that name.
    pub uid: String,
    /// Which version of the object.
    pub version: String,
    /// What the annotation says.
    pub unused_since: Option<String>,
}

/// What to do about an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nobody uses it from now on.
    Mark(String),
    /// It is used again.
    Unmark(String),
    /// Nobody used it for long. Only this version: any write by an agent means that it is wanted.
    Delete {
        /// Its name.
        name: String,
        /// Which object.
        uid: String,
        /// Which version.
        version: String,
    },
}

/// Decides about identities. `used` was listed after `identities`, so that what was taken into use meanwhile counts.
pub fn identities(
    identities: &[Seen],
    used: &BTreeSet<String>,
    now: Timestamp,
    timeout: SignedDuration,
) -> Vec<Action> {
    let mut actions = Vec::new();
    for seen in identities {
        let since = seen.unused_since.as_ref().and_then(|text| text.parse::<Timestamp>().ok());
        match (used.contains(&seen.name), since) {
            (true, _) if seen.unused_since.is_some() => actions.push(Action::Unmark(seen.name.clone())),
            (true, _) => {}
            (false, Some(since)) if now.duration_since(since) >= timeout => {
                let (name, uid, version) = (seen.name.clone(), seen.uid.clone(), seen.version.clone());
                actions.push(Action::Delete { name, uid, version });
            }
            // A time that lies ahead is not one that we wrote.
            (false, Some(since)) if since <= now => {}
            (false, _) => actions.push(Action::Mark(seen.name.clone())),
        }
    }
    actions
}

/// Namespace and name.
pub type Key = (String, String);

/// Endpoints whose pod is gone or at its end.
pub fn endpoints(endpoints: &[Key], pods: &BTreeMap<Key, bool>) -> Vec<Key> {
    endpoints.iter().filter(|key| !pods.get(*key).copied().unwrap_or(false)).cloned().collect()
}

/// Nodes of agents without a node of the cluster.
pub fn nodes(agent_nodes: &[String], nodes: &BTreeSet<String>) -> Vec<String> {
    agent_nodes.iter().filter(|name| !nodes.contains(*name)).cloned().collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn seen(name: &str, since: Option<&str>) -> Seen {
        Seen { name: name.into(), uid: "u".into(), version: "7".into(), unused_since: since.map(str::to_owned) }
    }

    fn decide(seen: Seen, used: bool) -> Vec<Action> {
        let now = "2026-01-01T12:00:00Z".parse().unwrap();
        let used = used.then(|| seen.name.clone()).into_iter().collect();
        identities(&[seen], &used, now, SignedDuration::from_mins(30))
    }

    #[test]
    fn a26_an_identity_in_use_is_never_removed() {
        assert_eq!(decide(seen("300", None), true), []);
        assert_eq!(decide(seen("300", Some("2020-01-01T00:00:00Z")), true), [Action::Unmark("300".into())]);
    }

    #[test]
    fn a27_an_unused_identity_rests_before_its_number_is_free() {
        let mark = [Action::Mark("300".into())];
        assert_eq!(decide(seen("300", None), false), mark);
        assert_eq!(decide(seen("300", Some("2026-01-01T11:45:00Z")), false), []);
        let delete = Action::Delete { name: "300".into(), uid: "u".into(), version: "7".into() };
        assert_eq!(decide(seen("300", Some("2026-01-01T11:30:00Z")), false), [delete]);
        assert_eq!(decide(seen("300", Some("soon")), false), mark);
        assert_eq!(decide(seen("300", Some("2031-01-01T00:00:00Z")), false), mark);
    }

    #[test]
    fn endpoints_go_with_their_pods_and_agent_nodes_with_their_nodes() {
        let key = |name: &str| ("default".to_owned(), name.to_owned());
        let pods = [(key("runs"), true), (key("ended"), false)].into();
        assert_eq!(endpoints(&[key("runs"), key("ended"), key("gone")], &pods), [key("ended"), key("gone")]);
        let names = |all: &[&str]| all.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        assert_eq!(nodes(&names(&["n1", "n2"]), &names(&["n1"]).into_iter().collect()), names(&["n2"]));
    }
}
