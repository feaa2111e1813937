//! What do the policies of both ends say of a flow?

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use abi::policy::{
    MATCH_ALL, MATCH_L3_L4, MATCH_L3_ONLY, MATCH_L3_PROTO, MATCH_L4_ONLY, MATCH_PROTO_ONLY, VERDICT_ALLOW,
    VERDICT_DEFAULT_DENY, VERDICT_REDIRECT, VerdictEntry,
};
use foldhash::fast::RandomState as FastHash;
use identity::NumericIdentity;
use policy::{Auth, Direction, EndpointPolicy, Implicit, Redirect, RuleOrigin, RuleSet};

use crate::case::Flow;
use crate::flow_ref::FlowRef;
use crate::result::{DirectionResult, L7Result, Origin};
use crate::world::World;

/// Judges the flows of one world.
pub struct Judge<'a> {
    world: Held<'a>,
    audit: bool,
    places: HashMap<Arc<str>, Place>,
    answers: Vec<Answer>,
    known: HashMap<Entry, u32, FastHash>,
    recent: Recent,
}

/// A world whose policies are made when they are asked for, or were all made before.
enum Held<'a> {
    Making(&'a mut World),
    Made(&'a World),
}

/// Where a policy was read: file and line.
type Place = (String, usize);

/// What one end is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Question {
    party: u32,
    peer: NumericIdentity,
    direction: Direction,
    protocol: u8,
    port: u16,
}

/// An entry of a policy's tables; the policy by its address, which stays as long as the world.
type Entry = (usize, Direction, VerdictEntry);

/// What one end says, as it is and as the result has it.
struct Answer {
    denies: bool,
    redirects: bool,
    auth: &'static str,
    text: String,
    result: DirectionResult,
}

/// Questions that were asked before, with the numbers of their answers. Each has one place, which it shares with
/// others: what is asked for is found or asked again, and the memory for it never grows.
struct Recent(Vec<Option<(Question, u32)>>);

/// What the ends that are asked say: egress and ingress, as numbers of answers.
type Answers = [Option<u32>; 2];

/// A flow whose ends are known.
struct Asked {
    source: (Option<usize>, NumericIdentity),
    destination: (Option<usize>, NumericIdentity),
    protocol: u8,
    port: u16,
}

/// What both ends say.
pub struct Verdict {
    /// The identities of source and destination.
    pub identities: (NumericIdentity, NumericIdentity),
    /// What the source's policy says, if it is asked.
    pub egress: Option<DirectionResult>,
    /// What the destination's policy says, if it is asked.
    pub ingress: Option<DirectionResult>,
}

impl<'a> Judge<'a> {
    /// A judge over a world. With `audit`, what is denied passes and is told.
    pub fn new(world: &'a mut World, audit: bool) -> Self {
        Judge::over(Held::Making(world), audit)
    }

    /// A judge over a world whose policies are all made, which it shares with others.
    pub fn sharing(world: &'a World, audit: bool) -> Self {
        Judge::over(Held::Made(world), audit)
    }

    fn over(world: Held<'a>, audit: bool) -> Self {
        let places = world.get().repository.policies().filter_map(|policy| {
            let file = policy.source.file.clone()?;
            Some((Arc::from(policy.reference.to_string()), (file, policy.source.line.unwrap_or(0))))
        });
        let places = places.collect();
        Judge { world, audit, places, answers: Vec::new(), known: HashMap::default(), recent: Recent::new() }
    }

    /// The result of a flow as JSON, at the end of `out`.
    pub fn write(&mut self, flow: &FlowRef<'_>, out: &mut Vec<u8>) {
        out.push(b'{');
        if !flow.id.is_empty() {
            out.extend_from_slice(b"\"id\":");
            push_json(&flow.id, out);
            out.push(b',');
        }
        match self.ask(flow) {
            Ok(asked) => self.write_answers(flow, &asked, out),
            Err(error) => {
                out.extend_from_slice(b"\"verdict\":\"ERROR\",\"error\":");
                push_json(&error, out);
            }
        }
        out.push(b'}');
    }

    fn write_answers(&mut self, flow: &FlowRef<'_>, asked: &Asked, out: &mut Vec<u8>) {
        let answers = match self.answers(flow, asked) {
            Ok(answers) => answers,
            Err(error) => {
                out.extend_from_slice(b"\"verdict\":\"ERROR\"");
                asked.write_identities(out);
                out.extend_from_slice(b",\"error\":");
                return push_json(&error, out);
            }
        };
        let both = || answers.iter().flatten().map(|number| &self.answers[*number as usize]);
        let denied = both().any(|one| one.denies);
        let verdict = match (denied, self.audit) {
            (false, _) => "ALLOWED",
            (true, true) => "AUDITED",
            (true, false) => "DENIED",
        };
        push_pair("\"verdict\":", verdict, out);
        if !denied && both().any(|one| one.redirects) {
            out.extend_from_slice(b",\"redirect\":true");
        }
        let auth = both().map(|one| one.auth).max_by_key(|auth| strength(auth)).unwrap_or_default();
        if !auth.is_empty() {
            push_pair(",\"auth\":", auth, out);
        }
        asked.write_identities(out);
        both().for_each(|one| out.extend_from_slice(one.text.as_bytes()));
    }

