//! May this HTTP request pass?
//!
//! A request passes if all that some rule asks holds (`cilium.io/v2`, PortRuleHTTP). Method, path and host are regular
//! expressions over the whole; the path is what the client asked for, the query included, as Envoy's `:path` has it.
//! Several values of one header are one value, joined by commas (RFC 9110, 5.2).

mod header;

pub use header::{Edit, HeaderRecord};

use crate::re2::{Matching, PatternError, PatternSet};
use header::Header;

/// What is asked for, as far as rules look at it.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The method.
    pub method: &'a str,
    /// The path with the query.
    pub path: &'a str,
    /// Whom it is for: `:authority`, or the header `Host`.
    pub authority: &'a str,
    /// All headers.
    pub headers: &'a dyn Fields,
}

/// Headers, however they are kept.
pub trait Fields {
    /// Calls back with each value of a header, in their order.
    fn each(&self, name: &http::HeaderName, found: &mut dyn FnMut(&[u8]));
}

impl Fields for http::HeaderMap {
    fn each(&self, name: &http::HeaderName, found: &mut dyn FnMut(&[u8])) {
        self.get_all(name).iter().for_each(|value| found(value.as_bytes()));
    }
}

/// A request that some rule allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowed {
    /// The place of the first rule that does.
    pub rule: usize,
    /// What happens to the request's headers before it goes on, in this order.
    pub edits: Vec<Edit>,
    /// What is to be told of headers that were not as the rule has them.
    pub records: Vec<HeaderRecord>,
}

/// The rules of one port for one peer; any of them allows.
#[derive(Debug, Clone, Default)]
pub struct HttpRules {
    rules: Vec<Rule>,
    methods: PatternSet,
    paths: PatternSet,
    hosts: PatternSet,
}

/// What one rule asks; places in the sets of patterns.
#[derive(Debug, Clone)]
struct Rule {
    method: Option<usize>,
    path: Option<usize>,
    host: Option<usize>,
    headers: Vec<Header>,
}

/// Values of secrets by their references; `None`: there is no such value now.
pub trait Secrets {
    /// The value that headers are compared with.
    fn header_value(&self, secret: &crds::SecretRef) -> Option<Vec<u8>>;
}

impl HttpRules {
    /// Compiles these rules. One with a bad pattern, or with a secret that has no value, allows nothing.
    pub fn new(rules: &[crds::HttpRule], secrets: &dyn Secrets) -> (HttpRules, Vec<PatternError>) {
        let (mut methods, mut paths, mut hosts) = (Vec::new(), Vec::new(), Vec::new());
        let rules = rules
            .iter()
            .map(|rule| Rule {
                method: place(&mut methods, rule.method.as_deref()),
                path: place(&mut paths, rule.path.as_deref()),
                host: place(&mut hosts, rule.host.as_deref()),
                headers: header::read(rule, secrets),
            })
            .collect();
        let sets = [PatternSet::new(methods), PatternSet::new(paths), PatternSet::new(hosts)];
        let [(methods, bad_methods), (paths, bad_paths), (hosts, bad_hosts)] = sets;
        let problems = [bad_methods, bad_paths, bad_hosts].concat();
        (HttpRules { rules, methods, paths, hosts }, problems)
    }

    /// As [`allows`](Self::allows), but only if all that the path may mean to a server is allowed too.
    pub fn allows_all_meanings(&self, request: &Request) -> Option<Allowed> {
        let allowed = self.allows(request)?;
        let all = crate::meanings::others(request.path);
        all.iter().all(|path| self.allows(&Request { path, ..*request }).is_some()).then_some(allowed)
    }

    /// The first rule that allows it. No rules at all allow everything.
    pub fn allows(&self, request: &Request) -> Option<Allowed> {
        if self.rules.is_empty() {
            return Some(Allowed { rule: 0, edits: Vec::new(), records: Vec::new() });
        }
        let paths = self.paths.matches(request.path.as_bytes());
        let methods = self.methods.matches(request.method.as_bytes());
        let hosts = self.hosts.matches(request.authority.as_bytes());
        let holds = |asked: Option<usize>, found: &Matching| asked.is_none_or(|place| found.has(place));
        self.rules.iter().enumerate().find_map(|(number, rule)| {
            let line = holds(rule.path, &paths) && holds(rule.method, &methods) && holds(rule.host, &hosts);
            line.then(|| rule.headers_allow(number, request.headers)).flatten()
        })
    }
}

impl Rule {
    fn headers_allow(&self, rule: usize, headers: &dyn Fields) -> Option<Allowed> {
        let mut allowed = Allowed { rule, edits: Vec::new(), records: Vec::new() };
        self.headers.iter().all(|header| header.allows(headers, &mut allowed)).then_some(allowed)
    }
}

/// The place of a pattern among distinct ones. An empty one asks nothing.
fn place(patterns: &mut Vec<String>, pattern: Option<&str>) -> Option<usize> {
    let pattern = pattern.filter(|pattern| !pattern.is_empty())?;
    Some(patterns.iter().position(|known| known == pattern).unwrap_or_else(|| {
        patterns.push(pattern.to_owned());
        patterns.len() - 1
    }))
}

#[cfg(test)]
mod tests;
