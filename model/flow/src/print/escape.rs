//! Can a name in a flow take over the terminal, or fake a line? Not after this.

use std::borrow::Cow;

/// Replaces control characters, and those that reorder text, by visible ones.
pub fn clean(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_foul) {
        return Cow::Borrowed(text);
    }
    let mut cleaned = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        match character {
            '\r' => cleaned.push_str("\\r"),
            '\n' => cleaned.push_str("\\n"),
            '\t' => cleaned.push_str("\\t"),
            '\0'..='\x1f' => {
                cleaned.push('^');
                cleaned.push(char::from(character as u8 + b'@'));
            }
            '\x7f' => cleaned.push_str("^?"),
            other if is_foul(other) => cleaned.push_str(&format!("\\u{:04x}", other as u32)),
            other => cleaned.push(other),
        }
    }
    Cow::Owned(cleaned)
}

fn is_foul(character: char) -> bool {
    let reorders = matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    character.is_control() || reorders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_become_visible() {
        for (text, expected) in [
            ("default/pod-1", "default/pod-1"),
            ("ünï", "ünï"),
            ("\x1b[31mred\x1b[0m", "^[[31mred^[[0m"),
            ("a\rb\nc\td", "a\\rb\\nc\\td"),
            ("\u{9b}31m", "\\u009b31m"),
            ("\x07\x7f\0", "^G^?^@"),
            ("a\u{202e}b", "a\\u202eb"),
        ] {
            assert_eq!(clean(text), expected);
        }
    }
}
