//! Which requests pass the proxies of both ends before a change and not after it, or the other way round?

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use policy::{Parser, Redirect};
use serde::Serialize;

use crate::language::{Found, Language, find};
use crate::suggest::escaped;

/// A request at the application's level.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Request {
    /// Of HTTP.
    Http {
        /// The method.
        method: String,
        /// The path with the query.
        path: String,
        /// Whom it is for.
        host: String,
        /// Headers, as `Name` or `Name: value`.
        headers: Vec<String>,
    },
    /// To a Kafka broker.
    Kafka {
        /// Its kind.
        kind: String,
        /// A topic that it names.
        topic: String,
        /// How the client calls itself.
        client: String,
    },
    /// A DNS name that is asked for.
    Dns(String),
    /// A server name in TLS.
    Tls(String),
    /// What is no request of the protocol that the proxy reads.
    Other(&'static str),
}

/// Requests that one side lets pass and the other does not.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Beyond {
    /// There is none.
    Nothing,
    /// This one.
    Request(Request),
    /// It could not be told.
    Unknown,
}

/// What both ends' proxies ask; an end without one lets all pass.
pub type Ends<'a> = [Option<&'a [Arc<Redirect>]>; 2];

/// So many searches at most for one question.
const MOST: usize = 4000;

/// One rule: what each part of a request has to match.
#[derive(Clone, Default)]
struct Asked {
    parts: [Option<Language>; 3],
    headers: BTreeSet<String>,
}

/// What one end lets pass.
enum Passing {
    Everything,
    /// Requests of a protocol.
    Some(Parser, Vec<Asked>),
    /// What only the proxy's own configuration says.
    Unclear,
}

/// Compiles patterns once.
#[derive(Default)]
pub struct Requests {
    patterns: HashMap<(bool, String), Option<Language>>,
}

impl Requests {
    /// What passes by `these` and not by `others`. Either have both ends' redirects; none: all passes.
    pub fn beyond(&mut self, these: Ends<'_>, others: Ends<'_>) -> Beyond {
        if same(these, others) {
            return Beyond::Nothing;
        }
        let these: Vec<Passing> = these.into_iter().map(|end| self.passing(end)).collect();
        let others: Vec<Passing> = others.into_iter().map(|end| self.passing(end)).collect();
        if these.iter().chain(&others).any(|end| matches!(end, Passing::Unclear)) {
            return Beyond::Unknown;
        }
        let parsers: BTreeSet<Parser> = these.iter().chain(&others).filter_map(Passing::parser).collect();
        let Some(parser) = parsers.first().copied().filter(|_| parsers.len() == 1) else { return Beyond::Unknown };
        let anything = these.iter().all(|end| matches!(end, Passing::Everything));
        let rules: Vec<Vec<Asked>> = these.into_iter().map(Passing::rules).collect();
        let limits = self.wellformed(parser);
        let mut search = Search { left: MOST, unknown: false };
        for one in &rules[0] {
            for two in &rules[1] {
                for other in others.iter().filter_map(Passing::some) {
                    let musts = [&limits, one, two];
                    if let Some(parts) = search.outside(&musts, other, Vec::new()) {
                        let headers = one.headers.union(&two.headers).cloned().collect();
                        return Beyond::Request(request(parser, parts, headers));
                    }
                }
            }
        }
        match (search.unknown, anything) {
            (true, _) => Beyond::Unknown,
            // A proxy that refuses no request still refuses what is none.
            (false, true) => Beyond::Request(Request::Other(parser.name())),
            (false, false) => Beyond::Nothing,
        }
    }

    fn passing(&mut self, end: Option<&[Arc<Redirect>]>) -> Passing {
        let redirects = match end {
            None | Some([]) => return Passing::Everything,
            Some(redirects) => redirects,
        };
        let parser = redirects[0].parser;
        let mut all = Vec::new();
        for redirect in redirects {
            let unclear = redirect.listener.is_some()
                || redirect.terminating_tls.is_some()
                || redirect.originating_tls.is_some()
                || redirect.parser != parser;
            let rules = if unclear { None } else { self.rules(redirect) };
            let Some(rules) = rules else { return Passing::Unclear };
            all.extend(rules);
        }
        Passing::Some(parser, all)
    }

