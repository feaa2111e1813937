//! What is known of a packet's way through the node: whence, whither, and what is to be told of it.
//!
//! Plain numbers all through, so that it can lie in a map ([`crate::work::Work`]); every field has a value whatever the
//! way: the kernel's verifier refuses code that copies what was never written.

use crate::admit::Side;
use crate::report::{About, Verdicts};
use abi::conntrack;
use abi::endpoint::{self, Endpoint};
use abi::identity::Identity;
use abi::{Port, V4};

/// Where a packet came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Origin(pub u8);

impl Origin {
    /// An endpoint of this node.
    pub const CONTAINER: Origin = Origin(0);
    /// The tunnel.
    pub const OVERLAY: Origin = Origin(1);
    /// The node's own stack, on its way to a pod.
    pub const HOST: Origin = Origin(2);
    /// A device that leads out of the node.
    pub const NETDEV: Origin = Origin(3);
}

/// Who sent a packet.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Sender {
    /// Identity of the source; 0 as long as nobody had to know.
    pub identity: Identity,
    /// From the tunnel: the identity that the packet claims.
    pub claimed: Identity,
    /// From the tunnel: the node that sent it.
    pub node: V4,
    /// Always zero.
    pub pad: u32,
    /// The endpoint that sent it; zeros if it came from elsewhere.
    pub endpoint: Endpoint,
}

impl Sender {
    /// An endpoint of this node.
    #[inline(always)]
    pub fn container(endpoint: Endpoint) -> Self {
        Sender { identity: endpoint.identity, endpoint, ..Sender::default() }
    }

    /// Somebody else; 0: whom to be found out.
    #[inline(always)]
    pub fn elsewhere(identity: Identity) -> Self {
        Sender { identity, ..Sender::default() }
    }

    /// Somebody behind another node, who claims an identity.
    #[inline(always)]
    pub fn tunnelled(claimed: Identity, node: V4) -> Self {
        Sender { claimed, node, ..Sender::default() }
    }
}

/// Where a packet goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Way(pub u8);

impl Way {
    /// To the node's stack, to be routed out of it.
    pub const STACK: Way = Way(0);
    /// To an endpoint of this node.
    pub const LOCAL: Way = Way(1);
    /// To the node itself.
    pub const HOST: Way = Way(2);
    /// To another node through the tunnel.
    pub const TUNNEL: Way = Way(3);
}

/// What is known of the destination.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Target {
    /// Its identity; 0 as long as nobody had to know.
    pub identity: Identity,
    /// The node behind which it lies.
    pub tunnel: V4,
    /// The endpoint of this node that it is; else zeros.
    pub endpoint: Endpoint,
    /// Where it lies.
    pub way: Way,
    /// Always zero.
    pub pad: [u8; 7],
}

/// A packet's road. What every packet needs comes first: it is the fewest lines of the processor's cache.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Road {
    /// Whence.
    pub from: Sender,
    /// Whither.
    pub target: Target,
    /// What an event says.
    pub about: About,
    /// Seconds since boot.
    pub now: u32,
    /// The reverse NAT index of the service as whose answer the packet is to appear, 0: none.
    pub restore: u16,
    /// Where it came from.
    pub origin: Origin,
    /// 1: the packet goes to the connection's initiator.
    pub reply: u8,
    /// 1: worth a trace event.
    pub tell: u8,
    /// 1: policies were asked: `verdicts` are this packet's.
    pub judged: u8,
    /// What the proxy has to do with the packet's connection, `PROXY_*` of [`conntrack`].
    pub proxy: u8,
    /// Kind of the packet's connection, `KIND_*` of [`conntrack`].
    pub kind: u8,
    /// The proxy's port, if the connection is redirected.
    pub proxy_port: Port,
    /// Whether the packet goes to the proxy.
    pub hand: Hand,
    /// Why the packet may begin no connection, as in [`abi::DropReason`]; 0: it may.
    pub refused: u8,
    /// Always zero.
    pub pad: [u8; 4],
    /// The question to the initiator's policy, and its answer.
    pub egress: Side,
    /// The question to the responder's policy, and its answer.
    pub ingress: Side,
    /// What both policies said of this packet, for whoever wants to know.
    pub verdicts: Verdicts,
}