    /// What both ends say of a flow; an error if it cannot be asked, or a policy cannot be put together.
    pub fn verdict(&mut self, flow: &Flow) -> Result<Verdict, String> {
        let flow = flow.by_ref();
        let asked = self.ask(&flow)?;
        let [egress, ingress] = self.answers(&flow, &asked)?;
        let result = |number: u32| self.answers[number as usize].result.clone();
        Ok(Verdict {
            identities: (asked.source.1, asked.destination.1),
            egress: egress.map(result),
            ingress: ingress.map(result),
        })
    }

    fn ask(&self, flow: &FlowRef<'_>) -> Result<Asked, String> {
        let protocol = crate::protocol::number(&flow.proto)?;
        let port = match (protocol, flow.icmp_type) {
            (1 | 58, Some(kind)) => u16::from(kind),
            _ => flow.port,
        };
        let world = self.world.get();
        let source = world.find(&flow.src, flow.ipv6).map_err(|error| format!("src: {error}"))?;
        let destination = world.find(&flow.dst, flow.ipv6).map_err(|error| format!("dst: {error}"))?;
        if !["", "both", "egress", "ingress"].contains(&flow.direction.as_ref()) {
            return Err(format!("direction {:?} is not both, egress or ingress", flow.direction));
        }
        Ok(Asked { source, destination, protocol, port })
    }

    fn answers(&mut self, flow: &FlowRef<'_>, asked: &Asked) -> Result<Answers, String> {
        let wanted =
            |direction: Direction| matches!(flow.direction.as_ref(), "" | "both") || flow.direction == direction.name();
        let mut answer = |direction: Direction, own: (Option<usize>, u32), peer: NumericIdentity| {
            let Some(party) = own.0.filter(|at| wanted(direction) && self.world.get().parties[*at].local) else {
                return Ok(None);
            };
            let question =
                Question { party: party as u32, peer, direction, protocol: asked.protocol, port: asked.port };
            self.answer(question).map(Some)
        };
        let egress = answer(Direction::Egress, asked.source, asked.destination.1)?;
        let ingress = answer(Direction::Ingress, asked.destination, asked.source.1)?;
        Ok([egress, ingress])
    }

    fn answer(&mut self, question: Question) -> Result<u32, String> {
        if let Some(number) = self.recent.get(&question) {
            return Ok(number);
        }
        let party = question.party as usize;
        let policy = self.world.policy(party);
        let name = &self.world.get().parties[party].name;
        let policy = policy.ok_or_else(|| format!("endpoint {name} has no identity"))?;
        if let Some(error) = &policy.error {
            return Err(format!("the policy of {name} cannot be made: {error}"));
        }
        let entry = policy.verdict(question.peer, question.direction, question.protocol, question.port);
        let place = (Arc::as_ptr(&policy) as usize, question.direction, entry);
        let number = match self.known.get(&place) {
            Some(known) => *known,
            None => {
                let number = self.answers.len() as u32;
                self.answers.push(Answer::new(question.direction, self.describe(&policy, question.direction, entry)));
                self.known.insert(place, number);
                number
            }
        };
        self.recent.set(question, number);
        Ok(number)
    }

    fn describe(&self, policy: &EndpointPolicy, direction: Direction, entry: VerdictEntry) -> DirectionResult {
        let nothing = RuleSet::none();
        let set = policy.rule_set(entry.rule_set).unwrap_or(&nothing);
        let allows = [VERDICT_ALLOW, VERDICT_REDIRECT].contains(&entry.verdict);
        let (reason, redirects) = match entry.verdict {
            VERDICT_ALLOW | VERDICT_REDIRECT => ("", entry.verdict == VERDICT_REDIRECT),
            VERDICT_DEFAULT_DENY => ("policy", false),
            _ if set.auth != Auth::Disabled => ("auth-required", false),
            _ => ("policy-deny", false),
        };
        let asks = set.auth != Auth::Disabled || set.auth_explicit;
        DirectionResult {
            enforced: policy.enforced(direction),
            verdict: if allows { "allow" } else { "deny" },
            match_type: match_name(entry.match_type),
            reason,
            redirect: redirects,
            open: set.redirects.iter().any(|one| one.is_open()),
            l7: set.redirects.iter().filter(|_| redirects).map(|one| l7(one)).collect(),
            auth: if asks { set.auth.name() } else { "" },
            auth_explicit: set.auth_explicit,
            rules: rule_names(set, direction),
            origins: deciding(set).map(|rule| self.origin(rule)).collect(),
            log: logs(set),
        }
    }

