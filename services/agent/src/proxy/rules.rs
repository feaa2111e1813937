//! What is the proxy told of a rule set of the policy language?

use std::collections::BTreeSet;

use policy::Redirect;
use proxy_api::{Hidden, Parser, RuleSet};

use super::secrets::{Reference, Secrets};

/// The name of a way of reading, as metrics have it.
pub fn name(parser: Parser) -> &'static str {
    match parser {
        Parser::Http => "http",
        Parser::Dns => "dns",
        Parser::Tls => "tls",
        Parser::Kafka => "kafka",
        Parser::Tcp => "tcp",
    }
}

/// What a rule set asks of the proxy. Secrets are named, and not yet read.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    rules: RuleSet,
    terminating: Option<crds::TlsContext>,
    originating: Option<crds::TlsContext>,
    secrets: BTreeSet<Reference>,
}

impl Asked {
    /// The rules of a set that redirects; `None`: it does not. What cannot be honoured refuses everything, and says why.
    pub fn of(set: &policy::RuleSet) -> Option<Asked> {
        let (first, rest) = set.redirects.split_first()?;
        let mut merged = Ok(Redirect::clone(first));
        for other in rest {
            merged = merged.and_then(|one| one.merge(other));
        }
        Some(match merged {
            Ok(redirect) => asked(set.id, redirect),
            Err(why) => RuleSet { broken: Some(why), ..RuleSet::open(set.id, parser(first)) }.into(),
        })
    }

    /// How the proxy reads what is said.
    pub fn parser(&self) -> Parser {
        self.rules.parser
    }

    /// The Secrets that it names.
    pub fn secrets(&self) -> &BTreeSet<Reference> {
        &self.secrets
    }

    fn new(rules: RuleSet, terminating: Option<crds::TlsContext>, originating: Option<crds::TlsContext>) -> Asked {
        let headers = rules.http.iter().flat_map(|rules| &rules.0);
        let headers = headers.flat_map(|rule| rule.header_matches.iter().flatten()).filter_map(|h| h.secret.as_ref());
        let contexts = [&terminating, &originating].into_iter().flatten().map(|context| &context.secret);
        let secrets = headers.chain(contexts).map(Reference::of).collect();
        Asked { rules, terminating, originating, secrets }
    }

    /// With what its Secrets hold. What a rule misses allows nothing, and is said; TLS that cannot be spoken refuses all.
    pub fn with(&self, secrets: Secrets<'_>) -> (RuleSet, BTreeSet<String>) {
        let (mut rules, mut missing) = (self.rules.clone(), BTreeSet::new());
        let headers = rules.http.iter_mut().flat_map(|rules| &mut rules.0);
        for header in headers.flat_map(|rule| rule.header_matches.iter_mut().flatten()) {
            let Some(secret) = &header.secret else { continue };
            match secrets.header_value(secret) {
                Ok(value) => header.value = Some(value.0),
                // A value beside the secret holds while there is no secret. Without one the rule allows nothing.
                Err(why) => {
                    missing.insert(why);
                }
            }
        }
        let mut refuse = |why: String| {
            rules.broken.get_or_insert_with(|| why.clone());
            missing.insert(why);
        };
        match self.terminating.as_ref().map(|context| secrets.server(context)).transpose() {
            Ok(server) => rules.terminating_tls = server,
            Err(why) => refuse(format!("terminatingTLS: {why}")),
        }
        match self.originating.as_ref().map(|context| secrets.client(context)).transpose() {
            Ok(client) => rules.originating_tls = client,
            Err(why) => refuse(format!("originatingTLS: {why}")),
        }
        (rules, missing)
    }
}

impl From<RuleSet> for Asked {
    fn from(rules: RuleSet) -> Asked {
        Asked::new(rules, None, None)
    }
}

fn parser(redirect: &Redirect) -> Parser {
    match redirect.parser {
        policy::Parser::Http => Parser::Http,
        policy::Parser::Kafka => Parser::Kafka,
        policy::Parser::Dns => Parser::Dns,
        policy::Parser::Tls => Parser::Tls,
        policy::Parser::Crd => Parser::Tcp,
    }
}

