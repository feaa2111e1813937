//! What does a pattern in RE2's grammar say?
//!
//! Source: RE2's `doc/syntax.txt`, with the flags that RE2 has by default and Go's `regexp` by `syntax.Perl`.

use std::iter::Peekable;
use std::str::CharIndices;

use regex_syntax::hir::{Class, ClassUnicode, Hir, Look, Repetition};

use super::class::{self, Named};

/// How often something may be repeated, and how often all of nested repetitions together.
const MOST: u32 = 1000;
/// How deep groups may lie in each other.
const DEEPEST: usize = 500;

/// Reads a whole pattern.
pub(super) fn parse(text: &str) -> Result<Hir, String> {
    let mut parser = Parser { text, rest: text.char_indices().peekable(), flags: Flags::default() };
    let whole = parser.alternatives(0)?;
    match parser.rest.peek() {
        Some((at, _)) => Err(format!("unexpected ) at byte {at}")),
        None => Ok(whole.hir),
    }
}

#[derive(Clone, Copy, Default)]
struct Flags {
    /// `i`
    fold: bool,
    /// `s`
    dot_newline: bool,
    /// `m`
    lines: bool,
}

struct Parser<'a> {
    text: &'a str,
    rest: Peekable<CharIndices<'a>>,
    flags: Flags,
}

/// A part of an expression.
struct Part {
    hir: Hir,
    /// How often its most repeated piece is repeated.
    repeats: u32,
}

impl Part {
    fn once(hir: Hir) -> Part {
        Part { hir, repeats: 1 }
    }

    fn together(parts: Vec<Part>, join: fn(Vec<Hir>) -> Hir) -> Part {
        let repeats = parts.iter().map(|part| part.repeats).max().unwrap_or(1);
        Part { hir: join(parts.into_iter().map(|part| part.hir).collect()), repeats }
    }
}

impl<'a> Parser<'a> {
    /// Up to the end or the parenthesis that closes the group.
    fn alternatives(&mut self, depth: usize) -> Result<Part, String> {
        if depth > DEEPEST {
            return Err(format!("groups lie more than {DEEPEST} deep in each other"));
        }
        let mut branches = vec![self.sequence(depth)?];
        while self.eat('|') {
            branches.push(self.sequence(depth)?);
        }
        Ok(Part::together(branches, Hir::alternation))
    }

    fn sequence(&mut self, depth: usize) -> Result<Part, String> {
        let mut parts = Vec::new();
        // Where the operator before this place began, if there was one: two in a row are refused.
        let mut operator = None;
        while let Some(&(at, c)) = self.rest.peek() {
            let before = operator.take();
            match c {
                '|' | ')' => break,
                '(' => parts.extend(self.group(depth)?),
                '*' | '+' | '?' => {
                    self.rest.next();
                    let (least, most) = match c {
                        '*' => (0, None),
                        '+' => (1, None),
                        _ => (0, Some(1)),
                    };
                    self.repeat(&mut parts, (before, at), (least, most))?;
                    operator = before.or(Some(at));
                }
                '{' => match self.counts() {
                    Some(counts) => {
                        self.repeat(&mut parts, (before, at), counts)?;
                        operator = before.or(Some(at));
                    }
                    None => {
                        self.rest.next();
                        parts.push(self.literal(c));
                    }
                },
                '\\' if self.text[at..].starts_with("\\Q") => self.quoted(&mut parts),
                _ => parts.push(self.one()?),
            }
        }
        Ok(Part::together(parts, Hir::concat))
    }

    /// Repeats the last part. `places`: of the operator before, and of this one.
    fn repeat(
        &mut self,
        parts: &mut Vec<Part>,
        places: (Option<usize>, usize),
        (least, most): (u32, Option<u32>),
    ) -> Result<(), String> {
        // Whether it takes as much as it can makes no difference to whether the whole matches.
        self.eat('?');
        let (before, at) = places;
        let written = |from: usize, end: Option<&(usize, char)>| &self.text[from..end.map_or(self.text.len(), |e| e.0)];
        if let Some(before) = before {
            let end = self.rest.peek().copied();
            return Err(format!("bad repetition operator {} at byte {before}", written(before, end.as_ref())));
        }
        let Some(part) = parts.pop() else {
            return Err(format!("nothing to repeat at byte {at}"));
        };
        if least > MOST || most.is_some_and(|most| most > MOST || most < least) {
            return Err(format!("bad number of repetitions at byte {at}: at most {MOST}, the smaller number first"));
        }
        let counted = most.unwrap_or(least).max(1);
        let repeats = part.repeats.saturating_mul(counted);
        if counted > 1 && repeats > MOST {
            return Err(format!("repetitions in each other are more than {MOST} at byte {at}"));
        }
        let repetition = Repetition { min: least, max: most, greedy: true, sub: Box::new(part.hir) };
        parts.push(Part { hir: Hir::repetition(repetition), repeats });
        Ok(())
    }

