//! What do the tests stand on? A node in a network namespace, with pods in others.

use crate::raw::Raw;
use crate::spaces::{PrivateBpffs, Space};
use abi::config::{self, NodeConfig};
use abi::endpoint::{Endpoint, EndpointPolicy, FLAG_HOST, MODE_EGRESS, MODE_INGRESS};
use abi::event::{self, Event};
use abi::identity;
use abi::ipcache::{IpcacheKey, RemoteEndpoint};
use abi::policy::{self, DIR_EGRESS, DIR_INGRESS, VerdictEntry, VerdictKey};
use abi::{DropReason, Mac, Port, V4, V6};
use bpf::{Attachment, Datapath, EventReader, Hook, Options, Sizes};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use wire::Frame;

pub const CLIENT: u32 = 1001;
pub const SERVER: u32 = 1002;

/// A node, numbered from 1.
pub struct Node {
    pub space: Space,
    pub number: u8,
    pub datapath: Datapath,
    events: Mutex<EventReader>,
    pub bpffs: Option<PrivateBpffs>,
}

/// A pod on a node.
pub struct Pod {
    pub space: Space,
    pub endpoint: Endpoint,
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
}

/// Sizes that do not take long to make.
pub fn sizes() -> Sizes {
    Sizes {
        conntrack: 4096,
        nat: 4096,
        services: 1024,
        policy_slots: 64,
        ipcache: 4096,
        event_bytes: 1 << 18,
        ..Sizes::default()
    }
}

/// How the programs come to devices: as the kernel has it, or as `BPF_ATTACHMENT` says.
pub fn attachment() -> Attachment {
    match std::env::var("BPF_ATTACHMENT").as_deref() {
        Err(_) | Ok("probe") => Attachment::Probe,
        Ok("tcx") => Attachment::Tcx,
        Ok("clsact") => Attachment::Clsact,
        Ok(other) => panic!("BPF_ATTACHMENT={other}: probe, tcx or clsact"),
    }
}

/// Both families' addresses of a number on a node.
pub fn addresses(node: u8, number: u8) -> (Ipv4Addr, Ipv6Addr) {
    let v4 = Ipv4Addr::new(10, 0, node, number);
    (v4, Ipv6Addr::new(0xfd00, 0, 0, u16::from(node), 0, 0, 0, u16::from(number)))
}

impl Node {
    /// A node whose pins are in a folder of a BPF file system.
    pub fn on(number: u8, pins: &Path) -> Node {
        Node::attached(number, pins, attachment())
    }

    /// The same with programs that come to devices in a certain way.
    pub fn attached(number: u8, pins: &Path, attachment: Attachment) -> Node {
        let space = Space::new();
        space.set("ipv4/ip_forward", "1");
        space.set("ipv4/conf/all/rp_filter", "0");
        space.set("ipv4/conf/default/rp_filter", "0");
        space.set("ipv6/conf/all/forwarding", "1");
        // what is redirected is the node's, whatever its address
        for family in ["", "-6"] {
            space.ip(&format!("{family} rule add fwmark 0x200/0xf00 lookup 2004 pref 9"));
            space.ip(&format!("{family} route add local default dev lo table 2004"));
        }
        space.set("ipv6/conf/default/accept_dad", "0");
        space.ip("link add cilium_host type veth peer name cilium_net");
        space.ip("link set cilium_host arp off up");
        space.ip("link set cilium_net arp off up");
        space.set("ipv4/conf/cilium_net/accept_local", "1");
        let (v4, v6) = addresses(number, 1);
        space.ip(&format!("addr add {v4}/32 dev cilium_host"));
        space.ip(&format!("addr add {v6}/128 dev cilium_host nodad"));
        space.ip(&format!("route add 10.0.0.0/16 dev cilium_host src {v4}"));
        space.ip(&format!("route add fd00::/32 dev cilium_host src {v6} metric 50"));
        let options = Options { pin_dir: pins.join(format!("node{number}")), sizes: sizes(), attachment };
        let datapath = Datapath::open(&options).unwrap();
        let events = Mutex::new(datapath.events().unwrap());
        let node = Node { space, number, datapath, events, bpffs: None };
        node.configure();
        node.attach(Hook::FromHost, "cilium_host");
        node.attach(Hook::ToHost, "cilium_net");
        node
    }

    /// What a later agent of this node opens.
    pub fn options(&self, attachment: Attachment) -> Options {
        Options { pin_dir: self.datapath.pin_dir().to_path_buf(), sizes: sizes(), attachment }
    }

