//! Which number does a set of labels get, when several agents ask at once?
//!
//! An identity is an object whose name is the number, so the API server's conflict answer decides every race: whoever
//! creates the object first owns the number. Agents propose the same number for the same labels and, if that belongs to
//! other labels, the next one; so equal labels meet at the same object.

use abi::identity::{Identity, MAXIMAL_ALLOCATED, MINIMAL_ALLOCATED};
use labels::Labels;

/// How the identities of the cluster are reached.
pub trait IdentityApi {
    /// Why a call failed.
    type Error;
    /// Creates the object; false: the number is taken.
    fn create(&self, number: Identity, labels: &Labels) -> impl Future<Output = Result<bool, Self::Error>> + Send;
    /// The labels of a number now, from the server and not from a copy.
    fn read(&self, number: Identity) -> impl Future<Output = Result<Option<Labels>, Self::Error>> + Send;
    /// Says that the number is in use, so that it is not removed meanwhile; false: it is gone.
    fn keep(&self, number: Identity) -> impl Future<Output = Result<bool, Self::Error>> + Send;
}

/// Why there is no identity.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AllocationError<E> {
    /// The API failed.
    #[error(transparent)]
    Api(E),
    /// All numbers belong to other labels.
    #[error("all {0} identities are in use")]
    Exhausted(u32),
}

/// Finds or makes the identity of these labels. `known` is what the agent has seen of a number, if anything.
pub async fn allocate<A: IdentityApi>(
    api: &A,
    known: impl Fn(Identity) -> Option<Labels>,
    labels: &Labels,
) -> Result<Identity, AllocationError<A::Error>> {
    for number in ::identity::candidates(labels) {
        match known(number) {
            Some(others) if others != *labels => {}
            _ => {
                if claim(api, number, labels).await.map_err(AllocationError::Api)? {
                    return Ok(number);
                }
            }
        }
    }
    Err(AllocationError::Exhausted(MAXIMAL_ALLOCATED - MINIMAL_ALLOCATED + 1))
}

/// True: the number stands for these labels. False: it stands for others.
async fn claim<A: IdentityApi>(api: &A, number: Identity, labels: &Labels) -> Result<bool, A::Error> {
    loop {
        match api.read(number).await? {
            Some(found) if found != *labels => return Ok(false),
            Some(_) if api.keep(number).await? => return Ok(true),
            // Removed between the two calls.
            Some(_) => {}
            None if api.create(number, labels).await? => return Ok(true),
            // Somebody was quicker; whose labels are they?
            None => {}
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use super::*;

    /// An API server that keeps names unique and yields at every call, so that allocators interleave.
    #[derive(Default)]
    struct Server {
        objects: Mutex<BTreeMap<Identity, Labels>>,
        kept: Mutex<Vec<Identity>>,
    }

    impl IdentityApi for Server {
        type Error = ();

        async fn create(&self, number: Identity, labels: &Labels) -> Result<bool, ()> {
            tokio::task::yield_now().await;
            let mut objects = self.objects.lock().unwrap();
            if objects.contains_key(&number) {
                return Ok(false);
            }
            objects.insert(number, labels.clone());
            Ok(true)
        }

        async fn read(&self, number: Identity) -> Result<Option<Labels>, ()> {
            tokio::task::yield_now().await;
            Ok(self.objects.lock().unwrap().get(&number).cloned())
        }

        async fn keep(&self, number: Identity) -> Result<bool, ()> {
            tokio::task::yield_now().await;
            self.kept.lock().unwrap().push(number);
            Ok(self.objects.lock().unwrap().contains_key(&number))
        }
    }

    fn proposal(labels: &Labels) -> Identity {
        ::identity::candidates(labels).next().unwrap()
    }

    fn labels(text: &str) -> Labels {
        Labels::parse([text]).unwrap()
    }

    /// Labels whose search begins at one number.
    fn colliding(count: usize) -> Vec<Labels> {
        let mut by_number: BTreeMap<Identity, Vec<Labels>> = BTreeMap::new();
        for n in 0.. {
            let set = labels(&format!("k8s:app=a{n}"));
            let group = by_number.entry(proposal(&set)).or_default();
            group.push(set);
            if group.len() == count {
                return group.clone();
            }
        }
        Vec::new()
    }

    #[tokio::test]
    async fn a27_two_nodes_never_give_one_number_to_different_labels() {
        let (server, sets) = (Server::default(), colliding(3));
        let nothing = |_| None;
        let all = futures::future::join_all(sets.iter().chain(&sets).map(|set| allocate(&server, nothing, set))).await;
        let numbers: Vec<Identity> = all.into_iter().map(Result::unwrap).collect();
        assert_eq!(numbers[..3], numbers[3..], "equal labels, equal number");
        assert_eq!(numbers[..3].iter().collect::<std::collections::BTreeSet<_>>().len(), 3);
        assert_eq!(server.objects.lock().unwrap().len(), 3);
    }

    #[tokio::test]
    async fn a26_a_number_that_is_taken_over_is_kept_from_removal() {
        let (server, set) = (Server::default(), labels("k8s:app=web"));
        let first = allocate(&server, |_| None, &set).await.unwrap();
        let again = allocate(&server, |_| None, &set).await.unwrap();
        assert_eq!((first, server.kept.lock().unwrap().as_slice()), (again, [again].as_slice()));
        server.objects.lock().unwrap().clear();
        assert_eq!(allocate(&server, |_| Some(set.clone()), &set).await.unwrap(), first);
        assert_eq!(server.objects.lock().unwrap().get(&first), Some(&set), "a removed object is made again");
    }

    #[tokio::test]
    async fn a_stale_copy_only_costs_another_number() {
        let (server, set) = (Server::default(), labels("k8s:app=web"));
        let stale = |number| (number == proposal(&set)).then(|| labels("k8s:app=old"));
        assert_eq!(allocate(&server, stale, &set).await.unwrap(), ::identity::candidates(&set).nth(1).unwrap());
    }
}
