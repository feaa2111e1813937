//! What does the proxy ask of traffic that is sent to it, and can two such questions be put together?

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};

/// Which proxy reads the traffic, and as what.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Parser {
    /// TLS without a look inside.
    Tls,
    /// A listener of the user's.
    Crd,
    /// HTTP
    Http,
    /// Kafka
    Kafka,
    /// DNS
    Dns,
}

impl Parser {
    /// As users know it.
    pub fn name(self) -> &'static str {
        match self {
            Parser::Tls => "tls",
            Parser::Crd => "crd",
            Parser::Http => "http",
            Parser::Kafka => "kafka",
            Parser::Dns => "dns",
        }
    }

    /// Which of several proxies gets the traffic: the lowest number. Users can give listeners 1 to 100.
    fn listener_priority(self) -> u8 {
        match self {
            Parser::Http => 101,
            Parser::Kafka => 106,
            Parser::Tls => 116,
            Parser::Dns => 121,
            Parser::Crd => 126,
        }
    }

    /// TLS can turn out to hold HTTP or Kafka; all else must be the same.
    fn merge(self, other: Parser) -> Result<Parser, String> {
        match (self, other) {
            (one, two) if one == two => Ok(one),
            (Parser::Tls, inner @ (Parser::Http | Parser::Kafka))
            | (inner @ (Parser::Http | Parser::Kafka), Parser::Tls) => Ok(inner),
            _ => Err(format!("cannot merge conflicting L7 parsers ({}/{})", self.name(), other.name())),
        }
    }
}

/// What one or several rules ask of the traffic between an endpoint and a selector's peers on a port.
#[derive(Clone, Debug)]
pub struct Redirect {
    /// Who reads the traffic.
    pub parser: Parser,
    /// HTTP, Kafka or DNS rules; `None`: all passes.
    pub rules: Option<crds::L7Rules>,
    /// Names and patterns of names that may not be asked for, whatever the rules say: those that the endpoint's policies
    /// deny on all ports.
    pub denied_names: BTreeSet<String>,
    /// Server names that TLS clients may ask for; none: any.
    pub server_names: BTreeSet<String>,
    /// A listener of the user's, as `namespace/configuration/listener`.
    pub listener: Option<String>,
    /// Its place among proxies: the lowest number gets the traffic.
    pub priority: u8,
    /// TLS that ends at the proxy.
    pub terminating_tls: Option<crds::TlsContext>,
    /// TLS that begins at the proxy.
    pub originating_tls: Option<crds::TlsContext>,
    /// All of this as text: what is equal in it is equal.
    key: String,
}

impl PartialEq for Redirect {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Redirect {}

impl PartialOrd for Redirect {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Redirect {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key.cmp(&other.key)
    }
}

impl Hash for Redirect {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}

impl Redirect {
    /// What a rule asks on its ports. `namespace` is the subject's: listeners of namespaced configurations are in it, and
    /// secrets that name no namespace.
    pub fn new(asked: &crate::rule::L7, protocol: u8, namespace: &str) -> Result<Option<Redirect>, String> {
        let Some(parser) = parser_of(asked, protocol) else { return Ok(None) };
        let (listener, own) = match &asked.listener {
            Some(listener) => (Some(qualified(listener, namespace)?), listener.priority.filter(|number| *number > 0)),
            None => (None, None),
        };
        let own = own.and_then(|number| u8::try_from(number).ok());
        let redirect = Redirect {
            parser,
            rules: asked.rules.clone().map(|rules| rules_in(rules, namespace)),
            denied_names: BTreeSet::new(),
            server_names: asked.server_names.iter().cloned().collect(),
            listener,
            priority: own.unwrap_or(parser.listener_priority()),
            terminating_tls: asked.terminating_tls.clone().map(|tls| tls_in(tls, namespace)),
            originating_tls: asked.originating_tls.clone().map(|tls| tls_in(tls, namespace)),
            key: String::new(),
        };
        Ok(Some(redirect.keyed()))
    }

    /// How strongly it claims traffic, against other proxies (and against 1: no proxy at all).
    pub fn strength(&self) -> u8 {
        255 - self.priority.clamp(1, 126)
    }

    /// True if no request is refused.
    pub fn is_open(&self) -> bool {
        let all = self.rules.as_ref().is_none_or(|rules| rules == &with_wildcard(rules));
        all && self.denied_names.is_empty() && self.server_names.is_empty() && self.listener.is_none()
    }

