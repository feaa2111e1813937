//! May this request to a Kafka broker pass, and what is told of it?

use std::time::Instant;

use l7::kafka::{Judgement, Malformed, Request, Rules, Verdict as Said, name_of};
use proxy_api::{Application, Facts, Kafka, Kind, Parser, Protocol, Record, Verdict};

use super::denial;
use crate::recorder::record;
use crate::shared::Connection;

/// Topics of one request that are told of at most, one by one.
const MOST_TOLD: usize = 64;

/// The kind that asks for versions.
const API_VERSIONS: i16 = 18;

/// What becomes of a request.
pub enum Decision {
    /// It goes on.
    Forward {
        /// What its answer is waited for with; `None`: it gets none.
        answer: Option<Asked>,
        /// Where in the frame four bytes are to become those of -1 first.
        sessionless: Option<usize>,
    },
    /// This is answered.
    Answer(Vec<u8>),
    /// There is no answer to it but the end of the connection.
    End,
}

/// A request that went on.
pub struct Asked {
    /// What its answer begins with.
    pub correlation: i32,
    /// Since when.
    pub since: Instant,
    /// Versions are told in the answer: with those of kinds that are not known (true) or not.
    pub versions: Option<(i16, bool)>,
    told: Option<Box<(Facts, Kafka)>>,
}

/// Why nothing can pass on the connection any more.
pub struct Ended;

impl Connection {
    /// Judges a request by what holds now, and records it; `missing`: why its end is not there, if so.
    pub fn judge_kafka(&self, frame: &[u8], missing: Option<Malformed>) -> Result<Decision, Ended> {
        let (facts, rules) = match self.now_as(Parser::Kafka) {
            Ok(found) => found,
            Err(unknown) => {
                self.shared.counters.refused_unknown.add();
                self.record_kafka(self.first, Verdict::Denied, unknown.reason(), Kafka::default());
                return Err(Ended);
            }
        };
        let request = match Request::read(frame) {
            Ok(request) => request,
            Err(malformed) => {
                self.kafka_malformed(malformed);
                return Ok(Decision::End);
            }
        };
        let mut topics = Topics::default();
        let judgement = match &rules.kafka {
            None => all(&request, &mut topics),
            // Nobody asks for the topics of what is not there to its end.
            Some(rules) if missing.is_some() => beginning(rules, &request, missing),
            Some(rules) => rules.judge(&request, |topic, _| topics.hear(topic)),
        };
        let open = rules.kafka.as_ref().is_none_or(Rules::is_open);
        Ok(self.decide(facts, open, &request, &judgement, &topics))
    }

    fn decide(
        &self,
        facts: Facts,
        open: bool,
        request: &Request<'_>,
        judgement: &Judgement,
        topics: &Topics,
    ) -> Decision {
        let about = Kafka {
            api_key: name_of(request.key),
            api_version: request.version,
            correlation_id: request.correlation,
            ..Kafka::default()
        };
        let Said::Allowed { sessionless } = judgement.verdict else {
            return self.refuse(facts, request, judgement, topics, about);
        };
        self.shared.counters.requests_forwarded.add();
        self.record_topics(facts, Verdict::Forwarded, "", &about, topics);
        let told = self.shared.settings.load().records.then(|| {
            let topic = topics.told.first().cloned().unwrap_or_default();
            Box::new((facts, Kafka { topic, ..about }))
        });
        let versions = (request.key == API_VERSIONS).then_some((request.version, open));
        let answer = Asked { correlation: request.correlation, since: Instant::now(), versions, told };
        Decision::Forward {
            answer: (judgement.facts.acks != Some(0)).then_some(answer),
            sessionless: sessionless.map(|at| at + request.body_at()),
        }
    }

