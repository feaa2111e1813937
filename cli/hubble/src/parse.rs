//! What did the user type? Flags keep their order, because `--not` turns the next one around.

use crate::{
    command::{Command, ROOT},
    error::Error,
    flags::{Flag, Kind},
};

/// A command line, understood.
#[derive(Debug)]
pub(crate) struct Line {
    pub command: &'static Command,
    /// `hubble observe flows`
    pub path: String,
    /// In their order.
    pub options: Vec<(&'static Flag, String)>,
    pub arguments: Vec<String>,
    pub help: bool,
}

impl Line {
    /// The last value that was given.
    pub(crate) fn last(&self, name: &str) -> Option<&str> {
        self.options.iter().rev().find(|(flag, _)| flag.name == name).map(|(_, value)| value.as_str())
    }

    /// All values that were given.
    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        let given = self.options.iter().filter(|(flag, _)| flag.name == name);
        given.map(|(_, value)| value.clone()).collect()
    }

    pub(crate) fn is_set(&self, name: &str) -> Result<bool, Error> {
        match self.last(name) {
            None => Ok(self.default(name) == "true"),
            Some(value) => truth(name, value),
        }
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.last(name).map_or_else(|| self.default(name).to_owned(), str::to_owned)
    }

    pub(crate) fn number(&self, name: &str) -> Result<u64, Error> {
        match self.last(name) {
            None => Ok(0),
            Some(value) => value.parse().map_err(|_| Error::value(name, value, "want a number from 0 on")),
        }
    }

    /// Values of all occurrences, split at commas.
    pub(crate) fn list(&self, name: &str) -> Vec<String> {
        let all = self.all(name);
        let parts = all.iter().flat_map(|value| value.split(','));
        parts.filter(|part| !part.is_empty()).map(str::to_owned).collect()
    }

    fn default(&self, name: &str) -> &'static str {
        self.command.flags().find(|flag| flag.name == name).map_or("", |flag| flag.default)
    }
}

pub(crate) fn truth(name: &str, value: &str) -> Result<bool, Error> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        other => Err(Error::value(name, other, "want true or false")),
    }
}

/// Understands the arguments after the command's name.
pub(crate) fn parse(words: &[String]) -> Result<Line, Error> {
    let (command, path, words) = find_command(words)?;
    let mut line = Line { command, path, options: Vec::new(), arguments: Vec::new(), help: false };
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--" => line.arguments.extend(words.by_ref()),
            "--help" | "-h" => line.help = true,
            long if long.starts_with("--") => long_flag(&mut line, &long[2..], &mut words)?,
            short if short.len() > 1 && short.starts_with('-') => short_flags(&mut line, &short[1..], &mut words)?,
            _ => line.arguments.push(word),
        }
    }
    Ok(line)
}

/// Walks down the commands; what remains are flags and arguments. Flags may stand before the command.
fn find_command(words: &[String]) -> Result<(&'static Command, String, Vec<String>), Error> {
    let mut command: &'static Command = &ROOT;
    let mut path = ROOT.name.to_owned();
    let mut rest = words.to_vec();
    while let Some(at) = first_argument(command, &rest) {
        match command.find(&rest[at]) {
            Some(found) => {
                command = found;
                path = format!("{path} {}", found.name);
                rest.remove(at);
            }
            None if command.runnable => break,
            None => return Err(Error::Command { name: rest[at].clone(), of: path }),
        }
    }
    Ok((command, path, rest))
}

/// Position of the first word that is neither a flag nor a flag's value.
fn first_argument(command: &Command, words: &[String]) -> Option<usize> {
    let mut index = 0;
    while index < words.len() {
        let word = &words[index];
        if word == "--" {
            return None;
        }
        if !word.starts_with('-') || word == "-" {
            return Some(index);
        }
        index += if takes_next(command, word) { 2 } else { 1 };
    }
    None
}

fn takes_next(command: &Command, word: &str) -> bool {
    if word.contains('=') {
        return false;
    }
    let flag = match word.strip_prefix("--") {
        Some(name) => known(command, name),
        None => word.chars().nth(1).filter(|_| word.len() == 2).and_then(|letter| known_short(command, letter)),
    };
    flag.is_some_and(|flag| flag.kind.implied().is_none())
}

