//! Which objects does a YAML or JSON text hold?

use serde_json::Value;

use crate::problem::{Problem, Source};

/// Where reading stops, so that no input costs more than it is worth.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Bytes of a text.
    pub bytes: usize,
    /// Documents of a text.
    pub documents: usize,
    /// Depth of nesting.
    pub depth: usize,
    /// Values in a document, those that aliases repeat included.
    pub nodes: usize,
    /// Aliases in a document.
    pub aliases: usize,
}

/// What our commands use: more than Kubernetes stores of an object, less than hurts.
pub const LIMITS: Limits = Limits { bytes: 16 << 20, documents: 20_000, depth: 64, nodes: 100_000, aliases: 1_000 };

/// One object of a text, and where it stood.
#[derive(Clone, PartialEq, Debug)]
pub struct Document {
    /// Where it stood.
    pub source: Source,
    /// The object.
    pub value: Value,
}

/// The documents of a text. Empty ones are left out, and a `List` is taken apart. One that cannot be read is a
/// problem; the others are there nevertheless, and whoever must not load a part asks for the problems first.
pub fn load_documents(file: &str, text: &str, limits: &Limits) -> (Vec<Document>, Vec<Problem>) {
    let whole = Source { file: Some(file.to_owned()), document: None, line: None };
    let refuse = |message: String| (Vec::new(), vec![Problem::at("", message).from_source(&whole)]);
    if text.len() > limits.bytes {
        return refuse(format!("the file has {} bytes and may have at most {}", text.len(), limits.bytes));
    }
    let parts = split(text);
    if parts.len() > limits.documents {
        return refuse(format!("the file has {} documents and may have at most {}", parts.len(), limits.documents));
    }
    let (mut documents, mut problems) = (Vec::new(), Vec::new());
    for (index, (first_line, part)) in parts.into_iter().enumerate() {
        let source = Source { document: Some(index + 1), line: Some(first_line), ..whole.clone() };
        match parse(&part, limits) {
            Ok(Value::Null) => {}
            Ok(value) => documents.extend(items(value).map(|value| Document { source: source.clone(), value })),
            Err((line, message)) => {
                let source = Source { line: Some(first_line + line.saturating_sub(1)), ..source };
                problems.push(Problem::at("", message).from_source(&source));
            }
        }
    }
    (documents, problems)
}

/// The texts between document markers, with the number of the first line that says something.
pub(crate) fn split(text: &str) -> Vec<(usize, String)> {
    let mut parts = vec![(1, String::new())];
    for (index, line) in text.lines().enumerate() {
        let marker = line == "---" || line.starts_with("--- ") || line.starts_with("---\t");
        if marker {
            // What follows the marker on its line belongs to the document.
            let rest = line[3..].trim_start();
            let rest = if rest.starts_with('#') { "" } else { rest };
            parts.push((index + 1, format!("{rest}\n")));
        } else if let Some((_, part)) = parts.last_mut() {
            part.push_str(line);
            part.push('\n');
        }
    }
    let says_something = |part: &str| part.lines().any(|line| !line.trim().is_empty() && !line.trim().starts_with('#'));
    parts.retain(|(_, part)| says_something(part));
    parts
}

/// How a document is read.
pub(crate) fn options(limits: &Limits) -> serde_saphyr::Options {
    let mut budget = serde_saphyr::Budget::default();
    budget.max_depth = limits.depth;
    budget.flow_nesting_limit = limits.depth;
    budget.max_nodes = limits.nodes;
    budget.max_events = 4 * limits.nodes;
    budget.max_aliases = limits.aliases;
    budget.max_anchors = limits.aliases;
    budget.max_documents = 1;
    let mut options = serde_saphyr::Options::default();
    options.budget = Some(budget);
    options.alias_limits.max_total_replayed_events = limits.nodes;
    options.alias_limits.max_replay_stack_depth = limits.depth;
    options
}

fn parse(text: &str, limits: &Limits) -> Result<Value, (usize, String)> {
    let read = serde_saphyr::from_str_with_options::<Option<Value>>(text, options(limits));
    let value = read.map(Option::unwrap_or_default).map_err(|error| {
        let line = error.location().map_or(1, |location| location.line() as usize);
        let message = error.without_snippet().to_string();
        (line, format!("this is not YAML or JSON that can be read: {message}"))
    })?;
    match crate::keys::misread(text, &value, limits) {
        Some((line, message)) => Err((line, message)),
        None => Ok(value),
    }
}