    fn rules(&mut self, redirect: &Redirect) -> Option<Vec<Asked>> {
        if redirect.is_open() {
            return Some(vec![Asked::default()]);
        }
        let rules = redirect.rules.clone().unwrap_or_default();
        match redirect.parser {
            Parser::Tls => redirect.server_names.iter().map(|name| self.name(&name.to_ascii_lowercase())).collect(),
            // That some names are denied all the same is no list of what may be asked for.
            Parser::Dns if !redirect.denied_names.is_empty() => None,
            Parser::Dns => {
                let names = rules.dns.into_iter().flatten();
                let names = names.filter_map(|rule| rule.match_name.or(rule.match_pattern));
                names.map(|name| self.name(&policy::canonical_name(&name))).collect()
            }
            Parser::Http if !redirect.server_names.is_empty() => None,
            Parser::Http => rules.http.into_iter().flatten().map(|rule| self.http(&rule)).collect(),
            Parser::Kafka if !redirect.server_names.is_empty() => None,
            Parser::Kafka => {
                let rules = rules.kafka.into_iter().flatten().map(|rule| self.kafka(&rule));
                rules.collect::<Option<Vec<_>>>().map(|rules| rules.concat())
            }
            Parser::Crd => None,
        }
    }

    fn http(&mut self, rule: &crds::HttpRule) -> Option<Asked> {
        let mut asked = Asked::default();
        for (part, pattern) in [&rule.method, &rule.path, &rule.host].into_iter().enumerate() {
            if let Some(pattern) = pattern.as_ref().filter(|pattern| !pattern.is_empty()) {
                asked.parts[part] = Some(self.compiled(false, pattern)?);
            }
        }
        asked.headers.extend(rule.headers.iter().flatten().cloned());
        for header in rule.header_matches.iter().flatten() {
            // What changes headers, or compares them with secrets, is not told by the rules alone.
            if header.mismatch.is_some() || header.secret.is_some() {
                return None;
            }
            asked.headers.insert(match &header.value {
                Some(value) => format!("{}: {value}", header.name),
                None => header.name.clone(),
            });
        }
        Some(asked)
    }

    /// Kind, topic, client. For kinds without topics a rule's topic asks nothing.
    fn kafka(&mut self, rule: &crds::KafkaRule) -> Option<Vec<Asked>> {
        // Versions would be a fourth part.
        if rule.api_version.as_ref().is_some_and(|version| !version.is_empty()) {
            return None;
        }
        let kinds = l7::kafka::Rule::new(rule).ok()?;
        let kinds: Vec<&l7::kafka::Api> = l7::kafka::all().iter().filter(|api| kinds.allows_kind(api)).collect();
        let (with, without): (Vec<_>, Vec<_>) = kinds.into_iter().partition(|api| api.has_topics());
        let given = |text: &Option<String>| text.as_ref().filter(|text| !text.is_empty()).cloned();
        let literal = |text: String| escaped(&text);
        let client = given(&rule.client_id).map(literal);
        let mut all = Vec::new();
        for (kinds, topic) in [(with, given(&rule.topic).map(literal)), (without, None)] {
            if kinds.is_empty() {
                continue;
            }
            let names = kinds.iter().map(|api| api.name).collect::<Vec<_>>().join("|");
            let mut asked = Asked::default();
            for (part, pattern) in [Some(names), topic, client.clone()].into_iter().enumerate() {
                asked.parts[part] =
                    pattern.map(|pattern| self.compiled(false, &pattern)).map_or(Some(None), |one| one.map(Some))?;
            }
            all.push(asked);
        }
        Some(all)
    }

    fn name(&mut self, pattern: &str) -> Option<Asked> {
        Some(Asked { parts: [Some(self.compiled(true, pattern)?), None, None], ..Asked::default() })
    }

    fn compiled(&mut self, names: bool, pattern: &str) -> Option<Language> {
        let make = || if names { Language::of_names(pattern) } else { Language::of_pattern(pattern) };
        self.patterns.entry((names, pattern.to_owned())).or_insert_with(make).clone()
    }

    /// What a request can look like at all.
    fn wellformed(&mut self, parser: Parser) -> Asked {
        let patterns = match parser {
            Parser::Http => ["[-!#$%&'*+.^_`|~0-9A-Za-z]+", "/[^\\x00-\\x20\\x7f]*|\\*", "[^\\x00-\\x20\\x7f]*"],
            Parser::Kafka => ["[a-z]+", "[-._a-zA-Z0-9]+", ".*"],
            Parser::Dns | Parser::Tls | Parser::Crd => ["[-_a-z0-9]+(\\.[-_a-z0-9]+)*", "", ""],
        };
        Asked { parts: patterns.map(|pattern| self.compiled(false, pattern)), ..Asked::default() }
    }
}

