//! At which lines do the fields of a text's documents stand?

use std::collections::HashMap;

use serde_saphyr::Spanned;

use crate::form::Node;
use crate::load::{Limits, options, split};
use crate::problem::Source;

/// The lines of the fields of all documents, by the line at which the document begins and the path.
#[derive(Clone, Debug, Default)]
pub struct Lines(HashMap<usize, HashMap<String, usize>>);

impl Lines {
    /// The lines of a text. Documents that cannot be read have none.
    pub fn new(text: &str, limits: &Limits) -> Self {
        let mut lines = HashMap::new();
        for (first, part) in split(text) {
            let read = serde_saphyr::from_str_with_options::<Spanned<Node>>(&part, options(limits));
            let mut known = HashMap::new();
            if let Ok(root) = read {
                note(&root, String::new(), first, &mut known);
            }
            lines.insert(first, known);
        }
        Lines(lines)
    }

    /// The line of a field like `spec.ingress[0]`, or of the nearest one around it.
    pub fn of(&self, document: &Source, path: &str) -> Option<usize> {
        let known = self.0.get(&document.line?)?;
        let mut path = path;
        loop {
            if let Some(line) = known.get(path) {
                return Some(*line);
            }
            path = &path[..path.rfind(['.', '['])?];
        }
    }
}

fn note(node: &Spanned<Node>, path: String, first: usize, known: &mut HashMap<String, usize>) {
    match &node.value {
        Node::Scalar => {}
        Node::List(items) => {
            items.iter().enumerate().for_each(|(at, item)| note(item, format!("{path}[{at}]"), first, known));
        }
        Node::Fields(fields) => {
            for (name, value) in fields {
                let path = if path.is_empty() { name.value.clone() } else { format!("{path}.{}", name.value) };
                note(value, path, first, known);
            }
        }
    }
    let line = usize::try_from(node.referenced.line()).unwrap_or(1);
    known.insert(path, first + line.saturating_sub(1));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{LIMITS, load_documents};

    #[test]
    fn each_field_has_its_line() {
        let text = "# first\n---\na: 1\n---\nspec:\n  egress:\n  - {}\n  - toPorts:\n    - ports:\n      - port: x\n        other: {a.b/c: d, e: null}\n";
        let lines = Lines::new(text, &LIMITS);
        let (documents, _) = load_documents("f", text, &LIMITS);
        let source = &documents[1].source;
        for (path, line) in [
            ("spec.egress[0]", 7),
            ("spec.egress[1]", 8),
            ("spec.egress[1].toPorts[0].ports[0].port", 10),
            ("spec.egress[1].toPorts[0].ports[0].other.a.b/c", 11),
            ("spec.egress[1].toPorts[0].ports[0].nosuch", 10),
            ("spec.egress[1].nosuch.deep[3].er", 8),
        ] {
            assert_eq!(lines.of(source, path), Some(line), "{path}");
        }
        assert_eq!(lines.of(&documents[0].source, "a"), Some(3));
        assert_eq!(lines.of(&Source::default(), "a"), None);
    }
}
