//! Which node comes from a generated world? Its workloads are pods; its policies, as the engine resolves them, fill the slots.

use crate::seat::{self, Seat};
use crate::state::CLIENT_IF;
use crate::tables::{Family, Tables};
use abi::config::{self, NodeConfig};
use abi::endpoint::{self, Endpoint, FLAG_HOST, MODE_EGRESS, MODE_INGRESS};
use abi::identity;
use abi::ipcache::{IpcacheKey, RemoteEndpoint};
use abi::{Addr, Mac, V4, V6};
use oracle::engine::Engine;
use oracle::generate::{self, Random};
use oracle::{Other, World, life};
use pipeline::native::Policy;
use policy::EndpointPolicy;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// A world with the engine that resolves its policies, and what the datapath was given of it.
pub struct Scene {
    /// Who is there, and what policies are in force.
    pub world: World,
    /// The engine under test.
    pub engine: Engine,
    generation: u32,
    given: BTreeMap<u32, Given>,
}

/// What an endpoint was given last.
#[derive(Debug)]
struct Given {
    tables: EndpointPolicy,
    revision: u32,
}

impl Scene {
    /// The scene of a world.
    pub fn of(world: World) -> Scene {
        let engine = Engine::new(&world);
        Scene { world, engine, generation: 0, given: BTreeMap::new() }
    }

    /// Any scene.
    pub fn random(random: &mut Random) -> Scene {
        let mut world = generate::world(random);
        for _ in 0..2 + random.below(7) {
            let policy = generate::policy(random, &world.settings);
            life::upsert(&mut world, policy);
        }
        Scene::of(world)
    }

    /// Something happens in the cluster.
    pub fn step(&mut self, random: &mut Random) {
        life::step(random, &mut self.world, &mut self.engine);
    }

    /// The workloads.
    pub fn pods(&self) -> Vec<u32> {
        self.world.workloads()
    }

    /// The tables of the node as it is now. A policy that differs from what its endpoint was given has another revision.
    pub fn tables(&mut self) -> Tables {
        self.generation += 1;
        let policies = self.pods().into_iter().map(|identity| self.policy(identity)).collect();
        Tables {
            config: self.config(),
            v4: self.family(4, |ip| match ip {
                IpAddr::V4(ip) => Some(V4::from(ip)),
                IpAddr::V6(_) => None,
            }),
            v6: self.family(6, |ip| match ip {
                IpAddr::V6(ip) => Some(V6::from(ip)),
                IpAddr::V4(_) => None,
            }),
            devices: self.pods().into_iter().map(|identity| (CLIENT_IF, pod(identity))).take(1).collect(),
            policies,
        }
    }

    fn config(&self) -> NodeConfig {
        let ipv6 = if self.world.settings.families.ipv6 { config::FLAG_IPV6 } else { 0 };
        NodeConfig {
            ipcache_generation: self.generation,
            flags: config::FLAG_IPV4
                | ipv6
                | config::FLAG_POLICY_VERDICT_EVENTS
                | config::FLAG_DROP_EVENTS
                | config::FLAG_TRACE_EVENTS,
            tunnel_ifindex: 5,
            host_ifindex: 6,
            net_ifindex: 7,
            uplink_ifindex: 8,
            monitor_aggregation: 3,
            nat_min_port: 1,
            nat_max_port: 65535,
            ..NodeConfig::default()
        }
    }

    fn policy(&mut self, identity: u32) -> (u32, endpoint::EndpointPolicy, Policy) {
        let tables = self.engine.kept(identity).clone();
        let before = self.given.remove(&identity);
        let revision = match before {
            Some(given) if given.tables == tables => given.revision,
            Some(given) => given.revision + 1,
            None => self.generation,
        };
        let modes = if tables.ingress_enforced { MODE_INGRESS } else { 0 }
            | if tables.egress_enforced { MODE_EGRESS } else { 0 };
        let policy = endpoint::EndpointPolicy { slot: slot(identity), revision_and_modes: revision | modes };
        let classes = tables.classes.iter().collect();
        let policy_tables = Policy::new(classes, tables.verdicts().iter().copied());
        self.given.insert(identity, Given { tables, revision });
        (pod(identity).id, policy, policy_tables)
    }

    fn family<A: Addr + Default>(&self, version: u8, narrow: impl Fn(IpAddr) -> Option<A>) -> Family<A> {
        let host = Endpoint { identity: identity::HOST, flags: FLAG_HOST, ..Endpoint::default() };
        let mut endpoints: Vec<(A, Endpoint)> =
            narrow(Seat::Host.ip(version)).map(|addr| (addr, host)).into_iter().collect();
        // a longer prefix of a policy may lie on the same place as an earlier entry: the later one counts
        let mut ipcache = BTreeMap::new();
        let mut know = |ip: IpAddr, length: u32, identity: u32, node: Option<V4>| {
            let tunnel_endpoint = node.unwrap_or(V4(0));
            ipcache.insert((length, ip), RemoteEndpoint { identity, tunnel_endpoint, flags: 0 });
        };
        let all = if version == 4 { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
        know(all, 0, self.engine.identity(Other::Address(Seat::Nobody.ip(version))), None);
        for (prefix, identity) in self.engine.outside.iter() {
            know(prefix.addr(), u32::from(prefix.prefix_len()), identity, None);
        }
        for identity in self.world.parties.keys().copied() {
            for seat in Seat::of(identity) {
                know(seat.ip(version), A::BITS, identity, seat.node());
                if let (Seat::Pod(_), Some(addr)) = (seat, narrow(seat.ip(version))) {
                    endpoints.push((addr, pod(identity)));
                }
            }
        }
        let key = |length, ip| narrow(ip).map(|addr| IpcacheKey { prefix_len: length, addr });
        let ipcache = ipcache.into_iter().filter_map(|((length, ip), remote)| Some((key(length, ip)?, remote)));
        Family { endpoints, ipcache: ipcache.collect(), ..Family::default() }
    }
}

/// The endpoint of a workload. All are at one interface: their addresses tell them apart.
pub fn pod(identity: u32) -> Endpoint {
    let number = seat::number(identity);
    let mac = |side| Mac([2, side, 0, 0, 0, number]);
    let id = 1000 + u32::from(number);
    Endpoint { ifindex: CLIENT_IF, id, identity, flags: 0, mac: mac(1), node_mac: mac(2), pad: 0 }
}

fn slot(identity: u32) -> u32 {
    1 + u32::from(seat::number(identity))
}
