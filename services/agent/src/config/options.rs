//! Which settings are known at all, of which kind, and with which default?

use std::sync::LazyLock;

/// Kind of a setting's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`; as a flag it needs no value.
    Bool,
    /// Anything else.
    Text,
}

/// A setting whose name means something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its name, as flag and as file.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// Its default as text.
    pub default: &'static str,
}

impl Known {
    /// True for values that ask for nothing: the default, or the feature switched off.
    pub fn is_off(&self, value: &str) -> bool {
        value == self.default || matches!(value, "" | "false" | "0" | "0s" | "none" | "disabled" | "[]" | "{}")
    }
}

static KNOWN: LazyLock<Vec<Known>> = LazyLock::new(|| include_str!("options.txt").lines().filter_map(parse).collect());

/// All known settings, by name.
pub fn known() -> &'static [Known] {
    &KNOWN
}

/// The known setting of this name.
pub fn find(name: &str) -> Option<&'static Known> {
    known().iter().find(|known| known.name == name)
}

/// The known name that is nearest to this one.
pub fn nearest(name: &str) -> &'static str {
    known().iter().min_by_key(|known| distance(known.name, name)).map_or("", |known| known.name)
}

fn parse(line: &'static str) -> Option<Known> {
    let mut words = line.splitn(3, ' ');
    let name = words.next().filter(|name| !name.is_empty())?;
    let kind = if words.next() == Some("bool") { Kind::Bool } else { Kind::Text };
    Some(Known { name, kind, default: words.next().unwrap_or("") })
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}
