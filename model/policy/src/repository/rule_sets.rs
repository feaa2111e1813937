//! Which number stands for a set of rules?

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use foldhash::fast::RandomState as FastHash;

use crate::origin::{Implicit, RuleOrigin, RuleSet};
use crate::redirect::Redirect;
use crate::rule::Auth;

/// What a set is to hold, in any order.
#[derive(Default)]
pub(super) struct Wanted {
    pub implicit: Option<Implicit>,
    pub rules: Vec<Arc<RuleOrigin>>,
    pub auth: Auth,
    pub auth_explicit: bool,
    pub redirects: Vec<Arc<Redirect>>,
}

/// Rule sets by number; a number is never given to another set.
pub(super) struct RuleSets {
    /// With 0 in place of the number.
    by_content: HashMap<RuleSet, u32, FastHash>,
    by_id: HashMap<u32, RuleSet, FastHash>,
    next: u32,
    /// How many there may be before those that no table names are forgotten.
    limit: usize,
}

/// Sets that are kept for those who still ask for them, though no table names them.
const SPARE: usize = 4096;

impl RuleSets {
    /// No sets but that without rules, which is 0; the next one gets this number.
    pub fn starting_at(first: u32) -> Self {
        let none = Wanted { implicit: Some(Implicit::NotEnforced), ..Wanted::default() }.into_set();
        let by_content = HashMap::from_iter([(none.clone(), 0)]);
        RuleSets { by_content, by_id: HashMap::from_iter([(0, none)]), next: first.max(1), limit: SPARE }
    }
}

impl Wanted {
    fn into_set(mut self) -> RuleSet {
        self.rules.sort();
        self.rules.dedup();
        self.redirects.sort();
        self.redirects.dedup();
        RuleSet {
            id: 0,
            implicit: self.implicit,
            rules: self.rules.into(),
            auth: self.auth,
            auth_explicit: self.auth_explicit,
            redirects: self.redirects.into(),
        }
    }
}

impl RuleSets {
    /// The set of these rules, with its number.
    pub fn intern(&mut self, wanted: Wanted) -> RuleSet {
        let content = wanted.into_set();
        if let Some(known) = self.by_content.get(&content).and_then(|id| self.by_id.get(id)) {
            return known.clone();
        }
        let set = RuleSet { id: self.next, ..content.clone() };
        // after all four thousand million it begins again, and 0 stays what it is
        self.next = self.next.checked_add(1).unwrap_or(1);
        self.by_content.insert(content, set.id);
        self.by_id.insert(set.id, set.clone());
        set
    }

    /// The number of the next new set.
    pub fn next(&self) -> u32 {
        self.next
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
