//! Service addresses, by sockets and by packets.

use crate::bed::*;
use abi::service::{Backend, FLAG_CLUSTER_IP, ReverseNat, Service, ServiceKey};
use abi::{Port, V4};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

/// A service at TCP and UDP port 80 whose backends listen at 8080.
pub fn service(node: &Node, vip: &str, backends: &[&Pod]) -> SocketAddr {
    let vip: IpAddr = vip.parse().unwrap();
    let maps = node.datapath.maps();
    macro_rules! fill {
        ($addr:expr, $family:ident, $services:ident, $backends:ident, $reverse:ident) => {
            let key =
                |port, protocol, backend_slot| ServiceKey { addr: $addr, port, backend_slot, protocol, pad: [0; 3] };
            let wildcard = Service { flags: FLAG_CLUSTER_IP, ..Service::default() };
            maps.$services.insert(&key(Port(0), 0, 0), &wildcard).unwrap();
            for (index, protocol) in [(1u16, wire::TCP), (2, wire::UDP)] {
                for (i, pod) in backends.iter().enumerate() {
                    let backend_id = i as u32 + 1 + 100 * u32::from(index);
                    let slot = Service { backend_id, ..Service::default() };
                    maps.$services.insert(&key(Port::new(80), protocol, i as u16 + 1), &slot).unwrap();
                    let backend = Backend { addr: pod.$family.into(), port: Port::new(8080), protocol, pad: 0 };
                    maps.$backends.insert(&backend_id, &backend).unwrap();
                }
                let count = backends.len() as u16;
                let front = Service { count, rev_nat: index, flags: FLAG_CLUSTER_IP, ..Service::default() };
                maps.$services.insert(&key(Port::new(80), protocol, 0), &front).unwrap();
                let reverse = ReverseNat { addr: $addr, port: Port::new(80), pad: 0 };
                maps.$reverse.insert(&u32::from(index), &reverse).unwrap();
            }
        };
    }
    match vip {
        IpAddr::V4(addr) => {
            fill!(addr.into(), v4, services4, backends4, reverse_nat4);
        }
        IpAddr::V6(addr) => {
            fill!(addr.into(), v6, services6, backends6, reverse_nat6);
        }
    }
    SocketAddr::new(vip, 80)
}

const VIPS: [(u8, &str); 2] = [(4, "10.96.0.9"), (6, "fd00:96::9")];

#[test]
fn packets_to_a_service_reach_a_backend_and_come_back_from_the_service() {
    let (node, client, server) = two_pods();
    for (v, vip) in VIPS {
        let vip = service(&node, vip, &[&server]);
        let listener = server.listen(v, 8080);
        let mut stream = client.connect(vip).unwrap_or_else(|e| panic!("IPv{v}: {e} {:?}", node.events()));
        assert_eq!(stream.peer_addr().unwrap(), vip);
        let (mut accepted, peer) = listener.accept().unwrap();
        assert_eq!(peer.ip(), client.ip(v));
        exchange(&mut stream, &mut accepted).unwrap();
    }
}

#[test]
fn a_pod_reaches_itself_through_its_own_service() {
    let (node, client, _server) = two_pods();
    for (v, vip) in VIPS {
        let vip = service(&node, vip, &[&client]);
        let listener = client.listen(v, 8080);
        let mut stream = client.connect(vip).unwrap_or_else(|e| panic!("IPv{v}: {e} {:?}", node.events()));
        exchange(&mut stream, &mut listener.accept().unwrap().0).unwrap();
    }
}

/// A cgroup of the unified hierarchy with this process in it while it lives.
struct Cgroup(PathBuf, PathBuf);

