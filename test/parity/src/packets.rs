//! Which packets do both datapaths get?

use crate::state::Who;
use bpf::Hook;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use wire::Frame;

/// A hook and a packet for it: ordinary, odd, spoiled, or a reply or error to one that was sent.
pub fn random(rng: &mut StdRng, sent: &[Vec<u8>]) -> (Hook, Vec<u8>) {
    let version = if rng.random() { 4 } else { 6 };
    let hook = *[
        Hook::FromContainer,
        Hook::FromContainer,
        Hook::FromContainer,
        Hook::FromHost,
        Hook::FromNetdev,
        Hook::ToNetdev,
    ]
    .choose(rng)
    .unwrap_or(&Hook::FromContainer);
    let (from, to) = parties(rng, hook);
    let mut packet = match rng.random_range(0..20) {
        0 => random_bytes(rng),
        1..=3 if !sent.is_empty() => error(rng, version, from, to, sent),
        4 => neighbour(rng),
        5..=7 => fragment(rng, version, from, to),
        _ => ordinary(rng, version, from, to),
    };
    if hook != Hook::ToNetdev {
        spoil(rng, &mut packet);
    }
    packet.resize(packet.len().max(shortest(&packet)), 0);
    (hook, packet)
}

/// The kernel's test runs take no frames that end within the IP header.
pub fn shortest(packet: &[u8]) -> usize {
    match packet.get(12..14) {
        Some([8, 0]) => 34,
        Some([0x86, 0xdd]) => 54,
        _ => 14,
    }
}

fn parties(rng: &mut StdRng, hook: Hook) -> (Who, Who) {
    let any = |rng: &mut StdRng| *Who::ALL.choose(rng).unwrap_or(&Who::World);
    let usual = match hook {
        Hook::FromContainer | Hook::ToNetdev => Who::Client,
        Hook::FromHost => *[Who::Router, Who::Node].choose(rng).unwrap_or(&Who::Node),
        _ => *[Who::World, Who::Known].choose(rng).unwrap_or(&Who::World),
    };
    // two pods that leave by one port would get their names by chance, for each datapath its own
    let only = hook == Hook::ToNetdev;
    let from = if only || rng.random_ratio(5, 6) { usual } else { any(rng) };
    let to =
        if rng.random_ratio(1, 3) { *[Who::Server, Who::Client].choose(rng).unwrap_or(&Who::Server) } else { any(rng) };
    (from, to)
}

fn port(rng: &mut StdRng) -> u16 {
    *[80, 53, 8080, 4000, 4001, 8472].choose(rng).unwrap_or(&80)
}

fn body(rng: &mut StdRng, frame: Frame) -> Frame {
    let (a, b) = (port(rng), port(rng));
    let data = vec![0x55; rng.random_range(0..40)];
    match rng.random_range(0..10) {
        0..=3 => frame.tcp(a, b, *[2, 2, 16, 16, 18, 17, 4, 24].choose(rng).unwrap_or(&2), &data),
        4..=5 => frame.udp(a, b, &data),
        6 => frame.echo_request(rng.random_range(1..3)),
        7 => frame.echo_reply(rng.random_range(1..3)),
        8 => frame.icmp(rng.random(), 0, rng.random(), &data),
        _ => frame.raw(*[wire::SCTP, 47, 2, 50].choose(rng).unwrap_or(&47), &[0x33; 24]),
    }
}

fn shell(rng: &mut StdRng, version: u8, from: Who, to: Who) -> Frame {
    let frame = Frame::between(from.ip(version), to.ip(version));
    match (version, rng.random_range(0..8)) {
        (4, 0) => frame.options(&[1, 1, 1]),
        (6, 0) => frame.extension(*[0, 60, 43].choose(rng).unwrap_or(&0), &vec![1; rng.random_range(1..20)]),
        (6, 1) => (0..rng.random_range(4..8)).fold(frame, |f, _| f.extension(60, &[1, 4])),
        _ => frame,
    }
}

fn ordinary(rng: &mut StdRng, version: u8, from: Who, to: Who) -> Vec<u8> {
    let shell = shell(rng, version, from, to);
    body(rng, shell).build()
}

fn fragment(rng: &mut StdRng, version: u8, from: Who, to: Who) -> Vec<u8> {
    let (id, size) = (rng.random_range(1..3), *[8, 16, 24].choose(rng).unwrap_or(&16));
    let frame = Frame::between(from.ip(version), to.ip(version));
    let parts = body(rng, frame).fragments(id, size);
    parts.choose(rng).cloned().unwrap_or_default()
}

fn error(rng: &mut StdRng, version: u8, from: Who, to: Who, sent: &[Vec<u8>]) -> Vec<u8> {
    let quoted = sent.choose(rng).map_or(&[][..], |packet| packet.get(14..).unwrap_or_default());
    let kinds: &[u8] = if version == 4 { &[3, 11, 12, 5] } else { &[1, 2, 3, 4] };
    let kind = *kinds.choose(rng).unwrap_or(&3);
    Frame::between(from.ip(version), to.ip(version)).icmp(kind, 1, 1280, quoted).build()
}

fn neighbour(rng: &mut StdRng) -> Vec<u8> {
    if rng.random() {
        let mut arp =
            [&[0xff; 6][..], &[2, 1, 0, 0, 0, 1], &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &[2, 1, 0, 0, 0, 1]].concat();
        arp.extend(Who::Client.v4().octets());
        arp.extend([0; 6]);
        arp.extend(Who::ALL.choose(rng).unwrap_or(&Who::Router).v4().octets());
        return arp;
    }
    let asked = Who::ALL.choose(rng).unwrap_or(&Who::Router).v6();
    let option: &[u8] = if rng.random_ratio(3, 4) { &[1, 1, 2, 1, 0, 0, 0, 1] } else { &[] };
    let body = [&asked.octets()[..], option].concat();
    let kind = rng.random_range(130..144);
    Frame::between(Who::Client.v6(), Who::Group.v6()).hop_limit(255).icmp(kind, 0, 0, &body).build()
}

/// A frame that says nothing, with an EtherType that a program looks at.
pub fn random_bytes(rng: &mut StdRng) -> Vec<u8> {
    let mut bytes = vec![0; rng.random_range(14..120)];
    rng.fill(bytes.as_mut_slice());
    let kind: [u8; 2] = *[[8, 0], [0x86, 0xdd], [8, 6], [0x88, 0xcc]].choose(rng).unwrap_or(&[8, 0]);
    bytes[12..14].copy_from_slice(&kind);
    bytes
}

fn spoil(rng: &mut StdRng, packet: &mut Vec<u8>) {
    if rng.random_ratio(1, 8) {
        packet.truncate(rng.random_range(14..80));
    }
    if rng.random_ratio(1, 8) && packet.len() > 15 {
        let at = rng.random_range(14..packet.len());
        packet[at] = rng.random();
    }
}
