//! What would a node do with a packet? The pipeline on a simulated node, for tests and for questions.

mod node;
mod passage;
mod shelf;

pub use node::{Family, Node, Policy, SocketName};
pub use passage::{Action, Outcome, Passage};
pub use shelf::Shelf;

use crate::entry;
use crate::forward::{self, HAND, LATER};
use crate::proxy;
use crate::work::Work;
use abi::proxy::SocketCookie;
use abi::{V4, V6};

/// The hooks of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// From a pod.
    Container,
    /// From the tunnel, with the identity and the outer source address of the packet.
    Overlay(u32, V4),
    /// From the node's own stack.
    Host,
    /// From the node's stack, which forwards what came by this interface.
    Forwarded(u32),
    /// From outside.
    Netdev,
    /// To outside.
    ToNetdev,
    /// From the node's own stack, marked by a socket of this cookie.
    Marked(u32, SocketCookie),
    /// To outside, marked by a socket of this cookie.
    MarkedToNetdev(u32, SocketCookie),
    /// Back into the node's stack, with the mark that it got at [`Hook::Host`].
    ToHost(u32),
}

/// A packet at a hook.
#[derive(Clone, Debug)]
pub struct Input<'a> {
    /// Where.
    pub hook: Hook,
    /// The interface.
    pub ifindex: u32,
    /// From the Ethernet header on.
    pub packet: &'a [u8],
    /// Seconds since boot.
    pub now: u32,
    /// What random numbers are made of.
    pub seed: u64,
}

/// Sends a packet through the pipeline.
pub fn run(node: &Node, input: &Input<'_>) -> Outcome {
    let tunnel = match input.hook {
        Hook::Overlay(identity, remote) => Some((identity, remote)),
        _ => None,
    };
    let mut at = Passage::new(node, input.packet, input.ifindex, tunnel, (input.now, input.seed));
    if let Hook::Forwarded(came_by) = input.hook {
        at = at.forwarded(came_by);
    }
    match input.hook {
        Hook::Marked(mark, cookie) | Hook::MarkedToNetdev(mark, cookie) => at = at.marked(mark, cookie),
        Hook::ToHost(mark) => at = at.marked(mark, [0; 2]),
        _ => {}
    }
    let result = match (entry::ether_type(&at), input.hook) {
        (0x0800, hook) => run4(&mut at, hook),
        (0x86dd, hook) => run6(&mut at, hook),
        (_, Hook::Container) => entry::container_other(&mut at),
        (_, Hook::Overlay(..)) => entry::overlay_other(&at),
        _ => crate::forward::PASS,
    };
    at.outcome(result)
}

/// The hooks of one family.
macro_rules! family {
    ($run:ident, $address:ty, $container:path) => {
        fn $run(at: &mut Passage<'_>, hook: Hook) -> i32 {
            let work = &mut Work::<$address>::default();
            let result = match hook {
                Hook::Container => $container(at, work),
                Hook::Overlay(..) => entry::overlay(at, work),
                Hook::Host | Hook::Forwarded(_) | Hook::Marked(..) => entry::host(at, work),
                Hook::Netdev => entry::netdev(at, work),
                Hook::ToNetdev | Hook::MarkedToNetdev(..) => entry::to_netdev(at, work),
                Hook::ToHost(_) => entry::to_host(at, work),
            };
            let result = if result == LATER { proxy::node_answers(at, work) } else { result };
            let result = if result == LATER { forward::later(at, work) } else { result };
            if result == HAND { proxy::hand_over(at, work) } else { result }
        }
    };
}

family!(run4, V4, entry::container4);
family!(run6, V6, entry::container6);
