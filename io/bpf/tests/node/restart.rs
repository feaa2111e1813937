//! What happens to pods while the agent is away, and when it comes back?

use crate::bed::*;
use bpf::{Datapath, Maps, Options};
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn a19_no_packet_passes_without_a_program_and_none_is_lost_while_the_agent_restarts() {
    let (mut node, client, server) = two_pods();
    node.policy(&server, &Verdicts::closed().allow(wire::UDP, 5353));
    let (there, here) = (server.udp(4, 5353), client.udp(4, 4000));
    let closed = server.udp(4, 5354);
    let (to, forbidden) = (server.at(4, 5353), server.at(4, 5354));
    let options = Options { pin_dir: node.datapath.pin_dir().to_path_buf(), sizes: sizes() };
    let over = AtomicBool::new(false);
    let sent = std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let mut sent = 0u32;
            while !over.load(Ordering::Relaxed) {
                here.send_to(&sent.to_be_bytes(), to).unwrap();
                here.send_to(&sent.to_be_bytes(), forbidden).unwrap();
                sent += 1;
                std::thread::sleep(std::time::Duration::from_micros(500));
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
        for _ in 0..2 {
            let again = Datapath::open(&options).unwrap();
            let (one, two) = (client.endpoint.ifindex, server.endpoint.ifindex);
            node.space.run(|| again.attach_container(one).and_then(|()| again.attach_container(two))).unwrap();
            node.datapath = again;
        }
        over.store(true, Ordering::Relaxed);
        let (sent, received) = (sender.join().unwrap(), receiver.join().unwrap());
        assert_eq!(sent, received);
        sent
    });
    assert!(sent > 50, "packets were under way");
    assert!(closed.recv(&mut [0; 4]).is_err(), "nothing forbidden passed");
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
    let pin_dir = node.datapath.pin_dir().to_path_buf();
    let other = bpf::Sizes { ipcache: 5000, ..sizes() };
    let again = Datapath::open(&Options { pin_dir, sizes: other }).unwrap();
    assert!(again.maps().ipcache4.entries().unwrap().is_empty());
    assert_eq!(again.maps().devices.entries().unwrap().len(), 2);
}

#[test]
fn a_device_that_takes_the_number_of_one_that_is_gone_gets_its_own_program() {
    let (node, client, _server) = two_pods();
    let ifindex = client.endpoint.ifindex;
    node.space.ip("link del lxc11");
    assert_eq!(node.datapath.remove_dead_links().unwrap(), 1);
    node.space.ip(&format!("link add lxc11 index {ifindex} type veth peer name pod11"));
    node.space.run(|| node.datapath.attach_container(ifindex)).unwrap();
    node.space.ip("link del lxc11");
    node.space.ip(&format!("link add lxc11 index {ifindex} type veth peer name pod11"));
    node.space.run(|| node.datapath.attach_container(ifindex)).unwrap();
    node.datapath.detach(ifindex).unwrap();
    node.datapath.detach(ifindex).unwrap();
}
