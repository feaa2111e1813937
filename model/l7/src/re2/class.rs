//! Which characters does the name of a class stand for?

use regex_syntax::hir::{Class, ClassUnicode, ClassUnicodeRange, HirKind};

/// A class of these ranges, both ends included.
pub(super) fn ranges(list: &[(char, char)]) -> ClassUnicode {
    ClassUnicode::new(list.iter().map(|&(from, to)| ClassUnicodeRange::new(from, to)))
}

/// A class, or all characters but its.
pub(super) struct Named {
    class: ClassUnicode,
    negate: bool,
}

impl Named {
    /// The characters; with `fold`, of either case. Folding comes first: `\W` has no letter of either case.
    pub(super) fn characters(self, fold: bool) -> ClassUnicode {
        let Named { mut class, negate } = self;
        if fold {
            class.case_fold_simple();
        }
        if negate {
            class.negate();
        }
        class
    }

    /// The opposite, if asked.
    pub(super) fn turned(self, turn: bool) -> Named {
        Named { negate: self.negate != turn, ..self }
    }
}

impl From<ClassUnicode> for Named {
    fn from(class: ClassUnicode) -> Named {
        Named { class, negate: false }
    }
}

/// `\d`, `\s`, `\w` and their opposites: ASCII, and no vertical tab among spaces.
pub(super) fn perl(letter: char) -> Option<Named> {
    let class = match letter.to_ascii_lowercase() {
        'd' => ranges(&[('0', '9')]),
        's' => ranges(&[('\t', '\n'), ('\x0c', '\r'), (' ', ' ')]),
        'w' => ranges(&[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')]),
        _ => return None,
    };
    Some(Named::from(class).turned(letter.is_ascii_uppercase()))
}

/// A class by its POSIX name, as between `[:` and `:]`; `^` before the name turns it.
pub(super) fn posix(name: &str) -> Option<Named> {
    let (name, negate) = name.strip_prefix('^').map_or((name, false), |name| (name, true));
    let class = match name {
        "alnum" => ranges(&[('0', '9'), ('A', 'Z'), ('a', 'z')]),
        "alpha" => ranges(&[('A', 'Z'), ('a', 'z')]),
        "ascii" => ranges(&[('\0', '\x7f')]),
        "blank" => ranges(&[('\t', '\t'), (' ', ' ')]),
        "cntrl" => ranges(&[('\0', '\x1f'), ('\x7f', '\x7f')]),
        "digit" => ranges(&[('0', '9')]),
        "graph" => ranges(&[('!', '~')]),
        "lower" => ranges(&[('a', 'z')]),
        "print" => ranges(&[(' ', '~')]),
        "punct" => ranges(&[('!', '/'), (':', '@'), ('[', '`'), ('{', '~')]),
        "space" => ranges(&[('\t', '\r'), (' ', ' ')]),
        "upper" => ranges(&[('A', 'Z')]),
        "word" => ranges(&[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')]),
        "xdigit" => ranges(&[('0', '9'), ('A', 'F'), ('a', 'f')]),
        _ => return None,
    };
    Some(Named::from(class).turned(negate))
}

/// General categories that RE2 knows: the letter alone and with each of the letters after it.
const CATEGORIES: &[(&str, &str)] =
    &[("C", "cfos"), ("L", "lmotu"), ("M", "cen"), ("N", "dlo"), ("P", "cdefios"), ("S", "ckmo"), ("Z", "lps")];

/// A general category or script of Unicode by its name, as after `\p`; `^` before the name turns it.
pub(super) fn unicode(name: &str) -> Option<Named> {
    let (name, negate) = name.strip_prefix('^').map_or((name, false), |name| (name, true));
    let query = match name {
        "Any" => return Some(Named::from(ranges(&[('\0', char::MAX)])).turned(negate)),
        _ if is_category(name) => format!(r"\p{{gc={name}}}"),
        _ if is_script(name) => format!(r"\p{{sc={name}}}"),
        _ => return None,
    };
    match regex_syntax::parse(&query).ok()?.into_kind() {
        HirKind::Class(Class::Unicode(class)) => Some(Named::from(class).turned(negate)),
        _ => None,
    }
}

fn is_category(name: &str) -> bool {
    let known = |(group, members): &(&str, &str)| {
        name.strip_prefix(group).is_some_and(|rest| rest.is_empty() || (rest.len() == 1 && members.contains(rest)))
    };
    CATEGORIES.iter().any(known)
}

/// Names of scripts are written as Unicode writes them: `Greek`, `Old_Italic`.
fn is_script(name: &str) -> bool {
    name.len() > 2
        && name.starts_with(|c: char| c.is_ascii_uppercase())
        && name.chars().all(|c| c.is_ascii_alphabetic() || c == '_')
}
