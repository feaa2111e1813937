//! How full are the datapath's tables, and who is told when one is nearly full?

use std::collections::BTreeMap;

/// From this share on it is told.
const HIGH: f64 = 0.9;
/// Below this share it is over.
const LOW: f64 = 0.8;

/// Entries of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// There are so many.
    pub entries: u64,
    /// There can be so many.
    pub most: u64,
}

impl Fill {
    /// From 0 to 1.
    pub fn share(self) -> f64 {
        if self.most == 0 { 0.0 } else { self.entries as f64 / self.most as f64 }
    }
}

/// All tables that were looked at, by name.
#[derive(Clone, Debug, Default)]
pub struct Pressure {
    tables: BTreeMap<&'static str, Fill>,
    high: BTreeMap<&'static str, ()>,
}

/// What is worth a line in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// The table is nearly full.
    NearlyFull,
    /// It has room again.
    Relaxed,
}

impl Pressure {
    /// A table was looked at. It is news once, and again only after it had room.
    pub fn note(&mut self, table: &'static str, fill: Fill) -> Option<News> {
        self.tables.insert(table, fill);
        if fill.share() >= HIGH {
            return self.high.insert(table, ()).is_none().then_some(News::NearlyFull);
        }
        (fill.share() < LOW && self.high.remove(table).is_some()).then_some(News::Relaxed)
    }

    /// The tables.
    pub fn tables(&self) -> impl Iterator<Item = (&'static str, Fill)> {
        self.tables.iter().map(|(name, fill)| (*name, *fill))
    }

    /// Those that are nearly full.
    pub fn nearly_full(&self) -> impl Iterator<Item = (&'static str, Fill)> {
        self.tables().filter(|(name, _)| self.high.contains_key(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_fills_up_is_told_of_once() {
        let mut pressure = Pressure::default();
        let mut note = |entries| pressure.note("cilium_ct4", Fill { entries, most: 100 });
        let told: Vec<Option<News>> = [10, 90, 100, 85, 95, 79, 90].into_iter().map(&mut note).collect();
        let (full, relaxed) = (Some(News::NearlyFull), Some(News::Relaxed));
        assert_eq!(told, [None, full, None, None, None, relaxed, full]);
        assert_eq!(pressure.nearly_full().map(|(name, _)| name).collect::<Vec<_>>(), ["cilium_ct4"]);
        assert_eq!(Fill { entries: 0, most: 0 }.share(), 0.0);
    }
}
