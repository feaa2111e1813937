//! May this name be asked for, and what does the answer teach?

use std::collections::HashMap;
use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use dns::{Question, Said, code, failure, read_question};
use proxy_api::{Application, Direction, DnsSettings, Facts, FromProxy, Kind, Protocol, Record, Verdict};
use tokio::sync::mpsc;

use super::learned::{Learnings, Telling};
use crate::recorder::record;
use crate::rules::Rules;
use crate::shared::{Shared, Unknown, fits};

/// What questions have in common, however they come.
pub struct Names {
    /// What all connections have in common.
    pub shared: Arc<Shared>,
    /// What the agent is told.
    pub learnings: Learnings,
    waiting: Mutex<Waiting>,
}

/// Questions that wait for their answers.
#[derive(Default)]
struct Waiting {
    all: u32,
    of_endpoint: HashMap<u32, u32>,
}

/// A question's place among those that wait.
struct Turn {
    names: Arc<Names>,
    endpoint: u32,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut waiting = self.names.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.all -= 1;
        if let Some(own) = waiting.of_endpoint.get_mut(&self.endpoint) {
            *own -= 1;
            if *own == 0 {
                waiting.of_endpoint.remove(&self.endpoint);
            }
        }
    }
}

/// Who asks whom, by what.
#[derive(Clone, Copy)]
pub struct Ends {
    /// Who asks.
    pub client: SocketAddr,
    /// The server that is meant.
    pub server: SocketAddr,
    /// By what.
    pub protocol: Protocol,
}

/// What becomes of a message.
pub enum Judged {
    /// It goes on to the server.
    Ask(Box<Asked>),
    /// The client hears this at once; `None`: nothing.
    Say(Option<Vec<u8>>),
}

/// A question that goes on, until its client has the answer.
pub struct Asked {
    /// The question.
    pub question: Question,
    /// When it came.
    pub began: Instant,
    ends: Ends,
    facts: Facts,
    turn: Turn,
}

impl Names {
    /// `agent` gets what answers teach.
    pub fn new(shared: Arc<Shared>, agent: mpsc::Sender<FromProxy>) -> Names {
        Names { shared, learnings: Learnings::new(agent), waiting: Mutex::default() }
    }

    /// What the datapath and the agent say of who asks now.
    pub fn facts(&self, ends: Ends, direction: Direction) -> Result<(Facts, Arc<Rules>), Unknown> {
        let facts = self.shared.redirected.facts(ends.protocol, ends.client, ends.server).ok_or(Unknown::Facts)?;
        if !fits(&facts, direction) {
            return Err(Unknown::Changed);
        }
        let rules = self.shared.rules.load().get(facts.rule_set).cloned().ok_or(Unknown::Rules)?;
        Ok((facts, rules))
    }

    /// Reads a message and judges what it asks for.
    pub fn judge(
        self: &Arc<Self>,
        ends: Ends,
        (facts, rules): (Facts, &Rules),
        message: &[u8],
        now: Instant,
    ) -> Judged {
        let counters = &self.shared.counters;
        let question = match read_question(message) {
            Ok(question) => question,
            Err(unfit) => {
                counters.dns_unreadable.add();
                return Judged::Say(unfit.answer());
            }
        };
        let Some(turn) = self.turn(facts.endpoint) else {
            counters.dns_overload.add();
            return Judged::Say(None);
        };
        let allowed = rules.allow_name(question.name());
        let asked = Asked { question, began: now, ends, facts, turn };
        if allowed {
            counters.dns_forwarded.add();
            asked.request(Verdict::Forwarded, "");
            Judged::Ask(Box::new(asked))
        } else {
            counters.dns_denied.add();
            asked.request(Verdict::Denied, "");
            Judged::Say(Some(failure(&asked.question, self.shared.settings.load().dns_reject_code)))
        }
    }

    /// A turn for a question of this endpoint, unless too many of its questions wait: others are not to suffer from that.
    fn turn(self: &Arc<Self>, endpoint: u32) -> Option<Turn> {
        let DnsSettings { questions, questions_per_endpoint: most, .. } = self.shared.settings.load().dns;
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if questions > 0 && waiting.all >= questions {
            return None;
        }
        let own = waiting.of_endpoint.entry(endpoint).or_default();
        if *own >= most {
            return None;
        }
        *own += 1;
        waiting.all += 1;
        Some(Turn { names: Arc::clone(self), endpoint })
    }
}

impl Asked {
    /// Who asks whom.
    pub fn ends(&self) -> Ends {
        self.ends
    }

    /// What the datapath says of who asks.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// What the agent is to be told before the client has this answer; `None`: nothing, or it has just been told.
    pub fn teaches(&self, said: &Said, now: Instant) -> Option<Telling> {
        if said.code != 0 || said.addresses.is_empty() {
            return None;
        }
        let (name, ttl) = (self.question.dotted(), said.ttl.unwrap_or(0));
        self.turn.names.learnings.telling(self.facts.endpoint, name, (&said.addresses, ttl), now)
    }

    /// The server has answered, and the client gets the answer.
    pub fn answered(&self, said: Said, now: Instant) {
        let Said { code, addresses, ttl, cnames, types, .. } = said;
        let latency = u64::try_from(now.duration_since(self.began).as_nanos()).ok();
        let code = Some(code);
        let dns = proxy_api::Dns { code, addresses, ttl, cnames, answer_types: types, latency, ..Default::default() };
        self.push(Verdict::Forwarded, Kind::Response, "", dns);
    }

    /// What the client gets if the server cannot be asked.
    pub fn failed(&self, why: &dyn Display) -> Vec<u8> {
        self.turn.names.shared.counters.dns_failed.add();
        self.request(Verdict::Error, &format!("the server cannot be asked: {why}"));
        failure(&self.question, code::SERVER_FAILURE)
    }

    /// The server has not answered in time. A client that hears nothing asks again, as it would without us.
    pub fn timed_out(&self) {
        self.turn.names.shared.counters.dns_timeout.add();
        self.request(Verdict::Error, "the server did not answer");
    }

    fn request(&self, verdict: Verdict, info: &str) {
        self.push(verdict, Kind::Request, info, proxy_api::Dns::default());
    }

    fn push(&self, verdict: Verdict, kind: Kind, info: &str, dns: proxy_api::Dns) {
        let shared = &self.turn.names.shared;
        if !shared.settings.load().records {
            return;
        }
        let (query, query_type) = (Arc::clone(self.question.dotted()), self.question.record_type.into());
        let dns = proxy_api::Dns { query, query_type, ..dns };
        let Ends { client, server, protocol } = self.ends;
        let about = record(&self.facts, protocol, (client, server), Application::Dns(dns));
        shared.recorder.push(Record { verdict, kind, info: info.to_owned(), ..about });
    }
}
