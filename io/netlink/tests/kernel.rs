//! Does the kernel do what is asked, in namespaces of the tests' own?
#![allow(clippy::unwrap_used)]

use std::net::IpAddr;

use netlink::{Namespace, Netlink, Route, Rule, Veth, Vxlan, prepare_node_side, read_sysctl, write_sysctl};

fn net(text: &str) -> ipnet::IpNet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[tokio::test]
async fn a_veth_pair_spans_two_namespaces() {
    let (host, pod) = (Namespace::anonymous().unwrap(), Namespace::anonymous().unwrap());
    assert_ne!(host.cookie().unwrap(), pod.cookie().unwrap());
    let (in_host, in_pod) = (Netlink::open_in(&host).unwrap(), Netlink::open_in(&pod).unwrap());
    let mac = [2, 0, 0, 0, 0, 7];
    let veth = Veth {
        name: "lxc1".into(),
        peer_name: "eth0".into(),
        peer_namespace: Some(pod),
        peer_mac: Some(mac),
        mtu: Some(1450),
        ..Veth::default()
    };
    in_host.add_veth(&veth).await.unwrap();
    let (near, far) = (in_host.link("lxc1").await.unwrap(), in_pod.link("eth0").await.unwrap());
    assert_eq!((near.kind.as_deref(), near.mtu, near.peer_index), (Some("veth"), 1450, Some(far.index)));
    assert_eq!((far.mac, far.up), (Some(mac), false));
    assert!(in_host.add_veth(&veth).await.unwrap_err().is_exists());
    assert_eq!(in_host.link("eth0").await.unwrap_err().to_string(), "no network device \"eth0\"");
    in_host.delete_link("lxc1").await.unwrap();
    in_host.delete_link("lxc1").await.unwrap();
    assert_eq!(in_pod.find_link("eth0").await.unwrap(), None);
}

#[tokio::test]
async fn a_marked_packet_is_taken_by_the_node_whatever_its_address() {
    let node = Namespace::anonymous().unwrap();
    let link = Netlink::open_in(&node).unwrap();
    link.set_up("lo").await.unwrap();
    for ipv6 in [false, true] {
        for _ in 0..2 {
            link.take_everything(ipv6, 2004).await.unwrap();
            let mark = Some((0x200, 0xf00));
            link.add_rule(&Rule { ipv6, priority: 9, table: 2004, mark, source: None }).await.unwrap();
        }
    }
    for (from, to) in [("127.0.0.1:0", "192.0.2.7:9"), ("[::1]:0", "[2001:db8::7]:9")] {
        let connect = |mark: u32| {
            node.run(|| {
                let socket = std::net::UdpSocket::bind(from).unwrap();
                nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::Mark, &mark).unwrap();
                socket.connect(to)
            })
        };
        assert!(connect(0).unwrap().is_err(), "{to} is nowhere");
        connect(0x0005_0200).unwrap().unwrap();
    }
}

#[tokio::test]
async fn addresses_routes_and_neighbours_of_both_families() {
    let pod = Namespace::anonymous().unwrap();
    let link = Netlink::open_in(&pod).unwrap();
    link.add_veth(&Veth { name: "eth0".into(), peer_name: "far".into(), ..Veth::default() }).await.unwrap();
    link.set_up("eth0").await.unwrap();
    for (address, gateway, default) in [("10.0.0.5/32", "10.0.0.1", "0.0.0.0/0"), ("fd00::5/128", "fd00::1", "::/0")] {
        link.add_address("eth0", net(address)).await.unwrap();
        link.add_address("eth0", net(address)).await.unwrap();
        assert!(link.addresses("eth0").await.unwrap().contains(&net(address)));
        let device = link.link("eth0").await.unwrap().index;
        let on_link = Route::new(ipnet::IpNet::from(ip(gateway)), device);
        link.replace_route(&on_link).await.unwrap();
        let way = Route { mtu: Some(1450), ..Route::new(net(default), device).via(ip(gateway)) };
        link.replace_route(&way).await.unwrap();
        link.replace_route(&way).await.unwrap();
        let routes = link.routes().await.unwrap();
        assert!(routes.contains(&way) && routes.contains(&on_link), "{routes:#?}");
        link.replace_neighbour("eth0", ip(gateway), [2, 0, 0, 0, 0, 1]).await.unwrap();
        assert!(link.neighbours().await.unwrap().iter().any(|n| n.address == ip(gateway) && n.permanent));
        link.delete_neighbour("eth0", ip(gateway)).await.unwrap();
        assert!(!link.neighbours().await.unwrap().iter().any(|n| n.address == ip(gateway)));
        link.delete_route(&way).await.unwrap();
        link.delete_route(&way).await.unwrap();
        assert!(!link.routes().await.unwrap().contains(&way));
        link.delete_address("eth0", net(address)).await.unwrap();
        assert!(!link.addresses("eth0").await.unwrap().contains(&net(address)));
    }
}

