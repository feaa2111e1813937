//! What do the rules of a policy say of a request?

use std::collections::HashMap;

use super::apis::{Api, by_key, by_name};
use super::request::{Malformed, Request};
use super::walk::{Facts, Said};

/// What the role of producers stands for: Produce, Metadata, ApiVersions.
const PRODUCE: &[i16] = &[0, 3, 18];
/// What the role of consumers stands for: Fetch, ListOffsets, Metadata, OffsetCommit, OffsetFetch, FindCoordinator,
/// JoinGroup, Heartbeat, LeaveGroup, SyncGroup, ApiVersions.
const CONSUME: &[i16] = &[1, 2, 3, 8, 9, 10, 11, 12, 13, 14, 18];

/// The longest name of a topic, in bytes. Kafka takes 249 since 0.10; before that it was this.
const MAX_TOPIC: usize = 255;

/// Key of Fetch requests.
const FETCH: i16 = 1;

/// One rule: all that it gives must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rule {
    keys: Option<&'static [i16]>,
    key: Option<i16>,
    version: Option<i16>,
    client: Option<String>,
    topic: Option<String>,
}

impl Rule {
    /// Reads a rule; an empty text asks nothing. Otherwise the field that is wrong, and why.
    pub fn new(rule: &crds::KafkaRule) -> Result<Rule, (&'static str, String)> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let (role, api) = (given(&rule.role), given(&rule.api_key));
        if let (Some(role), Some(api)) = (&role, &api) {
            return Err(("role", format!("cannot set both Role {role:?} and APIKey {api:?} together")));
        }
        let keys = role.map(|role| match role.to_ascii_lowercase().as_str() {
            "produce" => Ok(PRODUCE),
            "consume" => Ok(CONSUME),
            _ => Err(("role", format!("invalid Kafka Role {role:?}: it is neither produce nor consume"))),
        });
        let key = api.map(|name| match by_name(&name) {
            Some(api) => Ok(api.key),
            None => Err(("apiKey", format!("invalid Kafka APIKey {name:?}: no request of the protocol has this name"))),
        });
        let version = given(&rule.api_version).map(|text| match text.parse::<i16>() {
            Ok(version) if version >= 0 => Ok(version),
            _ => Err(("apiVersion", format!("invalid Kafka APIVersion {text:?}: it is no number from 0 to 32767"))),
        });
        let topic = given(&rule.topic).map(|topic| check_topic(&topic).map(|()| topic).map_err(|why| ("topic", why)));
        Ok(Rule {
            keys: keys.transpose()?,
            key: key.transpose()?,
            version: version.transpose()?,
            client: given(&rule.client_id),
            topic: topic.transpose()?,
        })
    }

    /// True if it allows all requests.
    pub fn is_open(&self) -> bool {
        *self == Rule::default()
    }

    /// The kind of requests that it names, if these never have a topic, though the rule does: the topic asks nothing.
    pub fn topic_without_use(&self) -> Option<&'static str> {
        let api = self.key.and_then(by_key)?;
        (self.topic.is_some() && !api.has_topics()).then_some(api.name)
    }

    /// True if it may allow requests of this kind.
    pub fn allows_kind(&self, api: &Api) -> bool {
        self.has(api.key)
    }

    fn has(&self, key: i16) -> bool {
        self.keys.is_none_or(|keys| keys.contains(&key)) && self.key.is_none_or(|one| one == key)
    }

    /// Topics left aside.
    fn fits(&self, request: &Request<'_>) -> bool {
        self.has(request.key)
            && self.version.is_none_or(|version| version == request.version)
            && self.client.as_ref().is_none_or(|client| client.as_bytes() == request.client)
    }
}

fn check_topic(topic: &str) -> Result<(), String> {
    if topic.len() > MAX_TOPIC {
        return Err(format!("kafka topic exceeds maximum len of {MAX_TOPIC}; found {}", topic.len()));
    }
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    match topic.bytes().all(fits) {
        true => Ok(()),
        false => Err(format!("invalid Kafka Topic name {topic:?}: letters, digits, dots, dashes and underscores")),
    }
}