    fn origin(&self, rule: &RuleOrigin) -> Origin {
        let reference = rule.policy.to_string();
        let (file, line) = self.places.get(reference.as_str()).cloned().unwrap_or_default();
        Origin {
            direction: rule.direction.name(),
            deny: rule.deny,
            spec: rule.spec,
            index: rule.index,
            file,
            line: if rule.line > 0 { rule.line } else { line },
            reference,
        }
    }
}

impl Held<'_> {
    fn get(&self) -> &World {
        match self {
            Held::Making(world) => world,
            Held::Made(world) => world,
        }
    }

    fn policy(&mut self, party: usize) -> Option<Arc<EndpointPolicy>> {
        match self {
            Held::Making(world) => world.policy(party),
            Held::Made(world) => world.made_policy(party).cloned(),
        }
    }
}

impl Answer {
    fn new(direction: Direction, result: DirectionResult) -> Self {
        Answer {
            denies: result.verdict == "deny",
            redirects: result.redirect,
            auth: result.auth,
            text: format!(",\"{}\":{}", direction.name(), serde_json::to_string(&result).unwrap_or_default()),
            result,
        }
    }
}

impl Recent {
    const BITS: u32 = 13;

    fn new() -> Self {
        Recent(vec![None; 1 << Self::BITS])
    }

    fn place(question: &Question) -> usize {
        let Question { party, peer, direction, protocol, port } = *question;
        let ends = u64::from(party) << 32 | u64::from(peer);
        let rest = u64::from(port) << 16 | u64::from(protocol) << 8 | u64::from(direction.number());
        let mixed = (ends.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ rest).wrapping_mul(0xd6e8_feb8_6659_fd93);
        (mixed >> (64 - Self::BITS)) as usize
    }

    fn get(&self, question: &Question) -> Option<u32> {
        self.0[Self::place(question)].filter(|(asked, _)| asked == question).map(|(_, number)| number)
    }

    fn set(&mut self, question: Question, number: u32) {
        self.0[Self::place(&question)] = Some((question, number));
    }
}

impl Asked {
    fn write_identities(&self, out: &mut Vec<u8>) {
        for (name, identity) in [(",\"src_identity\":", self.source.1), (",\"dst_identity\":", self.destination.1)] {
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(itoa::Buffer::new().format(identity).as_bytes());
        }
    }
}

/// The rules that decided, which those that merely closed the endpoint are not.
fn deciding(set: &RuleSet) -> impl Iterator<Item = &RuleOrigin> {
    set.rules.iter().map(AsRef::as_ref).filter(|_| !set.is_default_denial())
}

fn rule_names(set: &RuleSet, direction: Direction) -> Vec<String> {
    let implied = match set.implicit {
        None | Some(Implicit::DefaultDeny) => None,
        Some(Implicit::NotEnforced) => Some(Implicit::AllowAny(direction).name()),
        Some(what) => Some(what.name()),
    };
    let policies = deciding(set).map(|rule| rule.policy.to_string());
    let names: BTreeSet<String> = policies.chain(implied.map(str::to_owned)).collect();
    names.into_iter().collect()
}

fn logs(set: &RuleSet) -> Vec<String> {
    let logs: BTreeSet<&String> = deciding(set).map(|rule| &rule.log).filter(|log| !log.is_empty()).collect();
    logs.into_iter().cloned().collect()
}

/// What the proxy asks, as results have it.
pub fn l7(redirect: &Redirect) -> L7Result {
    L7Result {
        parser: redirect.parser.name(),
        rules: redirect.rules.as_ref().and_then(|rules| serde_json::to_value(rules).ok()).unwrap_or_default(),
        denied_names: redirect.denied_names.iter().cloned().collect(),
        sni: redirect.server_names.iter().cloned().collect(),
        listener: redirect.listener.clone().unwrap_or_default(),
        tls_term: redirect.terminating_tls.is_some(),
        tls_orig: redirect.originating_tls.is_some(),
    }
}

fn match_name(match_type: u8) -> &'static str {
    match match_type {
        MATCH_L3_ONLY => "l3-only",
        MATCH_L3_L4 => "l3-l4",
        MATCH_L4_ONLY => "l4-only",
        MATCH_ALL => "all",
        MATCH_L3_PROTO => "l3-proto",
        MATCH_PROTO_ONLY => "proto-only",
        _ => "none",
    }
}

fn strength(auth: &str) -> u8 {
    match auth {
        "always-fail" => 3,
        "spire" => 2,
        "disabled" => 1,
        _ => 0,
    }
}

/// A text that needs no escapes, after its name.
fn push_pair(name: &str, text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

/// Any text as JSON.
pub fn push_json(text: &str, out: &mut Vec<u8>) {
    // Writing into memory does not fail.
    let _ = serde_json::to_writer(out, text);
}
