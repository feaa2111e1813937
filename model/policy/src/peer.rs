//! Whom does a rule speak of?

mod entity;
mod identity;

use std::fmt;

use ::identity::{Families, world_label};
use ipnet::IpNet;
use labels::{Label, Labels, Operator, POD_NAMESPACE, Selector, source};

use crate::settings::Settings;

pub use self::entity::{ENTITIES, Entity};
pub use self::identity::PeerIdentity;
use self::identity::SUMS;

/// A label's key for the name of a group of prefixes, which follows.
const GROUP_NAME: &str = "io.cilium.policy.cidrgroupname";

/// A prefix without some parts.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CidrSet {
    /// The prefix, canonical.
    pub prefix: IpNet,
    /// Parts of it that are left out, canonical and sorted.
    pub except: Vec<IpNet>,
}

impl CidrSet {
    /// A prefix without these parts; parts that do not lie in it do not matter.
    pub fn new(prefix: IpNet, except: impl IntoIterator<Item = IpNet>) -> Self {
        let prefix = prefix.trunc();
        let mut except: Vec<IpNet> = except.into_iter().map(|part| part.trunc()).collect();
        except.retain(|part| prefix.contains(part));
        except.sort();
        except.dedup();
        CidrSet { prefix, except }
    }
}

/// One selector of peers.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Peer {
    /// Everybody.
    All,
    /// By labels.
    Labels(Selector),
    /// Sums by labels: each has none but its own, so that a selector that only says what must be absent selects sums.
    Sums(Selector),
    /// By entity. The datapath of the field tells the sum of many identities (all of the cluster, all addresses of the
    /// world, all nodes) from identities of their own, and so do match types. An entity that has a sum is two peers:
    /// the sum, and everybody in it by labels.
    Entity {
        /// The entity.
        entity: Entity,
        /// True for the sum.
        sum: bool,
    },
    /// By address.
    Cidr(CidrSet),
    /// By addresses that are learned: names, groups, services. Nobody until then.
    Learned(Learned),
}

/// What addresses are learned for. Those of names and patterns have a label for each that they were learned for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Learned {
    /// A DNS name.
    Name(String),
    /// DNS names of a pattern.
    Pattern(String),
    /// A CiliumCIDRGroup by name, without some parts.
    Group(String, Vec<IpNet>),
    /// CiliumCIDRGroups by labels, without some parts.
    Groups(Selector, Vec<IpNet>),
    /// A service: namespace (empty: any) and name.
    Service(String, String),
    /// Services by labels: namespace (empty: any) and selector.
    Services(String, Selector),
}

/// What selectors need to know besides.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Context<'a> {
    /// Name of the own cluster.
    pub cluster_name: &'a str,
    /// Number of the own cluster.
    pub cluster_id: u32,
    /// Families in use.
    pub families: Families,
    /// Prefixes select nodes too.
    pub cidr_matches_nodes: bool,
    /// Prefixes select workloads too that have labels of prefixes.
    pub cidr_matches_pods: bool,
}

impl<'a> Context<'a> {
    /// What the settings say.
    pub fn of(settings: &'a Settings) -> Self {
        Context {
            cluster_name: &settings.cluster_name,
            cluster_id: settings.cluster_id,
            families: settings.families,
            cidr_matches_nodes: settings.cidr_matches_nodes,
            cidr_matches_pods: settings.cidr_matches_pods,
        }
    }
}

/// What is known of something that policies wait to be told of: the prefixes of a group, the backends of a
/// service or the labels of its pods.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Known {
    /// Addresses.
    pub prefixes: Vec<IpNet>,
    /// Workloads by labels.
    pub selectors: Vec<Selector>,
    /// Groups of prefixes, for those who select groups by labels.
    pub groups: Vec<(Labels, IpNet)>,
}

impl From<Vec<IpNet>> for Known {
    fn from(prefixes: Vec<IpNet>) -> Self {
        Known { prefixes, ..Known::default() }
    }
}

