//! What is wrong with an object, and where?

use std::fmt;

/// Where an object was read from.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Source {
    /// Name of the file, if it came from one.
    pub file: Option<String>,
    /// Number of the document in the file, from 1 on.
    pub document: Option<usize>,
    /// Line in the file, from 1 on.
    pub line: Option<usize>,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(file) = &self.file else { return Ok(()) };
        f.write_str(file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        match self.document {
            Some(document) if document > 1 => write!(f, " (document {document})"),
            _ => Ok(()),
        }
    }
}

/// Something that makes an object wrong: where, what was found, what would be right.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Problem {
    /// The object's source.
    pub source: Source,
    /// Path of the field, as in `spec.egress[0].toCIDR[1]`; empty for the whole object.
    pub path: String,
    /// What is wrong, with what was found and what would be right.
    pub message: String,
}

impl Problem {
    /// A problem of a field.
    pub fn at(path: impl Into<String>, message: impl Into<String>) -> Self {
        Problem { source: Source::default(), path: path.into(), message: message.into() }
    }

    /// The same, found in this source.
    #[must_use]
    pub fn from_source(mut self, source: &Source) -> Self {
        self.source = source.clone();
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = self.source.to_string();
        for part in [&source, &self.path] {
            if !part.is_empty() {
                write!(f, "{part}: ")?;
            }
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}
