//! Do labels match a selector in Kubernetes' notation, with Cilium's `source:` before keys?

use super::FilterError;

/// All requirements must hold.
pub(super) struct Selector {
    requirements: Vec<Requirement>,
}

struct Requirement {
    /// None: any source.
    source: Option<String>,
    key: String,
    operator: Operator,
}

enum Operator {
    Exists,
    Absent,
    In(Vec<String>),
    NotIn(Vec<String>),
    Greater(i64),
    Less(i64),
}

impl Selector {
    /// Labels as `source:key=value`.
    pub(super) fn matches(&self, labels: &[String]) -> bool {
        self.requirements.iter().all(|requirement| requirement.holds(labels))
    }
}

impl Requirement {
    fn holds(&self, labels: &[String]) -> bool {
        let value = labels.iter().find_map(|label| self.value(label));
        match (&self.operator, value) {
            (Operator::Exists, value) => value.is_some(),
            (Operator::Absent, value) => value.is_none(),
            (Operator::In(wanted), value) => value.is_some_and(|value| wanted.iter().any(|w| w == value)),
            (Operator::NotIn(wanted), value) => !value.is_some_and(|value| wanted.iter().any(|w| w == value)),
            (Operator::Greater(limit), value) => number(value).is_some_and(|n| n > *limit),
            (Operator::Less(limit), value) => number(value).is_some_and(|n| n < *limit),
        }
    }

    fn value<'a>(&self, label: &'a str) -> Option<&'a str> {
        let (name, value) = label.split_once('=').unwrap_or((label, ""));
        let (source, key) = name.split_once(':').unwrap_or(("", name));
        let source_fits = self.source.as_deref().is_none_or(|wanted| wanted == source);
        (source_fits && key == self.key).then_some(value)
    }
}

fn number(value: Option<&str>) -> Option<i64> {
    value?.parse().ok()
}

pub(super) fn compile(what: &'static str, texts: &[String]) -> Result<Vec<Selector>, FilterError> {
    let parse = |text: &String| {
        let parsed = Parser { rest: text }.selector();
        parsed.map_err(|why| FilterError::Label { what, text: text.clone(), why })
    };
    texts.iter().map(parse).collect()
}

struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    fn selector(mut self) -> Result<Selector, String> {
        let mut requirements = Vec::new();
        self.space();
        if self.rest.is_empty() {
            return Ok(Selector { requirements });
        }
        loop {
            requirements.push(self.requirement()?);
            self.space();
            if self.rest.is_empty() {
                return Ok(Selector { requirements });
            }
            self.expect(",")?;
        }
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        self.space();
        let absent = self.take("!");
        self.space();
        let word = self.word();
        if word.is_empty() {
            return Err(format!("found {:?}, expected a label key", self.rest));
        }
        let (source, key) = match word.split_once(':') {
            None | Some(("any", _)) => (None, word.split_once(':').map_or(word.as_str(), |(_, key)| key)),
            Some((source, key)) => (Some(source.to_owned()), key),
        };
        let key = key.to_owned();
        self.space();
        let operator = if absent { Operator::Absent } else { self.operator()? };
        Ok(Requirement { source, key, operator })
    }

    fn operator(&mut self) -> Result<Operator, String> {
        if self.rest.is_empty() || self.rest.starts_with(',') {
            return Ok(Operator::Exists);
        }
        if self.take("!=") {
            return Ok(Operator::NotIn(vec![self.value()?]));
        }
        if self.take("==") || self.take("=") {
            return Ok(Operator::In(vec![self.value()?]));
        }
        if self.take(">") {
            return Ok(Operator::Greater(self.integer()?));
        }
        if self.take("<") {
            return Ok(Operator::Less(self.integer()?));
        }
        match self.word().as_str() {
            "in" => Ok(Operator::In(self.set()?)),
            "notin" => Ok(Operator::NotIn(self.set()?)),
            word => Err(format!("found {word:?}, expected one of = == != in notin > <")),
        }
    }

    fn set(&mut self) -> Result<Vec<String>, String> {
        self.space();
        self.expect("(")?;
        let mut values = Vec::new();
        loop {
            values.push(self.value()?);
            self.space();
            if self.take(")") {
                return Ok(values);
            }
            self.expect(",")?;
        }
    }

    fn value(&mut self) -> Result<String, String> {
        self.space();
        Ok(self.word())
    }

    fn integer(&mut self) -> Result<i64, String> {
        let text = self.value()?;
        text.parse().map_err(|_| format!("found {text:?}, expected an integer"))
    }

    fn word(&mut self) -> String {
        let ends = |c: char| c.is_whitespace() || matches!(c, '=' | '!' | ',' | '(' | ')' | '<' | '>');
        let end = self.rest.find(ends).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word.to_owned()
    }

    fn space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn take(&mut self, text: &str) -> bool {
        let Some(rest) = self.rest.strip_prefix(text) else { return false };
        self.rest = rest;
        true
    }

    fn expect(&mut self, text: &str) -> Result<(), String> {
        if self.take(text) { Ok(()) } else { Err(format!("found {:?}, expected {text:?}", self.rest)) }
    }
}