/// True if the same is asked at each end, in whatever order.
fn same(these: Ends<'_>, others: Ends<'_>) -> bool {
    let set = |end: Option<&[Arc<Redirect>]>| end.unwrap_or_default().iter().cloned().collect::<BTreeSet<_>>();
    these.into_iter().zip(others).all(|(one, other)| set(one) == set(other))
}

impl Passing {
    fn parser(&self) -> Option<Parser> {
        match self {
            Passing::Some(parser, _) => Some(*parser),
            Passing::Everything | Passing::Unclear => None,
        }
    }

    fn some(&self) -> Option<&[Asked]> {
        match self {
            Passing::Some(_, rules) => Some(rules),
            Passing::Everything | Passing::Unclear => None,
        }
    }

    fn rules(self) -> Vec<Asked> {
        match self {
            Passing::Some(_, rules) => rules,
            Passing::Everything | Passing::Unclear => vec![Asked::default()],
        }
    }
}

/// A search for a request, with what it may still cost.
struct Search {
    left: usize,
    unknown: bool,
}

impl Search {
    /// Parts of a request that fits the first and none of the others: of each of these some part must not fit.
    fn outside(&mut self, musts: &[&Asked; 3], others: &[Asked], not: Vec<(usize, Language)>) -> Option<[String; 3]> {
        let parts = self.example(musts, &not)?;
        let Some((first, rest)) = others.split_first() else { return Some(parts) };
        let has = |header: &String| musts.iter().any(|must| must.headers.iter().any(|one| implies(one, header)));
        if !first.headers.iter().all(has) {
            // Without a header that only the other asks for, it does not fit.
            return self.outside(musts, rest, not);
        }
        for (part, language) in first.parts.iter().enumerate() {
            let Some(language) = language else { continue };
            let mut more = not.clone();
            more.push((part, language.clone()));
            if let Some(found) = self.outside(musts, rest, more) {
                return Some(found);
            }
        }
        None
    }

    fn example(&mut self, musts: &[&Asked; 3], not: &[(usize, Language)]) -> Option<[String; 3]> {
        let mut texts = [String::new(), String::new(), String::new()];
        for (part, text) in texts.iter_mut().enumerate() {
            let must: Vec<&Language> = musts.iter().filter_map(|asked| asked.parts[part].as_ref()).collect();
            let not: Vec<&Language> = not.iter().filter(|(of, _)| *of == part).map(|(_, one)| one).collect();
            if self.left == 0 {
                self.unknown = true;
                return None;
            }
            self.left -= 1;
            match find(&must, &not) {
                Found::Text(found) => *text = found,
                Found::Nothing => return None,
                Found::TooLarge => {
                    self.unknown = true;
                    return None;
                }
            }
        }
        Some(texts)
    }
}

/// A header with a value is there.
fn implies(one: &str, other: &str) -> bool {
    let name = |text: &str| text.split([':', ' ']).next().unwrap_or_default().to_ascii_lowercase();
    one == other || !other.contains([':', ' ']) && name(one) == name(other)
}

fn request(parser: Parser, parts: [String; 3], headers: Vec<String>) -> Request {
    let [first, path, host] = parts;
    match parser {
        Parser::Http => Request::Http { method: first, path, host, headers },
        Parser::Kafka => Request::Kafka { kind: first, topic: path, client: host },
        Parser::Dns => Request::Dns(first),
        Parser::Tls | Parser::Crd => Request::Tls(first),
    }
}

