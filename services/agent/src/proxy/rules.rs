//! What is the proxy told of a rule set of the policy language?

use policy::Redirect;
use proxy_api::{Hidden, Parser, RuleSet};

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

/// The rules of a set that redirects; `None`: it does not. What cannot be honoured yet refuses everything, and says why.
pub fn rule_set(set: &policy::RuleSet) -> Option<RuleSet> {
    let (first, rest) = set.redirects.split_first()?;
    let mut merged = Ok(Redirect::clone(first));
    for other in rest {
        merged = merged.and_then(|one| one.merge(other));
    }
    Some(match merged {
        Ok(redirect) => translated(set.id, &redirect),
        Err(why) => RuleSet { broken: Some(why), ..RuleSet::open(set.id, parser(first)) },
    })
}

fn parser(redirect: &Redirect) -> Parser {
    match redirect.parser {
        policy::Parser::Http => Parser::Http,
        policy::Parser::Dns => Parser::Dns,
        policy::Parser::Tls => Parser::Tls,
        policy::Parser::Crd => Parser::Tcp,
    }
}

fn translated(id: u32, redirect: &Redirect) -> RuleSet {
    let rules = redirect.rules.clone().unwrap_or_default();
    let tls = redirect.terminating_tls.is_some() || redirect.originating_tls.is_some();
    let broken = match (&redirect.listener, tls) {
        (Some(listener), _) => Some(format!("listener {listener} is not one that this proxy has")),
        (None, true) => Some("TLS secrets are not read by this agent".to_owned()),
        (None, false) => None,
    };
    RuleSet {
        http: rules.http.map(without_secrets).map(Hidden),
        dns: rules.dns,
        denied_names: redirect.denied_names.iter().cloned().collect(),
        server_names: redirect.server_names.iter().cloned().collect(),
        broken,
        ..RuleSet::open(id, parser(redirect))
    }
}

/// A value that a secret would have given is nobody's: such a rule allows nothing.
fn without_secrets(mut rules: Vec<crds::HttpRule>) -> Vec<crds::HttpRule> {
    let matches = rules.iter_mut().flat_map(|rule| rule.header_matches.iter_mut().flatten());
    matches.filter(|one| one.secret.is_some()).for_each(|one| one.value = None);
    rules
}
