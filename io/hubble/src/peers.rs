//! Where are the cluster's observers? A list that readers follow.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use flow::proto::peer::{ChangeNotification, ChangeNotificationType, Tls};
use futures::{Stream, stream};
use tokio::sync::watch;

/// One observer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAddress {
    /// `cluster/node`.
    pub name: String,
    /// `host:port`.
    pub address: String,
    /// Name in its certificate, if it is to be asked by TLS.
    pub tls_server_name: Option<String>,
}

type List = Arc<BTreeMap<String, PeerAddress>>;

/// See the module.
#[derive(Debug)]
pub struct Peers {
    list: watch::Sender<List>,
}

impl Default for Peers {
    fn default() -> Self {
        Self { list: watch::Sender::new(List::default()) }
    }
}

impl Peers {
    /// Replaces the list; followers are told the difference.
    pub fn set(&self, peers: impl IntoIterator<Item = PeerAddress>) {
        let list: List = Arc::new(peers.into_iter().map(|peer| (peer.name.clone(), peer)).collect());
        self.list.send_if_modified(|current| {
            let changed = *current != list;
            if changed {
                *current = list;
            }
            changed
        });
    }

    /// All of them as added, then every change.
    pub fn follow(&self) -> impl Stream<Item = ChangeNotification> + Send + 'static + use<> {
        let mut receiver = self.list.subscribe();
        receiver.mark_changed();
        let state = (receiver, List::default(), VecDeque::new());
        stream::unfold(state, |(mut receiver, mut known, mut pending)| async move {
            while pending.is_empty() {
                receiver.changed().await.ok()?;
                let current = receiver.borrow_and_update().clone();
                pending.extend(difference(&known, &current));
                known = current;
            }
            let next = pending.pop_front()?;
            Some((next, (receiver, known, pending)))
        })
    }
}

fn difference(old: &List, new: &List) -> Vec<ChangeNotification> {
    use ChangeNotificationType::{PeerAdded, PeerDeleted, PeerUpdated};
    let gone = old.values().filter(|peer| !new.contains_key(&peer.name)).map(|peer| notice(peer, PeerDeleted));
    let changed = new.values().filter_map(|peer| match old.get(&peer.name) {
        None => Some(notice(peer, PeerAdded)),
        Some(before) if before != peer => Some(notice(peer, PeerUpdated)),
        Some(_) => None,
    });
    gone.chain(changed).collect()
}

fn notice(peer: &PeerAddress, kind: ChangeNotificationType) -> ChangeNotification {
    ChangeNotification {
        name: peer.name.clone(),
        address: peer.address.clone(),
        r#type: kind.into(),
        tls: peer.tls_server_name.clone().map(|server_name| Tls { server_name }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use futures::StreamExt;

    use super::*;

    fn peer(name: &str, address: &str) -> PeerAddress {
        PeerAddress { name: name.into(), address: address.into(), tls_server_name: None }
    }

    #[tokio::test]
    async fn followers_get_all_and_then_differences() {
        let peers = Peers::default();
        peers.set([peer("a", "1"), peer("b", "2")]);
        let mut follower = Box::pin(peers.follow());
        let mut next = async || {
            let change = follower.next().await.unwrap();
            (change.r#type().as_str_name(), change.name, change.address)
        };
        assert_eq!(next().await, ("PEER_ADDED", "a".into(), "1".into()));
        assert_eq!(next().await, ("PEER_ADDED", "b".into(), "2".into()));
        peers.set([peer("b", "3"), peer("c", "4")]);
        assert_eq!(next().await, ("PEER_DELETED", "a".into(), "1".into()));
        assert_eq!(next().await, ("PEER_UPDATED", "b".into(), "3".into()));
        assert_eq!(next().await, ("PEER_ADDED", "c".into(), "4".into()));
    }
}