    fn configure(&self) {
        let (v4, v6) = addresses(self.number, 1);
        let config = NodeConfig {
            ipcache_generation: 1,
            flags: config::FLAG_IPV4
                | config::FLAG_IPV6
                | config::FLAG_MASQUERADE
                | config::FLAG_POLICY_VERDICT_EVENTS
                | config::FLAG_DROP_EVENTS
                | config::FLAG_TRACE_EVENTS,
            router4: v4.into(),
            router6: v6.into(),
            host_ifindex: self.space.ifindex("cilium_host"),
            monitor_aggregation: 3,
            nat_min_port: 50000,
            nat_max_port: 60000,
            ..NodeConfig::default()
        };
        self.datapath.set_config(&config).unwrap();
        self.own(v4, v6);
        let world = RemoteEndpoint { identity: identity::WORLD, ..RemoteEndpoint::default() };
        let maps = self.datapath.maps();
        maps.ipcache4.insert(&IpcacheKey { prefix_len: 0, addr: V4(0) }, &world).unwrap();
        maps.ipcache6.insert(&IpcacheKey { prefix_len: 0, addr: V6([0; 4]) }, &world).unwrap();
    }

    /// Changes the configuration.
    pub fn reconfigure(&self, change: impl FnOnce(&mut NodeConfig)) {
        let mut config = self.datapath.maps().config().unwrap();
        change(&mut config);
        self.datapath.set_config(&config).unwrap();
    }

    /// Addresses of the node itself.
    pub fn own(&self, v4: Ipv4Addr, v6: Ipv6Addr) {
        let host = Endpoint { identity: identity::HOST, flags: FLAG_HOST, ..Endpoint::default() };
        self.datapath.maps().lxc4.insert(&v4.into(), &host).unwrap();
        self.datapath.maps().lxc6.insert(&v6.into(), &host).unwrap();
    }

    /// What the IP cache knows of an address.
    pub fn known(&self, v4: Ipv4Addr, v6: Ipv6Addr, identity: u32, behind: Option<Ipv4Addr>) {
        let tunnel_endpoint = behind.map_or(V4(0), V4::from);
        let remote = RemoteEndpoint { identity, tunnel_endpoint, flags: 0 };
        let maps = self.datapath.maps();
        maps.ipcache4.insert(&IpcacheKey { prefix_len: 32, addr: v4.into() }, &remote).unwrap();
        maps.ipcache6.insert(&IpcacheKey { prefix_len: 128, addr: v6.into() }, &remote).unwrap();
    }

    /// Attaches a program in the node's namespace.
    pub fn attach(&self, hook: Hook, device: &str) {
        let ifindex = self.space.ifindex(device);
        self.space.run(|| self.datapath.attach(hook, ifindex)).unwrap();
    }

    /// A pod with an open policy; its number is that of its endpoint and the last of its addresses.
    pub fn pod(&self, number: u8, identity: u32) -> Pod {
        let (v4, v6) = addresses(self.number, number);
        let (gateway4, gateway6) = addresses(self.number, 1);
        let space = Space::new();
        let host_side = format!("lxc{number}");
        self.space.ip(&format!("link add {host_side} type veth peer name pod{number}"));
        self.space.give(&format!("pod{number}"), &space);
        space.ip(&format!("link set pod{number} name eth0"));
        space.set("ipv6/conf/eth0/accept_dad", "0");
        space.set("ipv4/ping_group_range", "0 2147483647");
        space.ip("link set eth0 up");
        self.space.ip(&format!("link set {host_side} up"));
        space.ip(&format!("addr add {v4}/32 dev eth0"));
        space.ip(&format!("addr add {v6}/128 dev eth0 nodad"));
        space.ip(&format!("route add {gateway4} dev eth0"));
        space.ip(&format!("route add default via {gateway4} dev eth0"));
        space.ip(&format!("-6 route add {gateway6} dev eth0"));
        space.ip(&format!("-6 route add default via {gateway6} dev eth0"));
        let mac = |space: &Space, device: &str| {
            let path = format!("/sys/class/net/{device}/address");
            // sysfs shows the namespace of its mount, so the kernel is asked by another way
            let output = space.run(|| std::process::Command::new("ip").args(["-o", "link", "show", device]).output());
            let text = String::from_utf8(output.unwrap().stdout).unwrap();
            let mac = text.split("link/ether ").nth(1).unwrap_or_else(|| panic!("{path}")).split(' ').next().unwrap();
            let bytes: Vec<u8> = mac.split(':').map(|b| u8::from_str_radix(b, 16).unwrap()).collect();
            Mac(bytes.try_into().unwrap())
        };
        let endpoint = Endpoint {
            ifindex: self.space.ifindex(&host_side),
            id: u32::from(number),
            identity,
            mac: mac(&space, "eth0"),
            node_mac: mac(&self.space, &host_side),
            ..Endpoint::default()
        };
        let maps = self.datapath.maps();
        maps.lxc4.insert(&v4.into(), &endpoint).unwrap();
        maps.lxc6.insert(&v6.into(), &endpoint).unwrap();
        maps.devices.insert(&endpoint.ifindex, &endpoint).unwrap();
        self.known(v4, v6, identity, None);
        let pod = Pod { space, endpoint, v4, v6 };
        self.policy(&pod, &Verdicts::open());
        self.attach(Hook::FromContainer, &host_side);
        pod.space.settle();
        pod
    }