/// The object, or the items if it is a `List` of Kubernetes.
fn items(value: Value) -> impl Iterator<Item = Value> {
    let is_list = value.get("kind").and_then(Value::as_str) == Some("List");
    let items = match value {
        Value::Object(mut fields) if is_list => match fields.remove("items") {
            Some(Value::Array(items)) => items,
            _ => Vec::new(),
        },
        other => vec![other],
    };
    items.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> (Vec<Document>, Vec<Problem>) {
        load_documents("p.yaml", text, &LIMITS)
    }

    #[test]
    fn documents_come_with_their_place() {
        let (documents, problems) = load("# nothing\n---\na: 1\n---\n# more\nb: '2'\n---\n");
        assert_eq!(problems, []);
        let places: Vec<_> = documents.iter().map(|one| (one.source.line, one.value.to_string())).collect();
        assert_eq!(places, [(Some(2), r#"{"a":1}"#.to_owned()), (Some(4), r#"{"b":"2"}"#.to_owned())]);
    }

    #[test]
    fn lists_are_taken_apart_and_json_is_yaml() {
        let (documents, _) = load(r#"{"kind": "List", "items": [{"a": 1}, {"a": 2}]}"#);
        assert_eq!(documents.len(), 2);
    }

    #[test]
    fn broken_text_says_file_and_line_and_spares_the_others() {
        let (documents, problems) = load("a: 1\n---\nb: [1\nc: 2\n---\nd: 3\n");
        assert_eq!(documents.len(), 2);
        let text = problems[0].to_string();
        assert!(text.starts_with("p.yaml:") && text.contains("(document 2)"), "{text}");
    }

    #[test]
    fn quoted_numbers_stay_texts_and_keys_may_not_repeat() {
        let (documents, _) = load("port: '53'\nend: 53\n");
        assert_eq!(documents[0].value.to_string(), r#"{"port":"53","end":53}"#);
        assert_eq!(load("a: 1\na: 2\n").1.len(), 1);
    }

    /// What sigs.k8s.io/yaml 1.6.0 makes of the same texts. It takes a leading zero for octal and a number without a fraction
    /// for a whole one: such numbers stay fractions here, which no field takes.
    #[test]
    fn values_are_what_kubectl_reads() {
        for (text, value) in [
            ("yes", "true"),
            ("no", "false"),
            ("on", "true"),
            ("off", "false"),
            ("y", "true"),
            ("n", "false"),
            ("Y", "true"),
            ("N", "false"),
            ("Yes", "true"),
            ("NO", "false"),
            ("On", "true"),
            ("OFF", "false"),
            ("True", "true"),
            ("FALSE", "false"),
            ("'no'", r#""no""#),
            ("!!str no", r#""no""#),
            ("null", "null"),
            ("~", "null"),
            ("", "null"),
            ("0o10", "8"),
            ("0x10", "16"),
            ("0b11", "3"),
            ("1_000", "1000"),
            ("+5", "5"),
            ("1:30", r#""1:30""#),
            ("1.2.3.4", r#""1.2.3.4""#),
            ("2026-01-01", r#""2026-01-01""#),
            ("010", "10.0"),
            ("1e3", "1000.0"),
        ] {
            let (documents, problems) = load(&format!("a: {text}\n"));
            assert_eq!(problems, [], "{text}");
            assert_eq!(documents[0].value["a"].to_string(), value, "{text}");
        }
    }

    #[test]
    fn bombs_are_refused() {
        let deep = format!("{}1{}", "[".repeat(5_000), "]".repeat(5_000));
        assert_eq!(load(&deep).1.len(), 1);
        let mut aliases = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for level in 1..12 {
            let before = level - 1;
            aliases += &format!("a{level}: &a{level} [{}]\n", vec![format!("*a{before}"); 10].join(","));
        }
        assert_eq!(load(&aliases).1.len(), 1);
        let many = "- 1\n".repeat(200_000);
        assert_eq!(load(&many).1.len(), 1);
        let long = "x".repeat(LIMITS.bytes + 1);
        assert!(load(&long).1[0].message.contains("may have at most"));
    }
}
