//! May this HTTP request pass, and what is told of it?

use std::sync::Arc;
use std::time::Instant;

use l7::http::{Allowed, Edit, Fields, HeaderRecord, Request};
use proxy_api::{Application, Facts, Http, Kind, Protocol, Record, Verdict};

use crate::recorder::record;
use crate::redact;
use crate::rules::{self, Rules};
use crate::shared::{Connection, Unknown};

/// What becomes of a request.
pub enum Decision {
    /// It goes on, with these changes of its headers.
    Forward(Vec<Edit>),
    /// It is answered with a denial.
    Deny {
        /// Nothing else can pass on its connection either.
        last: bool,
    },
}

/// A request that was judged, for the record of its answer.
pub struct Judged {
    facts: Facts,
    method: String,
    url: String,
    protocol: &'static str,
    since: Instant,
}

/// What is told of a request: who asks what, and how.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// The request.
    pub request: Request<'a>,
    /// `HTTP/1.1`, ...
    pub protocol: &'static str,
    /// Its headers, for the record.
    pub lines: &'a dyn Lines,
}

/// Headers one after the other.
pub trait Lines {
    /// Calls back with name and value of each.
    fn each_line(&self, found: &mut dyn FnMut(&str, &[u8]));
}

impl Lines for http::HeaderMap {
    fn each_line(&self, found: &mut dyn FnMut(&str, &[u8])) {
        self.iter().for_each(|(name, value)| found(name.as_str(), value.as_bytes()));
    }
}

impl Lines for l7::http1::Head<'_, '_> {
    fn each_line(&self, found: &mut dyn FnMut(&str, &[u8])) {
        self.lines().for_each(|(name, value)| found(name, value));
    }
}

impl Connection {
    /// Judges a request by what holds now, and records it.
    pub fn judge(&self, asked: &Asked) -> (Decision, Option<Judged>) {
        match self.now_http() {
            Ok((facts, rules)) if self.tls.0 && !fits_server_names(&rules, asked.request.authority) => {
                self.shared.counters.requests_denied.add();
                let why = "the host is none of the server names";
                (Decision::Deny { last: false }, self.record(facts, asked, Verdict::Denied, why, &[]))
            }
            Ok((facts, rules)) => match self.allowed(&rules, &asked.request) {
                Some(allowed) => {
                    self.shared.counters.requests_forwarded.add();
                    let judged = self.record(facts, asked, Verdict::Forwarded, "", &allowed.records);
                    (Decision::Forward(allowed.edits), judged)
                }
                None => {
                    self.shared.counters.requests_denied.add();
                    (
                        Decision::Deny { last: false },
                        self.record(facts, asked, Verdict::Denied, "no rule allows it", &[]),
                    )
                }
            },
            Err(unknown) => (Decision::Deny { last: true }, self.unknown(unknown, asked)),
        }
    }

    fn unknown(&self, unknown: Unknown, asked: &Asked) -> Option<Judged> {
        self.shared.counters.requests_denied.add();
        self.record(self.first, asked, Verdict::Denied, unknown.reason(), &[])
    }

    fn allowed(&self, rules: &Arc<Rules>, request: &Request) -> Option<Allowed> {
        let all = || Allowed { rule: 0, edits: Vec::new(), records: Vec::new() };
        match &rules.http {
            rules::Http::All => Some(all()),
            rules::Http::Nothing => None,
            rules::Http::Rules(rules) if self.shared.settings.load().judge_all_meanings => {
                rules.allows_all_meanings(request)
            }
            rules::Http::Rules(rules) => rules.allows(request),
        }
    }

    /// Records a request; what is needed for the answer's record.
    fn record(
        &self,
        facts: Facts,
        asked: &Asked,
        verdict: Verdict,
        info: &str,
        told: &[HeaderRecord],
    ) -> Option<Judged> {
        let settings = self.shared.settings.load();
        if !settings.records {
            return None;
        }
        let redaction = &settings.redaction;
        let judged = Judged {
            facts,
            method: asked.request.method.to_owned(),
            url: redact::url(redaction, asked.request.authority, asked.request.path),
            protocol: asked.protocol,
            since: Instant::now(),
        };
        let mut http = judged.http();
        asked
            .lines
            .each_line(&mut |name, value| http.headers.push((name.to_owned(), redact::header(redaction, name, value))));
        for record in told {
            let (list, name, value) = match record {
                HeaderRecord::Missing(name, value) => (&mut http.missing, name, value),
                HeaderRecord::Rejected(name, value) => (&mut http.rejected, name, value),
            };
            list.push((name.to_string(), redact::header(redaction, name.as_str(), value.as_bytes())));
        }
        self.push(&judged, verdict, Kind::Request, info, http);
        Some(judged)
    }

    /// Records an answer.
    pub fn record_answer(&self, judged: &Judged, code: u16, headers: Option<&dyn Lines>, info: &str) {
        let settings = self.shared.settings.load();
        let mut http = judged.http();
        http.code = Some(code);
        http.latency = u64::try_from(judged.since.elapsed().as_nanos()).ok();
        if let Some(headers) = headers {
            let redaction = &settings.redaction;
            headers.each_line(&mut |name, value| {
                http.headers.push((name.to_owned(), redact::header(redaction, name, value)))
            });
        }
        let verdict = if info.is_empty() { Verdict::Forwarded } else { Verdict::Error };
        self.push(judged, verdict, Kind::Response, info, http);
    }

    /// Records bytes that are no request.
    pub fn record_malformed(&self, info: &str) {
        self.shared.counters.requests_error.add();
        if !self.shared.settings.load().records {
            return;
        }
        let (method, url) = (String::new(), String::new());
        let judged = Judged { facts: self.first, method, url, protocol: "HTTP/1.1", since: Instant::now() };
        self.push(&judged, Verdict::Error, Kind::Request, info, judged.http());
    }

    fn push(&self, judged: &Judged, verdict: Verdict, kind: Kind, info: &str, http: Http) {
        let about = record(&judged.facts, Protocol::Tcp, (self.peer, self.local), Application::Http(http));
        self.shared.recorder.push(Record { verdict, kind, info: info.to_owned(), ..about });
    }
}

impl Judged {
    fn http(&self) -> Http {
        Http {
            method: self.method.clone(),
            url: self.url.clone(),
            protocol: self.protocol.to_owned(),
            ..Http::default()
        }
    }
}

/// Inside TLS a request for another host than the name that was asked for would go round the names that may be asked for.
fn fits_server_names(rules: &Rules, authority: &str) -> bool {
    rules.server_names.as_ref().is_none_or(|names| names.allows(crate::tls::host_of(authority)))
}

/// True if a request is one of gRPC, by its headers.
pub fn is_grpc(headers: &dyn Fields) -> bool {
    let mut grpc = false;
    headers.each(&http::header::CONTENT_TYPE, &mut |value| {
        let rest = value.strip_prefix(b"application/grpc");
        grpc |= rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"+") || rest.starts_with(b";"));
    });
    grpc
}

/// What a client of gRPC is told in place of a code of HTTP (gRPC's "HTTP to gRPC Status Code Mapping").
pub fn grpc_status(code: u16) -> &'static str {
    match code {
        400 => "13",
        401 => "16",
        403 => "7",
        404 => "12",
        429 | 502 | 503 | 504 => "14",
        _ => "2",
    }
}

/// The body of a denial.
pub fn denied_body(message: &str) -> String {
    let end = if message.ends_with("\r\n") { "" } else { "\r\n" };
    format!("{message}{end}")
}

/// The same as a message of gRPC.
pub fn grpc_message(message: &str) -> String {
    let plain = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'%';
    message
        .bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
