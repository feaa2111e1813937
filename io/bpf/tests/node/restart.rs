//! What happens to pods while the agent is away, and when it comes back?

use crate::bed::*;
use bpf::{Attachment, Datapath, Maps, Options};

#[test]
fn a19_no_packet_passes_without_a_program_and_none_is_lost_while_the_agent_restarts() {
    let (mut node, client, server) = two_pods();
    node.policy(&server, &Verdicts::closed().allow(wire::UDP, 5353));
    let options = node.options(attachment());
    let lost = while_packets_run(&client, &server, || {
        for _ in 0..2 {
            let again = Datapath::open(&options).unwrap();
            let (one, two) = (client.endpoint.ifindex, server.endpoint.ifindex);
            node.space.run(|| again.attach_container(one).and_then(|()| again.attach_container(two))).unwrap();
            node.datapath = again;
        }
    });
    assert_eq!(lost, 0);
    assert!(!node.datapath.maps().ct4.entries().unwrap().is_empty());
}

#[test]
fn the_programs_go_on_when_the_agent_is_gone() {
    let (node, client, server) = two_pods();
    node.policy(&server, &Verdicts::closed().allow(wire::UDP, 5353));
    let (pins, there) = (node.datapath.pin_dir().to_path_buf(), server.udp(4, 5353));
    let here = client.udp(4, 4000);
    let Node { datapath, space: _space, bpffs: _bpffs, .. } = node;
    drop(datapath);
    here.send_to(b"x", server.at(4, 5353)).unwrap();
    assert!(there.recv(&mut [0; 4]).is_ok());
    let maps = Maps::open_pinned(&pins).unwrap();
    assert_eq!(maps.ct4.entries().unwrap().len(), 1);
    assert!(maps.ct4.clear().is_err(), "tools only read");
}

#[test]
fn a_map_of_another_size_is_replaced_and_the_others_stay() {
    let (node, _client, _server) = two_pods();
    let other = bpf::Sizes { ipcache: 5000, ..sizes() };
    let again = Datapath::open(&Options { sizes: other, ..node.options(attachment()) }).unwrap();
    assert!(again.maps().ipcache4.entries().unwrap().is_empty());
    assert_eq!(again.maps().devices.entries().unwrap().len(), 2);
}

#[test]
fn a_device_that_takes_the_number_of_one_that_is_gone_gets_its_own_program() {
    let (node, client, _server) = two_pods();
    let ifindex = client.endpoint.ifindex;
    node.space.ip("link del lxc11");
    // filters go with their device, links of devices that are gone have pins
    let pinned = usize::from(node.datapath.attachment() == Attachment::Tcx);
    assert_eq!(node.datapath.remove_dead_links().unwrap(), pinned);
    node.space.ip(&format!("link add lxc11 index {ifindex} type veth peer name pod11"));
    node.space.run(|| node.datapath.attach_container(ifindex)).unwrap();
    node.space.ip("link del lxc11");
    node.space.ip(&format!("link add lxc11 index {ifindex} type veth peer name pod11"));
    node.space.run(|| node.datapath.attach_container(ifindex)).unwrap();
    node.space.run(|| node.datapath.detach(ifindex)).unwrap();
    node.space.run(|| node.datapath.detach(ifindex)).unwrap();
}
