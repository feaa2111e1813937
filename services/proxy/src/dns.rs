//! May this name be asked for, and what does the answer teach?
//!
//! A question that a rule allows goes on to the server that the client meant, from the client's address. The answer is
//! given to the client once the agent has said that the datapath knows its addresses, or after a short while without
//! that: then the client's first packet may come too early and is sent again, which is better than no answer.

mod datagrams;
mod learned;
mod reply;
mod streams;
mod upstream;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use dns::{Question, Said, code, failure, read_question};
use proxy_api::{Application, Direction, DnsSettings, Facts, FromProxy, Kind, Protocol, Record, Verdict};
use tokio::sync::mpsc;

pub use datagrams::{Datagrams, bind};
pub use reply::Replies;
pub use streams::serve;

use crate::recorder::{record, since_boot};
use crate::rules::Rules;
use crate::shared::{Shared, Unknown, fits, millis};
use learned::Learnings;
use upstream::Pool;

/// All that DNS needs beside what every connection needs.
pub struct Dns {
    shared: Arc<Shared>,
    pool: Pool,
    learnings: Learnings,
    waiting: Mutex<HashMap<u32, u32>>,
}

/// Questions of one endpoint that wait for their answers.
struct Turn<'a> {
    dns: &'a Dns,
    endpoint: u32,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut waiting = self.dns.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = waiting.get_mut(&self.endpoint) {
            *own -= 1;
            if *own == 0 {
                waiting.remove(&self.endpoint);
            }
        }
    }
}

/// Who asks whom, by what.
#[derive(Clone, Copy)]
struct Ends {
    client: SocketAddr,
    server: SocketAddr,
    protocol: Protocol,
}

impl Dns {
    /// `agent` gets what answers teach.
    pub fn new(shared: Arc<Shared>, agent: mpsc::Sender<FromProxy>) -> Arc<Dns> {
        let learnings = Learnings::new(agent);
        Arc::new(Dns { pool: Pool::new(Arc::clone(&shared)), shared, learnings, waiting: Mutex::default() })
    }

    /// What all connections have in common.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The agent has said that the datapath knows the addresses of these answers.
    pub fn held(&self, numbers: &[u64]) {
        self.learnings.held(numbers);
    }

    /// Another run of the agent is there, or none.
    pub fn forget_held(&self) {
        self.learnings.forget();
    }

    /// What the datapath and the agent say of who asks now.
    fn facts(&self, ends: Ends, direction: Direction) -> Result<(Facts, Arc<Rules>), Unknown> {
        let facts = self.shared.redirected.facts(ends.protocol, ends.client, ends.server).ok_or(Unknown::Facts)?;
        if !fits(&facts, direction) {
            return Err(Unknown::Changed);
        }
        let rules = self.shared.rules.load().get(facts.rule_set).cloned().ok_or(Unknown::Rules)?;
        Ok((facts, rules))
    }

    /// A turn for a question of this endpoint, unless too many of its questions wait: others are not to suffer from that.
    fn turn(&self, endpoint: u32) -> Option<Turn<'_>> {
        let DnsSettings { questions, questions_per_endpoint: most, .. } = self.shared.settings.load().dns;
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if questions > 0 && waiting.values().sum::<u32>() >= questions {
            return None;
        }
        let own = waiting.entry(endpoint).or_default();
        if *own >= most {
            return None;
        }
        *own += 1;
        Some(Turn { dns: self, endpoint })
    }

    /// What the client gets for a message; `None`: nothing.
    async fn answer<E, F>(
        &self,
        ends: Ends,
        facts: &Facts,
        rules: &Rules,
        message: &[u8],
        exchange: E,
    ) -> Option<Vec<u8>>
    where
        E: FnOnce(Question, Vec<u8>) -> F,
        F: Future<Output = std::io::Result<(Vec<u8>, Said)>>,
    {
        let counters = &self.shared.counters;
        let question = match read_question(message) {
            Ok(question) => question,
            Err(unfit) => {
                counters.dns_unreadable.add();
                return unfit.answer();
            }
        };
        let Some(_turn) = self.turn(facts.endpoint) else {
            counters.dns_overload.add();
            return None;
        };
        let told = Told { dns: self, ends, facts, question: &question, began: Instant::now() };
        if !rules.allow_name(&question.name) {
            counters.dns_denied.add();
            told.request(Verdict::Denied, "");
            return Some(failure(&question, self.shared.settings.load().dns_reject_code));
        }
        counters.dns_forwarded.add();
        told.request(Verdict::Forwarded, "");
        let patience = millis(self.shared.settings.load().dns.timeout);
        let answered = tokio::time::timeout(patience, exchange(question.clone(), message.to_vec())).await;
        let (mut bytes, said) = match answered {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                counters.dns_failed.add();
                told.request(Verdict::Error, &format!("the server cannot be asked: {error}"));
                return Some(failure(&question, code::SERVER_FAILURE));
            }
            // A client that hears nothing asks again, as it would without us.
            Err(_) => {
                counters.dns_timeout.add();
                told.request(Verdict::Error, "the server did not answer");
                return None;
            }
        };
        bytes[..2].copy_from_slice(&question.id.to_be_bytes());
        if said.code == 0 && !said.addresses.is_empty() {
            self.learn(facts, &question, &said).await;
        }
        told.response(said);
        Some(bytes)
    }

    /// Tells the agent, and waits until the datapath knows the addresses, but not for long.
    async fn learn(&self, facts: &Facts, question: &Question, said: &Said) {
        let patience = millis(self.shared.settings.load().dns.response_max_delay);
        let ttl = said.ttl.unwrap_or(0);
        let addresses = said.addresses.iter().map(|address| (*address, ttl)).collect();
        if !self.learnings.tell(facts.endpoint, question.dotted(), addresses, since_boot(), patience).await {
            self.shared.counters.dns_released_early.add();
        }
    }
}

/// One question, for records.
struct Told<'a> {
    dns: &'a Dns,
    ends: Ends,
    facts: &'a Facts,
    question: &'a Question,
    began: Instant,
}

impl Told<'_> {
    fn request(&self, verdict: Verdict, info: &str) {
        self.push(verdict, Kind::Request, info, proxy_api::Dns::default());
    }

    fn response(&self, said: Said) {
        let Said { code, addresses, ttl, cnames, types, .. } = said;
        let latency = u64::try_from(self.began.elapsed().as_nanos()).ok();
        let code = Some(code);
        let dns = proxy_api::Dns { code, addresses, ttl, cnames, answer_types: types, latency, ..Default::default() };
        self.push(Verdict::Forwarded, Kind::Response, "", dns);
    }

    fn push(&self, verdict: Verdict, kind: Kind, info: &str, dns: proxy_api::Dns) {
        if !self.dns.shared.settings.load().records {
            return;
        }
        let query_types = vec![self.question.record_type.to_string()];
        let dns = proxy_api::Dns { query: self.question.dotted(), query_types, ..dns };
        let Ends { client, server, protocol } = self.ends;
        let about = record(self.facts, protocol, (client, server), Application::Dns(dns));
        self.dns.shared.recorder.push(Record { verdict, kind, info: info.to_owned(), ..about });
    }
}