    /// This and a rule that allows all on the same ports.
    pub fn opened(&self) -> Redirect {
        let rules = self.rules.as_ref().map(with_wildcard);
        Redirect { rules, ..self.clone() }.keyed()
    }

    /// This for an endpoint whose policies deny some names: no question for them is answered.
    pub fn denying(mut self, names: &BTreeSet<String>) -> Redirect {
        if self.parser == Parser::Dns && !names.is_empty() {
            self.denied_names.extend(names.iter().cloned());
            return self.keyed();
        }
        self
    }

    /// What this and another that comes after it ask together of the same peers and ports.
    pub fn merge(&self, other: &Redirect) -> Result<Redirect, String> {
        let parser = self.parser.merge(other.parser)?;
        let (listener, priority) = merge_listener(self, other)?;
        let server_names: BTreeSet<String> = self.server_names.union(&other.server_names).cloned().collect();
        let terminating_tls = merge_tls("terminating", self.terminating_tls.as_ref(), other.terminating_tls.as_ref())?;
        let originating_tls = merge_tls("originating", self.originating_tls.as_ref(), other.originating_tls.as_ref())?;
        let rules = merge_rules(self.rules.as_ref(), other.rules.as_ref());
        // What comes later may bring the rules; what is there may not have them.
        if !server_names.is_empty() && self.rules.is_some() && terminating_tls.is_none() {
            let names: Vec<&str> = server_names.iter().map(String::as_str).collect();
            return Err(format!(
                "cannot merge L7 rules with SNI filtering without TLS termination: {}",
                names.join(", ")
            ));
        }
        let merged = Redirect {
            parser,
            rules,
            denied_names: self.denied_names.union(&other.denied_names).cloned().collect(),
            server_names,
            listener,
            priority,
            terminating_tls,
            originating_tls,
            key: String::new(),
        };
        Ok(merged.keyed())
    }

