//! What do the policies of both ends say of a flow?

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write;
use std::sync::Arc;

use abi::policy::{
    MATCH_ALL, MATCH_L3_L4, MATCH_L3_ONLY, MATCH_L3_PROTO, MATCH_L4_ONLY, MATCH_PROTO_ONLY, VERDICT_ALLOW,
    VERDICT_DEFAULT_DENY, VERDICT_REDIRECT, VerdictEntry,
};
use identity::NumericIdentity;
use policy::{Auth, Direction, EndpointPolicy, Implicit, Redirect, RuleOrigin, RuleSet};

use crate::case::Flow;
use crate::result::{DirectionResult, L7Result, Origin};
use crate::world::World;

/// Judges the flows of one world.
pub struct Judge<'a> {
    world: &'a mut World,
    audit: bool,
    places: HashMap<Arc<str>, Place>,
    known: HashMap<Entry, Arc<Answer>>,
}

/// Where a policy was read: file and line.
type Place = (String, usize);

/// What one end is asked.
struct Question {
    party: usize,
    peer: NumericIdentity,
    direction: Direction,
    protocol: u8,
    port: u16,
}

/// An entry of a policy's tables; the policy by its address, which stays as long as the world.
type Entry = (usize, Direction, VerdictEntry);

/// What one end says, as it is and as text.
struct Answer {
    denies: bool,
    redirects: bool,
    auth: &'static str,
    text: String,
    result: DirectionResult,
}

/// What the ends that are asked say: egress and ingress.
type Answers = (Option<Arc<Answer>>, Option<Arc<Answer>>);

/// A flow whose ends are known.
pub struct Asked {
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
        let places = world.repository.policies().filter_map(|policy| {
            let file = policy.source.file.clone()?;
            Some((Arc::from(policy.reference.to_string()), (file, policy.source.line.unwrap_or(0))))
        });
        let places = places.collect();
        Judge { world, audit, places, known: HashMap::new() }
    }

    /// The result of a flow as JSON, at the end of `out`.
    pub fn write(&mut self, flow: &Flow, out: &mut String) {
        out.push('{');
        if !flow.id.is_empty() {
            let _ = write!(out, "\"id\":{},", json(&flow.id));
        }
        match self.ask(flow) {
            Ok(asked) => self.write_answers(flow, &asked, out),
            Err(error) => {
                let _ = write!(out, "\"verdict\":\"ERROR\",\"error\":{}", json(&error));
            }
        }
        out.push('}');
    }

    fn write_answers(&mut self, flow: &Flow, asked: &Asked, out: &mut String) {
        let identities = format!("\"src_identity\":{},\"dst_identity\":{}", asked.source.1, asked.destination.1);
        let answers = self.answers(flow, asked);
        let (egress, ingress) = match answers {
            Ok(answers) => answers,
            Err(error) => {
                let _ = write!(out, "\"verdict\":\"ERROR\",{identities},\"error\":{}", json(&error));
                return;
            }
        };
        let both = [egress.as_deref(), ingress.as_deref()];
        let both = || both.into_iter().flatten();
        let verdict = match (both().any(|one| one.denies), self.audit) {
            (false, _) => "ALLOWED",
            (true, true) => "AUDITED",
            (true, false) => "DENIED",
        };
        let _ = write!(out, "\"verdict\":\"{verdict}\"");
        if both().any(|one| one.redirects) && !both().any(|one| one.denies) {
            out.push_str(",\"redirect\":true");
        }
        let auth = both().map(|one| one.auth).max_by_key(|auth| strength(auth)).unwrap_or_default();
        if !auth.is_empty() {
            let _ = write!(out, ",\"auth\":\"{auth}\"");
        }
        let _ = write!(out, ",{identities}");
        for (name, answer) in [("egress", egress), ("ingress", ingress)] {
            if let Some(answer) = answer {
                let _ = write!(out, ",\"{name}\":{}", answer.text);
            }
        }
    }

    /// What both ends say of a flow; an error if it cannot be asked, or a policy cannot be put together.
    pub fn verdict(&mut self, flow: &Flow) -> Result<Verdict, String> {
        let asked = self.ask(flow)?;
        let (egress, ingress) = self.answers(flow, &asked)?;
        Ok(Verdict {
            identities: (asked.source.1, asked.destination.1),
            egress: egress.map(|answer| answer.result.clone()),
            ingress: ingress.map(|answer| answer.result.clone()),
        })
    }

    fn ask(&self, flow: &Flow) -> Result<Asked, String> {
        let protocol = crate::protocol::number(&flow.proto)?;
        let port = match (protocol, flow.icmp_type) {
            (1 | 58, Some(kind)) => u16::from(kind),
            _ => flow.port,
        };
        let source = self.world.find(&flow.src, flow.ipv6).map_err(|error| format!("src: {error}"))?;
        let destination = self.world.find(&flow.dst, flow.ipv6).map_err(|error| format!("dst: {error}"))?;
        if !["", "both", "egress", "ingress"].contains(&flow.direction.as_str()) {
            return Err(format!("direction {:?} is not both, egress or ingress", flow.direction));
        }
        Ok(Asked { source, destination, protocol, port })
    }

    fn answers(&mut self, flow: &Flow, asked: &Asked) -> Result<Answers, String> {
        let wanted =
            |direction: Direction| matches!(flow.direction.as_str(), "" | "both") || flow.direction == direction.name();
        let mut answer = |direction: Direction, own: (Option<usize>, u32), peer: NumericIdentity| {
            let Some(party) = own.0.filter(|at| wanted(direction) && self.world.parties[*at].local) else {
                return Ok(None);
            };
            let question = Question { party, peer, direction, protocol: asked.protocol, port: asked.port };
            self.answer(question).map(Some)
        };
        let egress = answer(Direction::Egress, asked.source, asked.destination.1)?;
        let ingress = answer(Direction::Ingress, asked.destination, asked.source.1)?;
        Ok((egress, ingress))
    }

    fn answer(&mut self, question: Question) -> Result<Arc<Answer>, String> {
        let policy = self.world.policy(question.party);
        let name = &self.world.parties[question.party].name;
        let policy = policy.ok_or_else(|| format!("endpoint {name} has no identity"))?;
        if let Some(error) = &policy.error {
            return Err(format!("the policy of {name} cannot be made: {error}"));
        }
        let entry = policy.verdict(question.peer, question.direction, question.protocol, question.port);
        let place = (Arc::as_ptr(&policy) as usize, question.direction, entry);
        if let Some(known) = self.known.get(&place) {
            return Ok(known.clone());
        }
        let result = self.describe(&policy, question.direction, entry);
        let answer = Arc::new(Answer {
            denies: result.verdict == "deny",
            redirects: result.redirect,
            auth: result.auth,
            text: serde_json::to_string(&result).unwrap_or_default(),
            result,
        });
        self.known.insert(place, answer.clone());
        Ok(answer)
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

fn l7(redirect: &Redirect) -> L7Result {
    L7Result {
        parser: redirect.parser.name(),
        rules: redirect.rules.as_ref().and_then(|rules| serde_json::to_value(rules).ok()).unwrap_or_default(),
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

fn json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
