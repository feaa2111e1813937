//! Which number stands for a set of rules?

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use foldhash::fast::RandomState as FastHash;
use hashbrown::HashTable;
use smallvec::SmallVec;

use super::hashed::Hashed;
use crate::origin::{Implicit, RuleOrigin, RuleSet};
use crate::redirect::Redirect;
use crate::rule::Auth;

/// What a set is to hold, in any order. The rules are known to [`RuleSets::origin`].
#[derive(Default)]
pub(super) struct Wanted {
    pub implicit: Option<Implicit>,
    pub rules: SmallVec<[Arc<RuleOrigin>; 4]>,
    pub auth: Auth,
    pub auth_explicit: bool,
    pub redirects: SmallVec<[Arc<Redirect>; 2]>,
}

/// Rule sets by number; a number is never given to another set.
pub(super) struct RuleSets {
    /// Numbers of sets with the hashes of what they hold.
    by_content: HashTable<(u64, u32)>,
    by_id: HashMap<u32, RuleSet, FastHash>,
    /// Where rules stand, each once: then equal ones are the same, and are compared by their addresses.
    origins: HashSet<Hashed<Arc<RuleOrigin>>, FastHash>,
    hash: FastHash,
    next: u32,
    /// How many sets there may be before those that no table names are forgotten.
    limit: usize,
    /// How many origins there may be before those that nobody else has are forgotten.
    most_origins: usize,
}

/// Sets that are kept for those who still ask for them, though no table names them.
const SPARE: usize = 4096;

impl RuleSets {
    /// No sets but that without rules, which is 0; the next one gets this number.
    pub fn starting_at(first: u32) -> Self {
        let mut sets = RuleSets {
            by_content: HashTable::new(),
            by_id: HashMap::default(),
            origins: HashSet::default(),
            hash: FastHash::default(),
            next: 0,
            limit: SPARE,
            most_origins: SPARE,
        };
        sets.intern(Wanted { implicit: Some(Implicit::NotEnforced), ..Wanted::default() });
        sets.next = first.max(1);
        sets
    }

    /// Where a rule stands, as sets have it.
    pub fn origin(&mut self, origin: &Arc<RuleOrigin>) -> Arc<RuleOrigin> {
        let origin = Hashed::new(origin.clone(), &self.hash);
        if let Some(known) = self.origins.get(&origin) {
            return known.key().clone();
        }
        if self.origins.len() >= self.most_origins {
            self.origins.retain(|origin| Arc::strong_count(origin.key()) > 1);
            self.most_origins = 2 * self.origins.len() + SPARE;
        }
        self.origins.insert(origin.clone());
        origin.key().clone()
    }

    /// The set of these rules, with its number.
    pub fn intern(&mut self, wanted: Wanted) -> RuleSet {
        let wanted = wanted.sorted();
        let place = wanted.place(&self.hash);
        let same = |(known, id): &(u64, u32)| *known == place && self.by_id.get(id).is_some_and(|set| wanted.is(set));
        if let Some(known) = self.by_content.find(place, same).and_then(|(_, id)| self.by_id.get(id)) {
            return known.clone();
        }
        let set = wanted.into_set(self.next);
        // after all four thousand million it begins again, and 0 stays what it is
        self.next = self.next.checked_add(1).unwrap_or(1);
        self.by_content.insert_unique(place, (place, set.id), |(place, _)| *place);
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
        let in_use: HashSet<u32, FastHash> = tables.flatten().chain([0]).collect();
        self.by_id.retain(|id, _| in_use.contains(id));
        self.by_content.retain(|(_, id)| in_use.contains(id));
        self.limit = 2 * self.by_id.len() + SPARE;
    }
}

impl Wanted {
    fn sorted(mut self) -> Self {
        self.rules.sort();
        self.rules.dedup();
        self.redirects.sort();
        self.redirects.dedup();
        self
    }

    fn place(&self, hash: &FastHash) -> u64 {
        place(hash, (self.implicit, self.auth, self.auth_explicit), &self.rules, &self.redirects)
    }

    fn is(&self, known: &RuleSet) -> bool {
        let same = |(one, two): (&Arc<RuleOrigin>, &Arc<RuleOrigin>)| Arc::ptr_eq(one, two);
        (known.implicit, known.auth, known.auth_explicit) == (self.implicit, self.auth, self.auth_explicit)
            && known.rules.len() == self.rules.len()
            && known.rules.iter().zip(&self.rules).all(same)
            && *known.redirects == *self.redirects
    }

    fn into_set(self, id: u32) -> RuleSet {
        RuleSet {
            id,
            implicit: self.implicit,
            rules: from(self.rules),
            auth: self.auth,
            auth_explicit: self.auth_explicit,
            redirects: from(self.redirects),
        }
    }
}

/// The empty list takes no memory.
fn from<T, const N: usize>(list: SmallVec<[T; N]>) -> Arc<[T]> {
    if list.is_empty() { Arc::default() } else { list.into_iter().collect() }
}

fn place(
    hash: &FastHash,
    what: (Option<Implicit>, Auth, bool),
    rules: &[Arc<RuleOrigin>],
    redirects: &[Arc<Redirect>],
) -> u64 {
    let mut state = hash.build_hasher();
    (what, rules.len()).hash(&mut state);
    rules.iter().for_each(|rule| state.write_usize(Arc::as_ptr(rule).addr()));
    redirects.hash(&mut state);
    state.finish()
}
