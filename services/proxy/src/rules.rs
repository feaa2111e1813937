//! What may be said on a connection, as the agent last said?

use std::collections::HashMap;
use std::sync::Arc;

use l7::dns::Patterns;
use l7::http::{HttpRules, Secrets};
use l7::tls::ServerNames;
use proxy_api::{Parser, RuleSet, RulesUpdate};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::contexts;

/// All rule sets. One table is in force at a time, and is exchanged as a whole.
#[derive(Debug, Default)]
pub struct Table {
    /// Revision of the last change; `None`: no rules came yet.
    pub revision: Option<u64>,
    sets: HashMap<u32, Arc<Rules>>,
}

/// A rule set, ready to judge.
pub struct Rules {
    /// How it reads.
    pub parser: Parser,
    /// Which requests pass.
    pub http: Http,
    /// Which requests to Kafka brokers pass; `None`: all.
    pub kafka: Option<l7::kafka::Rules>,
    /// Which names may be asked for; `None`: any.
    pub names: Option<Patterns>,
    /// Names that may not be asked for all the same.
    pub denied_names: Patterns,
    /// Which server names; `None`: any, and none.
    pub server_names: Option<ServerNames>,
    /// TLS that ends here.
    pub terminate: Option<TlsAcceptor>,
    /// TLS that begins here.
    pub originate: Option<TlsConnector>,
    /// Why nothing passes, if so.
    pub broken: Option<String>,
    source: RuleSet,
}

/// Which requests pass.
#[derive(Debug)]
pub enum Http {
    /// All.
    All,
    /// None.
    Nothing,
    /// Those that a rule allows.
    Rules(HttpRules),
}

// Contexts have keys.
impl std::fmt::Debug for Rules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.source.fmt(f)
    }
}

impl Table {
    /// The rules of this number.
    pub fn get(&self, id: u32) -> Option<&Arc<Rules>> {
        self.sets.get(&id)
    }

    /// How many rule sets there are.
    pub fn len(&self) -> usize {
        self.sets.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }

    /// This table with a change. What stays the same is not compiled again.
    pub fn with(&self, update: RulesUpdate) -> Table {
        let mut sets = if update.whole { HashMap::new() } else { self.sets.clone() };
        for id in &update.removed {
            sets.remove(id);
        }
        for set in update.set {
            let id = set.id;
            let known = self.sets.get(&id).filter(|rules| rules.source == set).cloned();
            sets.insert(id, known.unwrap_or_else(|| Arc::new(Rules::new(set))));
        }
        Table { revision: Some(update.revision), sets }
    }
}

/// The agent has put the values of secrets where rules have values of their own.
struct Resolved;

impl Secrets for Resolved {
    fn header_value(&self, _: &crds::SecretRef) -> Option<Vec<u8>> {
        None
    }
}

impl Rules {
    /// True if this name, in canonical form, may be asked for.
    pub fn allow_name(&self, name: &str) -> bool {
        let allowed = self.names.as_ref().is_none_or(|names| names.allow(name));
        self.broken.is_none() && allowed && !self.denied_names.allow(name)
    }

    /// Compiles a rule set. What is wrong with it allows nothing, and is said.
    pub fn new(set: RuleSet) -> Rules {
        let id = set.id;
        let http = match &set.http {
            None => Http::All,
            Some(list) if list.0.is_empty() => Http::Nothing,
            Some(list) => {
                let (rules, problems) = HttpRules::new(&list.0, &Resolved);
                for problem in problems {
                    tracing::warn!(rule_set = id, %problem, "a rule allows nothing");
                }
                Http::Rules(rules)
            }
        };
        let kafka = set.kafka.as_ref().map(|list| {
            let (rules, problems) = l7::kafka::Rules::new(list);
            for problem in problems {
                tracing::warn!(rule_set = id, %problem, "a rule allows nothing");
            }
            rules
        });
        let mut broken = set.broken.clone();
        let terminate = set.terminating_tls.as_ref().map(contexts::server).transpose();
        let terminate = terminate.unwrap_or_else(|why| broken.replace(format!("terminatingTLS: {why:#}")).and(None));
        let originate = set.originating_tls.as_ref().map(contexts::client).transpose();
        let originate = originate.unwrap_or_else(|why| broken.replace(format!("originatingTLS: {why:#}")).and(None));
        if let Some(why) = &broken {
            tracing::warn!(rule_set = id, why, "all connections of a rule set are refused");
        }
        let server_names = (!set.server_names.is_empty()).then(|| ServerNames::new(&set.server_names));
        let names = set.dns.as_ref().map(|rules| {
            let names = rules.iter().filter_map(|rule| rule.match_name.as_deref());
            Patterns::new(names, rules.iter().filter_map(|rule| rule.match_pattern.as_deref()))
        });
        let denied_names = Patterns::new([], set.denied_names.iter().map(String::as_str));
        Rules {
            parser: set.parser,
            http,
            kafka,
            names,
            denied_names,
            server_names,
            terminate,
            originate,
            broken,
            source: set,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn update(revision: u64, whole: bool, ids: &[u32], removed: &[u32]) -> RulesUpdate {
        let set = ids.iter().map(|id| RuleSet::open(*id, Parser::Http)).collect();
        RulesUpdate { revision, whole, last: true, set, removed: removed.to_vec() }
    }

    #[test]
    fn changes_add_up_and_whole_ones_replace() {
        let ids = |table: &Table| {
            let mut ids: Vec<u32> = table.sets.keys().copied().collect();
            ids.sort_unstable();
            ids
        };
        let one = Table::default().with(update(1, true, &[1, 2], &[]));
        let two = one.with(update(2, false, &[3], &[1, 9]));
        let three = two.with(update(3, true, &[2], &[]));
        assert_eq!((ids(&one), ids(&two), ids(&three)), (vec![1, 2], vec![2, 3], vec![2]));
        assert_eq!((Table::default().revision, three.revision), (None, Some(3)));
        assert!(Arc::ptr_eq(one.get(2).unwrap(), three.get(2).unwrap()));
    }

    #[test]
    fn a05_an_empty_list_lets_nothing_pass_and_an_absent_one_all() {
        let set = |http| Rules::new(RuleSet { http, ..RuleSet::open(1, Parser::Http) }).http;
        assert!(matches!(set(None), Http::All));
        assert!(matches!(set(Some(vec![].into())), Http::Nothing));
    }
}