impl Known {
    /// All groups with their labels. An address has the labels of all groups that it lies in, and a selector asks them
    /// all together.
    pub fn of_groups(groups: impl IntoIterator<Item = (Labels, IpNet)>) -> Self {
        let groups: Vec<(Labels, IpNet)> = groups.into_iter().collect();
        let prefixes = groups.iter().map(|(_, prefix)| *prefix).collect();
        Known { prefixes, groups, ..Known::default() }
    }
}

impl Peer {
    /// The peers that an entity stands for.
    pub fn of_entity(entity: Entity) -> Vec<Peer> {
        match entity {
            Entity::All => vec![Peer::All],
            Entity::World | Entity::Cluster | Entity::ClusterMesh | Entity::RemoteNode => {
                [false, true].map(|sum| Peer::Entity { entity, sum }).to_vec()
            }
            _ => vec![Peer::Entity { entity, sum: false }],
        }
    }

    /// The peers that a selector of labels stands for; one without conditions is everybody.
    pub fn of_selector(selector: Selector) -> Vec<Peer> {
        if selector.is_everything() {
            return vec![Peer::All];
        }
        let sums = SUMS.iter().any(|name| selector.matches(&Labels::reserved(name)));
        let sums = sums.then(|| Peer::Sums(selector.clone()));
        [Peer::Labels(selector)].into_iter().chain(sums).collect()
    }

    /// True if match types do not count it as a peer of its own.
    pub fn is_sum(&self) -> bool {
        matches!(self, Peer::All | Peer::Sums(_) | Peer::Entity { sum: true, .. })
    }

    /// True if it selects the identity. `learned` is what is known of what is learned.
    pub fn selects(&self, peer: &PeerIdentity, context: &Context<'_>, learned: &Known) -> bool {
        match self {
            Peer::All => true,
            Peer::Labels(selector) => selector.matches(&peer.as_peer),
            Peer::Sums(selector) => {
                peer.sum_label(context).is_some_and(|name| selector.matches(&Labels::reserved(name)))
            }
            Peer::Entity { entity, sum: true } => peer.in_sum(*entity, context),
            Peer::Entity { entity, sum: false } => peer.is_entity(*entity, context),
            Peer::Cidr(set) => selects_addresses(peer, context, set),
            Peer::Learned(Learned::Groups(selector, except)) => {
                selects_groups(peer, context, selector, &learned.groups) && !lies_in_any(peer, context, except)
            }
            Peer::Learned(Learned::Group(name, except)) if peer.has_group_labels() => {
                let named = peer.as_peer.get(source::CIDR_GROUP, &format!("{GROUP_NAME}/{name}")).is_some();
                named && is_addressed(peer, context) && !lies_in_any(peer, context, except)
            }
            Peer::Learned(Learned::Name(name) | Learned::Pattern(name)) => {
                is_named(peer, context) && peer.as_peer.get(source::FQDN, name).is_some()
            }
            Peer::Learned(what) => {
                let by_prefix = learned.prefixes.iter().any(|prefix| {
                    // What is left out may be wider than what there is of a group: then nothing of it is left.
                    let set = CidrSet { prefix: prefix.trunc(), except: what.except().to_vec() };
                    selects_addresses(peer, context, &set)
                });
                by_prefix || learned.selectors.iter().any(|selector| selector.matches(&peer.as_peer))
            }
        }
    }

    /// The namespaces that the selected can be in (empty: in none); `None` if in any. It saves asking the others.
    pub(crate) fn namespaces(&self, context: &Context<'_>) -> Option<Vec<&str>> {
        let selector = match self {
            Peer::Cidr(_) if context.cidr_matches_pods => return None,
            Peer::Learned(what) if context.cidr_matches_pods || what.is_service() => return None,
            Peer::Cidr(_) | Peer::Learned(_) => return Some(vec![""]),
            Peer::All | Peer::Sums(_) | Peer::Entity { .. } => return None,
            Peer::Labels(selector) => selector,
        };
        let of_namespace = |one: &&labels::Requirement| one.key.source == source::K8S && one.key.key == POD_NAMESPACE;
        let named = selector.requirements().iter().filter(of_namespace).find_map(|one| match &one.operator {
            Operator::In(values) => Some(values),
            Operator::NotIn(_) | Operator::Exists | Operator::DoesNotExist => None,
        });
        named.map(|values| values.iter().map(String::as_str).collect())
    }