/// Rules of which one is enough for each topic.
#[derive(Debug, Default)]
pub struct Rules {
    rules: Vec<Rule>,
    /// Those without a topic.
    any: Vec<usize>,
    by_topic: HashMap<Box<[u8]>, Vec<usize>>,
    open: bool,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    Allowed {
        /// Where in its body four bytes must become those of -1 first, so that the broker keeps no fetch session: in
        /// one, later requests need not name their topics any more.
        sessionless: Option<usize>,
    },
    /// It is about a fetch session, of whose topics nothing is known here: the client shall begin anew.
    Session,
    /// No rule allows it.
    Denied,
}

/// What is said of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judgement {
    /// What becomes of it.
    pub verdict: Verdict,
    /// What it says besides topics.
    pub facts: Facts,
    /// Why it could not be read to its end, if so.
    pub malformed: Option<Malformed>,
}

impl Rules {
    /// Rules in force together. One that cannot be read allows nothing.
    pub fn new(rules: &[crds::KafkaRule]) -> (Rules, Vec<String>) {
        let (mut all, mut problems) = (Rules::default(), Vec::new());
        for (at, rule) in rules.iter().enumerate() {
            match Rule::new(rule) {
                Ok(rule) => all.add(rule),
                Err((field, why)) => problems.push(format!("kafka[{at}].{field}: {why}")),
            }
        }
        (all, problems)
    }

    fn add(&mut self, rule: Rule) {
        let at = self.rules.len();
        self.open |= rule.is_open();
        match &rule.topic {
            Some(topic) => self.by_topic.entry(topic.as_bytes().into()).or_default().push(at),
            None => self.any.push(at),
        }
        self.rules.push(rule);
    }

    /// True if all requests pass, whatever they are.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// True if a request with this header passes, whatever topics it names.
    pub fn allow_all_topics(&self, request: &Request<'_>) -> bool {
        self.open || request.api().is_ok() && self.fit(&self.any, request)
    }

    fn fit(&self, rules: &[usize], request: &Request<'_>) -> bool {
        rules.iter().any(|at| self.rules[*at].fits(request))
    }

    /// True if a request with this header passes whose body names these topics.
    pub fn allow(&self, request: &Request<'_>, topics: &[&str]) -> bool {
        self.allow_all_topics(request)
            || match topics {
                [] => self.rules.iter().any(|rule| rule.fits(request)),
                topics => topics.iter().all(|topic| self.allow_topic(request, topic.as_bytes())),
            }
    }

    fn allow_topic(&self, request: &Request<'_>, topic: &[u8]) -> bool {
        self.by_topic.get(topic).is_some_and(|rules| self.fit(rules, request))
    }

    /// Judges a request, and calls back with the topics that it names and whether they are allowed.
    ///
    /// It passes if for each of them some rule fits; if it names none, if some rule fits without its topic. What cannot
    /// be read passes only where one rule allows all.
    pub fn judge<'a>(&self, request: &Request<'a>, mut heard: impl FnMut(&'a [u8], bool)) -> Judgement {
        let any = self.allow_all_topics(request);
        let (mut named, mut all) = (false, true);
        let (facts, read) = request.walk(|said| {
            named = true;
            let allowed = any
                || match said {
                    Said::Unnamed => false,
                    Said::Topic(topic) => self.allow_topic(request, topic),
                };
            all &= allowed;
            if let Said::Topic(topic) = said {
                heard(topic, allowed);
            }
        });
        let allowed = match named {
            _ if any => true,
            true => all,
            false => self.rules.iter().any(|rule| rule.fits(request)),
        };
        let verdict = match allowed && (read.is_ok() || self.open) {
            false => Verdict::Denied,
            true if any => Verdict::Allowed { sessionless: None },
            true => of_session(request.key, &facts),
        };
        Judgement { verdict, facts, malformed: read.err() }
    }
}

/// A request whose topics were judged one by one.
fn of_session(key: i16, facts: &Facts) -> Verdict {
    match (key, facts.session, facts.epoch) {
        (FETCH, Some(session), _) if session != 0 => Verdict::Session,
        (FETCH, _, Some((0, at))) => Verdict::Allowed { sessionless: Some(at) },
        _ => Verdict::Allowed { sessionless: None },
    }
}