impl Cgroup {
    fn enter(name: &str) -> Cgroup {
        let root = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(PathBuf::from);
        let root = root.into_iter().find(|p| p.join("cgroup.procs").exists()).expect("a unified hierarchy");
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = own.lines().find_map(|l| l.strip_prefix("0::/")).unwrap_or("").to_string();
        let path = root.join(format!("bpf-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(path.join("cgroup.procs"), "0").unwrap();
        Cgroup(path, root.join(own))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = std::fs::write(self.1.join("cgroup.procs"), "0");
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// UDP needs nobody who listens to show to which backend a socket was connected.
fn clients_with_affinity_stay(node: &Node, client: &Pod, server: &Pod) {
    let vip = service(node, "10.96.0.11", &[client, server]);
    let maps = node.datapath.maps();
    let backends = |expected: &dyn Fn(usize) -> bool| {
        maps.reverse_sk4.clear().unwrap();
        let sockets: Vec<_> = (0..40).map(|_| client.udp(4, 0)).collect();
        sockets.iter().for_each(|socket| socket.connect(vip).unwrap());
        let chosen: std::collections::BTreeSet<V4> =
            maps.reverse_sk4.entries().unwrap().into_iter().map(|(key, _)| key.addr).collect();
        assert!(expected(chosen.len()), "{chosen:?}");
    };
    backends(&|different| different == 2);
    let IpAddr::V4(addr) = vip.ip() else { panic!("IPv4") };
    let key = ServiceKey { addr: addr.into(), port: Port::new(80), backend_slot: 0, protocol: wire::UDP, pad: [0; 3] };
    let front = maps.services4.get(&key).unwrap().unwrap();
    maps.services4.insert(&key, &Service { affinity_timeout: 100, ..front }).unwrap();
    backends(&|different| different == 1);
    assert_eq!(maps.affinity.entries().unwrap().len(), 1);
}

/// Set in the process that this test starts for itself.
const ALONE: &str = "BPF_NODE_TEST_ALONE";

/// A cgroup has whole processes, so this test has a process of its own: the others must not meet its programs.
#[test]
fn sockets_connect_to_backends_and_see_the_service() {
    if std::env::var_os(ALONE).is_some() {
        return sockets_by_themselves();
    }
    let name = "sockets::sockets_connect_to_backends_and_see_the_service";
    let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
    let output = alone.args(["--exact", name, "--nocapture"]).env(ALONE, "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

fn sockets_by_themselves() {
    let (node, client, server) = two_pods();
    let cgroup = Cgroup::enter("sockets");
    node.datapath.attach_sockets(&cgroup.0).unwrap();
    node.datapath.attach_sockets(&cgroup.0).unwrap();
    for (v, vip) in VIPS {
        let vip = service(&node, vip, &[&server]);
        let listener = server.listen(v, 8080);
        let mut stream = client.connect(vip).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), vip, "getpeername shows the service");
        exchange(&mut stream, &mut listener.accept().unwrap().0).unwrap();
        let (there, here) = (server.udp(v, 8080), client.udp(v, 4000));
        here.send_to(b"x", vip).unwrap();
        let (_, from) = there.recv_from(&mut [0; 4]).unwrap();
        there.send_to(b"y", from).unwrap();
        assert_eq!(here.recv_from(&mut [0; 4]).unwrap().1, vip, "recvmsg shows the service");
        here.connect(vip).unwrap();
        here.send(b"z").unwrap();
        assert!(there.recv_from(&mut [0; 4]).is_ok());
    }
    let maps = node.datapath.maps();
    assert!(maps.reverse_sk4.entries().unwrap().len() >= 2);
    // nothing was translated packet by packet
    let service_entries =
        maps.ct4.entries().unwrap().into_iter().filter(|(k, _)| k.kind == abi::conntrack::KIND_SERVICE);
    assert_eq!(service_entries.count(), 0);
    let mapped: SocketAddr = "[::ffff:10.96.0.9]:80".parse().unwrap();
    let listener = server.listen(4, 8080);
    let mut stream = client.connect(mapped).unwrap();
    exchange(&mut stream, &mut listener.accept().unwrap().0).unwrap();
    clients_with_affinity_stay(&node, &client, &server);
    let empty = service(&node, "10.96.0.10", &[]);
    assert!(client.connect(empty).is_err());
    let unknown: SocketAddr = (Ipv4Addr::new(10, 96, 0, 9), 81).into();
    let refused = client.space.run(|| TcpStream::connect_timeout(&unknown, Duration::from_millis(300)));
    assert!(refused.is_err());
    drop(cgroup);
}