/// `GET /x of host`, `name a.b`.
impl std::fmt::Display for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Request::Http { method, path, host, headers } => {
                write!(f, "{method} {path}")?;
                if !host.is_empty() {
                    write!(f, " of {host}")?;
                }
                headers.iter().try_for_each(|header| write!(f, " with {header}"))
            }
            Request::Kafka { kind, topic, client } => {
                write!(f, "{kind} of topic {topic}")?;
                if client.is_empty() { Ok(()) } else { write!(f, " by client {client}") }
            }
            Request::Dns(name) => write!(f, "name {name}"),
            Request::Tls(name) => write!(f, "server name {name}"),
            Request::Other(parser) => write!(f, "what is not {}", parser.to_ascii_uppercase()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn http(rules: &[(&str, &str)]) -> Vec<Arc<Redirect>> {
        let rule = |(method, path): &(&str, &str)| crds::HttpRule {
            method: Some((*method).to_owned()),
            path: Some((*path).to_owned()),
            ..crds::HttpRule::default()
        };
        let rules = crds::L7Rules { http: Some(rules.iter().map(rule).collect()), ..Default::default() };
        let asked = policy::L7 { rules: Some(rules), ..policy::L7::default() };
        vec![Arc::new(Redirect::new(&asked, 6, "a").unwrap().unwrap())]
    }

    fn beyond(one: &[(&str, &str)], two: &[(&str, &str)]) -> Beyond {
        let (one, two) = (http(one), http(two));
        Requests::default().beyond([None, Some(&one)], [None, Some(&two)])
    }

    fn get(path: &str) -> Beyond {
        let (method, path) = ("GET".to_owned(), path.to_owned());
        Beyond::Request(Request::Http { method, path, host: String::new(), headers: Vec::new() })
    }

    #[test]
    fn a_request_shows_that_more_passes() {
        assert_eq!(beyond(&[("GET", "/a")], &[("GET", "/a|/b")]), Beyond::Nothing);
        assert_eq!(beyond(&[("GET", "/a|/b")], &[("GET", "/a")]), get("/b"));
        assert_eq!(beyond(&[("GET|PUT", "/a")], &[("PUT", "/a")]), get("/a"));
    }

    #[test]
    fn several_rules_can_cover_one_together() {
        assert_eq!(beyond(&[("GET|PUT", "/a|/b")], &[("GET", "/.*"), ("PUT", "/[ab]")]), Beyond::Nothing);
        assert_eq!(beyond(&[("GET|PUT", "/a|/b")], &[("GET", "/a"), ("PUT", "/[ab]")]), get("/b"));
        assert_eq!(beyond(&[("GET", "/a*")], &[("GET", "/(aa)*"), ("GET", "/a(aa)*")]), Beyond::Nothing);
    }

    #[test]
    fn a_proxy_keeps_out_what_a_plain_port_lets_pass() {
        let rules = http(&[("GET", "/a")]);
        let mut requests = Requests::default();
        assert!(matches!(requests.beyond([None, None], [None, Some(&rules)]), Beyond::Request(Request::Http { .. })));
        assert_eq!(requests.beyond([None, Some(&rules)], [None, None]), Beyond::Nothing);
        let open = vec![Arc::new(rules[0].opened())];
        assert_eq!(requests.beyond([None, None], [None, Some(&open)]), Beyond::Request(Request::Other("http")));
    }

    #[test]
    fn topics_of_kafka_are_told_apart() {
        let kafka = |rules: &str| {
            let kafka = Some(serde_json::from_str(rules).unwrap());
            let asked = policy::L7 { rules: Some(crds::L7Rules { kafka, ..Default::default() }), ..Default::default() };
            vec![Arc::new(Redirect::new(&asked, 6, "a").unwrap().unwrap())]
        };
        let beyond = |one: &str, two: &str| {
            let (one, two) = (kafka(one), kafka(two));
            Requests::default().beyond([None, Some(&one)], [None, Some(&two)])
        };
        let (role, kinds) = (
            r#"[{"role": "produce", "topic": "a.b"}]"#,
            r#"[{"apiKey": "produce", "topic": "a.b"}, {"apiKey": "metadata", "topic": "a.b"}, {"apiKey": "ApiVersions"}]"#,
        );
        assert_eq!((beyond(role, kinds), beyond(kinds, role)), (Beyond::Nothing, Beyond::Nothing));
        let found = beyond(r#"[{"role": "produce", "topic": "a.c"}]"#, role);
        assert!(matches!(found, Beyond::Request(Request::Kafka { topic, .. }) if topic == "a.c"));
        assert_eq!(
            beyond(r#"[{"apiKey": "heartbeat", "topic": "c"}]"#, r#"[{"apiKey": "heartbeat"}]"#),
            Beyond::Nothing
        );
        assert!(matches!(beyond("[{}]", role), Beyond::Request(Request::Kafka { .. })));
        assert_eq!(beyond(role, r#"[{"apiVersion": "1"}]"#), Beyond::Unknown);
        let found = beyond(role, r#"[{"role": "produce", "topic": "a.b", "clientID": "y"}]"#);
        assert!(matches!(found, Beyond::Request(Request::Kafka { client, .. }) if client != "y"));
    }

    #[test]
    fn both_ends_must_let_it_pass() {
        let (a, b, both) = (http(&[("GET", "/a|/c")]), http(&[("GET", "/b|/c")]), http(&[("GET", "/c")]));
        let mut requests = Requests::default();
        assert_eq!(requests.beyond([Some(&a), Some(&b)], [None, Some(&both)]), Beyond::Nothing);
        assert_eq!(requests.beyond([None, Some(&b)], [Some(&a), Some(&b)]), get("/b"));
    }
}
