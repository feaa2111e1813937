//! Which peers are known by name?

/// Peers that are known by name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Entity {
    /// Everybody.
    All,
    /// Outside of the cluster.
    World,
    /// Outside of the cluster, IPv4; with both families only.
    WorldIpv4,
    /// Outside of the cluster, IPv6; with both families only.
    WorldIpv6,
    /// Everything in the own cluster.
    Cluster,
    /// Everything in all clusters that are joined.
    ClusterMesh,
    /// The own node.
    Host,
    /// Endpoints whose labels are not known yet.
    Init,
    /// Proxies for ingress and gateways.
    Ingress,
    /// In the cluster, but not managed.
    Unmanaged,
    /// Other nodes.
    RemoteNode,
    /// Health endpoints.
    Health,
    /// Nobody.
    None,
    /// Who serves the Kubernetes API.
    KubeApiserver,
}

/// All entities with their names.
pub const ENTITIES: &[(Entity, &str)] = &[
    (Entity::All, "all"),
    (Entity::World, "world"),
    (Entity::WorldIpv4, "world-ipv4"),
    (Entity::WorldIpv6, "world-ipv6"),
    (Entity::Cluster, "cluster"),
    (Entity::ClusterMesh, "cluster-mesh"),
    (Entity::Host, "host"),
    (Entity::Init, "init"),
    (Entity::Ingress, "ingress"),
    (Entity::Unmanaged, "unmanaged"),
    (Entity::RemoteNode, "remote-node"),
    (Entity::Health, "health"),
    (Entity::None, "none"),
    (Entity::KubeApiserver, "kube-apiserver"),
];

impl Entity {
    /// The entity of this name.
    pub fn parse(name: &str) -> Option<Self> {
        ENTITIES.iter().find(|(_, known)| *known == name).map(|(entity, _)| *entity)
    }

    /// As policies have it.
    pub fn name(self) -> &'static str {
        ENTITIES.iter().find(|(entity, _)| *entity == self).map_or("", |(_, name)| name)
    }
}