    /// The prefixes that must have identities of their own, so that the selector is exact.
    pub fn prefixes<'a>(&'a self, learned: &'a Known) -> impl Iterator<Item = IpNet> + 'a {
        let own = match self {
            Peer::Cidr(set) => Some(set),
            _ => None,
        };
        let except = match self {
            Peer::Learned(what) => what.except(),
            _ => &[],
        };
        let own = own.into_iter().flat_map(|set| [set.prefix].into_iter().chain(set.except.iter().copied()));
        let learned = if matches!(self, Peer::Learned(_)) { learned.prefixes.as_slice() } else { &[] };
        own.chain(learned.iter().map(|prefix| prefix.trunc())).chain(except.iter().copied())
    }
}

impl Learned {
    /// Parts that are left out.
    pub fn except(&self) -> &[IpNet] {
        match self {
            Learned::Group(_, except) | Learned::Groups(_, except) => except,
            Learned::Name(_) | Learned::Pattern(_) | Learned::Service(..) | Learned::Services(..) => &[],
        }
    }

    /// True for names and patterns of names.
    pub fn is_name(&self) -> bool {
        matches!(self, Learned::Name(_) | Learned::Pattern(_))
    }

    /// True if it is a name or a pattern that means this name, both in canonical form.
    pub fn means(&self, name: &str) -> bool {
        match self {
            Learned::Name(wanted) => wanted == name,
            Learned::Pattern(pattern) if pattern.contains('*') => l7::dns::name_matches(pattern, name),
            Learned::Pattern(pattern) => pattern == name,
            Learned::Group(..) | Learned::Groups(..) | Learned::Service(..) | Learned::Services(..) => false,
        }
    }

    /// True for groups of prefixes.
    pub fn is_group(&self) -> bool {
        matches!(self, Learned::Group(..) | Learned::Groups(..))
    }

    /// True for services, whose backends can be workloads.
    pub fn is_service(&self) -> bool {
        matches!(self, Learned::Service(..) | Learned::Services(..))
    }
}

/// Prefixes select what is outside of the cluster; nodes and workloads only if asked to.
fn selects_addresses(peer: &PeerIdentity, context: &Context<'_>, set: &CidrSet) -> bool {
    if !is_addressed(peer, context) {
        return false;
    }
    (is_whole(peer, context, &set.prefix) || lies_in(peer, context, &set.prefix))
        && !lies_in_any(peer, context, &set.except)
}

fn lies_in(peer: &PeerIdentity, context: &Context<'_>, prefix: &IpNet) -> bool {
    match prefix.prefix_len() {
        // The whole family is whoever is outside and of it; the world has no prefix of its own.
        0 => peer.as_peer.has_reserved(&world_label(prefix.addr().is_ipv6(), context.families).key),
        _ => peer.prefixes.iter().any(|own| prefix.contains(own)),
    }
}

/// Pods of a family in use are in all of the family, and nothing takes all of it out.
fn is_whole(peer: &PeerIdentity, context: &Context<'_>, prefix: &IpNet) -> bool {
    let is_ipv6 = prefix.addr().is_ipv6();
    let in_use = if is_ipv6 { context.families.ipv6 } else { context.families.ipv4 };
    let of_family = || peer.prefixes.iter().any(|own| own.addr().is_ipv6() == is_ipv6);
    context.cidr_matches_pods && prefix.prefix_len() == 0 && in_use && of_family()
}

fn lies_in_any(peer: &PeerIdentity, context: &Context<'_>, parts: &[IpNet]) -> bool {
    parts.iter().any(|part| !is_whole(peer, context, part) && lies_in(peer, context, part))
}