    /// Gives a pod another policy: in the other of its two slots, then by one store.
    pub fn policy(&self, pod: &Pod, verdicts: &Verdicts) {
        let maps = self.datapath.maps();
        let before = maps.ep_policy.get(&pod.endpoint.id).unwrap().unwrap_or_default();
        let first = pod.endpoint.id * 2;
        let slot = if before.slot == first { first + 1 } else { first };
        maps.policy.create(slot, &verdicts.classes, &verdicts.verdicts).unwrap();
        let revision = (before.revision_and_modes & !(MODE_EGRESS | MODE_INGRESS)) + 1;
        let policy = EndpointPolicy { slot, revision_and_modes: revision | verdicts.modes };
        maps.ep_policy.insert(&pod.endpoint.id, &policy).unwrap();
    }

    /// The events since the last call.
    pub fn events(&self) -> Vec<Event> {
        let mut all = Vec::new();
        self.events.lock().unwrap().drain(usize::MAX, |event| all.push(event));
        all
    }

    /// The drops since the last call as soon as there are any, where packets have to find their way first.
    pub fn next_drops(&self) -> Vec<DropReason> {
        for _ in 0..200 {
            let drops = self.drops();
            if !drops.is_empty() {
                return drops;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Vec::new()
    }

    /// Reasons of the drops since the last call, without those of the kernel's own announcements.
    pub fn drops(&self) -> Vec<DropReason> {
        let events = self.events();
        let drops = events.iter().filter(|e| e.kind == event::KIND_DROP && !announcement(e));
        drops.map(|e| DropReason(e.code)).collect()
    }
}

/// Router solicitations and group reports that any IPv6 stack sends by itself.
fn announcement(e: &Event) -> bool {
    let link_local = |words: [u32; 4]| matches!(abi::address::narrow(6, words), IpAddr::V6(a) if a.is_unicast_link_local() || a.is_unspecified() || a.is_multicast());
    e.ip_version == 6 && (link_local(e.source) || link_local(e.destination))
}

impl Pod {
    /// Its address in a family.
    pub fn ip(&self, version: u8) -> IpAddr {
        if version == 4 { self.v4.into() } else { self.v6.into() }
    }

    /// A socket address on it.
    pub fn at(&self, version: u8, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip(version), port)
    }

    /// Listens for TCP.
    pub fn listen(&self, version: u8, port: u16) -> TcpListener {
        let address = self.at(version, port);
        self.space.run(|| TcpListener::bind(address)).unwrap()
    }

    /// Connects by TCP, within a short time.
    pub fn connect(&self, to: SocketAddr) -> std::io::Result<TcpStream> {
        let stream = self.space.run(|| TcpStream::connect_timeout(&to, Duration::from_millis(700)))?;
        stream.set_read_timeout(Some(Duration::from_millis(700)))?;
        Ok(stream)
    }

    /// A UDP socket.
    pub fn udp(&self, version: u8, port: u16) -> UdpSocket {
        let address = self.at(version, port);
        let socket = self.space.run(|| UdpSocket::bind(address)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(700))).unwrap();
        socket
    }

    /// A packet socket on its device.
    pub fn raw(&self) -> Raw {
        self.space.run(|| Raw::open(nix::net::if_::if_nametoindex("eth0").unwrap())).unwrap()
    }

    /// A frame to another pod, as this one would send it.
    pub fn frame(&self, version: u8, to: &Pod) -> Frame {
        Frame::between(self.ip(version), to.ip(version)).macs(self.endpoint.mac, self.endpoint.node_mac)
    }
}

/// Sends a word over a connection, there and back.
pub fn exchange(client: &mut TcpStream, server: &mut TcpStream) -> std::io::Result<()> {
    server.set_read_timeout(Some(Duration::from_millis(700)))?;
    let mut buffer = [0; 4];
    client.write_all(b"ping")?;
    server.read_exact(&mut buffer)?;
    server.write_all(b"pong")?;
    client.read_exact(&mut buffer)
}