abi::plain!(Origin: u8);
abi::plain!(Way: u8);
abi::plain!(Hand: u8);
abi::plain!(Sender: Identity, Identity, V4, u32, Endpoint);
abi::plain!(Target: Identity, V4, Endpoint, Way, [u8; 7]);
abi::plain!(Road: Sender, Target, About, u32, u16, Origin, u8, u8, u8, u8, u8, Port, Hand, u8, [u8; 4], Side, Side, Verdicts);

/// Whether, and at which end, a packet goes to the proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Hand(pub u8);

impl Hand {
    /// It does not.
    pub const NONE: Hand = Hand(0);
    /// As a client's, to the proxy in place of the server.
    pub const CLIENT: Hand = Hand(1);
    /// As a server's answer to the proxy.
    pub const SERVER: Hand = Hand(2);
    /// As an ICMP error about either.
    pub const ERROR: Hand = Hand(3);
}

/// An endpoint of this node whose policy has a say; number 0: there is none.
#[derive(Clone, Copy)]
pub struct Party {
    /// Number of the endpoint.
    pub endpoint: u32,
    /// Its interface.
    pub ifindex: u32,
    /// Its policy is known.
    pub ready: bool,
}

impl Party {
    const NOBODY: Party = Party { endpoint: 0, ifindex: 0, ready: true };

    fn of(e: &Endpoint, here: bool) -> Self {
        let ready = e.flags & endpoint::FLAG_NOT_READY == 0;
        if here { Party { endpoint: e.id, ifindex: e.ifindex, ready } } else { Party::NOBODY }
    }
}

impl Road {
    /// The endpoints on this node: of the connection's initiator, and of its responder.
    #[inline(always)]
    pub fn parties(&self) -> (Party, Party) {
        let from = Party::of(&self.from.endpoint, self.origin == Origin::CONTAINER);
        let target = Party::of(&self.target.endpoint, self.target.way == Way::LOCAL);
        if self.reply != 0 { (target, from) } else { (from, target) }
    }

    /// The same, but only those whose policy is to be asked of this connection. What a proxy asked on the initiator's side is
    /// not asked again on its way to the server; and the responder's side is asked there only.
    #[inline(always)]
    pub fn asked(&self) -> (Party, Party) {
        let (initiator, responder) = self.parties();
        let passed = self.proxy & conntrack::PROXY_UPSTREAM != 0;
        let later = self.proxy & (conntrack::PROXY_FROM_INGRESS | conntrack::PROXY_EGRESS) != 0;
        (if passed { Party::NOBODY } else { initiator }, if later { Party::NOBODY } else { responder })
    }

    /// The endpoint whose policy redirects the connection.
    #[inline(always)]
    pub fn redirecting(&self) -> u32 {
        if self.proxy & conntrack::PROXY_EGRESS != 0 { self.egress.endpoint } else { self.ingress.endpoint }
    }

    /// Identities of the connection's initiator and responder.
    #[inline(always)]
    pub fn identities(&self) -> (Identity, Identity) {
        let (from, target) = (self.from.identity, self.target.identity);
        if self.reply != 0 { (target, from) } else { (from, target) }
    }

    /// If no policy was asked, the verdicts are an earlier packet's: they are not told again.
    #[inline(always)]
    pub fn forget_others(&mut self) {
        if self.judged == 0 {
            self.verdicts[0].told = 0;
            self.verdicts[1].told = 0;
        }
    }

    /// A pod speaks with itself: no policy has a say.
    #[inline(always)]
    pub fn to_itself(&self) -> bool {
        let (initiator, responder) = self.parties();
        initiator.endpoint != 0 && initiator.endpoint == responder.endpoint
    }
}
