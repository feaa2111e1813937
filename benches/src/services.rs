//! What does a service address cost a client, and do other services matter? Sockets are translated when they connect.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;

use abi::service::{Backend, FLAG_CLUSTER_IP, ReverseNat, Service, ServiceKey};
use abi::{Port, V4};
use anyhow::Result;
use bpf::Sizes;

use crate::node::{Node, small};
use crate::report::{Demand, Figure, Row};
use crate::rounds::{Plan, Variant, run};
use crate::stats::{median, paired_ratio};
use crate::supervisor::{enter_cgroup, threaded_child};
use crate::wire::Wire;
use crate::workload::PORT_CONNECT;

const NAME: &str = "services";
const FEW: u32 = 10;
const MANY: u32 = 10_000;
const TCP: u8 = 6;
const PORT: u16 = 80;

/// Connects to a backend itself, and to its service among few and among many.
pub fn measure(wire: &Wire, cgroup: &Path, plan: &Plan) -> Result<Vec<Row>> {
    let (workloads, topology) = wire.quiet()?;
    let backend = SocketAddrV4::new(topology.server.v4, PORT_CONNECT);
    let direct = threaded_child(cgroup, "direct")?;
    let (few, _few) = cgroup_with_services(cgroup, FEW, backend)?;
    let (many, _many) = cgroup_with_services(cgroup, MANY, backend)?;
    let from = |cgroup, target| move |length| workloads.connect_close_to(target, length, || enter_cgroup(cgroup));
    let mut variants: [Variant<'_>; 3] = [
        ("direct", Box::new(from(&direct, backend))),
        ("few services", Box::new(from(&few, service_in_the_middle(FEW)))),
        ("many services", Box::new(from(&many, service_in_the_middle(MANY)))),
    ];
    let series = run(plan, &mut variants)?;
    let [direct, few, many] = [0, 1, 2].map(|i| &series[i].values);
    let row = |what: &str, values: &[f64]| Row::of(NAME, format!("connect/close p50, {what}"), values, "µs");
    let against = |row: Row, name, ours: &[f64], theirs: &[f64]| {
        row.against(name, median(theirs), Figure::Ratio(paired_ratio(ours, theirs)))
    };
    Ok(vec![
        row("to the backend itself", direct),
        against(row("ClusterIP, 10 services", few), "direct", few, direct),
        against(row("ClusterIP, 10,000 services", many), "direct", many, direct).goal(7, Demand::AtMost(1.05)),
        against(row("ClusterIP, 10,000 services", many), "10 services", many, few).goal(7, Demand::AtMost(1.02)),
    ])
}

fn cgroup_with_services(parent: &Path, count: u32, backend: SocketAddrV4) -> Result<(std::path::PathBuf, Node)> {
    let name = format!("services-{count}");
    let node = Node::open(&name, Sizes { services: 1 << 16, ..small() }, false, &[])?;
    let (mut services, mut backends, mut reverse) = (vec![], vec![], vec![]);
    for id in 1..=count {
        let (addr, port) = (address(id), Port::new(PORT));
        let entry =
            |backend_slot, service| (ServiceKey { addr, port, backend_slot, protocol: TCP, pad: [0; 3] }, service);
        let service = Service { count: 1, rev_nat: id as u16, flags: FLAG_CLUSTER_IP, ..Service::default() };
        services.push(entry(0, service));
        services.push(entry(1, Service { backend_id: id, count: 0, ..service }));
        let (addr, port) = (V4::from(*backend.ip()), Port::new(backend.port()));
        backends.push((id, Backend { addr, port, protocol: TCP, pad: 0 }));
        reverse.push((id, ReverseNat { addr: address(id), port: Port::new(PORT), pad: 0 }));
    }
    let maps = node.datapath.maps();
    maps.backends4.insert_all(&backends)?;
    maps.reverse_nat4.insert_all(&reverse)?;
    maps.services4.insert_all(&services)?;
    let cgroup = threaded_child(parent, &name)?;
    node.datapath.attach_sockets(&cgroup)?;
    Ok((cgroup, node))
}

/// Address of service `id`.
fn address(id: u32) -> V4 {
    Ipv4Addr::from_bits(0x0a60_0000 + id).into()
}

fn service_in_the_middle(count: u32) -> SocketAddrV4 {
    SocketAddrV4::new(address(count / 2).into(), PORT)
}