/// Flags of commands below count as well: they may stand before the command's name.
fn known(command: &Command, name: &str) -> Option<&'static Flag> {
    let own = command.flags().find(|flag| flag.name == name);
    own.or_else(|| command.commands.iter().find_map(|below| known(below, name)))
}

fn known_short(command: &Command, letter: char) -> Option<&'static Flag> {
    let own = command.flags().find(|flag| flag.short == Some(letter));
    own.or_else(|| command.commands.iter().find_map(|below| known_short(below, letter)))
}

fn long_flag(line: &mut Line, text: &str, words: &mut impl Iterator<Item = String>) -> Result<(), Error> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text, None),
    };
    let flag = line.command.flags().find(|flag| flag.name == name);
    let flag = flag.ok_or_else(|| Error::Flag { flag: format!("--{name}"), path: line.path.clone() })?;
    let value = match (value, flag.kind.implied()) {
        (Some(value), _) => value,
        (None, Some(implied)) => implied.to_owned(),
        (None, None) => words.next().ok_or_else(|| Error::NoValue(format!("--{name}")))?,
    };
    push(line, flag, value)
}

/// `-f`, `-fA`, `-o json`, `-ojson`, `-o=json`
fn short_flags(line: &mut Line, text: &str, words: &mut impl Iterator<Item = String>) -> Result<(), Error> {
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        rest = &rest[letter.len_utf8()..];
        let flag = line.command.flags().find(|flag| flag.short == Some(letter));
        let flag = flag.ok_or_else(|| Error::Flag { flag: format!("-{letter}"), path: line.path.clone() })?;
        let value = match (rest.strip_prefix('='), flag.kind.implied()) {
            (Some(value), _) => {
                rest = "";
                value.to_owned()
            }
            (None, Some(implied)) => implied.to_owned(),
            (None, None) if !rest.is_empty() => std::mem::take(&mut rest).to_owned(),
            (None, None) => words.next().ok_or_else(|| Error::NoValue(format!("-{letter}")))?,
        };
        push(line, flag, value)?;
    }
    Ok(())
}

fn push(line: &mut Line, flag: &'static Flag, value: String) -> Result<(), Error> {
    if flag.kind == Kind::Bool {
        truth(flag.name, &value)?;
    }
    line.options.push((flag, value));
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn line(text: &str) -> Result<Line, Error> {
        parse(&text.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    /// Path, flags in their order, arguments.
    #[track_caller]
    fn check(text: &str, expected: &str) {
        let line = line(text).unwrap();
        let options: Vec<_> = line.options.iter().map(|(flag, value)| format!("{}={value}", flag.name)).collect();
        assert_eq!(format!("{} | {} | {}", line.path, options.join(" "), line.arguments.join(" ")), expected);
    }

    #[test]
    fn flags_keep_their_order() {
        check("observe --not --pod a -t drop --pod=b", "hubble observe | not=true pod=a type=drop pod=b | ");
        check("observe -fA -ojson", "hubble observe | follow=true all-namespaces=true output=json | ");
        check("observe -o=json --follow=false", "hubble observe | output=json follow=false | ");
        check("observe --from-identity 9889 --last 1 min", "hubble observe | from-identity=9889 last=1 | min");
    }

    #[test]
    fn flags_may_stand_before_commands() {
        check("--server x:1 observe flows -f", "hubble observe flows | server=x:1 follow=true | ");
        check("observe --last 5 flows", "hubble observe flows | last=5 | ");
        check("list node -o wide", "hubble list nodes | output=wide | ");
        check("w peer", "hubble watch peers |  | ");
    }

    #[test]
    fn mistakes_are_named() {
        for (text, words) in [
            ("record", "unknown command \"record\" for \"hubble\""),
            ("observe --nope", "--nope"),
            ("observe --last", "--last"),
            ("observe -o", "-o"),
            ("observe -fz", "-z"),
            ("observe --follow=maybe", "maybe"),
            ("list pods", "pods"),
        ] {
            let error = line(text).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