    fn keyed(mut self) -> Redirect {
        self.key = format!(
            "{} {:?} {:?} {:?} {:?} {} {:?} {:?}",
            self.parser.name(),
            self.rules,
            self.denied_names,
            self.server_names,
            self.listener,
            self.priority,
            self.terminating_tls,
            self.originating_tls
        );
        self
    }
}

fn parser_of(asked: &crate::rule::L7, protocol: u8) -> Option<Parser> {
    if asked.listener.is_some() {
        return Some(Parser::Crd);
    }
    if let Some(rules) = &asked.rules {
        if rules.dns.as_ref().is_some_and(|list| !list.is_empty()) {
            return Some(Parser::Dns);
        }
        let tcp = protocol == crate::rule::protocol::TCP;
        if tcp && rules.http.as_ref().is_some_and(|list| !list.is_empty()) {
            return Some(Parser::Http);
        }
        if tcp && rules.kafka.as_ref().is_some_and(|list| !list.is_empty()) {
            return Some(Parser::Kafka);
        }
    }
    let tls = asked.terminating_tls.is_some() || asked.originating_tls.is_some() || !asked.server_names.is_empty();
    tls.then_some(Parser::Tls)
}

fn qualified(listener: &crds::Listener, namespace: &str) -> Result<String, String> {
    let kind = listener.envoy_config.kind.as_deref().unwrap_or_default();
    let namespace = match kind {
        "CiliumEnvoyConfig" if namespace.is_empty() => {
            return Err(format!("Listener {:?} in CCNP can not use Kind CiliumEnvoyConfig", listener.name));
        }
        "CiliumClusterwideEnvoyConfig" => "",
        _ => namespace,
    };
    Ok(format!("{namespace}/{}/{}", listener.envoy_config.name, listener.name))
}

fn rules_in(mut rules: crds::L7Rules, namespace: &str) -> crds::L7Rules {
    let headers = rules.http.iter_mut().flatten().flat_map(|rule| rule.header_matches.iter_mut().flatten());
    headers.filter_map(|header| header.secret.as_mut()).for_each(|secret| place_in(secret, namespace));
    rules
}

fn tls_in(mut tls: crds::TlsContext, namespace: &str) -> crds::TlsContext {
    place_in(&mut tls.secret, namespace);
    tls
}

fn place_in(secret: &mut crds::SecretRef, namespace: &str) {
    if !namespace.is_empty() && secret.namespace.as_deref().unwrap_or_default().is_empty() {
        secret.namespace = Some(namespace.to_owned());
    }
}

fn merge_listener(one: &Redirect, two: &Redirect) -> Result<(Option<String>, u8), String> {
    let priority = one.priority.min(two.priority);
    match (&one.listener, &two.listener) {
        (Some(first), Some(second)) if first != second => match one.priority.cmp(&two.priority) {
            Ordering::Less => Ok((Some(first.clone()), priority)),
            Ordering::Greater => Ok((Some(second.clone()), priority)),
            Ordering::Equal => Err(format!("cannot merge conflicting listeners ({first}/{second})")),
        },
        (first, second) => Ok((first.clone().or_else(|| second.clone()), priority)),
    }
}

fn merge_tls(
    which: &str,
    one: Option<&crds::TlsContext>,
    two: Option<&crds::TlsContext>,
) -> Result<Option<crds::TlsContext>, String> {
    match (one, two) {
        (Some(first), Some(second)) if first != second => {
            Err(format!("cannot merge conflicting {which} TLS contexts ({}/{})", first.secret.name, second.secret.name))
        }
        (first, second) => Ok(first.or(second).cloned()),
    }
}

/// Rules of both; where one of them has none, it allows all.
fn merge_rules(one: Option<&crds::L7Rules>, two: Option<&crds::L7Rules>) -> Option<crds::L7Rules> {
    match (one, two) {
        (None, None) => None,
        (Some(rules), None) | (None, Some(rules)) => Some(with_wildcard(rules)),
        (Some(first), Some(second)) => Some(crds::L7Rules {
            http: union(first.http.as_deref(), second.http.as_deref()),
            kafka: union(first.kafka.as_deref(), second.kafka.as_deref()),
            dns: union(first.dns.as_deref(), second.dns.as_deref()),
        }),
    }
}

fn union<T: Clone + PartialEq>(one: Option<&[T]>, two: Option<&[T]>) -> Option<Vec<T>> {
    let mut all: Vec<T> = Vec::new();
    for rule in one.into_iter().chain(two).flatten() {
        if !all.contains(rule) {
            all.push(rule.clone());
        }
    }
    (!all.is_empty()).then_some(all)
}

/// The rules and one that allows all.
fn with_wildcard(rules: &crds::L7Rules) -> crds::L7Rules {
    let mut open = rules.clone();
    if let Some(http) = open.http.as_mut().filter(|list| !list.is_empty()) {
        let all = crds::HttpRule::default();
        if !http.contains(&all) {
            http.push(all);
        }
    }
    if let Some(kafka) = open.kafka.as_mut().filter(|list| !list.is_empty()) {
        let all = crds::KafkaRule::default();
        if !kafka.contains(&all) {
            kafka.push(all);
        }
    }
    if let Some(dns) = open.dns.as_mut().filter(|list| !list.is_empty()) {
        let all = crds::DnsRule { match_name: None, match_pattern: Some("*".to_owned()) };
        if !dns.contains(&all) {
            dns.push(all);
        }
    }
    open
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::rule::L7;
    use crate::rule::protocol::TCP;

    fn http(paths: &[&str]) -> L7 {
        let rules = paths.iter().map(|path| crds::HttpRule { path: Some((*path).to_owned()), ..Default::default() });
        L7 { rules: Some(crds::L7Rules { http: Some(rules.collect()), ..Default::default() }), ..L7::default() }
    }

    fn dns(pattern: &str) -> L7 {
        let rule = crds::DnsRule { match_name: None, match_pattern: Some(pattern.to_owned()) };
        L7 { rules: Some(crds::L7Rules { dns: Some(vec![rule]), ..Default::default() }), ..L7::default() }
    }

    fn kafka(topic: &str) -> L7 {
        let rule = crds::KafkaRule { topic: Some(topic.to_owned()), ..Default::default() };
        L7 { rules: Some(crds::L7Rules { kafka: Some(vec![rule]), ..Default::default() }), ..L7::default() }
    }

    fn redirect(asked: &L7) -> Redirect {
        Redirect::new(asked, TCP, "ns").unwrap().unwrap()
    }

    fn names(names: &[&str]) -> L7 {
        L7 { server_names: names.iter().map(|name| (*name).to_owned()).collect(), ..L7::default() }
    }

    #[test]
    fn rules_of_one_kind_add_up_and_of_two_kinds_conflict() {
        let both = redirect(&http(&["/a"])).merge(&redirect(&http(&["/b", "/a"]))).unwrap();
        assert_eq!(both.rules.unwrap().http.unwrap().len(), 2);
        let conflict = redirect(&http(&["/a"])).merge(&redirect(&dns("*"))).unwrap_err();
        assert_eq!(conflict, "cannot merge conflicting L7 parsers (http/dns)");
        let topics = redirect(&kafka("a")).merge(&redirect(&kafka("b"))).unwrap();
        assert_eq!((topics.parser, topics.rules.unwrap().kafka.unwrap().len()), (Parser::Kafka, 2));
        for other in [http(&["/a"]), dns("*")] {
            assert!(redirect(&kafka("a")).merge(&redirect(&other)).unwrap_err().contains("L7 parsers (kafka/"));
        }
    }

    #[test]
    fn server_names_join_but_not_rules_without_termination() {
        let both = redirect(&names(&["a"])).merge(&redirect(&names(&["b"]))).unwrap();
        assert_eq!(both.server_names.len(), 2);
        assert!(redirect(&http(&["/"])).merge(&redirect(&names(&["a"]))).unwrap_err().contains("SNI"));
        // Names that come first get the rules.
        let named = redirect(&names(&["a"])).merge(&redirect(&http(&["/"]))).unwrap();
        assert_eq!((named.server_names.len(), named.rules.unwrap().http.unwrap().len()), (1, 2));
        assert_eq!(redirect(&names(&["a"])).merge(&redirect(&kafka("t"))).unwrap().parser, Parser::Kafka);
    }

    #[test]
    fn http_claims_traffic_before_kafka_tls_dns_and_listeners() {
        let listener = L7 {
            listener: Some(crds::Listener {
                envoy_config: crds::EnvoyConfigRef { kind: None, name: "c".into() },
                name: "l".into(),
                priority: None,
            }),
            ..L7::default()
        };
        let order = [http(&["/"]), kafka("t"), names(&["a"]), dns("*"), listener];
        let strengths: Vec<u8> = order.iter().map(|asked| redirect(asked).strength()).collect();
        assert_eq!(strengths, [154, 149, 139, 134, 129]);
    }

    #[test]
    fn names_that_are_denied_stay_so_whatever_is_allowed() {
        let denied = BTreeSet::from(["evil.example".to_owned()]);
        let one = redirect(&dns("*")).denying(&denied);
        assert!(!one.is_open() && !one.opened().is_open());
        assert_eq!(one.merge(&redirect(&dns("*.a"))).unwrap().denied_names, denied);
        assert_ne!(one, redirect(&dns("*")));
        assert!(redirect(&http(&["/"])).denying(&denied).denied_names.is_empty());
    }

    #[test]
    fn secrets_without_a_namespace_are_the_subject_s() {
        let secret =
            |namespace: Option<&str>| crds::SecretRef { name: "s".into(), namespace: namespace.map(Into::into) };
        let header =
            |namespace| crds::HeaderMatch { name: "X".into(), secret: Some(secret(namespace)), ..Default::default() };
        let matches = vec![header(None), header(Some("other"))];
        let rule = crds::HttpRule { header_matches: Some(matches), ..Default::default() };
        let asked = L7 {
            rules: Some(crds::L7Rules { http: Some(vec![rule]), ..Default::default() }),
            terminating_tls: Some(crds::TlsContext { secret: secret(Some("")), ..Default::default() }),
            originating_tls: Some(crds::TlsContext { secret: secret(Some("other")), ..Default::default() }),
            ..L7::default()
        };
        let redirect = redirect(&asked);
        let headers = redirect.rules.unwrap().http.unwrap().remove(0).header_matches.unwrap();
        let found: Vec<_> = headers.into_iter().map(|header| header.secret.unwrap()).collect();
        assert_eq!(found, [secret(Some("ns")), secret(Some("other"))]);
        assert_eq!(redirect.terminating_tls.unwrap().secret, secret(Some("ns")));
        assert_eq!(redirect.originating_tls.unwrap().secret, secret(Some("other")));
    }

    #[test]
    fn opened_rules_allow_all() {
        assert!(!redirect(&http(&["/"])).is_open());
        assert!(redirect(&http(&["/"])).opened().is_open());
        assert!(!redirect(&kafka("t")).is_open() && redirect(&kafka("t")).opened().is_open());
        assert!(redirect(&dns("*")).is_open());
        assert!(!redirect(&names(&["a"])).is_open());
    }
}