    fn refuse(
        &self,
        facts: Facts,
        request: &Request<'_>,
        judgement: &Judgement,
        topics: &Topics,
        about: Kafka,
    ) -> Decision {
        if judgement.verdict == Said::Session {
            self.shared.counters.requests_error.add();
            let why = "a fetch session whose topics are not known";
            self.record_topics(facts, Verdict::Error, why, &about, topics);
            return denial::no_session(request).map_or(Decision::End, Decision::Answer);
        }
        self.shared.counters.requests_denied.add();
        let why = judgement.malformed.map(|malformed| malformed.to_string());
        let why = why.as_deref().unwrap_or("no rule allows it");
        // A producer that wants no answer learns by the end of the connection, as brokers have it.
        let silent = judgement.facts.acks == Some(0);
        let answer = if silent { None } else { denial::denied(request, judgement) };
        let error_code = answer.as_ref().map(|(_, error)| *error);
        self.record_topics(facts, Verdict::Denied, why, &Kafka { error_code, ..about }, topics);
        answer.map_or(Decision::End, |(answer, _)| Decision::Answer(answer))
    }

    /// Records an answer.
    pub fn record_kafka_answer(&self, asked: &Asked) {
        self.record_kafka_end(asked, Verdict::Forwarded, "");
    }

    /// Records that an answer does not come.
    pub fn record_kafka_failure(&self, asked: &Asked, why: &str) {
        self.shared.counters.requests_error.add();
        self.record_kafka_end(asked, Verdict::Error, why);
    }

    fn record_kafka_end(&self, asked: &Asked, verdict: Verdict, info: &str) {
        if let Some((facts, about)) = asked.told.as_deref() {
            let latency = u64::try_from(asked.since.elapsed().as_nanos()).ok();
            self.push_kafka(*facts, Kind::Response, verdict, info, Kafka { latency, ..about.clone() });
        }
    }

    /// Records bytes that are no request.
    pub fn kafka_malformed(&self, malformed: Malformed) {
        self.shared.counters.requests_error.add();
        self.record_kafka(self.first, Verdict::Error, &malformed.to_string(), Kafka::default());
    }

    /// One record for each topic, or one without.
    fn record_topics(&self, facts: Facts, verdict: Verdict, info: &str, about: &Kafka, topics: &Topics) {
        if topics.told.is_empty() {
            return self.record_kafka(facts, verdict, info, about.clone());
        }
        let more = topics.heard - topics.told.len();
        for (at, topic) in topics.told.iter().enumerate() {
            let about = Kafka { topic: topic.clone(), ..about.clone() };
            if more > 0 && at + 1 == topics.told.len() {
                self.record_kafka(facts, verdict, &format!("{info} (and {more} topics more)"), about);
            } else {
                self.record_kafka(facts, verdict, info, about);
            }
        }
    }

    fn record_kafka(&self, facts: Facts, verdict: Verdict, info: &str, about: Kafka) {
        if self.shared.settings.load().records {
            self.push_kafka(facts, Kind::Request, verdict, info, about);
        }
    }

    fn push_kafka(&self, facts: Facts, kind: Kind, verdict: Verdict, info: &str, about: Kafka) {
        let record = record(&facts, Protocol::Tcp, (self.peer, self.local), Application::Kafka(about));
        self.shared.recorder.push(Record { kind, verdict, info: info.to_owned(), ..record });
    }
}

/// Topics of a request, for records.
#[derive(Default)]
struct Topics {
    told: Vec<String>,
    heard: usize,
}

impl Topics {
    fn hear(&mut self, topic: &[u8]) {
        self.heard += 1;
        if self.told.len() < MOST_TOLD {
            self.told.push(String::from_utf8_lossy(topic).into_owned());
        }
    }
}

/// Without rules all passes.
fn all(request: &Request<'_>, topics: &mut Topics) -> Judgement {
    let (facts, _) = request.walk(|said| {
        if let l7::kafka::Said::Topic(topic) = said {
            topics.hear(topic);
        }
    });
    Judgement { verdict: Said::Allowed { sessionless: None }, facts, malformed: None }
}

/// What rules say of a request whose end is not there.
fn beginning(rules: &Rules, request: &Request<'_>, missing: Option<Malformed>) -> Judgement {
    let (facts, _) = request.walk(|_| {});
    let verdict = if rules.allow_all_topics(request) { Said::Allowed { sessionless: None } } else { Said::Denied };
    Judgement { verdict, facts, malformed: missing }
}