    /// `{n}`, `{n,}` or `{n,m}`; anything else is taken as it stands.
    fn counts(&mut self) -> Option<(u32, Option<u32>)> {
        let &(at, _) = self.rest.peek()?;
        let (inside, _) = self.text[at + 1..].split_once('}')?;
        let counts = match inside.split_once(',') {
            None => number(inside).map(|n| (n, Some(n))),
            Some((least, "")) => number(least).map(|least| (least, None)),
            Some((least, most)) => Some((number(least)?, Some(number(most)?))),
        }?;
        self.skip_to(at + 1 + inside.len() + 1);
        Some(counts)
    }

    /// A group; none if it only sets flags.
    fn group(&mut self, depth: usize) -> Result<Option<Part>, String> {
        let Some((at, _)) = self.rest.next() else { return Ok(None) };
        let outer = self.flags;
        if self.text[at + 1..].starts_with('?') {
            self.rest.next();
            if !self.group_kind(at)? {
                return Ok(None);
            }
        }
        let part = self.alternatives(depth + 1)?;
        self.flags = outer;
        if !self.eat(')') {
            return Err(format!("missing ) for the ( at byte {at}"));
        }
        Ok(Some(part))
    }

    /// What follows `(?`. False if the group ends there.
    fn group_kind(&mut self, at: usize) -> Result<bool, String> {
        let rest = &self.text[at + 2..];
        if let Some(rest) = rest.strip_prefix("P<").or_else(|| rest.strip_prefix('<')) {
            let start = self.text.len() - rest.len();
            let name = rest.split_once('>').map_or("", |(name, _)| name);
            let well = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            if !well {
                return Err(format!("bad name of a group at byte {at}"));
            }
            self.skip_to(start + name.len() + 1);
            return Ok(true);
        }
        self.group_flags(at)
    }

    fn group_flags(&mut self, at: usize) -> Result<bool, String> {
        let (mut on, mut some_since_minus) = (true, true);
        for (place, c) in self.rest.by_ref() {
            match c {
                'i' => self.flags.fold = on,
                's' => self.flags.dot_newline = on,
                'm' => self.flags.lines = on,
                // Swaps what takes as much as it can and what takes as little: no difference to a match.
                'U' => {}
                '-' if on => (on, some_since_minus) = (false, false),
                ':' | ')' if some_since_minus => return Ok(c == ':'),
                _ => return Err(format!("bad group (? at byte {at}: {c:?} at byte {place}")),
            }
            some_since_minus |= c != '-';
        }
        Err(format!("missing ) for the ( at byte {at}"))
    }

    /// `\Q...\E`: as it stands.
    fn quoted(&mut self, parts: &mut Vec<Part>) {
        self.rest.next();
        self.rest.next();
        while let Some(&(at, c)) = self.rest.peek() {
            if self.text[at..].starts_with("\\E") {
                return self.skip_to(at + 2);
            }
            self.rest.next();
            parts.push(self.literal(c));
        }
    }

    /// One character, class or assertion.
    fn one(&mut self) -> Result<Part, String> {
        let Some((at, c)) = self.rest.next() else { return Ok(Part::once(Hir::empty())) };
        let look = |look| Ok(Part::once(Hir::look(look)));
        match c {
            '^' => look(if self.flags.lines { Look::StartLF } else { Look::Start }),
            '$' => look(if self.flags.lines { Look::EndLF } else { Look::End }),
            '.' if self.flags.dot_newline => Ok(unicode(class::ranges(&[('\0', char::MAX)]))),
            '.' => Ok(unicode(Named::from(class::ranges(&[('\n', '\n')])).turned(true).characters(false))),
            '[' => self.class(at),
            '\\' => self.escaped(at),
            _ => Ok(self.literal(c)),
        }
    }

    /// After a backslash: an assertion, a class or a character.
    fn escaped(&mut self, at: usize) -> Result<Part, String> {
        let look = self.rest.peek().and_then(|next| match next.1 {
            'A' => Some(Look::Start),
            'z' => Some(Look::End),
            'b' => Some(Look::WordAscii),
            'B' => Some(Look::WordAsciiNegate),
            _ => None,
        });
        if let Some(look) = look {
            self.rest.next();
            return Ok(Part::once(Hir::look(look)));
        }
        if let Some(named) = self.named_class(at)? {
            return Ok(unicode(named.characters(self.flags.fold)));
        }
        let c = self.escape(at)?;
        Ok(self.literal(c))
    }

    fn literal(&self, c: char) -> Part {
        if self.flags.fold {
            return unicode(Named::from(class::ranges(&[(c, c)])).characters(true));
        }
        Part::once(Hir::literal(c.encode_utf8(&mut [0; 4]).as_bytes()))
    }

    /// After a backslash: `\d` and its like, `\pN`, `\p{Name}`.
    fn named_class(&mut self, at: usize) -> Result<Option<Named>, String> {
        let Some(&(_, c)) = self.rest.peek() else { return Ok(None) };
        if let Some(class) = class::perl(c) {
            self.rest.next();
            return Ok(Some(class));
        }
        if !matches!(c, 'p' | 'P') {
            return Ok(None);
        }
        self.rest.next();
        let bad = || format!("no such class of Unicode at byte {at}");
        let (place, first) = self.rest.next().ok_or_else(bad)?;
        let name = match first {
            '{' => self.text[place + 1..].split_once('}').ok_or_else(bad)?.0,
            _ => &self.text[place..place + first.len_utf8()],
        };
        if first == '{' {
            self.skip_to(place + 1 + name.len() + 1);
        }
        Ok(Some(class::unicode(name).ok_or_else(bad)?.turned(c == 'P')))
    }

