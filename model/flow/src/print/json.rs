//! How does an answer look in JSON? As Go encodes protobuf's JSON.

use serde::Serialize;

/// A value that JSON cannot express, e.g. an impossible time.
#[derive(Debug, thiserror::Error)]
#[error("print as JSON: {0}")]
pub struct JsonError(#[from] serde_json::Error);

/// One line. What HTML would take for markup is escaped, as users' scripts expect; the document means the same.
pub fn json(value: &impl Serialize) -> Result<String, JsonError> {
    let text = serde_json::to_string(value)?;
    let mut line = String::with_capacity(text.len() + 1);
    for character in text.chars() {
        match character {
            '<' | '>' | '&' | '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' => {
                line.push_str(&format!("\\u{:04x}", character as u32));
            }
            other => line.push(other),
        }
    }
    line.push('\n');
    Ok(line)
}
