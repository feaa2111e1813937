//! Kernels without TCX links: filters of the `clsact` qdisc, which this kernel has too.

use crate::bed::*;
use bpf::{Attachment, Datapath, Hook};
use std::process::Command;

/// What `tc` shows, in one line.
fn tc(node: &Node, arguments: &str) -> String {
    let words: Vec<&str> = arguments.split_whitespace().collect();
    let output = node.space.run(|| Command::new("tc").args(&words).output().unwrap());
    assert!(output.status.success(), "tc {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Puts a filter of somebody else's there, which matches nothing.
fn other_filter(node: &Node, device: &str, priority: u32) {
    let words =
        format!("filter add dev {device} ingress prio {priority} protocol all bpf bytecode 1,6_0_0_0, flowid 1:1");
    let words: Vec<String> = words.split_whitespace().map(|word| word.replace('_', " ")).collect();
    let output = node.space.run(|| Command::new("tc").args(&words).output().unwrap());
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn pings(client: &Pod, server: &Pod) {
    for v in [4, 6] {
        let listener = server.listen(v, 8080);
        let mut there = client.connect(server.at(v, 8080)).unwrap();
        exchange(&mut there, &mut listener.accept().unwrap().0).unwrap();
    }
}

#[test]
fn filters_judge_as_links_do_and_are_named_as_ciliums() {
    let (node, client, server) = two_pods_by(Attachment::Clsact);
    assert_eq!(node.datapath.attachment().name(), "Legacy TC");
    pings(&client, &server);
    node.policy(&server, &Verdicts::closed());
    let _listener = server.listen(4, 8081);
    assert!(client.connect(server.at(4, 8081)).is_err());
    assert!(node.drops().contains(&abi::DropReason::POLICY));
    let shown = tc(&node, "filter show dev lxc11 ingress");
    assert!(shown.contains("pref 1 bpf") && shown.contains("handle 0x1"), "{shown}");
    assert!(shown.contains("cil_from_container-lxc11 direct-action"), "{shown}");
    assert!(tc(&node, "filter show dev cilium_host egress").contains("cil_from_host-cilium_host"));
    assert!(std::fs::read_dir(node.datapath.pin_dir().join("links")).unwrap().next().is_none(), "no links");
}

#[test]
fn the_kernel_is_asked_for_what_it_has() {
    let (node, _client, _server) = two_pods_by(Attachment::Probe);
    let links = std::fs::read_dir(node.datapath.pin_dir().join("links")).unwrap().count();
    let shown = tc(&node, "filter show dev lxc11 ingress");
    match node.datapath.attachment() {
        Attachment::Tcx => assert!(links == 4 && shown.is_empty(), "{links} {shown}"),
        Attachment::Clsact => assert!(links == 0 && shown.contains("cil_from_container"), "{links} {shown}"),
        Attachment::Probe => panic!("nothing was found out"),
    }
}

#[test]
fn a19_an_agent_that_attaches_in_the_other_way_leaves_no_packet_without_a_program() {
    let (mut node, client, server) = two_pods_by(Attachment::Clsact);
    node.policy(&server, &Verdicts::closed().allow(wire::UDP, 5353));
    // an older kernel has one way only
    let other = Datapath::open(&node.options(Attachment::Probe)).unwrap().attachment();
    let lost = while_packets_run(&client, &server, || {
        for attachment in [other, Attachment::Clsact, Attachment::Clsact, other] {
            let again = Datapath::open(&node.options(attachment)).unwrap();
            let (one, two) = (client.endpoint.ifindex, server.endpoint.ifindex);
            node.space.run(|| again.attach_container(one).and_then(|()| again.attach_container(two))).unwrap();
            node.datapath = again;
            let (filters, links) = (tc(&node, "filter show dev lxc11 ingress"), node.datapath.pin_dir().join("links"));
            let link = links.join(format!("from_container_{one}")).exists();
            assert_eq!(
                (filters.contains("cil_from_container"), link),
                (attachment == Attachment::Clsact, !filters.contains("cil_"))
            );
        }
    });
    assert_eq!(lost, 0);
}

#[test]
fn what_others_attached_stays_and_ours_goes_without_a_trace() {
    let (node, client, server) = two_pods_by(Attachment::Clsact);
    let ifindex = client.endpoint.ifindex;
    other_filter(&node, "lxc11", 7);
    let again = Datapath::open(&node.options(Attachment::Clsact)).unwrap();
    node.space.run(|| again.attach_container(ifindex)).unwrap();
    pings(&client, &server);
    node.space.run(|| again.detach(ifindex)).unwrap();
    let shown = tc(&node, "filter show dev lxc11 ingress");
    assert!(shown.contains("pref 7 bpf") && !shown.contains("cil_"), "{shown}");
    node.space.run(|| again.detach(ifindex)).unwrap();
    node.space.run(|| again.detach(server.endpoint.ifindex)).unwrap();
    assert!(!tc(&node, "qdisc show dev lxc12").contains("clsact"), "nothing of ours is left");
    node.space.ip("link del lxc12");
    node.space.run(|| again.detach(server.endpoint.ifindex)).unwrap();
}

#[test]
fn a_place_that_is_taken_is_named() {
    let (node, _client, _server) = two_pods_by(Attachment::Clsact);
    node.space.ip("link add eth0 type veth peer name out0");
    tc(&node, "qdisc add dev eth0 clsact");
    other_filter(&node, "eth0", 1);
    let ifindex = node.space.ifindex("eth0");
    let error = node.space.run(|| node.datapath.attach(Hook::FromNetdev, ifindex)).unwrap_err().to_string();
    assert!(error.contains("from_netdev") && error.contains("priority 1"), "{error}");
    assert!(!tc(&node, "filter show dev eth0 ingress").contains("cil_"));
    let gone = node.space.run(|| node.datapath.attach(Hook::FromNetdev, 9999)).unwrap_err().to_string();
    assert!(gone.contains("interface 9999"), "{gone}");
}