    /// After a backslash: one character.
    fn escape(&mut self, at: usize) -> Result<char, String> {
        let bad = || format!("bad escape at byte {at}: {:?}", self.text[at..].chars().take(4).collect::<String>());
        let (place, c) = self.rest.next().ok_or_else(|| "it ends with a backslash".to_owned())?;
        let code = match c {
            'a' => 0x07,
            'f' => 0x0c,
            't' => 0x09,
            'n' => 0x0a,
            'r' => 0x0d,
            'v' => 0x0b,
            'x' => return self.hexadecimal(place).ok_or_else(bad),
            '0' => return Ok(self.octal(0)),
            // One digit alone would refer back, which RE2 has not.
            '1'..='7' if self.rest.peek().is_some_and(|next| matches!(next.1, '0'..='7')) => {
                return Ok(self.octal(u32::from(c) - u32::from('0')));
            }
            _ if c.is_ascii() && !c.is_ascii_alphanumeric() => u32::from(c),
            _ => return Err(bad()),
        };
        char::from_u32(code).ok_or_else(bad)
    }

    /// `\xFF` or `\x{10FFFF}`. `place`: of the x.
    fn hexadecimal(&mut self, place: usize) -> Option<char> {
        let rest = &self.text[place + 1..];
        let (digits, length) = match rest.strip_prefix('{') {
            Some(rest) => rest.split_once('}').map(|(digits, _)| (digits, digits.len() + 2))?,
            None => (rest.get(..2)?, 2),
        };
        if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        self.skip_to(place + 1 + length);
        char::from_u32(u32::from_str_radix(digits, 16).ok()?)
    }

    /// Up to two more digits.
    fn octal(&mut self, first: u32) -> char {
        let mut code = first;
        for _ in 0..2 {
            let Some(digit) = self.rest.peek().and_then(|next| next.1.to_digit(8)) else { break };
            self.rest.next();
            code = code * 8 + digit;
        }
        // Three octal digits are at most 511.
        char::from_u32(code).unwrap_or_default()
    }

    /// After `[`.
    fn class(&mut self, at: usize) -> Result<Part, String> {
        let missing = || format!("missing ] for the [ at byte {at}");
        let negate = self.eat('^');
        let mut class = ClassUnicode::empty();
        let mut first = true;
        loop {
            let &(place, c) = self.rest.peek().ok_or_else(missing)?;
            if c == ']' && !first {
                self.rest.next();
                break;
            }
            first = false;
            let item = self.class_item(place, c)?;
            class.union(&item.characters(self.flags.fold));
        }
        Ok(unicode(Named::from(class).turned(negate).characters(false)))
    }

    fn class_item(&mut self, at: usize, c: char) -> Result<Named, String> {
        if self.text[at..].starts_with("[:")
            && let Some((name, _)) = self.text[at + 2..].split_once(":]")
        {
            self.skip_to(at + 2 + name.len() + 2);
            return class::posix(name).ok_or_else(|| format!("no such class [:{name}:] at byte {at}"));
        }
        if c == '\\' {
            self.rest.next();
            if let Some(class) = self.named_class(at)? {
                return Ok(class);
            }
            let low = self.escape(at)?;
            return self.range(at, low);
        }
        self.rest.next();
        self.range(at, c)
    }

    /// From a character of a class to the one after `-`, if there is one.
    fn range(&mut self, at: usize, low: char) -> Result<Named, String> {
        let mut ahead = self.rest.clone();
        let dash = ahead.next().is_some_and(|next| next.1 == '-') && ahead.peek().is_some_and(|next| next.1 != ']');
        if !dash {
            return Ok(class::ranges(&[(low, low)]).into());
        }
        self.rest.next();
        let high = match self.rest.next() {
            Some((place, '\\')) => self.escape(place)?,
            Some((_, c)) => c,
            None => return Err(format!("missing ] after byte {at}")),
        };
        if high < low {
            return Err(format!("bad range {low}-{high} at byte {at}"));
        }
        Ok(class::ranges(&[(low, high)]).into())
    }

    fn eat(&mut self, c: char) -> bool {
        self.rest.next_if(|next| next.1 == c).is_some()
    }

    /// Goes on at this byte.
    fn skip_to(&mut self, at: usize) {
        while self.rest.next_if(|next| next.0 < at).is_some() {}
    }
}

fn unicode(class: ClassUnicode) -> Part {
    Part::once(Hir::class(Class::Unicode(class)))
}

/// A count as RE2 reads it: no sign, no leading zero.
fn number(digits: &str) -> Option<u32> {
    let well = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    let leading = digits.len() > 1 && digits.starts_with('0');
    // What is too large for a number is too large for a count.
    (well && !leading).then(|| digits.parse().unwrap_or(u32::MAX))
}
