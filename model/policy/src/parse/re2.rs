//! Is this a regular expression in the dialect of the field?
//!
//! The dialect is RE2's with Perl's classes. What it refuses and others take (look-around, back-references, repeated
//! repetition, more than a thousand repetitions) is refused; how deep groups may be nested has a limit.

/// Most repetitions, as a number in braces and multiplied over nested ones.
const MAX_REPEAT: u32 = 1000;
/// Deepest nesting of groups.
const MAX_DEPTH: usize = 200;

/// Says what is wrong, if anything is.
pub(super) fn check(pattern: &str) -> Result<(), String> {
    let mut reader = Checker { rest: pattern, depth: 0 };
    reader.alternation()?;
    match reader.rest.chars().next() {
        None => Ok(()),
        Some(found) => Err(format!("unexpected {found}: {}", reader.rest)),
    }
}

struct Checker<'a> {
    rest: &'a str,
    depth: usize,
}

/// How often what stands before may come.
enum Repeat {
    None,
    Some { most: u32 },
}

impl Checker<'_> {
    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let first = self.peek()?;
        self.rest = &self.rest[first.len_utf8()..];
        Some(first)
    }

    fn eat(&mut self, text: &str) -> bool {
        match self.rest.strip_prefix(text) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// Yields the product of the repetitions within.
    fn alternation(&mut self) -> Result<u32, String> {
        let mut most = self.concatenation()?;
        while self.eat("|") {
            most = most.max(self.concatenation()?);
        }
        Ok(most)
    }

    fn concatenation(&mut self) -> Result<u32, String> {
        let mut most = 1;
        while let Some(first) = self.peek() {
            if matches!(first, '|' | ')') {
                break;
            }
            let inner = self.atom(first)?;
            let mut repeated = false;
            loop {
                let before = self.rest;
                let Repeat::Some { most: times } = self.repeat()? else { break };
                let operator = &before[..before.len() - self.rest.len()];
                if repeated {
                    return Err(format!("invalid nested repetition operator: {operator}"));
                }
                repeated = true;
                let total = inner.saturating_mul(times.max(1));
                if total > MAX_REPEAT {
                    return Err(format!("invalid repeat count: more than {MAX_REPEAT} repetitions"));
                }
                most = most.max(total);
            }
            most = most.max(inner);
        }
        Ok(most)
    }

    fn atom(&mut self, first: char) -> Result<u32, String> {
        match first {
            '*' | '+' | '?' => Err(format!("missing argument to repetition operator: {first}")),
            '(' => self.group(),
            '[' => self.class().map(|()| 1),
            '\\' => self.escape(false).map(|()| 1),
            '{' if self.braces().is_some() => Err("missing argument to repetition operator: {".to_owned()),
            _ => {
                self.next();
                Ok(1)
            }
        }
    }

    fn repeat(&mut self) -> Result<Repeat, String> {
        let most = match self.peek() {
            Some('*' | '+' | '?') => {
                self.next();
                1
            }
            Some('{') => match self.braces() {
                Some((least, most, length)) => {
                    if least > MAX_REPEAT || most.is_some_and(|most| most > MAX_REPEAT || most < least) {
                        return Err(format!("invalid repeat count: {}", &self.rest[..length]));
                    }
                    self.rest = &self.rest[length..];
                    most.unwrap_or(least)
                }
                // Braces that say nothing are braces.
                None => return Ok(Repeat::None),
            },
            _ => return Ok(Repeat::None),
        };
        self.eat("?");
        Ok(Repeat::Some { most })
    }

    /// `{2}`, `{2,}`, `{2,3}` ahead: least, most and how long it is.
    fn braces(&self) -> Option<(u32, Option<u32>, usize)> {
        let close = self.rest.find('}')?;
        let inner = self.rest.get(1..close)?;
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let canonical = text == "0" || !text.starts_with('0');
            (digits && canonical).then(|| text.parse::<u32>().unwrap_or(u32::MAX))
        };
        let (least, most) = match inner.split_once(',') {
            None => (number(inner)?, Some(number(inner)?)),
            Some((least, "")) => (number(least)?, None),
            Some((least, most)) => (number(least)?, Some(number(most)?)),
        };
        Some((least, most, close + 1))
    }

    fn group(&mut self) -> Result<u32, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!("groups are nested deeper than {MAX_DEPTH}"));
        }
        self.next();
        if self.eat("?") {
            let named = ["P<", "<"].iter().any(|open| self.eat(open));
            if named {
                self.name()?
            } else {
                self.flags()?
            }
            if self.rest.is_empty() {
                return Err("missing closing )".to_owned());
            }
        }
        let most = self.alternation()?;
        if !self.eat(")") {
            return Err("missing closing )".to_owned());
        }
        self.depth -= 1;
        Ok(most)
    }

    fn name(&mut self) -> Result<(), String> {
        let Some((name, rest)) = self.rest.split_once('>') else {
            return Err("invalid named capture: it has no end".to_owned());
        };
        let word = |one: char| one == '_' || one.is_ascii_alphanumeric();
        if name.is_empty() || !name.chars().all(word) {
            return Err(format!("invalid named capture: {name:?}"));
        }
        self.rest = rest;
        Ok(())
    }

    /// `i`, `m`, `s`, `U`, switched off behind a dash; then a colon, or the end of the group.
    fn flags(&mut self) -> Result<(), String> {
        let (mut minus, mut count) = (false, 0);
        loop {
            match self.peek() {
                Some('i' | 'm' | 's' | 'U') => count += 1,
                Some('-') if !minus => {
                    (minus, count) = (true, 0);
                }
                Some(':') if !minus || count > 0 => {
                    self.next();
                    return Ok(());
                }
                Some(')') if count > 0 => return Ok(()),
                found => {
                    let found = found.map(String::from).unwrap_or_default();
                    return Err(format!("invalid or unsupported Perl syntax: (?{found}"));
                }
            }
            self.next();
        }
    }

    fn escape(&mut self, in_class: bool) -> Result<(), String> {
        self.next();
        let Some(found) = self.next() else { return Err("trailing backslash at end of expression".to_owned()) };
        match found {
            'Q' if !in_class => {
                let end = self.rest.find("\\E").map_or(self.rest.len(), |at| at + 2);
                self.rest = &self.rest[end..];
                Ok(())
            }
            'A' | 'b' | 'B' | 'z' | 'C' if !in_class => {
                if found == 'C' {
                    Err("invalid escape sequence: \\C".to_owned())
                } else {
                    Ok(())
                }
            }
            'd' | 'D' | 's' | 'S' | 'w' | 'W' => Ok(()),
            'p' | 'P' => self.property(),
            'x' => self.hexadecimal(),
            '0' => {
                let digits = self.rest.bytes().take(2).take_while(|byte| (b'0'..=b'7').contains(byte)).count();
                self.rest = &self.rest[digits..];
                Ok(())
            }
            // Back-references are not in the language; a digit that begins an octal number of two digits or more is.
            '1'..='7' if self.peek().is_some_and(|next| ('0'..='7').contains(&next)) => {
                self.next();
                Ok(())
            }
            'a' | 'f' | 'n' | 'r' | 't' | 'v' => Ok(()),
            _ if found.is_ascii_punctuation() => Ok(()),
            _ => Err(format!("invalid escape sequence: \\{found}")),
        }
    }

    fn property(&mut self) -> Result<(), String> {
        let (name, rest) = match self.rest.strip_prefix('{') {
            Some(inner) => inner.split_once('}').ok_or("invalid character class range: \\p{")?,
            None => match self.peek() {
                Some(one) => self.rest.split_at(one.len_utf8()),
                None => return Err("invalid character class range: \\p".to_owned()),
            },
        };
        let class = format!("\\p{{{}}}", name.trim_start_matches('^'));
        if regex_syntax::Parser::new().parse(&class).is_err() {
            return Err(format!("invalid character class range: \\p{{{name}}}"));
        }
        self.rest = rest;
        Ok(())
    }

    fn hexadecimal(&mut self) -> Result<(), String> {
        let wrong = || "invalid escape sequence: \\x".to_owned();
        let (digits, rest) = match self.rest.strip_prefix('{') {
            Some(inner) => inner.split_once('}').ok_or_else(wrong)?,
            None => (self.rest.get(..2).ok_or_else(wrong)?, self.rest.get(2..).unwrap_or_default()),
        };
        let number = u32::from_str_radix(digits, 16).ok().filter(|number| *number <= 0x0010_ffff);
        if number.is_none() || digits.starts_with('+') {
            return Err(wrong());
        }
        self.rest = rest;
        Ok(())
    }

    fn class(&mut self) -> Result<(), String> {
        let whole = self.rest;
        self.next();
        self.eat("^");
        let mut first = true;
        loop {
            let Some(found) = self.peek() else { return Err(format!("missing closing ]: {whole}")) };
            if found == ']' && !first {
                self.next();
                return Ok(());
            }
            // A dash stands for itself at either end, and behind a class.
            if found == '-' && !first && !self.rest.starts_with("-]") {
                let next = self.rest[1..].chars().next();
                if next.is_some() {
                    return Err(format!("invalid character class range: -{}", next.unwrap_or_default()));
                }
            }
            first = false;
            if self.named_class()? {
                continue;
            }
            let low = self.class_member()?;
            if self.rest.starts_with('-') && !self.rest.starts_with("-]") {
                self.next();
                let high = self.class_member()?;
                if let (Some(low), Some(high)) = (low, high)
                    && high < low
                {
                    return Err(format!("invalid character class range: {low}-{high}"));
                }
            }
        }
    }

    /// `[:alpha:]` and the like.
    fn named_class(&mut self) -> Result<bool, String> {
        const NAMES: &[&str] = &[
            "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper",
            "word", "xdigit",
        ];
        let Some(end) = self.rest.strip_prefix("[:").and_then(|inner| inner.find(":]")) else { return Ok(false) };
        let name = &self.rest[2..2 + end];
        if !NAMES.contains(&name.trim_start_matches('^')) {
            return Err(format!("invalid character class range: [:{name}:]"));
        }
        self.rest = &self.rest[end + 4..];
        Ok(true)
    }

    /// One character, or `None` for a class of several.
    fn class_member(&mut self) -> Result<Option<char>, String> {
        match self.peek() {
            None => Err("missing closing ]".to_owned()),
            Some('\\') => {
                let kept = self.rest.chars().nth(1).filter(char::is_ascii_punctuation);
                self.escape(true)?;
                Ok(kept)
            }
            Some(_) => Ok(self.next()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn what_the_field_takes() {
        for pattern in [
            "",
            "/api/{id}",
            "a{,3}",
            "[[]",
            r"\Q..\E",
            "GET",
            "/downloads/.*",
            "^/a$",
            "(a|b)+?",
            "[a-z]{1,3}",
            r"\d+\.\w*",
            "(?i)x",
            "(?i:x)",
            "(?P<n>x)",
            "(?<n>x)",
            "[]a]",
            "[^]a]",
            "[a-]",
            "[-a]",
            r"[\]\-]",
            "a{1000}",
            "[[:alpha:]]",
            r"\pL\p{Greek}",
            "{}",
            "x{a}",
            r"\x41\x{1F600}",
            "|",
            "a||b",
            r"\012",
            "()",
        ] {
            assert_eq!(check(pattern), Ok(()), "{pattern}");
        }
    }

    #[test]
    fn what_the_field_refuses() {
        for pattern in [
            "[a--b]",
            "x**",
            "a++",
            "a{1001}",
            "(?x)",
            "(",
            ")",
            "[",
            "*",
            "+a",
            "(?=x)",
            "(?!x)",
            r"\1",
            r"\",
            "[z-a]",
            "a{2,1}",
            "(a{500}){3}",
            r"\8",
            r"\y",
            "[[:nope:]]",
            r"\p{Nope}",
            "(?P<>x)",
            r"\xZZ",
            "(?P=n)",
            "a???",
        ] {
            assert!(check(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn bombs_end() {
        assert!(check(&"(".repeat(100_000)).is_err());
        assert!(check(&"((a{10}){10}){10}){10}".repeat(1000)).is_err());
        assert!(check(&"a|".repeat(100_000)).is_ok());
    }
}