/// True if the labels of all groups that the peer lies in fulfil the selector. Who lies in none has none.
fn selects_groups(peer: &PeerIdentity, context: &Context<'_>, selector: &Selector, groups: &[(Labels, IpNet)]) -> bool {
    let mine = groups.iter().filter(|(_, prefix)| !peer.has_group_labels() && lies_in(peer, context, prefix));
    let mine: Vec<&Label> = mine.flat_map(|(labels, _)| labels).collect();
    let labelled = |key: &str| peer.as_peer.get(source::CIDR_GROUP, key).is_some();
    let with = |key: &str, values: &[String]| {
        let has = |value: &String| mine.iter().any(|label| label.key == key && label.value == *value);
        values.iter().any(|value| has(value) || labelled(&format!("{key}+{value}")))
    };
    let has = |key: &str| labelled(key) || mine.iter().any(|label| label.key == key);
    is_addressed(peer, context)
        && selector.requirements().iter().all(|one| match &one.operator {
            Operator::In(values) => with(&one.key.key, values),
            Operator::NotIn(values) => !with(&one.key.key, values),
            Operator::Exists => has(&one.key.key),
            Operator::DoesNotExist => !has(&one.key.key),
        })
}

/// True if it can have been learned as the address of a name.
fn is_named(peer: &PeerIdentity, context: &Context<'_>) -> bool {
    peer.is_world() || context.cidr_matches_nodes && peer.is_node()
}

