//! Which number stands for a set of rules?

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::origin::{Implicit, RuleOrigin, RuleSet};

type Content = (Option<Implicit>, Arc<[Arc<RuleOrigin>]>);

/// Rule sets by number; a number is never given to another set.
pub(super) struct RuleSets {
    by_content: HashMap<Content, u32>,
    by_id: HashMap<u32, RuleSet>,
    next: u32,
    /// How many there may be before those that no table names are forgotten.
    limit: usize,
}

/// Sets that are kept for those who still ask for them, though no table names them.
const SPARE: usize = 4096;

impl Default for RuleSets {
    fn default() -> Self {
        let none = RuleSet { id: 0, implicit: Some(Implicit::NotEnforced), rules: Arc::from([]) };
        let by_content = HashMap::from([((none.implicit, none.rules.clone()), 0)]);
        RuleSets { by_content, by_id: HashMap::from([(0, none)]), next: 1, limit: SPARE }
    }
}

impl RuleSets {
    /// The set of these rules, with its number.
    pub fn intern(&mut self, implicit: Option<Implicit>, mut rules: Vec<Arc<RuleOrigin>>) -> RuleSet {
        rules.sort();
        rules.dedup();
        let content: Content = (implicit, rules.into());
        if let Some(known) = self.by_content.get(&content).and_then(|id| self.by_id.get(id)) {
            return known.clone();
        }
        let set = RuleSet { id: self.next, implicit, rules: content.1.clone() };
        self.next += 1;
        self.by_content.insert(content, set.id);
        self.by_id.insert(set.id, set.clone());
        set
    }

    /// The set of a number.
    pub fn get(&self, id: u32) -> Option<&RuleSet> {
        self.by_id.get(&id)
    }

    /// Forgets sets that none of the tables names, if there are many.
    pub fn forget<I: Iterator<Item = u32>>(&mut self, tables: impl Iterator<Item = I>) {
        if self.by_id.len() <= self.limit {
            return;
        }
        let in_use: HashSet<u32> = tables.flatten().chain([0]).collect();
        self.by_id.retain(|id, _| in_use.contains(id));
        self.by_content.retain(|_, id| in_use.contains(id));
        self.limit = 2 * self.by_id.len() + SPARE;
    }
}