#[tokio::test]
async fn a_tunnel_a_bridge_a_rule_and_settings() {
    let node = Namespace::anonymous().unwrap();
    let link = Netlink::open_in(&node).unwrap();
    let vxlan = Vxlan { name: "cilium_vxlan".into(), port: 8472, mac: None, mtu: Some(1500) };
    link.add_vxlan(&vxlan).await.unwrap();
    assert_eq!(link.link("cilium_vxlan").await.unwrap().kind.as_deref(), Some("vxlan"));
    link.add_bridge("br0").await.unwrap();
    link.add_veth(&Veth { name: "port".into(), peer_name: "far".into(), ..Veth::default() }).await.unwrap();
    link.set_master("port", "br0").await.unwrap();
    let bridge = link.link("br0").await.unwrap();
    assert_eq!(link.link("port").await.unwrap().master, Some(bridge.index));
    link.rename("port", "port2").await.unwrap();
    for ipv6 in [false, true] {
        let rule = Rule { ipv6, priority: 9, table: 2004, mark: Some((0x200, 0xf00)), source: None };
        link.add_rule(&rule).await.unwrap();
        link.add_rule(&rule).await.unwrap();
        link.delete_rule(&rule).await.unwrap();
    }
    let outside = read_sysctl(&["net", "ipv4", "ip_forward"]).unwrap();
    let flipped = if outside == "1" { "0" } else { "1" };
    let inside = node.run(|| {
        write_sysctl(&["net", "ipv4", "ip_forward"], flipped).unwrap();
        read_sysctl(&["net", "ipv4", "ip_forward"]).unwrap()
    });
    assert_eq!(inside.unwrap(), flipped);
    assert_eq!(read_sysctl(&["net", "ipv4", "ip_forward"]).unwrap(), outside);
}

#[tokio::test]
async fn the_nodes_side_of_a_pair_takes_ipv6_without_speaking_it() {
    let node = Namespace::anonymous().unwrap();
    let link = Netlink::open_in(&node).unwrap();
    for ipv6 in [true, false] {
        let veth = Veth { name: "lxc0".into(), peer_name: "inner0".into(), ..Veth::default() };
        link.add_veth(&veth).await.unwrap();
        node.run(|| prepare_node_side("lxc0", ipv6)).unwrap().unwrap();
        link.set_up("lxc0").await.unwrap();
        link.set_up("inner0").await.unwrap();
        assert_eq!(link.addresses("lxc0").await.unwrap(), []);
        let off = node.run(|| read_sysctl(&["net", "ipv6", "conf", "lxc0", "disable_ipv6"])).unwrap().unwrap();
        assert_eq!(off, if ipv6 { "0" } else { "1" });
        link.delete_link("lxc0").await.unwrap();
    }
}

#[tokio::test]
async fn a_named_namespace_comes_and_goes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("netlink-test");
    let namespace = Namespace::create(&path).unwrap();
    assert_eq!(Namespace::open(&path).unwrap().inode().unwrap(), namespace.inode().unwrap());
    assert!(Namespace::create(&path).is_err());
    Namespace::remove(&path).unwrap();
    Namespace::remove(&path).unwrap();
    let answer = namespace.run_async(|| async { tokio::net::TcpListener::bind("127.0.0.1:0").await.is_ok() });
    assert!(answer.unwrap());
}
