//! What does the policy of one end come to, told apart as far as it matters to a packet?

use std::collections::HashMap;
use std::sync::Arc;

use abi::policy::{VERDICT_ALLOW, VERDICT_DEFAULT_DENY, VERDICT_REDIRECT, VerdictEntry};
use policy::{Auth, EndpointPolicy, Redirect};

/// What one end says of a packet.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Decision {
    /// It is kept out.
    Deny,
    /// It is kept out until both sides prove who they are.
    Proof(Auth),
    /// It passes; what the proxies ask, if it goes to one.
    Allow(Vec<Arc<Redirect>>),
    /// The rules cannot be put together: endpoints keep the tables that they have.
    Broken(Arc<str>),
}

/// Number of a decision.
pub type DecisionId = u32;

/// Decisions by number.
#[derive(Default)]
pub struct Decisions {
    known: Vec<Decision>,
    by_decision: HashMap<Decision, DecisionId>,
}

impl Decision {
    /// What an entry of an endpoint's tables means.
    pub fn of(policy: &EndpointPolicy, entry: &VerdictEntry) -> Decision {
        if let Some(error) = &policy.error {
            return Decision::Broken(error.clone());
        }
        let set = policy.rule_set(entry.rule_set);
        match entry.verdict {
            VERDICT_ALLOW => Decision::Allow(Vec::new()),
            VERDICT_REDIRECT => Decision::Allow(set.map(|set| set.redirects.to_vec()).unwrap_or_default()),
            VERDICT_DEFAULT_DENY => Decision::Deny,
            _ => match set.map(|set| set.auth) {
                None | Some(Auth::Disabled) => Decision::Deny,
                Some(auth) => Decision::Proof(auth),
            },
        }
    }
}

impl Decisions {
    /// The number of a decision.
    pub fn number(&mut self, decision: Decision) -> DecisionId {
        if let Some(known) = self.by_decision.get(&decision) {
            return *known;
        }
        let number = self.known.len() as DecisionId;
        self.known.push(decision.clone());
        self.by_decision.insert(decision, number);
        number
    }

    /// The decision of a number.
    pub fn get(&self, number: DecisionId) -> &Decision {
        &self.known[number as usize]
    }
}
