//! Which packet asks the policies of a scene what the oracle is asked?

use crate::scene::Scene;
use crate::seat::Seat;
use bpf::Hook;
use oracle::generate::{self, Random};
use oracle::{Other, Packet};
use policy::Direction;
use std::net::IpAddr;
use wire::{Frame, ICMP, ICMPV6, SCTP, TCP, UDP};

/// A packet, and whom it concerns.
#[derive(Clone, Debug)]
pub struct Case {
    /// Who sends.
    pub from: Seat,
    /// To whom.
    pub to: Seat,
    /// 4 or 6.
    pub version: u8,
    /// IP protocol number.
    pub protocol: u8,
    /// The sender's port, or the identifier of an echo.
    pub own_port: u16,
    /// The destination's port, or the ICMP type.
    pub port: u16,
}

impl Case {
    /// A packet that the datapath can see as the oracle sees it.
    pub fn random(random: &mut Random, scene: &Scene, own_port: u16) -> Case {
        loop {
            let asked = generate::packet(random, &scene.world);
            if let Some(case) = Case::of(random, scene, &asked, own_port) {
                return case;
            }
        }
    }

    fn of(random: &mut Random, scene: &Scene, asked: &Packet, own_port: u16) -> Option<Case> {
        // the policy of the node itself is nothing that these programs enforce
        let subject = Some(Seat::Pod(asked.subject)).filter(|_| asked.subject > 255)?;
        let other = match asked.other {
            Other::Address(ip) => Seat::Outside(ip),
            Other::Party(identity) => random.pick(&Seat::of(identity)),
        };
        // a pod always reaches itself
        let other = if other == subject { Seat::Flat(asked.subject) } else { other };
        let (from, to) = if asked.direction == Direction::Egress { (subject, other) } else { (other, subject) };
        let version = version(random, scene, other, asked.protocol)?;
        let case = Case { from, to, version, protocol: asked.protocol, own_port, port: asked.port };
        (from.hook().is_some() && case.can_be()).then_some(case)
    }

    /// Has a packet of this protocol room for what stands in place of its port, and does it get as far as the policy?
    fn can_be(&self) -> bool {
        // router and multicast listener messages of pods go nowhere, whatever the policy says
        let forbidden = matches!(self.port, 130..=137 | 143) && matches!(self.from, Seat::Pod(_));
        match self.protocol {
            TCP | UDP | SCTP => true,
            ICMP => self.port < 256,
            ICMPV6 => self.port < 256 && !forbidden,
            _ => self.port == 0,
        }
    }

    /// Whose policies are asked, in this order, and what they are asked.
    pub fn questions(&self) -> Vec<Packet> {
        let ask = |seat: Seat, other: Seat, direction| match seat {
            Seat::Pod(subject) => {
                let other = party(other);
                Some(Packet { subject, other, direction, protocol: self.protocol, port: self.port })
            }
            _ => None,
        };
        let egress = ask(self.from, self.to, Direction::Egress);
        egress.into_iter().chain(ask(self.to, self.from, Direction::Ingress)).collect()
    }

    /// Are all that it concerns still there?
    pub fn stands(&self, scene: &Scene) -> bool {
        [self.from, self.to].iter().all(|seat| match party(*seat) {
            Other::Party(identity) => scene.world.parties.contains_key(&identity),
            Other::Address(_) => true,
        })
    }

    /// Where the packet enters, and its bytes.
    pub fn packet(&self) -> Option<(Hook, Vec<u8>)> {
        let frame = Frame::between(self.from.ip(self.version), self.to.ip(self.version));
        let frame = match self.protocol {
            TCP => frame.tcp(self.own_port, self.port, 2, b"first"),
            UDP => frame.udp(self.own_port, self.port, b"first"),
            SCTP => frame.raw(SCTP, &sctp(self.own_port, self.port)),
            ICMP | ICMPV6 => {
                frame.icmp(self.port as u8, 0, u32::from(self.own_port) << 16, b"first, with room to read")
            }
            other => frame.raw(other, &[0x33; 24]),
        };
        Some((self.from.hook()?, frame.build()))
    }

    /// The answer to the packet, if such a packet has one that belongs to its connection.
    pub fn reply(&self) -> Option<(Hook, Vec<u8>)> {
        let frame = Frame::between(self.to.ip(self.version), self.from.ip(self.version));
        let frame = match (self.protocol, self.port) {
            (TCP, _) => frame.tcp(self.port, self.own_port, 18, b"answer"),
            (UDP, _) => frame.udp(self.port, self.own_port, b"answer"),
            (SCTP, _) => frame.raw(SCTP, &sctp(self.port, self.own_port)),
            (ICMP, 8) | (ICMPV6, 128) => frame.echo_reply(self.own_port),
            _ => return None,
        };
        Some((self.to.hook()?, frame.build()))
    }
}

fn party(seat: Seat) -> Other {
    match seat {
        Seat::Pod(identity) | Seat::Flat(identity) | Seat::Tunnelled(identity) | Seat::Reserved(identity) => {
            Other::Party(identity)
        }
        Seat::Host => Other::Party(abi::identity::HOST),
        Seat::Outside(ip) => Other::Address(ip),
        Seat::Nobody => Other::Address(seat.ip(4)),
    }
}

/// The family of a packet between a pod and somebody, if there is one in which both can speak the protocol.
fn version(random: &mut Random, scene: &Scene, other: Seat, protocol: u8) -> Option<u8> {
    let v6 = scene.world.settings.families.ipv6;
    let fixed = match other {
        Seat::Outside(IpAddr::V4(_)) | Seat::Reserved(abi::identity::WORLD_IPV4) => Some(4),
        Seat::Outside(IpAddr::V6(_)) | Seat::Reserved(abi::identity::WORLD_IPV6) => Some(6),
        _ => None,
    };
    let wanted = match protocol {
        ICMP => Some(4),
        ICMPV6 => Some(6),
        _ => fixed,
    };
    let version = wanted.unwrap_or_else(|| if random.once_in(2) { 4 } else { 6 });
    let possible = fixed.is_none_or(|fixed| fixed == version);
    match version {
        6 if !v6 && wanted.is_none() => Some(4),
        6 if !v6 => None,
        version => possible.then_some(version),
    }
}

fn sctp(source: u16, destination: u16) -> Vec<u8> {
    [&source.to_be_bytes()[..], &destination.to_be_bytes(), &[0; 8]].concat()
}