/// True if prefixes can select it.
fn is_addressed(peer: &PeerIdentity, context: &Context<'_>) -> bool {
    match (peer.is_world(), peer.is_node()) {
        (true, _) => true,
        (false, true) => context.cidr_matches_nodes,
        (false, false) => context.cidr_matches_pods,
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::All => f.write_str("everybody"),
            Peer::Labels(selector) => selector.fmt(f),
            Peer::Sums(selector) => write!(f, "sums that are {selector}"),
            Peer::Entity { entity, .. } => write!(f, "entity {}", entity.name()),
            Peer::Cidr(set) => {
                write!(f, "{}", set.prefix)?;
                set.except.iter().try_for_each(|part| write!(f, " without {part}"))
            }
            Peer::Learned(Learned::Name(name) | Learned::Pattern(name)) => write!(f, "name {name}"),
            Peer::Learned(Learned::Group(name, _)) => write!(f, "group {name}"),
            Peer::Learned(Learned::Groups(selector, _)) => write!(f, "groups {selector}"),
            Peer::Learned(Learned::Service(namespace, name)) => write!(f, "service {namespace}/{name}"),
            Peer::Learned(Learned::Services(namespace, selector)) => write!(f, "services {selector} of {namespace}"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use abi::identity as id;

    const CONTEXT: Context<'static> = Context {
        cluster_name: "c",
        cluster_id: 0,
        families: Families { ipv4: true, ipv6: false },
        cidr_matches_nodes: false,
        cidr_matches_pods: false,
    };

    fn check(peers: &[Peer], identity: u32, labels: &[&str], expected: bool) {
        let peer = PeerIdentity::new(identity, Labels::parse(labels.iter().copied()).unwrap());
        let found = peers.iter().any(|one| one.selects(&peer, &CONTEXT, &Known::default()));
        assert_eq!(found, expected, "{peers:?} on {peer:?}");
    }

    fn entity(name: &str) -> Vec<Peer> {
        Peer::of_entity(Entity::parse(name).unwrap())
    }

    const WORKLOAD: &[&str] = &["k8s:app=x", "k8s:io.cilium.k8s.policy.cluster=c", "k8s:io.kubernetes.pod.namespace=n"];
    const OTHERS: &[&str] = &["k8s:app=x", "k8s:io.cilium.k8s.policy.cluster=d", "k8s:io.kubernetes.pod.namespace=n"];
    const ADDRESS: &[&str] = &["cidr:10.1.0.0/16", "reserved:world"];
    const API_OUTSIDE: &[&str] = &["cidr:10.1.0.1/32", "reserved:kube-apiserver", "reserved:world"];

    #[test]
    fn world_is_everything_outside() {
        check(&entity("world"), 2, &["reserved:world"], true);
        check(&entity("world"), 9, &["reserved:world-ipv4"], true);
        check(&entity("world"), id::LOCAL_CIDR, ADDRESS, true);
        check(&entity("world"), id::LOCAL_CIDR, API_OUTSIDE, true);
        for (identity, name) in [(1, "host"), (6, "remote-node"), (3, "unmanaged"), (4, "health"), (5, "init")] {
            check(&entity("world"), identity, &[&format!("reserved:{name}")], false);
            check(&entity("cluster"), identity, &[&format!("reserved:{name}")], true);
            check(&entity(name), identity, &[&format!("reserved:{name}")], true);
            check(&entity("none"), identity, &[&format!("reserved:{name}")], false);
        }
        check(&entity("world"), 300, WORKLOAD, false);
        check(&entity("none"), 300, WORKLOAD, false);
        check(&entity("all"), 300, WORKLOAD, true);
    }

    #[test]
    fn cluster_is_everything_inside_of_this_one() {
        check(&entity("cluster"), 300, WORKLOAD, true);
        check(&entity("cluster"), 70_000, OTHERS, false);
        check(&entity("cluster-mesh"), 70_000, OTHERS, true);
        check(&entity("cluster"), 7, &["reserved:kube-apiserver", "reserved:remote-node"], true);
        check(&entity("remote-node"), 7, &["reserved:kube-apiserver", "reserved:remote-node"], true);
        check(&entity("kube-apiserver"), 7, &["reserved:kube-apiserver", "reserved:remote-node"], true);
        check(&entity("kube-apiserver"), 1, &["reserved:host", "reserved:kube-apiserver"], true);
        check(&entity("kube-apiserver"), id::LOCAL_CIDR, API_OUTSIDE, true);
        check(&entity("cluster"), 2, &["reserved:world"], false);
        check(&entity("cluster"), id::LOCAL_CIDR, ADDRESS, false);
    }

    fn cidr(prefix: &str, except: &[&str]) -> Vec<Peer> {
        let except = except.iter().map(|part| part.parse().unwrap());
        vec![Peer::Cidr(CidrSet::new(prefix.parse().unwrap(), except))]
    }

    #[test]
    fn prefixes_select_addresses_within_and_nobody_else() {
        check(&cidr("10.0.0.0/8", &[]), id::LOCAL_CIDR, ADDRESS, true);
        check(&cidr("10.1.2.0/24", &[]), id::LOCAL_CIDR, ADDRESS, false);
        check(&cidr("10.0.0.0/8", &["10.1.0.0/16"]), id::LOCAL_CIDR, ADDRESS, false);
        check(&cidr("10.0.0.0/8", &["10.1.2.0/24"]), id::LOCAL_CIDR, ADDRESS, true);
        check(&cidr("10.0.0.0/8", &["10.0.0.0/8"]), id::LOCAL_CIDR, ADDRESS, false);
        check(&cidr("0.0.0.0/0", &[]), 2, &["reserved:world"], true);
        check(&cidr("0.0.0.0/0", &[]), id::LOCAL_CIDR, ADDRESS, true);
        check(&cidr("0.0.0.0/0", &["10.0.0.0/8"]), id::LOCAL_CIDR, ADDRESS, false);
        check(&cidr("::/0", &[]), 2, &["reserved:world"], false);
        check(&cidr("::/0", &[]), id::LOCAL_CIDR, ADDRESS, false);
        check(&cidr("0.0.0.0/0", &[]), 300, WORKLOAD, false);
        check(&cidr("0.0.0.0/0", &[]), 1, &["reserved:host"], false);
        check(&cidr("0.0.0.0/0", &[]), 6, &["reserved:remote-node"], false);
        check(&cidr("10.0.0.0/8", &[]), id::LOCAL_REMOTE_NODE, &["cidr:10.1.0.1/32", "reserved:remote-node"], false);
    }

    #[test]
    fn prefixes_are_canonical() {
        let set = CidrSet::new("10.0.0.1/8".parse().unwrap(), ["10.2.3.4/16".parse().unwrap()]);
        assert_eq!((set.prefix.to_string(), set.except[0].to_string()), ("10.0.0.0/8".into(), "10.2.0.0/16".into()));
    }
}
