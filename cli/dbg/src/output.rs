//! How is an answer written: as text, as JSON, as YAML or by a path?

use std::io::Write;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::arguments::Output;

/// Prints a value in the format that was asked for, else as text. Names in it come from others: what a terminal would
/// obey is made visible before it becomes text.
pub fn show<T: Serialize + DeserializeOwned>(
    value: &T,
    output: &Output,
    text: impl FnOnce(&T) -> String,
) -> Result<()> {
    match &output.output {
        Some(format) => emit(&render(value, format)?),
        None => {
            let mut harmless = serde_json::to_value(value)?;
            clean(&mut harmless);
            emit(&text(&serde_json::from_value(harmless).context("read what was made harmless")?))
        }
    }
}

/// Makes control characters in all texts of a value visible.
fn clean(value: &mut Value) {
    match value {
        Value::String(text) => *text = flow::print::clean(text).into_owned(),
        Value::Array(items) => items.iter_mut().for_each(clean),
        Value::Object(map) => {
            let fields = std::mem::take(map);
            map.extend(fields.into_iter().map(|(name, mut value)| {
                clean(&mut value);
                (flow::print::clean(&name).into_owned(), value)
            }));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Writes lines to standard output, with nothing in them that a terminal would obey. That nobody reads any more is no
/// failure.
pub fn emit(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let lines: String = text.split_inclusive('\n').map(line).collect();
    match out.write_all(lines.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error).context("write the output"),
        _ => Ok(()),
    }
}

fn line(line: &str) -> String {
    let (text, end) = line.strip_suffix('\n').map_or((line, ""), |text| (text, "\n"));
    format!("{}{end}", flow::print::clean(text))
}

/// What `-o` may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// `json`
    Json,
    /// `yaml`
    Yaml,
    /// `jsonpath=...`
    Path(String),
}

impl std::str::FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "json" => Ok(Format::Json),
            "yaml" => Ok(Format::Yaml),
            _ => match text.strip_prefix("jsonpath=") {
                Some(path) => Ok(Format::Path(path.to_owned())),
                None => Err("want json, yaml or jsonpath='{...}'".into()),
            },
        }
    }
}

/// A value in a format, with a line end.
pub fn render(value: &impl serde::Serialize, format: &Format) -> Result<String> {
    let value = serde_json::to_value(value)?;
    Ok(match format {
        Format::Json => format!("{}\n", serde_json::to_string_pretty(&value)?),
        Format::Yaml => {
            let mut out = String::new();
            yaml(&value, 0, &mut out);
            out
        }
        Format::Path(path) => {
            let found = select(&value, path)?;
            let texts: Vec<String> = found.into_iter().map(plain).collect();
            format!("{}\n", texts.join(" "))
        }
    })
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn yaml(value: &Value, indent: usize, out: &mut String) {
    let pad = " ".repeat(indent);
    match value {
        Value::Object(map) if !map.is_empty() => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            for key in keys {
                out.push_str(&format!("{pad}{}:", scalar(&Value::String(key.clone()))));
                nested(&map[key], indent, out);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                let mut inner = String::new();
                yaml(item, indent + 2, &mut inner);
                out.push_str(&format!("{pad}- {}", inner.trim_start_matches(' ')));
            }
        }
        other => out.push_str(&format!("{pad}{}\n", scalar(other))),
    }
}

fn nested(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            out.push('\n');
            yaml(value, indent + 2, out);
        }
        Value::Array(items) if !items.is_empty() => {
            out.push('\n');
            yaml(value, indent, out);
        }
        other => out.push_str(&format!(" {}\n", scalar(other))),
    }
}

/// Text that YAML would take for something else is quoted.
fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => {
            let safe = |c: char| c.is_ascii_alphanumeric() || "-_./:=@+".contains(c);
            let special = matches!(text.as_str(), "true" | "false" | "null" | "yes" | "no" | "on" | "off" | "~" | "-");
            let odd_end = text.ends_with(':') || text.starts_with(['-', ':', '=', '@']);
            if text.is_empty() || special || odd_end || text.parse::<f64>().is_ok() || !text.chars().all(safe) {
                Value::String(text.clone()).to_string()
            } else {
                text.clone()
            }
        }
        Value::Object(_) => "{}".into(),
        Value::Array(_) => "[]".into(),
        other => other.to_string(),
    }
}

/// `{.a.b}`, `{[0].a}`, `{[*].a}`, `{.a['b.c']}`.
fn select<'a>(value: &'a Value, path: &str) -> Result<Vec<&'a Value>> {
    let path = path.trim_matches('\'').trim();
    let Some(inner) = path.strip_prefix('{').and_then(|p| p.strip_suffix('}')) else {
        bail!("jsonpath {path:?}: want {{.field}}")
    };
    let mut rest = inner.trim_start_matches(['$', '@']);
    let mut found = vec![value];
    while !rest.is_empty() {
        if let Some(bracket) = rest.strip_prefix('[') {
            let Some((step, after)) = bracket.split_once(']') else { bail!("jsonpath {path:?}: a ']' is missing") };
            rest = after;
            found = found.into_iter().flat_map(|v| index(v, step)).collect();
        } else {
            let name = rest.trim_start_matches('.');
            let end = name.find(['.', '[']).unwrap_or(name.len());
            found = found.into_iter().filter_map(|v| if end == 0 { Some(v) } else { v.get(&name[..end]) }).collect();
            rest = &name[end..];
        }
    }
    Ok(found)
}

fn index<'a>(value: &'a Value, step: &str) -> Vec<&'a Value> {
    if step == "*" {
        return match value {
            Value::Array(items) => items.iter().collect(),
            Value::Object(map) => map.values().collect(),
            _ => Vec::new(),
        };
    }
    match step.parse::<usize>() {
        Ok(at) => value.get(at).into_iter().collect(),
        Err(_) => value.get(step.trim_matches(['\'', '"'])).into_iter().collect(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a48_nothing_that_is_printed_moves_the_terminal() {
        let identity = agent_api::Identity {
            id: 4,
            labels: vec!["k8s:app=\u{1b}[31mred\rx\ny\tz\u{9b}2J".into()],
            ..agent_api::Identity::default()
        };
        let mut value = serde_json::to_value(&identity).unwrap();
        clean(&mut value);
        assert_eq!(value["labels"][0], "k8s:app=^[[31mred\\rx\\ny\\tz\\u009b2J");
        for format in [Format::Json, Format::Yaml, Format::Path("{.labels[0]}".into())] {
            let text: String = render(&identity, &format).unwrap().split_inclusive('\n').map(line).collect();
            assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
        }
        let json: String = render(&identity, &Format::Json).unwrap().split_inclusive('\n').map(line).collect();
        assert_eq!(serde_json::from_str::<agent_api::Identity>(&json).unwrap(), identity, "JSON means the same");
    }

    #[test]
    fn one_value_three_ways() {
        let value = serde_json::json!([{"id": 4, "status": {"state": "ready", "labels": ["k8s:app=web"], "note": "", "odd": "a: b"}}]);
        let path = Format::Path("{[0].status.labels[0]}".into());
        assert_eq!(render(&value, &path).unwrap(), "k8s:app=web\n");
        assert_eq!(render(&value, &Format::Path("{[*].id}".into())).unwrap(), "4\n");
        let expected =
            "- id: 4\n  status:\n    labels:\n    - k8s:app=web\n    note: \"\"\n    odd: \"a: b\"\n    state: ready\n";
        assert_eq!(render(&value, &Format::Yaml).unwrap(), expected);
        assert!(render(&value, &Format::Json).unwrap().starts_with("[\n  {\n    \"id\": 4"));
    }
}
