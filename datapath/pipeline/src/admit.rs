//! May this connection pass this endpoint, in this direction? Asks the policy and says so.

use crate::env::Env;
use crate::report::{self, About};
use abi::endpoint::EndpointPolicy;
use abi::event::{self, Verdict};
use abi::identity::Identity;
use abi::policy::{self, VerdictEntry, VerdictKey};
use abi::{DropReason, Port, config, endpoint};

/// One side of a connection.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Side {
    /// The endpoint whose policy is asked.
    pub endpoint: u32,
    /// The other side's identity.
    pub peer: Identity,
    /// Interface, for events.
    pub ifindex: u32,
    /// Answer: `revision_and_modes` of the policy that admits the connection now.
    pub revision: u32,
    /// Answer: the rule set that decided, if the policy had to be asked.
    pub rule_set: u32,
    /// What the policy is asked for: the responder's port, or the ICMP type in its place.
    pub port: Port,
    /// IP protocol number.
    pub protocol: u8,
    /// Seen from the endpoint.
    pub direction: u8,
    /// 0 for the first packet of a connection: then an allowance is reported too.
    pub admitted: u8,
    /// 1: the packet is a reply.
    pub reply: u8,
    /// Answer: the proxy's port, if the policy sends the connection there; else 0.
    pub proxy_port: Port,
}

abi::plain!(Side: u32, Identity, u32, u32, u32, Port, u8, u8, u8, u8, Port);

/// Asks the endpoint's policy. What it says goes into `side` and `verdict`, and into `about` if it is no: a function of
/// the kernel's returns one register.
#[inline(never)]
pub fn admit<E: Env>(env: &E, side: &mut Side, verdict: &mut Verdict, about: &mut About) -> Result<(), DropReason> {
    let Some(EndpointPolicy { slot, revision_and_modes: revision }) = env.policy(side.endpoint) else {
        return Err(DropReason::EP_NOT_READY);
    };
    side.revision = revision;
    let class = env.class(slot, side.peer).unwrap_or(policy::CLASS_OTHERS);
    let key = VerdictKey {
        prefix_len: policy::PREFIX_FULL,
        class,
        direction: side.direction,
        protocol: side.protocol,
        port: side.port,
    };
    let entry = match env.verdict(slot, &key) {
        Some(found) => {
            found.count(env.seconds(), env.length());
            found.entry
        }
        // no entry, no passage
        None => VerdictEntry::default(),
    };
    let (said, reason) = judge(&entry);
    let audited = reason.is_some() && env.config().is_some_and(|c| c.flags & config::FLAG_POLICY_AUDIT != 0);
    let modes = if side.direction == policy::DIR_EGRESS { endpoint::MODE_EGRESS } else { endpoint::MODE_INGRESS };
    let news = revision & modes != 0 && (side.admitted == 0 || reason.is_some());
    *verdict = Verdict {
        endpoint: side.endpoint,
        ifindex: side.ifindex,
        rule_set: entry.rule_set,
        revision: revision & !(endpoint::MODE_EGRESS | endpoint::MODE_INGRESS),
        verdict: said,
        match_type: entry.match_type,
        flags: (if audited { event::FLAG_AUDITED } else { 0 }) | (side.reply * event::FLAG_REPLY),
        told: (news && report::wanted(env, event::KIND_POLICY_VERDICT)) as u8,
    };
    match reason {
        Some(reason) if !audited => {
            about.endpoint = side.endpoint;
            about.ifindex = side.ifindex;
            about.direction = side.direction;
            about.rule_set = entry.rule_set;
            about.revision = verdict.revision;
            about.flags = verdict.flags;
            Err(reason)
        }
        _ => {
            side.rule_set = entry.rule_set;
            side.proxy_port = if said == policy::VERDICT_REDIRECT { entry.proxy_port } else { Port(0) };
            Ok(())
        }
    }
}

/// The verdict, and why the packet is dropped if it is.
#[inline(always)]
fn judge(entry: &VerdictEntry) -> (u8, Option<DropReason>) {
    match entry.verdict {
        policy::VERDICT_ALLOW => (policy::VERDICT_ALLOW, None),
        policy::VERDICT_DENY => (policy::VERDICT_DENY, Some(DropReason::POLICY_DENY)),
        // as long as no proxy has a port
        policy::VERDICT_REDIRECT if entry.proxy_port.0 == 0 => {
            (policy::VERDICT_REDIRECT, Some(DropReason::PROXY_LOOKUP_FAILED))
        }
        policy::VERDICT_REDIRECT => (policy::VERDICT_REDIRECT, None),
        _ => (policy::VERDICT_DEFAULT_DENY, Some(DropReason::POLICY)),
    }
}