/// Sends datagrams to a port of the server that is open and to one that is not, as long as something is done. Returns how
/// many of the allowed ones were lost; none of the others may arrive.
pub fn while_packets_run(client: &Pod, server: &Pod, what: impl FnOnce()) -> u32 {
    let (there, closed, here) = (server.udp(4, 5353), server.udp(4, 5354), client.udp(4, 4000));
    let (to, forbidden) = (server.at(4, 5353), server.at(4, 5354));
    let over = AtomicBool::new(false);
    let lost = std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let mut sent = 0u32;
            while !over.load(Ordering::Relaxed) {
                here.send_to(&sent.to_be_bytes(), to).unwrap();
                here.send_to(&sent.to_be_bytes(), forbidden).unwrap();
                sent += 1;
                std::thread::sleep(Duration::from_micros(500));
            }
            sent
        });
        let receiver = scope.spawn(|| {
            let (mut received, mut buffer) = (0, [0; 4]);
            while there.recv(&mut buffer).is_ok() {
                received += 1;
            }
            received
        });
        what();
        over.store(true, Ordering::Relaxed);
        let sent = sender.join().unwrap();
        assert!(sent > 50, "packets were under way");
        sent - receiver.join().unwrap()
    });
    assert!(closed.recv(&mut [0; 4]).is_err(), "nothing forbidden passed");
    lost
}

/// A policy in words.
#[derive(Clone)]
pub struct Verdicts {
    pub classes: Vec<(u32, u32)>,
    pub verdicts: Vec<(VerdictKey, VerdictEntry)>,
    pub modes: u32,
}

impl Verdicts {
    /// No policy.
    pub fn open() -> Self {
        Verdicts::based(0, [policy::VERDICT_ALLOW, policy::VERDICT_ALLOW])
    }

    /// Ingress is enforced and nothing allows it.
    pub fn closed() -> Self {
        Verdicts::based(MODE_INGRESS, [policy::VERDICT_DEFAULT_DENY, policy::VERDICT_ALLOW])
    }

    fn based(modes: u32, [ingress, egress]: [u8; 2]) -> Self {
        let base = |direction, verdict| {
            let prefix_len = policy::PREFIX_ANY_PROTOCOL;
            let key = VerdictKey { prefix_len, class: 0, direction, protocol: 0, port: Port(0) };
            (key, VerdictEntry { verdict, ..VerdictEntry::default() })
        };
        Verdicts { classes: vec![], verdicts: vec![base(DIR_INGRESS, ingress), base(DIR_EGRESS, egress)], modes }
    }

    /// Everybody may come in on this protocol and port.
    pub fn allow(mut self, protocol: u8, port: u16) -> Self {
        let prefix_len = policy::PREFIX_FULL;
        let key = VerdictKey { prefix_len, class: 0, direction: DIR_INGRESS, protocol, port: Port::new(port) };
        let entry = VerdictEntry { rule_set: 5, verdict: policy::VERDICT_ALLOW, ..VerdictEntry::default() };
        self.verdicts.push((key, entry));
        self
    }

    /// What everybody sends in this direction on this protocol and port goes to the proxy.
    pub fn redirect(mut self, direction: u8, protocol: u8, port: u16) -> Self {
        let prefix_len = policy::PREFIX_FULL;
        let key = VerdictKey { prefix_len, class: 0, direction, protocol, port: Port::new(port) };
        let (verdict, match_type) = (policy::VERDICT_REDIRECT, policy::MATCH_L4_ONLY);
        self.verdicts.push((key, VerdictEntry { rule_set: 9, verdict, match_type, proxy_port: crate::copier::PORT }));
        self
    }

    /// One identity may come in, whatever the port.
    pub fn allow_from(mut self, identity: u32) -> Self {
        let class = identity;
        self.classes.push((identity, class));
        for direction in [DIR_INGRESS, DIR_EGRESS] {
            let prefix_len = policy::PREFIX_ANY_PROTOCOL;
            let key = VerdictKey { prefix_len, class, direction, protocol: 0, port: Port(0) };
            let entry = VerdictEntry { verdict: policy::VERDICT_ALLOW, ..VerdictEntry::default() };
            self.verdicts.push((key, entry));
        }
        self
    }
}

/// Two pods of one node.
pub fn two_pods() -> (Node, Pod, Pod) {
    two_pods_by(attachment())
}

/// The same, where programs come to devices in a certain way.
pub fn two_pods_by(attachment: Attachment) -> (Node, Pod, Pod) {
    let bpffs = PrivateBpffs::new();
    let mut node = Node::attached(1, bpffs.path(), attachment);
    node.bpffs = Some(bpffs);
    let (client, server) = (node.pod(11, CLIENT), node.pod(12, SERVER));
    node.events();
    (node, client, server)
}