fn asked(id: u32, redirect: Redirect) -> Asked {
    let parser = parser(&redirect);
    let broken = redirect.listener.map(|listener| format!("listener {listener} is not one that this proxy has"));
    let rules = redirect.rules.unwrap_or_default();
    let rules = RuleSet {
        http: rules.http.map(Hidden),
        kafka: rules.kafka,
        dns: rules.dns,
        denied_names: redirect.denied_names.into_iter().collect(),
        server_names: redirect.server_names.into_iter().collect(),
        broken,
        ..RuleSet::open(id, parser)
    };
    Asked::new(rules, redirect.terminating_tls, redirect.originating_tls)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::secrets::Known;
    use super::super::secrets::fixtures::{MARKER, known, secret};
    use super::*;

    fn header(value: Option<&str>) -> Asked {
        let header = crds::HeaderMatch {
            name: "X-Token".into(),
            value: value.map(Into::into),
            secret: Some(secret("token")),
            mismatch: None,
        };
        let rule = crds::HttpRule { header_matches: Some(vec![header]), ..Default::default() };
        RuleSet { http: Some(Hidden(vec![rule])), ..RuleSet::open(1, Parser::Http) }.into()
    }

    fn value(rules: &RuleSet) -> Option<&str> {
        let rules = &rules.http.as_ref().unwrap().0;
        rules[0].header_matches.as_ref().unwrap()[0].value.as_deref()
    }

    #[test]
    fn a_header_s_secret_takes_its_place_and_leaves_a_rule_that_allows_nothing_if_it_goes() {
        let (here, none) = (known("token", &[("t", MARKER.as_bytes())]), Known::new());
        let asked = header(None);
        assert_eq!(*asked.secrets(), BTreeSet::from([Reference::of(&secret("token"))]));
        let (rules, missing) = asked.with(Secrets { known: &here, full: false });
        assert_eq!((value(&rules), missing.len()), (Some(MARKER), 0));
        let (rules, missing) = asked.with(Secrets { known: &none, full: false });
        assert_eq!((value(&rules), missing.len()), (None, 1));
        assert!(rules.broken.is_none(), "other rules of the list go on");
        let (rules, _) = header(Some("usual")).with(Secrets { known: &none, full: false });
        assert_eq!(value(&rules), Some("usual"), "as Cilium has it");
    }

    #[test]
    fn tls_without_its_secret_refuses_all_and_says_which() {
        let context = Some(crds::TlsContext { secret: secret("tls"), ..Default::default() });
        let asked = Asked::new(RuleSet::open(1, Parser::Http), context, None);
        let (rules, missing) = asked.with(Secrets { known: &Known::new(), full: false });
        assert_eq!(rules.broken.as_deref(), Some("terminatingTLS: Secret ns/tls: not read yet"));
        assert_eq!(missing.len(), 1);
        let here = known("tls", &[("tls.crt", b"C"), ("tls.key", MARKER.as_bytes())]);
        let (rules, missing) = asked.with(Secrets { known: &here, full: false });
        assert!(rules.broken.is_none() && missing.is_empty());
        assert_eq!(rules.terminating_tls.unwrap().key.0, MARKER);
    }

    #[test]
    fn a43_what_secrets_hold_is_in_no_debug_output() {
        let mut here = known("token", &[("t", MARKER.as_bytes())]);
        here.extend(known("tls", &[("tls.crt", b"C"), ("tls.key", MARKER.as_bytes()), ("ca.crt", b"T")]));
        let context = Some(crds::TlsContext { secret: secret("tls"), ..Default::default() });
        let asked = Asked::new(header(None).rules, context.clone(), context);
        for full in [false, true] {
            let (rules, missing) = asked.with(Secrets { known: &here, full });
            let shown = format!("{asked:?} {rules:?} {missing:?} {here:?}");
            assert!(!shown.contains(MARKER) && !shown.contains("104, 117, 110, 116, 101, 114, 50"), "{shown}");
        }
    }
}
